"""A scheduled schema in a real fleet: the slot is made up, recorded, run once, and shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_servers import Server
from processes import Fleet, eventually, fleet_between
from pymongo.database import Database
from test_fleet import ask

DAY = 86_400


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    name = mongo_database.name
    schema = {"name": name, "mode": "batch", "schedule": "0 0 * * *"}
    with fleet_between(
        tmp_path, mongo.url, name, pg_database, redis_server.url, schemas=[schema]
    ) as fleet:
        fleet.insert("orders", 0, 10)
        yield fleet


def runs_with_a_slot(fleet: Fleet) -> list[Any]:
    return fleet.asked(
        "select extract(epoch from slot)::float8, status from cartridge_warp_metadata.sync_runs"
        " where slot is not null"
    )


def test_a_missed_slot_is_made_up_by_one_run_and_shown(fleet: Fleet) -> None:
    fleet.coordinator()
    fleet.worker()
    fleet.arrives("orders", 9)
    markers = "cartridge_warp_metadata.sync_markers where kind = 'poll' and phase = 'idle'"
    eventually(lambda: fleet.asked(f"select 1 from {markers}"), "the poll's marker")
    fleet.insert("orders", 10, 20)
    assert runs_with_a_slot(fleet) == []
    # As if everything had been away for two days: the offer for midnight is passed by one for now.
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        connection.execute(
            b"update cartridge_warp_metadata.sync_markers"
            b" set position_seconds = position_seconds - 172800 where kind = 'poll'"
        )
    fleet.arrives("orders", 19)
    midnight = time.time() // DAY * DAY
    eventually(lambda: runs_with_a_slot(fleet) == [(midnight, "done")], "the end of the run")

    shown = json.loads(ask(fleet, "status", "--json"))
    (poll,) = [unit for unit in shown["units"] if unit["kind"] == "poll"]
    assert poll["slot"] == midnight
    assert runs_with_a_slot(fleet) == [(midnight, "done")]
