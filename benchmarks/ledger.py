"""What the ledger takes and gives: claims and releases beside bare round trips of the same run.

    python -m benchmarks ledger [--units 1000] [--processes 4] [--seconds 4] [--held 10000] [--save]

Each way runs in the same processes against the same server, one after the other, so that their
ratio holds on a busy machine; so does the server's own CPU time per claim and release.  `bare`
is a script that does nothing, with the ledger's keys: the floor of any scripted store.

A round is what a fleet that holds `--held` units asks for once in a third of the ttl: each of its
workers claims what is free and renews what it holds, one after the other.  It must not keep the
server from anybody else, so the longest call counts as well.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import redis

from benchmarks.report import Report, parser, quantile
from warp.leases.redis import KEYS, MOST_RENEWED, RedisLeaseStore
from warp.model import Lease, WorkUnit
from warp.testing.servers import RedisServer

NAMESPACE = "bench"
TTL = 30.0
NOTHING = "return 1"
BATCHES = (1, 16)


@dataclass(frozen=True, slots=True)
class Ran:
    """What one process did."""

    done: int  # pings, calls, or units claimed and released
    seconds: float
    latencies: list[float]  # of each ping, call or claim


def run(url: str, way: str, batch: int, seconds: float, number: int) -> Ran:
    ledger = RedisLeaseStore(url, NAMESPACE, lease_ttl=TTL)
    worker = f"worker-{number}"
    step = steps(url, ledger)[way]
    if way == "claim":
        ledger.renew(worker, [], ttl=TTL, slots=batch)
    latencies: list[float] = []
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        leases = step(worker, batch)
        latencies.append(time.perf_counter() - asked)
        if leases is None:
            done += 1
            continue
        for lease in leases:
            ledger.release(lease)
        done += len(leases)
    ran = Ran(done, time.perf_counter() - began, latencies)
    ledger.close()
    return ran


def steps(url: str, ledger: RedisLeaseStore) -> dict[str, Callable[[str, int], list[Lease] | None]]:
    client = redis.Redis.from_url(url)
    digest = hashlib.sha1(NOTHING.encode(), usedforsecurity=False).hexdigest()
    keys = [f"cw:{{{NAMESPACE}}}:{key}" for key in KEYS]

    def ping(worker: str, batch: int) -> None:
        client.ping()

    def bare(worker: str, batch: int) -> None:
        client.evalsha(digest, len(keys), *keys)

    def claim(worker: str, batch: int) -> list[Lease]:
        return ledger.claim(worker, batch, ttl=TTL, slots=batch)

    return {"ping": ping, "bare": bare, "claim": claim}


def server_cpu(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def measured(
    url: str, client: redis.Redis, processes: int, seconds: float
) -> Iterator[tuple[str, int, list[Ran], float]]:
    # By its import name: what a process is sent is looked up by name, and here we are __main__.
    from benchmarks.ledger import run

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for way, batch in (("ping", 1), ("bare", 1), *(("claim", b) for b in BATCHES)):
            before = server_cpu(client)
            asked = [pool.submit(run, url, way, batch, seconds, n) for n in range(processes)]
            yield way, batch, [a.result() for a in asked], server_cpu(client) - before


@dataclass(frozen=True, slots=True)
class Round:
    """One call by each worker of a fleet, in seconds."""

    wall: float
    longest: float
    server: float

    def __str__(self) -> str:
        wall, longest, server = (f"{s * 1e3:.1f}" for s in (self.wall, self.longest, self.server))
        return f"{wall} ms, the server's CPU of it {server} ms, the longest call {longest} ms"


def round_of(client: redis.Redis, calls: Sequence[Callable[[], object]]) -> Round:
    before = server_cpu(client)
    took = [timed(call) for call in calls]
    return Round(sum(took), max(took), server_cpu(client) - before)


def rounds(url: str, client: redis.Redis, held: int) -> Iterator[str]:
    """A fleet takes all there is; then rounds in which it keeps that, and claims what is free."""
    ledger = RedisLeaseStore(url, f"{NAMESPACE}-held", lease_ttl=TTL)
    ledger.ensure([WorkUnit.stream(f"schema-{n}") for n in range(held)])
    fleet = [f"worker-{n}" for n in range(-(-held // MOST_RENEWED))]
    leases: dict[str, list[Lease]] = {}

    def claim(worker: str) -> None:
        leases[worker] = ledger.claim(worker, MOST_RENEWED, ttl=TTL, slots=MOST_RENEWED)

    def keep(worker: str) -> None:
        shed, kept = ledger.renew(worker, leases[worker], ttl=TTL, slots=MOST_RENEWED)
        if shed or not all(kept):
            raise AssertionError(f"expected {worker} to keep all it holds, found a loss")
        ledger.claim(worker, 1, ttl=TTL, slots=MOST_RENEWED)

    for worker in fleet:  # so that each is one of many, and has its share
        ledger.renew(worker, [], ttl=TTL, slots=MOST_RENEWED)
    first = round_of(client, [partial(claim, worker) for worker in fleet])
    yield f"{len(fleet)} workers claim {held:,} units: {first}."
    found = [round_of(client, [partial(keep, worker) for worker in fleet]) for _ in range(20)]
    middle = sorted(found, key=lambda one: one.wall)[len(found) // 2]
    yield f"They renew all of them and ask for more, the median of {len(found)} rounds: {middle}."
    ledger.close()


def main() -> None:
    options = parser(__doc__, units=1000, processes=4, seconds=4, held=10_000).parse_args()
    report = Report(
        "ledger",
        f"{options.units:,} streams, {options.processes} processes that claim and release, "
        "or do nothing but ask.",
        ("way", "units a second", "to bare", "p50 ms", "p99 ms", "server µs each"),
    )
    with RedisServer("redis7") as server, server.client() as client:
        client.script_load(NOTHING)
        ledger = RedisLeaseStore(server.url, NAMESPACE, lease_ttl=TTL)
        ledger.ensure([WorkUnit.stream(f"schema-{n}") for n in range(options.units)])
        floor = 0.0
        for way, batch, ran, cpu in measured(
            server.url, client, options.processes, options.seconds
        ):
            rate = sum(r.done / r.seconds for r in ran)
            if way == "bare":
                floor = rate
            latencies = [latency for r in ran for latency in r.latencies]
            report.add(
                f"claim {batch}, release each" if way == "claim" else way,
                f"{rate:,.0f}",
                f"{rate / floor:.2f}" if floor else "-",
                f"{quantile(latencies, 0.5) * 1e3:.2f}",
                f"{quantile(latencies, 0.99) * 1e3:.2f}",
                f"{cpu / sum(r.done for r in ran) * 1e6:.0f}",
            )
        leases = ledger.claim("renewer", 250, ttl=TTL, slots=250)
        renewals = [
            timed(lambda: ledger.renew("renewer", leases, ttl=TTL, slots=250)) for _ in range(50)
        ]
        report.note(
            f"A renewal of {len(leases)} leases: p50 {quantile(renewals, 0.5) * 1e3:.1f} ms, "
            f"p99 {quantile(renewals, 0.99) * 1e3:.1f} ms."
        )
        for told in rounds(server.url, client, options.held):
            report.note(told)
        report.note("A claim and its release are two calls, so 0.50 to bare would cost nothing.")
        ledger.close()
    report.finish(save=options.save)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
