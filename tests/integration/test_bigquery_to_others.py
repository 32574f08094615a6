"""BigQuery kept equal elsewhere by a real fleet, in batches: by comparison and by times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bigquery_world import World, world_at
from fix_servers import BigQueryServer, Server
from processes import Fleet, eventually, fleet_between

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


@pytest.fixture
def fleet(tmp_path: Path, world: World, pg_database: str, redis_server: Server) -> Iterator[Fleet]:
    nobody = "mongodb://127.0.0.1:1/"  # no MongoDB takes part
    with fleet_between(tmp_path, nobody, world.dataset, pg_database, redis_server.url) as fleet:
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
                "polling_interval": "500ms",
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


def arrived(fleet: Fleet, world: World, what: str, *tables: str) -> None:
    for table in tables:
        expected = rows_at_the_source(world, table)

        def equal(table: str = table, expected: list[Any] = expected) -> bool:
            found = fleet.asked(f'select id, name, amount from "{world.dataset}".{table}')
            return sorted(map(tuple, found)) == expected

        eventually(equal, f"{what} in {table}")


def test_inserts_updates_and_deletes_arrive_also_when_a_worker_is_killed(
    fleet: Fleet, world: World
) -> None:
    change(
        world,
        "INSERT INTO {d}.{t} SELECT n, CONCAT('first ', CAST(n AS STRING)), CAST(n AS NUMERIC) / 4,"
        " CURRENT_TIMESTAMP() FROM UNNEST(GENERATE_ARRAY(1, 40)) AS n",
    )
    fleet.coordinator()
    worker = fleet.worker()
    made = f"select from pg_tables where schemaname = '{world.dataset}'"
    eventually(lambda: len(fleet.asked(made)) == len(TABLES), "both tables")
    arrived(fleet, world, "the first rows", *TABLES)

    change(world, "INSERT INTO {d}.{t} VALUES (41, 'new', 0.5, CURRENT_TIMESTAMP())")
    worker.kill9()
    change(
        world, "UPDATE {d}.{t} SET name = 'changed', updated_at = CURRENT_TIMESTAMP() WHERE id <= 3"
    )
    fleet.worker()
    arrived(fleet, world, "changes", *TABLES)

    change(world, "DELETE FROM {d}.{t} WHERE id = 5")
    arrived(fleet, world, "a delete", "compared")
    stamped = fleet.asked(f'select count(*) from "{world.dataset}".stamped where id = 5')
    assert tuple(stamped[0]) == (1,)  # a column of times shows no delete
