"""`--once`: has everything that was at the source when we started arrived?"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from coordinator.planner import last_run
from warp import startup
from warp.assembly import Assembly
from warp.config import Mode, Settings
from warp.errors import TransientError
from warp.interfaces import DestinationConnector, LeaseStore, SourceConnector
from warp.model import Marker, Phase, Position, TableId, UnitKind, WorkUnit

log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.25  # seconds between looks at the markers


class Once:
    """The goal of one run, and whether it is reached."""

    def __init__(
        self,
        assembly: Assembly,
        ledger: LeaseStore,
        sources: Mapping[str, SourceConnector],
        ends: Mapping[str, Position],
        tables: Mapping[str, Sequence[TableId]],
    ) -> None:
        self._assembly = assembly
        self._ledger = ledger
        self._sources = sources
        self._ends = ends  # of the logs, by schema
        self._tables = tables
        self._began = time.time()
        self._look_at = 0.0
        self._destination: DestinationConnector | None = None

    @classmethod
    def of(cls, settings: Settings, assembly: Assembly, ledger: LeaseStore) -> Self:
        """Take the goal: where each log ends now, and the tables there are."""
        sources = {schema.name: assembly.source(schema.name) for schema in settings.schemas}
        ends = {
            schema.name: sources[schema.name].position()
            for schema in settings.schemas
            if schema.mode is Mode.STREAM and sources[schema.name].traits.streams
        }
        tables = {name: source.tables() for name, source in sources.items()}
        return cls(assembly, ledger, sources, ends, tables)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for source in self._sources.values():
            source.close()
        if self._destination is not None:
            self._destination.close()

    def look(self) -> int | None:
        """The exit code where the run is over; None while it goes on."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_EVERY
        try:
            return self._outcome(self._markers())
        except TransientError as error:
            log.warning("cannot_look", error=str(error), action="looking again")
            self._look_at = now + 1.0
            return None

    def _markers(self) -> dict[str, Marker]:
        if self._destination is None:
            self._destination = self._assembly.bookkeeping()
        found = self._destination.metadata().markers()
        return {m.unit.id: m for m in found if m.unit.schema in self._tables}

    def _outcome(self, markers: Mapping[str, Marker]) -> int | None:
        failed = [m.unit.id for m in markers.values() if m.phase is Phase.FAILED]
        if failed:
            sys.stderr.write(
                f"failed: {', '.join(sorted(failed))}; the reason is in the log above and in "
                "error_log at the destination\n"
            )
            return startup.FAILED
        if not all(self._arrived(schema, markers) for schema in self._tables):
            return None
        rows = sum(m.rows for m in markers.values())
        log.info("all_arrived", tables=sum(map(len, self._tables.values())), rows=rows)
        return startup.DONE

    def _arrived(self, schema: str, markers: Mapping[str, Marker]) -> bool:
        settled = all(
            _is_settled(WorkUnit.of_table(schema, t), markers) for t in self._tables[schema]
        )
        polled = self._poll(schema, markers)
        return settled and polled and self._followed(schema, markers)

    def _followed(self, schema: str, markers: Mapping[str, Marker]) -> bool:
        if schema not in self._ends:
            return True
        stream = markers.get(WorkUnit.stream(schema).id)
        if stream is None or stream.position is None:
            return False
        return self._sources[schema].reached(stream.position, self._ends[schema])

    def _poll(self, schema: str, markers: Mapping[str, Marker]) -> bool:
        """Has every polled table had a run since the start?  Those due later are called now."""
        waiting = [
            m.unit
            for m in markers.values()
            if m.unit.kind is UnitKind.POLL
            and m.unit.schema == schema
            and (last_run(m) or 0.0) < self._began
        ]
        if waiting:
            states = {entry.unit.id: entry.state for entry in self._ledger.units()}
            for unit in waiting:
                if states.get(unit.id) in (None, "later") and _is_settled(unit, markers):
                    self._ledger.offer(unit)
        polled = {m.unit.table for m in markers.values() if m.unit.kind is UnitKind.POLL}
        expected = schema in self._ends or polled.issuperset(self._tables[schema])
        return expected and not waiting


def _is_settled(unit: WorkUnit, markers: Mapping[str, Marker]) -> bool:
    """Have all first rows of a unit's table arrived?"""
    if unit.table is None:
        return False
    marker = markers.get(WorkUnit.of_table(unit.schema, unit.table).id)
    return marker is not None and marker.phase is Phase.STREAMING
