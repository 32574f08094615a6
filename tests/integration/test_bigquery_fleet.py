"""A small fleet between MongoDB and BigQuery: a coordinator, and two workers, of which the one that
follows the log is killed, or paused until another has taken over."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer, Server
from google.api_core.exceptions import GoogleAPICallError
from processes import Command, Fleet, fleet_between
from pymongo.database import Database

from warp.model import Phase, UnitKind
from warp.own_process import wait_until
from warp.testing.contracts import select

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.soak]

LIMIT = 900.0  # seconds for what takes thirty; this machine may be busy


def eventually(condition: Callable[[], bool], what: str) -> None:
    """As everywhere, but asked seldom: what is asked is the emulator, which has enough to do."""
    assert wait_until(condition, LIMIT, pause=2.0), f"waited {LIMIT:.0f} s for {what}"


class Copy:
    """A collection `orders`, and what has become of it in the warehouse."""

    def __init__(self, database: Database[dict[str, Any]], warehouse: Warehouse) -> None:
        self.orders = database["orders"]
        self.name = database.name
        self.dataset = f"copy_{warehouse.mark}"
        self.warehouse = warehouse
        self.destination = warehouse.destination(select)

    def there(self) -> dict[int, tuple[int, Any]]:
        try:
            found = self.warehouse.query(
                f"SELECT _id, n, TO_JSON_STRING(tags) AS tags FROM `{self.dataset}`.`orders`"
                " WHERE NOT _cw_deleted"
            )
        except GoogleAPICallError:  # there is no table yet
            return {}
        return {row["_id"]: (row["n"], json.loads(row["tags"])) for row in found}

    def here(self) -> dict[int, tuple[int, Any]]:
        return {row["_id"]: (row["n"], row.get("tags")) for row in self.orders.find()}

    def equal(self) -> bool:
        return self.there() == self.here()

    def is_settled(self) -> bool:
        """Is the snapshot done?"""
        markers = self.destination.metadata().markers((UnitKind.TABLE,))
        return [marker.phase for marker in markers] == [Phase.STREAMING]

    def is_followed(self) -> bool:
        try:
            runs = self.warehouse.metadata("sync_runs")
        except GoogleAPICallError:  # nobody has prepared anything yet
            return False
        return any(run["unit"] == f"stream:{self.name}" for run in runs)

    def changes(self) -> None:
        """Values of numbers and of JSON, rows gone, new ones, and one that comes back."""
        self.orders.update_many({"_id": {"$lt": 50}}, {"$inc": {"n": 1000}})
        self.orders.update_many({"_id": {"$lt": 20}}, {"$push": {"tags": "more"}})
        self.orders.delete_many({"_id": {"$gte": 180}})
        self.orders.insert_many([{"_id": n, "n": -n, "tags": {"n": n}} for n in range(500, 520)])
        self.orders.insert_one({"_id": 199, "n": 0, "tags": None})


@pytest.fixture
def copy(
    mongo_database: Database[dict[str, Any]], bigquery_server: BigQueryServer
) -> Iterator[Copy]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        copy = Copy(mongo_database, warehouse)
        copy.orders.insert_many([{"_id": n, "n": n, "tags": ["a", n]} for n in range(200)])
        yield copy


@pytest.fixture
def fleet(tmp_path: Path, mongo: Server, redis_server: Server, copy: Copy) -> Iterator[Fleet]:
    destination = {"type": "bigquery", **copy.warehouse.options}
    with fleet_between(
        tmp_path, mongo.url, copy.name, "", redis_server.url, destination=destination
    ) as fleet:
        fleet.settings["schemas"] = [{"name": copy.name, "destination_schema": copy.dataset}]
        # Each look at the markers costs the emulator as much as a batch.
        fleet.settings["coordination"] |= {"lease_ttl": "4s", "reconcile_every": "5s"}
        yield fleet


@pytest.mark.holds(guarantee=(4, 7), source="mongodb", destination="bigquery", fault="kill -9")
def test_a_worker_killed_in_its_stream_loses_and_doubles_nothing(fleet: Fleet, copy: Copy) -> None:
    fleet.coordinator()
    workers = [fleet.worker(), fleet.worker()]
    eventually(lambda: copy.is_followed() and fleet.owner() != "", "a run of the stream")
    copy.orders.update_many({"_id": {"$lt": 50}}, {"$inc": {"n": 1000}})
    owner = fleet.owner()
    next(worker for worker in workers if worker.owns(owner)).kill9()
    copy.changes()
    eventually(copy.equal, "both sides to be equal")
    eventually(lambda: fleet.owner() not in ("", owner), "another owner")
    runs = {row["status"] for row in copy.warehouse.metadata("sync_runs")}
    assert "abandoned" in runs
    settled_and_still_equal(copy)


@pytest.mark.holds(guarantee=(2, 7), source="mongodb", destination="bigquery", fault="SIGSTOP")
def test_a_worker_paused_beyond_its_lease_writes_nothing_when_it_wakes_up(
    fleet: Fleet, copy: Copy
) -> None:
    fleet.coordinator()
    workers = [fleet.worker(), fleet.worker()]
    eventually(lambda: copy.is_settled() and fleet.owner() != "", "the snapshot to be done")
    owner = fleet.owner()
    with paused(next(worker for worker in workers if worker.owns(owner))):
        copy.changes()
        eventually(lambda: fleet.owner() not in ("", owner), "another owner")
        eventually(copy.equal, "both sides to be equal")
        copy.orders.update_many({}, {"$inc": {"n": 1}})
    eventually(copy.equal, "both sides to be equal again")
    settled_and_still_equal(copy)


@contextlib.contextmanager
def paused(worker: Command) -> Iterator[None]:
    family = worker.family()
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def settled_and_still_equal(copy: Copy) -> None:
    eventually(copy.is_settled, "the table to be settled")
    assert copy.equal()
    [found] = copy.warehouse.query(
        f"SELECT COUNT(*) AS rows_there, COUNT(DISTINCT _id) AS keys FROM `{copy.dataset}`.`orders`"
    )
    assert found["rows_there"] == found["keys"] == len(copy.here())  # no tombstone is left
