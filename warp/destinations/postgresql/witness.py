"""A second opinion on a table's digest: rows read one by one as any client reads them.

Shares no code with what writes digests, on purpose: what `docs/digest.md` says is done here once
more, from the driver's own values, so that a mistake in one of the two shows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import sql

from warp.destinations.postgresql.session import Session, fitting

_FETCHED: Final = 2_000
_TWO64: Final = 1 << 64


def recount(
    session: Session,
    place: tuple[str, str],
    columns: Sequence[tuple[str, str]],
    soft_delete_column: str | None,
) -> tuple[int, str]:
    """(rows, digest) of a table now; `columns` are names and kinds."""
    selected = sql.SQL(", ").join(
        sql.SQL(_SELECTED.get(kind, "{}")).format(sql.Identifier("t", fitting(name)))
        for name, kind in columns
    )
    conditions: list[sql.Composable] = [sql.SQL("not t._cw_deleted")]
    if soft_delete_column is not None:
        flag = sql.Identifier("t", fitting(soft_delete_column))
        conditions.append(sql.SQL("{} is not true").format(flag))
    query = sql.SQL("select {} from {} as t where {}").format(
        selected,
        sql.Identifier(*map(fitting, place)),
        sql.SQL(" and ").join(conditions),
    )
    texts = [_TEXTS[kind] for _, kind in columns]
    rows = left = right = 0
    with session.meaning(f"reading {'.'.join(place)}"):
        connection: psycopg.Connection[Any] = session.connect()
        with connection.transaction(), connection.cursor("witness") as cursor:
            cursor.itersize = _FETCHED
            cursor.execute(query)
            for row in cursor:
                text = "".join(
                    "-," if value is None else make(value)
                    for make, value in zip(texts, row, strict=True)
                )
                first, second = struct.unpack(">QQ", hashlib.sha256(text.encode()).digest()[:16])
                rows += 1
                left = (left + first) % _TWO64
                right = (right + second) % _TWO64
    return rows, f"{rows}:{left:016x}{right:016x}"


# What the driver would not give as it is: years beyond Python's, and numbers inside of JSON.
_SELECTED: Final = {
    "date": "({} - date '2000-01-01')",
    "time": "(extract(epoch from {}) * 1000000)::bigint",
    "datetime": "((extract(epoch from {})::numeric - 946684800) * 1000000)::bigint",
    "timestamp": "((extract(epoch from {})::numeric - 946684800) * 1000000)::bigint",
    "json": "{}::text",
    "json_text": "{}::text",
}


def _free(value: str) -> str:
    return f"{len(value.encode())}:{value},"


def _plain(value: str) -> str:
    return value + ","


def _big_endian(form: str) -> Callable[[Any], str]:
    def make(value: Any) -> str:
        if value != value:
            return {"d": "7ff8000000000000", "f": "7fc00000"}[form] + ","
        return struct.pack(">" + form, value + 0 if value else 0).hex() + ","

    return make


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        return "NaN,"
    if value.is_infinite():
        return ("Infinity" if value > 0 else "-Infinity") + ","
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)))
    if number == 0 or not isinstance(exponent, int):
        return "0,"
    while exponent < 0 and number % 10 == 0:
        number, exponent = number // 10, exponent + 1
    text = str(number) + "0" * max(0, exponent)
    if exponent < 0:
        text = text.rjust(1 - exponent, "0")
        text = f"{text[:exponent]}.{text[exponent:]}"
    return ("-" if sign else "") + text + ","


_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "bool": lambda v: "t," if v else "f,",
    "int32": lambda v: f"{v},",
    "int64": lambda v: f"{v},",
    "float32": _big_endian("f"),
    "float64": _big_endian("d"),
    "decimal": _decimal,
    "text": _free,
    "bytes": lambda v: bytes(v).hex() + ",",
    "uuid": lambda v: v.hex + ",",
    "date": _big_endian("i"),
    "time": _big_endian("q"),
    "datetime": _big_endian("q"),
    "timestamp": _big_endian("q"),
    "json": _free,
    "json_text": _free,
    "objectid": _plain,
    "tagged": _free,
}
