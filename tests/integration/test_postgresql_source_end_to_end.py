"""A PostgreSQL copied into another one while it is written to: both sides end equal."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from postgresql_copy import Copy
from postgresql_shop import Shop, hanging
from psycopg import errors

from warp.own_process import wait_until
from warp.sources.postgresql import visibility
from warp.testing.servers import Postgres

COLUMNS = "id, part, n, name"


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    shop = capture_shop.fresh()
    shop.run(
        'create table shop.orders (id int, part text collate "C", n numeric, name text, '
        "primary key (part, id))"
    )
    shop.run(
        "insert into shop.orders select n, chr(97 + n % 3), n / 7.0, 'start' "
        "from generate_series(1, 150) n"
    )
    return shop


class Writer:
    """An application that does everything to a table that can be done to it."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.luck = random.Random(seed)
        self.connection = shop.another()

    def run(self, transactions: int) -> None:
        with self.connection as connection:
            for _ in range(transactions):
                for _ in range(self.luck.choice([1, 1, 3, 12])):
                    try:
                        with connection.transaction():  # a savepoint, within
                            self._change()
                            if self.luck.random() < 0.1:
                                raise psycopg.Rollback
                    except errors.UniqueViolation:
                        continue
                if self.luck.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()

    def _change(self) -> None:
        run = self.connection.execute
        key = (self.luck.randrange(180), self.luck.choice("abc"))
        chance = self.luck.random()
        if chance < 0.35:
            run(
                "insert into shop.orders values (%s, %s, 1.10, 'new') "
                "on conflict (part, id) do update set n = 2.20",
                key,
            )
        elif chance < 0.6:
            run("update shop.orders set name = name || 'u' where id = %s and part = %s", key)
        elif chance < 0.75:
            run("update shop.orders set id = id + 1 where id = %s and part = %s", key)
        elif chance < 0.97:
            run("delete from shop.orders where id = %s and part = %s", key)
        elif chance < 0.98:
            run("truncate shop.orders")
        else:
            run("update shop.orders set n = n + 1 where id % 5 = 0")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.holds(
    guarantee=(4, 5), source="postgresql", destination="postgresql", fault="no fault"
)
def test_snapshot_and_log_together_end_equal(shop: Shop, pg_database: str, seed: int) -> None:
    copy = Copy(shop, pg_database)
    writers = [Writer(shop, seed * 10 + n) for n in range(2)]
    threads = [threading.Thread(target=writer.run, args=(60,)) for writer in writers]
    tending = threading.Thread(target=copy.tend_until_equal)
    for thread in threads:
        thread.start()
    tending.start()
    for thread in threads:
        thread.join()
        copy.restart_stream()
    tending.join()
    copy.tend_until_equal()
    here, there = copy.rows("orders", COLUMNS)
    assert there == here
    assert not copy.errors


@pytest.mark.holds(guarantee=4, source="postgresql", destination="postgresql", fault="drift")
def test_a_renamed_column_loses_no_value(shop: Shop, pg_database: str) -> None:
    copy = Copy(shop, pg_database)
    copy.tend_until_equal()
    changed = threading.Event()

    def change() -> None:
        shop.run("update shop.orders set n = 5 where id = 2")
        shop.run("alter table shop.orders rename column name to title")
        shop.run("alter table shop.orders add column more text default 'filled'")
        shop.run("update shop.orders set n = 6 where id = 3")
        changed.set()

    copy.tend_until_equal(then=change)
    assert changed.is_set()
    here, there = copy.rows("orders", "id, part, n, title, more")
    assert there == here
    assert copy.destination_columns("orders") >= {"name", "title", "more"}  # none is dropped


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Postgres]:
    """Another server: on the first one the destination's own commits would hang as well."""
    with Postgres() as server:
        yield server


def raced(shop: Shop, elsewhere: Postgres, database: str) -> tuple[list[object], list[object]]:
    """Both sides, after a row was streamed that no query at the source could see yet."""
    with psycopg.connect(elsewhere.url, autocommit=True) as connection:
        connection.execute(f"create database {database}".encode())
    shop.run("delete from shop.orders where id > 5")
    copy = Copy(shop, elsewhere.database_url(database))
    stream, chunk = copy.plan()

    def streamed() -> bool:
        with suppress(errors.UndefinedTable), psycopg.connect(copy.url) as looking:
            found = looking.execute("select name from shop.orders where id = 1").fetchall()
            return found == [("new",)]
        return False

    with hanging(shop, "update shop.orders set name = 'new' where id = 1"):
        copy.start(stream)
        assert wait_until(streamed, 20)
        copy.start(chunk).join(1.0)
    copy.tend_until_equal()
    return copy.rows("orders", COLUMNS)


@pytest.mark.holds(guarantee=4, source="postgresql", destination="postgresql", fault="late commit")
def test_a_chunk_does_not_bring_back_what_was_streamed_before_it_was_visible(
    shop: Shop, elsewhere: Postgres
) -> None:
    here, there = raced(shop, elsewhere, "waited")
    assert there == here


def test_without_the_wait_for_writers_it_brings_it_back(
    shop: Shop, elsewhere: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: S is the log's end, and the snapshot is opened at once."""
    monkeypatch.setattr(visibility, "wait_for_writers", lambda *args: None)
    here, there = raced(shop, elsewhere, "hasty")
    assert there != here
