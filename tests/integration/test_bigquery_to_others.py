"""BigQuery kept equal elsewhere by a real fleet, in batches: by comparison and by times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
from bigquery_world import World, world_at
from fix_servers import BigQueryServer, Server, mysql_client
from processes import Fleet, eventually, fleet_between

from warp import plugins

INSTALLED = plugins.installed("destination")

COLUMNS = (
    "(id INT64, name STRING, amount NUMERIC, updated_at TIMESTAMP, PRIMARY KEY (id) NOT ENFORCED)"
)
TABLES = ("compared", "stamped")


@pytest.fixture
def world(bigquery_server: BigQueryServer) -> Iterator[World]:
    with world_at(bigquery_server) as world:
        for table in TABLES:
            world.sql(f"CREATE TABLE {{d}}.{table} {COLUMNS}")
        yield world


class Warehouse(Protocol):
    """Where the rows go: its `destination:` block, and how to look."""

    block: dict[str, Any]

    def rows(self, table: str, where: str = "true") -> list[tuple[Any, ...]] | None:
        """id, name, amount; None while there is no such table."""
        ...


class InPostgres:
    def __init__(self, url: str, schema: str) -> None:
        self.block = {"type": "postgresql", "connection_string": url}
        self._url, self._schema = url, schema

    def rows(self, table: str, where: str = "true") -> list[tuple[Any, ...]] | None:
        query = f'select id, name, amount from "{self._schema}".{table} where {where}'
        try:
            with psycopg.connect(self._url) as connection:
                return connection.execute(query.encode()).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return None


class InMysql:
    def __init__(self, url: str, schema: str) -> None:
        self._database = urlsplit(url).path.lstrip("/")
        self._url = url
        self.block = {
            "type": "mysql",
            "connection_string": url,
            "schema": self._database,
            "metadata_schema": self._database,
        }

    def rows(self, table: str, where: str = "true") -> list[tuple[Any, ...]] | None:
        query = f"select id, name, amount from `{self._database}`.{table} where {where}"
        try:
            with mysql_client(self._url) as connection, connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        except pymysql.err.ProgrammingError:
            return None


@pytest.fixture(params=[name for name in ("postgresql", "mysql") if name in INSTALLED])
def warehouse(request: pytest.FixtureRequest, world: World) -> Warehouse:
    if request.param == "mysql":
        return InMysql(request.getfixturevalue("mariadb_database"), world.dataset)
    return InPostgres(request.getfixturevalue("pg_database"), world.dataset)


@pytest.fixture
def fleet(
    tmp_path: Path, world: World, warehouse: Warehouse, redis_server: Server
) -> Iterator[Fleet]:
    nobody = "mongodb://127.0.0.1:1/"  # no MongoDB takes part
    with fleet_between(tmp_path, nobody, world.dataset, "", redis_server.url) as fleet:
        fleet.settings["destination"] = warehouse.block
        fleet.settings["source"] = {
            "type": "bigquery",
            "connection_string": f"bigquery://{world.server.project}/{world.dataset}",
            "emulator_host": world.server.url,
            "emulator_grpc": world.server.grpc,
        }
        fleet.settings["schemas"] = [
            {
                "name": world.dataset,
                "mode": "batch",
                "polling_interval": "2s",
                "tables": {
                    "compared": {"change_detection": {"strategy": "hash"}},
                    "stamped": {},
                },
            }
        ]
        yield fleet


def change(world: World, statement: str) -> None:
    for table in TABLES:
        world.sql(statement.format(d=world.dataset, t=table))


def rows_at_the_source(world: World, table: str) -> list[tuple[Any, ...]]:
    return sorted(world.sql(f"SELECT id, name, amount FROM {{d}}.{table}"))


def arrived(warehouse: Warehouse, world: World, what: str, *tables: str) -> None:
    for table in tables:
        expected = rows_at_the_source(world, table)

        def equal(table: str = table, expected: list[Any] = expected) -> bool:
            return sorted(warehouse.rows(table) or ()) == expected

        eventually(equal, f"{what} in {table}")


@pytest.mark.holds(
    guarantee=(4, 7), source="bigquery", destination=("postgresql", "mariadb"), fault="kill -9"
)
def test_inserts_updates_and_deletes_arrive_also_when_a_worker_is_killed(
    fleet: Fleet, world: World, warehouse: Warehouse
) -> None:
    change(
        world,
        "INSERT INTO {d}.{t} SELECT n, CONCAT('first ', CAST(n AS STRING)), CAST(n AS NUMERIC) / 4,"
        " CURRENT_TIMESTAMP() FROM UNNEST(GENERATE_ARRAY(1, 40)) AS n",
    )
    fleet.coordinator()
    worker = fleet.worker()
    arrived(warehouse, world, "the first rows", *TABLES)

    change(world, "INSERT INTO {d}.{t} VALUES (41, 'new', 0.5, CURRENT_TIMESTAMP())")
    worker.kill9()
    change(
        world, "UPDATE {d}.{t} SET name = 'changed', updated_at = CURRENT_TIMESTAMP() WHERE id <= 3"
    )
    fleet.worker()
    arrived(warehouse, world, "changes", *TABLES)

    change(world, "DELETE FROM {d}.{t} WHERE id = 5")
    arrived(warehouse, world, "a delete", "compared")
    # A column of times shows no delete.
    assert [id for id, *_ in warehouse.rows("stamped", "id = 5") or ()] == [5]
