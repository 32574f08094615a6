"""`cartridge-warp demo`: real databases from Python packages, one worker killed, nothing lost.

Starts MongoDB, PostgreSQL and Redis, loads every flight that left New York in 2013, and keeps the
warehouse equal while flights change, kills a worker with -9 on the way, starts another in its
place, and then compares both sides row by row.  Everything is stopped and removed at the end,
however it ends.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import click
import psycopg
import pymongo
import yaml
from psycopg import sql
from pymongo.database import Database
from rich.console import Console

from commands.demo_compare import Comparison, compare, same
from commands.demo_data import DATABASE, ROWS, LiveChanges, load
from commands.demo_screen import Lines, LiveScreen, Screen, report
from commands.demo_watch import Look, Takeovers, Watcher
from warp.config.layers import PREFIX
from warp.errors import StartFailed, WarpError
from warp.leases.embedded import embedded_redis
from warp.leases.redis import RedisLeaseStore
from warp.own_process import OwnProcess

WAREHOUSE: Final = "warehouse"
NAMESPACE: Final = "demo"
LEASE_TTL: Final = 3  # seconds until a killed worker's units are free
PATIENCE: Final = 300.0  # seconds without the next milestone until the demo gives up
LOOK_EVERY: Final = 0.2
FOLLOW: Final = 5.0  # seconds of live changes after snapshot and takeover
KILL_AT: Final = 0.3  # of all rows: the snapshot is under way, and so is the stream
FAILED, DIFFERENT, INTERRUPTED = 1, 3, 130


class Member(OwnProcess):
    """A coordinator or a worker, started as an operator would start it."""

    module: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, label: str, configuration: Path) -> None:
        super().__init__()
        self.label = label
        self._configuration = configuration
        self._fallen = False

    def _command(self) -> Sequence[str]:
        return [
            *(sys.executable, "-m", self.module),
            *("--config", str(self._configuration)),
            *self.arguments,
        ]

    def _popen_options(self) -> Mapping[str, Any]:
        # The environment outranks the file: a CARTRIDGE_WARP_DESTINATION set for a real warehouse
        # would send the demo's rows there.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return {"env": kept}

    def is_owner(self, owner: str) -> bool:
        """A worker's id is host:pid:random; the pid is that of this process or of a child."""
        pid = owner.rpartition(":")[0].rpartition(":")[2]
        return self.running and pid in {str(process.pid) for process in self._family()}

    def fall(self) -> None:
        """Killed on purpose, by -9, with all its children."""
        self._fallen = True
        self.kill9()

    def check(self) -> None:
        if not self.running and not self._fallen:
            raise StartFailed(self._complaint("ended by itself"))


class CoordinatorProcess(Member):
    name: ClassVar[str] = "coordinator"
    module: ClassVar[str] = "coordinator.cli"


class WorkerProcess(Member):
    name: ClassVar[str] = "worker"
    module: ClassVar[str] = "workers.cli"
    arguments: ClassVar[tuple[str, ...]] = ("--processes", "1", "--slots", "4")


@dataclass(frozen=True, slots=True)
class Options:
    rows: int | None
    keep: bool
    per_second: float
    as_json: bool


