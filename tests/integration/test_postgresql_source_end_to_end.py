"""A PostgreSQL copied into another one while it is written to: both sides end equal."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from postgresql_copy import Copy
from postgresql_shop import Shop
from psycopg import errors

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
