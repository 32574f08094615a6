"""Who acts: workers, coordinators, an operator, and whoever changes the source."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edges import (
    ITEMS,
    ORDERS,
    PEOPLE,
    RATES,
    Network,
    SimulatedAssembly,
    ledger_of,
)
from scheduler import Process, SimulatedMachine

from coordinator.leader import Leadership, namespace_of
from coordinator.reconciler import Reconciler
from warp.errors import WarpError
from warp.interfaces import LeaseStore
from warp.model import Choice, Column, Invalid, Kind, TableId, TableSelection, UnitKind, WorkUnit
from warp.pipeline import Meter, NoMeter
from warp.retry import Backoff
from warp.schedule import Schedule
from warp.testing.memory import MemoryDatabase
from workers.errands import carry_out
from workers.worker import Pace, Worker

if TYPE_CHECKING:
    from world import World

NAMESPACE = "sim"
SLOTS = 2
LEADS_FOR = 6.0
RESTARTS_AFTER = 2.0  # seconds a supervisor takes


class Member:
    """A process of the fleet: its machine, its network, and what it runs."""

    def __init__(self, world: World, name: str, life: int) -> None:
        self.process = Process(f"{name}.{life}")
        self.world = world
        chance = world.chance
        self.machine = SimulatedMachine(
            world.scheduler,
            self.process,
            booted=round(chance.uniform(0.0, 1e6), 3),
            wrong_by=chance.choice((0.0, 0.0, -2.0, 2.0, 0.3)),
        )
        self.network = Network(world, self.process)
        self.assembly = SimulatedAssembly(self.network)
        self.ledger: LeaseStore = ledger_of(self.network, self.machine, NAMESPACE)
        self.ended = False

    def start(self, run: Callable[[], object]) -> None:
        def whole_life() -> None:
            run()
            self.ended = True

        self.world.scheduler.start(self.process, whole_life)

    def drain(self) -> None: ...


class SimulatedWorker(Member):
    """`warp-worker`: the real one, with nobody to tell its metrics to."""

    def __init__(self, world: World, name: str, life: int) -> None:
        super().__init__(world, name, life)
        self.worker = Worker(
            self.ledger,
            self.assembly,
            Unmetered(),
            slots=SLOTS,
            pace=Pace(
                ttl=world.ttl,
                claim_every=1.0,
                quantum=1.0,
                drain_limit=10.0,
                backoff=Backoff(5, 2.0, 0.5, 4.0),
            ),
            schedule_of=world.schedule_of,
            id=self.process.name,
            clock=self.machine.monotonic,
            wall=self.machine.wall,
            machine=self.machine,
        )
        self.start(self.worker.run)

    def drain(self) -> None:
        self.worker.drain()


class SimulatedCoordinator(Member):
    """`warp-coordinator`, likewise."""

    def __init__(self, world: World, name: str, life: int) -> None:
        super().__init__(world, name, life)
        self._stop = self.machine.event()
        self.start(self._run)

    def _run(self) -> None:
        ledger = ledger_of(self.network, self.machine, namespace_of(NAMESPACE))
        clocks: dict[str, Any] = {"clock": self.machine.monotonic, "machine": self.machine}
        leadership = Leadership(ledger, self.process.name, ttl=LEADS_FOR, **clocks)
        watch: Any = Unwatched()
        reconciler = Reconciler(
            self.world.settings,
            self.assembly,
            self.ledger,
            leadership,
            watch,
            wall=self.machine.wall,
            **clocks,
        )
        leadership.start()
        reconciler.run(self._stop)
        leadership.stop()

    def drain(self) -> None:
        self._stop.set()


class Operator(Member):
    """Carries errands out, as a worker's parent does, and asks for some."""

    def __init__(self, world: World, name: str, life: int) -> None:
        super().__init__(world, name, life)
        self._asked = 0
        self.start(self._run)

    def _run(self) -> None:
        while True:
            self.machine.sleep(1.0)
            try:
                destination = self.assembly.bookkeeping()
                for id, errand, _ in destination.metadata().open_errands():
                    carry_out(id, errand, self.ledger, self.assembly)
                    self.world.met(f"errand: {errand}")
            except WarpError as error:
                self.world.met(f"errand failed: {type(error).__name__}")

    def ask(self, errand: str, **arguments: str) -> None:
        """Written down at the destination, over no network: its loss is nothing new."""
        self._asked += 1
        warehouse = self.world.warehouse
        warehouse.errands[f"asked {self._asked}"] = {
            "name": errand,
            "arguments": arguments,
            "status": "open",
            "result": "",
            "added_at": 0.0,
        }

    def replay_all(self) -> None:
        metadata = self.world.destination().metadata()
        by_table: dict[tuple[str, TableId], list[int]] = {}
        for aside in metadata.quarantine(Choice(limit=100)):
            by_table.setdefault((aside.schema, aside.row.table), []).append(aside.id)
        for (schema, table), ids in by_table.items():
            if metadata.replay(schema, table, ids):
                self.ask("replay", schema=schema, table=str(table))


