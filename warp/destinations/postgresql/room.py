"""How many columns a PostgreSQL table takes.  Pure.

A row must fit into one page of 8 kB, and only what is not of fixed width can be moved out of it:
1,100 bigints in one row are refused as "row is too big" (54000), whatever the table's limit on
columns.  That limit is 1,600, and dropped columns count to it (54011).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warp.destinations.sql import room
from warp.model import Column, Kind, TableSchema

MOST_COLUMNS: Final = 1600

# A page of 8,192 bytes, less its header, one line pointer, and a row's header with a bit for each
# column: 23 bytes and 200, rounded up to eight.
_ROW: Final = 8192 - 32 - 224
_OURS: Final = 6  # columns that a source's schema does not have, or the staging table has beyond it
_WIDEST: Final = 24  # bytes; PostgreSQL moves what is longer out of the page

# Bytes at most, with what it takes to begin the next column at a multiple of eight.
_WIDTHS: Final[dict[Kind, int]] = {
    Kind.BOOL: 8,
    Kind.INT32: 8,
    Kind.INT64: 8,
    Kind.FLOAT32: 8,
    Kind.FLOAT64: 8,
    Kind.DATE: 8,
    Kind.TIME: 8,
    Kind.DATETIME: 8,
    Kind.TIMESTAMP: 8,
    Kind.UUID: 16,
}


def width(kind: Kind) -> int:
    return _WIDTHS.get(kind, _WIDEST)


def has_room(columns: Iterable[Column], kind: Kind | None = None, *, used: int = 0) -> bool:
    """Does a row whose every column is filled still fit with one column more?

    Of any kind where none is named.  `used` counts the columns the table has ever had.
    """
    there = list(columns)
    more = _WIDEST if kind is None else width(kind)
    filled = sum(width(column.kind) for column in there) + _OURS * _WIDEST // 2
    return filled + more <= _ROW and max(used, len(there) + _OURS) < MOST_COLUMNS


def fitted(schema: TableSchema) -> TableSchema:
    return room.fitted(schema, has_room)
