"""From refusal to replay with the commands, over a fleet of real processes and servers."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
import redis
from fix_servers import Server
from processes import Fleet, eventually, fleet_between
from psycopg import sql
from pymongo.database import Database

from warp.assembly import Plugged
from warp.config import load
from warp.model import Aside, Choice, TableId
from warp.testing.servers import RedisServer


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    start_server: Callable[[Any], Any],
) -> Iterator[Fleet]:
    name, own = mongo_database.name, start_server(RedisServer())
    with fleet_between(tmp_path, mongo.url, name, pg_database, own.url) as fleet:
        fleet.insert("orders", 0, 20)
        yield fleet


def ran(fleet: Fleet, *arguments: str, code: int = 0) -> Any:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
    done = programs.run("commands.cli", "--config", str(fleet.config), *arguments, env=inherited)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done


def alter(fleet: Fleet, action: str) -> None:
    table = sql.Identifier(fleet.database_name, "orders")
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        connection.execute(sql.SQL("alter table {} ").format(table) + sql.SQL(action))


def states(fleet: Fleet) -> dict[str, str]:
    return dict(fleet.asked("select key, state from cartridge_warp_metadata.quarantine"))


def key(id: int) -> str:
    return json.dumps({"_id": id})


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="refused rows")
def test_rows_refused_by_a_constraint_are_listed_replayed_and_land(fleet: Fleet) -> None:
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    alter(fleet, "add constraint small check (n < 5000 or n >= 1000000)")
    fleet.insert("orders", 5000, 5004)
    eventually(lambda: len(states(fleet)) == 4, "the rows to be set aside")
    fleet.source["orders"].delete_one({"_id": 5003})
    eventually(lambda: states(fleet)[key(5003)] == "superseded", "the deletion to be seen")

    listed = ran(fleet, "quarantine", "list", "--reason", "small", "--table", "orders", "--json")
    assert [row["key"] for row in listed["rows"]] == [key(5000), key(5001), key(5002)]
    ids = [str(row["id"]) for row in listed["rows"]]
    assert "5000" in ran(fleet, "quarantine", "show", ids[0], "--json")["row"]
    page = ran(fleet, "quarantine", "list").stdout
    assert [line.split()[0] for line in page.splitlines()] == ["id", *ids]

    dry = ran(fleet, "quarantine", "replay", "--all", "--json")
    assert (dry["applied"], dry["replay"]) == (False, 3)
    assert set(states(fleet).values()) == {"waiting", "superseded"}

    assert ran(fleet, "quarantine", "discard", ids[2], "--apply", "--json")["discard"] == 1
    ran(fleet, "quarantine", "replay", *ids[:2], "--apply", "--json")
    tries = "select min(tries) from cartridge_warp_metadata.quarantine where key in ({}, {})"
    with_keys = tries.format(*(f"'{key(id)}'" for id in (5000, 5001)))
    eventually(lambda: fleet.asked(with_keys) == [(1,)], "the first try")
    assert states(fleet)[key(5000)] == "waiting"  # the constraint is still there

    alter(fleet, "drop constraint small")
    assert ran(fleet, "quarantine", "replay", "--all", "--apply", "--json")["replay"] == 2
    fleet.arrives("orders", 5000)
    fleet.arrives("orders", 5001)
    assert states(fleet) == {
        key(5000): "replayed",
        key(5001): "replayed",
        key(5002): "discarded",
        key(5003): "superseded",
    }
    assert not {5002, 5003} & fleet.rows("orders").keys()
    # The coordinator offers what is marked too, and may be ahead of the errand.
    errands = "select distinct name, status from cartridge_warp_metadata.errands"
    eventually(lambda: fleet.asked(errands) == [("replay", "done")], "every errand to be done")
    assert ran(fleet, "errors", "--code", "WARP-000", "--json") == {"errors": [], "more": False}


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="FLUSHALL")
def test_a_replay_outlives_a_wipe_of_redis(fleet: Fleet) -> None:
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    alter(fleet, "add constraint small check (n < 5000 or n >= 1000000)")
    fleet.insert("orders", 5000, 5002)
    eventually(lambda: len(states(fleet)) == 2, "the rows to be set aside")
    alter(fleet, "drop constraint small")
    table = TableId(fleet.database_name, "orders")
    with contextlib.closing(Plugged(load(fleet.config)).bookkeeping()) as destination:
        metadata = destination.metadata()
        ids = [row.id for row in metadata.quarantine(Choice(states=(Aside.WAITING,)))]
        # Marked, and then everything that Redis could have known is gone.
        with redis.Redis.from_url(fleet.redis_url) as client:
            metadata.replay(fleet.database_name, table, ids)
            client.flushall()
    fleet.arrives("orders", 5000)
    fleet.arrives("orders", 5001)
    assert set(states(fleet).values()) == {"replayed"}
