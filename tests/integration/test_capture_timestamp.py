"""A column of times says what changed: nothing committed is missed, however late it commits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from capture_world import Polling, database_of_postgresql, emptied, postgresql
from fix_servers import Server
from psycopg import sql

from warp.capture import timestamp
from warp.capture.side import Clock
from warp.errors import SourceRefused
from warp.model import Capture, TableId, TableSettings
from warp.testing.servers import Postgres

ORDERS = TableId("public", "orders")
SETTINGS = TableSettings(
    ORDERS, ORDERS, "shop", capture=Capture.TIMESTAMP, write_batch_size=10, overlap=0.0
)
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
    connection.execute(
        "create table orders (id integer primary key, name text,"
        " updated_at timestamptz default now())"
    )
    return connection


@pytest.fixture
def polling(pg_database: str) -> Polling:
    return Polling(functools.partial(postgresql, pg_database), SETTINGS)


def pass_a_second(app: Connection) -> None:
    """Each run reads the whole second again that the last one ended in."""
    app.execute("select pg_sleep_until(date_trunc('second', clock_timestamp()) + interval '1 s')")


def test_a_poll_from_the_snapshots_start_reads_what_came_later(
    polling: Polling, app: Connection
) -> None:
    app.execute(
        "insert into orders select n, 'old', now() - n * interval '1 h'"
        " from generate_series(1, 30) n"
    )
    polling.start()
    app.execute("update orders set name = 'new', updated_at = now() where id = 7")
    app.execute("insert into orders values (31, 'new')")
    polling.run()
    # And once more what was the newest when the snapshot began.
    assert polling.values("name") == {1: "old", 7: "new", 31: "new"}
    pass_a_second(app)
    polling.run()
    polling.run()
    assert polling.delivered == 0


def test_rows_that_tie_are_paged_without_missing_or_repeating_one(
    polling: Polling, app: Connection
) -> None:
    app.execute("insert into orders select n, 'tied' from generate_series(1, 105) n")
    polling.run()
    assert polling.ids() == set(range(1, 106))
    assert polling.delivered == 105
    assert len(polling.seen) == 12


def test_a_run_that_is_cut_short_goes_on_after_its_last_row(
    polling: Polling, app: Connection
) -> None:
    app.execute("insert into orders select n, 'tied' from generate_series(1, 35) n")
    assert not polling.run(batches=2)
    assert polling.ids() == set(range(1, 21))
    polling.run()
    assert polling.ids() == set(range(1, 36))
    assert polling.delivered == 15


@pytest.mark.holds(guarantee=4, source="postgresql", destination="pretended", fault="late commit")
def test_a_transaction_that_commits_after_a_later_one_is_not_missed(
    polling: Polling, app: Connection, connect: Callable[[], Connection]
) -> None:
    polling.run()
    slow = connect()
    slow.execute("begin")
    slow.execute("insert into orders values (1, 'slow')")
    app.execute("insert into orders values (2, 'quick')")
    polling.run()
    assert polling.ids() == {2}
    slow.execute("commit")
    polling.run()
    assert polling.ids() == {1, 2}


def test_a_transaction_that_writes_only_after_the_run_is_not_missed(
    polling: Polling, app: Connection, connect: Callable[[], Connection]
) -> None:
    """It has stamped nothing yet when the run looks, and `now()` is when it began."""
    polling.run()
    slow = connect()
    slow.execute("begin")
    slow.execute("select now()")
    polling.run()
    slow.execute("insert into orders values (1, 'slow')")
    slow.execute("commit")
    polling.run()
    assert polling.ids() == {1}


def test_without_the_look_at_open_transactions_such_rows_are_lost(
    polling: Polling,
    app: Connection,
    connect: Callable[[], Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin of the two tests above."""
    app.execute("insert into orders values (0, 'before')")
    real = timestamp._then

    def blind(clock: Clock, settings: TableSettings, upto: int | None) -> int | None:
        return real(replace(clock, oldest=None), settings, upto)

    monkeypatch.setattr(timestamp, "_then", blind)
    polling.run()
    slow = connect()
    slow.execute("begin")
    slow.execute("insert into orders values (1, 'slow')")
    pass_a_second(app)
    app.execute("insert into orders values (2, 'quick')")
    polling.run()
    slow.execute("commit")
    app.execute("insert into orders values (3, 'later')")
    polling.run()
    assert polling.ids() == {0, 2, 3}


def test_a_row_from_the_far_future_hides_none_of_those_after_it(
    polling: Polling, app: Connection
) -> None:
    app.execute("insert into orders values (1, 'future', '2099-01-01')")
    polling.run()
    app.execute("insert into orders values (2, 'now', now()), (3, 'ever', 'infinity')")
    polling.run()
    polling.run()
    assert polling.ids() == {1, 2, 3}


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_clock_that_shows_another_time_than_configured_loses_nothing(
    polling: Polling, app: Connection, zone: str
) -> None:
    """Up to a day ahead or behind, as long as all who stamp agree."""
    app.execute("drop table orders")
    app.execute("create table orders (id integer primary key, updated_at timestamp)")
    app.execute("alter table orders alter updated_at set default localtimestamp")
    app.execute(f"set timezone = '{zone}'")
    for id in range(4):
        app.execute(f"insert into orders values ({id})")
        polling.run()
    assert polling.ids() == set(range(4))