class Demo:
    """The acts of the play, in order; `run` is the whole story."""

    def __init__(self, options: Options, screen: Screen, stack: ExitStack) -> None:
        """Whatever is started is ended when `stack` closes."""
        self._options = options
        self._screen = screen
        self._stack = stack
        self._begun = time.monotonic()
        self._takeovers: Takeovers | None = None
        self._members: list[Member] = []
        self._replacement = ""

    def run(self) -> int:
        source, warehouse, configuration = self._start_servers()
        self._load(source)
        changes = self._start_changes(source)
        workers = [WorkerProcess(f"worker-{n}", configuration) for n in (1, 2)]
        self._start_members([CoordinatorProcess("coordinator", configuration), *workers])
        self._watcher = Watcher(source, warehouse, workers, changes)

        self._until("the snapshot to be under way", self._under_way)
        self._kill_one(workers)
        self._until("the other worker to take the stream over", self._stream_taken_over)
        self._replace_fallen(workers, configuration)
        self._until("every table to be loaded", lambda look: look.settled)
        self._screen.say("every table is loaded; changes keep arriving")
        enough = time.monotonic() + FOLLOW
        self._until("changes to arrive", lambda look: time.monotonic() > enough)

        last = changes.stop()
        self._screen.say(f"{changes.made.total:,} changes made; waiting for the last to arrive")
        self._until("the last change to arrive", lambda look: self._watcher.arrived(last))
        comparisons = self._compare(source, warehouse)
        self._report(comparisons, changes)
        if self._options.keep:
            self._keep(source)
        return 0 if same(comparisons) else DIFFERENT

    # The acts

    def _start_servers(self) -> tuple[Database[Any], psycopg.Connection[Any], Path]:
        # Not at the top of the module: without the extra packages only this command fails.
        from warp.testing.servers import Mongod, Postgres

        self._screen.say("starting MongoDB, PostgreSQL and Redis from Python packages")
        mongod = Mongod(auth=True, cache_gigabytes=0.5, oplog_megabytes=1024)
        postgres = Postgres(
            password=secrets.token_hex(12), settings={"track_commit_timestamp": "on"}
        )
        redis = embedded_redis()
        servers = (mongod, postgres, redis)
        for server in servers:
            self._stack.callback(server.close)
        with ThreadPoolExecutor(len(servers)) as pool:
            versions = list(pool.map(lambda server: server.start().version, servers))
        self._screen.say(" · ".join(versions))
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(WAREHOUSE)))
        warehouse_url = postgres.database_url(WAREHOUSE)
        self._addresses = {"MongoDB": mongod.url, "PostgreSQL": warehouse_url}
        file = mongod.directory / "cartridge-warp.yaml"
        file.touch(mode=0o600)  # it holds passwords
        file.write_text(configuration(mongod.url, warehouse_url, redis.url))
        self._ledger = RedisLeaseStore(redis.url, NAMESPACE)
        self._stack.callback(self._ledger.close)
        client = self._stack.enter_context(
            pymongo.MongoClient[dict[str, Any]](mongod.url, tz_aware=True)
        )
        warehouse = psycopg.connect(warehouse_url, autocommit=True, options="-c timezone=UTC")
        # Not `with`: that commits, which fails where Ctrl-C came in the middle of a query.
        self._stack.callback(warehouse.close)
        return client[DATABASE], warehouse, file

    def _load(self, source: Database[Any]) -> None:
        rows = self._options.rows
        total = sum(min(there, rows or there) for there in ROWS.values())
        with self._screen.progress("loading documents into MongoDB", total) as advance:
            loaded = load(source, rows=rows, loaded=lambda table, rows: advance(rows))
        self._screen.say(f"{sum(loaded.values()):,} documents in {len(loaded)} collections")

    def _start_changes(self, source: Database[Any]) -> LiveChanges:
        changes = LiveChanges(source, per_second=self._options.per_second)
        self._stack.callback(changes.end)
        changes.start()
        return changes

    def _start_members(self, members: Sequence[Member]) -> None:
        for member in members:
            self._stack.callback(member.close)
            member.start()
            self._members.append(member)
        self._screen.say("one coordinator and two workers started, while flights keep changing")

    def _under_way(self, look: Look) -> bool:
        there = sum(table.destination_rows for table in look.tables)
        wanted = sum(table.source_rows for table in look.tables) * KILL_AT
        return bool(look.stream_owner) and (there >= wanted or look.settled)

    def _kill_one(self, workers: Sequence[WorkerProcess]) -> None:
        look = self._watcher.look()
        victim = next(w for w in workers if w.label == self._watcher.label(look.stream_owner))
        held = {unit.id: unit for unit in look.units if self._watcher.holds(victim.label, unit)}
        pid = victim.pid
        victim.fall()
        self._takeovers = Takeovers(time.monotonic(), held)
        self._screen.say(f"kill -9 {victim.label} (pid {pid}), which held {_few(held)}", loud=True)

    def _replace_fallen(self, workers: list[WorkerProcess], configuration: Path) -> None:
        """What a supervisor does: a new worker in the place of the dead one."""
        fallen = next(worker.label for worker in workers if not worker.running)
        new = WorkerProcess(f"worker-{len(workers) + 1}", configuration)
        self._stack.callback(new.close)
        new.start()
        self._members.append(new)
        workers.append(new)  # the watcher looks at this very list
        self._screen.say(f"{new.label} (pid {new.pid}) started in place of {fallen}", loud=True)
        self._until(f"{new.label} to join the fleet", lambda look: self._has_joined(new))
        self._screen.say(f"{new.label} has joined the fleet and shares its work")
        self._replacement = new.label

    def _has_joined(self, worker: WorkerProcess) -> bool:
        return any(worker.is_owner(state.id) for state in self._ledger.workers())

    def _stream_taken_over(self, look: Look) -> bool:
        return self._takeovers is not None and not any(
            unit.kind == "stream" for unit in self._takeovers.held.values()
        )

    def _until(self, what: str, condition: Callable[[Look], bool]) -> None:
        """Look, show and tell until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self._look()):
            if time.monotonic() > deadline:
                said = "\n".join(f"{m.label}: {m.log_tail(5)}" for m in self._members)
                raise StartFailed(f"expected {what} within {PATIENCE:.0f} s, found:\n{said}")
            time.sleep(LOOK_EVERY)

    def _look(self) -> Look:
        look = self._watcher.look()
        new = self._takeovers.look(look.units, time.monotonic()) if self._takeovers else []
        for taken in new:
            owners = [self._watcher.label(o) for o in (taken.from_owner, taken.to_owner)]
            self._screen.say(
                f"{taken.unit}: {' → '.join(owners)}, {taken.seconds:.1f} s after the kill, "
                f"fence {_last_digits(taken.from_fence)} → {_last_digits(taken.to_fence)}",
                loud=True,
            )
        self._screen.show(look)
        for member in self._members:
            member.check()
        failed = [unit.id for unit in look.units if unit.phase == "failed"]
        if failed:
            raise StartFailed(
                f"expected every unit to run, found {_few(failed)} stopped for good:\n"
                + "\n".join(self._watcher.errors())
            )
        return look

    def _compare(
        self, source: Database[Any], warehouse: psycopg.Connection[Any]
    ) -> list[Comparison]:
        total = sum(source[table].estimated_document_count() for table in ROWS)
        with self._screen.progress("comparing every row and field", total) as advance:
            return [compare(source, warehouse, DATABASE, table, advance) for table in ROWS]

    def _report(self, comparisons: Sequence[Comparison], changes: LiveChanges) -> None:
        self._screen.close()
        different = sum(found.different for found in comparisons)
        seconds = time.monotonic() - self._begun
        taken = self._takeovers.seen if self._takeovers else []
        if self._options.as_json:
            facts = {
                "differences": different,
                "tables": [asdict(found) for found in comparisons],
                "changes": changes.made.total,
                "takeovers": [asdict(takeover) for takeover in taken],
                "replacement": self._replacement,
                "seconds": round(seconds, 1),
            }
            click.echo(json.dumps(facts))
            return
        console = Console()
        console.print(report(comparisons))
        for found in comparisons:
            for example in found.examples:
                console.print(f"{found.table}  {example}", markup=False, soft_wrap=True)
        made = changes.made
        console.print(
            f"{made.inserts:,} inserts, {made.updates:,} updates and {made.deletes:,} deletes "
            f"while it ran; {different:,} differences; {seconds:.0f} s in all"
        )

    def _keep(self, source: Database[Any]) -> None:
        """Go on until Ctrl-C, for a person to look around."""
        for name, url in self._addresses.items():
            program = {"MongoDB": "mongosh", "PostgreSQL": "psql"}[name]
            click.echo(f'{name + ":":12} {program} "{url}"')
        click.echo("Flights keep changing. Ctrl-C ends the demo and removes everything.")
        self._screen.open()
        self._watcher.changes = self._start_changes(source)
        try:
            while True:
                self._look()
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            self._screen.close()


def configuration(mongodb: str, warehouse: str, redis: str) -> str:
    """What an operator would write."""
    return yaml.safe_dump(
        {
            "source": {"type": "mongodb", "connection_string": mongodb, "database": DATABASE},
            "destination": {"type": "postgresql", "connection_string": warehouse},
            "schemas": [
                {
                    "name": DATABASE,
                    "mode": "stream",
                    "chunk_rows": 30_000,
                    "promote_after": "2s",
                }
            ],
            "coordination": {
                "redis_url": redis,
                "namespace": NAMESPACE,
                "lease_ttl": f"{LEASE_TTL}s",
                "reconcile_every": "1s",
            },
        },
        sort_keys=False,
    )


def _last_digits(fence: int) -> str:
    """A fence is a count of microseconds: only its end tells two of them apart."""
    return f"…{fence % 10**9:09}" if fence >= 10**9 else str(fence)


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names, key=lambda name: not name.startswith("stream"))
    more = f" and {len(ordered) - 2} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[: 2 if more else 3]) + more


@click.command()
@click.option("--rows", type=click.IntRange(min=1), help="Load no more rows of each table.")
@click.option(
    "--keep/--no-keep",
    default=None,
    help="Go on after the comparison until Ctrl-C; the default on a terminal.",
)
@click.option(
    "--changes-per-second",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="Live changes to make while it runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(rows: int | None, keep: bool | None, changes_per_second: float, as_json: bool) -> None:
    """Real MongoDB to real PostgreSQL on this machine, with a worker killed on the way.

    Needs the extra packages: pip install 'cartridge-warp[demo]'.  Exit code 3 when the two sides
    differ in the end.
    """
    terminal = sys.stdout.isatty()
    options = Options(
        rows=rows,
        keep=terminal and not as_json if keep is None else keep,
        per_second=changes_per_second,
        as_json=as_json,
    )
    sys.exit(play(options, terminal=terminal and not as_json))


def play(options: Options, *, terminal: bool) -> int:
    """Run the demo and leave nothing behind; the exit code."""
    # What a service manager or a closed terminal sends must clean up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    screen: Screen = LiveScreen(Console()) if terminal else Lines(Console(stderr=True))
    with ExitStack() as stack:
        stack.callback(screen.close)
        try:
            return Demo(options, screen, stack).run()
        except KeyboardInterrupt:
            screen.say("interrupted; stopping everything")
            return INTERRUPTED
        except WarpError as error:
            screen.say(str(error), loud=True)
            return FAILED
        finally:
            # Once ending has begun, a second Ctrl-C must not leave half of it behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    demo()
