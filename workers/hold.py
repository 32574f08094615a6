"""A lease in a worker's hand: when it may still be used, and what keeps it alive.

Only the monotonic clock is read here, and only differences of it, so that a clock set forward or
back by an operator or by NTP changes nothing.  The deadline counts from *before* the request was
sent, because the ledger's own count began somewhere between then and the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import psutil
import structlog

from warp.errors import LeaseLost, LedgerUnavailable
from warp.interfaces import LeaseStore
from warp.machine import THIS_MACHINE, Machine, Running
from warp.model import Lease, UnitKind

log = structlog.get_logger(__name__)

SAFE_PART = 0.8  # of the ttl; the rest is for clocks that run at different rates
RENEWALS_PER_TTL = 3
RETRIES_PER_TTL = 12  # after a failed call: a short outage must not cost the leases
MOST_PER_CALL = 250  # leases per renew; more would block Redis noticeably (92 ms for 10,000)

Clock = Callable[[], float]


def default_stall_after(ttl: float) -> float:
    """How long a unit may go without a sign of progress before it is no longer renewed."""
    return max(60.0, 6 * ttl)


class Held:
    """One lease held by this process.  The `Hold` that the pipeline is given."""

    def __init__(
        self,
        lease: Lease,
        *,
        ttl: float,
        asked_at: float,
        clock: Clock = time.monotonic,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self._lease = lease
        self._ttl = ttl
        self._clock = clock
        self._deadline = asked_at + SAFE_PART * ttl
        self._lost = False
        self._back = machine.event()
        self.run = machine.new_id()  # names this turn in logs, sync_runs and error_log
        self.since = clock()
        self.progress_at = self.since
        self.stalled = False
        self.rows = 0  # committed under this lease; the cheapest unit to move is the one with few

    @property
    def lease(self) -> Lease:
        return self._lease

    def ids(self, worker: str) -> dict[str, str | int]:
        """What a log line about this unit carries where its own thread does not write it."""
        unit, fence = self._lease.unit.id, self._lease.fence
        return {"run": self.run, "unit": unit, "worker": worker, "fence": fence}

    def check(self) -> None:
        now = self._clock()
        if self._lost:
            raise LeaseLost("the ledger gave this unit to someone else", place=self._lease.unit.id)
        if now > self._deadline:
            raise LeaseLost(
                f"not renewed for {now - self._deadline + SAFE_PART * self._ttl:.1f} s, "
                f"more than {SAFE_PART:.0%} of the lease; expected the ledger to answer in time",
                place=self._lease.unit.id,
            )
        self.progress_at = now

    def stopping(self) -> bool:
        return self._back.is_set()

    def wait(self, seconds: float) -> None:
        self._back.wait(seconds)

    def alive(self) -> bool:
        """Would `check` pass?  Unlike it, this is no sign of progress."""
        return not self._lost and self._clock() <= self._deadline

    def renewed(self, asked_at: float) -> None:
        self._deadline = max(self._deadline, asked_at + SAFE_PART * self._ttl)

    def refenced(self, lease: Lease) -> None:
        """Go on under a higher fence; the time the lease runs out does not change."""
        self._lease = lease

    def lose(self) -> None:
        """The ledger says that it is not ours.  Also ends a wait."""
        self._lost = True
        self._back.set()

    def ask_back(self) -> None:
        """Hand the unit back at the next batch boundary: shutdown, drain or shed."""
        self._back.set()


class Holds:
    """The leases of one process, safe to read from its threads."""

    def __init__(self) -> None:
        # Re-entrant: a signal may ask every unit back while this very thread is inside.
        self._lock = threading.RLock()
        self._held: dict[str, Held] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def add(self, held: Held) -> None:
        """The ledger gave this process a unit: whatever lease of it was held before is over.

        A ledger that has lost its memory gives a unit away while it is at work, and may give it to
        the very process that works at it.  Nobody renews the earlier lease from here on.
        """
        with self._lock:
            earlier = self._held.get(held.lease.unit.id)
            self._held[held.lease.unit.id] = held
        if earlier is not None:
            earlier.lose()

    def remove(self, held: Held) -> None:
        with self._lock:
            # A lease lost and claimed again by this very process has another Held by now.
            if self._held.get(held.lease.unit.id) is held:
                del self._held[held.lease.unit.id]

    def __contains__(self, unit_id: object) -> bool:
        with self._lock:
            return unit_id in self._held

    def all(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())


def to_shed(holds: Iterable[Held], count: int, *, now: float, quantum: float) -> list[Held]:
    """Which units to give back so that waiting ones get a turn: the cheapest first.

    Streams only: a chunk or a poll ends by itself, and given back it would start from its
    beginning, so that two of them taking turns on one slot would never finish.

    `count` is the wish of this moment, and to the ledger a unit on its way back is still held:
    were those not subtracted, a batch longer than a beat would have ever more units asked for.
    """
    holds = list(holds)
    leaving = sum(h.stopping() and h.alive() for h in holds)
    movable = [
        h
        for h in holds
        if h.lease.unit.kind is UnitKind.STREAM and not h.stopping() and now - h.since >= quantum
    ]
    movable.sort(key=lambda h: (h.rows / max(now - h.since, 0.001), h.since))
    return movable[: max(count - leaving, 0)]


class Heartbeat:
    """Renews every lease of the process from one thread, whatever its units are doing.

    A unit that shows no progress for `stall_after` seconds is left to expire: a stuck loop must
    not own its unit for ever.  While the ledger is away units go on until their own deadline.
    """

    def __init__(
        self,
        ledger: LeaseStore,
        worker: str,
        holds: Holds,
        *,
        ttl: float,
        slots: int,
        quantum: float = 2.0,
        stall_after: float | None = None,
        clock: Clock = time.monotonic,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._holds = holds
        self._ttl = ttl
        self._slots = slots
        self._quantum = quantum
        self._stall_after = default_stall_after(ttl) if stall_after is None else stall_after
        self._clock = clock
        self._machine = machine
        self._stop = machine.event()
        self._thread: Running | None = None
        self._reachable = True
        self.last_answer = clock()

    def start(self) -> None:
        self._thread = self._machine.start(self._run, name="heartbeat")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._ttl)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                reached = self.beat()
            except Exception:
                log.exception("heartbeat_failed")
                reached = False
            self._stop.wait(self._ttl / (RENEWALS_PER_TTL if reached else RETRIES_PER_TTL))

    def beat(self) -> bool:
        """Renew once; False where the ledger could not be reached."""
        renewable = [h for h in self._holds.all() if self._moves(h)]
        shed = 0
        try:
            # At least one call: it is also the proof of life of a worker that holds nothing.
            for start in range(0, max(len(renewable), 1), MOST_PER_CALL):
                part = renewable[start : start + MOST_PER_CALL]
                leases = [h.lease for h in part]
                asked_at = self._clock()
                shed, kept = self._ledger.renew(
                    self._worker,
                    leases,
                    ttl=self._ttl,
                    slots=self._slots,
                    memory=psutil.Process().memory_info().rss,
                )
                for held, lease, ours in zip(part, leases, kept, strict=True):
                    if ours:
                        held.renewed(asked_at)
                    elif held.lease is lease:  # else refenced meanwhile: not asked for that one
                        held.lose()
        except LedgerUnavailable as error:
            if self._reachable:
                log.warning("ledger_unavailable", error=str(error), action="units go on a while")
            self._reachable = False
            return False
        if not self._reachable:
            log.info("ledger_reachable_again")
        self._reachable = True
        self.last_answer = self._clock()
        for held in to_shed(renewable, shed, now=self._clock(), quantum=self._quantum):
            log.info("unit_shed", **held.ids(self._worker))
            held.ask_back()
        return True

    def _moves(self, held: Held) -> bool:
        idle_for = self._clock() - held.progress_at
        if idle_for <= self._stall_after:
            held.stalled = False
            return True
        if not held.stalled:
            held.stalled = True
            log.error(
                "unit_stalled",
                **held.ids(self._worker),
                seconds=round(idle_for, 1),
                action="no longer renewed, so that another worker takes it",
            )
        return False
