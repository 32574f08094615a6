"""One run of one contender in one scenario: a fresh destination, a measurement, a comparison."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import psutil
import psycopg
import pymysql
from psycopg import sql
from pymongo.errors import PyMongoError

from benchmarks.side_by_side import sameness
from benchmarks.side_by_side.contender import Contender, NoFigure, Task, until
from benchmarks.side_by_side.figures import Measured, Run, Scenario
from benchmarks.side_by_side.floors import Floor
from benchmarks.side_by_side.origins import Origin, PostgresOrigin
from benchmarks.side_by_side.profile import Profile, profiling
from benchmarks.side_by_side.sameness import Digest, Landing
from benchmarks.side_by_side.shop import LAST, changes
from warp.errors import WarpError
from warp.testing.servers import Postgres

SNAPSHOT: Final = "shop"  # the database that all snapshots read
# A server or a process that misbehaves costs one figure, not the whole bench.
FAILURES: Final = (
    *(WarpError, AssertionError, OSError),
    *(psycopg.Error, pymysql.MySQLError, PyMongoError, psutil.Error),
)
WANTED: Final = "wanted"  # at the destination: what is expected


@dataclass(slots=True)
class Bench:
    """Running servers, and what is kept between runs."""

    origins: Mapping[str, Origin]
    destination: Postgres
    profiles: list[Profile] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _snapshot_of: dict[str, Digest] = field(default_factory=dict)

    def run(
        self, contender: Contender, scenario: Scenario, amount: int, *, profile: bool = False
    ) -> Run:
        """Never raises for what a contender does."""
        run = Run(scenario, contender.name, contender.about(scenario), amount)
        one = self._snapshot if scenario.shape == "snapshot" else self._stream
        try:
            with self._empty_database() as url:
                return one(contender, run, url, profile)
        except NoFigure as error:
            return replace(run, failed=str(error))
        except FAILURES as error:
            return replace(run, failed=f"{type(error).__name__}: {error}")

    # -- the two kinds of runs

    def _snapshot(self, contender: Contender, run: Run, url: str, profile: bool) -> Run:
        origin = self.origins[run.scenario.source]
        expected = self._prepared(origin, run.amount)
        task = self._task(run, origin, SNAPSHOT, url, profile)
        try:
            measured = contender.snapshot(task)
        finally:
            if isinstance(origin, PostgresOrigin):
                origin.tidy(SNAPSHOT)
        return self._judged(contender, run, url, measured, expected)

    def _stream(self, contender: Contender, run: Run, url: str, profile: bool) -> Run:
        origin = self.origins[run.scenario.source]
        database = f"s{next(self._numbers)}"
        task = self._task(run, origin, database, url, profile)
        task = replace(task, changes=changes(run.amount))
        expected: list[Digest] = []

        def make_changes() -> None:
            origin.change(database, task.changes, run.scenario.shape)
            expected.append(sameness.keep_expected(task.expected, origin.orders(database)))
            self._settle()

        try:
            origin.create(database, task.rows)
            if isinstance(contender, Floor):
                measured = contender.stream(task, make_changes)
            else:
                measured = _followed(contender, task, make_changes)
            return self._judged(contender, run, url, measured, expected[0])
        finally:
            origin.drop(database)

    # -- before and after

    def _prepared(self, origin: Origin, rows: int) -> Digest:
        """The one database that all snapshots of an origin read, and what it holds."""
        if origin.name not in self._snapshot_of:
            origin.create(SNAPSHOT, rows)
            digest = sameness.keep_expected(self._wanted, origin.orders(SNAPSHOT))
            self._snapshot_of[origin.name] = digest
        return self._snapshot_of[origin.name]

    def forget(self, scenario: Scenario) -> None:
        """After all runs of a scenario."""
        if self._snapshot_of.pop(scenario.source, None):
            self.origins[scenario.source].drop(SNAPSHOT)

    def _task(self, run: Run, origin: Origin, database: str, url: str, profile: bool) -> Task:
        self._settle()
        servers = {"source": origin.server.pid, "destination": self.destination.pid}
        label = f"r{next(self._numbers)}"
        task = Task(run.scenario, origin, database, url, label, run.amount, servers, self._wanted)
        if not profile:
            return task
        title = f"{run.scenario.title}; {run.contender}"
        return replace(task, watching=lambda pid: profiling(pid, title, self.profiles))

    def _settle(self) -> None:
        """Let the destination write now what it would write in the midst of the run."""
        with psycopg.connect(self.destination.url, autocommit=True) as connection:
            connection.execute("checkpoint")

    def _judged(
        self, contender: Contender, run: Run, url: str, measured: Measured, expected: Digest
    ) -> Run:
        landing = contender.landing(run.scenario)
        verdict = sameness.compare(url, landing, expected, self._wanted)
        return replace(run, measured=measured, verdict=verdict)

    @property
    def _wanted(self) -> str:
        return self.destination.database_url(WANTED)

    def prepare(self) -> None:
        with psycopg.connect(self.destination.url, autocommit=True) as connection:
            connection.execute(f"create database {WANTED}".encode())

    @contextlib.contextmanager
    def _empty_database(self) -> Iterator[str]:
        name = f"d{next(self._numbers)}"
        with psycopg.connect(self.destination.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            try:
                yield self.destination.database_url(name)
            finally:
                connection.execute(
                    sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
                )


def _followed(contender: Contender, task: Task, make_changes: Callable[[], None]) -> Measured:
    """The follower sleeps while the changes are made, so that it has all of them to catch up."""
    landing = contender.landing(task.scenario)
    with contender.following(task) as follower:
        follower.pause()
        make_changes()
        follower.begin()
        follower.resume()
        with task.watching(follower.pid), _arrival(task.destination, landing) as arrived:
            until("the last change to arrive", arrived, follower.alive, task.limit)
            return follower.measured()


@contextlib.contextmanager
def _arrival(url: str, landing: Landing) -> Iterator[Callable[[], bool]]:
    query = sql.SQL("select true from {} where {} = %s").format(
        landing.relation(),
        sql.SQL(landing.column("id")),
    )
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda: connection.execute(query, (LAST,)).fetchone() is not None
