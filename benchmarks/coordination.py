"""Coordination of a large fleet: what a round, a claim, a renewal and a take-over cost.

    python -m benchmarks coordination [--units 10000] [--tables 1000] [--workers 300] [--save]

The coordinator's own rounds and the ledger's own scripts on a real Redis; the source and the
destination are in memory, so that nothing else is measured.  Each worker is its calls: one after
the other, from this process, so a pass of the whole fleet takes as long as if all had come at once
and the server had served them in turn.  A worker renews each third of the ttl, and asks for work
about six times a second while it has free slots.  The ttl is long, so that no lease ends meanwhile
on a busy machine; those of the dead are ended by hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from benchmarks.ledger import server_cpu
from benchmarks.report import Report, parser
from coordinator.leader import Leadership
from coordinator.reconciler import Reconciler
from coordinator.status import StatusReader
from coordinator.watch import Watch
from warp.config import Settings, load
from warp.interfaces import DestinationConnector, SourceConnector
from warp.leases.memory import MemoryLeaseStore
from warp.leases.redis import KEYS, MOST_RENEWED, RedisLeaseStore
from warp.metrics import Meters
from warp.model import (
    Chunk,
    Column,
    Kind,
    Lease,
    Marker,
    Phase,
    Position,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)
from warp.testing.servers import RedisServer

NAMESPACE = "bench"
SCHEMAS = 10
ASKS_A_SECOND = 5.7  # of an idle worker: each 0.2 s, with jitter
USUAL_TTL = 10.0
COLUMNS = (Column("id", Kind.INT64),)


@dataclass
class Simulated:
    """An assembly of schemas with many tables, which are all being read for the first time."""

    units: int
    tables: int
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    warehouse: MemoryWarehouse = field(default_factory=MemoryWarehouse)

    def __post_init__(self) -> None:
        self.settings: dict[str, dict[TableId, TableSettings]] = {}
        chunks = (self.units - SCHEMAS) // self.tables
        over = (self.units - SCHEMAS) % self.tables
        for number in range(self.tables):
            schema = f"schema-{number % SCHEMAS}"
            table = TableId(schema, f"table_{number}")
            self.database.create(TableSchema(table, COLUMNS, ("id",)))
            settings = TableSettings(table, table, schema)
            self.settings.setdefault(schema, {})[table] = settings
            self._mark(WorkUnit.of_table(schema, table), Phase.SNAPSHOT)
            for part in range(chunks + (number < over)):
                chunk = Chunk(table, part, f'["{part:09}"]', f'["{part + 1:09}"]', 100_000)
                self._mark(WorkUnit.of_chunk(schema, chunk, 0), Phase.PLANNED)
        for schema in self.settings:
            self._mark(WorkUnit.stream(schema), Phase.STREAMING, Position("0"))

    def _mark(self, unit: WorkUnit, phase: Phase, position: Position | None = None) -> None:
        self.warehouse.markers[unit.id] = Marker(unit, phase=phase, position=position)

    def knows(self, schema: str) -> bool:
        return schema in self.settings

    def sharing(self) -> tuple[str, ...]:
        return ()

    def follows(self, schema: str) -> str:
        return ""

    def selection(self, schema: str) -> TableSelection:
        return lambda table: self.settings[schema].get(table)

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        options = MemorySourceOptions(database=self.database)
        return MemorySource(options, selection or self.selection(schema))

    def destination(self, schema: str) -> DestinationConnector:
        options = MemoryDestinationOptions(warehouse=self.warehouse)
        return MemoryDestination(options, lambda table: None)

    def bookkeeping(self) -> DestinationConnector:
        return self.destination("")


@dataclass
class Worker:
    """What a worker asks of the ledger."""

    ledger: RedisLeaseStore
    id: str
    slots: int
    ttl: float
    leases: list[Lease] = field(default_factory=list)

    def claim(self) -> int:
        free = self.slots - len(self.leases)
        found = self.ledger.claim(self.id, free, ttl=self.ttl, slots=self.slots) if free else []
        self.leases += found
        return len(found)

    def renew(self) -> None:
        for start in range(0, max(1, len(self.leases)), MOST_RENEWED):
            part = self.leases[start : start + MOST_RENEWED]
            shed, kept = self.ledger.renew(self.id, part, ttl=self.ttl, slots=self.slots)
            if shed or not all(kept):
                raise AssertionError(f"expected {self.id} to keep all it holds, found a loss")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds: by the clock, of this process, of the server, and of the longest call."""

    wall: float
    ours: float
    server: float
    longest: float

    def cells(self) -> list[str]:
        return [f"{1000 * s:,.1f}" for s in (self.wall, self.ours, self.server, self.longest)]


class Measured:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __call__(self, calls: Sequence[Callable[[], object]]) -> Took:
        server, ours, began, longest = (
            server_cpu(self._client),
            time.process_time(),
            time.perf_counter(),
            0.0,
        )
        for call in calls:
            asked = time.perf_counter()
            call()
            longest = max(longest, time.perf_counter() - asked)
        wall, ours = time.perf_counter() - began, time.process_time() - ours
        return Took(wall, ours, server_cpu(self._client) - server, longest)

    def often(self, count: int, call: Callable[[], object]) -> Took:
        found = [self([call]) for _ in range(count)]
        return Took(
            *(
                statistics.median(getattr(took, name) for took in found)
                for name in ("wall", "ours", "server", "longest")
            )
        )


