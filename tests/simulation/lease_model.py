"""An exhaustive model of lease, fence, marker and resync: one unit, two workers, every order.

A breadth-first walk through every state that a small world can get into.  The actions are named
after the functions of the code that they stand for:

    claim, renew, release, refence, ensure   warp/leases/redis.py and its scripts
    open, write_batch                        warp/destinations/*: adopt_marker, advance_marker
    read_marker                              Transactions.was_committed, and a write after it
    resync                                   MetadataStore.resync

`test_lease_conformance.py` holds them to it: the same steps are taken with a real Redis and a real
PostgreSQL.  `lease.pml` says the same once more, for Spin.

Workers are as bad as workers can be: none looks at a deadline, so that each may sleep at any point
for as long as it likes and go on as if nothing had been.  Answers get lost, processes die, Redis is
wiped, its clock is set back.  `Rules` are the lines of the code that guard; the tests take them
away one by one.

What must never be seen (guarantees 2, 5 and 7 of docs/guarantees.md):

* a write by a worker after another one, or a resync, has taken the unit over in the destination;
* a batch that lands twice, or that is passed by;
* a write that goes on from where the unit stood before a resync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

TTL: Final = 2  # in ticks of the clock
WORKERS: Final = (0, 1)

Phase = Literal["idle", "claimed", "held", "unsure"]


class Lease(NamedTuple):
    owner: int
    expiry: int
    fence: int


class Worker(NamedTuple):
    """One worker's own idea of things; `batch`, `position` and `epoch` since it opened the unit."""

    phase: Phase = "idle"
    fence: int = 0
    batch: int = 0
    position: int = 0
    epoch: int = 0


class Stored(NamedTuple):
    """The unit's row of sync_markers."""

    fence: int = 0
    batch: int = 0
    position: int = 0
    epoch: int = 0


