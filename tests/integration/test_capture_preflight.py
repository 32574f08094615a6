"""What `doctor` says of polled tables, each fault made for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from capture_world import database_of_postgresql, emptied, mysql, postgresql
from fix_servers import Server, mysql_client

from warp.model import Capture, Diagnosis, TableId, TableSettings, Verdict

Look = Callable[..., dict[str, Diagnosis]]


def settings(table: TableId, capture: Capture) -> TableSettings:
    return TableSettings(table, table, "shop", capture=capture)


@pytest.fixture(scope="module")
def database(postgres: Server) -> Iterator[str]:
    with database_of_postgresql(postgres.url) as url:
        yield url


@pytest.fixture
def app(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(emptied(database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def look(database: str) -> Look:
    """What is found of public.orders, by code, without what is in order."""
    table = TableId("public", "orders")

    def look(capture: Capture, url: str = database) -> dict[str, Diagnosis]:
        with closing(
            postgresql(url, lambda t: settings(t, capture) if t == table else None)
        ) as source:
            found = source.polled.diagnose([table])
        return {one.code: one for one in found if one.verdict is not Verdict.OK}

    return look


def test_a_table_without_the_column_is_said_to_be_read_whole(
    app: psycopg.Connection[Any], look: Look
) -> None:
    app.execute("create table orders (id integer primary key)")
    assert set(look(Capture.TIMESTAMP)) == {"capture-compared-whole"}


def test_a_column_that_holds_no_times_fails(app: psycopg.Connection[Any], look: Look) -> None:
    app.execute("create table orders (id integer primary key, updated_at text)")
    found = look(Capture.TIMESTAMP)
    assert found["capture-column"].verdict is Verdict.FAILED


def test_a_missing_index_and_then_rows_without_a_time_are_named_with_what_mends_them(
    app: psycopg.Connection[Any], look: Look
) -> None:
    app.execute("create table orders (id integer primary key, updated_at timestamptz)")
    app.execute("insert into orders values (1, null)")
    missing = look(Capture.TIMESTAMP)
    assert set(missing) == {"capture-index"}
    app.execute(missing["capture-index"].mend)
    nameless = look(Capture.TIMESTAMP)
    assert set(nameless) == {"capture-null-times"}
    app.execute(nameless["capture-null-times"].mend.partition(", and")[0])
    assert look(Capture.TIMESTAMP) == {}


def test_who_may_not_see_transactions_or_make_triggers_is_told_the_grants(
    app: psycopg.Connection[Any], look: Look, database: str
) -> None:
    reader = f"reader_{app.info.dbname}"
    app.execute("create table orders (id integer primary key, updated_at timestamptz)")
    app.execute("create index on orders (updated_at)")
    app.execute(f"create role {reader} login")
    app.execute(f"grant usage on schema public to {reader}; grant select on orders to {reader}")
    url = database.replace("//postgres@", f"//{reader}@")
    found = look(Capture.TIMESTAMP, url) | look(Capture.TRIGGER, url)
    assert set(found) == {"capture-transactions", "capture-trigger-rights"}
    for one in found.values():
        for statement in one.mend.split("; "):
            if statement.startswith("GRANT"):
                app.execute(statement.partition(", or")[0])
    assert look(Capture.TIMESTAMP, url) | look(Capture.TRIGGER, url) == {}
    app.execute(f"drop owned by {reader}; drop role {reader}")


def test_a_table_without_a_key_takes_no_trigger(app: psycopg.Connection[Any], look: Look) -> None:
    app.execute("create table orders (id integer)")
    assert look(Capture.TRIGGER)["capture-key"].verdict is Verdict.FAILED


def test_mariadb_names_a_missing_index_and_a_foreign_key_that_runs_no_trigger(
    mariadb_database: str,
) -> None:
    orders = TableId(urlsplit(mariadb_database).path.lstrip("/"), "orders")

    def look(capture: Capture) -> dict[str, Diagnosis]:
        with closing(
            mysql(mariadb_database, lambda t: settings(t, capture) if t == orders else None)
        ) as source:
            found = source.polled.diagnose([orders])
        return {one.code: one for one in found if one.verdict is not Verdict.OK}

    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("create table customers (id int primary key)")
        cursor.execute(
            "create table orders (id int primary key, customer int, updated_at timestamp(6),"
            " constraint theirs foreign key (customer) references customers (id)"
            " on delete cascade)"
        )
        found = look(Capture.TIMESTAMP)
        assert set(found) == {"capture-index"}
        cursor.execute(found["capture-index"].mend)
        assert look(Capture.TIMESTAMP) == {}
        assert "theirs" in look(Capture.TRIGGER)["capture-cascade"].subject
