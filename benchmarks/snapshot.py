"""Snapshot rows per CPU-second of our worker, beside the floor in the same run.

The floor moves the same rows with the least a client can do: raw batches from the server, not
looked into, and ready bytes into a bare table by binary COPY.  Only CPU seconds of clients count:
they hold on a busy machine, and the servers' own work is not ours to change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import bson
import psycopg
from fleet import Fleet, Servers, servers
from psycopg import sql
from pymongo.collection import Collection

from benchmarks.orders import TABLE, Document, load, order
from benchmarks.report import Report, median, parser, spread

READ_SIZE = 5_000
PIECE = 1 << 18


@dataclass
class Ours:
    cpu: float
    wall: float
    memory: int


def ours(ready: Servers, rows: int, slots: int, **settings: Any) -> tuple[Ours, bytes]:
    """One snapshot by a fresh fleet, and the table's content as binary COPY."""
    with Fleet(ready, audited=False, **settings) as fleet:
        load(fleet.source[TABLE], rows)
        worker = fleet.worker(slots=slots)
        fleet.wait_for("the worker to be up", lambda: bool(worker.said("worker_started")))
        before, begun = worker.cpu(), time.monotonic()
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(TABLE), 300)
        spent = Ours(worker.cpu() - before, time.monotonic() - begun, worker.peak_memory())
        if fleet.count(TABLE) != rows:
            raise AssertionError(f"expected {rows} rows, found {fleet.count(TABLE)}")
        with fleet.destination() as connection:
            return spent, content(connection, fleet.name)


def content(connection: psycopg.Connection[object], namespace: str) -> bytes:
    statement = sql.SQL("copy {} to stdout (format binary)").format(
        sql.Identifier(namespace, TABLE)
    )
    with connection.cursor().copy(statement) as copy:
        return b"".join(bytes(part) for part in copy)


def floor(collection: Collection[Document], postgres: str, ready: bytes) -> tuple[float, float]:
    """CPU seconds of reading and of writing."""
    begun = time.process_time()
    size = sum(len(batch) for batch in collection.find_raw_batches({}, batch_size=READ_SIZE))
    read = time.process_time() - begun
    if not size:
        raise AssertionError("nothing was read")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "create temporary table bare (a text primary key, b int8, c float8, d text, e text,"
            " f bool, g timestamptz, h jsonb, i jsonb, v int8, gone bool)"
        )
        begun = time.process_time()
        whole = memoryview(ready)
        with connection.cursor().copy("copy bare from stdin (format binary)") as copy:
            for start in range(0, len(ready), PIECE):
                copy.write(whole[start : start + PIECE])
        return read, time.process_time() - begun


def main() -> None:
    arguments = parser(__doc__, rows=200_000, runs=3, slots=4).parse_args()
    rows = arguments.rows
    report = Report(
        "snapshot",
        f"{rows:,} orders of {len(bson.encode(order(1)))} bytes and 8 fields, MongoDB to "
        f"PostgreSQL by one worker process of {arguments.slots} slots; median and range.",
        ("", "rows per CPU-second of ours", "rows per second", "peak memory"),
    )
    found: list[Ours] = []
    sized: list[Ours] = []
    floors: list[float] = []
    with servers(members=1, cache=0.5) as ready:
        for _ in range(arguments.runs):
            sized.append(ours(ready, rows, arguments.slots, batch_size="auto")[0])
            spent, copied = ours(ready, rows, arguments.slots)
            found.append(spent)
            with Fleet(ready, audited=False) as fleet:
                collection = fleet.source[TABLE]
                load(collection, rows)
                read, write = floor(collection, ready.postgres.url, copied)
            floors.append(read + write)
    for what, runs in (("settings at their defaults", found), ("batch_size: auto", sized)):
        report.add(
            what,
            spread([rows / one.cpu for one in runs]),
            spread([rows / one.wall for one in runs]),
            spread([one.memory / 2**20 for one in runs]) + " MiB",
        )
    report.add("floor", spread([rows / cpu for cpu in floors]), "", "")
    ratio = median([one.cpu for one in found]) / median(floors)
    report.note(f"{ratio:.1f} times the CPU of the floor in the same run")
    report.note(
        "counted from before planning until the table is settled: claims, heartbeats, the waiting "
        "stream and the worker's supervisor included, the start of the process not"
    )
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
