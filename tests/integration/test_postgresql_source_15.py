"""The oldest PostgreSQL that is supported, where it differs from the newest."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from postgresql_shop import Shop, everything, follow, hanging, read

from warp.errors import PositionLost, SourceUnavailable
from warp.model import ABSENT, UNCHANGED, TableId
from warp.own_process import wait_until
from warp.testing.servers import Postgres

ORDERS = TableId("shop", "orders")


@pytest.fixture(scope="module")
def old() -> Iterator[Shop]:
    settings = {"max_prepared_transactions": 5}
    with (
        Postgres(flavour="debian15", settings=settings) as server,
        Shop(server.url) as shop,
    ):
        yield shop


@pytest.fixture
def shop(old: Shop) -> Shop:
    shop = old.fresh()
    shop.run(
        "create table shop.orders (id int primary key, name text, large text, "
        "twice int generated always as (id * 2) stored)"
    )
    shop.run("alter table shop.orders alter column large set storage external")
    return shop


def test_snapshot_and_log_of_15_agree(shop: Shop) -> None:
    source = shop.source()
    source.check()
    start = source.position()
    shop.run("insert into shop.orders values (1, 'a', %s)", ("x" * 5000,))
    shop.run("update shop.orders set name = 'b'")
    shop.run("update shop.orders set id = 2, large = 'l'")
    shop.run("truncate shop.orders")
    shop.run("insert into shop.orders values (3, '€')")
    got = [(row[0], row[2]) for row, _ in follow(source, start, 6)]
    # Its log does not carry generated columns, so nothing does.
    none = {"name": ABSENT, "large": ABSENT}
    assert got == [
        ("CREATE", {"id": 1, "name": "a", "large": "x" * 5000}),
        ("UPDATE", {"id": 1, "name": "b", "large": UNCHANGED}),
        ("DELETE", {"id": 1, **none}),
        ("CREATE", {"id": 2, "name": "b", "large": "l"}),
        ("TRUNCATE", {"id": ABSENT, **none}),
        ("CREATE", {"id": 3, "name": "€", "large": None}),
    ]
    [row] = read(source, ORDERS)
    assert row[2] == got[-1][1]


def test_a_large_transaction_of_15_comes_before_its_end(shop: Shop) -> None:
    shop.admin.execute("reset role")
    shop.run(f"alter role {shop.reader} set logical_decoding_work_mem = '64kB'")
    source = shop.source(spill_after="64kB")
    start = source.position()
    shop.run("insert into shop.orders select n, repeat('a', 100) from generate_series(1, 3000) n")
    rows = follow(source, start, 3000)
    assert [row[2]["id"] for row, _ in rows] == list(range(1, 3001))
    assert len({row[1] for row, _ in rows}) == 1


def test_lost_and_taken_slots_of_15_are_told(shop: Shop) -> None:
    first, second = shop.source(), shop.source()
    start = first.position()
    batches = first.get_changes(start, selection=everything, idle=0.05)
    next(batches)
    with pytest.raises(SourceUnavailable, match=r"is active for PID \d+"):
        next(second.get_changes(start, selection=everything, idle=0.05))
    shop.drop_slot()
    with pytest.raises(PositionLost, match="does not exist"):
        next(second.get_changes(start, selection=everything, idle=0.05))


def test_a_prepared_transaction_holds_no_chunk_up_until_it_is_being_committed(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'old')")
    source = shop.source(snapshot_wait="500ms")
    start = source.position()
    with shop.another() as other:
        other.execute("update shop.orders set name = 'new'")
        other.execute("prepare transaction 'later'")
    [(_, version, cells)] = read(source, ORDERS)
    assert cells["name"] == "old"
    shop.run("commit prepared 'later'")
    [(change, _)] = follow(source, start, 1)
    assert change[2]["name"] == "new"
    assert change[1] >= version
    # Somebody who commits one is not told apart from who commits this one.
    with shop.another() as other:
        other.execute("update shop.orders set name = 'newest'")
        other.execute("prepare transaction 'last'")
    shop.run("create table shop.other (id int)")

    def commit() -> None:
        with psycopg.connect(shop.url, autocommit=True) as connection:
            connection.execute("commit prepared 'last'")

    committing = threading.Thread(target=commit)
    with hanging(shop, "insert into shop.other values (1)"):
        committing.start()
        assert wait_until(lambda: active(shop, "commit prepared"), 10)
        with pytest.raises(SourceUnavailable, match="prepared transaction"):
            read(source, ORDERS)
    committing.join()
    assert [row[2]["name"] for row in read(source, ORDERS)] == ["newest"]


def active(shop: Shop, words: str) -> bool:
    with psycopg.connect(shop.url) as looking:
        found = looking.execute(
            "select 1 from pg_stat_activity where query ilike %s and wait_event = 'SyncRep'",
            (f"%{words}%",),
        )
        return found.fetchone() is not None
