"""What writing to MariaDB costs, our process and the server, beside a bare LOAD DATA.

CPU seconds, so the numbers hold on a busy machine: of this process, and of the whole server.  The
floor is LOAD DATA LOCAL of bytes that are ready into a bare table in the same run: no client can be
cheaper.  Rows of a snapshot are written straight and, in turn with that, by staging table and
merge; and by INSERT, where the server takes no local data.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import psutil

from benchmarks.report import Report, median, parser, spread
from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.destinations.mysql.loading import Into, Loader, lines_of
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.straight import Straight
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
from warp.testing.servers import MariaDb

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
BARE = (
    "create table benchmark.bare (a char(24) character set ascii primary key, b bigint, c double,"
    " d longtext, e longtext, f tinyint(1), g datetime(6), h longtext) character set utf8mb4"
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
    seconds: float  # by the clock


class Writer:
    """A unit that writes; a chunk's rows are READ, a stream's may be anything."""

    def __init__(self, mariadb: MariaDb, unit: WorkUnit) -> None:
        options = MysqlWriterOptions.model_validate({"connection_string": mariadb.url})
        self.destination = MysqlDestination(options, select)
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
        self.session: Session = self.destination._session
        self.server = psutil.Process(mariadb.pid)

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

    def cost(self, batches: Sequence[ChangeBatch]) -> Cost:
        def work() -> None:
            for batch in batches:
                self.write(batch)

        return cost(work, sum(map(len, batches)), self.server)

    def floor(self, rows: int, size: int) -> Cost:
        """LOAD DATA LOCAL of ready bytes into a bare table with a primary key."""
        self.session.run("drop table if exists benchmark.bare")
        self.session.run(BARE)
        places = [Into(name, c) for name, c in zip("abcdefgh", SCHEMA.columns, strict=True)]
        ready = [
            b"".join(lines_of(places, columns(first, size), size)) for first in range(0, rows, size)
        ]
        statement = "LOAD DATA LOCAL INFILE 'rows' INTO TABLE benchmark.bare CHARACTER SET utf8mb4"

        def work() -> None:
            for lines in ready:
                self.session.load_local(statement, lines)

        return cost(work, rows, self.server)


def cost(work: Callable[[], None], rows: int, server: psutil.Process) -> Cost:
    gc.collect()
    spent, begun, clock = busy(server), time.process_time(), time.monotonic()
    work()
    ours, seconds = time.process_time() - begun, time.monotonic() - clock
    return Cost(ours / rows * 1e6, (busy(server) - spent) / rows * 1e6, seconds / rows)


def busy(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def as_told(*, straight: bool, by_load: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if not straight:
            stack.enter_context(mock.patch.object(Straight, "lands", return_value=False))
        if not by_load:
            stack.enter_context(mock.patch.object(Loader, "_load_locally", return_value=False))
        yield


def snapshot(writer: Writer, rows: int, size: int, *, straight: bool, by_load: bool = True) -> Cost:
    """An empty table filled by one chunk."""
    writer.session.run("truncate benchmark.orders")
    batches = [writer.batch(Operation.READ, first, size) for first in range(0, rows, size)]
    with as_told(straight=straight, by_load=by_load):
        writer.write(writer.batch(Operation.READ, rows * 10, 100))  # makes the staging table
        return writer.cost(batches)


def changed(writer: Writer, operation: Operation, rows: int, size: int) -> Cost:
    batches = [writer.batch(operation, first, size) for first in range(0, rows, size)]
    writer.write(writer.batch(operation, 0, size))
    return writer.cost(batches)


def main() -> None:
    arguments = parser(__doc__, rows=100_000, runs=3).parse_args()
    rows, runs = arguments.rows, arguments.runs
    report = Report(
        "mysql_write",
        f"{rows:,} rows of 8 columns into MariaDB; median and range of {runs} runs.",
        ("", "our CPU, s per million rows", "the server's, s per million rows", "rows per second"),
    )
    found: dict[str, list[Cost]] = {}

    def add(what: str, cost: Cost) -> None:
        found.setdefault(what, []).append(cost)

    with MariaDb() as mariadb:
        writer = Writer(mariadb, WorkUnit.of_chunk("benchmark", Chunk(TABLE, 0), 0))
        for _ in range(runs):
            add("bare LOAD DATA, 10,000 rows", writer.floor(rows, 10_000))
            for size in (10_000, 500):
                for straight in (True, False):
                    how = "straight" if straight else "merged"
                    one = snapshot(writer, rows, size, straight=straight)
                    add(f"snapshot rows, {size:,} a transaction, {how}", one)
            one = snapshot(writer, rows, 10_000, straight=True, by_load=False)
            add("the same 10,000, straight by INSERT", one)
        writer.destination.close()
        writer = Writer(mariadb, WorkUnit.stream("benchmark"))
        for _ in range(runs):
            writer.session.run("truncate benchmark.orders")
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
            spread([1 / one.seconds for one in costs]),
        )
    floor = found["bare LOAD DATA, 10,000 rows"]
    for what, costs in found.items():
        if what.endswith("straight"):
            pairs = zip(costs, floor, strict=True)
            ratio = median([(a.ours + a.server) / (b.ours + b.server) for a, b in pairs])
            report.note(f"{what}: {ratio:.1f} times the CPU of the floor, both ends together")
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
