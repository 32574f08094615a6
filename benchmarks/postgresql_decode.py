"""CPU per event of a PostgreSQL log, and per row of a snapshot: to columns, to another server.

    python -m benchmarks postgresql_decode [--events 200000] [--runs 3] [--save]

The same log is read from the same place again and again: as bytes that nobody looks into (the floor
for any client), by `pg_recvlogical` where there is one, and by the connector, by its compiled half
and by the one in Python.  Then the pipeline writes it to a second server.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.report import Report
from warp import native, pipeline
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.model import Lease, Phase, Position, TableId, TableSettings, WorkUnit
from warp.pipeline import NoMeter
from warp.sources.postgresql import PostgresSource, PostgresSourceOptions
from warp.sources.postgresql.position import Place
from warp.sources.postgresql.replication import Replication
from warp.sources.postgresql.session import Server
from warp.testing.servers import Postgres

TABLE = TableId("public", "orders")
SLOT = "cartridge_bench"
RECEIVERS = ("pg_recvlogical", "/usr/lib/postgresql/15/bin/pg_recvlogical")

FILL = """
insert into public.orders
select n, n % 1000000, (array['new', 'paid', 'shipped', 'done'])[1 + n % 4], n * 1.01,
       timestamptz '2024-01-01' + n * interval '1.5 seconds', n % 2 = 0
