"""Who writes when a worker dies, sleeps or is told to end: one at a time, and nothing twice.

Times are told (pytest -rP --log-level=INFO), never asserted: the machine may be busy.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from fleet import TABLES, TTL, Fleet, Servers, Writers, broken, preload
from fleet_zombie import (
    PATIENT,
    WITHOUT_COMPARE_AND_SET,
    it_writes_nothing,
    successor_of,
    the_audit_finds_it,
    zombie,
)
from warehouses import METADATA

pytestmark = pytest.mark.xdist_group("fleet")
log = logging.getLogger(__name__)

ROWS = 300  # of each table


@contextmanager
def streaming(servers: Servers, *, workers: int = 2) -> Iterator[Fleet]:
    """A fleet that follows the log while somebody writes; equal and without a fault in the end."""
    with Fleet(servers, write_batch_size=50, promote_after="1s") as fleet:
        preload(fleet.source, ROWS, random.Random(1))
        fleet.coordinator()
        for _ in range(workers):
            fleet.worker()
        with Writers(servers.mongo.url, fleet.name, ROWS, 1, threads=1, pause=0.01):
            fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(*TABLES))
            fleet.wait_for("the stream to commit", lambda: len(fleet.advances()) > 3)
            yield fleet
        fleet.catch_up(TABLES)
        assert fleet.differences(TABLES) == []
        assert fleet.faults() == []


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_after_kill_9_another_worker_carries_the_stream_on(fragile: Servers) -> None:
    with streaming(fragile) as fleet:
        victim = fleet.owner()
        struck = time.time()
        victim.crash()
        log.info("taken over %.2f s after kill -9", successor_of(fleet, victim, struck))


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="SIGTERM")
def test_on_sigterm_a_worker_hands_its_stream_over_and_ends(fragile: Servers) -> None:
    with streaming(fragile) as fleet:
        victim = fleet.owner()
        before = fleet.open_runs()
        struck = time.time()
        victim.finish()
        log.info("handed over %.2f s after SIGTERM", successor_of(fleet, victim, struck))
        assert not set(before) & set(fleet.open_runs())


@pytest.mark.holds(guarantee=(2, 7), source="mongodb", destination="postgresql", fault="SIGSTOP")
def test_a_worker_that_slept_through_its_lease_leaves_the_stream_to_its_successor(
    fragile: Servers,
) -> None:
    with streaming(fragile) as fleet:
        victim = fleet.owner()
        struck = time.time()
        victim.pause()
        log.info("taken over %.2f s after SIGSTOP", successor_of(fleet, victim, struck))
        victim.resume()
        fleet.wait_for(
            "the sleeper to notice",
            lambda: any(e["status"] == "lost" for e in victim.said("unit_released")),
        )


@pytest.mark.holds(guarantee=(2, 7), source="mongodb", destination="postgresql", fault="FLUSHALL")
def test_a_wiped_redis_costs_the_stream_a_pause_and_nothing_else(fragile: Servers) -> None:
    with streaming(fragile) as fleet:
        struck = time.time()
        with fragile.redis.client() as client:
            client.flushall()
        fleet.wait_for(
            "the stream to commit for a while after the wipe",
            lambda: bool(fleet.advances()) and fleet.advances()[-1][0] > struck + 2 * TTL,
        )
        times = [at for at, _, _, _ in fleet.advances() if at > struck - 1]
        log.info("longest gap %.2f s", max(b - a for a, b in pairwise(times)))


@pytest.mark.holds(guarantee=8, source="mongodb", destination="postgresql", fault="kill -9")
def test_a_chunk_whose_worker_died_at_its_commit_is_done_and_its_run_ended(
    fragile: Servers,
) -> None:
    """Nobody opens a finished chunk again, so its run must end with the rows (guarantee 8)."""
    with Fleet(fragile) as fleet:
        fleet.source["orders"].insert_many([{"_id": n, "name": "n"} for n in range(100)])
        # Every process of this worker dies at its first commit, whatever that is of; so did the
        # one that finished the chunk.
        doomed = fleet.worker({"CARTRIDGE_WARP_FAULT": "after_commit:kill:1"}, slots=1)
        fleet.coordinator()
        fleet.wait_for(
            "the chunk to be done",
            lambda: bool(
                fleet.ask(
                    f"select from {METADATA}.sync_markers where kind = 'chunk' and phase = 'done'"
                )
            ),
        )
        doomed.finish()
        fleet.worker()
        fleet.catch_up(["orders"])
        assert fleet.differences(["orders"]) == []
        assert fleet.faults() == []


@pytest.mark.holds(guarantee=2, source="mongodb", destination="postgresql", fault="SIGSTOP")
def test_a_zombie_that_wakes_inside_its_transaction_writes_nothing(fragile: Servers) -> None:
    with Fleet(fragile, destination=PATIENT) as fleet, zombie(fleet) as sleeper:
        it_writes_nothing(fleet, sleeper)


def test_without_the_markers_compare_and_set_the_audit_finds_the_zombie(fragile: Servers) -> None:
    """The broken twin of guarantees 2 and 7."""
    with (
        broken(WITHOUT_COMPARE_AND_SET) as environment,
        Fleet(fragile, destination=PATIENT) as fleet,
        zombie(fleet, environment),
    ):
        the_audit_finds_it(fleet)
