"""A database in memory with a log, and the sources that read it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from warp.diagnosis import refuse
from warp.errors import (
    PositionLost,
    SourceRefused,
)
from warp.interfaces import SourceTraits
from warp.machine import Condition
from warp.model import (
    ABSENT,
    UNCHANGED,
    ChangeBatch,
    Chunk,
    Diagnosis,
    Headroom,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
)

Row = dict[str, Any]
Key = tuple[Any, ...]
_Event = tuple[int, TableId, Operation, Row]


@dataclass
class MemoryDatabase:
    """A database with a log.  `forget()` drops the log's past, as a rolled-over oplog does."""

    schemas: dict[TableId, TableSchema] = field(default_factory=dict)
    tables: dict[TableId, dict[Key, Row]] = field(default_factory=dict)
    log: list[_Event] = field(default_factory=list)
    version: int = 0
    first: int = 0  # changes up to this version are forgotten
    found: list[Diagnosis] = field(default_factory=list)  # what a look at it tells
    changed: Condition = field(default_factory=threading.Condition)
    clock: Callable[[], float] = time.time
    _within: bool = False  # a transaction

    def create(self, schema: TableSchema) -> None:
        self.schemas[schema.table] = schema
        self.tables[schema.table] = {}

    def put(self, table: TableId, **row: Any) -> None:
        key = self._key(table, row)
        operation = Operation.UPDATE if key in self.tables[table] else Operation.CREATE
        self.tables[table][key] = row
        self._append(table, operation, row)

    def patch(self, table: TableId, **cells: Any) -> None:
        """An update whose log line carries the key and these cells only."""
        row = self.tables[table][self._key(table, cells)] | cells
        self.tables[table][self._key(table, cells)] = row
        self._append(table, Operation.UPDATE, dict.fromkeys(row, UNCHANGED) | cells)

    def delete(self, table: TableId, **key: Any) -> None:
        self.tables[table].pop(self._key(table, key), None)
        self._append(table, Operation.DELETE, key)

    def truncate(self, table: TableId) -> None:
        self.tables[table].clear()
        self._append(table, Operation.TRUNCATE, {})

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made in it are one place of the log, and carry one version."""
        self.version += 1
        self._within = True
        try:
            yield
        finally:
            self._within = False

    def forget(self) -> None:
        # What makes a real log forget is written to it: an oplog and a binary log lose their past
        # to what comes after, and a slot made in the place of a dropped one logs who is writing.
        self.version += 1
        self.first = self.version
        self.log.clear()

    def _key(self, table: TableId, row: Row) -> Key:
        return tuple(row[name] for name in self.schemas[table].key)

    def _append(self, table: TableId, operation: Operation, row: Row) -> None:
        with self.changed:
            self.version += not self._within
            self.log.append((self.version, table, operation, row))
            self.changed.notify_all()


class MemorySourceOptions(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    database: Any = Field(default_factory=MemoryDatabase)


class MemorySource:
    """Reads a MemoryDatabase."""

    Options: ClassVar[type[BaseModel]] = MemorySourceOptions
    traits: ClassVar[SourceTraits] = SourceTraits(headroom=True)

    def __init__(self, options: MemorySourceOptions, selection: TableSelection) -> None:
        self.database: MemoryDatabase = options.database
        self.selection = selection
        self.acknowledged: Position | None = None
        self.closed = False

    def check(self) -> None:
        refuse(self.diagnose(), SourceRefused)

    def diagnose(self) -> list[Diagnosis]:
        return list(self.database.found)

    def tables(self) -> list[TableId]:
        return [t for t in self.database.tables if self.selection(t) is not None]

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        return {t: self.database.schemas[t] for t in tables if t in self.database.schemas}

    def position(self) -> Position:
        return self._at(self.database.version)

    def version(self) -> int:
        return self.database.version

    def look_up(self, rows: TableChanges) -> TableChanges:
        if self.traits.full_rows:
            raise SourceRefused("expected no update to be partial", place=str(rows.table))
        names = self.database.schemas[rows.table].key
        keys = zip(*(cells_of(rows, name) for name in names), strict=True)
        have = self.database.tables[rows.table]
        version = self.database.version
        found = [(version, Operation.READ, have[key]) for key in keys if key in have]
        return self._changes(rows.table, found)

    def namespaces(self) -> list[str]:
        return sorted({table.namespace for table in self.database.tables})

    def reached(self, position: Position, goal: Position) -> bool:
        return int(position.token) >= int(goal.token)

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        keys = sorted(repr(key) for key in self.database.tables[table])
        edges = [None, *keys[rows::rows], None]
        return [
            Chunk(table, number, lower, upper, rows)
            for number, (lower, upper) in enumerate(itertools.pairwise(edges))
        ]

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        version = self.database.version
        rows = [
            row
            for key, row in sorted(self.database.tables[chunk.table].items(), key=repr)
            if (chunk.lower is None or repr(key) >= chunk.lower)
            and (chunk.upper is None or repr(key) < chunk.upper)
        ]
        start = 0
        while start < len(rows) or not start:
            settings = self.selection(chunk.table)  # for each batch: its size may follow the load
            size = settings.full_load_batch_size if settings else 1000
            part = [(version, Operation.READ, row) for row in rows[start : start + size]]
            changes = [self._changes(chunk.table, part)] if part else []
            yield ChangeBatch(changes, self._at(version), read_at=self.database.clock())
            start += size

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        after = int(position.token)
        begun = 0  # changes of the transaction behind it that were yielded already
        while not self.closed:
            with self.database.changed:
                if self.database.version == after:
                    self.database.changed.wait(idle)
                # Looked at with the log that is read next: it may have been cut in the wait.
                if after < self.database.first:
                    raise PositionLost(
                        f"the log begins at {self.database.first}, the marker stands at {after}; "
                        "run `cartridge-warp resync`"
                    )
                sizes = [s.write_batch_size for t in self.database.tables if (s := selection(t))]
                left = [e for e in self.database.log if e[0] > after][begun:]
                events = left[: min(sizes, default=100)]
            parts: dict[TableId, list[tuple[int, Operation, Row]]] = {}
            for version, table, operation, row in events:
                if selection(table) is not None:
                    parts.setdefault(table, []).append((version, operation, row))
            after, begun = _read_up_to(after, begun, events, left)
            changes = [self._changes(table, part) for table, part in parts.items()]
            yield ChangeBatch(changes, self._at(after), read_at=self.database.clock())

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        after = int(position.token) if position else 0
        version = self.database.version
        newest = {
            k: (v, o, r)
            for v, t, o, r in self.database.log
            if t == table and v > after
            for k in [self.database._key(t, r)]
        }
        part = [(v, Operation.READ, r) for v, o, r in newest.values() if o != Operation.DELETE]
        changes = [self._changes(table, part)] if part else []
        yield ChangeBatch(changes, self._at(version), read_at=self.database.clock())

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        return Position(str(self.database.version), fire_time)

    def acknowledge(self, position: Position) -> None:
        self.acknowledged = position

    def headroom(self, position: Position) -> Headroom:
        first, last = self.database.first, self.database.version
        left = int(position.token) - first
        ratio = max(0.0, left / max(1, last - first)) if last > first else 1.0
        return Headroom(f"changes from {first} to {last}", ratio, window=60.0, lost=left < 0)

    def close(self) -> None:
        self.closed = True

    def _at(self, version: int) -> Position:
        return Position(str(version), self.database.clock())

    def _changes(self, table: TableId, part: Sequence[tuple[int, Operation, Row]]) -> TableChanges:
        schema = self.database.schemas[table]
        return TableChanges(
            table,
            bytearray(operation for _, operation, _ in part),
            [version for version, _, _ in part],
            schema,
            [[row.get(c.name, ABSENT) for _, _, row in part] for c in schema.columns],
        )


class MemoryDeltas(MemorySource):
    """A MemoryDatabase whose log may carry parts of rows (`patch`)."""

    traits: ClassVar[SourceTraits] = SourceTraits(full_rows=False, headroom=True)


class MemoryOneLog(MemorySource):
    """A MemoryDatabase whose log is dear to follow twice, as a binlog is."""

    traits: ClassVar[SourceTraits] = SourceTraits(
        follows_twice=False, holds_log=True, headroom=True
    )


def _read_up_to(
    after: int, begun: int, events: Sequence[_Event], left: Sequence[_Event]
) -> tuple[int, int]:
    """The last transaction that was read whole, and how much of the next one was read."""
    if not events:
        return after, begun
    last = events[-1][0]
    if len(events) == len(left) or left[len(events)][0] != last:
        return last, 0
    whole = [version for version, *_ in events if version != last]
    cut = sum(version == last for version, *_ in events)
    return (whole[-1], cut) if whole else (after, begun + cut)


def cells_of(rows: TableChanges, name: str) -> Sequence[Any]:
    if rows.schema is None:
        raise AssertionError("rows of a database have a schema")
    return rows.columns[rows.schema.names().index(name)]
