"""Does the planner's duties: the edge between what should be and what is.

A round reads the markers and the ledger once, then tends each schema: asks its source which
tables there are, decides, acts.  A schema that fails is tried again after a while and keeps no
other waiting.  After a wiped ledger the next round brings back every unit that should run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import cast

import structlog

from coordinator import planner
from coordinator.leader import Leadership
from coordinator.planner import (
    AdoptTable,
    Duty,
    Ensure,
    Follow,
    GiveUp,
    MarkersOf,
    OfferLater,
    PlanSnapshot,
    PlanVerification,
    Revive,
    SchemaView,
    Settle,
    StartPoll,
    StartStream,
)
from coordinator.watch import Watch
from warp import headroom, verifying
from warp.assembly import Assembly
from warp.config import LostPosition, Mode, SchemaSettings, Settings
from warp.digest.seams import ComparedDestination, Verifications
from warp.errors import LedgerUnavailable, PositionLost, TransientError, UnitFailed, WarpError
from warp.headroom import State
from warp.interfaces import (
    CutsRanges,
    DestinationConnector,
    LeaseStore,
    MetadataStore,
    ResyncsRanges,
    SourceConnector,
)
from warp.machine import THIS_MACHINE, Event, Machine, between
from warp.model import (
    SHARED,
    Change,
    Choice,
    LeasedUnit,
    Marker,
    Phase,
    Position,
    SchemaChange,
    TableId,
    TableSettings,
    UnitKind,
    WorkUnit,
)
from warp.streams import left_behind, stream_of

log = structlog.get_logger(__name__)

LOOK = 0.5  # seconds between looks at the ledger's incarnation
BUSY_EVERY = 1.0  # seconds between rounds while some table has not got its first rows
AT_ONCE = 0.05  # after a round that changed something: its consequences are due now
TENDERS = 4  # schemas tended side by side; cutting a large table into chunks takes a while
HEADROOM_EVERY = 30.0  # seconds between looks at how far back a source's log reaches
SAME_MOMENT = 60.0  # seconds between a stop's line in the error log and its mark, at most
MEND_EVERY = 60.0  # seconds between looks whether a stranger wrote to the ledger
VERIFIED_EVERY = 10.0  # seconds between looks at what comparisons have found
PATIENCE = 3  # failed rounds before another coordinator may try


@dataclass(frozen=True, slots=True)
class Seen:
    """What a round starts from."""

    markers: dict[str, MarkersOf]
    units: dict[str, LeasedUnit]


@dataclass(slots=True)
class Desk:
    """What the reconciler keeps per schema between rounds."""

    settings: SchemaSettings
    source: SourceConnector | None = None
    work: Future[bool] | None = None
    failures: int = 0
    not_before: float = 0.0
    waits: bool | None = None  # a serial snapshot keeps its stream waiting; None: not known yet
    reached: bool = False  # the stream stands where the log ended when it was last looked at
    headroom_at: float = 0.0
    headroom: State | None = None  # of its stream, when it was last told
    verified_at: float = 0.0
    # Dead units and how far they had come when they were last given another chance.
    revived: dict[str, int] = field(default_factory=dict)


class Reconciler:
    """Runs rounds for as long as this coordinator leads."""

    def __init__(
        self,
        settings: Settings,
        assembly: Assembly,
        ledger: LeaseStore,
        leadership: Leadership,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self._settings = settings
        self._assembly = assembly
        self._ledger = ledger
        self._leadership = leadership
        self._watch = watch
        self._clock = clock
        self._wall = wall
        self._machine = machine
        self._desks = {schema.name: Desk(schema) for schema in settings.schemas}
        self._sharing = assembly.sharing()
        self._books = Books(assembly)
        self._incarnation = ""
        self._failed_rounds = 0
        self._mended_at = clock()
        self._heard_at = clock()
        self._pool = machine.pool(min(TENDERS, len(self._desks)), name="tend")

    # ------------------------------------------------------------ rounds

    def run(self, stop: Event) -> None:
        """Rounds until `stop` is set."""
        try:
            while not stop.is_set():
                if not self._leadership.leading:
                    self._watch.rest()
                    self._heard_at = self._clock()
                    self._leadership.wait(LOOK)
                    continue
                pause = self._guarded_round()
                self._heard_at = self._clock()
                self._rest(pause, stop)
        finally:
            self.close()

    def silent_for(self) -> float:
        """Seconds since a round last ended, well or not; 0 while standing by."""
        return self._clock() - self._heard_at if self._leadership.leading else 0.0

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for desk in self._desks.values():
            _drop_source(desk)
        self._books.close()

    def _guarded_round(self) -> float:
        """One round, and how long to rest after it."""
        try:
            pause = self.round()
        except TransientError as error:
            self._failed_rounds += 1
            if self._failed_rounds == 1:
                log.warning("round_failed", error=str(error), action="trying again")
            self._books.drop()
        except Exception as error:
            self._failed_rounds += 1
            log.exception("round_broke", error=str(error), action="trying again")
            self._books.drop()
        else:
            if self._failed_rounds:
                log.info("rounds_succeed_again", after=self._failed_rounds)
            self._failed_rounds = 0
            return pause
        if self._failed_rounds % PATIENCE == 0:
            # Perhaps it is our network only: make room for a standby.
            self._leadership.give_up()
        return min(5.0, 0.5 * 2.0**self._failed_rounds)

    def _rest(self, pause: float, stop: Event) -> None:
        """Until the next round is due, or at once when the ledger was wiped."""
        until = self._clock() + pause
        while (left := until - self._clock()) > 0 and not stop.wait(min(left, LOOK)):
            with contextlib.suppress(LedgerUnavailable):
                if self._incarnation and self._ledger.incarnation() != self._incarnation:
                    return

    def round(self) -> float:
        """Look, decide, act once; how long to rest."""
        self._greet()
        everything = self._books.metadata().markers()
        units = self._ledger.units()
        seen = Seen(planner.by_schema(everything), {u.unit.id: u for u in units})
        changed = self._tend_all(seen)
        shared = {SHARED} if self._sharing else set()
        known = {marker.unit.id for marker in everything}
        gone = planner.to_withdraw(self._desks.keys() | shared, seen.markers, units, known=known)
        if gone and (withdrawn := self._ledger.withdraw(gone)):
            log.info("units_withdrawn", count=withdrawn)
        reached = {desk.settings.name: desk.reached for desk in self._desks.values()}
        reached |= dict.fromkeys(shared, all(reached[name] for name in self._sharing))
        self._watch.observe(everything, units, reached=reached, now=self._wall())
        if changed:
            return AT_ONCE
        busy = planner.is_snapshotting(
            markers for name, markers in seen.markers.items() if name in self._desks
        )
        every: float = self._settings.coordination.reconcile_every
        return min(BUSY_EVERY, every) if busy else every

    def _greet(self) -> None:
        """Has Redis been wiped since the last round, or written to by a stranger?"""
        if self._clock() >= self._mended_at + MEND_EVERY:
            self._mended_at = self._clock()
            self._ledger.mend()
        incarnation = self._ledger.incarnation()
        if self._incarnation and incarnation != self._incarnation:
            log.warning("ledger_was_wiped", action="offering every unit again")
            self._watch.wiped()
        self._incarnation = incarnation

    # ------------------------------------------------------------ schemas

    def _tend_all(self, seen: Seen) -> bool:
        """Start tending every schema that is not being tended; True if one changed something.

        Waits for the quick ones only: a table that takes minutes to cut into chunks must not
        keep other schemas waiting.
        """
        started: list[Future[bool]] = []
        for desk in self._desks.values():
            if desk.work is not None and not desk.work.done():
                continue
            if self._clock() >= desk.not_before:
                desk.work = self._pool.submit(self._tend_guarded, desk, seen)
                started.append(desk.work)
        done, slow = wait(started, timeout=2.0)
        return any(future.result() for future in done) or bool(slow)

    def _tend_guarded(self, desk: Desk, seen: Seen) -> bool:
        """Top of a tending thread: one schema's failure ends here."""
        name = desk.settings.name
        try:
            changed = self._tend(desk, seen)
        except WarpError as error:
            self._failed(desk, error, log.error if not _waits(error) else log.warning)
        except Exception as error:  # noqa: BLE001
            self._failed(desk, error, log.exception)
        else:
            if desk.failures:
                log.info("schema_tended_again", schema=name)
            desk.failures = 0
            return changed
        return False

    def _failed(self, desk: Desk, error: Exception, say: Callable[..., object]) -> None:
        desk.failures += 1
        if desk.failures == 1:
            say("schema_not_tended", schema=desk.settings.name, error=str(error))
            self._watch.schema_failed(desk.settings.name, error)
        _drop_source(desk)
        self._books.drop()
        desk.not_before = self._clock() + between(self._machine, 0.5, 1.0) * min(
            60.0, 2.0**desk.failures
        )

    def _tend(self, desk: Desk, seen: Seen) -> bool:
        schema = desk.settings
        if desk.source is None:
            desk.source = self._assembly.source(schema.name)
        markers = seen.markers.get(schema.name, MarkersOf())
        stream = stream_of(schema.name, self._sharing)
        if stream.schema == SHARED:
            shared = seen.markers.get(SHARED, MarkersOf())
            markers = dataclasses.replace(markers, stream=shared.stream)
        selection = self._assembly.selection(schema.name)
        view = SchemaView(
            schema.name,
            tuple(self._selected(schema.name, desk.source)),
            streams=schema.mode is Mode.STREAM and desk.source.traits.streams,
            stream=stream,
            follows=self._assembly.follows(stream.schema),
            left_out=frozenset(t for t in markers.tables if selection(t) is None),
            held=self._is_held(desk, markers.stream),
            first=stream.schema != SHARED or schema.name == self._sharing[0],
            scheduled=schema.schedule is not None,
            now=self._wall(),
        )
        desk.waits = planner.waits_for_snapshot(view, markers)
        duties = planner.plan(
            view, markers, seen.units, revived=desk.revived, delay=self._delay_of(schema)
        )
        changed = False
        for duty in duties:
            changed |= self._do(duty, desk, desk.source)
        self._look_at_log(desk, desk.source, markers.stream)
        if markers.stream is not None and markers.stream.phase is Phase.FAILED:
            self._start_over_if_lost(desk, markers.stream)
        self._look_at_verifications(desk, markers)
        return changed

    def _start_over_if_lost(self, desk: Desk, stream: Marker) -> None:
        """Ask for what an operator would ask for, where the configuration says so.

        Once for each place that is lost: the errand's id names the stream's epoch, which grows as
        it is carried out.
        """
        carried = self._sharing if stream.unit.schema == SHARED else (desk.settings.name,)
        wish = self._settings.errors.on_lost_position
        if wish is LostPosition.STOP or desk.settings.name != carried[0]:
            return
        metadata = self._books.metadata()
        lost = metadata.errors(Choice(code=PositionLost.code, limit=100))
        told = next((line.last_at for line in lost if line.unit == stream.unit.id), None)
        if told is None or stream.updated_at - told > SAME_MOMENT:
            return  # it stopped for another reason
        id = f"lost {stream.unit.id} {stream.epoch}"
        if not metadata.errands(id):
            log.warning("place_in_log_lost", unit=stream.unit.id, action=f"{wish}, as configured")
            metadata.add_errand(id, wish.value, {"schema": desk.settings.name})

    def _is_held(self, desk: Desk, stream: Marker | None) -> bool:
        """Does another schema keep the shared stream waiting, or may it, for all we know yet?"""
        if desk.settings.name not in self._sharing:
            return False
        others = [self._desks[name] for name in self._sharing if name != desk.settings.name]
        begins = stream is None or stream.batch == 0
        return any(begins if other.waits is None else other.waits for other in others)

    def _look_at_log(self, desk: Desk, source: SourceConnector, stream: Marker | None) -> None:
        """Does the stream lag, and how long does the log keep its place?"""
        if stream is not None and stream.position is not None:
            desk.reached = source.reached(stream.position, source.position())
        if stream is not None and stream.position is not None:
            self._look_at_headroom(desk, source, stream.unit, stream.position)

    def _look_at_headroom(
        self, desk: Desk, source: SourceConnector, stream: WorkUnit, position: Position
    ) -> None:
        """For the metrics and the log, before a place is forgotten; once for a shared stream."""
        carried = self._sharing if stream.schema == SHARED else (desk.settings.name,)
        if self._clock() < desk.headroom_at or desk.settings.name != carried[0]:
            return
        desk.headroom_at = self._clock() + HEADROOM_EVERY
        found = headroom.ask(source, position)
        if found is None:
            return
        self._watch.headroom(carried, found)
        state = headroom.state_of(found)
        if state is not desk.headroom and state is not State.UNKNOWN:
            if state is not State.OK:
                log.warning(
                    "log_runs_out" if state is State.LOW else "place_in_log_lost",
                    unit=stream.id,
                    found=found.told,
                    action=found.mend or "run `cartridge-warp doctor`",
                )
            elif desk.headroom is not None:
                log.info("log_reaches_back_again", unit=stream.id, found=found.told)
            desk.headroom = state

    def _look_at_verifications(self, desk: Desk, markers: MarkersOf) -> None:
        """For the metrics: what was found by the last comparisons, and how old that is."""
        if not markers.verifications or self._clock() < desk.verified_at:
            return
        desk.verified_at = self._clock() + VERIFIED_EVERY
        verifications = self._books.verifications()
        if verifications is not None:
            self._watch.verified(verifications.passes(desk.settings.name))

    def _selected(self, schema: str, source: SourceConnector) -> Iterator[TableSettings]:
        selection = self._assembly.selection(schema)
        for table in source.tables():
            settings = selection(table)
            if settings is not None:
                yield settings

    def _delay_of(self, schema: SchemaSettings) -> planner.Delay:
        def delay(table: TableSettings, marker: Marker) -> float:
            now, last_run = self._wall(), planner.last_run(marker)
            schedule = schema.schedule_of(table)
            if schedule is None:
                return max(0.0, last_run + table.polling_interval - now) if last_run else 0.0
            # Its own slot, not when it began: that was told by another clock, perhaps a slow one.
            done = marker.slot if marker.slot and last_run is not None else last_run
            return schedule.wait(now=now, done=done)

        return delay

    # ------------------------------------------------------------ duties

    def _do(self, duty: Duty, desk: Desk, source: SourceConnector) -> bool:
        """True where the next round will see something new."""
        metadata = self._books.metadata()
        match duty:
            case StartStream(stream, follows):
                position = self._end_of_log(stream, source)
                added = metadata.register(stream, position=position, phase=Phase.STREAMING)
                log.info("stream_registered", unit=stream.id, position=position.token, added=added)
                self._follow(metadata, stream, follows)
                return added
            case Follow(stream, follows):
                return self._follow(metadata, stream, follows)
            case StartPoll(poll, table):
                # Before its chunks are cut: the snapshot counts as the first run, and the next
                # one finds whatever changes from here on.
                start = source.poll_start(table, fire_time=self._wall())
                return metadata.register(poll, position=start, phase=Phase.IDLE)
            case AdoptTable(adopted, table):
                added = metadata.register(adopted, position=None, phase=Phase.STREAMING)
                # After its marker, which making the table would add as one to be snapshot.
                self._make_table(desk.settings.name, table, source)
                return added
            case PlanSnapshot(schema, table, rows, within):
                # The version first: what chunks read later must not count as older than it.
                version = source.version()
                if within is not None and rows is not None:
                    chunks = cast(CutsRanges, source).chunks_within(table, within, rows)
                    ranged = cast(ResyncsRanges, metadata)
                    planned = ranged.plan_range(schema, table, chunks, within, version=version)
                else:
                    chunks = [] if rows is None else source.chunks(table, rows)
                    planned = metadata.plan_snapshot(schema, table, chunks, version=version)
                log.info("snapshot_planned", table=str(table), chunks=len(chunks), by_us=planned)
                return True
            case PlanVerification(schema, table, rows):
                with contextlib.closing(self._assembly.destination(schema)) as destination:
                    if not verifying.can_compare(source, destination):
                        return False
                    units = verifying.plan(source, destination, schema, table, rows, self._wall())
                log.info("verification_planned", table=str(table), units=len(units))
                return bool(units)
            case Settle(schema, table):
                # A destination of the schema: it must know which table to purge and sweep.
                with contextlib.closing(self._assembly.destination(schema)) as destination:
                    settled = destination.metadata().settle(schema, table)
                if settled:
                    log.info("table_settled", schema=schema, table=str(table))
                return settled
            case Revive(dead, batch):
                desk.revived[dead.id] = batch
                log.warning("unit_revived", unit=dead.id, reason="it had come on since")
                self._ledger.revive(dead.id)
                return False
            case GiveUp(dead):
                metadata.mark(dead.id, Phase.FAILED)
                metadata.log_error(
                    code=UnitFailed.code,
                    error_class="GivenUp",
                    message="failed or crashed too often without progress; see the errors before",
                    unit=dead.id,
                    table=dead.table,
                    action="unit stopped until a person acts",
                )
                log.error("unit_given_up", unit=dead.id, action="a person must act")
                return True
            case Ensure(units):
                offered = self._ledger.ensure(units)
                if offered:
                    log.info("units_offered", schema=desk.settings.name, count=offered)
                return False
            case OfferLater(poll, delay):
                self._ledger.offer(poll, delay=delay)
                return False

    def _end_of_log(self, stream: WorkUnit, source: SourceConnector) -> Position:
        if stream.schema != SHARED:
            return source.position()
        # Asked of all tables that the stream carries, not only of those of one schema.
        with contextlib.closing(self._assembly.source(SHARED)) as whole:
            return whole.position()

    def _follow(self, metadata: MetadataStore, stream: WorkUnit, follows: str) -> bool:
        own = self._sharing if stream.schema == SHARED else (stream.schema,)
        left = left_behind(
            stream,
            metadata.markers((UnitKind.TABLE, UnitKind.POLL, UnitKind.STREAM)),
            polled=self._desks.keys() - set(self._sharing),
            selections={name: self._assembly.selection(name) for name in own},
        )
        changed = metadata.follow(stream, follows, left=tuple(left))
        if changed:
            log.info("stream_follows", unit=stream.id, schemas=list(own))
        return changed

    def _make_table(self, schema: str, table: TableId, source: SourceConnector) -> None:
        """For a table that no chunk is read of: it shall be there before its first row."""
        with contextlib.closing(self._assembly.destination(schema)) as destination:
            if destination.get_schema(table) is None:
                proposals = source.get_schema([table]).values()
                destination.apply_schema_changes(
                    [SchemaChange(table, Change.CREATE_TABLE, schema=s) for s in proposals]
                )


class Books:
    """A destination connection per thread, for bookkeeping, renewed after an error."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: list[DestinationConnector] = []

    def metadata(self) -> MetadataStore:
        return self._destination().metadata()

    def verifications(self) -> Verifications | None:
        """None where the destination keeps none."""
        destination = self._destination()
        if not destination.traits.compares:
            return None
        return cast("ComparedDestination", destination).verifications()

    def _destination(self) -> DestinationConnector:
        destination: DestinationConnector | None = getattr(self._mine, "destination", None)
        if destination is None:
            destination = self._mine.destination = self._assembly.bookkeeping()
            with self._lock:
                self._all.append(destination)
        return destination

    def drop(self) -> None:
        """This thread's connection may be broken: open another next time."""
        destination: DestinationConnector | None = getattr(self._mine, "destination", None)
        if destination is not None:
            self._mine.destination = None
            with self._lock:
                self._all.remove(destination)
            destination.close()

    def close(self) -> None:
        """All threads have ended."""
        for destination in self._all:
            destination.close()
        self._all.clear()


def _drop_source(desk: Desk) -> None:
    if desk.source is not None:
        desk.source.close()
        desk.source = None


def _waits(error: Exception) -> bool:
    return isinstance(error, TransientError)
