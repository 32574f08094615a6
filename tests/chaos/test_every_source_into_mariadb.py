"""Each kind of fault alone, from every source into MariaDB (guarantees 1 to 5, 7, 8).

The same fleet, loads and judge as in a storm.  Kinds of fault come one after the other, each some
times, and before the next kind all is well again.  By `make soak`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from fleet import Fleet, Servers, broken
from fleet_zombie import (
    PATIENT_MARIADB,
    WITHOUT_COMPARE_AND_SET,
    it_writes_nothing,
    the_audit_finds_it,
    zombie,
)
from ordeal import Plan, origin_of, run, scene_of, told, warehouse_of
from sql_fleet import TABLES, SqlFleet

from warp.testing.servers import Mongod, Postgres, RedisServer

SECONDS = float(os.environ.get("CARTRIDGE_WARP_STORM_SECONDS", "3"))
SEED = int(os.environ.get("CARTRIDGE_WARP_STORM_SEED", "1"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

log = logging.getLogger(__name__)

# The words of the matrix; the first kind strikes while the snapshot is taken.
KINDS: Final = {
    "kill -9": ("kill_a_worker", "kill_the_coordinator"),
    "SIGTERM": ("end_a_worker",),
    "SIGSTOP": ("pause_a_worker", "pause_the_coordinator"),
    "FLUSHALL": ("wipe_redis",),
    "clock set back": ("set_the_ledgers_clock_back",),
    "server crash": ("crash_the_destination", "restart_the_destination", "crash_redis"),
}
PLAN: Final = Plan(SEED, SECONDS, rows=1_500, pause=0.05, lull=(0.5, 1.5), refused=0.02)
every_source = pytest.mark.parametrize("source", ["mongodb", "postgresql", "mariadb"])


@pytest.mark.holds(
    guarantee=1,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault="kill -9",
)
@pytest.mark.holds(
    guarantee=2,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault=("FLUSHALL", "clock set back"),
)
@pytest.mark.holds(
    guarantee=3,
    source="postgresql",
    destination="mariadb",
    fault="no fault",
)
@pytest.mark.holds(
    guarantee=4,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault=("no fault", "refused rows", "kill -9"),
)
@pytest.mark.holds(
    guarantee=5,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault="no fault",
)
@pytest.mark.holds(
    guarantee=7,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault=("no fault", "kill -9", "SIGTERM", "SIGSTOP", "FLUSHALL", "server crash"),
)
@pytest.mark.holds(
    guarantee=8,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault="kill -9",
)
@every_source
def test_each_kind_of_fault_alone_loses_and_repeats_nothing(source: str, tmp_path: Path) -> None:
    with scene_of(source, PLAN, "mariadb") as scene:
        verdict = run(scene, PLAN, tmp_path, log.info, apart=list(KINDS.values()))
        log.info("%s", "\n".join(verdict.said))
        chunks = "select max(at) from {audit}.advances where unit like 'chunk:%'"
        [(last_chunk,)] = scene.fleet.warehouse.read(chunks)
    assert told(verdict) == ""
    assert verdict.struck.keys() == {fault for kinds in KINDS.values() for fault in kinds}
    assert verdict.outages[0][0] < last_chunk, "no fault struck while the snapshot was taken"
    assert verdict.seen is not None
    assert verdict.seen.aside, "no row was refused"
    if source == "postgresql":
        assert verdict.told_to_forget > 0


# -- the same, where the source is told of what was read


HASTY: Final = """
from warp.sources.postgresql import stream
move, follow, streams = stream._Progress.move, stream.LogStream.follow, []
def noted(self, *args):
    streams.append(self)
    return follow(self, *args)
def hasty(self, lsn, at):
    move(self, lsn, at)
    streams[-1].acknowledge(lsn)
stream.LogStream.follow, stream._Progress.move = noted, hasty
"""


def test_a_source_that_is_told_before_the_marker_is_durable_is_seen(tmp_path: Path) -> None:
    """The broken twin of guarantee 3; those of the others are `test_history_verdict`'s."""
    with broken(HASTY) as environment, scene_of("postgresql", PLAN, "mariadb") as scene:
        verdict = run(
            scene, PLAN, tmp_path, log.info, apart=[["end_a_worker"]], environment=environment
        )
    assert any(said.startswith("a source that was told") for said in verdict.accusations)


# -- a worker that falls asleep in its transaction


@contextlib.contextmanager
def fleet_from(source: str) -> Iterator[Fleet]:
    """Audited, and with sessions that may sleep."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        warehouse = warehouse_of("mariadb", stack)
        common: dict[str, Any] = {"warehouse": warehouse, "destination": PATIENT_MARIADB}
        if source == "mongodb":
            mongo = stack.enter_context(Mongod(cache_gigabytes=0.25))
            fleet = stack.enter_context(Fleet(Servers(mongo, Postgres(), redis), **common))
            fleet.put(-2, "so that there is a collection")
            fleet.watch("orders")
        else:
            ours = Servers(Mongod(), Postgres(), redis)
            # A reader that sleeps holds its slot of PostgreSQL until the server misses its answers.
            origin = origin_of(source, stack, wal_sender_timeout="6s")
            fleet = stack.enter_context(SqlFleet(ours, origin, **common))
            fleet.watch(*TABLES)
        yield fleet


@pytest.mark.holds(
    guarantee=2,
    source=("mongodb", "postgresql", "mariadb"),
    destination="mariadb",
    fault="SIGSTOP",
)
@every_source
def test_a_zombie_that_wakes_inside_its_transaction_writes_nothing(
    source: str,
) -> None:
    with fleet_from(source) as fleet, zombie(fleet) as sleeper:
        it_writes_nothing(fleet, sleeper)


@every_source
def test_without_the_markers_compare_and_set_the_audit_finds_the_zombie(
    source: str,
) -> None:
    with (
        broken(WITHOUT_COMPARE_AND_SET) as environment,
        fleet_from(source) as fleet,
        zombie(fleet, environment),
    ):
        the_audit_finds_it(fleet)
