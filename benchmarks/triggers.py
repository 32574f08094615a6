"""What `strategy: trigger` costs the application: its inserts with triggers beside those without.

CPU seconds of the database server alone, so the numbers hold on a busy machine; of PostgreSQL the
backend that inserts, of MariaDB the whole server.  Rounds with and without take turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg

from benchmarks.report import Report, median, parser, spread
from warp.model import Capture, TableId, TableSettings
from warp.sources.mysql import MysqlOptions, MysqlSource
from warp.sources.postgresql import PostgresSource, PostgresSourceOptions
from warp.testing.servers import MariaDb, Postgres

COLUMNS = (
    "id bigint primary key, customer bigint, status varchar(20), note varchar(200),"
    " total double precision"
)
Run = Callable[[str], None]
Cpu = Callable[[], float]


def insert(run: Run, first: int, rows: int, at_once: int) -> None:
    for start in range(first, first + rows, at_once):
        values = ", ".join(
            f"({n}, {n % 1000}, 'paid', 'order number {n} of a customer', {n / 7})"
            for n in range(start, min(start + at_once, first + rows))
        )
        run(f"insert into orders values {values}")


def seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def postgresql() -> Iterator[tuple[Run, Cpu, Any]]:
    with Postgres() as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"create table orders ({COLUMNS})")
        table = TableId("public", "orders")
        settings = TableSettings(table, table, "shop", capture=Capture.TRIGGER)
        options = PostgresSourceOptions.model_validate({"connection_string": server.url})
        with contextlib.closing(PostgresSource(options, lambda _: settings)) as source:
            backend = psutil.Process(connection.info.backend_pid)
            yield lambda s: void(connection.execute(s)), lambda: seconds(backend), (source, table)


@contextlib.contextmanager
def mariadb() -> Iterator[tuple[Run, Cpu, Any]]:
    with MariaDb() as server, contextlib.closing(server.client()) as connection:
        cursor = connection.cursor()
        cursor.execute("create database shop")
        cursor.execute("use shop")
        cursor.execute(f"create table orders ({COLUMNS})")
        table = TableId("shop", "orders")
        settings = TableSettings(table, table, "shop", capture=Capture.TRIGGER)
        options = MysqlOptions.model_validate({"connection_string": server.url})
        with contextlib.closing(MysqlSource(options, lambda _: settings)) as source:
            process = psutil.Process(server.pid)
            yield lambda s: void(cursor.execute(s)), lambda: seconds(process), (source, table)


def void(result: object) -> None:
    """A statement's result is nobody's concern."""


def main() -> None:
    arguments = parser(__doc__, rows=100_000, singles=5_000, runs=3).parse_args()
    report = Report(
        "triggers",
        "Inserts into a table of five columns, by one connection; median and range of "
        f"{arguments.runs} rounds.",
        ("", "CPU s without", "CPU s with triggers", "times"),
    )
    for name, server in (("PostgreSQL", postgresql), ("MariaDB", mariadb)):
        with server() as (run, cpu, (source, table)):
            for what, rows, at_once in (
                ("1,000 rows a statement", arguments.rows, 1_000),
                ("one row a statement", arguments.singles, 1),
            ):
                bare: list[float] = []
                kept: list[float] = []
                for _ in range(arguments.runs):
                    for spent, install in ((bare, False), (kept, True)):
                        run("truncate table orders")
                        if install:
                            source.poll_start(table, fire_time=0.0)
                        before = cpu()
                        insert(run, 0, rows, at_once)
                        spent.append(cpu() - before)
                        source.polled.remove(table)
                ratio = median(kept) / median(bare)
                report.add(
                    f"{name}, {what}", spread(bare, ".2f"), spread(kept, ".2f"), f"{ratio:.2f}"
                )
    report.note("the time to read and remove the queue is not in it; each is one statement a page")
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
