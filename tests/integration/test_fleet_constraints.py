"""Foreign keys of the destination between tables that different workers write at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    name = mongo_database.name
    with fleet_between(tmp_path, mongo.url, name, pg_database, redis_server.url) as fleet:
        fleet.settings["schemas"] = [{"name": "customers"}, {"name": "orders"}]
        fleet.insert("customers", 0, 1)
        orders = [{"_id": n, "n": n, "customer": 0} for n in range(20)]
        fleet.source["orders"].insert_many(orders)
        yield fleet


def refer(fleet: Fleet) -> None:
    """Orders refer to customers from now on."""
    space = fleet.database_name
    statement = sql.SQL("alter table {} add foreign key (customer) references {} (_id)").format(
        sql.Identifier(space, "orders"), sql.Identifier(space, "customers")
    )
    with psycopg.connect(fleet.pg_url) as connection:
        connection.execute(statement)


def settled(fleet: Fleet) -> bool:
    query = (
        "select count(*) from cartridge_warp_metadata.sync_markers"
        " where kind = 'table' and phase = 'streaming'"
    )
    return fleet.asked(query) == [(2,)]


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="refused rows")
def test_children_and_parents_that_two_workers_write_at_once_all_land(fleet: Fleet) -> None:
    fleet.coordinator()
    fleet.worker()
    fleet.worker()
    fleet.arrives("orders", 19)
    eventually(lambda: settled(fleet), "both tables to be settled")
    refer(fleet)
    streams = ("stream:customers", "stream:orders")
    eventually(
        lambda: len({fleet.owner(unit) for unit in streams} - {""}) == 2,
        "each worker to have one of the streams",
    )
    for n in range(1, 300):
        fleet.source["orders"].insert_one({"_id": 100 + n, "n": n, "customer": n})
        fleet.source["customers"].insert_one({"_id": n, "n": n})
    fleet.source["orders"].insert_one({"_id": 1000, "n": 0, "customer": 5000})
    fleet.source["orders"].delete_many({"customer": 299})
    fleet.source["customers"].delete_one({"_id": 299})
    eventually(lambda: len(fleet.rows("customers")) == 299, "every customer, and no more")
    eventually(lambda: len(fleet.rows("orders")) == 318, "every order, and no more")
    waiting = "select key, tries > 0 from cartridge_warp_metadata.deferred_rows"
    eventually(
        lambda: fleet.asked(waiting) == [('{"_id": 1000}', True)],
        "only the orphan to wait",
    )
    assert fleet.asked("select key from cartridge_warp_metadata.quarantine") == []
    fleet.source["customers"].insert_one({"_id": 5000, "n": 0})
    fleet.arrives("orders", 1000)
