"""Cells as binary COPY takes them: packed columns, or one pass per column and C dumpers only.

psycopg picks a dumper by the type named to `set_types`; the server only sees bytes.  So an instant
goes as the int8 that a timestamptz is inside, JSON as bytes with jsonb's version byte before them,
a UUID as its sixteen bytes: none of them becomes a Python object on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from warp.model import UNCHANGED, Cells, Kind

TYPES: Final[dict[Kind, str]] = {
    Kind.BOOL: "boolean",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.FLOAT32: "real",
    Kind.FLOAT64: "double precision",
    Kind.DECIMAL: "numeric",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.DATETIME: "timestamp",
    Kind.TIMESTAMP: "timestamptz",
    Kind.JSON: "jsonb",
    Kind.JSON_TEXT: "json",
    Kind.OBJECTID: "text",
    Kind.TAGGED: "text",
}
"""How this destination spells each kind."""

DUMPED_AS: Final[dict[Kind, str]] = {
    Kind.BOOL: "bool",
    Kind.INT32: "int4",
    Kind.INT64: "int8",
    Kind.FLOAT32: "float4",
    Kind.FLOAT64: "float8",
    Kind.DECIMAL: "numeric",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.UUID: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "int8",
    Kind.DATETIME: "int8",
    Kind.TIMESTAMP: "int8",
    Kind.JSON: "bytea",
    Kind.JSON_TEXT: "bytea",
    Kind.OBJECTID: "text",
    Kind.TAGGED: "text",
}

KINDS: Final[dict[str, Kind]] = {
    "boolean": Kind.BOOL,
    "smallint": Kind.INT32,
    "integer": Kind.INT32,
    "bigint": Kind.INT64,
    "real": Kind.FLOAT32,
    "double precision": Kind.FLOAT64,
    "numeric": Kind.DECIMAL,
    "text": Kind.TEXT,
    "character varying": Kind.TEXT,
    "bytea": Kind.BYTES,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "time without time zone": Kind.TIME,
    "timestamp without time zone": Kind.DATETIME,
    "timestamp with time zone": Kind.TIMESTAMP,
    "jsonb": Kind.JSON,
    "json": Kind.JSON_TEXT,
}
"""The kind of a column that somebody else made, by the server's name of its type."""

_POSTGRES_EPOCH: Final = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_MARK: Final = type(UNCHANGED)
_NONE: Final = type(None)


def dumped(kind: Kind, values: Cells) -> Sequence[Any]:
    """One column as psycopg's dumper for `DUMPED_AS` wants it."""
    types = set(map(type, values))
    if _MARK in types:
        values = [None if type(cell) is _MARK else cell for cell in values]
    nulls = _MARK in types or _NONE in types
    if kind in (Kind.TIMESTAMP, Kind.DATETIME):
        if nulls:
            return [None if v is None else v - _POSTGRES_EPOCH for v in values]
        return [v - _POSTGRES_EPOCH for v in values]
    if kind == Kind.JSON:
        if nulls:
            return [None if v is None else b"\x01" + v for v in values]
        return [b"\x01" + v for v in values]
    return values
