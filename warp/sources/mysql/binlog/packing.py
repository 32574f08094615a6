"""What the compiled reader of rows must know of a table, from the same source as the reference.

Only `warp.sources.mysql.binlog.rows` says what a cell means: each plan carries, for every column,
the function of the reference that reads one cell, and falls back to it where it is not sure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from warp import native
from warp.model import Kind
from warp.sources.mysql.binlog import charsets
from warp.sources.mysql.binlog.dates import fraction_size
from warp.sources.mysql.binlog.table_map import ColumnType, LoggedColumn

if TYPE_CHECKING:
    from warp.native.binlog import Described, Plan

T = ColumnType
Read = Callable[..., list[tuple[Any, ...]]]

_FIXED: Final = {
    **{T.TINY: 1, T.SHORT: 2, T.INT24: 3, T.LONG: 4, T.LONGLONG: 8},
    **{T.FLOAT: 4, T.DOUBLE: 8, T.YEAR: 1, T.DATE: 3, T.TIME: 3, T.DATETIME: 8, T.TIMESTAMP: 4},
}
_BEHIND_FRACTION: Final = {T.DATETIME2: 5, T.TIMESTAMP2: 4, T.TIME2: 3}
_STRINGS: Final = (T.VARCHAR, T.VAR_STRING, T.STRING)
_BLOBS: Final = (T.BLOB, T.TINY_BLOB, T.MEDIUM_BLOB, T.LONG_BLOB)
_INTEGERS: Final = (T.TINY, T.SHORT, T.INT24, T.LONG, T.LONGLONG)
_BY_TYPE: Final = {
    **{T.FLOAT: "single", T.DOUBLE: "double", T.YEAR: "year", T.NEWDECIMAL: "decimal"},
    **{T.BIT: "bits", T.DATE: "date", T.DATETIME2: "datetime", T.TIMESTAMP2: "timestamp"},
    **{T.TIME2: "time", T.GEOMETRY: "plain", T.VECTOR: "plain", T.ENUM: "choice"},
}
_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_ASCII: Final = bytes(range(1, 128))


def plan_of(columns: list[tuple[LoggedColumn, Kind | None, str, bool, Read]]) -> Plan | None:
    """(column, kind or None where it is left out, its declared type, in the key, what reads it).

    None where the compiled reader cannot be sure of where cells begin.
    """
    try:
        return native.binlog.Plan([_described(*each) for each in columns])
    except (ValueError, OverflowError):
        return None


def _described(
    column: LoggedColumn, kind: Kind | None, declared: str, key: bool, read: Read
) -> Described:
    fixed, prefix = _extent(column)
    code = "other" if kind is None else _code(column, kind, declared)
    size = 16 if code == "padded" and declared == "uuid" else column.size
    values = _values(column, read) if code == "choice" else None
    if code == "choice" and values is None:
        code = "other"

    def cell(raw: bytes) -> Any:
        return read(b"\0" + raw, 0, len(raw) + 1)[0][0]

    return code, kind, fixed, prefix, size, column.scale, column.unsigned, key, cell, values


def _extent(column: LoggedColumn) -> tuple[int, int]:
    """(bytes of a value, bytes of the length before it), one of which is 0."""
    kind = column.type
    if kind in _FIXED:
        return _FIXED[kind], 0
    if kind in _BEHIND_FRACTION:
        return _BEHIND_FRACTION[kind] + fraction_size(column.size)[0], 0
    if kind is T.NEWDECIMAL:
        return sum(
            4 * (digits // 9) + _DIGIT_BYTES[digits % 9]
            for digits in (column.size - column.scale, column.scale)
        ), 0
    if kind is T.BIT:
        return (column.size + 7) // 8, 0
    if kind in (T.ENUM, T.SET):
        return column.size, 0
    if kind in (*_STRINGS, T.VARCHAR_COMPRESSED):
        return 0, 1 if column.size < 256 else 2
    return 0, column.size


def _code(column: LoggedColumn, kind: Kind, declared: str) -> str:
    if column.type in _INTEGERS:
        return "big" if kind is Kind.DECIMAL else "integer"
    if column.type is T.BIT and kind is Kind.DECIMAL:
        return "other"
    if column.type is T.STRING and declared == "uuid":
        return "padded"
    if column.type is T.STRING and declared in ("inet4", "inet6"):
        return "other"
    if column.type in (*_STRINGS, *_BLOBS):
        if kind is Kind.BYTES:
            binary = column.type is T.STRING and column.charset == charsets.BINARY
            return "padded" if binary else "plain"
        return _of_text(column.charset or "")
    return _BY_TYPE.get(column.type, "other")


@lru_cache(maxsize=64)
def _of_text(charset: str) -> str:
    if charsets.is_utf8(charset):
        return "text"
    decode = charsets.decoder(charset)
    try:
        return "ascii" if decode and decode(_ASCII) == _ASCII.decode("ascii") else "other"
    except UnicodeDecodeError:
        return "other"


def _values(column: LoggedColumn, read: Read) -> list[bytes] | None:
    """The values of an enum as the reference gives them; None where one has no packed form."""
    found = []
    for number in range(len(column.values) + 1):
        text = read(b"\0" + number.to_bytes(column.size, "little"), 0, column.size + 1)[0][0]
        if "\0" in text:
            return None
        found.append(text.encode())
    return found
