"""One worker process: claims units, runs each in a slot of its own, gives every one back.

What becomes of a unit is decided by the error it ended with (see `warp.errors`), and by nothing
else; one unit's end never touches another.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from warp import hash_capture, logs, pipeline, verifying
from warp.assembly import Assembly
from warp.autosize import AutoSized
from warp.errors import (
    ConfigError,
    FenceBehind,
    LeaseLost,
    LedgerUnavailable,
    PositionLost,
    TransientError,
    UnitFailed,
    WarpError,
)
from warp.interfaces import DestinationConnector, LeaseStore, MetadataStore, SourceConnector
from warp.machine import THIS_MACHINE, Machine, between
from warp.model import Lease, Marker, Phase, TableSelection, UnitKind, WorkUnit
from warp.retry import Backoff, Streak
from warp.right_of_way import RightOfWay
from warp.schedule import Schedule
from warp.startup import new_process_id
from warp.streams import Followed
from workers.hold import Heartbeat, Held, Holds
from workers.probes import Probe, UnitMeter

log = structlog.get_logger(__name__)

NOT_OFFERED = (Phase.DONE, Phase.FAILED, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit's turn ended: what the ledger is told, and what sync_runs keeps."""

    status: str  # done | stopped | failed | lost
    delay: float | None = 0.0  # None: finished
    failed: bool = False
    dead: bool = False
    error: str = ""


