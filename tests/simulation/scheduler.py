"""Actors of many processes in one thread, on a clock that only this scheduler moves.

Each thread of the product is a greenlet here.  It runs until it waits; who runs next is drawn from
the seed, and when nobody can run the clock jumps to the next moment somebody waits for.  So a run
is a function of its seed, and an hour costs no more than what happens in it.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import greenlet

from warp.machine import Condition, Event, Pipe, Room, Running

MOST_STEPS = 200_000  # hundreds of times what a run needs


class Killed(BaseException):
    """Raised inside every actor of a process that is gone; the product cannot catch it."""


class Stuck(Exception):
    """Nobody waits for anything and nobody can run."""


@dataclass(eq=False)
class Process:
    """What is killed, paused and cut off together."""

    name: str
    dead: bool = False
    paused_until: float = 0.0
    actors: list[Actor] = field(default_factory=list)


class Actor:
    """One thread of a process."""

    def __init__(
        self, scheduler: Scheduler, process: Process, target: Callable[[], object]
    ) -> None:
        self.process = process
        self.done = False
        self.waits = 0  # counts its waits, so that an alarm of an earlier one does not end this one
        self.woken = False
        self.joiners: list[Actor] = []
        self._scheduler = scheduler
        self._target = target
        # Its end goes to the hub, not to whoever began it.
        self.greenlet = greenlet.greenlet(self._run, parent=scheduler.hub)

    def _run(self) -> None:
        try:
            self._target()
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 - the top of an actor: somebody must hear of it
            self._scheduler.broke(self.process, error)
        finally:
            self.done = True
            for joiner in self.joiners:
                self._scheduler.wake(joiner)

    def join(self, timeout: float | None = None) -> None:
        me = self._scheduler.current
        while not self.done:
            self.joiners.append(me)
            if not self._scheduler.wait(timeout) and timeout is not None:
                return


class Scheduler:
    def __init__(self, chance: random.Random) -> None:
        self.now = 0.0
        self.steps = 0
        self.chance = chance
        self.failures: list[tuple[str, Exception]] = []
        self.hub = greenlet.getcurrent()
        self._ready: list[Actor] = []
        self._alarms: list[tuple[float, int, Actor, int]] = []
        self._count = 0
        self._current: Actor | None = None
        self._dying: list[Process] = []

    @property
    def current(self) -> Actor:
        if self._current is None:
            raise AssertionError("asked from outside of every actor")
        return self._current

    def broke(self, process: Process, error: Exception) -> None:
        self.failures.append((process.name, error))

    def start(self, process: Process, target: Callable[[], object]) -> Actor:
        actor = Actor(self, process, target)
        process.actors.append(actor)
        self._ready.append(actor)
        return actor

    # ------------------------------------------------------------ called by actors

    def wait(self, timeout: float | None) -> bool:
        """Let others run until woken (True) or for that long."""
        me = self.current
        if me.process.dead:
            raise Killed
        me.waits += 1
        me.woken = False
        if timeout is not None:
            self._alarm(self.now + max(0.0, timeout), me)
        self.hub.switch()
        if me.process.dead:
            raise Killed
        return me.woken

    def wake(self, actor: Actor) -> None:
        """End the wait it is in; nothing where it is in none."""
        if not actor.woken and not actor.done and actor is not self._current:
            actor.woken = True
            actor.waits += 1
            self._ready.append(actor)

    def kill(self, process: Process) -> None:
        """End every actor of it where it stands; the caller's own too, at its next wait."""
        process.dead = True
        self._dying.append(process)

    # ------------------------------------------------------------ the loop

    def run(self, until: Callable[[], bool], *, limit: float) -> bool:
        """Run until that holds (asked whenever the clock moves); False at the time limit."""
        while True:
            self._bury()
            if self.steps > MOST_STEPS:
                raise Stuck(f"{MOST_STEPS} steps by {self.now:.3f} s, and no end")
            if self._ready:
                self._switch_to(self._draw())
                continue
            if self.failures or until():
                return True
            if not self._alarms:
                raise Stuck("nobody waits for a time, and nobody can run")
            at, _, actor, wait = heapq.heappop(self._alarms)
            if actor.done or actor.waits != wait:
                continue
            if at > limit:
                return False
            self.now = max(self.now, at)
            actor.waits += 1
            self._ready.append(actor)

    def _draw(self) -> Actor:
        place = int(self.chance.random() * len(self._ready)) if len(self._ready) > 1 else 0
        return self._ready.pop(place)

    def _switch_to(self, actor: Actor) -> None:
        process = actor.process
        if actor.done or process.dead:
            return
        if process.paused_until > self.now:
            actor.waits += 1
            self._alarm(process.paused_until, actor)
            return
        self.steps += 1
        self._current = actor
        actor.greenlet.switch()
        self._current = None

    def _alarm(self, at: float, actor: Actor) -> None:
        self._count += 1
        heapq.heappush(self._alarms, (at, self._count, actor, actor.waits))

    def _bury(self) -> None:
        while self._dying:
            for actor in self._dying.pop().actors:
                if not actor.done and actor.greenlet:  # it has begun, and has not ended
                    self._current = actor
                    actor.greenlet.throw(Killed)
                    self._current = None
                actor.done = True