class State(NamedTuple):
    clock: int = 0
    known: bool = False  # to Redis: due or leased
    lease: Lease | None = None
    issued: int = 0  # the last fence that Redis remembers
    workers: tuple[Worker, ...] = (Worker(),) * len(WORKERS)
    marker: Stored = Stored()
    owner: int | None = (
        None  # who opened the unit last and was not shut out since: nobody checks it
    )
    wipes: int = 0
    steps_back: int = 0
    resyncs: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """The guarding lines; all of them stand in the code."""

    write_checks_fence: bool = True  # advance_marker.sql: and fence = %(fence)s
    write_checks_batch: bool = True  # advance_marker.sql: and batch = %(batch)s - 1
    open_checks_fence: bool = True  # adopt_marker.sql: and fence < %(fence)s
    open_refuses_its_equal: bool = True  # … and not fence <= %(fence)s
    open_raises_fence: bool = True  # adopt_marker.sql: set fence = %(fence)s
    resync_raises_fence: bool = True  # resync_stream.sql: set fence = fence + 1
    reads_the_marker_when_unsure: bool = True  # Transactions.was_committed; else it guesses so
    # The ledger's, which are hints: without them things go slower, and nothing else.
    refences: bool = True  # workers/worker.py: adopt
    refence_checks_owner: bool = True  # refence.lua: holds()
    renew_checks_owner: bool = True  # renew.lua: holds()
    claims_only_what_is_free: bool = True  # claim.lua: ZREM due
    fences_grow: bool = True  # claim.lua: last + 1
    fences_follow_the_clock: bool = True  # claim.lua: and above the clock


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the world is."""

    clock: int = 3
    batches: int = 3
    fence: int = 7
    wipes: int = 1
    steps_back: int = 1
    resyncs: int = 1


SMALL: Final = Bounds(clock=2, batches=1, fence=5, wipes=1, steps_back=1, resyncs=1)
"""Every fault once, and room for what follows."""
ROOMY: Final = Bounds(clock=2, batches=1, fence=8, wipes=1, steps_back=0, resyncs=0)
"""Fences do not run out before a unit is stuck for another reason."""
TWO_BATCHES: Final = Bounds(clock=2, batches=2, fence=6, wipes=1, steps_back=1, resyncs=1)
FEW_FAULTS: Final = Bounds(clock=2, batches=2, fence=4, wipes=1, steps_back=0, resyncs=0)

LARGER: Final = {
    "two batches": Bounds(clock=2, batches=2, fence=7, wipes=1, steps_back=1, resyncs=1),
    "a longer clock": Bounds(clock=3, batches=1, fence=9, wipes=1, steps_back=1, resyncs=1),
    "two wipes": Bounds(clock=2, batches=1, fence=7, wipes=2, steps_back=1, resyncs=1),
}


@dataclass(frozen=True, slots=True)
class Clock:
    """What a fence is made of beside the last one."""

    began: int = 0
    per_tick: int = 2

    def fence(self, clock: int) -> int:
        return self.began + clock * self.per_tick


class Violation(Exception):
    """A guarantee was broken by the step that raises it."""


class Step(NamedTuple):
    name: str
    worker: int | None = None

    def __str__(self) -> str:
        return self.name if self.worker is None else f"{self.name}({'AB'[self.worker]})"

    @classmethod
    def read(cls, text: str) -> Step:
        name, _, worker = text.rstrip(")").partition("(")
        return cls(name, "AB".index(worker) if worker else None)


Outcome = tuple[str, State]
"""What the step said, and what it left."""


@dataclass(frozen=True, slots=True)
class Protocol:
    rules: Rules = Rules()
    bounds: Bounds = Bounds()
    time: Clock = Clock()

    def steps(self, state: State) -> Iterator[Step]:
        """All that can happen next."""
        bounds = self.bounds
        if state.clock < bounds.clock:
            yield Step("tick")
        if not state.known:
            yield Step("ensure")
        if state.wipes < bounds.wipes:
            yield Step("flushall")
        if state.steps_back < bounds.steps_back and state.clock > 0:
            yield Step("set_clock_back")
        if state.resyncs < bounds.resyncs and state.marker.position > 0:
            yield Step("resync")
        for number, worker in enumerate(state.workers):
            match worker.phase:
                case "idle":
                    if self._next_fence(state) <= self._most:
                        yield Step("claim", number)
                    continue
                case "claimed":
                    yield Step("open", number)
                case "held":
                    if worker.position < bounds.batches:
                        yield Step("write_batch", number)
                        yield Step("write_batch, answer lost", number)
                        yield Step("write_batch, request lost", number)
                        yield Step("write_batch, COMMIT lost", number)
                    yield Step("release", number)
                case "unsure":
                    yield Step("read_marker", number)
            yield Step("renew", number)
            yield Step("crash", number)

    @property
    def _most(self) -> int:
        return self.time.fence(0) + self.bounds.fence

    def after(self, state: State, step: Step) -> Outcome:
        """Raises Violation where a guarantee is broken."""
        if step.worker is None:
            return self._world[step.name](self, state)
        return self._acts[step.name](self, state, step.worker)

    # ------------------------------------------------------------ the world

    def _tick(self, state: State) -> Outcome:
        return "", state._replace(clock=state.clock + 1)

    def _set_clock_back(self, state: State) -> Outcome:
        return "", state._replace(clock=state.clock - 1, steps_back=state.steps_back + 1)

    def _flushall(self, state: State) -> Outcome:
        return "", state._replace(known=False, lease=None, issued=0, wipes=state.wipes + 1)

    def _ensure(self, state: State) -> Outcome:
        """The coordinator finds Redis empty."""
        return "", state._replace(known=True)

    def _resync(self, state: State) -> Outcome:
        """An operator starts the unit over."""
        old = state.marker
        fence = old.fence + self.rules.resync_raises_fence
        marker = Stored(fence, old.batch, 0, old.epoch + 1)
        return "", state._replace(marker=marker, owner=None, resyncs=state.resyncs + 1)

    # ------------------------------------------------------------ the ledger

    def _next_fence(self, state: State) -> int:
        grown = state.issued + 1 if self.rules.fences_grow else 1
        return max(grown, self.time.fence(state.clock)) if self._by_clock else grown

    @property
    def _by_clock(self) -> bool:
        return self.rules.fences_follow_the_clock

    @staticmethod
    def _swept(state: State) -> State:
        """prelude.lua: sweep.  A lease that ran out is free."""
        if state.lease is not None and state.lease.expiry <= state.clock:
            return state._replace(lease=None)
        return state

    def _claim(self, state: State, me: int) -> Outcome:
        state = self._swept(state)
        if not state.known or (state.lease is not None and self.rules.claims_only_what_is_free):
            return "nothing", state
        fence = self._next_fence(state)
        state = state._replace(lease=Lease(me, state.clock + TTL, fence), issued=fence)
        return "claimed", _with(state, me, Worker("claimed", fence))

    def _holds(self, state: State, me: int) -> bool:
        lease, fence = state.lease, state.workers[me].fence
        return lease is not None and (lease.owner, lease.fence) == (me, fence)

    def _renew(self, state: State, me: int) -> Outcome:
        ours = self._holds(state, me)
        if ours or (not self.rules.renew_checks_owner and state.lease is not None):
            assert state.lease is not None
            state = state._replace(lease=state.lease._replace(expiry=state.clock + TTL))
            return "renewed", state
        return "lost", _with(self._swept(state), me, Worker())

    def _release(self, state: State, me: int) -> Outcome:
        ours = self._holds(state, me)
        if ours:
            state = state._replace(lease=None)
        return "released" if ours else "too late", _with(state, me, Worker())

    def _refence(self, state: State, me: int) -> Outcome:
        """After an `open` that was refused; always with it, as in workers/worker.py: adopt."""
        if not self.rules.refences:
            return "lost", _with(state, me, Worker())
        if self.rules.refence_checks_owner and not self._holds(state, me):
            return "lost", _with(state, me, Worker())
        fence = max(state.workers[me].fence, state.marker.fence) + 1
        if self._by_clock:
            fence = max(fence, self.time.fence(state.clock))
        lease = state.lease and state.lease._replace(fence=fence)
        state = state._replace(lease=lease, issued=fence)
        return "refenced", _with(state, me, Worker("claimed", fence))

    # ------------------------------------------------------------ the destination

    def _open(self, state: State, me: int) -> Outcome:
        fence, stored = state.workers[me].fence, state.marker
        behind = fence < stored.fence or (
            fence == stored.fence and self.rules.open_refuses_its_equal
        )
        if behind and self.rules.open_checks_fence:
            said, state = self._refence(state, me)
            return f"behind, {said}", state
        if self.rules.open_raises_fence:
            stored = stored._replace(fence=fence)
        # As the destination told it.
        worker = Worker("held", stored.fence, stored.batch, stored.position, stored.epoch)
        return "opened", _with(state._replace(marker=stored, owner=me), me, worker)

    def _allowed(self, state: State, worker: Worker) -> bool:
        stored, rules = state.marker, self.rules
        if rules.write_checks_fence and stored.fence != worker.fence:
            return False
        return stored.batch == worker.batch or not rules.write_checks_batch

    def _landed(self, state: State, me: int) -> State:
        """The transaction commits."""
        self._judge(state, me)
        worker = state.workers[me]
        marker = state.marker._replace(batch=worker.batch + 1, position=worker.position + 1)
        return state._replace(marker=marker)

    def _judge(self, state: State, me: int) -> None:
        """Here is where a guarantee would break."""
        worker, stored = state.workers[me], state.marker
        if worker.epoch != stored.epoch:
            raise Violation("a write went on from where the unit stood before a resync")
        if worker.position < stored.position:
            raise Violation("a batch landed twice")
        if worker.position > stored.position:
            raise Violation("a batch was passed by")
        if state.owner != me:
            raise Violation("a superseded worker wrote")

    def _write_batch(self, state: State, me: int) -> Outcome:
        worker = state.workers[me]
        if not self._allowed(state, worker):
            return "refused", _with(state, me, Worker())
        return "landed", _with(self._landed(state, me), me, _further(worker))

    def _answer_lost(self, state: State, me: int) -> Outcome:
        worker = state.workers[me]
        if not self._allowed(state, worker):
            return "refused", _with(state, me, Worker())
        return "landed", _with(self._landed(state, me), me, worker._replace(phase="unsure"))

    def _request_lost(self, state: State, me: int) -> Outcome:
        """The connection breaks before the marker's statement."""
        return "", _with(state, me, state.workers[me]._replace(phase="unsure"))

    def _commit_lost(self, state: State, me: int) -> Outcome:
        """The connection breaks when all but the COMMIT was done."""
        if not self._allowed(state, state.workers[me]):
            return "refused", _with(state, me, Worker())
        return self._request_lost(state, me)

    def _read_marker(self, state: State, me: int) -> Outcome:
        """Was it committed?  The marker knows."""
        worker, stored = state.workers[me], state.marker
        if not self.rules.reads_the_marker_when_unsure:
            return "committed", _with(state, me, _further(worker))
        if stored.fence != worker.fence:
            return "lost", _with(state, me, Worker())
        if stored.batch == worker.batch + 1:
            return "committed", _with(state, me, _further(worker))
        return "not committed", _with(state, me, worker._replace(phase="held"))

    def _crash(self, state: State, me: int) -> Outcome:
        return "", _with(state, me, Worker())

    _world: ClassVar[Mapping[str, Callable[[Protocol, State], Outcome]]] = {
        "tick": _tick,
        "set_clock_back": _set_clock_back,
        "flushall": _flushall,
        "ensure": _ensure,
        "resync": _resync,
    }
    _acts: ClassVar[Mapping[str, Callable[[Protocol, State, int], Outcome]]] = {
        "claim": _claim,
        "renew": _renew,
        "release": _release,
        "open": _open,
        "write_batch": _write_batch,
        "write_batch, answer lost": _answer_lost,
        "write_batch, request lost": _request_lost,
        "write_batch, COMMIT lost": _commit_lost,
        "read_marker": _read_marker,
        "crash": _crash,
    }


