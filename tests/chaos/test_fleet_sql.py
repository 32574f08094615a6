"""The same faults as with MongoDB, with PostgreSQL and MariaDB as sources (guarantees 1 to 8).

CARTRIDGE_WARP_STORM_SECONDS and CARTRIDGE_WARP_STORM_SEED as in `test_fleet_storm`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import pytest
from fleet import Servers
from ordeal import Plan, at_sql, run, told
from sql_fleet import Origin

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "10"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
MINUTE: Final = 60.0  # seconds

pytestmark = [pytest.mark.xdist_group("sql-fleet"), pytest.mark.timeout(600 + int(SECONDS))]

log = logging.getLogger(__name__)


@pytest.fixture(params=["postgres_origin", "mariadb_origin"])
def origin(request: pytest.FixtureRequest) -> Origin:
    found: Origin = request.getfixturevalue(request.param)
    return found


def storm_over(ours: Servers, origin: Origin, plan: Plan, directory: Path) -> None:
    with at_sql(ours, origin, plan) as scene:
        verdict = run(scene, plan, directory, log.info)
        log.info("%s", "\n".join(verdict.said))
        assert told(verdict) == ""


@pytest.mark.holds(
    guarantee=(1, 2, 4, 5, 7, 8),
    source=("postgresql", "mariadb"),
    destination="postgresql",
    fault="storm",
)
def test_after_a_storm_of_faults_the_destination_equals_the_source(
    fragile_sql: Servers, origin: Origin, tmp_path: Path
) -> None:
    plan = Plan(SEED, SECONDS, pause=0.02, lull=(0.2, 1.4))
    storm_over(fragile_sql, origin, plan, tmp_path)


@pytest.mark.soak
def test_after_a_storm_of_a_minute_over_more_rows_both_sides_are_equal(
    fragile_sql: Servers, origin: Origin, tmp_path: Path
) -> None:
    plan = Plan(SEED, max(SECONDS, MINUTE), rows=5_000, pause=0.002)
    storm_over(fragile_sql, origin, plan, tmp_path)