def used_memory(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def settings_of(schemas: Sequence[str]) -> Settings:
    flags: Mapping[str, Any] = {
        "source": "mongodb://localhost/shop",
        "destination": "postgresql://localhost/warehouse",
        "schema": tuple(schemas),
    }
    return load(None, {}, flags)


def reconciler_of(world: Simulated, ledger: RedisLeaseStore) -> Reconciler:
    leadership = Leadership(MemoryLeaseStore(lease_ttl=3600.0), "coordinator", ttl=3600.0)
    leadership.step()
    watch = Watch(Meters("bench"), database="bench")
    return Reconciler(settings_of(list(world.settings)), world, ledger, leadership, watch)


def die(client: redis.Redis, ledger: RedisLeaseStore, dead: Sequence[Worker]) -> int:
    """Their leases are over, and they are heard of no more; how many units that leaves."""
    expiry, alive = (ledger.keys[KEYS.index(name)] for name in ("exp", "workers"))
    units = [lease.unit.id for worker in dead for lease in worker.leases]
    client.zadd(expiry, dict.fromkeys(units, 1))
    client.zadd(alive, {worker.id: 1 for worker in dead})
    return len(units)


def main() -> None:
    options = parser(
        __doc__, units=10_000, tables=1_000, workers=300, slots=64, ttl=600, rounds=10
    ).parse_args()
    ttl = float(options.ttl)
    report = Report(
        "coordination",
        f"{options.units:,} units of {options.tables:,} tables in {SCHEMAS} schemas, "
        f"{options.workers} workers of {options.slots} slots, lease_ttl {ttl:g} s.",
        ("what", "took ms", "our CPU ms", "the server's CPU ms", "longest call ms"),
    )
    with RedisServer("redis7") as server, server.client() as client:
        measured = Measured(client)
        before = used_memory(client)
        world = Simulated(options.units, options.tables)
        ledger = RedisLeaseStore(server.url, NAMESPACE, lease_ttl=ttl)
        reconciler = reconciler_of(world, ledger)
        reader = StatusReader(world, ledger, list(world.settings), lease_ttl=ttl)
        fleet = [
            Worker(ledger, f"host-{n}:{1000 + n}:abcd{n:04}", options.slots, ttl)
            for n in range(options.workers)
        ]

        def tell(what: str, took: Took) -> Took:
            report.add(what, *took.cells())
            return took

        tell("a round that offers all units to an empty ledger", measured([reconciler.round]))
        for worker in fleet:
            worker.renew()
        claimed = tell(
            "all workers claim until all units are held", claim_all(measured, fleet, options.units)
        )
        tell("a round while all are held", measured.often(options.rounds, reconciler.round))
        renewed = tell("each worker renews all it holds", renew_all(measured, fleet))
        asked = tell(
            "each worker asks for work where there is none",
            measured([worker.claim for worker in fleet]),
        )
        pinged = tell("and each sends a PING instead", measured([client.ping for _ in fleet]))
        tell("a look at the whole fleet, for /status", measured.often(3, reader.look))
        tell("a look whether all is counted right", measured.often(3, ledger.mend))
        memory = used_memory(client) - before
        dead, living = fleet[: options.workers // 3], fleet[options.workers // 3 :]
        lost = die(client, ledger, dead)
        taken_over = claim_all(measured, living, options.units)
        tell(
            f"the leases of {len(dead)} dead workers are over: their {lost:,} units are held again",
            taken_over,
        )
        client.flushall()
        for worker in fleet:
            worker.leases.clear()
        tell("Redis is wiped: the round that offers all again", measured([reconciler.round]))
        tell("and all are held again", claim_all(measured, fleet, options.units))
        report.note(
            f"A unit is claimed in {1e6 * claimed.wall / options.units:,.0f} µs, "
            f"{1e6 * claimed.server / options.units:,.0f} µs of them the server's CPU."
        )
        report.note(
            f"Redis uses {memory / 2**20:.1f} MiB more: {memory / options.units:,.0f} B each."
        )
        report.note(
            f"With lease_ttl {USUAL_TTL:g} s renewals take "
            f"{renewed.server * 3 / USUAL_TTL:.1%} of one core of the server's, and asking for "
            f"work in vain {asked.server * ASKS_A_SECOND:.1%}; as many PINGs as the latter took "
            f"{pinged.server * ASKS_A_SECOND:.1%} in the same minute."
        )
        reader.close()
        reconciler.close()
        ledger.close()
    report.finish(save=options.save)


def claim_all(measured: Measured, fleet: Sequence[Worker], units: int) -> Took:
    """Passes of the whole fleet until all is held."""
    passes: list[Took] = []
    while sum(len(worker.leases) for worker in fleet) < units:
        passes.append(measured([worker.claim for worker in fleet]))
    return Took(
        sum(one.wall for one in passes),
        sum(one.ours for one in passes),
        sum(one.server for one in passes),
        max(one.longest for one in passes),
    )


def renew_all(measured: Measured, fleet: Sequence[Worker]) -> Took:
    return measured([worker.renew for worker in fleet])


if __name__ == "__main__":
    main()
