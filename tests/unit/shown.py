"""Cells as text, from the log and from SELECT, so that both can be compared."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import pymysql

from warp.model import UNCHANGED, Invalid, Kind

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock
LONG = 500
_BYTES = {
    *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"),
    *("geometry", "point", "linestring", "polygon"),
}


def shown(kind: Kind, cell: Any) -> Any:
    """A carrier as `select_expression` makes the server show it."""
    return shortened(_shown(kind, cell))


def _shown(kind: Kind, cell: Any) -> Any:
    if cell is None:
        return None
    if cell is UNCHANGED:
        return "UNCHANGED"
    if isinstance(cell, Invalid):
        return padded(cell.text)
    if kind in (Kind.BYTES, Kind.UUID):
        return cell.hex().upper()
    if kind is Kind.JSON:
        return cell.decode()
    if kind is Kind.FLOAT32:
        assert struct.unpack("f", struct.pack("f", cell))[0] == cell
        return struct.pack(">f", cell + 0.0).hex()
    if kind is Kind.FLOAT64:
        return struct.pack(">d", cell + 0.0).hex()
    if kind in (Kind.DATETIME, Kind.TIMESTAMP):
        at = _EPOCH + dt.timedelta(microseconds=cell)
        return f"{at.year:04}-{at:%m-%d %H:%M:%S.%f}"
    if kind is Kind.DATE:
        return cell.isoformat()
    if kind is Kind.BOOL:
        return str(int(cell))
    if kind is Kind.DECIMAL:
        return f"{cell:f}"
    return str(cell)


def shortened(value: Any) -> Any:
    """What is too long to be kept in a file, by its length and hash."""
    if not isinstance(value, str) or len(value) < LONG:
        return value
    return f"{value[:40]}… {len(value)} characters, {sha256(value.encode()).hexdigest()}"


def padded(text: str) -> str:
    """A date and time with all six digits, as `select_expression` asks for."""
    if len(text) < 19:
        return text
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<6}"


def select_expression(name: str, data_type: str) -> str:
    quoted = "`" + name.replace("`", "``") + "`"
    if data_type in _BYTES:
        return f"HEX({quoted})"
    if data_type == "uuid":
        return f"UPPER(REPLACE({quoted}, '-', ''))"
    if data_type == "bit":
        return f"CAST({quoted} + 0 AS CHAR)"
    if data_type in ("float", "double"):
        return f"CAST({quoted} AS DOUBLE)"
    if data_type == "year":
        return f"CAST({quoted} + 0 AS CHAR)"
    if data_type in ("datetime", "timestamp"):
        return f"CAST(CAST({quoted} AS CHAR) AS CHAR)"
    return f"CAST({quoted} AS CHAR)"


def as_selected(data_type: str, value: Any) -> Any:
    if value is None:
        return None
    if data_type == "float":
        return struct.pack(">f", value + 0.0).hex()
    if data_type == "double":
        return struct.pack(">d", value + 0.0).hex()
    if data_type in ("datetime", "timestamp"):
        return padded(value)
    return value


def column_types(connection: pymysql.Connection[Any], database: str) -> dict[str, dict[str, str]]:
    """Table -> column -> data type."""
    found: dict[str, dict[str, str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = %s ORDER BY table_name, ordinal_position",
            (database,),
        )
        for table, column, kind in cursor.fetchall():
            found.setdefault(table, {})[column] = kind
    return found


def selected_rows(connection: pymysql.Connection[Any], database: str) -> dict[str, list[Any]]:
    """Table -> rows, each a mapping of columns to texts; in the order of their first column."""
    found: dict[str, list[Any]] = {}
    for table, types in column_types(connection, database).items():
        found[table] = select_rows(connection, database, table, types)
    return found


def select_rows(
    connection: pymysql.Connection[Any], database: str, table: str, types: Mapping[str, str]
) -> list[dict[str, Any]]:
    expressions = ", ".join(select_expression(name, kind) for name, kind in types.items())
    quoted = "`" + table.replace("`", "``") + "`"
    with connection.cursor() as cursor:
        # Percent signs of names are no placeholders: there are no arguments.
        cursor.execute(f"SELECT {expressions} FROM `{database}`.{quoted} ORDER BY 1")
        rows: Sequence[Any] = cursor.fetchall()
    return [
        {
            name: shortened(as_selected(kind, value))
            for (name, kind), value in zip(types.items(), row, strict=True)
        }
        for row in rows
    ]
