"""Everything goes wrong at once, and in the end both sides are equal (guarantees 1, 2, 4, 5, 7, 8).

A seeded schedule of faults strikes a whole fleet while it takes its snapshot and follows the log.
CARTRIDGE_WARP_STORM_SECONDS makes it last longer, CARTRIDGE_WARP_STORM_SEED another one.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest
from fleet import TABLES, Fleet, Servers, Writers, preload, servers
from storm import Storm

from warp.testing.servers import ReplicaSet

pytestmark = [
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(600 + int(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "0"))),
]

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "15"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
MINUTE: Final = 60.0  # seconds


@pytest.fixture(scope="module")
def of_three_members() -> Iterator[Servers]:
    """Servers whose MongoDB elects another primary when one goes."""
    with servers(members=3) as ours:
        yield ours


def crash_the_primary(servers: Servers) -> None:
    assert isinstance(servers.mongo, ReplicaSet)
    servers.mongo.wait_for_primary().restart(hard=True)


def storm_over(ours: Servers, seconds: float, *, rows: int, pause: float) -> None:
    """`rows` are in each table before the storm; writers wait for `pause` seconds between two."""
    with Fleet(
        ours, chunk_rows=400, full_load_batch_size=100, write_batch_size=100, promote_after="1s"
    ) as fleet:
        preload(fleet.source, rows, random.Random(SEED))
        keys = rows + rows // 10
        with Writers(ours.mongo.url, fleet.name, keys, SEED, pause=pause) as writers:
            fleet.coordinator()
            for _ in range(3):
                fleet.worker()
            fleet.supervise()
            fleet.wait_for("the snapshot to begin", lambda: any(map(fleet.count, TABLES)))
            storm = Storm(fleet, SEED, partial(crash_the_primary, ours))
            storm.rage(seconds)
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


@pytest.mark.holds(
    guarantee=(1, 2, 4, 5, 7, 8), source="mongodb", destination="postgresql", fault="storm"
)
def test_after_a_storm_of_faults_the_destination_equals_the_source(
    of_three_members: Servers,
) -> None:
    storm_over(of_three_members, SECONDS, rows=4_000, pause=0.01)


@pytest.mark.soak
def test_after_a_storm_of_a_minute_over_more_rows_both_sides_are_equal(
    of_three_members: Servers,
) -> None:
    storm_over(of_three_members, max(SECONDS, MINUTE), rows=10_000, pause=0.002)
