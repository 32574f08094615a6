"""`--once`: has everything that was at the source when we started arrived?"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from commands.progress import Display, progress_of
from coordinator.planner import last_run
from warp import startup
from warp.assembly import Assembly
from warp.config import Mode, Settings
from warp.errors import TransientError
from warp.interfaces import DestinationConnector, LeaseStore, MetadataStore, SourceConnector
from warp.model import SHARED, Marker, Phase, Position, TableId, UnitKind, WorkUnit
from warp.streams import stream_of

log = structlog.get_logger(__name__)

LOOK_EVERY: Final = 0.25  # seconds between looks at the markers

# Units that somebody must do something about, and what.
_STOPPED: Final = {
    Phase.FAILED: "the reason is in the log above and in error_log at the destination",
    Phase.PAUSED: "`cartridge-warp resume SCHEMA` lets a paused schema go on",
}


class Once:
    """The goal of one run, and whether it is reached."""

    def __init__(
        self,
        assembly: Assembly,
        ledger: LeaseStore,
        sources: Mapping[str, SourceConnector],
        ends: Mapping[str, Position],
        tables: Mapping[str, Sequence[TableId]],
        display: Display,
    ) -> None:
        self._assembly = assembly
        self._ledger = ledger
        self._sources = sources
        self._ends = ends  # of the logs, by schema
        self._tables = tables
        self._display = display
        self._began = time.time()
        self._look_at = 0.0
        self._destination: DestinationConnector | None = None

    @classmethod
    def of(
        cls, settings: Settings, assembly: Assembly, ledger: LeaseStore, display: Display
    ) -> Self:
        """Take the goal: where each log ends now, and the tables there are."""
        sources = {schema.name: assembly.source(schema.name) for schema in settings.schemas}
        ends = {
            schema.name: sources[schema.name].position()
            for schema in settings.schemas
            if schema.mode is Mode.STREAM and sources[schema.name].traits.streams
        }
        tables = {name: source.tables() for name, source in sources.items()}
        return cls(assembly, ledger, sources, ends, tables, display)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.close()
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

    def _metadata(self) -> MetadataStore:
        if self._destination is None:
            self._destination = self._assembly.bookkeeping()
        return self._destination.metadata()

    def _markers(self) -> dict[str, Marker]:
        found = self._metadata().markers()
        # A comparison that stopped keeps no row from arriving.
        return {
            m.unit.id: m
            for m in found
            if m.unit.schema in (*self._tables, SHARED) and m.unit.kind is not UnitKind.VERIFY
        }

    def _outcome(self, markers: Mapping[str, Marker]) -> int | None:
        for phase, what_to_do in _STOPPED.items():
            stopped = sorted(m.unit.id for m in markers.values() if m.phase is phase)
            if stopped:
                self._display.close()
                sys.stderr.write(f"{phase}: {', '.join(stopped)}; {what_to_do}\n")
                return startup.FAILED
        all_tables = [(schema, t) for schema, of in self._tables.items() for t in of]
        settled = sum(_is_settled(WorkUnit.of_table(s, t), markers) for s, t in all_tables)
        self._display.show(progress_of(markers.values(), tables=len(all_tables), complete=settled))
        if not all(self._arrived(schema, markers) for schema in self._tables):
            return None
        return self._summary([table for _, table in all_tables])

    def _summary(self, tables: Sequence[TableId]) -> int:
        """What a person or a script must know at the end."""
        waiting = self._metadata().quarantined()
        aside = {table: waiting[table] for table in sorted(tables) if table in waiting}
        log.info("all_arrived", tables=len(tables), set_aside=sum(aside.values()))
        self._display.close()
        if not aside:
            return startup.DONE
        counts = ", ".join(f"{rows:,} of {table}" for table, rows in aside.items())
        sys.stderr.write(
            f"rows in quarantine: {counts}; all others have arrived. The table `quarantine` of "
            "the metadata schema holds each with its reason, `cartridge-warp status` counts them\n"
        )
        return startup.DIFFERENT

    def _arrived(self, schema: str, markers: Mapping[str, Marker]) -> bool:
        settled = all(
            _is_settled(WorkUnit.of_table(schema, t), markers) for t in self._tables[schema]
        )
        polled = self._poll(schema, markers)
        return settled and polled and self._followed(schema, markers)

    def _followed(self, schema: str, markers: Mapping[str, Marker]) -> bool:
        if schema not in self._ends:
            return True
        stream = markers.get(stream_of(schema, self._assembly.sharing()).id)
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
