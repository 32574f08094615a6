"""Both ends compared while both are written: planted faults are found, and nothing else is."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from bson import ObjectId
from mysql_world import Selection as MysqlSelection
from mysql_world import World as MysqlWorld
from mysql_world import world_at
from postgresql_shop import Shop, everything
from pymongo.database import Database
from test_mongodb_stream import Selection as MongoSelection
from verified_copy import FAULTS, ORDERS, SCHEMA, VerifiedCopy, copy_of, plant

from warp import comparison, verifying
from warp.comparison import Comparison, Ends
from warp.destinations.postgresql.comparing import PostgresComparing
from warp.digest.comparing import Sort
from warp.model import (
    Handling,
    Policy,
    Position,
    TableChanges,
    TableId,
    TableSettings,
    WorkUnit,
)
from warp.repairing import Repair
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.postgresql import PostgresSource


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    return capture_shop


@pytest.fixture
def copy(shop: Shop, pg_warehouse: str) -> Iterator[VerifiedCopy]:
    with copy_of(shop, pg_warehouse) as made:
        yield made


def test_every_planted_fault_is_found_and_named_and_nothing_else(
    copy: VerifiedCopy, shop: Shop
) -> None:
    with copy.following(ORDERS):
        first = copy.verify(ORDERS)
        assert (first.rows, first.units, first.differences, first.unsettled) == (60, 3, 0, 0)
        plant(copy)
        second = copy.verify(ORDERS)
        assert copy.differences(ORDERS) == FAULTS
        assert second.differences == len(FAULTS)
        assert second.digest == first.digest  # of what should be there
        assert {k.columns for k in copy.kept(ORDERS) if k.sort == "differs"} == {
            ("share",),
            ("name",),
        }
        assert second.oldest is not None
        assert second.newest is not None
        assert first.newest is not None
        assert first.newest <= second.oldest <= second.newest
        # The next change of a row heals it; the differences of the rest stay.
        shop.run("update shop.orders set name = 'new' where id in (7, 33)")
        copy.arrived()
        copy.verify(ORDERS)
        assert copy.differences(ORDERS) == {k: v for k, v in FAULTS.items() if v != "differs"}


def test_rows_under_write_give_no_false_alarm(copy: VerifiedCopy, shop: Shop) -> None:
    dice = random.Random(7)
    over = threading.Event()

    ids = [id for id in range(1, 90) if id != 60]

    def write() -> None:
        with closing(shop.another()) as session:
            session.autocommit = True
            while not over.is_set():
                session.execute("delete from shop.orders where id = %s", [dice.choice(ids)])
                session.execute(
                    "insert into shop.orders (id, name) values (%s, %s) on conflict (id) do update"
                    " set name = excluded.name",
                    (dice.choice(ids), f"w{dice.random()}"),
                )

    with copy.following(ORDERS):
        copy.run("update shop.orders set name = 'wrong' where id = 60")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(3):
                copy.verify(ORDERS)
                assert copy.differences(ORDERS) == {'{"id": 60}': "differs"}
        finally:
            over.set()
            writer.join(30)


def test_a_row_in_quarantine_is_known_by_a_key_of_another_kind(
    shop: Shop, pg_warehouse: str
) -> None:
    """A bigint at the source is a numeric in the table that somebody else has made."""

    def select(table: TableId) -> TableSettings | None:
        found = everything(table)
        return found and replace(found, policy=Policy(too_long=Handling.QUARANTINE))

    with copy_of(shop, pg_warehouse) as made:
        made.select = select
        made.run("create schema shop")
        made.run("create table shop.orders (id numeric primary key, name varchar(3))")
        shop.run("update shop.orders set name = 'too long' where id in (4, 5)")
        with made.following(ORDERS):
            made.select = everything  # by which they would be cut, and be there
            told = made.verify(ORDERS)
            assert (told.differences, told.aside) == (0, 2)
            shop.run("delete from shop.orders where id = 5")
            made.arrived()
        states = made.run("select state from cartridge_warp_metadata.quarantine order by key")
        assert states == [("waiting",), ("superseded",)]  # it must never land any more


def test_a_change_on_its_way_is_waited_for(
    copy: VerifiedCopy, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.bring(ORDERS)
    shop.run("update shop.orders set name = 'later' where id = 5")
    with ThreadPoolExecutor(1) as thread:
        verified = thread.submit(copy.verify, ORDERS)
        with pytest.raises(TimeoutError):  # the stream stands still: nobody can tell yet
            verified.result(0.5)
        with copy.streaming():
            assert verified.result(60).differences == 0
    assert copy.differences(ORDERS) == {}
    # The broken twin: without the wait, what is on its way looks like a difference.
    shop.run("update shop.orders set name = 'twin' where id = 7")
    monkeypatch.setattr(Comparison, "_passed", lambda self: Position("nowhere"))
    copy.verify(ORDERS)
    assert copy.differences(ORDERS) == {'{"id": 7}': "differs"}


@pytest.mark.parametrize("twin", [False, True])
def test_a_row_that_comes_and_goes_is_not_taken_for_a_missing_one(
    copy: VerifiedCopy, shop: Shop, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There at the source whenever that is read, and gone whenever the destination is."""
    if twin:
        monkeypatch.setattr(PostgresComparing, "_deleted_since", lambda *_: [])
    monkeypatch.setattr(comparison, "LOOKS", 3)

    def goes(self: Comparison) -> Position:
        shop.run("delete from shop.orders where id = 5")
        copy.arrived()
        return Position("somewhere")

    with (
        copy.following(ORDERS),
        closing(copy.make_source()) as source,
        closing(copy.destination()) as destination,
    ):
        unit = WorkUnit.of_table(SCHEMA, ORDERS)
        ends = Ends(source, destination, copy.lease(unit), copy.select)
        look_up = source.look_up

        def comes(rows: TableChanges) -> TableChanges:
            shop.run("insert into shop.orders (id, at) values (5, null) on conflict do nothing")
            copy.arrived()
            return look_up(rows)

        monkeypatch.setattr(source, "look_up", comes)
        monkeypatch.setattr(Comparison, "_passed", goes)
        judged = Comparison.of(ends, unit, ORDERS).judged([("5",)])
        assert judged is not None
        found = [difference.sort for difference in judged.differences]
        assert (found, judged.unsettled) == (([Sort.MISSING], 0) if twin else ([], 1))


