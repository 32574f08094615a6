"""Stream events per CPU-second of our worker, beside the floor in the same run.

The worker sleeps (SIGSTOP) while the events are made, then catches up with them, so neither its
start nor waiting is counted.  A third of the events are inserts, half updates, a sixth
replacements and deletes.

The floor follows the same events with the least a client can do: the change stream's replies,
which are not looked into, and ready bytes into a staging table and from there into the table, in
as many transactions.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from bson import Int64, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from fleet import Fleet, Servers, servers
from psycopg import sql

from benchmarks.orders import TABLE, load, produce
from benchmarks.report import Report, median, parser, spread

BASE = 20_000  # orders before the stream


@dataclass
class Spent:
    cpu: float
    wall: float
    memory: int
    transactions: int


def run(ready: Servers, events: int, **settings: Any) -> tuple[Spent, float]:
    """One catch-up by a fresh fleet, and the floor's CPU for the same events."""
    with Fleet(ready, audited=False, **settings) as fleet:
        load(fleet.source[TABLE], BASE)
        worker = fleet.worker()
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(TABLE))
        worker.pause()
        start = fleet.client.admin.command("ping")["operationTime"]
        produce(fleet.source[TABLE], BASE, events)
        fleet.source[TABLE].insert_one({"note": "last"})
        before, begun, batch = worker.cpu(), time.monotonic(), batches(fleet)
        worker.resume()
        fleet.wait_for("the last event to arrive", lambda: arrived(fleet), 600)
        spent = Spent(
            worker.cpu() - before,
            time.monotonic() - begun,
            worker.peak_memory(),
            batches(fleet) - batch,
        )
        if fleet.count(TABLE) != fleet.source[TABLE].count_documents({}):
            raise AssertionError("expected as many rows as documents")
        return spent, floor(fleet, start, events, spent.transactions)


def batches(fleet: Fleet) -> int:
    rows = fleet.ask(
        "select batch from cartridge_warp_metadata.sync_markers where unit = %s", fleet.stream
    )
    return int(rows[0][0])


def arrived(fleet: Fleet) -> bool:
    threading.Event().wait(0.1)  # ask less often than a test would
    return bool(fleet.ask(f'select from "{fleet.name}"."{TABLE}" where note = %s', "last"))


def floor(fleet: Fleet, start: Timestamp, events: int, transactions: int) -> float:
    raw = CodecOptions(document_class=RawBSONDocument)
    source = fleet.source
    begun = time.process_time()
    stage = {"$changeStream": {"startAtOperationTime": start, "fullDocument": "updateLookup"}}
    command: dict[str, Any] = {"aggregate": 1, "pipeline": [stage], "cursor": {"batchSize": 1_000}}
    seen = 0
    with fleet.client.start_session() as session:
        cursor = source.command(command, codec_options=raw, session=session)["cursor"]
        seen += len(cursor["firstBatch"])
        while seen < events:
            more = {
                "getMore": Int64(cursor["id"]),
                "collection": "$cmd.aggregate",
                "batchSize": 1_000,
            }
            cursor = source.command(more, codec_options=raw, session=session)["cursor"]
            seen += len(cursor["nextBatch"])
    read = time.process_time() - begun
    with fleet.destination() as connection:
        return read + floor_of_writing(connection, fleet.name, transactions, events)


def floor_of_writing(
    connection: psycopg.Connection[Any], namespace: str, transactions: int, events: int
) -> float:
    table = sql.Identifier(namespace, TABLE)
    size = max(1, events // max(1, transactions))
    some = sql.SQL("copy (select * from {} limit {}) to stdout (format binary)")
    with connection.cursor().copy(some.format(table, sql.Literal(size))) as copy:
        ready = b"".join(bytes(part) for part in copy)
    connection.execute(sql.SQL("create table target (like {} including all)").format(table))
    connection.execute(
        sql.SQL("create temporary table staged (like {}) on commit delete rows").format(table)
    )
    connection.execute("create table marker (n int); insert into marker values (0)")
    names = [
        row[0]
        for row in connection.execute(
            "select attname from pg_attribute where attrelid = 'target'::regclass and attnum > 0"
        ).fetchall()
    ]
    upsert = sql.SQL("insert into target select * from staged on conflict (_id) do update set {}")
    updates = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names[1:]
    )
    statement = upsert.format(updates)
    begun = time.process_time()
    for n in range(transactions):
        with connection.transaction():
            connection.execute("update marker set n = %s", (n,))
            with connection.cursor().copy("copy staged from stdin (format binary)") as copy:
                copy.write(ready)
            connection.execute(statement)
    return time.process_time() - begun


def main() -> None:
    arguments = parser(__doc__, events=200_000, runs=3).parse_args()
    events = arguments.events
    report = Report(
        "stream",
        f"{events:,} events on a table of {BASE:,} orders, MongoDB to PostgreSQL by one worker "
        "process; median and range.",
        (
            "",
            "events per CPU-second of ours",
            "events per second",
            "events per transaction",
            "floor, events per CPU-second",
            "times the floor's CPU",
            "peak memory",
        ),
    )
    shapes: dict[str, dict[str, Any]] = {
        "settings at their defaults": {},
        "batch_size: auto": {"batch_size": "auto"},
        "write_batch_size and stream_batch_size 5,000": {
            "write_batch_size": 5_000,
            "stream_batch_size": 5_000,
        },
    }
    with servers(members=1, cache=0.5) as ready:
        for what, settings in shapes.items():
            runs = [run(ready, events, **settings) for _ in range(arguments.runs)]
            ours = [spent for spent, _ in runs]
            floors = [cpu for _, cpu in runs]
            report.add(
                what,
                spread([events / one.cpu for one in ours]),
                spread([events / one.wall for one in ours]),
                spread([events / max(1, one.transactions) for one in ours]),
                spread([events / cpu for cpu in floors]),
                f"{median([one.cpu for one in ours]) / median(floors):.1f}",
                spread([one.memory / 2**20 for one in ours]) + " MiB",
            )
    report.note("MongoDB looks every updated document up (updateLookup), for both alike")
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
