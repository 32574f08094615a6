"""The ledger in memory: the reference the scripts are compared with, and the ledger of unit tests.

It says in plain Python what each script of `warp/leases/lua` does, with a clock that tests move.
One process only: two processes must never believe in two of these.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warp.leases import spec
from warp.leases.redis import MOST_RENEWED
from warp.model import Lease, LeasedUnit, LedgerStats, UnitKind, WorkerState, WorkUnit

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0


@dataclass(slots=True)
class _Entry:
    """One unit: due, later, leased or dead."""

    unit: WorkUnit
    state: str
    at: float  # ready since, not before, expiry, or dead since
    owner: str = ""
    fence: int = 0
    since: float = 0.0
    again: float = math.inf
    tries: int = 0

    @property
    def urgent(self) -> bool:
        return self.unit.kind not in (UnitKind.CHUNK, UnitKind.VERIFY)


@dataclass(slots=True)
class _Worker:
    alive_until: float
    slots: int
    draining: bool = False
    memory: int = 0

    @property
    def taking(self) -> int:
        return 0 if self.draining else self.slots


@dataclass(slots=True)
class _State:
    """What one Redis would hold."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    workers: dict[str, _Worker] = field(default_factory=dict)
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex)


def _left(entry: _Entry, now: float) -> float:
    """Until the lease expires, or the wait is over."""
    if entry.state == "later":
        return max(0.0, entry.at - now)
    return entry.at - now if entry.state == "leased" else 0.0