from generate_series({first}, {last}) n
"""


def select(table: TableId) -> TableSettings | None:
    if table != TABLE:
        return None
    return TableSettings(table, table, "public", write_batch_size=5_000)


@dataclass
class Log:
    """A part of the log, and how many events it holds."""

    start: Position
    end: Position
    events: int


@dataclass
class Ready:
    server: Postgres
    source: PostgresSource
    batches: Log  # transactions of 5,000 inserts
    singles: Log  # transactions of one update


def fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(1, rows + 1, 5_000):
            last = min(first + 4_999, rows)
            connection.execute(FILL.format(first=first, last=last).encode())


def update(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection, connection.pipeline():
        connection.execute("set synchronous_commit = off")
        for id in range(1, rows + 1):
            connection.execute("update public.orders set total = total + 1 where id = %s", (id,))


def measured(task: Callable[[], int]) -> tuple[float, float]:
    """(events per wall second, events per CPU second)."""
    wall, cpu = time.monotonic(), time.process_time()
    events = task()
    return events / (time.monotonic() - wall), events / (time.process_time() - cpu)


def raw(server: Server, log: Log) -> int:
    """The messages, unread."""
    replication = Replication(server)
    options = {"proto_version": "2", "publication_names": '"cartridge_warp"', "streaming": "on"}
    replication.start(SLOT, Place.parse(log.start.token).lsn, options)
    seen = 0
    with contextlib.closing(replication):
        while seen < log.events:
            seen += sum(1 for frame in replication.read(1.0) if frame[25:26] in (b"I", b"U"))
    return seen


def followed(source: PostgresSource, log: Log) -> int:
    seen = 0
    for batch in source.get_changes(log.start, selection=select, idle=1.0):
        seen += len(batch)
        if seen >= log.events:
            return seen
    raise AssertionError("the stream ended")


def snapshot(source: PostgresSource) -> int:
    return sum(
        len(batch)
        for chunk in source.chunks(TABLE, 10_000_000)
        for batch in source.get_full_snapshot(chunk)
    )


# -- to another server


class Hand:
    """A lease for the length of one measurement."""

    def __init__(self, lease: Lease, over: Callable[[], bool] = lambda: False) -> None:
        self.lease = lease
        self.stopping = over

    def check(self) -> None: ...

    def wait(self, seconds: float) -> None: ...


class Counting(NoMeter):
    rows = 0

    def committed(self, batch: object, written: object) -> None:
        self.rows += len(batch)  # type: ignore[arg-type]


class Elsewhere:
    """A second server, and the markers of units that were never owned before."""

    numbers = itertools.count(1)

    def __init__(self, url: str, source: PostgresSource) -> None:
        self.url, self.source = url, source
        self.destination = self._connected()

    def _connected(self) -> PostgresDestination:
        options = PostgresOptions.model_validate({"connection_string": self.url})
        destination = PostgresDestination(options, select)
        destination.metadata().prepare()
        return destination

    def close(self) -> None:
        self.destination.close()

    def empty(self) -> None:
        self.close()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("drop table if exists public.orders")
            connection.execute("drop schema if exists cartridge_warp_metadata cascade")
        self.destination = self._connected()

    def snapshot(self) -> int:
        [chunk] = self.source.chunks(TABLE, 10_000_000)
        counting = Counting()
        metadata = self.destination.metadata()
        metadata.plan_snapshot("public", TABLE, [chunk], version=self.source.version())
        unit = WorkUnit.of_chunk("public", chunk, metadata.markers()[0].epoch)
        lease = Lease(unit, "benchmark", next(self.numbers))
        marker = self.destination.open(lease)
        pipeline.snapshot(
            self.source,
            self.destination,
            marker,
            Hand(lease),
            selection=select,
            meter=counting,
        )
        return counting.rows

    def stream(self, log: Log) -> int:
        unit = WorkUnit.stream("public")
        metadata = self.destination.metadata()
        metadata.plan_snapshot("public", TABLE, [], version=0)
        metadata.settle("public", TABLE)
        metadata.register(unit, position=log.start, phase=Phase.STREAMING)
        counting = Counting()
        lease = Lease(unit, "benchmark", next(self.numbers))
        marker = self.destination.open(lease)
        # Acknowledged, the log could not be read once more.
        source: Any = Unacknowledged(self.source)
        pipeline.stream(
            source,
            self.destination,
            marker,
            Hand(lease, lambda: counting.rows >= log.events),
            selection=select,
            meter=counting,
        )
        return counting.rows


class Unacknowledged:
    def __init__(self, source: PostgresSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self._source, name)

    def acknowledge(self, position: Position) -> None: ...


def received(url: str, log: Log) -> tuple[float, float] | None:
    """By PostgreSQL's own client in C; it tells the server what may be forgotten."""
    program = next((found for name in RECEIVERS if (found := shutil.which(name))), None)
    if program is None:
        return None
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    end = log.end.token.partition("@")[0]
    command = [program, "--start", "--no-loop", "--file=/dev/null", f"--dbname={url}"]
    command += [f"--slot={SLOT}", f"--endpos={end}", "--option=proto_version=1"]
    subprocess.run([*command, "--option=publication_names=cartridge_warp"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return log.events / (time.monotonic() - wall), log.events / cpu


@contextlib.contextmanager
def prepared(events: int) -> Iterator[Ready]:
    with Postgres() as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            "create table public.orders (id bigint primary key, customer int, status text, "
            "total numeric(12, 2), created timestamptz, paid boolean)"
        )
        given = {"connection_string": server.url, "slot": SLOT}
        source = PostgresSource(PostgresSourceOptions.model_validate(given), select)
        with contextlib.closing(source):
            start = source.position()
            fill(server.url, events)
            between = source.position()
            update(server.url, events // 4)
            end = source.position()
            connection.execute("vacuum analyze public.orders")
            yield Ready(server, source, Log(start, between, events), Log(between, end, events // 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    events: int = arguments.events
    report = Report(
        "postgresql_decode",
        f"{events:,} inserts of 6 columns in transactions of 5,000, {events // 4:,} updates in "
        f"transactions of one; median of {arguments.runs} runs, for the compiled half and for the "
        "one in Python.",
        ("reader", "per wall second", "per CPU second", "in Python, per CPU second"),
    )
    with prepared(events) as ready, Postgres() as other:
        source, server = ready.source, ready.source.server

        def add(
            name: str, task: Callable[[], int], before: Callable[[], None] | None = None
        ) -> None:
            rates: dict[bool, list[tuple[float, float]]] = {}
            for on in (True, False):
                for _ in range(arguments.runs if on else 1):
                    if before is not None:
                        before()
                    with native.switched(on):
                        rates.setdefault(on and native.active(), []).append(measured(task))
            best = rates.get(True, rates[False])
            wall, cpu = (statistics.median(run[i] for run in best) for i in (0, 1))
            pure = statistics.median(run[1] for run in rates[False])
            report.add(name, f"{wall:,.0f}", f"{cpu:,.0f}", f"{pure:,.0f}")

        for name, log in ("batches", ready.batches), ("single rows", ready.singles):
            add(f"{name}: messages, unread", lambda log=log: raw(server, log))  # type: ignore[misc]
            add(f"{name}: to columns", lambda log=log: followed(source, log))  # type: ignore[misc]
        add("snapshot: to columns", lambda: snapshot(source))
        elsewhere = Elsewhere(other.url, source)
        with contextlib.closing(elsewhere):
            add("snapshot: to PostgreSQL", elsewhere.snapshot, elsewhere.empty)
            add("batches: to PostgreSQL", lambda: elsewhere.stream(ready.batches), elsewhere.empty)
            add(
                "single rows: to PostgreSQL",
                lambda: elsewhere.stream(ready.singles),
                elsewhere.empty,
            )
        # The last one, for it tells the server what may be forgotten.
        for name, log in ("batches", ready.batches), ("single rows", ready.singles):
            c_client = received(ready.server.url, log)
            if c_client is not None:
                rates = (f"{rate:,.0f}" for rate in c_client)
                report.add(f"{name}: pg_recvlogical", *rates, "")
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
