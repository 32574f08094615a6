"""Run every contender in every scenario in turns, and keep what was found.

    python -m benchmarks side_by_side [--save]     all, peers too: about two hours on two cores
    python -m benchmarks side_by_side --quick      ours and the floor on little data, in minutes
    python -m benchmarks side_by_side --only snapshot:mongodb --contenders floor,cartridge-warp

Exit code 1 if a run of ours failed or was not equal to the source.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.report import RESULTS, conditions
from benchmarks.side_by_side.contender import Contender
from benchmarks.side_by_side.figures import SHAPES, Run, Scenario, Shape
from benchmarks.side_by_side.floors import Floor
from benchmarks.side_by_side.measure import Bench
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, Origin, PostgresOrigin
from benchmarks.side_by_side.ours import Ours, Recipe
from benchmarks.side_by_side.page import OURS, Page
from benchmarks.side_by_side.peers import PEERS
from benchmarks.side_by_side.peers.peer import Peer
from warp.testing.servers import MariaDb, Mongod, Postgres, RedisServer

SOURCES: Final = ("MongoDB", "MariaDB", "PostgreSQL")
SCENARIOS: Final = tuple(Scenario(shape, source) for shape in SHAPES for source in SOURCES)
FULL: Final[Mapping[Shape, int]] = {"snapshot": 500_000, "batches": 140_000, "singles": 42_000}
QUICK: Final[Mapping[Shape, int]] = {"snapshot": 20_000, "batches": 14_000, "singles": 3_500}

DEFAULTS: Final[Mapping[str, Recipe]] = {shape: Recipe("defaults") for shape in SHAPES}
LARGE: Final = {"stream_batch_size": 5_000, "write_batch_size": 5_000}
BEST: Final[Mapping[str, Recipe]] = {
    "snapshot": Recipe("best", {"full_load_batch_size": 20_000}, processes=2),
    "batches": Recipe("best", LARGE),
    "singles": Recipe("best", LARGE),
}


@contextlib.contextmanager
def bench() -> Iterator[tuple[Bench, RedisServer]]:
    """A source of each kind, and a destination that writes through to its disk."""
    mongod = Mongod(cache_gigabytes=1.0, oplog_megabytes=4_096)
    # A contender that sleeps must not be cut off for it.
    mariadb = MariaDb(
        settings={
            "innodb_buffer_pool_size": "512M",
            "innodb_log_file_size": "512M",
            "net_write_timeout": 3_600,
            "net_read_timeout": 3_600,
            "max_binlog_size": "1G",
        }
    )
    large: dict[str, str | int] = {"shared_buffers": "512MB", "max_wal_size": "8GB"}
    source = Postgres(settings={**large, "wal_sender_timeout": 0})
    durable = {"fsync": "on", "full_page_writes": "on", "checkpoint_timeout": "30min"}
    destination = Postgres(settings={**large, **durable})
    redis = RedisServer()
    servers = (mongod, mariadb, source, destination, redis)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(lambda server: server.start(), servers))
        origins: tuple[Origin, ...] = (
            MongoOrigin(mongod),
            MariaDbOrigin(mariadb),
            PostgresOrigin(source),
        )
        made = Bench({origin.name: origin for origin in origins}, destination)
        made.prepare()
        yield made, redis


def installed(names: Sequence[str] | None) -> tuple[list[Peer], dict[str, str]]:
    """Peers that can take part, and why the others cannot."""
    present: list[Peer] = []
    absent: dict[str, str] = {}
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        if reason := peer.environment.install():
            absent[peer.name] = f"could not be installed: {reason}"
        else:
            present.append(peer())
    return present, absent


def main() -> int:
    given = arguments()
    # Before any server runs, so that installing disturbs nothing.
    peers, absent = ([], {}) if given.quick else installed(given.contenders)
    runs: list[Run] = []
    left_out: dict[Scenario, dict[str, str]] = {}
    begun = time.monotonic()
    with bench() as (ready, redis):
        ours = [Ours(DEFAULTS, OURS, redis.url)]
        if not given.quick:
            ours.append(Ours(BEST, f"{OURS}, best", redis.url))
        everyone: list[Contender] = [Floor(), *ours, *peers]
        wanted = [c for c in everyone if not given.contenders or c.name in given.contenders]
        sources = ", ".join(origin.version for origin in ready.origins.values())
        servers = f"{sources}; destination {ready.destination.version}, fsync on"
        if given.quick:
            servers += ". Little data: what a run costs once weighs heavily in every figure"

        def page() -> Page:
            return Page(given.name, f"{conditions()} {servers}.", runs, left_out, ready.profiles)

        for scenario in SCENARIOS:
            if given.only and scenario.id not in given.only:
                continue
            reasons = {c.name: c.left_out(scenario) for c in wanted}
            left_out[scenario] = {**absent, **{name: r for name, r in reasons.items() if r}}
            taking_part = [c for c in wanted if not reasons[c.name]]
            amount = given.amounts[scenario.shape]
            for round in range(given.rounds):
                for contender in list(taking_part):
                    run = ready.run(contender, scenario, amount)
                    runs.append(run)
                    tell(run, round, time.monotonic() - begun)
                    if not run.counts:  # it has no figure any more, whatever comes
                        taking_part.remove(contender)
            looked_at = [contender for contender in ours if contender in taking_part][-1:]
            for contender in looked_at if given.profile else ():
                ready.run(contender, scenario, amount, profile=True)
            ready.forget(scenario)
            if given.save:  # after each, so that what was found survives what comes
                page().save(given.folder)
        print(f"\n{page().text()}")
    if given.save:
        print(f"saved {given.folder / given.name}.md")
    wrong = [run for run in runs if run.contender.startswith(OURS) and not run.counts]
    for run in wrong:
        print(f"FAILED: {run.scenario.title}, {run.contender}: {run.failed or run.verdict}")
    return 1 if wrong else 0


def tell(run: Run, round: int, seconds: float) -> None:
    figures = run.failed or str(run.verdict)
    if run.counts and run.measured:
        rate = run.amount / run.measured.wall
        cost = run.measured.cpu * 1e6 / run.amount
        figures = f"{rate:,.0f} {run.scenario.unit}/s, {cost:.2f} CPU s/M, {run.verdict}"
    print(
        f"[{seconds:5.0f} s] {run.scenario.id} round {round + 1} {run.contender}: {figures}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--save", action="store_true", help="keep it in benchmarks/results/")
    made.add_argument("--quick", action="store_true", help="ours and the floor, little data, once")
    made.add_argument("--rounds", type=int, help="runs of each (3; 1 with --quick)")
    made.add_argument("--scale", type=float, default=1.0, help="part of the rows and changes")
    made.add_argument("--profile", action="store_true", help="py-spy on a run of ours of each kind")
    made.add_argument("--only", nargs="+", choices=[s.id for s in SCENARIOS], metavar="SCENARIO")
    made.add_argument("--contenders", nargs="+", metavar="NAME", help="such as floor ingestr")
    made.add_argument("--folder", type=Path, default=RESULTS)
    made.add_argument("--name", help="of the page in it, where a part is kept by itself")
    given = made.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.name = given.name or ("side_by_side_quick" if given.quick else "side_by_side")
    amounts = QUICK if given.quick else FULL
    given.amounts = {s: max(100, int(n * given.scale)) for s, n in amounts.items()}
    return given


if __name__ == "__main__":
    sys.exit(main())
