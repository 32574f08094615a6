"""The queue of changed keys that triggers keep at the source: read a part, remove a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from warp.capture.side import SqlSide
from warp.model import Column, Kind, TableId, TableSchema

ID: Final = Column("id", Kind.INT64)
TRUNCATED: Final = Column("truncated", Kind.INT32)
_FORGOTTEN_AT_ONCE: Final = 1_000


def key_columns(schema: TableSchema) -> list[tuple[str, Column]]:
    """The key's columns, in its order, each with its name in the queue."""
    by_name = {column.name: column for column in schema.columns}
    return [(f"k{place}", by_name[name]) for place, name in enumerate(schema.key)]


@dataclass(frozen=True, slots=True)
class Entries:
    """A part of a queue, in the order of ids."""

    ids: list[int]
    truncated: list[int]  # the entry says that all rows before it are gone; it has no key
    keys: list[list[Any]]  # columns of carriers, in the order of the table's key

    def distinct_keys(self) -> list[tuple[Any, ...]]:
        keys = zip(*self.keys, strict=True)
        chosen = (k for k, truncated in zip(keys, self.truncated, strict=True) if not truncated)
        return list(dict.fromkeys(chosen))


class Queue:
    """The queue of one table."""

    def __init__(self, side: SqlSide, table: TableId) -> None:
        self._side = side
        self._table = table

    def read(self, schema: TableSchema, *, after: int, rows: int) -> Entries:
        """Committed entries with a higher id, lowest first."""
        place = self._side.triggers.queue(self._table)
        keys = key_columns(schema)
        columns = (
            ID,
            TRUNCATED,
            *(replace(column, name=name, source=name) for name, column in keys),
        )
        dialect = self._side.dialect
        statement = (
            f"select {', '.join(dialect.name(column.name) for column in columns)}"
            f" from {dialect.name(place.namespace, place.name)}"
            f" where id > {int(after)} order by id limit {int(rows)}"
        )
        found: list[list[Any]] = [[] for _ in columns]
        for part in self._side.select(statement, TableSchema(place, columns, ("id",)), rows=rows):
            for column, cells in zip(found, part, strict=True):
                column += cells
        return Entries(found[0], found[1], found[2:])

    def forget(self, ids: Sequence[int]) -> None:
        """Remove exactly these: one with a lower id may have become visible since."""
        place = self._side.triggers.queue(self._table)
        name = self._side.dialect.name(place.namespace, place.name)
        for start in range(0, len(ids), _FORGOTTEN_AT_ONCE):
            chosen = ", ".join(str(int(id)) for id in ids[start : start + _FORGOTTEN_AT_ONCE])
            self._side.act(f"delete from {name} where id in ({chosen})")
