"""PostgreSQL as a source: a primary of version 15 or later.

A table is a table, a PostgreSQL schema its namespace.  Reading is split by what is read: `stream`
(the log, through `replication` and `pgoutput`), `snapshot` (key ranges, at a version that
`visibility` finds); `values` is what both read text with, `slots` and `publication` are what we
make at the server, and `position` says what a place in the log is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import structlog
from pydantic import BaseModel

from warp.capture.places import is_polled
from warp.capture.polled import Polled
from warp.digest.seams import Bound, BoundsOf, Compared, Summing
from warp.errors import SourceRefused
from warp.interfaces import SourceTraits
from warp.model import (
    Capture,
    ChangeBatch,
    Chunk,
    Diagnosis,
    Headroom,
    KeySpan,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    Verdict,
)
from warp.sources.postgresql import digests, look_up, preflight, ranges, snapshot
from warp.sources.postgresql.capture import CaptureSide
from warp.sources.postgresql.catalog import Catalog, Shape, Table
from warp.sources.postgresql.options import PostgresSourceOptions
from warp.sources.postgresql.position import Log, LogEnd, Place, lsn_of
from warp.sources.postgresql.publication import Publication
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.slots import Slot, headroom
from warp.sources.postgresql.stream import LogStream
from warp.sources.postgresql.visibility import flushed, standby

__all__ = ["PostgresSource", "PostgresSourceOptions"]

_READ_SIZE: Final = 1_000

log = structlog.get_logger(__name__)


class PostgresSource:
    """Reads one database."""

    Options: ClassVar[type[BaseModel]] = PostgresSourceOptions
    traits: ClassVar[SourceTraits] = SourceTraits(
        follows_twice=False,
        holds_log=True,
        full_rows=False,
        headroom=True,
        ranges=True,
        compares=True,
        estimates=True,
        reads_keys=True,
    )

    def __init__(self, options: PostgresSourceOptions, selection: TableSelection) -> None:
        self._selection = selection
        self.server = Server(options)
        self.catalog = Catalog(self.server, options.publication)
        self._publication = Publication(self.server, options.publication)
        self._slot = Slot(self.server, options.slot)
        self._stream: LogStream | None = None
        self._warned: set[TableId] = set()
        side = CaptureSide(self.server, self.catalog, schema=options.capture_schema)
        self.polled = Polled(side, selection)

    def __repr__(self) -> str:
        return "<PostgresSource>"

    # -- what is there

    def check(self) -> None:
        failed = [d for d in self.diagnose() if d.verdict is Verdict.FAILED]
        if failed:
            said = "; ".join(
                f"{d.subject}: {d.expected} was expected, found {d.found}; {d.mend}".rstrip("; ")
                for d in failed
            )
            raise SourceRefused(said, place=self.server.explainer.place)

    def diagnose(self) -> list[Diagnosis]:
        selected = self._selected()
        found = preflight.diagnose(
            self.server, self.catalog, self._slot, self._publication, selected
        )
        if any(one.verdict is Verdict.FAILED for one in found):
            return found  # perhaps the tables may not be read, which the rest takes for granted
        return [*found, *self.polled.diagnose([table.id for table, _ in selected])]

    def namespaces(self) -> list[str]:
        return self.catalog.namespaces()

    def tables(self) -> list[TableId]:
        """Those of a log capture are published before they are listed.

        Whoever plans a table's snapshot thus knows that its changes are handed out already.
        """
        listed, unpublished = [], []
        for table, capture in self._selected():
            if capture is not Capture.LOG:
                listed.append(table.id)
            elif table.obstacle:
                self._warn_left_out(table)
            elif table.published:
                listed.append(table.id)
            else:
                unpublished.append(table)
        if unpublished:
            state = self._publication.state()
            if state is None:  # made with the slot; until then looking changes nothing
                listed += [table.id for table in unpublished]
            else:
                listed += self._publication.add(unpublished)
        return sorted(listed)

    def _selected(self) -> list[tuple[Table, Capture]]:
        namespace = getattr(self._selection, "namespace", None)
        found = self.catalog.tables(None if namespace is None else [namespace])
        return [(t, s.capture) for t in found if (s := self._selection(t.id)) is not None]

    def _followed(self) -> list[Table]:
        return [t for t, capture in self._selected() if capture is Capture.LOG and not t.obstacle]

    def _warn_left_out(self, table: Table) -> None:
        if table.id not in self._warned:
            self._warned.add(table.id)
            log.warning("left_out", table=str(table.id), why=table.obstacle)

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        found = self.catalog.find(tables)
        shapes = self.catalog.shapes([table.oid for table in found.values()])
        return {id: self.catalog.schema(t, shapes[t.oid]) for id, t in found.items()}

    def table(self, id: TableId) -> tuple[Table, Shape]:
        """What the catalog says of one table, which must be there."""
        found = self.catalog.find([id]).get(id)
        if found is None:
            raise SourceRefused(
                "the table was expected at the source, found it gone; leave it out of the "
                "configuration, or make it again",
                place=str(id),
            )
        return found, self.catalog.shapes([found.oid])[found.oid]

    def rows_about(self, tables: Sequence[TableId]) -> dict[TableId, int]:
        found: dict[TableId, int] = {}
        for id, table in self.catalog.find(tables).items():
            ((counted, _),) = self.server.ask(
                "estimate", {"oid": table.oid}, doing=f"estimate the size of {id}"
            )
            found[id] = counted
        return found

    # -- the log

    def position(self) -> Position:
        """Makes the publication and the slot where they are not there."""
        if self._publication.state() is None:
            self._publication.ensure(self._followed())
        self._slot.ensure()
        end = self._log_end()
        return end.log.position(end.lsn, end.horizon, time.time())

    def version(self) -> int:
        return flushed(self.server)

    def reached(self, position: Position, goal: Position) -> bool:
        return Place.parse(position.token).lsn >= Place.parse(goal.token).lsn

    def _log_end(self) -> LogEnd:
        ((in_recovery, end, system, segment, publication, horizon, inserted),) = self.server.ask(
            "log_end", {"publication": self._publication.name}, doing="read the log's end"
        )
        if in_recovery:
            raise standby(self.server)
        # The name of a segment begins with its timeline.
        log = Log(system, int(segment[:8], 16), publication or 0)
        return LogEnd(lsn_of(end), lsn_of(inserted), horizon, log)

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        self._stream = LogStream(
            self.server, self.catalog, self._slot, self._publication, self._log_end
        )
        return self._stream.follow(position, selection, idle)

    def acknowledge(self, position: Position) -> None:
        if is_polled(position):
            self.polled.acknowledge(position)
        elif self._stream is not None:
            self._stream.acknowledge(Place.parse(position.token).lsn)

    def headroom(self, position: Position) -> Headroom:
        state = self._slot.state()
        return headroom(self._slot.name, state, Place.parse(position.token).lsn)

    # -- the rows

    def look_up(self, rows: TableChanges) -> TableChanges:
        table, shape = self.table(rows.table)
        return look_up.look_up(
            self.server, self.catalog, table, shape, rows, self._publication.name
        )

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        found, shape = self.table(table)
        return snapshot.cut(self.server, found, shape, rows)

    def chunks_within(self, table: TableId, within: KeySpan, rows: int) -> list[Chunk]:
        found, shape = self.table(table)
        return ranges.cut(self.server, found, shape, within, rows)

    def bounds(self, chunk: Chunk) -> BoundsOf | None:
        table, shape = self.table(chunk.table)
        key = snapshot.key_of(table, shape) if table.key else []
        return snapshot.bounds(chunk, key, self.catalog.types)

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        table, shape = self.table(chunk.table)
        if not digests.ServerSums.can(shape, compared):
            return None
        return digests.ServerSums(self.server, table, shape, chunk, compared)

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        def size() -> int:
            settings = self._selection(chunk.table)
            return settings.full_load_batch_size if settings else _READ_SIZE

        table, shape = self.table(chunk.table)
        here = self._log_end()
        parts = snapshot.read(
            self.server, self.catalog, table, shape, chunk, size, self._publication.name
        )
        for version, changes in parts:
            end = here.log.position(version, here.horizon, time.time())
            yield ChangeBatch([changes] if changes is not None else [], end, read_at=time.time())

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        return self.polled.poll(table, position, fire_time=fire_time)

    def changes_of(
        self, schema: TableSchema, keys: Sequence[Bound], *, least: int
    ) -> tuple[int, list[TableChanges]]:
        return self.polled.changes_of(schema, keys, least=least)

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        return self.polled.start(table, fire_time=fire_time)

    def close(self) -> None:
        self.server.close()
        self.polled.close()
        if self._stream is not None:
            self._stream.wake()