# ---------------------------------------------------------------- what threads wait on


class _Bell:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Actor] = []

    def wait(self, timeout: float | None = None) -> bool:
        me = self._scheduler.current
        self._waiting.append(me)
        try:
            return self._scheduler.wait(timeout)
        finally:
            if me in self._waiting:
                self._waiting.remove(me)

    def ring(self) -> None:
        waiting, self._waiting = self._waiting, []
        for actor in waiting:
            self._scheduler.wake(actor)


class SimulatedEvent:
    def __init__(self, scheduler: Scheduler) -> None:
        self._bell = _Bell(scheduler)
        self._set = False

    def set(self) -> None:
        self._set = True
        self._bell.ring()

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._bell.wait(timeout)
        return self._set


class SimulatedCondition:
    """Nobody else runs between two waits, so its lock has nothing to do."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._bell = _Bell(scheduler)

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: Any) -> None: ...

    def wait(self, timeout: float | None = None) -> bool:
        return self._bell.wait(timeout)

    def notify_all(self) -> None:
        self._bell.ring()


class SimulatedLock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._bell = _Bell(scheduler)
        self._taken = False

    def __enter__(self) -> bool:
        while self._taken:
            self._bell.wait()
        self._taken = True
        return True

    def __exit__(self, *error: Any) -> None:
        self._taken = False
        self._bell.ring()


class SimulatedRoom:
    def __init__(self, scheduler: Scheduler, free: int) -> None:
        self._bell = _Bell(scheduler)
        self._free = free

    def acquire(self) -> bool:
        while not self._free:
            self._bell.wait()
        self._free -= 1
        return True

    def release(self) -> None:
        self._free += 1
        self._bell.ring()


class SimulatedPipe:
    def __init__(self, scheduler: Scheduler) -> None:
        self._bell = _Bell(scheduler)
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._bell.ring()

    def get(self) -> Any:
        while not self._items:
            self._bell.wait()
        return self._items.popleft()


class AtOnce(Executor):
    """Does what it is given before it answers."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's who asks for the result
            future.set_exception(error)
        return future


class SimulatedMachine:
    """The machine of one process: `warp.machine.Machine` on the scheduler's clock."""

    def __init__(
        self, scheduler: Scheduler, process: Process, *, booted: float, wrong_by: float
    ) -> None:
        """`booted` is what its monotonic clock said when all began, `wrong_by` how far its wall
        clock is ahead."""
        self.process = process
        self._scheduler = scheduler
        self._booted = booted
        self._wrong_by = wrong_by
        self._ids = _ids(process.name)

    def monotonic(self) -> float:
        return self._booted + self._scheduler.now

    def wall(self) -> float:
        return BEGAN + self._scheduler.now + self._wrong_by

    def sleep(self, seconds: float) -> None:
        self._scheduler.wait(seconds)

    def chance(self) -> float:
        return self._scheduler.chance.random()

    def new_id(self) -> str:
        return next(self._ids)

    def start(self, target: Callable[[], object], *, name: str) -> Running:
        return self._scheduler.start(self.process, target)

    def pool(self, size: int, *, name: str) -> Executor:
        return AtOnce()

    def event(self) -> Event:
        return SimulatedEvent(self._scheduler)

    def condition(self) -> Condition:
        return SimulatedCondition(self._scheduler)

    def lock(self) -> Any:
        return SimulatedLock(self._scheduler)

    def room(self, free: int) -> Room:
        return SimulatedRoom(self._scheduler, free)

    def pipe(self) -> Pipe:
        return SimulatedPipe(self._scheduler)


def _ids(name: str) -> Iterator[str]:
    count = 0
    while True:
        count += 1
        yield f"{name}/{count}"


BEGAN = 1_795_000_005.0  # Unix seconds; 15 s before a full minute, so that short runs meet slots
