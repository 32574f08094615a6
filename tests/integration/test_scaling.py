"""A simulated autoscaler grows and shrinks real workers by the number that KEDA reads."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
import redis
from fix_servers import Server
from processes import Command, Fleet, eventually, fleet_between
from pymongo.database import Database
from test_keda import keda

from commands import drain
from coordinator.autoscale import BUSY_PART
from warp.assembly import Plugged
from warp.config import load
from workers import errands

SLOTS, MOST = 3, 4
SHOPS = [f"shop{n}" for n in range(5)]
HOLD = 2.0  # seconds; Kubernetes' stabilization window, which is 300


class Scaler:
    """As a HorizontalPodAutoscaler: up at once, down by the highest wish of a while.

    Of the pods the idlest goes, as its deletion cost says, and is drained before it is told to end.
    """

    def __init__(self, fleet: Fleet, client: redis.Redis) -> None:
        self.fleet = fleet
        self.workers: list[Command] = []
        self.gone: list[Command] = []
        self.sizes: list[int] = []
        self._client = client
        self._wishes: list[tuple[float, int]] = []

    def look(self) -> int:
        demand = keda(self._client, self.fleet.namespace)
        per_worker = math.floor(SLOTS * BUSY_PART)
        now = time.monotonic()
        self._wishes = [(at, wish) for at, wish in self._wishes if now - at < HOLD]
        self._wishes.append((now, max(1, min(MOST, math.ceil(demand / per_worker)))))
        wanted = max(wish for _, wish in self._wishes)
        while len(self.workers) < wanted:
            self.workers.append(self.fleet.worker())
        if len(self.workers) > wanted:
            victim = min(self.workers, key=self._held)
            ids = [w.id for w in self.fleet.ledger.workers() if victim.owns(w.id)]
            assert drain.run(self.fleet.ledger, ids, 60.0) == []
            victim.process.send_signal(signal.SIGTERM)
            self.workers.remove(victim)
            self.gone.append(victim)
        if self.sizes[-1:] != [len(self.workers)]:
            self.sizes.append(len(self.workers))
        return len(self.workers)

    def _held(self, worker: Command) -> int:
        return sum(w.held for w in self.fleet.ledger.workers() if worker.owns(w.id))

    def settles_at(self, size: int) -> None:
        eventually(
            lambda: self.look() == size and {wish for _, wish in self._wishes} == {size},
            f"{size} workers, found {self.sizes}",
        )


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    name = mongo_database.name
    with fleet_between(tmp_path, mongo.url, name, pg_database, redis_server.url) as fleet:
        fleet.settings["schemas"] = [{"name": shop} for shop in SHOPS]
        fleet.settings["coordination"]["slots"] = SLOTS
        for shop in SHOPS:
            fleet.insert(shop, 0, 20)
        yield fleet


def test_workers_follow_the_demand_without_flapping_and_lose_nothing(fleet: Fleet) -> None:
    with redis.Redis.from_url(fleet.redis_url) as client:
        scaler = Scaler(fleet, client)
        scaler.settles_at(1)  # nothing to do yet
        fleet.coordinator()
        eventually(
            lambda: scaler.look() and all(len(fleet.rows(shop)) == 20 for shop in SHOPS),
            "the snapshots",
        )
        scaler.settles_at(3)  # five streams on workers of three slots, of which a fifth stays free
        for shop in SHOPS:
            fleet.insert(shop, 100, 110)
        assembly = Plugged(load(fleet.config, os.environ))
        with contextlib.closing(assembly.bookkeeping()) as destination:
            desk = errands.Desk(destination.metadata(), fleet.ledger, assembly)
            for shop in SHOPS[2:]:
                fleet.arrives(shop, 109)
                errands.pause(desk, schema=shop)
        scaler.settles_at(1)
        for shop in SHOPS[:2]:
            fleet.insert(shop, 200, 210)
            fleet.arrives(shop, 209)
        # As the chart's hook does before a pod is stopped.
        [last] = scaler.workers
        drained = programs.run("commands.cli", "drain", "--here", "--config", str(fleet.config))
        assert drained.returncode == 0, drained.stderr
        assert sum(worker.held for worker in fleet.ledger.workers()) == 0
        assert last.process.poll() is None
        # Up, then down; never up again after down.
        top = scaler.sizes.index(max(scaler.sizes))
        assert scaler.sizes[: top + 1] == sorted(scaler.sizes[: top + 1])
        assert scaler.sizes[top:] == sorted(scaler.sizes[top:], reverse=True)
        for worker in scaler.gone:
            assert worker.process.wait(timeout=30) == 0
    assert [len(fleet.rows(shop)) for shop in SHOPS] == [40, 40, 30, 30, 30]
    # Whoever left handed everything over: nobody had to wait for a lease to run out.
    assert fleet.asked(
        "select count(*) from cartridge_warp_metadata.sync_runs where status = 'abandoned'"
    ) == [(0,)]
