"""Rows that were read, as batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from warp.model import (
    ABSENT,
    Cells,
    ChangeBatch,
    Operation,
    Position,
    TableChanges,
    TableSchema,
)


def rows(
    schema: TableSchema,
    columns: Sequence[Cells],
    version: int,
    operation: Operation = Operation.UPDATE,
) -> TableChanges:
    """Rows to which the same happened."""
    count = len(columns[0]) if columns else 0
    operations = bytearray((operation,)) * count
    return TableChanges(schema.table, operations, [version] * count, schema, columns)


def truncate(schema: TableSchema, version: int) -> TableChanges:
    """Every row up to this version is gone."""
    return rows(schema, [[ABSENT] for _ in schema.columns], version, Operation.TRUNCATE)


def deletes(schema: TableSchema, keys: Sequence[Sequence[Any]], version: int) -> TableChanges:
    """The rows of these keys, each in the order of `schema.key`, are gone."""
    of_key = dict(zip(schema.key, map(list, zip(*keys, strict=True)), strict=True))
    absent: list[Any] = [ABSENT] * len(keys)
    columns = [of_key.get(column.name, absent) for column in schema.columns]
    return rows(schema, columns, version, Operation.DELETE)


def joined(parts: Sequence[TableChanges]) -> list[TableChanges]:
    """Parts of one table, as one, in their order."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return list(parts)
    first = parts[0]
    return [
        TableChanges(
            first.table,
            bytearray().join(part.operations for part in parts),
            [version for part in parts for version in part.versions],
            first.schema,
            [
                [cell for part in parts for cell in part.columns[place]]
                for place in range(len(first.columns))
            ],
        )
    ]


def batch(parts: Sequence[TableChanges], end: Position) -> ChangeBatch:
    return ChangeBatch(joined(parts), end, read_at=time.time())