def test_a_unit_that_was_asked_back_begins_again_and_says_the_same(copy: VerifiedCopy) -> None:
    with copy.following(ORDERS), closing(copy.make_source()) as source:
        plant(copy)
        with closing(copy.destination()) as destination:
            units = verifying.plan(source, destination, SCHEMA, ORDERS, 25, 1e9)
            hand = copy.lease(units[0])
            hand.stop()
            marker = destination.open(hand.lease)
            ends = (source, destination, marker, hand)
            assert not verifying.verify(*ends, selection=copy.select)
            for unit in [*units, *units]:
                copy.work(source, destination, unit)
            [done] = destination.verifications().passes(SCHEMA, ORDERS)
            assert (done.done, done.differences) == (3, len(FAULTS))
            # An earlier pass never takes the place of a later one.
            assert not verifying.plan(source, destination, SCHEMA, ORDERS, 25, 1e8)
        assert copy.differences(ORDERS) == FAULTS


def test_rows_that_are_known_to_be_elsewhere_are_no_differences(
    copy: VerifiedCopy, shop: Shop
) -> None:
    """In quarantine; or written as the destination's own limits let them be."""
    copy.run("create schema if not exists shop")
    copy.run(
        "create table shop.orders (id bigint primary key, name varchar(5),"
        " price numeric check (price < 1000))"
    )
    shop.run("update shop.orders set name = 'a name that is too long' where id = 3")
    with copy.following(ORDERS):
        shop.run("update shop.orders set price = 5000 where id = 4")
        shop.run("insert into shop.orders (id, price) values (70, 5000)")
        copy.arrived()
        found = copy.verify(ORDERS)
        assert (found.differences, found.aside) == (0, 2)
        assert copy.differences(ORDERS) == {}


