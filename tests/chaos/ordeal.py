"""One seeded run of everything at once: a fleet, two loads, faults, and the verdict in the end.

One load is wild, and judged by comparing both sides; of the other every write is known, and the
judge of `verdict` accounts for each of them.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import evidence
import fleet as of_mongodb
import known_load
import sql_fleet
import storm
from evidence import Span
from failing_servers import (
    Clock,
    MariaDbWithSmallDisk,
    PostgresWithSmallDisk,
    RedisWithOwnClock,
    SmallDisk,
)
from fleet import PATIENCE, TTL, Fleet, Load, Servers, Writers
from forgetting import Forgetting
from history import Event, Scribe
from known_load import KnownWriters, MongoPen, Pen, Rows, SqlPen
from schedule import LULL, schedule
from sql_fleet import MariaDbOrigin, Origin, PostgresOrigin, SqlFleet, SqlWriters
from verdict import Accusation, Evidence, accuse
from warehouses import MariaDbWarehouse, PostgresWarehouse, Warehouse
from wires import Wire

from warp.testing.servers import MariaDb, Mongod, Postgres, ReplicaSet

SOURCES: Final = ("mongodb", "postgresql", "mariadb")
DESTINATIONS: Final = ("postgresql", "mariadb")
AT_MOST: Final = 15  # times PATIENCE; a busy machine is slow, and only who stands still is accused
SETTINGS: Final[dict[str, Any]] = {
    "chunk_rows": 400,
    "full_load_batch_size": 100,
    "write_batch_size": 100,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of; all the luck in it comes from the seed."""

    seed: int
    seconds: float
    rows: int = 2_000  # of each wild table, before the first fault
    keys: int = 200  # of each known table
    pause: float = 0.01  # seconds between two writes of one writer
    lull: tuple[float, float] = LULL  # seconds between two faults
    ttl: float = TTL  # seconds, of a lease
    # Of the known writes the share that the destination refuses; a batch with one goes row by row.
    refused: float = 0.004


@dataclass(slots=True)
class Verdict:
    history: list[Event]
    struck: Mapping[str, int]
    outages: list[tuple[float, float]]
    told_to_forget: int = 0  # times that the source was told so, as seen
    seen: Evidence | None = None
    accusations: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """What differs between the sources."""

    fleet: Fleet
    tables: Sequence[str]
    wild: Load
    preload: Callable[[], None]
    under_way: Callable[[], None]  # done once, while the snapshot is being taken
    pen: Callable[[], Pen]
    faults: Mapping[str, storm.Fault]
    rows: Callable[[], Rows]  # of the known tables at the source
    span: Callable[[str], Span]
    key: str  # of the known tables at the destination
    rereads: bool
    # How far the source was told to forget its log; None where nobody tells it.
    forgotten: Callable[[], int | None] = lambda: None

    def forgetting(self) -> Forgetting:
        return Forgetting(self.fleet, self.forgotten, self.span)


@contextlib.contextmanager
def at_mongodb(ours: Servers, plan: Plan, warehouse: Warehouse | None = None) -> Iterator[Scene]:
    """A replica set, of which the members speak to each other: no wire lies before it."""
    members = ours.mongo
    assert isinstance(members, ReplicaSet)
    warehouse = warehouse or PostgresWarehouse(ours.postgres)
    common = {"warehouse": warehouse, "ttl": plan.ttl, **SETTINGS}
    with (
        Wire("destination", warehouse.server.port) as first,
        Wire("ledger", ours.redis.port) as second,
        Fleet(ours, wires=[first, second], promote_after="1s", **common) as fleet,
    ):
        keys = plan.rows + plan.rows // 10
        yield Scene(
            fleet,
            of_mongodb.TABLES,
            Writers(members.url, fleet.name, keys, plan.seed, pause=plan.pause),
            partial(of_mongodb.preload, fleet.source, plan.rows, random.Random(plan.seed)),
            lambda: None,
            partial(MongoPen, members.url, fleet.name),
            {**storm.of_replica_set(members), **storm.of_network([first, second])},
            partial(known_load.rows_of_mongodb, fleet.client, fleet.name),
            evidence.span_of_mongodb,
            "_id",
            rereads=True,
        )


