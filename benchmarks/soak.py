"""A steady load for an hour or a day with a fault every minute: what grows, and how late rows are.

The runs of `make chaos`, with few faults and long; measured once a minute, judged in the end.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil
import psycopg
import redis
from fleet import Fleet
from lateness import arrivals, behind, share_within, slope
from ordeal import SOURCES, Plan, Verdict, run, scene_of, told
from warehouses import METADATA

from benchmarks.report import RESULTS, Report, quantile

MINUTE: Final = 60.0
WARM_UP: Final = 120.0  # seconds: processes that just started grow
MEBIBYTE: Final = 1 << 20
TOO_LATE: Final = 10.0  # seconds of lag that are still promised

Sample = dict[str, float]

MEASURES: Final[dict[str, str]] = {
    "memory": "MiB resident, of all processes of the fleet",
    "largest": "MiB resident, of the largest process",
    "files": "file descriptors",
    "threads": "threads",
    "processes": "processes",
    "connections": "connections to the destination",
    "redis clients": "connections to Redis",
    "redis": "MiB used by Redis",
    "redis keys": "keys in Redis",
    "metadata": "MiB of the metadata schema",
    "load": "load average of the machine, of the last minute",
    "metadata kept": "MiB of its deletion_audit and quarantine, which keep what happened",
}


class Sampler:
    """Looks at a fleet once in a while, from a thread of its own."""

    def __init__(self, fleet: Fleet, every: float) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self._fleet = fleet
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="sampler")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_again(self) -> None:
        looks: list[Callable[[], Sample]] = [self._processes, self._redis, self._destination]
        while not self._over.wait(self._every):
            seen: Sample = {}
            for look in looks:
                # A server that is away now is there for the next sample.
                with suppress(psycopg.Error, redis.RedisError, psutil.Error):
                    seen |= look()
            self.samples.append((time.time(), seen))

    def _processes(self) -> Sample:
        members: list[psutil.Process] = []
        for program in self._fleet.programs:
            with suppress(psutil.Error):
                if program.running:
                    leader = psutil.Process(program.pid)
                    members += [leader, *leader.children(recursive=True)]
        sizes, files, threads = [0.0], 0, 0
        for member in members:
            with suppress(psutil.Error):
                sizes.append(member.memory_info().rss / MEBIBYTE)
                files += member.num_fds()
                threads += member.num_threads()
        return {
            "memory": sum(sizes),
            "largest": max(sizes),
            "files": files,
            "threads": threads,
            "processes": len(members),
            "load": os.getloadavg()[0],
        }

    def _redis(self) -> Sample:
        with self._fleet.servers.redis.client() as client:
            info: dict[str, Any] = client.info()
            return {
                "redis": info["used_memory"] / MEBIBYTE,
                "redis clients": info["connected_clients"],
                "redis keys": client.dbsize(),
            }

    def _destination(self) -> Sample:
        with self._fleet.destination() as connection:
            sizes = dict(
                connection.execute(
                    "select relname::text, pg_total_relation_size(c.oid) from pg_class c"
                    " join pg_namespace n on n.oid = relnamespace"
                    " where nspname = %s and relkind = 'r'",
                    (METADATA,),
                ).fetchall()
            )
            row = connection.execute(
                "select count(*) from pg_stat_activity where usename = %s", (self._fleet.name,)
            ).fetchone()
        kept = sum(sizes.pop(name, 0) for name in ("deletion_audit", "quarantine"))
        return {
            "connections": row[0] if row else 0,
            "metadata": sum(sizes.values()) / MEBIBYTE,
            "metadata kept": kept / MEBIBYTE,
        }


def report_of(
    source: str, plan: Plan, verdict: Verdict, samples: list[tuple[float, Sample]]
) -> Report:
    lasted = verdict.outages[-1][1] - verdict.outages[0][0] if verdict.outages else 0.0
    report = Report(
        f"soak_{source}",
        f"{source} to PostgreSQL for {lasted / 60:.0f} minutes with a fault about every "
        f"{sum(plan.lull) / 2:.0f} s, seed {plan.seed}; lease_ttl {plan.ttl:g} s, a coordinator "
        "and three workers; two loads write all the time.  The slope is of a straight line "
        "through the samples of one a minute, without the first two minutes.",
        ("", "first", "last", "least", "most", "slope an hour"),
    )
    for name, what in MEASURES.items():
        points = [(at, seen[name]) for at, seen in samples if name in seen]
        points = [p for p in points if p[0] - samples[0][0] >= WARM_UP] or points
        if points:
            values = [value for _, value in points]
            report.add(
                what,
                *(f"{v:,.1f}" for v in (values[0], values[-1], min(values), max(values))),
                f"{slope(points) * 3600:+,.1f}",
            )
    tell_lateness(report, verdict)
    tell_verdict(report, verdict)
    return report


def tell_lateness(report: Report, verdict: Verdict) -> None:
    """Of the events written while faults struck."""
    if verdict.seen is None or not verdict.outages:
        return
    began, ended = verdict.outages[0][0], verdict.outages[-1][1]
    events = [event for event in verdict.history if began <= event.at <= ended]
    came = list(arrivals(events, verdict.seen.applied))
    lags = [max(0.0, there - written) for written, there in came]
    if not lags:
        return
    told_ = ", ".join(f"p{part * 100:g} {quantile(lags, part):.2f}" for part in (0.5, 0.9, 0.99))
    report.note(
        f"lag of {len(lags):,} events with a known place, from their write to the commit at the "
        f"destination, in seconds: {told_}, most {max(lags):.2f}"
    )
    late = behind(came, TOO_LATE)
    everything = share_within((began, ended), late)
    calm = share_within((began, ended), late, verdict.outages)
    report.note(
        f"seconds with a lag below {TOO_LATE:g} s: {everything:.3%} of all, {calm:.3%} of those "
        "outside injected outages (a fault's own time: not what it takes to recover from it); "
        "the goal is 99.9 %"
    )
    spans = ", ".join(f"{end - start:.1f}" for start, end in late)
    report.note(f"times behind by more than that: {len(late)} ({spans or 'none'}) seconds long")


def tell_verdict(report: Report, verdict: Verdict) -> None:
    struck = ", ".join(f"{count} {name}" for name, count in sorted(verdict.struck.items()))
    report.note(f"faults: {struck}")
    for line in verdict.said:
        report.note(line)
    found = f"{len(verdict.accusations)} accusations: {told(verdict, 3)}"
    report.note(f"the verdict: {found if verdict.accusations else 'true'}")


def table_of(samples: list[tuple[float, Sample]]) -> str:
    lines = ["", "| minute | " + " | ".join(MEASURES) + " |", "| --- " * (1 + len(MEASURES)) + "|"]
    for at, seen in samples:
        minute = (at - samples[0][0]) / MINUTE
        cells = (f"{seen[name]:,.1f}" if name in seen else "" for name in MEASURES)
        lines.append(f"| {minute:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    arguments = options().parse_args()
    seed = arguments.seed or random.SystemRandom().randrange(1, 1 << 31)
    plan = Plan(
        seed,
        arguments.minutes * MINUTE,
        pause=0.05,
        lull=(0.9 * arguments.every, 1.1 * arguments.every),
        ttl=arguments.ttl,
        refused=0.0,
    )
    with (
        tempfile.TemporaryDirectory(prefix="cartridge-warp-soak-") as directory,
        scene_of(arguments.source, plan) as scene,
        Sampler(scene.fleet, MINUTE) as sampler,
    ):
        verdict = run(scene, plan, Path(directory), lambda line: print(line, flush=True))
    samples = [(at, seen) for at, seen in sampler.samples if seen.get("processes")]
    report = report_of(arguments.source, plan, verdict, samples)
    if arguments.save:
        path = RESULTS / f"{report.name}.md"
        path.write_text(report.text() + table_of(samples))
        print(f"saved {path}")
    return 1 if verdict.accusations else 0


def options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--save", action="store_true", help="keep it in benchmarks/results/")
    made.add_argument("--source", choices=SOURCES, default="mongodb")
    made.add_argument("--minutes", type=float, default=60.0)
    made.add_argument("--every", type=float, default=60.0, help="seconds between two faults")
    made.add_argument("--ttl", type=float, default=10.0, help="seconds, of a lease")
    made.add_argument("--seed", type=int, default=0, help="0: any, and it is told")
    return made


if __name__ == "__main__":
    sys.exit(main())
