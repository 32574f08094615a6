"""Whether more of it stays as good: two workers for one, ten million rows for ten thousand.

    python -m benchmarks scale [--rows 4000000] [--most 10000000] [--runs 3] [--save]

Two workers share one table's snapshot, of a source and a destination that cost nothing
(`benchmarks.free`): first where the workers' own CPU is the bound, then where they wait for a
server that is far away.  Where a real server is the bound, no number of workers is faster, and
what two cores share says nothing about the sharing.

The cost of a row, and memory, from 10,000 rows to `--most` of MongoDB, which makes them itself.
What an empty table costs in the same run (claims, transactions, a waiting stream) is told apart.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from fleet import Fleet, Servers, Worker, servers
from warehouses import METADATA

from benchmarks.orders import TABLE, generate
from benchmarks.report import Report, median, parser, spread

SLOTS = 4  # of each worker, for chunks; the first has one more, for the stream
LEAST = 10_000
CHUNKS = 100  # of the shared table, so that no worker ends long before the other
FAR = 0.2  # seconds before each batch
FAR_ROWS = 200  # of each batch, so few that the workers hardly work


@dataclass(frozen=True, slots=True)
class Bound:
    """What keeps the workers from being faster."""

    name: str
    rows: int
    batch: int
    wait: float = 0.0


class FreeFleet(Fleet):
    """Between ends that cost nothing."""

    bound: Bound

    def _open_source(self, stack: contextlib.ExitStack) -> None: ...
    def _drop_source(self) -> None: ...

    def _source_block(self) -> dict[str, Any]:
        return {
            "type": "benchmarks.free:FreeSource",
            "connection_string": "free://",
            "database": self.name,
            "rows": self.bound.rows,
            "wait": self.bound.wait,
        }

    def configuration(self) -> dict[str, Any]:
        tree = super().configuration()
        tree["destination"]["type"] = "benchmarks.free:FreeDestination"
        tree |= {
            "full_load_batch_size": self.bound.batch,
            "chunk_rows": -(-self.bound.rows // CHUNKS),
        }
        return tree


@dataclass(frozen=True, slots=True)
class Shared:
    rate: float  # rows per second, between the first chunk's begin and the last one's end
    cpu: float  # seconds of all workers
    shares: list[int]  # chunks that each worker read


def shared(ready: Servers, bound: Bound, workers: int) -> Shared:
    fleet = FreeFleet(ready, audited=False)
    fleet.bound = bound
    with fleet:
        started = [fleet.worker(slots=SLOTS + (not n)) for n in range(workers)]
        for worker in started:
            fleet.wait_for("it to be up", partial(is_up, worker))
        before = sum(worker.cpu() for worker in started)
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: settled(fleet), 3_600)
        cpu = sum(worker.cpu() for worker in started) - before
        chunks = f"from {METADATA}.sync_runs where unit like 'chunk:%%' and status = 'done'"
        [(seconds,)] = fleet.ask(
            f"select extract(epoch from max(ended_at) - min(started_at))::float8 {chunks}"
        )
        shares = fleet.ask(f"select count(*) {chunks} group by worker")
        return Shared(bound.rows / seconds, cpu, sorted(int(share) for (share,) in shares))


def is_up(worker: Worker) -> bool:
    return bool(worker.said("worker_started"))


def settled(fleet: Fleet) -> bool:
    time.sleep(0.2)  # asked less often than a test would
    return fleet.settled(TABLE)


@dataclass(frozen=True, slots=True)
class Cost:
    rows: int
    cpu: float
    wall: float
    memory: int


def cost(ready: Servers, rows: int) -> Cost:
    """A snapshot of so many rows by a fresh worker."""
    with Fleet(ready, audited=False) as fleet:
        if rows:
            generate(fleet.source[TABLE], rows)
        else:
            fleet.source.create_collection(TABLE)
        worker = fleet.worker(slots=SLOTS)
        fleet.wait_for("the worker to be up", partial(is_up, worker))
        before, begun = worker.cpu(), time.monotonic()
        fleet.coordinator()
        fleet.wait_for("the snapshot to be complete", lambda: settled(fleet), 7_200)
        spent = Cost(rows, worker.cpu() - before, time.monotonic() - begun, worker.peak_memory())
        if fleet.count(TABLE) != rows:
            raise AssertionError(f"expected {rows} rows, found {fleet.count(TABLE)}")
        return spent


def sizes(most: int) -> list[int]:
    """10,000 and each power of ten, up to `most`."""
    found = [LEAST]
    while found[-1] * 10 <= most:
        found.append(found[-1] * 10)
    return found


def report_sharing(report: Report, ready: Servers, rows: int, runs: int) -> None:
    far_rows = min(rows, 8 * CHUNKS * FAR_ROWS)
    for bound in (
        Bound("the workers' own CPU", rows, 10_000),
        Bound("waiting for a far server", far_rows, FAR_ROWS, FAR),
    ):
        pairs = [(shared(ready, bound, 1), shared(ready, bound, 2)) for _ in range(runs)]
        for number in (0, 1):
            found = [pair[number] for pair in pairs]
            times = [pair[number].rate / pair[0].rate for pair in pairs]
            report.add(
                bound.name,
                number + 1,
                spread([one.rate for one in found]),
                "1" if not number else spread(times, ".2f"),
                spread([bound.rows / one.cpu for one in found]),
                " + ".join(map(str, found[-1].shares)),
            )


def report_cost(report: Report, ready: Servers, most: int) -> None:
    empty = median([cost(ready, 0).cpu for _ in range(3)])
    report.note(f"an empty table costs {empty * 1000:.0f} ms of CPU, left out of what follows")
    for rows in sizes(most):
        spent = cost(ready, rows)
        report.note(
            f"{rows:,} rows: {(spent.cpu - empty) / rows * 1e6:.1f} µs of CPU a row "
            f"({spent.cpu / rows * 1e6:.1f} with the empty table's), "
            f"{rows / spent.wall:,.0f} rows per second, peak memory {spent.memory >> 20} MiB"
        )


def main() -> None:
    arguments = parser(__doc__, rows=4_000_000, most=1_000_000, runs=3).parse_args()
    report = Report(
        "scale",
        f"One table's snapshot, {arguments.rows:,} rows at most, by one and by two workers of "
        f"{SLOTS} slots for chunks, between ends that cost nothing; median and range.  Below, "
        "MongoDB to PostgreSQL by one worker, settings at their defaults.",
        (
            "bound by",
            "workers",
            "rows per second",
            "times one",
            "rows per CPU-second of ours",
            "chunks each",
        ),
    )
    with servers(members=1, cache=0.5) as ready:
        report_sharing(report, ready, arguments.rows, arguments.runs)
        report_cost(report, ready, arguments.most)
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
