"""Triggers queue the keys that were written: all that is committed is delivered, once durable."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from capture_world import Polling, database_of_postgresql, emptied, postgresql
from fix_servers import Server
from psycopg import sql

from warp.capture import names
from warp.capture.queue import Queue
from warp.errors import LeaseLost, SourceRefused, SourceUnavailable
from warp.model import Capture, TableId, TableSettings

ORDERS = TableId("public", "orders")
SETTINGS = TableSettings(ORDERS, ORDERS, "shop", capture=Capture.TRIGGER, write_batch_size=10)
Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def database(postgres: Server) -> Iterator[str]:
    with database_of_postgresql(postgres.url) as url:
        yield url


@pytest.fixture
def pg_database(database: str) -> str:
    return emptied(database)


@pytest.fixture
def connect(pg_database: str) -> Iterator[Callable[[], Connection]]:
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(psycopg.connect(pg_database, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def app(connect: Callable[[], Connection]) -> Connection:
    connection = connect()
    connection.execute("create table orders (id integer primary key, name text)")
    return connection


@pytest.fixture
def polling(pg_database: str, app: Connection) -> Polling:
    """With triggers in place, and 25 rows from before them already copied."""
    app.execute("insert into orders select n, 'old' from generate_series(1, 25) n")
    polling = Polling(functools.partial(postgresql, pg_database), SETTINGS)
    polling.run()
    return polling


def queued(app: Connection) -> int:
    place = sql.Identifier(names.SCHEMA, names.queue(ORDERS))
    [(count,)] = app.execute(sql.SQL("select count(*) from {}").format(place)).fetchall()
    return int(count)


def test_every_way_to_write_a_row_is_seen(polling: Polling, app: Connection) -> None:
    app.execute("insert into orders values (26, 'new'), (27, 'new')")
    app.execute("update orders set name = 'changed' where id <= 2")
    app.execute("delete from orders where id = 3")
    app.execute("insert into orders values (4, 'x') on conflict (id) do update set name = 'both'")
    with app.cursor() as cursor, cursor.copy("copy orders from stdin") as copy:
        copy.write("28\tcopied\n")
    polling.run()
    expected = dict.fromkeys(range(1, 26), "old") | {1: "changed", 2: "changed", 4: "both"}
    del expected[3]
    assert polling.values("name") == expected | {26: "new", 27: "new", 28: "copied"}
    assert queued(app) == 0
    polling.run()
    assert polling.delivered == 0


def test_a_key_that_changes_takes_its_row_along(polling: Polling, app: Connection) -> None:
    app.execute("update orders set id = id + 100 where id <= 5")
    polling.run()
    assert polling.ids() == {*range(6, 26), *range(101, 106)}


def test_a_truncation_is_followed_by_what_came_after_it(polling: Polling, app: Connection) -> None:
    app.execute("insert into orders select n, 'before' from generate_series(100, 115) n")
    app.execute("truncate orders")
    app.execute("insert into orders values (1, 'after'), (100, 'after')")
    polling.run()
    assert polling.values("name") == {1: "after", 100: "after"}


@pytest.mark.holds(guarantee=4, source="postgresql", destination="pretended", fault="late commit")
def test_an_entry_that_is_committed_after_a_later_one_is_not_missed(
    polling: Polling, app: Connection, connect: Callable[[], Connection]
) -> None:
    slow = connect()
    slow.execute("begin")
    slow.execute("insert into orders values (50, 'slow')")
    app.execute("insert into orders values (51, 'quick')")
    polling.run()
    assert polling.ids() == {*range(1, 26), 51}
    slow.execute("commit")
    polling.run()
    assert polling.ids() == {*range(1, 26), 50, 51}


def test_a_place_in_the_queue_instead_of_its_lowest_entry_would_lose_that_row(
    polling: Polling,
    app: Connection,
    connect: Callable[[], Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin."""
    read = Queue.read
    highest = 0

    def beyond(self: Queue, schema: Any, *, after: int, rows: int) -> Any:
        nonlocal highest
        found = read(self, schema, after=max(after, highest), rows=rows)
        highest = max([highest, *found.ids])
        return found

    monkeypatch.setattr(Queue, "read", beyond)
    slow = connect()
    slow.execute("begin")
    slow.execute("insert into orders values (50, 'slow')")
    app.execute("insert into orders values (51, 'quick')")
    polling.run()
    slow.execute("commit")
    polling.run()
    assert polling.ids() == {*range(1, 26), 51}