HANDED_BACK = Outcome("stopped")
FINISHED = Outcome("done", delay=None)
# While a new configuration is rolled out, coordinator and workers may differ for a while.
NOT_FOR_US = Outcome("stopped", delay=2.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """The times a worker keeps, in seconds."""

    ttl: float = 10.0
    claim_every: float = 0.2
    quantum: float = 2.0
    stall_after: float | None = None
    drain_limit: float = 25.0  # below the 30 s that Kubernetes grants
    # Between tries of a unit that waiting helps; `max_retries` bounds the other failures in a row.
    backoff: Backoff = field(default_factory=Backoff)


class Worker:
    """Claims and runs until told to stop."""

    def __init__(
        self,
        ledger: LeaseStore,
        assembly: Assembly,
        probe: Probe,
        *,
        slots: int,
        pace: Pace | None = None,
        repeat_after: Callable[[WorkUnit], float | None] = lambda unit: None,
        schedule_of: Callable[[WorkUnit], Schedule | None] = lambda unit: None,
        id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self.id = id or new_process_id()
        self.slots = slots
        self.holds = Holds()
        self._ledger = ledger
        self._assembly = assembly
        self._probe = probe
        self._pace = pace or Pace()
        self._repeat_after = repeat_after
        self._schedule_of = schedule_of
        self._clock = clock
        self._wall = wall
        self._machine = machine
        self._draining = False  # a plain flag: a signal may interrupt any lock's holder
        self._failures: dict[str, int] = {}  # in a row, by unit id
        self._way = RightOfWay(machine)
        self._stands_back_until = 0.0  # so that others can claim what is not for us
        self._changed = machine.condition()  # a slot came free, or it is time to stop
        self.heartbeat = Heartbeat(
            ledger,
            self.id,
            self.holds,
            ttl=self._pace.ttl,
            slots=slots,
            quantum=self._pace.quantum,
            stall_after=self._pace.stall_after,
            clock=clock,
            machine=machine,
        )

    # ------------------------------------------------------------ the process

    def run(self) -> None:
        """Work until `drain` is called, then give everything back."""
        log.info("worker_started", worker=self.id, slots=self.slots)
        self.heartbeat.start()
        try:
            self._claim_until_drained()
            self._give_all_back()
        finally:
            self.heartbeat.stop()
        log.info("worker_stopped", worker=self.id)

    def drain(self) -> None:
        """Claim no more, hand every unit back at its next batch boundary.  For signal use too."""
        self._draining = True
        for held in self.holds.all():
            held.ask_back()

    @property
    def draining(self) -> bool:
        return self._draining

    def _claim_until_drained(self) -> None:
        reachable = True
        while not self.draining:
            free = self.slots - len(self.holds)
            if free <= 0 or self._clock() < self._stands_back_until:
                self._await_free_slot()
                continue
            asked_at = self._clock()
            try:
                leases = self._ledger.claim(self.id, free, ttl=self._pace.ttl, slots=self.slots)
                if not reachable:
                    log.info("claiming_again")
                reachable = True
                for lease in leases:
                    self._begin(lease, asked_at)
                if not leases and not self.draining:
                    self._ledger.wait(self._pace.claim_every * between(self._machine, 0.5, 1.25))
            except LedgerUnavailable as error:
                if reachable:
                    log.warning("cannot_claim", error=str(error), action="trying again")
                reachable = False
                self._machine.sleep(between(self._machine, 0.1, 0.3))

    def _await_free_slot(self) -> None:
        with self._changed:
            # Short, because `drain` may be called by a signal, which must not take a lock.
            self._changed.wait(self._pace.claim_every)

    def _begin(self, lease: Lease, asked_at: float) -> None:
        ttl, clock, machine = self._pace.ttl, self._clock, self._machine
        held = Held(lease, ttl=ttl, asked_at=asked_at, clock=clock, machine=machine)
        self.holds.add(held)
        if self.draining:
            held.ask_back()
        machine.start(lambda: self._slot(held), name=f"slot {lease.unit.id}")

    def _give_all_back(self) -> None:
        with contextlib.suppress(LedgerUnavailable):
            self._ledger.drain(self.id)
        deadline = self._clock() + self._pace.drain_limit
        while len(self.holds) and self._clock() < deadline:
            for held in self.holds.all():
                held.ask_back()
            with self._changed:
                self._changed.wait(0.05)
        for held in self.holds.all():
            log.warning(
                "unit_not_handed_back",
                **held.ids(self.id),
                action=f"its lease expires within {self._pace.ttl:g} s",
            )

    # ------------------------------------------------------------ one unit

    def _slot(self, held: Held) -> None:
        """Top of a slot's thread: whatever happens to the unit ends here."""
        unit = held.lease.unit
        turn = Turn(
            self._ledger,
            self._assembly,
            self._probe,
            held,
            self._pace,
            self._failures,
            self._clock,
            schedule_of=self._schedule_of,
            wall=self._wall,
            machine=self._machine,
            way=self._way,
        )
        outcome = Outcome("failed", failed=True)
        with structlog.contextvars.bound_contextvars(
            run=turn.run,
            unit=unit.id,
            worker=self.id,
            fence=held.lease.fence,
            batch=None,  # not known before the marker is
        ):
            try:
                outcome = turn.play(self._repeat_after)
                if outcome is NOT_FOR_US:
                    self._stand_back()
            except Exception:
                log.exception("unit_turn_broke")
            finally:
                self.holds.remove(held)  # first: no renewal may cross the release
                self._probe.over(unit)
                self._release(held, outcome)
                with self._changed:
                    self._changed.notify_all()

    def _stand_back(self) -> None:
        """Claim nothing until somebody busier has had time to take what was not for us.

        The ledger leaves a unit to the worker with the smallest share first, for a tenth of the
        ttl: seen with an idle worker of an older configuration, which took the same unit for ever.
        """
        wait = (NOT_FOR_US.delay or 0.0) + 0.3 * self._pace.ttl
        self._stands_back_until = self._clock() + wait

    def _release(self, held: Held, outcome: Outcome) -> None:
        try:
            ours = self._ledger.release(
                held.lease, delay=outcome.delay, failed=outcome.failed, dead=outcome.dead
            )
        except LedgerUnavailable as error:
            log.warning("unit_not_released", error=str(error), action="its lease will expire")
            return
        log.info("unit_released", status=outcome.status, rows=held.rows, still_ours=ours)


class Turn:
    """One lease, from adoption to release: the unit's kind says what is run."""

    def __init__(
        self,
        ledger: LeaseStore,
        assembly: Assembly,
        probe: Probe,
        held: Held,
        pace: Pace,
        failures: dict[str, int],
        clock: Callable[[], float],
        *,
        schedule_of: Callable[[WorkUnit], Schedule | None] = lambda unit: None,
        wall: Callable[[], float] = time.time,
        machine: Machine = THIS_MACHINE,
        way: RightOfWay | None = None,
    ) -> None:
        self.run = held.run
        self._ledger = ledger
        self._assembly = assembly
        self._probe = probe
        self._held = held
        self._pace = pace
        self._unit = held.lease.unit
        self._failures = failures
        self._begun = False
        self._schedule_of = schedule_of
        self._slot: float | None = None  # of the run that was begun
        self._wall = wall
        self._machine = machine
        self._way = way
        # A lease is kept for as long as it takes.
        steady = replace(pace.backoff, max_retries=None)
        self._waits = Streak(steady, clock=clock, chance=machine.chance)

    def play(self, repeat_after: Callable[[WorkUnit], float | None]) -> Outcome:
        """Run the unit to the end of its turn.  Every way it can end is one line here."""
        try:
            outcome = self._through_troubles()
        except FenceBehind as error:
            self._probe.fenced(self._unit)
            log.warning("fence_refused", error=str(error), action="unit given back")
            outcome = Outcome("lost", error=str(error))
        except LeaseLost as error:
            log.info("lease_lost", reason=str(error))
            outcome = Outcome("lost", error=str(error))
        except (PositionLost, UnitFailed, ConfigError) as error:
            outcome = self._stop_for_good(error)
        except Exception as error:
            log.exception("unit_failed", error=f"{type(error).__name__}: {error}")
            outcome = self._count_failure(error)
        self._end_run(outcome)
        if outcome is FINISHED and (delay := repeat_after(self._unit)) is not None:
            return Outcome("done", delay=delay)
        return outcome

    def _through_troubles(self) -> Outcome:
        """Keep the lease while waiting helps, and start over from the marker each time."""
        while True:
            try:
                return self._attempt()
            except TransientError as error:
                wait = self._waits.failed() or 0.0
                if self._waits.failures == 1:
                    log.warning("unit_waits", error=str(error), action="keeps its lease")
                    self._note(error, "waits and tries again")
                self._held.wait(wait)
                self._held.check()
                if self._held.stopping():
                    return Outcome("stopped", error=str(error))

    def _attempt(self) -> Outcome:
        schema = self._unit.schema
        if not self._assembly.knows(schema):
            log.warning("schema_not_configured_here", action="left for another worker")
            return NOT_FOR_US
        # Before it is opened, which makes a marker where there is none: the ledger is no authority
        # on which tables there are.
        if self._unit.table and self._assembly.selection(schema)(self._unit.table) is None:
            log.warning("table_not_configured_here", action="left for another worker")
            return NOT_FOR_US
        with contextlib.ExitStack() as stack:
            selection = AutoSized(self._assembly.selection(schema), self._unit.kind)
            source = self._assembly.source(schema, selection)
            stack.callback(source.close)
            destination = self._assembly.destination(schema)
            stack.callback(destination.close)
            selection.traits = destination.traits
            marker = adopt(destination, self._held, self._ledger)
            # The fence may have been raised above the one that was claimed.
            structlog.contextvars.bind_contextvars(fence=self._held.lease.fence, batch=marker.batch)
            if marker.phase in NOT_OFFERED:
                return FINISHED
            if not self._is_for_us(marker):
                log.warning("other_tables_configured_here", action="left for another worker")
                return NOT_FOR_US
            metadata = destination.metadata()
            schedule = self._schedule_of(self._unit)
            slot = self._slot_to_run(schedule, marker, metadata) if schedule else None
            if schedule is not None and slot is None and marker.phase is Phase.IDLE:
                return FINISHED
            if not self._begun or slot != self._slot:
                metadata.begin_run(self._held.lease, self.run, slot=slot)
                self._begun, self._slot = True, slot
            inner = self._probe.meter(self._unit, selection)
            meter = UnitMeter(inner, self._held, self._works, selection)
            outcome = self._drive(source, destination, marker, selection, meter)
            if outcome is HANDED_BACK:  # asked back, or lost and told so by the same flag?
                self._held.check()
            self._tell_end(metadata, outcome)
            return outcome

    def _is_for_us(self, marker: Marker) -> bool:
        """A stream run by a worker that does not mean the same tables would pass by their changes
        (guarantee 4)."""
        followed = self._assembly.follows(self._unit.schema)
        return self._unit.kind is not UnitKind.STREAM or marker.follows in ("", followed)

    def _slot_to_run(
        self, schedule: Schedule, marker: Marker, metadata: MetadataStore
    ) -> float | None:
        """The slot that a run which begins now belongs to; None where it has been run.

        An offer says only "now": it may be a second one for the same slot, by a coordinator that
        had not seen the first one's run end, or by a clock ahead of ours.  Our fence stands in the
        destination since the unit was opened, so nobody else ends a run of it meanwhile.
        """
        now = self._wall()
        slot = schedule.latest(now)
        if marker.phase is Phase.IDLE:
            # The snapshot stands for the slots before it.
            began = marker.position.committed_at if marker.position else 0.0
            before = marker.slot is None and slot <= began
            if before or schedule.is_missed(slot, now=now):
                return None
        return None if metadata.slot_taken(self._unit.id, slot) else slot

    def _drive(
        self,
        source: SourceConnector,
        destination: DestinationConnector,
        marker: Marker,
        selection: TableSelection,
        meter: UnitMeter,
    ) -> Outcome:
        ends, machine = (source, destination, marker, self._held), self._machine
        way = self._way
        match self._unit.kind:
            case UnitKind.STREAM:
                followed = Followed(selection)
                pipeline.stream(*ends, selection=followed, meter=meter, machine=machine, way=way)
                return HANDED_BACK
            case UnitKind.CHUNK:
                complete = pipeline.snapshot(
                    *ends, selection=selection, meter=meter, machine=machine, way=way
                )
            case UnitKind.POLL:
                poll = self._poll(source, selection)
                complete = poll(
                    *ends,
                    selection=selection,
                    meter=meter,
                    fire_time=self._wall(),
                    machine=machine,
                )
            case UnitKind.VERIFY:
                complete = verifying.verify(*ends, selection=selection)
            case UnitKind.REPLAY:
                complete = pipeline.replay(*ends, selection=selection, meter=meter, machine=machine)
            case other:
                raise UnitFailed(
                    f"expected a stream, chunk, poll, replay or verification, found kind "
                    f"{other.value!r}; run workers and coordinator of one version",
                    place=self._unit.id,
                )
        return FINISHED if complete else HANDED_BACK

    def _poll(self, source: SourceConnector, selection: TableSelection) -> Callable[..., bool]:
        settings = None if self._unit.table is None else selection(self._unit.table)
        compared = settings is not None and hash_capture.is_meant(source, settings)
        return hash_capture.poll if compared else pipeline.poll

    def _works(self) -> None:
        self._failures.pop(self._unit.id, None)
        if self._waits.succeeded():
            log.info("unit_recovered")

    # ------------------------------------------------------------ bookkeeping of a turn's end

    def _count_failure(self, error: Exception) -> Outcome:
        """A failure nobody foresaw: perhaps it passes, on another worker or later."""
        tries = self._failures[self._unit.id] = self._failures.get(self._unit.id, 0) + 1
        most = self._pace.backoff.max_retries
        if most is not None and tries > most:
            return self._stop_for_good(error)
        wait = self._pace.backoff.delay(tries - 1, self._machine.chance)
        self._note(error, f"tried again after {wait:.1f} s; failure {tries} in a row")
        return Outcome("failed", wait, failed=True, error=f"{type(error).__name__}: {error}")

    def _stop_for_good(self, error: Exception) -> Outcome:
        log.error("unit_stopped", error=str(error), action="a person must act")
        self._failures.pop(self._unit.id, None)
        self._probe.stopped(self._unit)
        self._note(error, "unit stopped until a person acts")
        if self._held.alive():  # else its phase is the next owner's to say

            def mark_failed(metadata: MetadataStore) -> None:
                metadata.mark(self._unit.id, Phase.FAILED, seen=self._held.lease.fence)

            self._book("mark", mark_failed)
        return Outcome("failed", delay=None, dead=True, error=str(error))

    def _note(self, error: Exception, action: str) -> None:
        """One line in error_log, if the destination can take it."""
        code = error.code if isinstance(error, WarpError) else WarpError.code
        message = error.message if isinstance(error, WarpError) else str(error)
        self._probe.error(self._unit, error)

        def log_error(metadata: MetadataStore) -> None:
            metadata.log_error(
                code=code,
                error_class=type(error).__name__,
                message=logs.masked(message),
                unit=self._unit.id,
                run=self.run,
                table=self._unit.table,
                action=action,
            )

        self._book("log_error", log_error)

    def _tell_end(self, metadata: MetadataStore, outcome: Outcome) -> None:
        error = logs.masked(outcome.error)
        metadata.end_run(self.run, status=outcome.status, rows=self._held.rows, error=error)
        self._begun = False

    def _end_run(self, outcome: Outcome) -> None:
        """For a turn that ended by an error, whose connection may be what failed."""
        if self._begun:
            self._book("end_run", lambda metadata: self._tell_end(metadata, outcome))

    def _book(self, what: str, act: Callable[[MetadataStore], None]) -> None:
        """Bookkeeping must not change how a unit ends: the destination may be what failed."""
        try:
            with contextlib.closing(self._assembly.bookkeeping()) as destination:
                act(destination.metadata())
        except WarpError as error:
            log.warning("not_recorded", what=what, error=str(error))


def adopt(destination: DestinationConnector, held: Held, ledger: LeaseStore) -> Marker:
    """Raise the destination's fence to ours, or ours above the destination's (guarantee 2).

    Ours is behind where Redis was wiped or its clock set back; the ledger then issues a higher
    one to whoever holds the lease, and to nobody else.
    """
    while True:
        held.check()
        try:
            return destination.open(held.lease)
        except FenceBehind as behind:
            lease = ledger.refence(held.lease, behind.found)
            if lease is None:
                raise LeaseLost(
                    f"fence {behind.found} stands in the destination and the lease is not ours "
                    "any more",
                    place=held.lease.unit.id,
                ) from behind
            held.refenced(lease)
