"""Timestamps and triggers on MariaDB (or the MySQL you name): what differs from PostgreSQL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from capture_world import Polling, mysql
from fix_servers import Server, mysql_client

from warp.capture import names, timestamp
from warp.capture.side import Clock
from warp.errors import LeaseLost, SourceUnavailable
from warp.model import Capture, TableId, TableSettings
from warp.testing.memory import MemoryWarehouse

Rows = tuple[tuple[Any, ...], ...]


class Application:
    """A connection that runs statements."""

    def __init__(self, url: str) -> None:
        self.connection = mysql_client(url, init_command="set time_zone = '+05:30'")

    def __call__(self, statement: str) -> Rows:
        with self.connection.cursor() as cursor:
            if statement.startswith("create table orders "):
                cursor.execute("drop table if exists orders")
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def connect(mariadb_database: str, mariadb: Server) -> Iterator[Callable[[], Application]]:
    opened: list[Application] = []

    def connect() -> Application:
        opened.append(Application(mariadb_database))
        return opened[-1]

    yield connect
    for application in opened:
        application.close()
    with closing(Application(mariadb_database)) as application:
        application(f"drop database if exists {names.SCHEMA}")


@pytest.fixture
def app(connect: Callable[[], Application]) -> Application:
    application = connect()
    application(
        "create table orders (id int primary key, name varchar(20),"
        " updated_at timestamp(6) not null default now(6) on update now(6))"
    )
    return application


@pytest.fixture
def orders(mariadb_database: str) -> TableId:
    return TableId(urlsplit(mariadb_database).path.lstrip("/"), "orders")


@pytest.fixture
def timed(mariadb_database: str, orders: TableId) -> Polling:
    settings = TableSettings(
        orders, orders, "shop", capture=Capture.TIMESTAMP, write_batch_size=10, overlap=0.0
    )
    return Polling(functools.partial(mysql, mariadb_database), settings)


@pytest.fixture
def queued(timed: Polling, app: Application) -> Polling:
    """With triggers in place, and 25 rows from before them already copied."""
    timed.settings = replace(timed.settings, capture=Capture.TRIGGER)
    fill(app, 1, 25)
    timed.run()
    return timed


def fill(app: Application, first: int, last: int, name: str = "old") -> None:
    values = ", ".join(f"({n}, '{name}')" for n in range(first, last + 1))
    app(f"insert into orders (id, name) values {values}")


def numbers(last: int) -> str:
    return (
        "with recursive numbers (seq) as"
        f" (select 1 union all select seq + 1 from numbers where seq < {last})"
    )


def pass_seconds(app: Application, seconds: int) -> None:
    """Each run reads the last second or two again; nothing tells when they are over but a clock."""
    app(f"do sleep({seconds})")


# --- by a column of times


def test_rows_that_tie_are_paged_and_then_only_what_changed_is_read(
    timed: Polling, app: Application
) -> None:
    app("set timestamp = unix_timestamp() - 3600")
    fill(app, 1, 35)
    app("set timestamp = default")
    app("set timestamp = unix_timestamp() - 1800")
    fill(app, 36, 36)
    app("set timestamp = default")
    timed.run()
    assert timed.delivered == 36
    app("update orders set name = 'new' where id = 7")
    timed.run()
    assert timed.values("name")[7] == "new"
    assert timed.delivered == 2  # and once more what was the newest until then


@pytest.mark.holds(guarantee=4, source="mariadb", destination="pretended", fault="late commit")
def test_a_transaction_that_commits_after_a_later_one_is_not_missed(
    timed: Polling, app: Application, connect: Callable[[], Application]
) -> None:
    fill(app, 0, 0)
    timed.run()
    slow = connect()
    slow("begin")
    slow("insert into orders (id, name) values (1, 'slow')")
    pass_seconds(app, 2)
    fill(app, 2, 2)
    timed.run()
    timed.run()
    assert timed.ids() == {0, 2}
    slow("commit")
    timed.run()
    assert timed.ids() == {0, 1, 2}


def test_without_the_look_at_open_transactions_such_a_row_is_lost(
    timed: Polling,
    app: Application,
    connect: Callable[[], Application],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin."""
    real = timestamp._then

    def blind(clock: Clock, settings: TableSettings, upto: int | None) -> int | None:
        return real(replace(clock, oldest=None), settings, upto)

    monkeypatch.setattr(timestamp, "_then", blind)
    fill(app, 0, 0)
    timed.run()
    slow = connect()
    slow("begin")
    slow("insert into orders (id, name) values (1, 'slow')")
    pass_seconds(app, 2)
    fill(app, 2, 2)
    timed.run()
    slow("commit")
    fill(app, 3, 3)
    timed.run()
    assert timed.ids() == {0, 2, 3}