@pytest.mark.holds(guarantee=3, source="postgresql", destination="pretended", fault="superseded")
def test_entries_go_only_once_their_rows_are_durable(polling: Polling, app: Connection) -> None:
    """Guarantee 3, for the queue."""
    app.execute("insert into orders select n, 'new' from generate_series(101, 125) n")
    with pytest.raises(LeaseLost):
        polling.run(lost=True)
    assert queued(app) == 25
    polling.run()
    assert polling.ids() == {*range(1, 26), *range(101, 126)}
    assert queued(app) == 0


def test_entries_that_go_when_they_are_read_lose_rows(
    polling: Polling, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    read = Queue.read

    def read_and_forget(self: Queue, schema: Any, *, after: int, rows: int) -> Any:
        found = read(self, schema, after=after, rows=rows)
        self.forget(found.ids)
        return found

    monkeypatch.setattr(Queue, "read", read_and_forget)
    app.execute("insert into orders select n, 'new' from generate_series(101, 125) n")
    with pytest.raises(LeaseLost):
        polling.run(lost=True)
    polling.run()
    assert not polling.ids() >= set(range(101, 126))


def test_triggers_are_made_once_and_leave_nothing_behind(
    polling: Polling, app: Connection, pg_database: str
) -> None:
    before = installed(app)
    polling.start()
    assert installed(app) == before
    assert before[0] == 4
    with closing(postgresql(pg_database, polling.select)) as source:
        source.polled.remove(ORDERS)
        source.polled.remove(ORDERS)
    assert installed(app) == (0, 0, 0)
    app.execute("insert into orders values (99, 'free')")


def test_dropping_the_schema_alone_takes_the_triggers_along(
    polling: Polling, app: Connection
) -> None:
    app.execute("drop schema cartridge_warp_capture cascade")
    assert installed(app) == (0, 0, 0)
    app.execute("insert into orders values (99, 'free')")


def installed(app: Connection) -> tuple[int, int, int]:
    [found] = app.execute(
        "select (select count(*) from pg_trigger where not tgisinternal),"
        " (select count(*) from pg_proc where proname like 'orders%'),"
        " (select count(*) from pg_namespace where nspname = 'cartridge_warp_capture')"
    ).fetchall()
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "meddle",
    [
        "alter table orders disable trigger user; insert into orders values (90, 'unseen')",
        "drop trigger cartridge_warp_insert on orders; insert into orders values (90, 'unseen')",
        "drop table orders; create table orders (id integer primary key, name text);"
        "insert into orders values (90, 'unseen')",
        "drop schema cartridge_warp_capture cascade; insert into orders values (90, 'unseen')",
    ],
)
def test_triggers_that_are_missing_are_made_again_and_the_table_compared(
    polling: Polling, app: Connection, meddle: str
) -> None:
    app.execute(meddle)
    polling.run()
    live = {id for (id,) in app.execute("select id from orders").fetchall()}
    assert polling.ids() == live >= {90}
    app.execute("insert into orders values (91, 'seen')")
    polling.run()
    assert polling.ids() == live | {91}


@pytest.mark.holds(guarantee=6, source="postgresql", destination="pretended", fault="lost position")
def test_a_comparison_that_was_never_begun_is_not_forgotten(
    polling: Polling, app: Connection
) -> None:
    """The run that made the triggers anew was killed before its first row was durable."""
    app.execute("alter table orders disable trigger user; delete from orders where id = 3")
    with pytest.raises(LeaseLost):
        polling.run(lost=True)
    polling.run()
    assert polling.ids() == set(range(1, 26)) - {3}


def test_a_comparison_that_is_cut_short_is_brought_to_its_end(
    polling: Polling, app: Connection
) -> None:
    app.execute("alter table orders disable trigger user")
    app.execute("delete from orders where id in (3, 24)")
    assert not polling.run(batches=1)
    app.execute("insert into orders values (26, 'new')")
    polling.run()
    polling.run()
    assert polling.ids() == set(range(1, 27)) - {3, 24}


def test_a_wider_key_type_breaks_no_writer_and_loses_nothing(
    polling: Polling, app: Connection
) -> None:
    app.execute("alter table orders alter column id type bigint")
    app.execute("insert into orders values (9000000000, 'far')")
    polling.run()
    assert 9_000_000_000 in polling.ids()