def _with(state: State, me: int, worker: Worker) -> State:
    workers = list(state.workers)
    workers[me] = worker
    return state._replace(workers=tuple(workers))


def _further(worker: Worker) -> Worker:
    return worker._replace(phase="held", batch=worker.batch + 1, position=worker.position + 1)


# ---------------------------------------------------------------- every state there is


@dataclass(frozen=True, slots=True)
class Explored:
    states: int
    violation: str = ""
    trace: tuple[str, ...] = ()
    """The shortest way to the violation."""
    stuck: State | None = None
    """A state from which no batch can land any more, though nothing but the protocol is in the
    way."""
    seen: frozenset[tuple[str, str]] = frozenset()
    """(step, what it said), all that happened."""


def explore(protocol: Protocol, *, lives: bool = True) -> Explored:
    """Every state, the nearest first, until a guarantee is broken.

    With `lives` it is also asked whether a batch can still land from each of them.
    """
    first = State()
    came_from: dict[State, tuple[State, Step] | None] = {first: None}
    leads_to: dict[State, list[State]] = {}
    moving: list[State] = []  # a batch can land next
    said: set[tuple[str, str]] = set()
    most = protocol.time.fence(0) + protocol.bounds.fence
    queue = deque([first])
    while queue:
        state = queue.popleft()
        for step in protocol.steps(state):
            try:
                told, found = protocol.after(state, step)
            except Violation as broken:
                trace = (*_way(came_from, state), str(step))
                return Explored(len(came_from), str(broken), trace, seen=frozenset(said))
            said.add((step.name, told))
            if told == "landed":
                moving.append(state)
            if found.issued > most or found.marker.fence > most:
                continue
            leads_to.setdefault(found, []).append(state)
            if found not in came_from:
                came_from[found] = (state, step)
                queue.append(found)
    stuck = _stuck(protocol, came_from, leads_to, moving) if lives else None
    trace = (*_way(came_from, stuck),) if stuck is not None else ()
    return Explored(len(came_from), trace=trace, stuck=stuck, seen=frozenset(said))


def _way(came_from: dict[State, tuple[State, Step] | None], state: State) -> Iterator[str]:
    steps = []
    while (before := came_from[state]) is not None:
        state, step = before
        steps.append(str(step))
    return reversed(steps)


def _stuck(
    protocol: Protocol,
    states: dict[State, tuple[State, Step] | None],
    leads_to: dict[State, list[State]],
    moving: list[State],
) -> State | None:
    can = set(moving)
    queue = deque(can)
    while queue:
        for before in leads_to.get(queue.popleft(), ()):
            if before not in can:
                can.add(before)
                queue.append(before)
    room = _room(protocol)
    return next((state for state in states if state not in can and room(state)), None)


def _room(protocol: Protocol) -> Callable[[State], bool]:
    """Is it the protocol, and not the edge of our small world, that stops a unit here?"""
    bounds, most = protocol.bounds, protocol.time.fence(0) + protocol.bounds.fence

    def has(state: State) -> bool:
        ends = state.lease.expiry if state.lease else state.clock
        fences = max(state.issued, state.marker.fence, protocol.time.fence(bounds.clock))
        return (
            state.marker.position < bounds.batches and ends <= bounds.clock and fences + 3 <= most
        )

    return has
