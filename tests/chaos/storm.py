"""A seeded schedule of faults that strikes a whole fleet, whatever its source is."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from fleet import TTL, Fleet, Worker

LULL: Final = (0.3, 2.5)  # seconds between two faults: shorter and longer than a takeover


class Storm:
    """Strikes one fault after another; several may be at work at the same time."""

    def __init__(self, fleet: Fleet, seed: int, crash_the_source: Callable[[], None]) -> None:
        self.fleet = fleet
        self._crash_the_source = crash_the_source
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
            self.crash_the_source,
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

    def crash_the_source(self) -> None:
        self._crash_the_source()