def test_rows_of_a_table_without_a_key_are_counted_each(
    copy: VerifiedCopy, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another whole read mends them, so what is waited for here is none."""
    monkeypatch.setattr(Comparison, "_passed", lambda self: Position("nowhere"))
    shop.run("create table shop.notes (note text, n int)")
    shop.run("insert into shop.notes select 'same', 1 from generate_series(1, 3)")
    shop.run("insert into shop.notes values (null, 2), ('', 2), ('gone', 3)")
    notes = TableId("shop", "notes")
    copy.bring(ORDERS, notes)
    assert (copy.verify(notes).rows, copy.differences(notes)) == (6, {})
    copy.run("insert into shop.notes select * from shop.notes where note = 'same' limit 1")
    copy.run("delete from shop.notes where note = 'gone'")
    copy.run("update shop.notes set note = 'null' where note is null")
    copy.verify(notes)
    assert copy.differences(notes) == {
        '{"n": 1, "note": "same"}': "duplicate",
        '{"n": 3, "note": "gone"}': "missing",
        '{"n": 2, "note": null}': "missing",
        '{"n": 2, "note": "null"}': "extra",
    }
    with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
        ends = Ends(source, destination, copy.lease(WorkUnit.of_replay(SCHEMA, notes)), copy.select)
        looked = Repair(ends, SCHEMA, notes).look(copy.kept(notes), holding=True)
    assert looked is not None
    assert [correction.row for correction in looked.corrections] == [None] * 4
    [why] = {correction.why_not for correction in looked.corrections}
    assert "cartridge-warp resync shop shop.notes" in why
    with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
        destination.metadata().resync(SCHEMA, notes, position=source.position())
    copy.bring(notes)
    assert (copy.verify(notes).rows, copy.differences(notes)) == (6, {})


# ---------------------------------------------------------------- the other sources


class OfShop(MongoSelection):
    """Few columns, so that documents leave something over for `_extra`."""

    def __call__(self, table: TableId) -> TableSettings | None:
        found = super().__call__(table)
        return None if found is None else replace(found, schema=SCHEMA, max_columns=3)


def test_documents_are_compared_as_the_rows_they_are_written_as(
    mongo: Any, mongo_database: Database[dict[str, Any]], pg_warehouse: str
) -> None:
    name = mongo_database.name
    select = OfShop(name)

    def source() -> MongoSource:
        options = MongoOptions.model_validate({"connection_string": mongo.url})
        return MongoSource(options, select)

    ids = [ObjectId(f"{number:024x}") for number in range(80)]
    mongo_database.orders.insert_many(
        [
            {"_id": id, "n": n if n % 9 else "nine", "x": n / 7, "o": {"b": n, "a": [n, None]}}
            | ({"rare": n} if n == 5 else {})
            for n, id in enumerate(ids)
        ]
    )
    mongo_database.mixed.insert_many([{"_id": n if n % 2 else str(n), "v": n} for n in range(40)])
    orders, mixed = TableId(name, "orders"), TableId(name, "mixed")
    with (
        closing(VerifiedCopy(source, select, pg_warehouse)) as copy,
        copy.following(orders, mixed),
    ):
        first = copy.verify(orders)
        assert (first.rows, first.differences) == (80, 0)
        assert first.units > 1  # object ids have one order everywhere
        other = copy.verify(mixed)
        assert (other.rows, other.differences, other.units) == (40, 0, 1)
        mongo_database.orders.update_many({"n": {"$gt": 70}}, {"$set": {"x": 0.5}})
        place = f'"{name}"'
        copy.run(f"update {place}.orders set x = x + 1 where _id = %s", [str(ids[10])])
        copy.run(f"delete from {place}.orders where _id = %s", [str(ids[11])])
        copy.run(f"update {place}.orders set _extra = '{{}}' where _id = %s", [str(ids[5])])
        copy.run(f"delete from {place}.mixed where _id = '\"2\"'")
        copy.run(
            f"insert into {place}.mixed (_id, v, _cw_version, _cw_deleted)"
            " values ('1000', 1, 5, false)"
        )
        copy.verify(orders)
        copy.verify(mixed)
        found = copy.differences(orders)
        assert found == {
            f'{{"_id": "{ids[5]}"}}': "differs",
            f'{{"_id": "{ids[10]}"}}': "differs",
            f'{{"_id": "{ids[11]}"}}': "missing",
        }
        assert set(copy.differences(mixed).values()) == {"missing", "extra"}


@pytest.fixture
def mysql_world(mariadb: Any) -> Iterator[MysqlWorld]:
    with world_at(mariadb.url) as world:
        yield world


def test_rows_of_mysql_are_compared_by_numbers_and_by_text(
    mysql_world: MysqlWorld, pg_warehouse: str
) -> None:
    world = mysql_world
    world.sql(
        "create table orders (id int primary key, name varchar(20), price decimal(10,3),"
        " f float, j json, at datetime(6), seen timestamp null)"
    )
    world.sql("create table codes (code varchar(20) primary key, n int)")
    for n in range(60):
        world.sql(
            "insert into orders values (%s, %s, %s, %s, %s, '2024-02-03 04:05:06.789', now())",
            [n, f"n{n}", n * 1.1, n / 7, f'{{"b":{n},"a":1.50}}'],
        )
        world.sql("insert into codes values (%s, %s)", [f"K{n}", n])
    select = MysqlSelection(world.database)
    orders, codes = world.table("orders"), world.table("codes")
    with (
        closing(VerifiedCopy(lambda: world.source(), select, pg_warehouse)) as copy,
        copy.following(orders, codes),
    ):
        first = copy.verify(orders)
        assert (first.rows, first.differences) == (60, 0)
        assert first.units > 1
        assert copy.verify(codes).units == 1  # a collation is its server's own
        world.sql("update orders set name = 'x' where id > 50")
        place = f'"{world.database}"'
        copy.run(f"update {place}.orders set price = price + 0.001 where id = 10")
        copy.run(f"delete from {place}.codes where code = 'K7'")
        copy.verify(orders)
        copy.verify(codes)
        assert copy.differences(orders) == {'{"id": 10}': "differs"}
        assert copy.differences(codes) == {'{"code": "K7"}': "missing"}


def in_large_batches(table: TableId) -> TableSettings | None:
    found = everything(table)
    return found and replace(found, full_load_batch_size=10_000, write_batch_size=1_000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_one_wrong_row_in_a_million_is_found_under_writes_and_nothing_else(
    copy: VerifiedCopy, shop: Shop
) -> None:
    copy.rows, copy.select = 100_000, in_large_batches
    copy.make_source = lambda: PostgresSource(shop.options(), in_large_batches)
    shop.run(
        "insert into shop.orders select i, 'n' || i, i * 1.10, now(), i / 7.0, null"
        " from generate_series(61, 1000000) i"
    )
    dice, over, written = random.Random(3), threading.Event(), 0

    def write() -> None:
        nonlocal written
        with closing(shop.another()) as session:
            session.autocommit = True
            while not over.is_set():
                first = dice.randrange(1, 999_000)
                session.execute(
                    "update shop.orders set price = price + 1 where id between %s and %s"
                    " and id <> 777777",
                    (first, first + 50),
                )
                written += 51

    with copy.following(ORDERS):
        copy.run("update shop.orders set share = share + 1e-9 where id = 777777")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(2):
                found = copy.verify(ORDERS)
                assert copy.differences(ORDERS) == {'{"id": 777777}': "differs"}
                assert (found.rows, found.differences) == (1_000_000, 1)
        finally:
            over.set()
            writer.join(60)
    assert written > 10_000
