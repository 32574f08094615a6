"""How long a stream stands still when its worker is killed, told to end, or Redis is wiped.

Two workers and a steady load; measured from the signal to the first transaction that the other
worker commits, by the destination's own clock, and as the longest gap between two commits.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

from fleet import TABLES, Fleet, Servers, Worker, Writers, preload, servers

from benchmarks.report import Report, parser, quantile

ROWS = 200  # of each table


def trial(fleet: Fleet, strike: Callable[[Worker], None]) -> float:
    """Seconds from the strike to the successor's first commit."""
    victim = fleet.owner()
    settle(fleet)
    forgive(fleet)
    struck = time.time()
    strike(victim)

    def successor() -> list[float]:
        return [at for at, who, _, _ in fleet.advances() if at > struck and who != victim.label]

    fleet.wait_for("another worker to commit", lambda: bool(successor()))
    victim.start()
    return successor()[0] - struck


def forgive(fleet: Fleet) -> None:
    """Crashes in a row are held back longer each time; here every one shall be the first."""
    with fleet.servers.redis.client() as client:
        client.delete(f"cw:{{{fleet.name}}}:tries")


def wipe(fleet: Fleet) -> float:
    """The longest time between two commits around the wipe."""
    settle(fleet)
    struck = time.time()
    with fleet.servers.redis.client() as client:
        client.flushall()
    settle(fleet, seconds=6.0)
    times = [at for at, _, _, _ in fleet.advances() if at > struck - 1.0]
    return max(b - a for a, b in itertools.pairwise(times))


def settle(fleet: Fleet, seconds: float = 1.0) -> None:
    """Let the stream run for a while: strikes must not follow a rhythm of ours."""
    threading.Event().wait(seconds + random.random())


def kill(worker: Worker) -> None:
    worker.wanted = False
    worker.crash()


def distribution(ready: Servers, ttl: float, trials: int, what: str) -> list[float]:
    with Fleet(ready, ttl=ttl) as fleet:
        preload(fleet.source, ROWS, random.Random(1))
        fleet.coordinator()
        for _ in range(2):
            fleet.worker()
        with Writers(ready.mongo.url, fleet.name, ROWS, 1, threads=1, pause=0.01):
            fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(*TABLES))
            fleet.wait_for("the stream to commit", lambda: len(fleet.advances()) > 5)
            if what == "wiped":
                return [wipe(fleet) for _ in range(trials)]
            strike = kill if what == "killed" else Worker.finish
            return [trial(fleet, strike) for _ in range(trials)]


def main() -> None:
    arguments = parser(__doc__, trials=12).parse_args()
    report = Report(
        "takeover",
        "Seconds that a stream stands still; two workers of one process each, a load of some "
        "90 writes per second.",
        ("", "trials", "p50", "least", "most"),
    )
    cases = {
        "kill -9, lease_ttl 3 s: until the successor commits": ("killed", 3.0),
        "kill -9, lease_ttl 10 s (default): until the successor commits": ("killed", 10.0),
        "SIGTERM: until the successor commits": ("ended", 10.0),
        "Redis FLUSHALL: longest gap between commits": ("wiped", 10.0),
    }
    with servers(members=1) as ready:
        for label, (what, ttl) in cases.items():
            trials = arguments.trials // 2 if what == "wiped" else arguments.trials
            found = distribution(ready, ttl, trials, what)
            report.add(
                label,
                len(found),
                f"{quantile(found, 0.5):.2f}",
                f"{min(found):.2f}",
                f"{max(found):.2f}",
            )
    report.note(
        "each crash is the first in a while: a unit whose worker crashes again within 90 s is held "
        "back for 1, 2, 4 … seconds beyond its lease"
    )
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
