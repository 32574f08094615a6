"""The same faults as with MongoDB, with PostgreSQL and MariaDB as sources (guarantees 1 to 8).

CARTRIDGE_WARP_STORM_SECONDS and CARTRIDGE_WARP_STORM_SEED as in `test_fleet_storm`.
"""

from __future__ import annotations

import logging
import os
import random
from functools import partial
from typing import Final

import pytest
from fleet import Servers
from sql_fleet import TABLES, Origin, SqlFleet, SqlWriters
from storm import Storm

pytestmark = [
    pytest.mark.xdist_group("sql-fleet"),
    pytest.mark.timeout(600 + int(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "0"))),
]

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "10"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
MINUTE: Final = 60.0  # seconds


@pytest.fixture(params=["postgres_origin", "mariadb_origin"])
def origin(request: pytest.FixtureRequest) -> Origin:
    found: Origin = request.getfixturevalue(request.param)
    return found


def storm_over(ours: Servers, origin: Origin, seconds: float, *, rows: int, pause: float) -> None:
    """`rows` are in each table before the storm; writers wait for `pause` seconds between two."""
    with SqlFleet(
        ours, origin, chunk_rows=400, full_load_batch_size=100, write_batch_size=100
    ) as fleet:
        fleet.preload(rows, random.Random(SEED))
        with SqlWriters(origin, fleet.name, rows + 500, SEED, pause=pause) as writers:
            fleet.coordinator()
            for _ in range(3):
                fleet.worker()
            fleet.supervise()
            fleet.wait_for("the snapshot to begin", lambda: any(map(fleet.count, TABLES)))
            # A column that comes while chunks are read and the log is followed.
            fleet.execute("alter table orders add column colour varchar(20) default 'none'")
            fleet.execute("update orders set colour = 'red' where id < 200")
            storm = Storm(fleet, SEED, partial(origin.server.restart, hard=True))
            storm.rage(seconds)
        fleet.catch_up(TABLES, limit=120)
        log.info("struck %s", dict(storm.struck))
        log.info("written %s, carried in %d batches", dict(writers.made), len(fleet.advances()))
        log.info("lives %s, deaths %s", [(p.label, p.lives) for p in fleet.programs], fleet.deaths)
        assert fleet.differences(TABLES) == []
        assert "\n".join(fleet.faults()) == ""
        fleet.wait_for(
            "children of killed leaders to have ended by themselves",
            lambda: not any(program.orphans() for program in fleet.programs),
        )


@pytest.mark.holds(
    guarantee=(1, 2, 4, 5, 7, 8),
    source=("postgresql", "mariadb"),
    destination="postgresql",
    fault="storm",
)
def test_after_a_storm_of_faults_the_destination_equals_the_source(
    fragile_sql: Servers, origin: Origin
) -> None:
    storm_over(fragile_sql, origin, SECONDS, rows=2_000, pause=0.01)


@pytest.mark.soak
def test_after_a_storm_of_a_minute_over_more_rows_both_sides_are_equal(
    fragile_sql: Servers, origin: Origin
) -> None:
    storm_over(fragile_sql, origin, max(SECONDS, MINUTE), rows=5_000, pause=0.002)