def test_a_table_without_the_column_is_compared_whole_and_deletes_show(
    polling: Polling, app: Connection
) -> None:
    app.execute("alter table orders drop column updated_at")
    app.execute("insert into orders select n, 'here' from generate_series(1, 25) n")
    polling.start()
    polling.run()
    app.execute("delete from orders where id <= 20")
    app.execute("update orders set name = 'changed' where id = 21")
    polling.run()
    polling.run()
    assert polling.values("name") == dict.fromkeys(range(22, 26), "here") | {21: "changed"}


def test_a_comparison_that_is_cut_short_goes_on_and_still_finds_deletes(
    polling: Polling, app: Connection
) -> None:
    app.execute("alter table orders drop column updated_at")
    app.execute("insert into orders select n, 'here' from generate_series(1, 25) n")
    polling.run()
    app.execute("delete from orders where id in (3, 23)")
    assert not polling.run(batches=1)
    polling.run()
    assert polling.delivered < 25
    assert polling.ids() == set(range(1, 26)) - {3, 23}


def test_another_column_in_the_configuration_begins_anew(polling: Polling, app: Connection) -> None:
    app.execute("alter table orders add column touched timestamptz")
    app.execute("insert into orders select n, 'old', now(), now() from generate_series(1, 3) n")
    polling.run()
    app.execute("update orders set name = 'new', touched = '2020-01-01' where id = 1")
    polling.settings = replace(SETTINGS, timestamp_column="touched")
    polling.run()
    assert polling.values("name") == {1: "new", 2: "old", 3: "old"}


@pytest.mark.parametrize(
    ("type", "now"),
    [
        ("bigint", "extract(epoch from clock_timestamp())"),
        ("bigint", "extract(epoch from clock_timestamp()) * 1000"),
        ("double precision", "extract(epoch from clock_timestamp())"),
        ("timestamp(0)", "clock_timestamp() at time zone 'Asia/Kolkata'"),
        ("date", "(clock_timestamp() at time zone 'Asia/Kolkata')::date"),
    ],
)
def test_every_way_to_write_a_time_is_understood(
    polling: Polling, app: Connection, type: str, now: str
) -> None:
    app.execute("drop table orders")
    app.execute(f"create table orders (id integer primary key, updated_at {type})")
    polling.settings = replace(SETTINGS, timezone="Asia/Kolkata", overlap=2.0)
    polling.run()
    polling.run()
    app.execute(f"insert into orders select n, {now} from generate_series(1, 15) n")
    polling.run()
    app.execute(f"insert into orders values (99, {now})")
    polling.run()
    assert polling.ids() == {*range(1, 16), 99}


@pytest.mark.parametrize(("type", "value"), [("text", "'2026-01-01'"), ("integer", "7")])
def test_a_column_that_holds_no_times_is_refused(
    polling: Polling, app: Connection, type: str, value: str
) -> None:
    app.execute("drop table orders")
    app.execute(f"create table orders (id integer primary key, updated_at {type})")
    app.execute(f"insert into orders values (1, {value})")
    with pytest.raises(SourceRefused, match=r"change_detection\.column"):
        polling.run()


HOSTILE = ['a"b', "per%cent %s", "back\\slash", "quo'te", "$$ body", "Größe 表", "`tick`"]


def test_names_and_keys_of_any_letters_are_read(pg_database: str, app: Connection) -> None:
    table = TableId('sch"e%ma', "ta'ble $$ %s")
    quoted = sql.Identifier(table.namespace, table.name)
    app.execute(sql.SQL("create schema {}").format(sql.Identifier(table.namespace)))
    columns = sql.SQL(", ").join(
        sql.SQL("{} text").format(sql.Identifier(name)) for name in HOSTILE
    )
    app.execute(
        sql.SQL(
            "create table {} ({}, id integer, {} timestamptz default now(), primary key ({}))"
        ).format(
            quoted,
            columns,
            sql.Identifier('up"d%'),
            sql.SQL(", ").join(map(sql.Identifier, HOSTILE[:3])),
        )
    )
    rows = [[f"{name}{n}" for name in HOSTILE] for n in range(25)]
    for row in rows:
        cells = sql.SQL(", ").join(map(sql.Literal, row))
        app.execute(sql.SQL("insert into {} values ({})").format(quoted, cells))
    settings = replace(SETTINGS, table=table, destination=table, timestamp_column='up"d%')
    polling = Polling(functools.partial(postgresql, pg_database), settings)
    polling.run()
    assert sorted([row[name] for name in HOSTILE] for row in polling.rows()) == sorted(rows)


def test_a_prepared_transaction_is_waited_for_though_nobody_tells_when_it_began(
    start_server: Callable[[Postgres], Postgres],
) -> None:
    server = start_server(Postgres(settings={"max_prepared_transactions": 2}))
    polling = Polling(functools.partial(postgresql, server.url), SETTINGS)
    with psycopg.connect(server.url, autocommit=True) as app:
        app.execute("create table orders (id integer primary key, updated_at timestamptz)")
        app.execute("insert into orders values (0, now())")
        polling.run()
        app.execute("begin; insert into orders values (1, now()); prepare transaction 'slow'")
        pass_a_second(app)
        for id in (2, 3):
            app.execute(f"insert into orders values ({id}, now())")
            polling.run()
        assert polling.ids() == {0, 2, 3}
        app.execute("commit prepared 'slow'")
        app.execute("insert into orders values (4, now())")
        polling.run()
    assert polling.ids() == {0, 1, 2, 3, 4}
