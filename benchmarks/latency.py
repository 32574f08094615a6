"""From insert to visible: the time between just before a document is inserted and its row's commit.

The load is a process of its own.  The row carries when it was made; PostgreSQL keeps when its
transaction was committed (track_commit_timestamp).  Both clocks are this machine's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pymongo
from fleet import Fleet, Servers, servers

from benchmarks.orders import TABLE, load, order
from benchmarks.report import Report, parser, quantile

FIRST = 1_000_000  # orders made by the load have numbers from here on
BASE = 1_000
RATES = (100, 1_000, 5_000)


def make_load(url: str, database: str, rate: int, seconds: float) -> None:
    """The inserts that are due, a hundred times a second: the load shall not need a core itself."""
    with pymongo.MongoClient[dict[str, object]](url) as client:
        collection = client[database][TABLE]
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


def measure(ready: Servers, rate: int, seconds: float) -> tuple[list[float], float, float]:
    """Milliseconds per row, rows that were made per second, and our CPU share meanwhile."""
    with Fleet(ready, audited=False) as fleet:
        load(fleet.source[TABLE], BASE)
        fleet.source[TABLE].update_many({}, {"$set": {"made": 0.5}})  # so that it is a column
        worker = fleet.worker()
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(TABLE))
        before, begun = worker.cpu(), time.monotonic()
        order_it = f"make_load({ready.mongo.url!r}, {fleet.name!r}, {rate}, {seconds})"
        subprocess.run(
            [sys.executable, "-c", f"from benchmarks.latency import make_load; {order_it}"],
            check=True,
        )
        share = (worker.cpu() - before) / (time.monotonic() - begun)
        fleet.source[TABLE].insert_one({"note": "last"})
        fleet.wait_for(
            "the last event to arrive",
            lambda: bool(
                fleet.ask(f'select from "{fleet.name}"."{TABLE}" where note = %s', "last")
            ),
        )
        rows = fleet.ask(
            "select 1000 * (extract(epoch from pg_xact_commit_timestamp(xmin))::float8 - made)"
            f' from "{fleet.name}"."{TABLE}" where made > 1'
        )
        return [float(row[0]) for row in rows], len(rows) / seconds, share


def main() -> None:
    arguments = parser(__doc__, seconds=10, runs=3).parse_args()
    report = Report(
        "latency",
        f"Insert to visible, {arguments.runs} runs of {arguments.seconds} s together; "
        "milliseconds; one worker process, settings at their defaults, "
        "PostgreSQL with synchronous_commit on and fsync off.",
        ("asked for per second", "made per second", "p50", "p95", "p99", "most", "CPU of ours"),
    )
    with servers(members=1, cache=0.5, postgres={"track_commit_timestamp": "on"}) as ready:
        for rate in RATES:
            found = [measure(ready, rate, arguments.seconds) for _ in range(arguments.runs)]
            waits = [wait for one, _, _ in found for wait in one]
            report.add(
                f"{rate:,}",
                f"{sum(made for _, made, _ in found) / len(found):,.0f}",
                *(f"{quantile(waits, part):.1f}" for part in (0.50, 0.95, 0.99, 1.0)),
                f"{sum(share for _, _, share in found) / len(found):.0%}",
            )
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
