"""The storm of faults with MariaDB as the destination (guarantees 1, 2, 4, 5, 7, 8).

CARTRIDGE_WARP_STORM_SECONDS and CARTRIDGE_WARP_STORM_SEED as in `test_fleet_storm`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from ordeal import Plan, run, scene_of, told

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "20"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600 + int(SECONDS))]

log = logging.getLogger(__name__)


@pytest.mark.holds(
    guarantee=(1, 2, 4, 5, 7, 8),
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault="storm",
)
@pytest.mark.parametrize("source", ["mongodb", "postgresql", "mariadb"])
def test_after_a_storm_of_faults_the_destination_equals_the_source(
    source: str, tmp_path: Path
) -> None:
    plan = Plan(SEED, SECONDS, pause=0.02, lull=(0.2, 1.4))
    with scene_of(source, plan, "mariadb") as scene:
        verdict = run(scene, plan, tmp_path, log.info)
        log.info("%s", "\n".join(verdict.said))
        assert told(verdict) == ""
