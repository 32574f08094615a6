"""Each source is brought into BigQuery by `--once`, and by a second one what changed since."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer, Server
from google.api_core.exceptions import NotFound
from in_process import Side, of_mongodb, of_mysql, of_postgresql
from processes import Fleet, fleet_between

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.soak]

LIMIT = 600.0  # seconds for what takes ten; this machine may be busy
NOBODY = "mongodb://127.0.0.1:1/"  # where no MongoDB takes part


@pytest.fixture(params=["mongodb", "mysql", "postgresql"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    of = request.getfixturevalue
    if request.param == "mongodb":
        yield of_mongodb(of("mongo").url, of("mongo_database"))
    elif request.param == "mysql":
        with of_mysql(of("mariadb").url, of("mariadb_database")) as side:
            yield side
    else:
        yield of_postgresql(of("capture_shop").fresh())


@pytest.fixture
def warehouse(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        yield warehouse


def dataset(warehouse: Warehouse) -> str:
    return f"into_{warehouse.mark}"


def once(tmp_path: Path, side: Side, warehouse: Warehouse, redis_server: Server) -> None:
    more = {
        "source": side.tree,
        "destination": {"type": "bigquery", **warehouse.options},
        "schemas": [{"name": side.namespace, "destination_schema": dataset(warehouse)}],
    }
    with fleet_between(tmp_path, NOBODY, side.namespace, "", redis_server.url, **more) as fleet:
        ends(fleet)


def ends(fleet: Fleet) -> None:
    coordination = fleet.settings["coordination"]
    del coordination["redis_url"]  # one of its own
    coordination["reconcile_every"] = "5s"  # each look at the markers costs as much as a batch
    run = fleet.start("commands.cli", "--once")
    assert run.process.wait(timeout=LIMIT) == 0, run.said()


def rows(side: Side, warehouse: Warehouse) -> dict[int, str]:
    try:
        found = warehouse.query(
            f"SELECT {side.key} AS id, v FROM {dataset(warehouse)}.orders WHERE NOT _cw_deleted"
        )
    except NotFound:
        return {}
    return {row["id"]: row["v"] for row in found}


@pytest.mark.holds(
    guarantee=4,
    source=("mongodb", "postgresql", "mariadb"),
    destination="bigquery",
    fault="no fault",
)
def test_once_brings_a_table_over_and_a_second_time_what_changed(
    tmp_path: Path, side: Side, warehouse: Warehouse, redis_server: Server
) -> None:
    for id in range(40):
        side.put(id, f"it's {id} é\n")
    once(tmp_path, side, warehouse, redis_server)
    assert rows(side, warehouse) == side.rows() != {}

    side.put(1, "changed")
    side.put(40, "new")
    side.delete(2)
    once(tmp_path, side, warehouse, redis_server)
    assert rows(side, warehouse) == side.rows()
    assert {1: "changed", 40: "new"}.items() <= side.rows().items()
