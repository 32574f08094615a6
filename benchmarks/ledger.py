"""What the ledger takes and gives: claims and releases beside bare round trips of the same run.

    python -m benchmarks ledger [--units 1000] [--processes 4] [--seconds 4] [--save]

Each way runs in the same processes against the same server, one after the other, so that their
ratio holds on a busy machine; so does the server's own CPU time per claim and release.  `bare`
is a script that does nothing, with the ledger's keys: the floor of any scripted store.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import redis

from benchmarks.report import Report, parser, quantile
from warp.leases.redis import KEYS, RedisLeaseStore
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


def main() -> None:
    options = parser(__doc__, units=1000, processes=4, seconds=4).parse_args()
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
        report.note("A claim and its release are two calls, so 0.50 to bare would cost nothing.")
        ledger.close()
    report.finish(save=options.save)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
