"""How many columns an InnoDB table takes.  Pure.

Half a page of 16 kB must hold a row, and of each long text or binary up to 40 bytes stay in it: 197
columns of `longtext` are refused (1118 "Row size too large"), and so are more than 1,017 columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warp.destinations.mysql.carriers import MOST_KEY_BYTES
from warp.destinations.sql import room
from warp.model import Column, Kind, TableSchema

MOST_COLUMNS: Final = 1000  # 1,017, and ours are some of them
_ROW: Final = 8126 - 100  # bytes; the header and our own columns
_WIDEST: Final = 41
_WIDTHS: Final[dict[Kind, int]] = {
    Kind.BOOL: 1,
    Kind.INT32: 4,
    Kind.INT64: 8,
    Kind.FLOAT32: 4,
    Kind.FLOAT64: 8,
    Kind.DECIMAL: 30,
    Kind.DATE: 3,
    Kind.TIME: 6,
    Kind.DATETIME: 8,
    Kind.TIMESTAMP: 8,
    Kind.UUID: 16,
    Kind.OBJECTID: 24,
}


def width(kind: Kind) -> int:
    return _WIDTHS.get(kind, _WIDEST)


def has_room(columns: Iterable[Column], kind: Kind | None = None, *, keyed: bool = True) -> bool:
    """Does a row whose every column is filled still fit with one column more?

    Of any kind where none is named.  `keyed`: texts of its key stay in the row whole.
    """
    there = list(columns)
    more = _WIDEST if kind is None else width(kind)
    key = MOST_KEY_BYTES // 4 if keyed else 0  # as long as a key of ASCII may be
    return sum(width(c.kind) for c in there) + more + key <= _ROW and len(there) < MOST_COLUMNS


def fitted(schema: TableSchema) -> TableSchema:
    return room.fitted(schema, has_room)