@pytest.mark.parametrize(
    ("type", "now"),
    [
        ("datetime", "convert_tz(utc_timestamp(), '+00:00', '+05:30')"),
        ("bigint", "unix_timestamp()"),
        ("bigint", "unix_timestamp(now(3)) * 1000"),
    ],
)
def test_every_way_to_write_a_time_is_understood(
    timed: Polling, app: Application, type: str, now: str
) -> None:
    app(f"create table orders (id int primary key, updated_at {type})")
    timed.settings = replace(timed.settings, timezone="Asia/Kolkata", overlap=2.0)
    timed.run()
    timed.run()
    app(f"insert into orders {numbers(15)} select seq, {now} from numbers")
    timed.run()
    app(f"insert into orders values (99, {now})")
    timed.run()
    assert timed.ids() == {*range(1, 16), 99}


def test_keys_that_sort_by_number_or_without_case_are_paged_whole(
    timed: Polling, app: Application
) -> None:
    app(
        "create table orders (kind enum('z', 'a', 'm'), name varchar(20)"
        " collate utf8mb4_general_ci, n bigint unsigned, primary key (kind, name, n))"
    )
    app(
        f"insert into orders {numbers(95)} select elt(seq % 3 + 1, 'z', 'a', 'm'),"
        " elt(seq % 4 + 1, 'a', 'B', 'ä', '\\\\%'), 18446744073709550000 + seq from numbers"
    )
    timed.run()
    assert len(timed.rows()) == 95
    assert timed.delivered == 96  # and the truncation of what was not found


# --- by triggers


def test_every_way_to_write_a_row_is_seen(queued: Polling, app: Application) -> None:
    fill(app, 26, 27, "new")
    app("update orders set name = 'changed' where id <= 2")
    app("delete from orders where id = 3")
    app("insert into orders (id, name) values (4, 'x') on duplicate key update name = 'both'")
    app("replace into orders (id, name) values (5, 'replaced')")
    app("update orders set id = 106 where id = 6")
    queued.run()
    expected = dict.fromkeys(range(7, 26), "old") | {1: "changed", 2: "changed", 4: "both"}
    expected |= {5: "replaced", 26: "new", 27: "new", 106: "old"}
    assert queued.values("name") == expected
    queued.run()
    assert queued.delivered == 0


def test_a_truncation_which_runs_no_trigger_is_noticed(queued: Polling, app: Application) -> None:
    app("truncate table orders")
    fill(app, 5, 6, "after")
    queued.run()
    assert queued.values("name") == {5: "after", 6: "after"}


@pytest.mark.holds(guarantee=4, source="mariadb", destination="pretended", fault="late commit")
def test_an_entry_that_is_committed_after_a_later_one_is_not_missed(
    queued: Polling, app: Application, connect: Callable[[], Application]
) -> None:
    slow = connect()
    slow("begin")
    slow("insert into orders (id, name) values (50, 'slow')")
    fill(app, 51, 51)
    queued.run()
    assert queued.ids() == {*range(1, 26), 51}
    slow("commit")
    queued.run()
    assert queued.ids() == {*range(1, 26), 50, 51}


def test_a_key_that_changes_only_its_case_is_another_key_elsewhere(
    queued: Polling, app: Application
) -> None:
    app(
        "create table orders (id varchar(20) collate utf8mb4_general_ci primary key,"
        " name varchar(20))"
    )
    app("insert into orders values ('a', 'first')")
    queued.warehouse = MemoryWarehouse()
    queued.run()
    app("update orders set id = 'A'")
    queued.run()
    assert queued.values("name") == {"A": "first"}


