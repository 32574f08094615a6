"""What writing to PostgreSQL costs, our process and the server, beside a bare binary COPY.

CPU seconds, so the numbers hold on a busy machine: of this process, and of the one server process
that serves it (not of the checkpointer and the WAL writer).  The floor is psycopg's own
`write_row` of ready tuples into a bare table in the same run: no writer in Python is cheaper.
Rows of a snapshot are written straight and, in turn with that, by staging table and merge.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import psutil
import psycopg

from benchmarks.report import Report, median, parser, spread
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.destinations.postgresql.straight import Straight
from warp.model import (
    Change,
    ChangeBatch,
    Chunk,
    Column,
    Kind,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
)
from warp.testing.servers import Postgres

TABLE = TableId("benchmark", "orders")
SCHEMA = TableSchema(
    TABLE,
    (
        Column("_id", Kind.OBJECTID),
        Column("customer", Kind.INT64),
        Column("total", Kind.FLOAT64),
        Column("status", Kind.TEXT),
        Column("note", Kind.TEXT),
        Column("paid", Kind.BOOL),
        Column("created", Kind.TIMESTAMP),
        Column("address", Kind.JSON),
    ),
    ("_id",),
)


def select(table: TableId) -> TableSettings:
    return TableSettings(table, table, "benchmark")


def columns(first: int, rows: int) -> list[list[object]]:
    numbers = range(first, first + rows)
    return [
        [f"{n:024x}" for n in numbers],
        [n * 7919 % 100_003 for n in numbers],
        [n / 7 for n in numbers],
        [("new", "paid", "sent", "done")[n % 4] for n in numbers],
        [f"order number {n} of a customer" for n in numbers],
        [n % 3 == 0 for n in numbers],
        [1_700_000_000_000_000 + n * 1_000 for n in numbers],
        [b'{"city":"Lyon","zip":%d,"geo":{"lat":45.7,"lon":4.8}}' % n for n in numbers],
    ]


@dataclass(frozen=True, slots=True)
class Cost:
    """Per row of one measurement."""

    ours: float  # microseconds of CPU
    server: float  # likewise
    wal: float  # bytes
    seconds: float  # by the clock


class Writer:
    """A unit that writes; a chunk's rows are READ, a stream's may be anything."""

    def __init__(self, url: str, unit: WorkUnit) -> None:
        options = PostgresOptions.model_validate({"connection_string": url})
        self.destination = PostgresDestination(options, select)
        metadata = self.destination.metadata()
        metadata.prepare()
        table = WorkUnit.of_table("benchmark", TABLE)
        metadata.register(table, position=None, phase=Phase.STREAMING)
        create = SchemaChange(TABLE, Change.CREATE_TABLE, schema=SCHEMA)
        self.destination.apply_schema_changes([create])
        schema = self.destination.get_schema(TABLE)
        if schema is None:
            raise AssertionError("the table was just made")
        self.schema = schema
        stored = {m.unit.id: m for m in metadata.markers()}.get(unit.id, Marker(unit))
        self.marker = self.destination.open(Lease(unit, "benchmark", stored.fence + 1))
        self.version = 0
        self.session = self.destination._session
        self.server = psutil.Process(self.session.connect().info.backend_pid)

    def batch(self, operation: Operation, first: int, rows: int) -> ChangeBatch:
        self.version += 1
        versions = [self.version] * rows
        if operation != Operation.READ:
            versions = list(range(self.version, self.version + rows))
            self.version += rows
        cells = columns(first, rows)
        part = TableChanges(TABLE, bytearray([operation]) * rows, versions, self.schema, cells)
        return ChangeBatch([part], Position(str(self.version)))

    def write(self, batch: ChangeBatch) -> None:
        after = self.marker.advanced(batch, phase=Phase.STREAMING)
        self.destination.write_batch(batch, after)
        self.marker = after

    def run(self, statement: bytes) -> None:
        self.session.run(statement, prepare=False)

    def cost(self, batches: Sequence[ChangeBatch]) -> Cost:
        def work() -> None:
            for batch in batches:
                self.write(batch)

        return cost(work, sum(map(len, batches)), self.session.connect(), self.server)


def cost(
    work: Callable[[], None],
    rows: int,
    connection: psycopg.Connection[Any],
    server: psutil.Process,
) -> Cost:
    gc.collect()
    wal = wal_end(connection)
    spent, begun, clock = busy(server), time.process_time(), time.monotonic()
    work()
    ours, seconds = time.process_time() - begun, time.monotonic() - clock
    end = wal_end(connection)
    return Cost(
        ours / rows * 1e6,
        (busy(server) - spent) / rows * 1e6,
        (end - wal) / rows,
        seconds / rows,
    )


def wal_end(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(b"select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    return int(row[0]) if row else 0


def busy(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system


def floor(url: str, rows: int, size: int) -> Cost:
    """psycopg's binary COPY of ready tuples into a bare table with a primary key."""
    types = ["text", "int8", "float8", "text", "text", "bool", "int8", "bytea"]
    ready = [list(zip(*columns(first, size), strict=True)) for first in range(0, rows, size)]

    def work() -> None:
        for tuples in ready:
            with (
                connection.cursor() as cursor,
                cursor.copy("copy bare from stdin (format binary)") as copy,
            ):
                copy.set_types(types)
                for row in tuples:
                    copy.write_row(row)

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table if exists bare")
        connection.execute(
            "create table bare (a text primary key, b int8, c float8, d text, e text, f bool,"
            " g timestamptz, h bytea)"
        )
        return cost(work, rows, connection, psutil.Process(connection.info.backend_pid))


