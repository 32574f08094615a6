"""Everything goes wrong at once, and in the end both sides are equal (guarantees 1, 2, 4, 5, 7, 8).

A seeded schedule of faults strikes a whole fleet while it takes its snapshot and follows the log.
CARTRIDGE_WARP_STORM_SECONDS makes it last longer, CARTRIDGE_WARP_STORM_SEED another one.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from fleet import TABLES, TTL, Fleet, Servers, Worker, Writers, preload

from warp.testing.servers import ReplicaSet

pytestmark = [
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(600 + int(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "0"))),
]

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "30"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
ROWS = 10_000  # of each table before the storm
LULL = (0.3, 2.5)  # seconds between two faults: shorter and longer than a takeover


class Storm:
    """Strikes one fault after another; several may be at work at the same time."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.chosen = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self._paused: dict[Worker, float] = {}  # until when
        self._faults: list[Callable[[], None]] = [
            self.kill_a_worker,
            self.kill_one_process_of_a_worker,
            self.kill_the_coordinator,
            self.pause_a_worker,
            self.end_a_worker,
            self.wipe_redis,
            self.crash_redis,
            self.restart_postgres,
            self.crash_postgres,
            self.crash_the_primary,
        ]

    def rage(self, seconds: float) -> None:
        """Every kind of fault once in a seeded order, and again until the time is over."""
        calm = threading.Event()
        end = time.monotonic() + seconds
        waiting: list[Callable[[], None]] = []
        while time.monotonic() < end or len(self.struck) < len(self._faults):
            if not waiting:
                waiting = self.chosen.sample(self._faults, len(self._faults))
            fault = waiting.pop()
            self.struck[fault.__name__] += 1
            fault()
            calm.wait(self.chosen.uniform(*LULL))
            self._wake(time.monotonic())
        self._wake(float("inf"))

    def _wake(self, now: float) -> None:
        for worker, until in list(self._paused.items()):
            if now >= until:
                del self._paused[worker]
                with worker.lock:
                    if worker.running:
                        worker.resume()

    def _a_worker(self) -> Worker:
        return self.chosen.choice([w for w in self.fleet.workers if w not in self._paused])

    def kill_a_worker(self) -> None:
        self._a_worker().crash()

    def kill_one_process_of_a_worker(self) -> None:
        self._a_worker().kill_one(self.chosen)

    def kill_the_coordinator(self) -> None:
        self.fleet.programs[0].crash()

    def pause_a_worker(self) -> None:
        """For longer than its leases last, so that it wakes as a zombie."""
        if len(self._paused) < 2:
            worker = self._a_worker()
            with worker.lock:
                if worker.running:
                    worker.pause()
                    self._paused[worker] = time.monotonic() + 1.5 * TTL

    def end_a_worker(self) -> None:
        """As a rolling update does; the supervisor starts it again."""
        worker = self._a_worker()
        worker.finish()
        worker.start()

    def wipe_redis(self) -> None:
        with self.fleet.servers.redis.client() as client:
            client.flushall()

    def crash_redis(self) -> None:
        """It keeps nothing on disk, so it comes back empty."""
        self.fleet.servers.redis.restart(hard=True)

    def restart_postgres(self) -> None:
        self.fleet.servers.postgres.restart()

    def crash_postgres(self) -> None:
        self.fleet.servers.postgres.restart(hard=True)

    def crash_the_primary(self) -> None:
        mongo = self.fleet.servers.mongo
        assert isinstance(mongo, ReplicaSet)
        mongo.wait_for_primary().restart(hard=True)


def test_after_a_storm_of_faults_the_destination_equals_the_source(fragile: Servers) -> None:
    with Fleet(
        fragile, chunk_rows=400, full_load_batch_size=100, write_batch_size=100, promote_after="1s"
    ) as fleet:
        preload(fleet.source, ROWS, random.Random(SEED))
        with Writers(fragile.mongo.url, fleet.name, ROWS + 1_000, SEED) as writers:
            fleet.coordinator()
            for _ in range(3):
                fleet.worker()
            fleet.supervise()
            fleet.wait_for("the snapshot to begin", lambda: any(map(fleet.count, TABLES)))
            storm = Storm(fleet, SEED)
            storm.rage(SECONDS)
        fleet.catch_up(TABLES, limit=120)
        log.info("struck %s", dict(storm.struck))
        log.info("written %s, carried in %d batches", dict(writers.made), len(fleet.advances()))
        log.info("lives %s, deaths %s", [(p.label, p.lives) for p in fleet.programs], fleet.deaths)
        assert fleet.differences(TABLES) == []
        assert fleet.faults() == []
        fleet.wait_for(
            "children of killed leaders to have ended by themselves",
            lambda: not any(program.orphans() for program in fleet.programs),
        )