class Writer:
    """Changes the source by its seed, whatever the fleet does."""

    def __init__(self, world: World, chance: random.Random, until: float) -> None:
        self._world = world
        self._chance = chance
        self._until = until
        self._count = 0
        self.process = Process("writer")
        self.done = False
        world.scheduler.start(self.process, self._run)

    def _run(self) -> None:
        scheduler = self._world.scheduler
        while scheduler.now < self._until:
            scheduler.wait(self._chance.expovariate(1 / 0.25))
            self._step()
        self.done = True

    def _step(self) -> None:
        database = self._world.database
        if self._chance.random() < 0.15:
            self._put(self._world.rates, RATES)
        elif self._chance.random() < 0.3:
            with database.transaction():
                for _ in range(self._chance.randint(1, 9)):
                    self._change(database)
        else:
            self._change(database)

    def _change(self, database: MemoryDatabase) -> None:
        table = self._chance.choice((ORDERS, ORDERS, ITEMS, PEOPLE))
        known = list(database.tables[table])
        what = self._chance.random()
        if what < 0.25 and known:
            database.delete(table, id=self._chance.choice(known)[0])
        elif what < 0.6 and known and not self._world.source_class.traits.full_rows:
            self._patch(database, table, self._chance.choice(known)[0])
        else:
            self._put(database, table)

    def _put(self, database: MemoryDatabase, table: TableId) -> None:
        row: dict[str, Any] = {"id": self._chance.randint(0, 12)}
        for column in database.schemas[table].columns[1:]:
            row[column.name] = self._value(column.kind)
        if (
            table == ITEMS
            and self._world.source_class.traits.full_rows
            and self._chance.random() < 0.1
        ):
            row["amount"] = Invalid("not a number")
            self._world.met("put a row that cannot land")
        database.put(table, **row)

    def _patch(self, database: MemoryDatabase, table: TableId, id: int) -> None:
        column = self._chance.choice(database.schemas[table].columns[1:])
        database.patch(table, id=id, **{column.name: self._value(column.kind)})

    def _value(self, kind: Kind) -> Any:
        """One never used before, so that an old one shows."""
        self._count += 1
        return f"v{self._count}" if kind is Kind.TEXT else self._count

    # ------------------------------------------------------------ changes of tables

    def truncate(self) -> None:
        self._world.database.truncate(self._chance.choice((ORDERS, ITEMS)))

    def add_column(self) -> None:
        table = self._chance.choice((ORDERS, ITEMS, PEOPLE))
        schema = self._world.database.schemas[table]
        column = Column(f"more{len(schema.columns)}", Kind.INT64)
        self._world.database.schemas[table] = replace(schema, columns=(*schema.columns, column))

    def widen_column(self) -> None:
        table = self._chance.choice((ORDERS, ITEMS, PEOPLE))
        schema = self._world.database.schemas[table]
        columns = tuple(
            replace(c, kind=Kind.INT64) if c.kind is Kind.INT32 else c for c in schema.columns
        )
        self._world.database.schemas[table] = replace(schema, columns=columns)


class Unmetered:
    """A probe that tells nobody."""

    def meter(self, unit: WorkUnit, selection: TableSelection) -> Meter:
        return NoMeter()

    def error(self, unit: WorkUnit, error: Exception) -> None: ...
    def stopped(self, unit: WorkUnit) -> None: ...
    def fenced(self, unit: WorkUnit) -> None: ...
    def over(self, unit: WorkUnit) -> None: ...


class Unwatched:
    """A watch that shows nobody anything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None


def schedule_of(expression: str) -> Callable[[WorkUnit], Schedule | None]:
    schedule = Schedule(expression)
    return lambda unit: schedule if unit.kind is UnitKind.POLL else None