class MemoryLeaseStore:
    """`warp.interfaces.LeaseStore` without a server.  `clock` gives Unix seconds."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        lease_ttl: float = 10.0,
        max_tries: int = 10,
        healthy_after: float | None = None,
    ) -> None:
        self._clock = clock
        self._lease_ttl = lease_ttl
        self._max_tries = max_tries
        self._healthy_after = max(90.0, 8 * lease_ttl) if healthy_after is None else healthy_after
        self._state = _State()
        self._bell = threading.Condition()  # also the lock of everything
        self._rings = 0
        self._heard = 0

    def wipe(self) -> None:
        """What FLUSHALL does to the one in Redis."""
        with self._bell:
            self._state = _State()

    # ------------------------------------------------------------ what should run

    def ensure(self, units: Sequence[WorkUnit]) -> int:
        with self._bell:
            now = self._clock()
            self._sweep(now)
            added = 0
            for unit in units:
                known = self._state.entries.get(unit.id)
                if known is None:
                    self._place(_Entry(unit, "due", now), now, now)
                    added += 1
                else:
                    known.unit = unit
            return added

    def offer(self, unit: WorkUnit, *, delay: float = 0.0) -> bool:
        with self._bell:
            now = self._clock()
            at = now + delay
            known = self._state.entries.get(unit.id)
            if known is None:
                known = _Entry(unit, "later", math.inf)
            elif known.state == "dead":
                return False
            known.unit = unit
            if known.state == "leased":
                forward = at < known.again
                known.again = min(known.again, at)
                return forward
            if known.state == "due" or known.at <= at:
                return False
            self._place(known, at, now)
            return True

    def withdraw(self, unit_ids: Sequence[str]) -> int:
        with self._bell:
            found = [
                id
                for id in unit_ids
                if (entry := self._state.entries.get(id)) and entry.state != "leased"
            ]
            for id in found:
                del self._state.entries[id]
            return len(found)

    def revive(self, unit_id: str) -> bool:
        with self._bell:
            entry = self._state.entries.get(unit_id)
            if entry is None or entry.state != "dead":
                return False
            entry.tries = 0
            now = self._clock()
            self._place(entry, now, now)
            return True

    # ------------------------------------------------------------ who runs it

    def claim(self, worker: str, count: int, *, ttl: float, slots: int) -> list[Lease]:
        with self._bell:
            now = self._clock()
            self._sweep(now)
            # Only the heartbeat proves life, so that a worker is dead no later than its leases.
            known = self._state.workers.setdefault(worker, _Worker(now + ttl, slots))
            known.slots = slots
            if known.draining:
                return []
            share = self._share(worker)
            leases: list[Lease] = []
            for held in range(self._held(worker), self._held(worker) + count):
                entry = self._next(ready_by=math.inf if held < share else now - ttl / 10)
                if entry is None:
                    break
                fence = max(self._state.fences.get(entry.unit.id, 0) + 1, int(now * 1_000_000))
                self._state.fences[entry.unit.id] = fence
                entry.state, entry.at, entry.since = "leased", now + ttl, now
                entry.owner, entry.fence, entry.again = worker, fence, math.inf
                leases.append(Lease(entry.unit, worker, fence))
            return leases

    def renew(
        self, worker: str, leases: Sequence[Lease], *, ttl: float, slots: int, memory: int = 0
    ) -> tuple[int, list[bool]]:
        if len(leases) > MOST_RENEWED:
            raise ValueError(f"expected at most {MOST_RENEWED} leases, found {len(leases)}")
        with self._bell:
            now = self._clock()
            known = self._state.workers.setdefault(worker, _Worker(now + ttl, slots))
            known.alive_until, known.slots, known.memory = now + ttl, slots, memory
            held = [self._leased(lease) for lease in leases]
            for entry in held:
                if entry is not None:
                    entry.at = now + ttl
            self._sweep(now)
            return self._shed(worker), [entry is not None for entry in held]

    def release(
        self, lease: Lease, *, delay: float | None = 0.0, failed: bool = False, dead: bool = False
    ) -> bool:
        with self._bell:
            now = self._clock()
            entry = self._leased(lease)
            if entry is None:
                return False
            if dead:
                self._bury(entry, now)
            elif failed:
                self._count_failure(entry, now)
                if entry.tries >= self._max_tries:
                    self._bury(entry, now)
                else:
                    self._place(entry, now + (delay or _backoff(entry.tries)), now)
            else:
                entry.tries = 0
                at = min(entry.again, math.inf if delay is None else now + delay)
                if at < math.inf:
                    self._place(entry, at, now)
                else:
                    del self._state.entries[entry.unit.id]
            return True

    def refence(self, lease: Lease, floor: int) -> Lease | None:
        spec.refuse_foreign_fence(lease.unit.id, floor)
        with self._bell:
            entry = self._leased(lease)
            if entry is None:
                return None
            entry.fence = max(max(lease.fence, floor) + 1, int(self._clock() * 1_000_000))
            self._state.fences[entry.unit.id] = entry.fence
            return lease.refenced(entry.fence)

    def drain(self, worker: str) -> None:
        with self._bell:
            alive_until = self._clock() + self._lease_ttl
            known = self._state.workers.setdefault(worker, _Worker(alive_until, 0))
            known.alive_until = max(known.alive_until, alive_until)
            known.draining = True

    def mend(self) -> list[str]:
        return []  # nobody else can write to it

    # ------------------------------------------------------------ what is to be seen

    def incarnation(self) -> str:
        return self._state.incarnation

    def stats(self) -> LedgerStats:
        with self._bell:
            now = self._clock()
            count = dict.fromkeys(("due", "later", "leased", "dead"), 0)
            for entry in self._state.entries.values():
                count[entry.state] += 1
            alive = [w for w in self._state.workers.values() if w.alive_until > now]
            return LedgerStats(
                **count,
                expired=len(self._in("leased", until=now)),
                demand=count["due"] + count["leased"],
                oldest_due=max((now - e.at for e in self._in("due") if e.at < now), default=0.0),
                capacity=sum(w.taking for w in alive),
                workers=len(alive),
            )

    def units(self) -> list[LeasedUnit]:
        with self._bell:
            now = self._clock()
            return [
                LeasedUnit(
                    unit=entry.unit,
                    state=entry.state,
                    owner=entry.owner,
                    fence=self._state.fences.get(entry.unit.id, 0),
                    tries=entry.tries,
                    expires_in=_left(entry, now),
                )
                for entry in self._state.entries.values()
            ]

    def workers(self) -> list[WorkerState]:
        with self._bell:
            now = self._clock()
            return [
                WorkerState(
                    id, worker.taking, self._held(id), worker.alive_until - now, worker.memory
                )
                for id, worker in self._state.workers.items()
                if worker.alive_until > now
            ]

    def wait(self, timeout: float) -> None:
        with self._bell:
            self._bell.wait_for(lambda: self._rings > self._heard, timeout)
            self._heard = self._rings

    def close(self) -> None:
        pass

    # ------------------------------------------------------------ what the scripts share

    def _in(self, state: str, *, until: float = math.inf) -> list[_Entry]:
        found = [e for e in self._state.entries.values() if e.state == state and e.at <= until]
        return sorted(found, key=lambda e: (e.at, e.unit.id))

    def _held(self, worker: str) -> int:
        return sum(e.state == "leased" and e.owner == worker for e in self._in("leased"))

    def _leased(self, lease: Lease) -> _Entry | None:
        entry = self._state.entries.get(lease.unit.id)
        if entry is None or entry.state != "leased":
            return None
        return entry if (entry.owner, entry.fence) == (lease.owner, lease.fence) else None

    def _place(self, entry: _Entry, at: float, now: float) -> None:
        entry.state, entry.at = ("later" if at > now else "due"), at
        entry.owner, entry.again = "", math.inf
        self._state.entries[entry.unit.id] = entry
        if entry.state == "due":
            self._rings += 1
            self._bell.notify_all()

    def _bury(self, entry: _Entry, now: float) -> None:
        entry.state, entry.at = "dead", now
        entry.owner, entry.again = "", math.inf

    def _count_failure(self, entry: _Entry, ended: float) -> None:
        entry.tries = 1 if ended - entry.since >= self._healthy_after else entry.tries + 1

    def _sweep(self, now: float) -> None:
        expired = self._in("leased", until=now)
        alive = {id for id, worker in self._state.workers.items() if worker.alive_until > now}
        blamed = {e.owner for e in expired if e.owner in alive or self._held(e.owner) <= 1}
        for entry in expired:
            self._count_failure(entry, entry.at)
            if entry.owner not in blamed:
                entry.tries = min(entry.tries, self._max_tries - 1)
            if entry.tries >= self._max_tries:
                self._bury(entry, now)
            elif entry.tries <= 1:
                self._place(entry, entry.at, now)
            else:
                self._place(entry, now + _backoff(entry.tries - 1), now)
        for entry in self._in("later", until=now):
            self._place(entry, entry.at, now)
        for id in self._state.workers.keys() - alive:
            del self._state.workers[id]

    def _capacity(self) -> int:
        return sum(worker.taking for worker in self._state.workers.values())

    def _chunk_quota(self) -> int:
        return max(1, self._capacity() // 4)

    def _share(self, worker: str) -> int:
        capacity = self._capacity()
        units = len(self._in("leased")) + len(self._in("due"))
        known = self._state.workers[worker]
        return math.ceil(units * known.taking / capacity) if capacity else 0

    def _next(self, *, ready_by: float) -> _Entry | None:
        ready = self._in("due", until=ready_by)
        chunks = sum(not e.urgent for e in self._in("leased"))
        chunk_first = chunks < self._chunk_quota()
        return min(ready, key=lambda e: (e.urgent == chunk_first, e.at, e.unit.id), default=None)

    def _shed(self, worker: str) -> int:
        mine, leased, waiting = self._held(worker), self._in("leased"), self._in("due")
        if self._state.workers[worker].draining:
            return mine
        if not waiting:
            return max(0, math.ceil((mine - self._share(worker)) * 0.8))
        workers = self._state.workers
        free = sum(max(0, known.taking - self._held(id)) for id, known in workers.items())
        if free >= len(waiting) or not leased:
            return 0
        urgent = sum(e.urgent for e in waiting)
        short = max(0, urgent - free)
        if free == 0:
            missing = self._chunk_quota() - sum(not e.urgent for e in leased)
            short += max(0, min(len(waiting) - urgent, missing))
        return min(mine, math.ceil(short * mine / len(leased)))


def _backoff(tries: int) -> float:
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(tries - 1, 16))
