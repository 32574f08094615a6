"""One run of a whole fleet, in this thread, from one seed.

    Run(7).result()        what became of it
    Run(7, planned).result()    likewise, with other faults

Coordinators, workers, planner, ledger scripts, holds, pipeline, evolve and the marker protocol are
the real ones.  What they reach over a network is simulated (`edges.py`), and so is the machine they
run on (`scheduler.py`).
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import structlog
from actors import (
    NAMESPACE,
    RESTARTS_AFTER,
    Member,
    Operator,
    SimulatedCoordinator,
    SimulatedWorker,
    Writer,
    schedule_of,
)
from checks import Checks
from edges import ITEMS, ORDERS, PEOPLE, RATES, STREAMED, RecordedDatabase
from faults import COORDINATORS, STRIKES, WORKERS, Fault, Planned, Strikes, draw
from scheduler import BEGAN, Process, Scheduler, SimulatedCondition, Stuck
from scripted_redis import ScriptedRedis

from warp.config import LostPosition, Mode, Settings, load
from warp.leases.redis import KEYS
from warp.model import Column, Kind, TableSchema, WorkUnit
from warp.testing.memory import (
    MemoryDeltas,
    MemoryDestination,
    MemoryDestinationOptions,
    MemoryOneLog,
    MemorySource,
    MemoryWarehouse,
)

FAULTY: Final = 20.0  # seconds in which things go wrong, and the source changes
LIMIT: Final = 300.0  # by then all must have come to rest
STILL: Final = 5.0  # and stay so for this long, whoever wakes up
TTL: Final = 4.0
EVERY: Final = "* * * * * */15"  # the sixth field is seconds


class Violation(AssertionError):
    """A guarantee was broken, or the fleet did not come to rest."""


@dataclass(frozen=True, slots=True)
class Result:
    seed: int
    planned: tuple[Planned, ...]
    violation: str
    events: Counter[str]
    trace: tuple[str, ...]
    seconds: float  # of the simulated clock

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class World:
    """Everything of one run, and what the rest of it asks for."""

    def __init__(self, seed: int, planned: Sequence[Planned] | None, faulty: float) -> None:
        # Four sources of chance: what goes wrong can be left out without changing what is written.
        plans, writes, self.chance, schedules = (
            random.Random(f"{seed} {of}") for of in ("faults", "writes", "fleet", "scheduler")
        )
        self.seed = seed
        self._faulty = faulty
        drawn = draw(plans, until=faulty, ttl=TTL) if planned is None else planned
        self.planned = tuple(sorted(drawn, key=lambda one: one.at))
        self.scheduler = Scheduler(schedules)
        self.strikes = Strikes(self.planned)
        self.events: Counter[str] = Counter()
        self.lines: list[str] = []
        self.violation = ""
        self.duplicates = False
        self.ttl = TTL
        self.batch_size = self.chance.choice((2, 4, 50))
        self.source_class = self.chance.choice((MemorySource, MemoryDeltas, MemoryOneLog))
        self.settings = _settings()
        self.schedule_of = schedule_of(EVERY)
        self.redis_wrong_by = 0.0
        self.redis = ScriptedRedis(lambda: BEGAN + self.scheduler.now + self.redis_wrong_by)
        self.ledger_disturbed_at = -1.0
        self.claimed: dict[tuple[str, str], float] = {}  # when, by unit and owner
        self._replica: dict[str, Any] = {}
        clock = lambda: BEGAN + self.scheduler.now  # noqa: E731
        changed = SimulatedCondition(self.scheduler)
        self.database = RecordedDatabase(changed=changed, clock=clock)
        self.rates = RecordedDatabase(changed=changed, clock=clock)
        self.warehouse = MemoryWarehouse(clock=clock)
        self.destination().metadata().prepare()
        for table in (ORDERS, ITEMS, PEOPLE):
            self.database.create(_table(table))
        self.rates.create(_table(RATES))
        self.checks = Checks(self)
        self.writer = Writer(self, writes, faulty)
        for _ in range(self.chance.randint(0, 30)):  # rows that are there before the fleet is
            self.writer._step()
        self.members: dict[str, Member] = {}
        self._lives: Counter[str] = Counter()
        for name in (*WORKERS, *COORDINATORS, "operator"):
            self._begin(name)
        self._fate = Process("fate")
        self._wire = Process("wire")
        self.settled_at: float | None = None
        self.scheduler.start(self._fate, self._supervise)
        self.scheduler.start(self._fate, self._go_wrong)
        self.scheduler.start(self._fate, self._referee)

    # ------------------------------------------------------------ asked by the others

    def latency(self) -> float:
        drawn = self.scheduler.chance.random()
        return 0.0004 + 0.004 * drawn if drawn < 0.95 else 0.2 * drawn

    def trace(self, who: str, what: str) -> None:
        self.lines.append(f"{self.scheduler.now:10.6f} {who:<16} {what}".rstrip())

    def met(self, event: str) -> None:
        self.events[event] += 1

    def violated(self, what: str) -> None:
        if not self.violation:
            self.trace("checks", what)
            self.violation = f"{what} (at {self.scheduler.now:.3f} s)"

    def delivered_twice(self) -> None:
        self.duplicates = True
        self.met("fault: DUPLICATE")

    def in_flight(self, effect: Callable[[], Any], seconds: float) -> None:
        """What was sent arrives when nobody waits for its answer any more."""

        def arrive() -> None:
            self.scheduler.wait(seconds)
            try:
                effect()
                self.met("arrived late, and was done")
            except Exception as error:  # noqa: BLE001 - the answer goes to nobody
                self.met(f"arrived late: {type(error).__name__}")

        self.scheduler.start(self._wire, arrive)

    def owner_of(self, unit: WorkUnit) -> str | None:
        owners: dict[str, str] = self.redis.values.get(f"cw:{{{NAMESPACE}}}:{KEYS[3]}", {})
        return owners.get(unit.id)

    def destination(self) -> MemoryDestination:
        options = MemoryDestinationOptions.model_construct(warehouse=self.warehouse)
        return MemoryDestination(options, lambda table: None)

    # ------------------------------------------------------------ those who run it

    def _begin(self, name: str) -> None:
        self._lives[name] += 1
        kind = {"w": SimulatedWorker, "c": SimulatedCoordinator, "o": Operator}[name[0]]
        self.members[name] = kind(self, name, self._lives[name])

    def _supervise(self) -> None:
        """Starts anew what has died."""
        while True:
            self.scheduler.wait(RESTARTS_AFTER)
            for name, member in list(self.members.items()):
                if member.ended and not member.process.dead:
                    self.scheduler.kill(member.process)  # its last threads go with it
                if member.process.dead:
                    self._begin(name)
                    self.met(f"restarted a {name.partition('-')[0]}")

    def _referee(self) -> None:
        """Ends the run once all has come to rest, and has stayed so."""
        self.scheduler.wait(self._faulty)
        while True:
            self.scheduler.wait(1.0)
            if not self.writer.done or self.checks.unsettled():
                continue
            if self.settled_at is None:
                self.settled_at = self.scheduler.now
                self.checks.at_rest()
            elif self.scheduler.now >= self.settled_at + STILL:
                self.checks.at_rest()
                return

    @property
    def is_over(self) -> bool:
        still = self.settled_at is not None and self.scheduler.now >= self.settled_at + STILL + 1
        return bool(self.violation) or still

    def _go_wrong(self) -> None:
        for one in self.planned:
            self.scheduler.wait(max(0.0, one.at - self.scheduler.now))
            if one.fault not in (*STRIKES, Fault.DUPLICATE):
                self.trace("fate", str(one))
                self.met(f"fault: {one.fault.name}")
                self._come(one)

    def _come(self, one: Planned) -> None:
        now = self.scheduler.now
        member = self.members.get(one.who)
        match one.fault:
            case Fault.KILL if member is not None:
                self.scheduler.kill(member.process)
            case Fault.FREEZE if member is not None:
                member.process.paused_until = now + one.seconds
            case Fault.DRAIN if member is not None:
                member.drain()
            case Fault.CUT if member is not None:
                member.network.cut_until[one.call] = now + one.seconds
            case Fault.WIPE:
                self.redis.wipe()
                self.ledger_disturbed_at = now
            case Fault.CLOCK:
                self.redis_wrong_by += one.seconds
                self.ledger_disturbed_at = now
            case Fault.FAILOVER:
                self._fail_over(one.seconds)
            case Fault.ADD_COLUMN:
                self.writer.add_column()
            case Fault.WIDEN_COLUMN:
                self.writer.widen_column()
            case Fault.TRUNCATE:
                self.writer.truncate()
            case Fault.FORGET:
                self.database.forget()
            case Fault.RESYNC | Fault.REPLAY | Fault.PAUSE:
                self._operate(one)

    def _fail_over(self, seconds: float) -> None:
        """To what the replica had some time ago, on a machine with another clock."""
        self.redis.become(self._replica)
        self._replica = self.redis.copy()
        self.redis_wrong_by += seconds
        self.ledger_disturbed_at = self.scheduler.now

    def replicate(self) -> None:
        if self.scheduler.chance.random() < 0.02:
            self._replica = self.redis.copy()

    def _operate(self, one: Planned) -> None:
        operator = self.members["operator"]
        if not isinstance(operator, Operator):
            raise AssertionError("the operator is one")
        if one.fault is Fault.REPLAY:
            operator.replay_all()
        elif one.fault is Fault.RESYNC:
            schema, _, table = one.schema.partition(" ")
            operator.ask("resync", schema=schema, **({"table": table} if table else {}))
        else:
            operator.ask("pause", schema=one.schema)

            def resume() -> None:
                self.scheduler.wait(one.seconds)
                operator.ask("resume", schema=one.schema)

            self.scheduler.start(self._fate, resume)


def run(
    seed: int,
    planned: Sequence[Planned] | None = None,
    *,
    faulty: float = FAULTY,
    limit: float = LIMIT,
) -> Result:
    """One run, and what became of it; after `faulty` seconds nothing changes any more."""
    with _heard() as hears:
        world = World(seed, planned, faulty)
        hears.append(world)
        try:
            at_rest = world.scheduler.run(lambda: world.is_over, limit=limit)
        except Stuck as stuck:
            at_rest = False
            world.violated(str(stuck))
        for name, error in world.scheduler.failures:
            world.violated(f"a thread of {name} broke: {type(error).__name__}: {error}")
        if not at_rest:
            world.violated(f"not at rest after {limit:g} s: {world.checks.unsettled() or 'almost'}")
        for member in world.members.values():
            world.scheduler.kill(member.process)
        for process in (world._fate, world._wire, world.writer.process):
            world.scheduler.kill(process)
        world.scheduler._bury()
    return Result(
        seed,
        world.planned,
        world.violation,
        world.events,
        tuple(world.lines),
        world.scheduler.now,
    )


@contextmanager
def _heard() -> Iterator[list[World]]:
    """What the product logs is part of the trace, and nowhere else to be seen."""
    worlds: list[World] = []

    def hear(_: Any, level: str, line: MutableMapping[str, Any]) -> Any:
        for world in worlds:
            event = str(line["event"])
            world.met(event)
            current = world.scheduler._current
            who = current.process.name if current else ""
            told = " ".join(f"{k}={line[k]}" for k in ("unit", "error", "reason") if k in line)
            world.trace(who, f"# {event} {told}")
        raise structlog.DropEvent

    before = structlog.get_config()
    bound = structlog.make_filtering_bound_logger(logging.INFO)
    structlog.configure(processors=[hear], wrapper_class=bound, cache_logger_on_first_use=False)
    try:
        yield worlds
    finally:
        structlog.configure(**before)


def _table(table: Any) -> TableSchema:
    columns = (Column("id", Kind.INT64), Column("name", Kind.TEXT), Column("amount", Kind.INT32))
    return TableSchema(table, columns, ("id",))


@cache
def _settings() -> Settings:
    flags = {
        "source": "mongodb://localhost/shop",
        "destination": "postgresql://localhost/warehouse",
        "schema": (*STREAMED, "cron"),
    }
    settings = load(None, {}, flags)
    *streamed, polled = settings.schemas
    return replace(
        settings,
        schemas=(*streamed, replace(polled, mode=Mode.BATCH, schedule=EVERY)),
        errors=replace(settings.errors, on_lost_position=LostPosition.RESYNC),
        coordination=replace(settings.coordination, reconcile_every=2.0),
    )
