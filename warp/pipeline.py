"""The path of a change, whole: get_changes → evolve → write_batch → acknowledge.

Four hops per batch, never per row.  Everything else in this project decides when these functions
run and who runs them; nothing else moves a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from warp.ahead import ahead
from warp.errors import SchemaMoved, WarpError
from warp.evolve import Growth, evolve
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.model import (
    Change,
    ChangeBatch,
    Evolution,
    Finding,
    Marker,
    Phase,
    SchemaChange,
    TableId,
    TableSchema,
    TableSelection,
    Written,
)

# How often a blocked read comes back to look around: bounds the hand-off of a quiet unit.
IDLE_SECONDS = 0.25
# A quiet stream's marker still follows the log, so it is never lost; and so soon, that whoever
# compares the marker with the log's end (`status`) does not take a quiet stream for a late one.
IDLE_MARKER_SECONDS = 2.0
EVOLVE_ATTEMPTS = 20  # each means another worker changed the table meanwhile


class Meter(Protocol):
    """What the pipeline tells the world about its progress; `warp.metrics` implements it."""

    def committed(self, batch: ChangeBatch, written: Written) -> None: ...
    def caught_up(self) -> None: ...
    def evolved(self, changes: Iterable[SchemaChange]) -> None: ...
    def found(self, findings: Sequence[Finding]) -> None: ...


class NoMeter:
    """Says nothing."""

    def committed(self, batch: ChangeBatch, written: Written) -> None: ...
    def caught_up(self) -> None: ...
    def evolved(self, changes: Iterable[SchemaChange]) -> None: ...
    def found(self, findings: Sequence[Finding]) -> None: ...


def stream(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
    meter: Meter,
    idle: float = IDLE_SECONDS,
) -> Marker:
    """Follow the log until the hold says stop.  `marker` is what `destination.open` returned.

    A unit without a position starts at the log's end now, stored before anything is read.
    """
    delivery = Delivery(source, destination, hold, selection, meter)
    if marker.position is None:
        marker = delivery.move(marker, ChangeBatch([], source.position()), Phase.STREAMING)
    if marker.position is None:
        raise AssertionError("the marker was given a position")
    moved_at = time.monotonic()
    was_busy = True
    changes = source.get_changes(marker.position, selection=selection, idle=idle)
    with ahead(changes, stopping=hold.stopping) as batches:
        for batch in batches:
            busy = len(batch) > 0 or bool(batch.reload)
            quiet_for = time.monotonic() - moved_at
            if busy:
                marker = delivery.write(marker, batch, Phase.STREAMING)
            elif batch.end != marker.position and (was_busy or quiet_for >= IDLE_MARKER_SECONDS):
                marker = delivery.move(marker, batch, Phase.STREAMING)
            if busy or marker.position == batch.end:
                moved_at = time.monotonic()
                source.acknowledge(batch.end)  # only now: the marker is durable (guarantee 3)
            if not busy:
                meter.caught_up()
            was_busy = busy
            hold.check()
            delivery.promote()
            if not busy:
                marker = delivery.retry_deferred(marker)
            if hold.stopping():
                break
    return marker


def snapshot(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
    meter: Meter,
) -> bool:
    """Read one chunk; True when it is done, False when the hold asked to stop half-way.

    The last batch and the done-mark commit together, so a chunk is done or read again
    (guarantee 8); reading it again is harmless because older rows never replace newer ones.
    """
    chunk = marker.unit.chunk
    if chunk is None:
        raise AssertionError("a chunk unit has a chunk")
    if marker.phase == Phase.DONE:
        return True
    delivery = Delivery(source, destination, hold, selection, meter)
    waiting: ChangeBatch | None = None  # one batch behind, so that the last one is known
    with ahead(source.get_full_snapshot(chunk)) as batches:
        for batch in batches:
            if waiting is not None:
                marker = delivery.write(marker, waiting, Phase.SNAPSHOT)
            waiting = batch
            hold.check()
            if hold.stopping():
                return False
    if waiting is None:
        raise WarpError("a snapshot yields at least one batch", place=marker.unit.id)
    delivery.write(marker, waiting, Phase.DONE)
    return True


def poll(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
    meter: Meter,
    fire_time: float,
) -> bool:
    """One run of a polled table; True when it is complete, False when asked to stop half-way."""
    table = marker.unit.table
    if table is None:
        raise AssertionError("a poll unit has a table")
    delivery = Delivery(source, destination, hold, selection, meter)
    with ahead(source.poll(table, marker.position, fire_time=fire_time)) as batches:
        for batch in batches:
            marker = delivery.write(marker, batch, Phase.SNAPSHOT)
            hold.check()
            delivery.promote()
            if hold.stopping():
                return False
    if marker.position is None:
        raise WarpError("a poll yields at least one batch", place=marker.unit.id)
    delivery.move(marker, ChangeBatch([], marker.position), Phase.IDLE)
    meter.caught_up()
    return True


class Delivery:
    """The last two hops of one unit, with what it knows of the destination's tables."""

    def __init__(
        self,
        source: SourceConnector,
        destination: DestinationConnector,
        hold: Hold,
        selection: TableSelection,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._destination = destination
        self._hold = hold
        self._selection = selection
        self._meter = meter
        self._clock = clock
        self._known: dict[TableId, TableSchema] = {}
        self._growth = Growth()

    def write(self, marker: Marker, batch: ChangeBatch, phase: Phase) -> Marker:
        """Deliver one batch and return the marker it left behind."""
        for _ in range(EVOLVE_ATTEMPTS):
            plan = self._evolve(batch)
            if plan is None:
                continue
            self._hold.check()
            after = marker.advanced(batch, phase=phase)
            try:
                written = self._destination.write_batch(
                    plan.batch, after, quarantined=plan.quarantined, findings=plan.findings
                )
            except SchemaMoved:
                self._forget(batch)
                continue
            self._report(plan, written)
            return after
        raise WarpError(
            f"the destination's schema changed {EVOLVE_ATTEMPTS} times under one batch",
            place=marker.unit.id,
        )

    def move(self, marker: Marker, batch: ChangeBatch, phase: Phase) -> Marker:
        """Move the marker without rows."""
        self._hold.check()
        after = marker.advanced(batch, phase=phase)
        self._destination.update_marker(after)
        return after

    def retry_deferred(self, marker: Marker) -> Marker:
        """Where nothing else is written: a transaction for rows that wait for other rows."""
        if marker.position is None or not self._destination.deferred_due(marker.unit.schema):
            return marker
        return self.move(marker, ChangeBatch([], marker.position), marker.phase)

    def promote(self) -> None:
        """Give fields that have waited long enough their columns, between transactions."""
        changes = self._growth.due(self._known, self._selection, self._clock())
        if changes:
            self._hold.check()
            self._change(changes)

    def _evolve(self, batch: ChangeBatch) -> Evolution | None:
        """The batch as the destination can take it; None after a schema change: evolve anew."""
        self._learn([part.table for part in batch.changes])
        plan = evolve(batch, self._known, self._selection)
        if not plan.ddl:
            return plan
        self._change(plan.ddl)
        return None

    def _learn(self, tables: Iterable[TableId]) -> None:
        """Read the schema of each table not known yet; create the tables nobody has made."""
        for table in dict.fromkeys(tables):
            if table in self._known:
                continue
            schema = self._destination.get_schema(table)
            if schema is None:
                for proposal in self._source.get_schema([table]).values():
                    self._change([SchemaChange(table, Change.CREATE_TABLE, schema=proposal)])
            else:
                self._known[table] = schema

    def _change(self, changes: list[SchemaChange]) -> None:
        self._destination.apply_schema_changes(changes)
        self._meter.evolved(changes)
        for table in {change.table for change in changes}:
            schema = self._destination.get_schema(table)
            if schema is None:
                raise WarpError("the table just changed is not there", place=str(table))
            self._known[table] = schema

    def _forget(self, batch: ChangeBatch) -> None:
        for part in batch.changes:
            self._known.pop(part.table, None)

    def _report(self, plan: Evolution, written: Written) -> None:
        now = self._clock()
        for table, unknown in plan.unknown.items():
            self._growth.observe(table, unknown, now)
        if plan.findings:
            self._meter.found(plan.findings)
        self._meter.committed(plan.batch, written)
