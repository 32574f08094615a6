"""What writing to PostgreSQL costs our process, beside a bare binary COPY of the same rows.

    python -m benchmarks.pg_write [--url postgresql://…] [--rows 200000] [--json]

CPU seconds of this process only, so the numbers hold on a busy machine.  The ratio is to psycopg's
own `write_row` of ready tuples in the same run, the floor for any writer in Python.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator

import psycopg

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.model import (
    Change,
    ChangeBatch,
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


class Writer:
    def __init__(self, url: str) -> None:
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
        unit = WorkUnit.stream("benchmark")
        stored = {m.unit.id: m for m in metadata.markers()}.get(unit.id, Marker(unit))
        self.marker = self.destination.open(Lease(unit, "benchmark", stored.fence + 1))
        self.version = 0

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


def cpu(work: Callable[[], None]) -> float:
    gc.collect()
    before = time.process_time()
    work()
    return time.process_time() - before


def microseconds(writer: Writer, operation: Operation, rows: int, size: int) -> float:
    """Per row, over whole transactions of `size` rows."""
    batches = [writer.batch(operation, first, size) for first in range(0, rows, size)]
    writer.write(writer.batch(operation, 0, size))  # staging table, prepared statements

    def work() -> None:
        for batch in batches:
            writer.write(batch)

    return cpu(work) / rows * 1e6


def floor(url: str, rows: int, size: int) -> float:
    """psycopg's binary COPY of ready tuples into a bare table, per row."""
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
        connection.execute(
            "create temporary table bare (a text, b int8, c float8, d text, e text, f bool,"
            " g int8, h bytea)"
        )
        return cpu(work) / rows * 1e6


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with Postgres() as postgres:
        yield postgres.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = arguments.rows
    with server(arguments.url) as url:
        writer = Writer(url)
        result = {
            "bare copy, 10 000 rows": floor(url, rows, 10_000),
            "bare copy, 500 rows": floor(url, rows, 500),
            "snapshot rows, 10 000 a transaction": microseconds(
                writer, Operation.READ, rows, 10_000
            ),
            "created rows, 500 a transaction": microseconds(
                writer, Operation.CREATE, rows // 2, 500
            ),
            "updated rows, 500 a transaction": microseconds(
                writer, Operation.UPDATE, rows // 2, 500
            ),
            "updated rows, 5 000 a transaction": microseconds(
                writer, Operation.UPDATE, rows // 2, 5_000
            ),
        }
        writer.destination.close()
    if arguments.json:
        print(json.dumps({"unit": "CPU microseconds per row", "measured": result}))
        return
    bare = {10_000: result["bare copy, 10 000 rows"], 500: result["bare copy, 500 rows"]}
    for what, value in result.items():
        base = bare[500] if " 500 " in what else bare[10_000]
        print(f"{what:40} {value:6.2f} us of CPU a row   {value / base:5.2f} x the bare copy")


if __name__ == "__main__":
    main()