@contextlib.contextmanager
def at_sql(
    ours: Servers, origin: Origin, plan: Plan, warehouse: Warehouse | None = None
) -> Iterator[Scene]:
    warehouse = warehouse or PostgresWarehouse(ours.postgres)
    common = {"warehouse": warehouse, "ttl": plan.ttl, **SETTINGS}
    with (
        Wire("destination", warehouse.server.port) as first,
        Wire("ledger", ours.redis.port) as second,
        Wire("source", origin.server.port) as third,
        SqlFleet(ours, origin, wires=[first, second, third], **common) as fleet,
    ):

        def preload() -> None:
            fleet.preload(plan.rows, random.Random(plan.seed))
            with contextlib.closing(origin.connect(fleet.name)) as connection:
                known_load.create_tables(connection.cursor(), origin)

        def add_a_column() -> None:
            """While chunks are read and the log is followed."""
            fleet.execute("alter table orders add column colour varchar(20) default 'none'")
            fleet.execute("update orders set colour = 'red' where id < 200")

        def rows() -> Rows:
            with contextlib.closing(origin.connect(fleet.name)) as connection:
                return known_load.rows_of_sql(connection)

        postgres = isinstance(origin, PostgresOrigin)
        yield Scene(
            fleet,
            sql_fleet.TABLES,
            SqlWriters(origin, fleet.name, plan.rows + 500, plan.seed, pause=plan.pause),
            preload,
            add_a_column,
            partial(SqlPen, origin, fleet.name),
            {**storm.of_sql_source(origin.server), **storm.of_network([first, second, third])},
            rows,
            evidence.span_of_postgresql if postgres else evidence.span_of_mariadb,
            "id",
            rereads=False,
            forgotten=partial(origin.forgotten, fleet.name),
        )


