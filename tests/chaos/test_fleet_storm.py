"""Everything goes wrong at once, and in the end both sides are equal (guarantees 1, 2, 4, 5, 7, 8).

A seeded schedule of faults strikes a whole fleet while it takes its snapshot and follows the log;
each known write is accounted for.  CARTRIDGE_WARP_STORM_SECONDS makes it last longer,
CARTRIDGE_WARP_STORM_SEED another one; `make chaos` does both and tells what it does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from fleet import Servers, servers
from ordeal import Plan, at_mongodb, run, told

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "15"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))
MINUTE: Final = 60.0  # seconds

pytestmark = [pytest.mark.xdist_group("fleet"), pytest.mark.timeout(600 + int(SECONDS))]

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def of_three_members() -> Iterator[Servers]:
    """Servers whose MongoDB elects another primary when one goes."""
    with servers(members=3, failing=True) as ours:
        yield ours


def storm_over(ours: Servers, plan: Plan, directory: Path) -> None:
    with at_mongodb(ours, plan) as scene:
        verdict = run(scene, plan, directory, log.info)
        log.info("%s", "\n".join(verdict.said))
        assert told(verdict) == ""


@pytest.mark.holds(
    guarantee=(1, 2, 4, 5, 7, 8), source="mongodb", destination="postgresql", fault="storm"
)
def test_after_a_storm_of_faults_the_destination_equals_the_source(
    of_three_members: Servers, tmp_path: Path
) -> None:
    plan = Plan(SEED, SECONDS, rows=4_000, pause=0.02, lull=(0.2, 1.4))
    storm_over(of_three_members, plan, tmp_path)


@pytest.mark.soak
def test_after_a_storm_of_a_minute_over_more_rows_both_sides_are_equal(
    of_three_members: Servers, tmp_path: Path
) -> None:
    plan = Plan(SEED, max(SECONDS, MINUTE), rows=10_000, pause=0.002)
    storm_over(of_three_members, plan, tmp_path)
