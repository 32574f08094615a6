"""All four ways to capture a table, side by side on one PostgreSQL database, by a real fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_servers import Server, database_url
from processes import Fleet, eventually, fleet_between
from psycopg import sql

TABLES = ("logged", "stamped", "queued", "compared")


@pytest.fixture
def warehouse(postgres: Server) -> Iterator[str]:
    name = "warehouse_of_mixed"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        yield database_url(postgres.url, name)
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def app(pg_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        for table in TABLES:
            connection.execute(
                sql.SQL(
                    "create table {} (id integer primary key, name text,"
                    " updated_at timestamptz not null default now())"
                ).format(sql.Identifier(table))
            )
        yield connection
        slots = "from pg_replication_slots where database = current_database()"
        # Of a worker that was killed: the server sees it by and by.
        eventually(
            lambda: not connection.execute(f"select {slots} and active").fetchall(), "a free slot"
        )
        connection.execute(f"select pg_drop_replication_slot(slot_name) {slots}")


@pytest.fixture
def fleet(
    tmp_path: Path,
    app: psycopg.Connection[Any],
    pg_database: str,
    warehouse: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    nobody = "mongodb://127.0.0.1:1/"  # no MongoDB takes part
    with fleet_between(tmp_path, nobody, "public", warehouse, redis_server.url) as fleet:
        fleet.settings["source"] = {
            "type": "postgresql",
            "connection_string": pg_database,
            "slot": f"mixed_{app.info.dbname}",
        }
        fleet.settings["schemas"] = [
            {
                "name": "public",
                "tables": {
                    "logged": {},
                    "stamped": {"change_detection": {"strategy": "timestamp"}},
                    "queued": {"change_detection": {"strategy": "trigger"}},
                    "compared": {"change_detection": {"strategy": "hash"}},
                },
                "polling_interval": "300ms",
            }
        ]
        yield fleet


def test_each_table_is_captured_by_its_own_strategy(
    fleet: Fleet, app: psycopg.Connection[Any]
) -> None:
    def change(statement: str) -> None:
        for table in TABLES:
            app.execute(sql.SQL(statement).format(sql.Identifier(table)))

    def arrived(what: str, tables: tuple[str, ...] = TABLES) -> None:
        for table in tables:
            statement = sql.SQL("select id, name from public.{}").format(sql.Identifier(table))
            expected = sorted(app.execute(statement).fetchall())

            def equal(table: str = table, expected: list[Any] = expected) -> bool:
                found = fleet.asked(f"select id, name from public.{table}")
                return sorted(tuple(row) for row in found) == expected

            eventually(equal, f"{what} in {table}")

    change("insert into {} select n, 'first' from generate_series(1, 40) n")
    fleet.coordinator()
    fleet.worker()
    eventually(
        lambda: len(fleet.asked("select from pg_tables where schemaname = 'public'")) == 4, "tables"
    )
    arrived("the first rows")
    change("insert into {} values (41, 'new')")
    change("update {} set name = 'changed', updated_at = now() where id <= 3")
    arrived("changes")
    published = "select tablename from pg_publication_tables"
    assert app.execute(published).fetchall() == [("logged",)]
    change("delete from {} where id = 5")
    arrived("a delete", ("logged", "queued", "compared"))
    seen = fleet.asked("select count(*) from public.stamped where id = 5")
    assert tuple(seen[0]) == (1,)  # a column of times shows no delete