@contextlib.contextmanager
def scene_of(source: str, plan: Plan, destination: str = "postgresql") -> Iterator[Scene]:
    """With servers of its own."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisWithOwnClock())
        warehouse = warehouse_of(destination, stack)
        if source == "mongodb":
            members = stack.enter_context(ReplicaSet(cache_gigabytes=0.25))
            scene = at_mongodb(Servers(members, Postgres(), redis), plan, warehouse)
        else:
            ours = Servers(Mongod(), Postgres(), redis)
            scene = at_sql(ours, origin_of(source, stack), plan, warehouse)
        yield stack.enter_context(scene)


def warehouse_of(destination: str, stack: contextlib.ExitStack) -> Warehouse:
    if destination == "postgresql":
        return PostgresWarehouse(stack.enter_context(PostgresWithSmallDisk()))
    return MariaDbWarehouse(stack.enter_context(MariaDbWithSmallDisk()))


def origin_of(source: str, stack: contextlib.ExitStack, **settings: str) -> Origin:
    """`settings` are of PostgreSQL."""
    if source == "postgresql":
        return PostgresOrigin(stack.enter_context(Postgres(settings=settings)))
    return MariaDbOrigin(stack.enter_context(MariaDb()))


def run(
    scene: Scene,
    plan: Plan,
    directory: Path,
    say: Callable[[str], None],
    *,
    apart: Sequence[Sequence[str]] = (),
    environment: Mapping[str, str] | None = None,
) -> Verdict:
    """Faults for so long; then quiet, until all has arrived; then the judgement.

    With `apart` only these kinds strike, for so long each group, and between two groups all is
    well.  `environment` is of our processes.  The history stays in the directory, and with an
    accusation all that was seen.
    """
    fleet, ours = scene.fleet, scene.fleet.servers
    warehouse = fleet.warehouse
    assert isinstance(ours.redis, RedisWithOwnClock)
    assert isinstance(warehouse.server, SmallDisk)
    clock = Clock(directory)
    faults = {
        **storm.of_processes(fleet),
        **storm.of_redis(ours.redis),
        **storm.of_destination(warehouse.server),
        **storm.of_clocks({"the ledger": ours.redis.clock, "worker-2": clock}),
        **scene.faults,
    }
    groups = apart or [sorted(faults)]
    about = {"seed": plan.seed, "seconds": plan.seconds, "tables": known_load.TABLES}
    with Scribe(directory / "history.jsonl", about) as scribe:
        known = KnownWriters(
            scene.pen, scribe, plan.keys, plan.seed, pause=plan.pause, refused=plan.refused
        )
        scene.preload()
        known.preload()
        fleet.watch(*scene.tables, *known_load.TABLES)
        alone = storm.of_the_ledgers_clock(ours.redis.clock)
        raging = storm.Storm(fleet, {**faults, **alone}, say)
        with scene.wild, known, scene.forgetting() as forgetting:
            start(fleet, clock, environment)
            fleet.wait_for("the snapshot to begin", lambda: any(map(fleet.count, scene.tables)))
            scene.under_way()
            fleet.wait_for("the known tables", lambda: all(map(fleet.count, known_load.TABLES)))
            known_load.refuse_at_destination(warehouse)
            known.refuse()
            for number, kinds in enumerate(groups):
                if number:
                    wait_for_calm(fleet)
                raging.rage(schedule(plan.seed + number, plan.seconds, kinds, lull=plan.lull))
        verdict = Verdict(scribe.events, raging.struck, raging.outages)
        verdict.accusations += forgetting.early
        verdict.told_to_forget = forgetting.moved
        verdict.said = [
            *forgetting.said,
            f"written: {dict(sorted(known.made.items()))}",
            f"lives: { {p.label: p.lives for p in fleet.programs} }",
        ]
        judge(scene, verdict, directory)
    return verdict


def start(fleet: Fleet, clock: Clock, environment: Mapping[str, str] | None) -> None:
    fleet.coordinator(environment)
    for _ in range(2):
        fleet.worker(environment)
    fleet.worker({**clock.environment, **(environment or {})})
    fleet.supervise()


def wait_for_calm(fleet: Fleet) -> None:
    """Until the stream goes on as if nothing had been."""
    before = len(fleet.advances(fleet.stream))
    fleet.wait_for(
        "the stream to go on",
        lambda: len(fleet.advances(fleet.stream)) >= before + 3,
        limit=AT_MOST * PATIENCE,
    )


def judge(scene: Scene, verdict: Verdict, directory: Path) -> None:
    """Adds to the verdict what speaks against the fleet."""
    fleet = scene.fleet
    try:
        catch_up(scene)
    except AssertionError as late:
        verdict.accusations.append(f"a destination that does not catch up: {late}")
    verdict.accusations += fleet.faults()  # first, for they say why sides differ
    verdict.accusations += fleet.differences(scene.tables)
    source = scene.rows()
    there = known_load.rows_of_destination(fleet.warehouse, scene.key)
    seen = evidence.gather(fleet.warehouse, source, there, span=scene.span, key=scene.key)
    verdict.seen = seen
    verdict.said.append(f"batches of the stream: {len(fleet.advances(fleet.stream))}")
    verdict.said.append(
        f"judged: {len(verdict.history)} events, {len(seen.applied)} rows written or deleted in "
        f"{len(seen.advances)} transactions, {len(seen.aside)} set aside, {len(source)} rows left"
    )
    accusations: list[Accusation] = accuse(verdict.history, seen, rereads=scene.rereads)
    verdict.accusations += map(str, accusations)
    try:
        fleet.wait_for(
            "children of killed leaders to have ended by themselves",
            lambda: not any(program.orphans() for program in fleet.programs),
        )
    except AssertionError as left:
        verdict.accusations.append(f"a process left behind: {left}")
    if verdict.accusations:
        evidence.save(seen, directory / "evidence.jsonl")
        for program in fleet.programs:
            (directory / f"{program.label}.log").write_text(program.log())


def catch_up(scene: Scene) -> None:
    """Until all that was written before has arrived, or nothing moves any more."""
    fleet = scene.fleet
    tables = [*scene.tables, *known_load.TABLES]
    written = -1
    for tries in range(AT_MOST, 0, -1):
        try:
            # The known tables have no last row of their own: their log is the others'.
            fleet.catch_up(scene.tables)
            fleet.wait_for("every table to be settled", lambda: fleet.settled(*tables))
        except AssertionError as late:
            [(now,)] = fleet.ask("select count(*) from {audit}.rows") or [(0,)]
            if now == written:
                raise
            if tries == 1:
                given = AT_MOST * PATIENCE / 60
                raise AssertionError(
                    f"after {given:.0f} minutes, though it moves: {late}"
                ) from late
            written = now
        else:
            return


def told(verdict: Verdict, most: int = 20) -> str:
    """For people: the accusations, the first of them in full."""
    found: list[Any] = verdict.accusations[:most]
    if len(verdict.accusations) > most:
        found.append(f"… and {len(verdict.accusations) - most} more")
    return "\n".join(map(str, found))
