"""A small fleet between MongoDB and BigQuery: a coordinator, two workers, one of them killed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer, Server
from google.api_core.exceptions import GoogleAPICallError
from processes import PATIENCE, eventually, fleet_between
from pymongo.database import Database

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.soak]


@pytest.mark.holds(guarantee=7, source="mongodb", destination="bigquery", fault="kill -9")
def test_a_worker_killed_on_the_way_loses_and_doubles_nothing(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    bigquery_server: BigQueryServer,
    redis_server: Server,
) -> None:
    database = mongo_database.name
    orders = mongo_database["orders"]
    orders.insert_many([{"_id": n, "n": n, "tags": ["a", n]} for n in range(200)])
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        warehouse.others.add(database)
        destination = {
            "type": "warp.destinations.bigquery:BigQueryDestination",
            **warehouse.options,
        }

        def there() -> dict[Any, Any]:
            found = warehouse.query(
                f"SELECT _id, n FROM `{database}`.`orders` WHERE NOT _cw_deleted"
            )
            return {row["_id"]: row["n"] for row in found}

        def begun() -> bool:
            try:
                runs = warehouse.metadata("sync_runs")
            except GoogleAPICallError:  # nobody has prepared anything yet
                return False
            return any(run["unit"] == f"stream:{database}" for run in runs)

        def equal() -> bool:
            try:
                return there() == wanted
            except GoogleAPICallError:  # there is no table yet
                return False

        with fleet_between(
            tmp_path,
            mongo.url,
            database,
            "",
            redis_server.url,
            destination=destination,
        ) as fleet:
            fleet.coordinator()
            workers = [fleet.worker(), fleet.worker()]
            eventually(begun, "a run of the stream", 2 * PATIENCE)
            orders.update_many({"_id": {"$lt": 50}}, {"$inc": {"n": 1000}})
            owner = fleet.owner()
            victim = next(w for w in workers if w.owns(owner))
            victim.kill9()
            orders.delete_many({"_id": {"$gte": 180}})
            orders.insert_many([{"_id": n, "n": -n} for n in range(500, 520)])
            wanted = {row["_id"]: row["n"] for row in orders.find()}
            eventually(equal, "both sides to be equal", 2 * PATIENCE)
            eventually(lambda: fleet.owner() not in ("", owner), "another owner")
        runs = {row["status"] for row in warehouse.metadata("sync_runs")}
        assert "abandoned" in runs
