"""Which coordinator does the duties: leadership is one more leased unit, in a namespace of its own.

Two leaders at once would do no harm, since every duty is idempotent; one is enough, and a leader
that cannot do its duties makes room for one that may.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from warp.errors import LedgerUnavailable
from warp.interfaces import LeaseStore
from warp.machine import THIS_MACHINE, Machine, Running, between
from warp.model import Lease, UnitKind, WorkUnit

log = structlog.get_logger(__name__)

LEADER: Final = WorkUnit("leader", UnitKind.LEADER, "")
SAFE_PART: Final = 0.8  # as for every lease: clocks run at different rates


def namespace_of(namespace: str) -> str:
    """The ledger namespace of leadership, beside that of the work."""
    return f"{namespace}.lead"


class Leadership:
    """Competes for leadership from a thread of its own, and knows whether it is certain of it."""

    def __init__(
        self,
        ledger: LeaseStore,
        id: str,
        *,
        ttl: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self.id = id
        self._ledger = ledger
        self._ttl = ttl
        self._clock = clock
        self._machine = machine
        self._lease: Lease | None = None
        self._deadline = 0.0
        self._stand_back_until = 0.0
        self._lock = machine.lock()  # the thread and `give_up` both change the lease
        self._stop = machine.event()
        self._thread: Running | None = None
        self.taken = machine.event()  # set while leading; wakes who waits for it

    @property
    def leading(self) -> bool:
        return self._lease is not None and self._clock() <= self._deadline

    def wait(self, seconds: float) -> None:
        """Until we lead, or for that long."""
        if not self.leading:
            # Still set where the lease ran out while our thread waits for an answer; whoever waits
            # for it would spin until then.  Cleared just after it was set: half a second lost.
            self.taken.clear()
            self.taken.wait(seconds)

    def start(self) -> None:
        self._thread = self._machine.start(self._run, name="leadership")

    def stop(self) -> None:
        """Leave the field at once, so that a standby need not wait for the lease to expire."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._ttl)
        self.give_up(stand_back=0.0)

    def give_up(self, *, stand_back: float | None = None) -> None:
        """Release leadership and let another have it for a while."""
        with self._lock:
            lease, self._lease = self._lease, None
            self.taken.clear()
            pause = 2 * self._ttl if stand_back is None else stand_back
            self._stand_back_until = self._clock() + pause
            if lease is not None:
                log.info("leadership_given_up", coordinator=self.id)
                with contextlib.suppress(LedgerUnavailable):
                    self._ledger.release(lease)

    def _run(self) -> None:
        reachable = True
        while not self._stop.is_set():
            try:
                self.step()
                reachable = True
            except LedgerUnavailable as error:
                if reachable:
                    log.warning("leadership_undecided", error=str(error))
                reachable = False
            if not self.leading:
                self.taken.clear()
            self._stop.wait(self._ttl / 10 * between(self._machine, 0.75, 1.25))

    def step(self) -> None:
        """Renew what we have, or try to get it."""
        with self._lock:
            if self._lease is not None:
                self._renew(self._lease)
            elif self._clock() >= self._stand_back_until:
                self._compete()

    def _renew(self, lease: Lease) -> None:
        asked_at = self._clock()
        _, kept = self._ledger.renew(self.id, [lease], ttl=self._ttl, slots=1)
        if kept[0]:
            self._deadline = asked_at + SAFE_PART * self._ttl
        else:
            self._lease = None
            self.taken.clear()
            log.info("leadership_lost", coordinator=self.id)

    def _compete(self) -> None:
        self._ledger.ensure([LEADER])
        asked_at = self._clock()
        for lease in self._ledger.claim(self.id, 1, ttl=self._ttl, slots=1):
            if lease.unit != LEADER:  # a stranger's, which would make us a leader beside another
                self._ledger.release(lease, delay=None)
                continue
            self._lease = lease
            self._deadline = asked_at + SAFE_PART * self._ttl
            self.taken.set()
            log.info("leadership_taken", coordinator=self.id, fence=self._lease.fence)
        if self._lease is None:
            # Set aside, as after ten leaders in a row were killed young, it would be nobody's.
            self._ledger.revive(LEADER.id)
