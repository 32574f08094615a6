"""The path of a change, whole: get_changes → evolve → write_batch → acknowledge.

Four hops per batch, never per row.  Everything else in this project decides when these functions
run and who runs them; nothing else moves a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from structlog.contextvars import bind_contextvars

from warp import partial, replays
from warp.ahead import ahead
from warp.errors import SchemaBusy, SchemaMoved, SourceRefused, WarpError
from warp.evolve import Growth, evolve
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.machine import THIS_MACHINE, Machine
from warp.model import (
    Change,
    ChangeBatch,
    Documents,
    Evolution,
    Finding,
    Marker,
    Operation,
    Phase,
    Position,
    Role,
    SchemaChange,
    SetAside,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    Written,
)
from warp.right_of_way import RightOfWay

# How often a blocked read comes back to look around: bounds the hand-off of a quiet unit.
IDLE_SECONDS = 0.25
# After a table was too busy for its columns to be changed, until they are tried again.
BUSY_SECONDS = 5.0
# A replay keeps every other writer of its table waiting for the length of one transaction.
REPLAYED_AT_ONCE = 200
_WHOLE = bytes((Operation.READ, Operation.TRUNCATE))  # all that a table without a key can take
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
    machine: Machine = THIS_MACHINE,
    way: RightOfWay | None = None,
) -> Marker:
    """Follow the log until the hold says stop.  `marker` is what `destination.open` returned.

    A unit without a position starts at the log's end now, stored before anything is read.
    """
    delivery = Delivery(source, destination, hold, selection, meter, machine.monotonic)
    way = way or RightOfWay(machine)
    if marker.position is None:
        marker = delivery.move(marker, ChangeBatch([], source.position()), Phase.STREAMING)
    if marker.position is None:
        raise AssertionError("the marker was given a position")
    moved_at = machine.monotonic()
    was_busy = True
    # A quiet stream's marker still follows the log, so it is never lost; and so soon, that whoever
    # compares the marker with the log's end (`status`) does not take a quiet stream for a late one.
    patience = destination.traits.idle_marker_seconds
    changes = source.get_changes(marker.position, selection=selection, idle=idle)
    with ahead(changes, stopping=hold.stopping, machine=machine) as batches:
        for batch in batches:
            busy = len(batch) > 0 or bool(batch.reload)
            quiet_for = machine.monotonic() - moved_at
            if busy:
                begun = machine.monotonic()
                marker = delivery.write(marker, batch, Phase.STREAMING)
                way.delivered(len(batch), machine.monotonic() - begun)
            elif batch.end != marker.position and (was_busy or quiet_for >= patience):
                marker = delivery.move(marker, batch, Phase.STREAMING)
            if busy or marker.position == batch.end:
                moved_at = machine.monotonic()
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
    machine: Machine = THIS_MACHINE,
    way: RightOfWay | None = None,
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
    delivery = Delivery(source, destination, hold, selection, meter, machine.monotonic)
    way = way or RightOfWay(machine)
    schema = delivery.know(chunk.table)  # so that a table without any row is there too
    if schema is not None and not schema.key and (chunk.lower or chunk.upper):
        raise SourceRefused(
            "expected one chunk of a table that has no key, found several: a chunk of it takes "
            "the place of all rows there are",
            place=marker.unit.id,
        )
    waiting: ChangeBatch | None = None  # one batch behind, so that the last one is known
    with ahead(source.get_full_snapshot(chunk), machine=machine) as batches:
        for batch in batches:
            if waiting is not None:
                with way.turn(hold):
                    marker = delivery.write(marker, waiting, Phase.SNAPSHOT)
            waiting = batch
            hold.check()
            if hold.stopping():
                return False
    if waiting is None:
        raise WarpError("a snapshot yields at least one batch", place=marker.unit.id)
    with way.turn(hold):
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
    machine: Machine = THIS_MACHINE,
) -> bool:
    """One run of a polled table; True when it is complete, False when asked to stop half-way."""
    table = marker.unit.table
    if table is None:
        raise AssertionError("a poll unit has a table")
    delivery = Delivery(source, destination, hold, selection, meter, machine.monotonic)
    schema = delivery.know(table)
    # A run of a table without a key takes the place of the last one, so each begins at the start.
    after = marker.position if schema is None or schema.key else None
    with ahead(source.poll(table, after, fire_time=fire_time), machine=machine) as batches:
        for batch in batches:
            marker = delivery.write(marker, batch, Phase.SNAPSHOT)
            source.acknowledge(batch.end)  # only now: the marker is durable (guarantee 3)
            hold.check()
            delivery.promote()
            if hold.stopping():
                return False
    if marker.position is None:
        raise WarpError("a poll yields at least one batch", place=marker.unit.id)
    delivery.move(marker, ChangeBatch([], marker.position), Phase.IDLE)
    meter.caught_up()
    return True


def replay(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
    meter: Meter,
    machine: Machine = THIS_MACHINE,
) -> bool:
    """Land what is to be replayed of one table; True when none is left, False when asked to stop.

    Each row and what became of it commit together, so a row lands once; one refused again waits
    for a person as before.
    """
    unit = marker.unit
    if unit.table is None:
        raise AssertionError("a replay unit has a table")
    delivery = Delivery(source, destination, hold, selection, meter, machine.monotonic)
    metadata = destination.metadata()
    while rows := metadata.to_replay(unit.schema, unit.table, REPLAYED_AT_ONCE):
        marker = delivery.write_replayed(marker, rows, Phase.SNAPSHOT)
        hold.check()
        if hold.stopping():
            return False
    # Refused where rows were added since: the marker's fence grew with them.
    end = marker.position or Position("quarantine 0")
    delivery.move(marker, ChangeBatch([], end), Phase.IDLE)
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
        clock: Callable[[], float] = THIS_MACHINE.monotonic,
    ) -> None:
        self._source = source
        self._destination = destination
        self._hold = hold
        self._selection = selection
        self._meter = meter
        self._clock = clock
        self._known: dict[TableId, TableSchema] = {}
        self._growth = Growth()
        self._learn_again: dict[TableId, float] = {}  # tables whose columns could not be changed

    def write(self, marker: Marker, batch: ChangeBatch, phase: Phase) -> Marker:
        """Deliver one batch and return the marker it left behind."""
        whole = self._source.traits.full_rows
        for _ in range(EVOLVE_ATTEMPTS):
            plan = self._evolve(batch)
            if plan is None:
                continue
            if not whole and any(lacking := [partial.rows_of(part) for part in batch.changes]):
                batch, whole = self._looked_up(batch, lacking), True
                continue
            self._hold.check()
            after = marker.advanced(batch, phase=phase)
            bind_contextvars(batch=after.batch)  # on every line from here on
            try:
                written = self._destination.write_batch(
                    plan.batch, after, quarantined=plan.quarantined, findings=plan.findings
                )
            except SchemaMoved:
                self._forget(batch)
                continue
            self._report(plan, written)
            return after
        raise self._never_still(marker)

    def write_replayed(self, marker: Marker, rows: Sequence[SetAside], phase: Phase) -> Marker:
        """Deliver rows of one table out of quarantine, likewise."""
        table = rows[0].row.table
        for _ in range(EVOLVE_ATTEMPTS):
            self.know(table)
            loaded = replays.load(rows, self._known.get(table))
            plan = self._evolve(loaded.batch)
            if plan is None:
                continue
            replay = replays.gather(plan, loaded)
            self._hold.check()
            after = marker.advanced(plan.batch, phase=phase)
            bind_contextvars(batch=after.batch)  # on every line from here on
            try:
                written = self._destination.write_batch(
                    plan.batch,
                    after,
                    quarantined=plan.quarantined,
                    findings=plan.findings,
                    replay=replay,
                )
            except SchemaMoved:
                self._known.pop(table, None)
                continue
            self._report(plan, written)
            return after
        raise self._never_still(marker)

    def move(self, marker: Marker, batch: ChangeBatch, phase: Phase) -> Marker:
        """Move the marker without rows."""
        self._hold.check()
        after = marker.advanced(batch, phase=phase)
        bind_contextvars(batch=after.batch)  # on every line from here on
        self._destination.update_marker(after)
        return after

    def retry_deferred(self, marker: Marker) -> Marker:
        """Where nothing else is written: a transaction for rows that wait for other rows."""
        if marker.position is None or not self._destination.deferred_due(marker.unit.schema):
            return marker
        return self.move(marker, ChangeBatch([], marker.position), marker.phase)

    def promote(self) -> None:
        """Give fields that have waited long enough their columns, between transactions.

        A table that somebody reads for long waits for its columns, and the rows do not.
        """
        now = self._clock()
        for table in [t for t, at in self._learn_again.items() if at <= now]:
            del self._learn_again[table]
            self._known.pop(table, None)
        changes = self._growth.due(self._known, self._selection, now)
        if not changes:
            return
        self._hold.check()
        try:
            self._change(changes)
        except SchemaBusy:
            for change in changes:
                if change.column is not None:
                    self._growth.observe(change.table, {change.column.source: change.column}, now)

    def _evolve(self, batch: ChangeBatch) -> Evolution | None:
        """The batch as the destination can take it; None after a schema change: evolve anew."""
        for part in batch.changes:
            self.know(part.table, part.documents)
            _must_find_its_rows(part, self._known.get(part.table))
        plan = evolve(batch, self._known, self._selection)
        if not plan.ddl:
            return plan
        try:
            self._change(plan.ddl)
        except SchemaBusy:
            if not self._go_on_without(plan.ddl):
                raise
        return None

    def _looked_up(self, batch: ChangeBatch, lacking: Sequence[Sequence[int]]) -> ChangeBatch:
        """The batch with those rows made whole that the destination has not got yet (guarantee 4).

        Asked after the tables are known, and before the batch is evolved with what was found.
        """
        changes = [
            self._made_whole(part, rows) if rows else part
            for part, rows in zip(batch.changes, lacking, strict=True)
        ]
        return replace(batch, changes=changes)

    def _made_whole(self, part: TableChanges, rows: Sequence[int]) -> TableChanges:
        settings = self._selection(part.table)
        if settings is None:
            raise AssertionError("an evolved part is of a selected table")
        keys, updates = partial.asked(part, rows, self._known[part.table], settings)
        missing = set(partial.created(part, rows))
        if updates:
            missing |= {updates[place] for place in self._destination.missing(keys)}
        if not missing:
            return part
        return partial.filled(part, missing, self._source.look_up(partial.wanted(part, missing)))

    def _go_on_without(self, changes: Sequence[SchemaChange]) -> bool:
        """Values that a busy table's columns cannot hold yet may wait in `_extra`."""
        widened: dict[TableId, set[str]] = {}
        for change in changes:
            if change.change not in (Change.WIDEN_COLUMN, Change.TEXT_COLUMN) or not change.column:
                return False
            widened.setdefault(change.table, set()).add(change.column.name)
        if not all(
            any(c.role is Role.EXTRA for c in self._known[table].columns) for table in widened
        ):
            return False
        for table, names in widened.items():
            schema = self._known[table]
            self._known[table] = replace(
                schema,
                columns=tuple(
                    replace(c, fixed=True) if c.name in names else c for c in schema.columns
                ),
            )
            self._learn_again[table] = self._clock() + BUSY_SECONDS
        return True

    def know(self, table: TableId, documents: Documents | None = None) -> TableSchema | None:
        """Read the schema of a table not known yet; create the table nobody has made."""
        if table not in self._known:
            self._learn(table, documents)
        return self._known.get(table)

    def _learn(self, table: TableId, documents: Documents | None) -> None:
        schema = self._destination.get_schema(table)
        if schema is not None:
            self._known[table] = schema
            if not schema.is_guess:
                return
        for proposal in self._proposals(table, documents if schema is not None else None):
            # A guess was made on an empty collection: the first documents know better.
            if schema is None or _differs(proposal, schema):
                self._change([SchemaChange(table, Change.CREATE_TABLE, schema=proposal)])
                return

    def _proposals(self, table: TableId, documents: Documents | None) -> Iterator[TableSchema]:
        yield from self._source.get_schema([table]).values()
        settings = self._selection(table)
        if documents is not None and settings is not None:
            yield documents.describe(settings)  # those at the source may be gone again

    def _change(self, changes: list[SchemaChange]) -> None:
        self._destination.apply_schema_changes(changes)
        self._meter.evolved(changes)
        for table in dict.fromkeys(change.table for change in changes):
            schema = self._destination.get_schema(table)
            if schema is None:
                raise WarpError("the table just changed is not there", place=str(table))
            self._known[table] = schema

    def _never_still(self, marker: Marker) -> WarpError:
        return WarpError(
            f"the destination's schema changed {EVOLVE_ATTEMPTS} times under one batch",
            place=marker.unit.id,
        )

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


def _must_find_its_rows(part: TableChanges, have: TableSchema | None) -> None:
    if have is None or have.key or not part.operations.translate(None, _WHOLE):
        return
    raise SourceRefused(
        "expected a primary key, found none: without one no change finds its row; give the table "
        "one, or have it captured by a full comparison",
        place=str(part.table),
    )


def _differs(proposal: TableSchema, guess: TableSchema) -> bool:
    wanted, have = (sorted((c.name, c.kind) for c in s.columns) for s in (proposal, guess))
    return wanted != have