def test_keys_of_every_sort_and_names_of_any_letters_are_queued(
    queued: Polling, app: Application, orders: TableId
) -> None:
    table = TableId(orders.namespace, "ta`ble's %s \\ 表")
    name = "`" + table.name.replace("`", "``") + "`"
    app(
        f"create table {name} (`a``b` varchar(20), `per%%cent` timestamp(6), `Größe` varbinary(9),"
        " d date, n decimal(30, 4), e enum('x', 'y'), id int,"
        " primary key (`a``b`, `per%%cent`, `Größe`, d, n, e))"
    )
    queued.settings = replace(queued.settings, table=table, destination=table)
    queued.run()
    app(
        f"insert into {name} values ('it''s', '2026-01-02 03:04:05.678', x'00ff', '2026-02-03',"
        " 12345678901234567890.1234, 'y', 1), ('\\\\', '2026-01-02', x'', '2026-02-03', 0, 'x', 2)"
    )
    queued.run()
    assert queued.ids() == {1, 2}
    app(f"delete from {name} where id = 1")
    queued.run()
    assert queued.ids() == {2}
    app(f"truncate {name}")
    queued.run()
    assert queued.ids() == set()


def test_triggers_are_made_once_and_leave_nothing_behind(
    queued: Polling, app: Application, mariadb_database: str, orders: TableId
) -> None:
    assert installed(app, orders) == (3, 1)
    queued.start()
    with closing(mysql(mariadb_database, queued.select)) as source:
        source.polled.remove(orders)
        source.polled.remove(orders)
    assert installed(app, orders) == (0, 0)
    fill(app, 99, 99)


def installed(app: Application, table: TableId) -> tuple[int, int]:
    [[triggers]] = app(
        "select count(*) from information_schema.triggers"
        f" where trigger_schema = '{table.namespace}'"
    )
    [[databases]] = app(
        f"select count(*) from information_schema.schemata where schema_name = '{names.SCHEMA}'"
    )
    return triggers, databases


def test_a_trigger_that_is_missing_is_made_again_and_the_table_compared(
    queued: Polling, app: Application, orders: TableId
) -> None:
    app(f"drop trigger cw_delete_{names.queue(orders)}")
    app("delete from orders where id = 3")
    with pytest.raises(LeaseLost):
        queued.run(lost=True)  # the one that makes it anew
    queued.run()
    assert queued.ids() == set(range(1, 26)) - {3}


def test_a_wider_key_type_breaks_no_writer_and_loses_nothing(
    queued: Polling, app: Application
) -> None:
    app("alter table orders modify id bigint")
    fill(app, 9_000_000_000, 9_000_000_000)
    queued.run()
    assert 9_000_000_000 in queued.ids()


def test_a_table_in_use_is_waited_for_briefly(
    timed: Polling, app: Application, connect: Callable[[], Application]
) -> None:
    timed.settings = replace(timed.settings, capture=Capture.TRIGGER)
    writer = connect()
    writer("begin")
    writer("insert into orders (id, name) values (1, 'open')")
    with pytest.raises(SourceUnavailable):
        timed.start()
    writer("commit")
    timed.start()


def test_the_least_rights_suffice_and_writers_need_none_on_the_queue(
    timed: Polling, app: Application, mariadb_database: str, orders: TableId
) -> None:
    """As docs/capture.md has them."""
    timed.settings = replace(timed.settings, capture=Capture.TRIGGER)
    login = "cw_reader@'127.0.0.1'"
    for statement in (
        "drop user if exists cw_reader@'127.0.0.1', cw_writer@'127.0.0.1'",
        "set global log_bin_trust_function_creators = 1",
        f"create user {login} identified by 'secret'",
        f"grant process, replication client on *.* to {login}",
        f"grant select, trigger on `{orders.namespace}`.* to {login}",
        f"grant all on {names.SCHEMA}.* to {login}",
        "create user cw_writer@'127.0.0.1'",
        f"grant insert, drop on `{orders.namespace}`.* to cw_writer@'127.0.0.1'",
    ):
        app(statement)
    address = mariadb_database.rpartition("@")[2]
    timed.connect = functools.partial(mysql, f"mysql://cw_reader:secret@{address}")
    timed.start()
    with closing(Application(f"mysql://cw_writer@{address}")) as writer:
        fill(writer, 1, 1, "new")
    timed.run()
    assert timed.values("name") == {1: "new"}
    with closing(timed.connect(timed.select)) as source:
        source.polled.remove(orders)
    assert installed(app, orders) == (0, 0)
    app("drop user cw_reader@'127.0.0.1', cw_writer@'127.0.0.1'")
    app("set global log_bin_trust_function_creators = 0")