def snapshot(writer: Writer, rows: int, size: int, *, straight: bool) -> Cost:
    """An empty table filled by one chunk."""
    writer.run(b"truncate benchmark.orders")
    batches = [writer.batch(Operation.READ, first, size) for first in range(0, rows, size)]
    with contextlib.ExitStack() as stack:
        if not straight:
            stack.enter_context(mock.patch.object(Straight, "lands", return_value=False))
        # Staging table, prepared statements.
        writer.write(writer.batch(Operation.READ, rows * 10, 100))
        return writer.cost(batches)


def changed(writer: Writer, operation: Operation, rows: int, size: int) -> Cost:
    batches = [writer.batch(operation, first, size) for first in range(0, rows, size)]
    writer.write(writer.batch(operation, 0, size))
    return writer.cost(batches)


@contextlib.contextmanager
def unique_index(writer: Writer) -> Iterator[None]:
    writer.run(b"truncate benchmark.orders")
    writer.run(b"create unique index second on benchmark.orders (note)")
    yield
    writer.run(b"drop index benchmark.second")


def main() -> None:
    arguments = parser(__doc__, rows=100_000, runs=3).parse_args()
    rows, runs = arguments.rows, arguments.runs
    report = Report(
        "pg_write",
        f"{rows:,} rows of 8 columns; median and range of {runs} runs.",
        (
            "",
            "our CPU, s per million rows",
            "the server's, s per million rows",
            "WAL, bytes a row",
            "rows per second",
        ),
    )
    found: dict[str, list[Cost]] = {}

    def add(what: str, cost: Cost) -> None:
        found.setdefault(what, []).append(cost)

    with Postgres() as postgres:
        chunk = Chunk(TABLE, 0)
        writer = Writer(postgres.url, WorkUnit.of_chunk("benchmark", chunk, 0))
        for _ in range(runs):
            add("bare COPY, 10,000 rows", floor(postgres.url, rows, 10_000))
            for size in (10_000, 500):
                for straight in (True, False):
                    how = "straight" if straight else "merged"
                    one = snapshot(writer, rows, size, straight=straight)
                    add(f"snapshot rows, {size:,} a transaction, {how}", one)
            with unique_index(writer):
                for straight in (True, False):
                    how = "straight" if straight else "merged"
                    one = snapshot(writer, rows, 10_000, straight=straight)
                    add(f"the same 10,000 with a second unique index, {how}", one)
        writer.destination.close()
        writer = Writer(postgres.url, WorkUnit.stream("benchmark"))
        for _ in range(runs):
            writer.run(b"truncate benchmark.orders")
            some = rows // 2
            add("created rows, 500 a transaction", changed(writer, Operation.CREATE, some, 500))
            add("updated rows, 500 a transaction", changed(writer, Operation.UPDATE, some, 500))
            add(
                "updated rows, 5,000 a transaction",
                changed(writer, Operation.UPDATE, some, 5_000),
            )
        writer.destination.close()
    for what, costs in found.items():
        report.add(
            what,
            spread([one.ours for one in costs], ".2f"),
            spread([one.server for one in costs], ".2f"),
            spread([one.wal for one in costs]),
            spread([1 / one.seconds for one in costs]),
        )
    for what in found:
        if what.endswith(", straight"):
            case = what.removesuffix(", straight")
            pairs = zip(found[what], found[f"{case}, merged"], strict=True)
            ratio = median([merged.server / straight.server for straight, merged in pairs])
            report.note(f"{case}: merging costs the server {ratio:.1f} times what COPY costs it")
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
