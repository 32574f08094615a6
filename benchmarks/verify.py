"""Rows verified per CPU-second, beside the floor of reading them and beside counting them; how long
one wrong row takes to be found; and what a run of `strategy: hash` costs where nothing differs.

CPU of everybody counts: this process and the servers, since with SQL sources the servers do the
hashing.  The floor reads every row at both ends and looks at none; counting is what other movers
call validation.  Nothing is written meanwhile, so the idle stream's own share is in the figures.

`--rows 10000000 --save` is the whole of it; `--source` names one source, again for more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import psutil
import psycopg
from bson import ObjectId
from fix_servers import database_url, mysql_client
from mysql_world import Selection as MysqlSelection
from mysql_world import world_at
from postgresql_shop import Shop, everything
from test_mongodb_stream import Selection as MongoSelection
from verified_copy import SCHEMA, VerifiedCopy

from benchmarks.orders import load
from benchmarks.report import Report, parser, spread
from warp import hash_capture, pipeline
from warp.interfaces import SourceConnector
from warp.model import Capture, TableId, TableSelection, TableSettings, WorkUnit
from warp.pipeline import NoMeter
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.postgresql import PostgresSource
from warp.testing.servers import MariaDb, Mongod, Postgres

ORDERS = (
    "id bigint primary key, customer integer, total double precision, status text, note text,"
    " paid boolean, created timestamp, amount numeric(12,2)"
)
ROWS = (
    "select i, (i * 7919::bigint) % 100003, i / 7.0, (array['new','paid','sent'])[i % 3 + 1],"
    " 'order number ' || i || ' of a customer who pays by card soon', i % 2 = 0,"
    " timestamp '2026-01-01' + i * interval '137 ms', (i * 13 % 100000) / 100.0"
    " from generate_series(1, {rows}) as i"
)
# MariaDB: floats have no form there, and are read and hashed by us; decimals have one.
MYSQL_ORDERS = (
    "id bigint primary key, customer int, total decimal(20,6), status varchar(20), note"
    " varchar(200), paid tinyint, created datetime(3), amount decimal(12,2)"
)


WHOLE_UP_TO: Final = 1_000_000
"""Rows that a run without digests is shown for: it writes them all, which takes its time."""


class OfShop(MongoSelection):
    def __call__(self, table: TableId) -> TableSettings | None:
        found = super().__call__(table)
        return None if found is None else replace(found, schema=SCHEMA)


def of_full_size(table: TableId) -> TableSettings | None:
    """The shop's tables in batches as they come by default; its own tests have small ones."""
    found, usual = everything(table), TableSettings(table, table, "")
    return found and replace(
        found,
        full_load_batch_size=usual.full_load_batch_size,
        write_batch_size=usual.write_batch_size,
    )


@dataclass
class Contest:
    """One source with its copy, and the floors of both ends."""

    name: str
    copy: VerifiedCopy
    table: TableId
    read_source: Callable[[], object]
    count_source: Callable[[], object]
    pids: list[int]
    make_source: Callable[[TableSelection], SourceConnector] | None = None  # of SQL

    def read(self) -> None:
        self.read_source()
        place = f'"{self.table.namespace}"."{self.table.name}"'
        with self.copy.looking.cursor().copy(
            f"copy (select * from {place}) to stdout (format binary)".encode()
        ) as rows:
            for _ in rows:
                pass

    def poll(self, way: Callable[..., bool]) -> None:
        """A run of `strategy: hash`."""
        if self.make_source is None:
            raise AssertionError("a source whose server digests")
        unit = WorkUnit.poll(SCHEMA, self.table)
        source, destination = self.make_source(self._hashed), self.copy.destination()
        with closing(source), closing(destination):
            hand = self.copy.lease(unit)
            marker = destination.open(hand.lease)
            told: dict[str, Any] = {"selection": self._hashed, "meter": NoMeter()}
            if not way(source, destination, marker, hand, fire_time=time.time(), **told):
                raise AssertionError("nobody asked it to stop")

    def _hashed(self, table: TableId) -> TableSettings | None:
        found = self.copy.select(table) if table == self.table else None
        return found and replace(
            found, capture=Capture.HASH, chunk_rows=self.copy.rows, write_batch_size=1_000
        )

    def count(self) -> None:
        self.count_source()
        self.copy.run(f'select count(*) from "{self.table.namespace}"."{self.table.name}"')


def cpu_of(pids: list[int]) -> float:
    """Seconds of processor time that these processes and their children have used."""
    found = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found += times.user + times.system
            found += times.children_user + times.children_system if one.pid == pid else 0.0
    return found


def measured(contest: Contest, work: Callable[[], Any]) -> tuple[float, float, float]:
    """(our CPU seconds, the servers', wall seconds)."""
    before, ours, wall = cpu_of(contest.pids), time.process_time(), time.monotonic()
    work()
    return (
        time.process_time() - ours,
        cpu_of(contest.pids) - before,
        time.monotonic() - wall,
    )


@contextmanager
def of_mongodb(warehouse: Postgres, rows: int, chunk: int) -> Iterator[Contest]:
    with Mongod() as server, server.client() as client:
        load(client.bench.orders, rows)
        select = OfShop("bench")
        options = MongoOptions.model_validate({"connection_string": server.url})
        copy = VerifiedCopy(lambda: MongoSource(options, select), select, warehouse.url, rows=chunk)
        orders = client.bench.orders

        def read() -> int:
            return sum(len(b) for b in orders.find_raw_batches({}, batch_size=5_000))

        yield Contest(
            *("MongoDB", copy, TableId("bench", "orders"), read),
            lambda: orders.count_documents({"_id": {"$gte": ObjectId("0" * 24)}}),
            [server.pid, warehouse.pid],
        )


