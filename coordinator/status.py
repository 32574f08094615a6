"""The fleet at a glance: every unit, who holds it, how far it has got.  `describe` is pure.

Lag is told from markers and from where the log ends now, so a stopped worker's lag grows here
although nobody measures it there.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import warp.headroom
from warp.assembly import Assembly
from warp.interfaces import DestinationConnector, LeaseStore, MetadataStore, SourceConnector
from warp.model import (
    SHARED,
    Headroom,
    LeasedUnit,
    Marker,
    Phase,
    Position,
    TableId,
    UnitKind,
    WorkerState,
)
from warp.streams import stream_of

HEADROOM_EVERY: Final = 15.0  # seconds between two looks at how far back logs reach

# Where a stream's log ends and whether the stream has got there, by schema.
Reached = Mapping[str, bool]


def lag_of(marker: Marker, now: float, *, reached: bool) -> float:
    """Seconds between the commit of what was delivered last and now; 0 when all is delivered."""
    if reached:
        return 0.0
    at = marker.position.committed_at if marker.position else 0.0
    return max(0.0, now - (at or marker.updated_at)) if at or marker.updated_at else 0.0


def describe(
    markers: Sequence[Marker],
    ledger: Iterable[LeasedUnit],
    workers: Iterable[WorkerState],
    *,
    schemas: Sequence[str],
    reached: Reached,
    quarantined: Mapping[TableId, int],
    deferred: Mapping[TableId, int],
    left_out: Collection[str] = (),
    headroom: Mapping[str, Headroom] = MappingProxyType({}),
    now: float,
) -> dict[str, Any]:
    """What `GET /status` and `cartridge-warp status --json` answer.

    `left_out` are units of tables that are not selected any more: shown, and not waited for.
    `headroom` is, by the stream's id, what its source still keeps behind it.
    """
    leases = {entry.unit.id: entry for entry in ledger}
    tables = _tables_by_schema(markers, schemas)
    chunks = [m for m in markers if m.unit.kind is UnitKind.CHUNK]
    planned = Counter((m.unit.schema, m.unit.table) for m in chunks)
    done = Counter((m.unit.schema, m.unit.table) for m in chunks if m.phase is Phase.DONE)
    units = [
        _unit(marker, leases.get(marker.unit.id), tables, reached, now)
        | _headroom(headroom.get(marker.unit.id))
        for marker in markers
        if marker.unit.kind is not UnitKind.TABLE and marker.unit.schema in (*schemas, SHARED)
    ]
    return {
        "caught_up": is_caught_up(
            [m for m in markers if m.unit.id not in left_out], schemas, reached
        ),
        "units": sorted(units, key=lambda unit: str(unit["id"])),
        "tables": [
            {
                "table": str(m.unit.table),
                "schema": m.unit.schema,
                "phase": m.phase.value,
                "epoch": m.epoch,
                "quarantined": quarantined.get(m.unit.table, 0) if m.unit.table else 0,
                "deferred": deferred.get(m.unit.table, 0) if m.unit.table else 0,
                "chunks": {
                    "done": done[m.unit.schema, m.unit.table],
                    "all": planned[m.unit.schema, m.unit.table],
                },
            }
            for m in markers
            if m.unit.kind is UnitKind.TABLE and m.unit.schema in schemas
        ],
        "workers": [
            {"id": w.id, "slots": w.slots, "held": w.held, "alive_for": round(w.alive_for, 3)}
            for w in workers
        ],
        "as_of": now,
    }


def is_caught_up(markers: Sequence[Marker], schemas: Sequence[str], reached: Reached) -> bool:
    """Is every table complete and every stream at the end its log had when it was asked?"""
    if any(not reached.get(schema, False) for schema in schemas):
        return False
    return all(
        marker.phase is Phase.STREAMING
        for marker in markers
        if marker.unit.kind is UnitKind.TABLE and marker.unit.schema in schemas
    )


def _tables_by_schema(markers: Sequence[Marker], schemas: Sequence[str]) -> dict[str, list[str]]:
    """Of the schemas, and under SHARED those that a stream of several carries."""
    polled = {(m.unit.schema, m.unit.table) for m in markers if m.unit.kind is UnitKind.POLL}
    tables: dict[str, list[str]] = {}
    for marker in markers:
        unit = marker.unit
        if unit.kind is UnitKind.TABLE and unit.schema in schemas:
            tables.setdefault(unit.schema, []).append(str(unit.table))
            if (unit.schema, unit.table) not in polled:
                tables.setdefault(SHARED, []).append(str(unit.table))
    return tables


def _unit(
    marker: Marker,
    lease: LeasedUnit | None,
    tables: Mapping[str, list[str]],
    reached: Reached,
    now: float,
) -> dict[str, Any]:
    unit = marker.unit
    follows_log = unit.kind is UnitKind.STREAM
    at_end = reached.get(unit.schema, False) if follows_log else marker.phase is not Phase.PLANNED
    return {
        "id": unit.id,
        "kind": unit.kind.value,
        "schema": unit.schema,
        "tables": [str(unit.table)] if unit.table else sorted(tables.get(unit.schema, [])),
        "phase": marker.phase.value,
        "state": lease.state if lease else "absent",
        "owner": lease.owner if lease else "",
        "fence": marker.fence,
        "epoch": marker.epoch,
        "rows": marker.rows,
        "batch": marker.batch,
        "slot": marker.slot,  # of a schedule, run last
        "lag_seconds": round(lag_of(marker, now, reached=at_end), 3),
        "position": marker.position.token if marker.position else None,
        "updated_at": marker.updated_at,
    }


def _headroom(found: Headroom | None) -> dict[str, Any]:
    return {"headroom": None if found is None else warp.headroom.as_data(found)}


class StatusReader:
    """Reads what `describe` needs, over connections of its own.  One reader at a time."""

    def __init__(
        self,
        assembly: Assembly,
        ledger: LeaseStore,
        schemas: Sequence[str],
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assembly = assembly
        self._ledger = ledger
        self._schemas = tuple(schemas)
        self._wall = wall
        self._clock = clock
        self._lock = threading.Lock()
        self._sources: dict[str, SourceConnector] = {}
        self._destination: DestinationConnector | None = None
        self._headroom: dict[str, Headroom] = {}
        self._headroom_at = -HEADROOM_EVERY

    def read(self) -> dict[str, Any]:
        """The status now.  Raises what the source, the destination or the ledger raises."""
        with self._lock:
            try:
                # The ends of the logs first: markers read later then speak about later.
                ends = {schema: self._source(schema).position() for schema in self._schemas}
                markers = self._metadata().markers()
                return describe(
                    markers,
                    self._ledger.units(),
                    self._ledger.workers(),
                    schemas=self._schemas,
                    reached=self._reached(markers, ends),
                    quarantined=self._metadata().quarantined(),
                    deferred=self._metadata().deferred(),
                    left_out=[m.unit.id for m in markers if not self._is_selected(m)],
                    headroom=self._headroom_of(markers),
                    now=self._wall(),
                )
            except BaseException:
                self._drop()
                raise

    def _reached(self, markers: Sequence[Marker], ends: Mapping[str, Position]) -> dict[str, bool]:
        reached = {}
        sharing = self._assembly.sharing()
        streams = {m.unit.id: m for m in markers if m.unit.kind is UnitKind.STREAM}
        for schema, end in ends.items():
            stream = streams.get(stream_of(schema, sharing).id)
            if stream is None:  # a schema in batch mode: its tables' phases say it all
                reached[schema] = any(m.unit.schema == schema for m in markers)
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
        for schema in self._schemas:
            stream = stream_of(schema, sharing).id
            for marker in markers:
                if marker.unit.id == stream and marker.position and stream not in self._headroom:
                    found = warp.headroom.ask(self._source(schema), marker.position)
                    if found is not None:
                        self._headroom[stream] = found
        return self._headroom

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