def test_a_table_in_use_is_waited_for_briefly_and_named(
    pg_database: str, app: Connection, connect: Callable[[], Connection]
) -> None:
    writer = connect()
    writer.execute("begin")
    writer.execute("insert into orders values (1, 'open')")
    polling = Polling(functools.partial(postgresql, pg_database), SETTINGS)
    with pytest.raises(SourceUnavailable, match=f"pid {writer.info.backend_pid}"):
        polling.start()
    writer.execute("commit")
    polling.start()


def test_a_table_without_a_key_is_refused_with_what_to_do(
    pg_database: str, app: Connection
) -> None:
    app.execute("alter table orders drop constraint orders_pkey")
    polling = Polling(functools.partial(postgresql, pg_database), SETTINGS)
    with pytest.raises(SourceRefused, match=r"change_detection\.strategy"):
        polling.start()


HOSTILE = ['a"b', "per%cent %s", "back\\slash", "quo'te", "$$ body", "Größe 表", "`tick`"]


def test_composite_keys_and_names_of_any_letters_are_queued(
    pg_database: str, app: Connection
) -> None:
    table = TableId('sch"e%ma', "ta'ble $$ %s")
    quoted = sql.Identifier(table.namespace, table.name)
    app.execute(sql.SQL("create schema {}").format(sql.Identifier(table.namespace)))
    columns = sql.SQL(", ").join(
        sql.SQL("{} text").format(sql.Identifier(name)) for name in HOSTILE
    )
    key = sql.SQL(", ").join(map(sql.Identifier, HOSTILE[:5]))
    app.execute(sql.SQL("create table {} ({}, primary key ({}))").format(quoted, columns, key))
    settings = replace(SETTINGS, table=table, destination=table)
    polling = Polling(functools.partial(postgresql, pg_database), settings)
    polling.run()
    rows = [[f"{name}{n}" for name in HOSTILE] for n in range(25)]
    for row in rows:
        cells = sql.SQL(", ").join(map(sql.Literal, row))
        app.execute(sql.SQL("insert into {} values ({})").format(quoted, cells))
    polling.run()
    assert sorted([row[name] for name in HOSTILE] for row in polling.rows()) == sorted(rows)
    app.execute(sql.SQL("delete from {}").format(quoted))
    polling.run()
    assert polling.rows() == []


def test_a_key_of_times_is_queued_as_the_table_has_it_whatever_the_writers_settings(
    pg_database: str, app: Connection
) -> None:
    app.execute("drop table orders; create table orders (id timestamptz primary key, name text)")
    polling = Polling(functools.partial(postgresql, pg_database), SETTINGS)
    polling.run()
    app.execute("set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kolkata'")
    app.execute("insert into orders values ('2026-03-04 05:06:07.89+00', 'here')")
    polling.run()
    assert list(polling.values("name").values()) == ["here"]
    app.execute("delete from orders")
    polling.run()
    assert polling.rows() == []


def test_the_least_rights_suffice_and_writers_need_none_on_the_queue(
    pg_database: str, app: Connection
) -> None:
    """As docs/capture.md has them."""
    reader, writer = f"reader_{app.info.dbname}", f"writer_{app.info.dbname}"
    for statement in (
        f"create role {reader} login in role pg_read_all_stats",
        f"grant create on database {app.info.dbname} to {reader}",
        f"grant usage on schema public to {reader}",
        f"grant select, trigger on orders to {reader}",
        f"create role {writer}",
        f"grant usage on schema public to {writer}",
        f"grant select, insert, update, delete, truncate on orders to {writer}",
    ):
        app.execute(statement)
    url = pg_database.replace("//postgres@", f"//{reader}@")
    polling = Polling(functools.partial(postgresql, url), SETTINGS)
    polling.start()
    app.execute(f"set role {writer}; set search_path = ''")
    app.execute("insert into public.orders values (1, 'new')")
    app.execute("truncate public.orders")
    app.execute("insert into public.orders values (2, 'new')")
    app.execute("reset role; reset search_path")
    polling.run()
    assert polling.ids() == {2}
    with closing(postgresql(url, polling.select)) as source:
        source.polled.remove(ORDERS)
    assert installed(app) == (0, 0, 0)
    for role in (reader, writer):
        app.execute(f"drop owned by {role}; drop role {role}")