@contextmanager
def of_postgresql(warehouse: Postgres, rows: int, chunk: int) -> Iterator[Contest]:
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("create database bench_source")
    url = database_url(warehouse.url, "bench_source")
    with Shop(url) as shop:
        shop.run(f"create table shop.orders ({ORDERS})")
        shop.run("insert into shop.orders " + ROWS.format(rows=rows))
        copy = VerifiedCopy(
            lambda: PostgresSource(shop.options(), of_full_size),
            *(of_full_size, warehouse.url),
            rows=chunk,
        )

        def read() -> None:
            with shop.admin.cursor().copy(b"copy shop.orders to stdout (format binary)") as out:
                for _ in out:
                    pass

        yield Contest(
            *("PostgreSQL", copy, TableId("shop", "orders"), read),
            lambda: shop.run("select count(*) from shop.orders"),
            [warehouse.pid],
            lambda select: PostgresSource(shop.options(), select),
        )


@contextmanager
def of_mariadb(warehouse: Postgres, rows: int, chunk: int) -> Iterator[Contest]:
    with MariaDb() as server, world_at(server.url) as world:
        world.sql(f"create table orders ({MYSQL_ORDERS})")
        world.sql(
            "insert into orders select seq, (seq * 7919) % 100003, seq / 7, elt(seq % 3 + 1, 'new',"
            " 'paid', 'sent'), concat('order number ', seq, ' of a customer who pays by card'),"
            " seq % 2, timestamp'2026-01-01 00:00:00' + interval seq * 137 * 1000 microsecond,"
            f" (seq * 13 % 100000) / 100 from seq_1_to_{rows}"
        )
        copy = VerifiedCopy(
            lambda: world.source(), MysqlSelection(world.database), warehouse.url, rows=chunk
        )

        def read() -> None:
            import pymysql.cursors

            with (
                mysql_client(world.url, database=world.database) as connection,
                connection.cursor(pymysql.cursors.SSCursor) as cursor,
            ):
                connection.decoders = {}
                cursor.execute("select * from orders")
                for _ in cursor:
                    pass

        yield Contest(
            *("MariaDB", copy, world.table("orders"), read),
            lambda: world.sql("select count(*) from orders"),
            [server.pid, warehouse.pid],
            world.source,
        )


SOURCES: Final[dict[str, Callable[..., AbstractContextManager[Contest]]]] = {
    "mongodb": of_mongodb,
    "postgresql": of_postgresql,
    "mariadb": of_mariadb,
}


def main() -> None:
    known = parser(__doc__, rows=200_000, runs=3, chunk=100_000)
    known.add_argument("--source", action="append", choices=SOURCES, help="only this")
    arguments = known.parse_args()
    rows = arguments.rows
    report = Report(
        "verify" if rows <= WHOLE_UP_TO else "verify_the_largest",
        f"{rows:,} rows of 8 columns against their copy in PostgreSQL; median and range of "
        f"{arguments.runs} runs. CPU is of our process and of both servers.",
        ("source", "what", "rows per CPU-second", "of it ours", "rows per second"),
    )
    for name in arguments.source or SOURCES:
        with Postgres() as warehouse, SOURCES[name](warehouse, rows, arguments.chunk) as contest:
            contest.copy.bring(contest.table)
            contest.copy.run("vacuum analyze")  # as any table is after a while
            _compare(report, contest, rows, arguments.runs)
            _find_one(report, contest, rows)
            contest.copy.close()
    report.finish(save=arguments.save)


def _compare(report: Report, contest: Contest, rows: int, times: int) -> None:
    ways: list[tuple[str, int, Callable[[], None]]] = [
        ("verify", times, partial(_verified, contest, rows)),
        ("reading all rows", times, contest.read),
        ("counting", times, contest.count),
    ]
    if contest.make_source is not None:
        by_digests = partial(contest.poll, hash_capture.poll)
        ways.append(("a run of `hash`, nothing differs", times, by_digests))
        if rows <= WHOLE_UP_TO:
            whole = partial(contest.poll, pipeline.poll)
            ways.append(("the same without digests", 1, whole))
    for what, runs, work in ways:
        with contest.copy.streaming() if what == "verify" else nullcontext():
            seen = [measured(contest, work) for _ in range(runs)]
        report.add(
            contest.name,
            what,
            spread([rows / max(1e-3, ours + theirs) for ours, theirs, _ in seen]),
            spread([100 * ours / max(1e-3, ours + theirs) for ours, theirs, _ in seen]) + " %",
            spread([rows / wall for *_, wall in seen]),
        )


def _verified(contest: Contest, rows: int) -> None:
    found = contest.copy.verify(contest.table)
    if (found.rows, found.differences) != (rows, 0):
        raise AssertionError(f"expected {rows} equal rows, found {found}")


def _find_one(report: Report, contest: Contest, rows: int) -> None:
    """How long until one wrong row is known by its key."""
    place = f'"{contest.table.namespace}"."{contest.table.name}"'
    contest.copy.run(
        f"update {place} set note = 'wrong' where ctid = (select ctid from {place}"
        f" offset {rows // 2} limit 1)"
    )
    with closing(contest.copy.destination()), contest.copy.streaming():
        ours, theirs, wall = measured(contest, lambda: contest.copy.verify(contest.table))
        found = len(contest.copy.differences(contest.table))
    if found != 1:
        raise AssertionError(f"expected one wrong row to be found, found {found}")
    report.note(
        f"{contest.name}: one wrong row in {rows:,} known by its key after {wall:.1f} s "
        f"({ours + theirs:.1f} CPU-seconds)"
    )


if __name__ == "__main__":
    main()
