"""From insert to visible: the time between just before a document is inserted and its row's commit.

    python -m benchmarks latency [--seconds 10] [--runs 3] [--meanwhile 4000000] [--save]

The load is a process of its own.  The row carries when it was made; PostgreSQL keeps when its
transaction was committed (track_commit_timestamp).  Both clocks are this machine's.  The greatest
rate is also measured while another table of `--meanwhile` rows is read by the same worker (only
rows made before that has been read count), and with `batch_size: auto`.

The floor is the least a client can do with the same load: the change stream's replies, of which
only what is timed is looked at, into a staging table and from there into the table, with a marker,
a transaction each.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import pymongo
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from fleet import Fleet, Servers, servers
from warehouses import METADATA

from benchmarks.orders import TABLE, generate, load, order
from benchmarks.report import Report, parser, quantile

FIRST = 1_000_000  # orders made by the load have numbers from here on
BASE = 1_000
RATES = (100, 1_000, 5_000)
HISTORY = "history"
SLOTS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """What is done while the rows are timed."""

    rate: int  # rows asked for per second
    meanwhile: int = 0  # rows of another table whose snapshot runs
    settings: str = "defaults"

    def block(self) -> dict[str, Any]:
        return {"batch_size": "auto"} if self.settings == "auto" else {}


@dataclass(frozen=True, slots=True)
class Found:
    waits: list[float]  # milliseconds of each row
    made: float  # such rows per second of the load
    share: float  # of a CPU, used by our worker
    read: float  # rows per second that the snapshot moved


def make_load(url: str, database: str, rate: int, seconds: float) -> None:
    """The inserts that are due, a hundred times a second: the load shall not need a core itself.

    It begins when a line comes in, all its modules imported.
    """
    with pymongo.MongoClient[dict[str, object]](url) as client:
        collection = client[database][TABLE]
        collection.find_one()
        if not sys.stdin.readline():
            return  # who would have told is gone
        begun = time.monotonic()
        made = 0
        pause = threading.Event()
        while (passed := time.monotonic() - begun) < seconds:
            due = min(int(passed * rate) - made, 500)
            pause.wait(0.01)
            if due > 0:
                now = time.time()
                numbers = range(FIRST + made, FIRST + made + due)
                collection.insert_many([{**order(n), "made": now} for n in numbers], ordered=False)
                made += due


class Load:
    """The process that makes the orders, which begins when told and has ended when left."""

    def __init__(self, url: str, database: str, rate: int, seconds: float) -> None:
        order_it = f"make_load({url!r}, {database!r}, {rate}, {seconds})"
        made_by = [sys.executable, "-c", f"from benchmarks.latency import make_load; {order_it}"]
        self._process = subprocess.Popen(made_by, stdin=subprocess.PIPE)

    def run(self) -> None:
        self._process.communicate(b"\n")
        if self._process.returncode:
            raise AssertionError("expected the load to end well, found that it failed")


def floor(ready: Servers, rate: int, seconds: float) -> Found:
    with Fleet(ready, audited=False) as fleet, fleet.destination() as connection:
        load(fleet.source[TABLE], 1)
        making = Load(ready.mongo.url, fleet.name, rate, seconds)
        connection.execute("create table target (_id text primary key, made float8, document text)")
        connection.execute("create temporary table staged (like target) on commit delete rows")
        connection.execute("create table marker (n int); insert into marker values (0)")
        done, share = threading.Event(), [0.0]
        following = threading.Thread(
            target=follow, args=(fleet, connection, done, share), name="floor"
        )
        following.start()
        making.run()
        done.set()
        following.join()
        rows = connection.execute(
            "select 1000 * (extract(epoch from pg_xact_commit_timestamp(xmin))::float8 - made)"
            " from target"
        ).fetchall()
        return Found([float(row[0]) for row in rows], len(rows) / seconds, share[0] / seconds, 0.0)


def follow(
    fleet: Fleet, connection: psycopg.Connection[Any], done: threading.Event, share: list[float]
) -> None:
    """Until nothing comes any more; `share` is told the CPU-seconds it took."""
    raw = CodecOptions(document_class=RawBSONDocument)
    command: dict[str, Any] = {
        "aggregate": 1,
        "pipeline": [{"$changeStream": {"fullDocument": "updateLookup"}}],
        "cursor": {"batchSize": 0},
    }
    with fleet.client.start_session() as session:
        cursor = fleet.source.command(command, codec_options=raw, session=session)["cursor"]
        begun = time.thread_time()
        while True:
            over = done.is_set()
            more = {
                "getMore": Int64(cursor["id"]),
                "collection": "$cmd.aggregate",
                "batchSize": 1_000,
                "maxTimeMS": 250,
            }
            cursor = fleet.source.command(more, codec_options=raw, session=session)["cursor"]
            events = cursor["nextBatch"]
            if not events and over:
                break
            if events:
                write(connection, [event["fullDocument"] for event in events])
        share.append(time.thread_time() - begun)
        share.pop(0)


def write(connection: psycopg.Connection[Any], documents: list[RawBSONDocument]) -> None:
    with connection.transaction():
        connection.execute("update marker set n = n + 1")
        with connection.cursor().copy("copy staged from stdin") as copy:
            for document in documents:
                copy.write_row((str(document["_id"]), document["made"], document["note"]))
        connection.execute(
            "insert into target select * from staged on conflict (_id) do update"
            " set made = excluded.made, document = excluded.document"
        )


def measure(ready: Servers, case: Case, seconds: float) -> Found:
    with Fleet(ready, audited=False, **case.block()) as fleet:
        load(fleet.source[TABLE], BASE)
        fleet.source[TABLE].update_many({}, {"$set": {"made": 0.5}})  # so that it is a column
        if case.meanwhile:
            generate(fleet.source[HISTORY], case.meanwhile)
        making = Load(ready.mongo.url, fleet.name, case.rate, seconds)
        worker = fleet.worker(slots=SLOTS)
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(TABLE))
        if case.meanwhile:
            fleet.wait_for("the other snapshot to run", lambda: fleet.count(HISTORY) > 0)
        before, begun, there = worker.cpu(), time.monotonic(), moved(fleet, case)
        making.run()
        passed = time.monotonic() - begun
        share, read = (worker.cpu() - before) / passed, (moved(fleet, case) - there) / passed
        until = read_until(fleet) if case.meanwhile and fleet.settled(HISTORY) else time.time()
        fleet.source[TABLE].insert_one({"note": "last"})
        fleet.wait_for(
            "the last event to arrive",
            lambda: bool(
                fleet.ask(f'select from "{fleet.name}"."{TABLE}" where note = %s', "last")
            ),
        )
        rows = fleet.ask(
            "select 1000 * (extract(epoch from pg_xact_commit_timestamp(xmin))::float8 - made)"
            f' from "{fleet.name}"."{TABLE}" where made > 1 and made < %s',
            until,
        )
        if not rows:
            raise AssertionError(
                "expected rows made while the other table was read, found it done before: ask for "
                "more of it by --meanwhile"
            )
        return Found([float(row[0]) for row in rows], len(rows) / seconds, share, read)


def read_until(fleet: Fleet) -> float:
    """When the last chunk of the other table had been read, Unix seconds."""
    [(ended,)] = fleet.ask(
        f"select extract(epoch from max(ended_at))::float8 from {METADATA}.sync_runs"
        " where source_table = %s",
        HISTORY,
    )
    return float(ended)


def moved(fleet: Fleet, case: Case) -> int:
    return fleet.count(HISTORY) if case.meanwhile else 0


def main() -> None:
    arguments = parser(__doc__, seconds=10, runs=3, meanwhile=4_000_000).parse_args()
    report = Report(
        "latency",
        f"Insert to visible, {arguments.runs} runs of {arguments.seconds} s together; "
        f"milliseconds; one worker process of {SLOTS} slots, "
        "PostgreSQL with synchronous_commit on and fsync off.",
        (
            "asked for per second",
            "meanwhile",
            "batch sizes",
            "made per second",
            "p50",
            "p95",
            "p99",
            "most",
            "CPU of ours",
        ),
    )
    most, history = RATES[-1], arguments.meanwhile
    cases = [
        *(Case(rate) for rate in RATES),
        Case(most, settings="auto"),
        Case(most, history),
        Case(most, history, "auto"),
    ]
    with servers(members=1, cache=0.5, postgres={"track_commit_timestamp": "on"}) as ready:
        for rate in RATES:
            bare = [floor(ready, rate, arguments.seconds) for _ in range(arguments.runs)]
            report.add(f"{rate:,}", "the floor", "", *told(bare))
        for case in cases:
            found = [measure(ready, case, arguments.seconds) for _ in range(arguments.runs)]
            read = sum(one.read for one in found) / len(found)
            report.add(
                f"{case.rate:,}",
                f"a snapshot of {read:,.0f} rows per second" if case.meanwhile else "-",
                case.settings,
                *told(found),
            )
    report.finish(save=arguments.save)


def told(found: list[Found]) -> tuple[str, ...]:
    waits = [wait for one in found for wait in one.waits]
    return (
        f"{sum(one.made for one in found) / len(found):,.0f}",
        *(f"{quantile(waits, part):.1f}" for part in (0.50, 0.95, 0.99, 1.0)),
        f"{sum(one.share for one in found) / len(found):.0%}",
    )


if __name__ == "__main__":
    main()
