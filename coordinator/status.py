"""Reads what the view of the fleet is made of, and tells it as JSON."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import warp.headroom
from warp.assembly import Assembly
from warp.digest.seams import ComparedDestination
from warp.errors import SourceRefused
from warp.fleet import news
from warp.fleet.news import News
from warp.fleet.view import FleetView, TableView, UnitView, fleet_of
from warp.interfaces import (
    DestinationConnector,
    LeaseStore,
    MetadataStore,
    SourceConnector,
    TellsCutShort,
)
from warp.model import (
    SHARED,
    Choice,
    Headroom,
    LeasedUnit,
    Marker,
    Position,
    TableId,
    UnitKind,
)
from warp.streams import stream_of

NEWS_OF: Final = 24 * 3600.0  # seconds
_MOST_NEWS: Final = 100  # of each sort
HEADROOM_EVERY: Final = 15.0  # seconds between two looks at how far back logs reach


def as_json(fleet: FleetView) -> dict[str, Any]:
    """What `GET /status` and `cartridge-warp status --json` answer."""
    return {
        "caught_up": fleet.caught_up,
        "units": [_unit(unit) for unit in fleet.units],
        "tables": [_table(table) for table in fleet.tables],
        "workers": [
            {
                "id": worker.id,
                "slots": worker.slots,
                "held": worker.held,
                "alive_for": round(worker.alive_for, 3),
                "memory": worker.memory,
            }
            for worker in fleet.workers
        ],
        "as_of": fleet.as_of,
    }


def _unit(unit: UnitView) -> dict[str, Any]:
    return {
        "id": unit.id,
        "kind": unit.kind.value,
        "schema": unit.schema,
        "tables": [str(table) for table in unit.tables],
        "phase": unit.phase.value,
        "state": unit.state,
        "owner": unit.owner,
        "fence": unit.fence,
        "epoch": unit.epoch,
        "rows": unit.rows,
        "batch": unit.batch,
        "slot": unit.slot,  # of a schedule, run last
        "lag_seconds": unit.lag_seconds,
        "position": unit.position,
        "updated_at": unit.updated_at,
        # What the source of a stream still keeps behind it.
        "headroom": None if unit.headroom is None else warp.headroom.as_data(unit.headroom),
    }


def _table(table: TableView) -> dict[str, Any]:
    return {
        "table": str(table.table),
        "schema": table.schema,
        "phase": table.phase.value,
        "epoch": table.epoch,
        "quarantined": table.quarantined,
        "deferred": table.deferred,
        "chunks": {"done": table.chunks_done, "all": table.chunks},
    }


class StatusReader:
    """Reads what `describe` needs, over connections of its own.  One reader at a time."""

    def __init__(
        self,
        assembly: Assembly,
        ledger: LeaseStore,
        schemas: Sequence[str],
        *,
        lease_ttl: float | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lease_ttl` tells from how long a worker still counts as alive when it was heard."""
        self._assembly = assembly
        self._ledger = ledger
        self._schemas = tuple(schemas)
        self._lease_ttl = lease_ttl
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()
        self._sources: dict[str, SourceConnector] = {}
        self._destination: DestinationConnector | None = None
        self._headroom: dict[str, Headroom] = {}
        self._headroom_at = -HEADROOM_EVERY

    def read(self) -> dict[str, Any]:
        """The status now.  Raises what the source, the destination or the ledger raises."""
        return as_json(self.look())

    def look(self, *, with_news: bool = False) -> FleetView:
        """The fleet now.  Raises what the source, the destination or the ledger raises."""
        with self._lock:
            try:
                # The ends of the logs first: markers read later then speak about later.
                ends = {schema: self._end_of_log(schema) for schema in self._schemas}
                markers = self._metadata().markers()
                ledger = self._ledger.units()
                return fleet_of(
                    markers,
                    ledger,
                    self._ledger.workers(),
                    schemas=self._schemas,
                    reached=self._reached(markers, ends),
                    quarantined=self._metadata().quarantined(),
                    deferred=self._metadata().deferred(),
                    left_out=[m.unit.id for m in markers if not self._is_selected(m)],
                    headroom=self._headroom_of(markers),
                    verified=self._verified(markers),
                    news=self._news(ledger) if with_news else (),
                    lease_ttl=self._lease_ttl,
                    now=self._wall(),
                )
            except BaseException:
                self._drop()
                raise

    def _news(self, ledger: Sequence[LeasedUnit]) -> tuple[News, ...]:
        metadata = self._metadata()
        schemas = (*self._schemas, SHARED)
        runs = []
        if self._destination is not None and self._destination.traits.tells_cut_short:
            told_by = cast(TellsCutShort, metadata)
            runs = told_by.cut_short(newer_than=NEWS_OF, limit=_MOST_NEWS)
        lines = metadata.errors(Choice(schemas=schemas, newer_than=NEWS_OF, limit=_MOST_NEWS))
        owners = {entry.unit.id: entry for entry in ledger}
        told = news.of_runs((run for run in runs if run.schema in schemas), owners)
        return news.latest([told, news.of_errors(lines)])

    def _end_of_log(self, schema: str) -> Position | SourceRefused:
        """Where it ends; or why nobody can say, which matters only where a stream follows it."""
        try:
            return self._source(schema).position()
        except SourceRefused as refused:
            return refused

    def _reached(
        self, markers: Sequence[Marker], ends: Mapping[str, Position | SourceRefused]
    ) -> dict[str, bool]:
        reached = {}
        sharing = self._assembly.sharing()
        streams = {m.unit.id: m for m in markers if m.unit.kind is UnitKind.STREAM}
        for schema, end in ends.items():
            stream = streams.get(stream_of(schema, sharing).id)
            if stream is None:  # a schema in batch mode: its tables' phases say it all
                reached[schema] = any(m.unit.schema == schema for m in markers)
            elif isinstance(end, SourceRefused):
                raise end
            else:
                at = stream.position
                reached[schema] = at is not None and self._source(schema).reached(at, end)
        if sharing:
            reached[SHARED] = all(reached.get(schema, False) for schema in sharing)
        return reached

    def _headroom_of(self, markers: Sequence[Marker]) -> Mapping[str, Headroom]:
        """What the sources keep behind the streams; asked anew now and then, for it costs a look
        at the files of a log."""
        if self._clock() < self._headroom_at + HEADROOM_EVERY:
            return self._headroom
        self._headroom_at = self._clock()
        self._headroom = {}
        sharing = self._assembly.sharing()
        streams = {m.unit.id: m.position for m in markers if m.unit.kind is UnitKind.STREAM}
        for schema in self._schemas:
            stream = stream_of(schema, sharing).id
            position = streams.get(stream)
            if position is not None and stream not in self._headroom:
                found = warp.headroom.ask(self._source(schema), position)
                if found is not None:
                    self._headroom[stream] = found
        return self._headroom

    def _verified(self, markers: Sequence[Marker]) -> Mapping[TableId, tuple[float, int]]:
        """Of each table that was compared with its source as a whole: when, and what differed."""
        if not any(marker.unit.kind is UnitKind.VERIFY for marker in markers):
            return {}  # most fleets never asked for it
        self._metadata()
        if self._destination is None or not self._destination.traits.compares:
            return {}
        found: dict[TableId, tuple[float, int]] = {}
        for one in cast(ComparedDestination, self._destination).verifications().passes():
            if one.complete and one.oldest is not None:  # the newest pass of a table comes first
                found.setdefault(one.table, (one.oldest, one.differences))
        return found

    def _is_selected(self, marker: Marker) -> bool:
        """A table that is not selected any more keeps its marker, and nobody waits for it."""
        unit = marker.unit
        if (
            unit.kind is not UnitKind.TABLE
            or unit.table is None
            or unit.schema not in self._schemas
        ):
            return True
        return self._assembly.selection(unit.schema)(unit.table) is not None

    def _metadata(self) -> MetadataStore:
        if self._destination is None:
            self._destination = self._assembly.bookkeeping()
        return self._destination.metadata()

    def _source(self, schema: str) -> SourceConnector:
        if schema not in self._sources:
            self._sources[schema] = self._assembly.source(schema)
        return self._sources[schema]

    def _drop(self) -> None:
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        if self._destination is not None:
            self._destination.close()
            self._destination = None

    def close(self) -> None:
        with self._lock:
            self._drop()
