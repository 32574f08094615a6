"""A fleet compares its tables by itself, and the commands mend what it finds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
from fix_servers import Server
from processes import Fleet, eventually, fleet_between
from psycopg import sql
from pymongo.database import Database


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    servers = (mongo.url, mongo_database.name, pg_database, redis_server.url)
    with fleet_between(tmp_path, *servers, verify={"every": "1s"}) as fleet:
        fleet.insert("orders", 0, 20)
        yield fleet


def ran(fleet: Fleet, *arguments: str, code: int) -> Any:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
    done = programs.run("commands.cli", "--config", str(fleet.config), *arguments, env=inherited)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_fault_is_found_without_being_asked_for_and_mended_by_the_fleet(fleet: Fleet) -> None:
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    with psycopg.connect(fleet.pg_url) as connection:
        table = sql.Identifier(fleet.database_name, "orders")
        connection.execute(sql.SQL("update {} set n = -1 where _id = 7").format(table))
    found = "select key, sort from cartridge_warp_metadata.differences where state = 'open'"
    eventually(lambda: fleet.asked(found) == [('{"_id": 7}', "differs")], "the fault to be found")
    told = ran(fleet, "repair", "--apply", "--json", code=0)
    assert told["tables"][0]["became"] == {"replayed": 1}
    assert fleet.rows("orders")[7] == 7
    told = ran(fleet, "verify", "orders", "--json", code=0)
    assert (told["equal"], told["tables"][0]["rows"]) == (True, 21)
