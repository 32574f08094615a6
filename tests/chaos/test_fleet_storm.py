"""Everything goes wrong at once, and in the end both sides are equal (guarantees 1, 2, 4, 5, 7, 8).

A seeded schedule of faults strikes a whole fleet while it takes its snapshot and follows the log.
CARTRIDGE_WARP_STORM_SECONDS makes it last longer, CARTRIDGE_WARP_STORM_SEED another one.
"""

from __future__ import annotations

import logging
import os
import random
from functools import partial

import pytest
from fleet import TABLES, Fleet, Servers, Writers, preload
from storm import Storm

from warp.testing.servers import ReplicaSet

pytestmark = [
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(600 + int(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "0"))),
]

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "30"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
ROWS = 10_000  # of each table before the storm


def crash_the_primary(servers: Servers) -> None:
    assert isinstance(servers.mongo, ReplicaSet)
    servers.mongo.wait_for_primary().restart(hard=True)


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
            storm = Storm(fleet, SEED, partial(crash_the_primary, fragile))
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
