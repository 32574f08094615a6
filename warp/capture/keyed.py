"""Some keys of a table, and what has become of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp.capture import batches, pages
from warp.capture.side import SqlSide
from warp.model import TableChanges, TableSchema

Key = tuple[Any, ...]
"""Carriers, in the order of the table's key."""


def changes(
    side: SqlSide, schema: TableSchema, keys: Sequence[Key], version: int
) -> list[TableChanges]:
    """The rows of these keys as they are now, and deletes of those that have none."""
    live = _rows(side, schema, keys, version)
    found = _keys(live, schema)
    gone = [key for key in keys if key not in found]
    if not gone:
        return [live]
    # Deletes first: two keys may be one to the destination ('a' became 'A').
    return [batches.deletes(schema, gone, version), live]


def _rows(side: SqlSide, schema: TableSchema, keys: Sequence[Key], version: int) -> TableChanges:
    found: list[list[Any]] = [[] for _ in schema.columns]
    if keys:
        statement = pages.of_keys(side.dialect, schema, keys)
        for part in side.select(statement, schema, rows=len(keys)):
            for column, cells in zip(found, part, strict=True):
                column += cells
    return batches.rows(schema, found, version)


def _keys(rows: TableChanges, schema: TableSchema) -> set[Key]:
    names = schema.names()
    return set(zip(*(rows.columns[names.index(name)] for name in schema.key), strict=True))
