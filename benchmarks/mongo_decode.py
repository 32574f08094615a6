"""CPU per row from MongoDB to columns, for a snapshot and for a stream, beside a raw read.

    python benchmarks/mongo_decode.py [--rows 200000] [--url mongodb://…]

Wall time says little on a shared machine, so CPU seconds of this process are counted, and the raw
read of the same documents in the same run is the yardstick: the ratio holds on any machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pymongo
from bson import ObjectId

from warp import native
from warp.model import ChangeBatch, TableId, TableSchema, TableSettings
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.testing.servers import Mongod

TABLE = TableId("bench", "orders")
SETTINGS = TableSettings(
    TABLE,
    TABLE,
    "bench",
    stream_batch_size=5000,
    write_batch_size=5000,
)


class Everything:
    namespace = "bench"

    def __call__(self, table: TableId) -> TableSettings | None:
        return SETTINGS if table == TABLE else None


def order(number: int, chance: random.Random) -> dict[str, Any]:
    """Eight fields, one nested object, about 235 bytes: an order of a shop."""
    return {
        "_id": ObjectId(),
        "customer_id": chance.randrange(10**6),
        "status": chance.choice(["new", "paid", "shipped", "done"]),
        "total": chance.random() * 1000,
        "created_at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        + dt.timedelta(seconds=chance.randrange(10**7)),
        "paid": chance.random() < 0.5,
        "note": f"n{number} " + "x" * 30,
        "address": {
            "city": f"Oslo{number % 100}",
            "zip": f"0{number % 9999}",
            "geo": {"lat": chance.random(), "lon": chance.random()},
        },
    }


def fill(client: pymongo.MongoClient[dict[str, Any]], rows: int) -> None:
    chance = random.Random(1)
    orders = client[TABLE.namespace][TABLE.name]
    for start in range(0, rows, 5000):
        orders.insert_many([order(start + i, chance) for i in range(min(5000, rows - start))])


def cpu(task: Callable[[], int]) -> tuple[int, float]:
    """(rows, CPU microseconds per row)."""
    started = time.process_time()
    rows = task()
    return rows, (time.process_time() - started) / rows * 1e6


def snapshot(source: MongoSource, schema: TableSchema, *, shaped: bool) -> int:
    rows = 0
    for chunk in source.chunks(TABLE, 10_000_000):
        for batch in source.get_full_snapshot(chunk):
            rows += take(batch, schema, shaped=shaped)
    return rows


def stream(batches: Iterator[ChangeBatch], schema: TableSchema, rows: int, *, shaped: bool) -> int:
    seen = 0
    for batch in batches:
        seen += take(batch, schema, shaped=shaped)
        if seen >= rows:
            return seen
    raise AssertionError("the stream ended")


def take(batch: ChangeBatch, schema: TableSchema, *, shaped: bool) -> int:
    for part in batch.changes:
        if part.documents is not None and shaped:
            result = part.documents.shape(schema, SETTINGS)
            if result.findings or result.unknown:
                raise AssertionError(f"clean documents misfit: {result.findings} {result.unknown}")
    return len(batch)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--runs", type=int, default=5, help="the best of them counts")
    arguments.add_argument("--url", help="a replica set whose database `bench` may be dropped")
    given = arguments.parse_args()
    with ExitStack() as stack:
        url = given.url or stack.enter_context(Mongod(oplog_megabytes=1024)).url
        client = stack.enter_context(pymongo.MongoClient[dict[str, Any]](url))
        client.drop_database(TABLE.namespace)
        client[TABLE.namespace].create_collection(TABLE.name)
        source = MongoSource(MongoOptions.model_validate({"connection_string": url}), Everything())
        stack.callback(source.close)
        start = source.position()
        fill(client, given.rows)
        schema = source.get_schema([TABLE])[TABLE]

        def raw() -> int:
            database = client[TABLE.namespace]
            for _ in database[TABLE.name].find_raw_batches({}, batch_size=5000):
                pass
            return int(given.rows)

        def dictionaries() -> int:
            return sum(1 for _ in client[TABLE.namespace][TABLE.name].find({}, batch_size=5000))

        def follow(*, shaped: bool) -> int:
            batches = source.get_changes(start, selection=Everything(), idle=1.0)
            return stream(batches, schema, given.rows, shaped=shaped)

        driver: dict[str, Callable[[], int]] = {
            "raw read (find_raw_batches)": raw,
            "find, as dictionaries": dictionaries,
        }
        ours: dict[str, Callable[[], int]] = {
            "snapshot: read": lambda: snapshot(source, schema, shaped=False),
            "snapshot: read + shape": lambda: snapshot(source, schema, shaped=True),
            "stream: read": lambda: follow(shaped=False),
            "stream: read + shape": lambda: follow(shaped=True),
        }
        halves = {"compiled": True, "plain Python": False} if native.active() else {"": False}
        yardstick = 0.0
        print(f"{'':36}{'us/row':>8}{'rows/CPU-s':>13}{'x raw':>8}")
        for half, compiled in {"driver": False, **halves}.items():
            for name, task in (driver if half == "driver" else ours).items():
                with native.switched(compiled):
                    best = min(cpu(task)[1] for _ in range(given.runs))
                yardstick = yardstick or best
                title = f"{name}, {half}" if half in halves else name
                print(f"{title:36}{best:8.2f}{1e6 / best:13,.0f}{best / yardstick:8.1f}")


if __name__ == "__main__":
    main()
