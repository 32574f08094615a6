"""CPU per event from a PostgreSQL log to columns, and per row of a snapshot, beside raw reads.

    python -m benchmarks postgresql_decode [--events 200000] [--runs 3] [--save]

The same log is read from the same place again and again: as bytes that nobody looks into (the floor
for any client in Python), by `pg_recvlogical` where there is one, and by the connector.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import psycopg

from benchmarks.report import Report
from warp.model import Position, TableId, TableSettings
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


def fill(url: str, events: int) -> None:
    """Nine tenths in transactions of 5,000 inserts, one tenth updates of one row each."""
    with psycopg.connect(url, autocommit=True) as connection:
        inserts = events * 9 // 10
        for first in range(1, inserts + 1, 5_000):
            last = min(first + 4_999, inserts)
            connection.execute(FILL.format(first=first, last=last).encode())
        with connection.pipeline():
            for id in range(1, events - inserts + 1):
                connection.execute(
                    "update public.orders set total = total + 1 where id = %s", (id,)
                )


def measured(task: Callable[[], int]) -> tuple[float, float]:
    """(events per wall second, events per CPU second)."""
    wall, cpu = time.monotonic(), time.process_time()
    events = task()
    return events / (time.monotonic() - wall), events / (time.process_time() - cpu)


def raw(server: Server, start: Position, events: int) -> int:
    """The messages, unread."""
    replication = Replication(server)
    options = {"proto_version": "2", "publication_names": '"cartridge_warp"', "streaming": "on"}
    replication.start(SLOT, Place.parse(start.token).lsn, options)
    seen = 0
    with contextlib.closing(replication):
        while seen < events:
            seen += sum(1 for frame in replication.read(1.0) if frame[25:26] in (b"I", b"U"))
    return seen


def followed(source: PostgresSource, start: Position, events: int) -> int:
    seen = 0
    for batch in source.get_changes(start, selection=select, idle=1.0):
        seen += len(batch)
        if seen >= events:
            return seen
    raise AssertionError("the stream ended")


def snapshot(source: PostgresSource) -> int:
    return sum(
        len(batch)
        for chunk in source.chunks(TABLE, 10_000_000)
        for batch in source.get_full_snapshot(chunk)
    )


def received(url: str, end: str, events: int) -> tuple[float, float] | None:
    """By PostgreSQL's own client in C."""
    program = next((found for name in RECEIVERS if (found := shutil.which(name))), None)
    if program is None:
        return None
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [program, "--start", "--no-loop", "--file=/dev/null", f"--dbname={url}"]
    command += [f"--slot={SLOT}", f"--endpos={end}", "--option=proto_version=1"]
    subprocess.run([*command, "--option=publication_names=cartridge_warp"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return events / (time.monotonic() - wall), events / cpu


@contextlib.contextmanager
def prepared(events: int) -> Iterator[tuple[str, PostgresSource, Position]]:
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
            connection.execute("vacuum analyze public.orders")
            yield server.url, source, start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    events: int = arguments.events
    report = Report(
        "postgresql_decode",
        f"{events:,} events of 6 columns, 90 % in transactions of 5,000; "
        f"median of {arguments.runs} runs.",
        ("reader", "per wall second", "per CPU second"),
    )
    with prepared(events) as (url, source, start):

        def add(name: str, task: Callable[[], tuple[float, float]]) -> None:
            runs = [task() for _ in range(arguments.runs)]
            wall, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
            report.add(name, f"{wall:,.0f}", f"{cpu:,.0f}")

        add("messages, unread", lambda: measured(lambda: raw(source.server, start, events)))
        add("log to columns", lambda: measured(lambda: followed(source, start, events)))
        add("snapshot to columns", lambda: measured(lambda: snapshot(source)))
        # The last one, for it tells the server what may be forgotten.
        end = source.position().token.partition("@")[0]
        c_client = received(url, end, events)
        if c_client is not None:
            report.add("pg_recvlogical", *(f"{rate:,.0f}" for rate in c_client))
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
