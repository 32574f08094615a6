"""A source and a destination that cost nothing, so that a worker's own work is all there is.

The source has orders ready in memory, as MongoDB sends them; it may wait before each batch, as for
a server that is far away.  The destination keeps markers, fences and schemas in PostgreSQL as
always, and drops the rows.  Named in a configuration by `module:Class`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import bson
from pydantic import BaseModel

from benchmarks.orders import TABLE, order
from warp.destinations.postgresql import PostgresDestination
from warp.interfaces import SourceTraits
from warp.model import (
    ChangeBatch,
    Chunk,
    Diagnosis,
    Marker,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    Written,
)
from warp.options import ConnectorOptions, Count, Duration, Text
from warp.sources.documents import BsonDocuments

VERSION = 1
HERE = Position("here")


class FreeOptions(ConnectorOptions):
    database: Text = "free"
    rows: Count = 100_000
    wait: Duration = 0.0  # before each batch


@cache
def ready(rows: int) -> list[bytes]:
    return [bson.encode(order(n)) for n in range(rows)]


class FreeSource:
    """One table, of as many orders as asked for; the same ones in each batch."""

    Options: ClassVar[type[BaseModel]] = FreeOptions
    traits: ClassVar[SourceTraits] = SourceTraits(schemaless=True)

    def __init__(self, options: FreeOptions, selection: TableSelection) -> None:
        self._options = options
        self._selection = selection
        self._table = TableId(options.database, TABLE)
        self._closed = threading.Event()

    def check(self) -> None: ...

    def diagnose(self) -> list[Diagnosis]:
        return []

    def namespaces(self) -> list[str]:
        return [self._options.database]

    def tables(self) -> list[TableId]:
        return [self._table] if self._selection(self._table) is not None else []

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        settings = self._selection(self._table)
        if settings is None or self._table not in tables:
            return {}
        return {self._table: BsonDocuments(self._table, ready(1_000)).describe(settings)}

    def position(self) -> Position:
        return Position(HERE.token, time.time())

    def version(self) -> int:
        return VERSION

    def reached(self, position: Position, goal: Position) -> bool:
        return True

    def look_up(self, rows: TableChanges) -> TableChanges:
        raise AssertionError("every row is whole")

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        whole = self._options.rows
        starts = range(0, whole, rows)
        return [Chunk(table, n, str(s), str(s + rows), rows) for n, s in enumerate(starts)]

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        left = chunk.rows
        while left > 0:
            settings = self._selection(chunk.table)
            rows = min(left, settings.full_load_batch_size if settings else 1_000)
            self._closed.wait(self._options.wait)
            documents = BsonDocuments(chunk.table, ready(rows))
            operations = bytearray((Operation.READ,)) * rows
            part = TableChanges(chunk.table, operations, [VERSION] * rows, documents=documents)
            yield ChangeBatch([part], HERE, read_at=time.time())
            left -= rows

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        while not self._closed.wait(idle):
            yield ChangeBatch([], position, read_at=time.time())

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        raise AssertionError("nothing is polled")

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        raise AssertionError("nothing is polled")

    def acknowledge(self, position: Position) -> None: ...

    def close(self) -> None:
        self._closed.set()


class FreeDestination(PostgresDestination):
    """Everything but the rows."""

    def write_batch(self, batch: ChangeBatch, marker: Marker, **more: Any) -> Written:
        written = super().write_batch(ChangeBatch([], batch.end), marker, **more)
        for changes in batch.changes:
            written.counts[changes.table, Operation.READ] = len(changes)
        return written
