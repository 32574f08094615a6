"""Tables made, widened, re-keyed and adopted, beside writers and racers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from bson import Binary, ObjectId
from bson.datetime_ms import DatetimeMS
from postgresql_world import CREATE, DELETE, META, ORDERS, READ, SCHEMA, TABLE, UPDATE, World

from warp.destinations.postgresql import backfill
from warp.errors import DestinationRefused, DestinationUnavailable, SchemaMoved
from warp.model import (
    Change,
    Column,
    Kind,
    Phase,
    Position,
    Role,
    SchemaChange,
    TableId,
    TableSchema,
)
from warp.sources.extjson import tagged, to_json

EXTRA = Column("_extra", Kind.JSON, role=Role.EXTRA)


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def add(column: Column) -> SchemaChange:
    return SchemaChange(ORDERS, Change.ADD_COLUMN, column=column, base=1)


# -- creating


def test_a_table_carries_its_key_its_types_and_where_each_column_comes_from(world: World) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.unit()
    unit.create(
        TableSchema(
            ORDERS,
            (
                Column("a", Kind.INT64, comment="MongoDB field 'a': int 100 %"),
                Column("b", Kind.TIMESTAMP, source="b.c"),
                *(Column(f"k_{kind}", kind) for kind in Kind),
            ),
            ("b", "a"),
        )
    )
    found = dict(
        world.ask(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = 'shop' and table_name = 'orders'"
        )
    )
    assert found["k_json"] == "jsonb"
    assert found["k_decimal"] == "numeric"
    assert found["k_timestamp"] == "timestamp with time zone"
    assert (found["_cw_version"], found["is_deleted"]) == ("bigint", "boolean")
    indexes = [row[0] for row in world.ask("select indexdef from pg_indexes order by 1")]
    assert any("UNIQUE" in i and "(b, a)" in i for i in indexes)
    assert any("WHERE _cw_deleted" in i for i in indexes)
    comments = world.ask(
        "select col_description('shop.orders'::regclass, n) from generate_series(1, 2) n"
    )
    assert comments == [("MongoDB field 'a': int 100 %",), ("shop.orders: b.c",)]
    assert unit.schema().key == ("b", "a")


def test_the_registry_keeps_every_version_and_the_position_it_took_force_at(world: World) -> None:
    unit = world.settled()
    unit.write("17", (CREATE, 1, 1, "a"))
    unit.destination.apply_schema_changes([add(Column("colour", Kind.TEXT, source="c"))])
    found = world.ask(
        f"select version, change, position, columns from {META}.schema_registry order by version"
    )
    assert [row[:3] for row in found] == [(1, "create_table", None), (2, "add_column", "17")]
    assert found[1][3][-1] == {
        "name": "colour",
        "kind": "text",
        "source": "c",
        "role": "field",
        "comment": "",
    }
    schema = unit.schema()
    assert schema.version == 2
    assert schema.columns == (*SCHEMA.columns, Column("colour", Kind.TEXT, source="c"))


def test_a_table_without_a_key_is_made_without_one(world: World) -> None:
    unit = world.unit()
    made = unit.create(TableSchema(ORDERS, SCHEMA.columns, ()))
    assert made.key == ()
    assert world.ask("select count(*) from pg_index where indrelid = 'shop.orders'::regclass") == [
        (0,)
    ]


@pytest.mark.parametrize("name", ["_cw_version", "_cw_deleted", "is_deleted"])
def test_a_source_column_that_needs_one_of_our_names_is_refused(world: World, name: str) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.unit()
    with pytest.raises(DestinationRefused, match=name):
        unit.create(TableSchema(ORDERS, (*SCHEMA.columns, Column(name, Kind.TEXT)), ("id",)))


@pytest.mark.parametrize("name", ["_cw_version", "is_deleted"])
def test_a_new_source_column_that_needs_one_of_our_names_is_refused(
    world: World, name: str
) -> None:
    """Made neither, it would be asked for again and again."""
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.unit()
    unit.create(TableSchema(ORDERS, SCHEMA.columns[:2], ("id",)))
    with pytest.raises(DestinationRefused, match=name):
        unit.destination.apply_schema_changes([add(Column(name, Kind.TEXT))])


def test_deletes_cannot_be_made_soft_by_a_column_of_the_source(world: World) -> None:
    world.settled()
    world.table["soft_delete_column"] = "name"
    with pytest.raises(DestinationRefused, match=r"'name'.*choose another soft_delete_column"):
        world.destination().get_schema(ORDERS)


@pytest.mark.parametrize("change", [Change.CREATE_TABLE, Change.ADD_COLUMN])
def test_racers_make_a_change_once(world: World, change: Change) -> None:
    unit = world.unit()
    asked = SchemaChange(ORDERS, change, schema=SCHEMA)
    if change == Change.ADD_COLUMN:
        unit.create()
        asked = add(Column("colour", Kind.TEXT))
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def race() -> None:
        destination = world.destination()
        try:
            start.wait()
            destination.apply_schema_changes([asked])
        except BaseException as error:  # noqa: BLE001 - the top of a thread
            failures.append(error)

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert failures == []
    assert unit.schema().version == (1 if change == Change.CREATE_TABLE else 2)


def test_a_change_that_cannot_get_its_lock_is_for_another_try(world: World) -> None:
    world.options["lock_timeout"] = "100ms"
    unit = world.settled()
    with psycopg.connect(world.url) as reader:
        reader.execute("select * from shop.orders")
        with pytest.raises(DestinationUnavailable):
            unit.destination.apply_schema_changes([add(Column("colour", Kind.TEXT))])
    assert unit.schema().version == 1
    unit.destination.apply_schema_changes([add(Column("colour", Kind.TEXT))])
    assert unit.schema().version == 2


# -- widening

OID = ObjectId("0123456789abcdef01234567")
FIELDS: list[tuple[Kind, list[Any], list[Any]]] = [
    # kind, values that fit, values that stay where they are
    (Kind.BOOL, [True, False], [1, "true"]),
    (Kind.INT64, [0, -5, 2**63 - 1, 3.0], [2**63, 1.5, "1", True]),
    (Kind.FLOAT64, [1.5, 3, float("nan"), float("-inf"), 1e300, 5e-324], [2**53 + 1, "1.5"]),
    (Kind.DECIMAL, [1, 1.25], ["1", OID]),
    (Kind.TEXT, ["", "ü \" '", "2020"], [1, {"a": "b"}]),
    (Kind.OBJECTID, [OID], [str(OID), {"$oid": "short"}, {"$oid": 1}]),
    (Kind.TIMESTAMP, [DatetimeMS(0), DatetimeMS(-62_135_596_800_001)], [DatetimeMS(2**62), "now"]),
    (Kind.UUID, [Binary(bytes(range(16)), 4)], [Binary(b"short", 4), Binary(bytes(16), 3)]),
    (Kind.BYTES, [b"", bytes(range(256))], ["AAAA"]),
    (Kind.JSON, [[1, None], {"a": [True]}, "text", 1.5], []),
]


@pytest.mark.parametrize(("kind", "fits", "stays"), FIELDS, ids=[str(f[0]) for f in FIELDS])
def test_a_new_column_takes_the_values_that_fit_it_exactly(
    world: World, kind: Kind, fits: list[Any], stays: list[Any]
) -> None:
    field = "it's 100% {new} ?"
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), EXTRA), ("id",))
    unit = world.settled(schema)
    values = [*fits, *stays, None]
    unit.write(
        "1",
        *[(CREATE, 1, n, to_json({field: v, "other": n})) for n, v in enumerate(values)],
        (CREATE, 1, 99, None),
        (CREATE, 1, 100, to_json({field: fits[0]})),
    )
    unit.destination.apply_schema_changes([add(Column("new", kind, source=field))])
    found = world.rows(columns="id, new is not null, _extra ? 'other', _extra")
    for n in range(len(values)):
        moved, null = n < len(fits), n == len(values) - 1
        assert found[n][1:3] == (moved, True), values[n]
        assert (field in found[n][3]) == (not moved and not null), values[n]
    assert found[-2:] == [(99, False, None, None), (100, True, None, None)]


def test_a_value_beyond_the_limits_of_a_column_stays_where_it_is(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), EXTRA), ("id",))
    unit = world.settled(schema)
    world.looking.execute("alter table shop.orders add note varchar(5), add price numeric(5, 2)")
    values = [("short", 1.25), ("longer", 1.255), ("\u00fc" * 5, 1000), ("", 999.99)]
    unit.write(
        "1",
        *[(CREATE, 1, n, to_json({"note": a, "price": b})) for n, (a, b) in enumerate(values)],
    )
    for column in (Column("note", Kind.TEXT), Column("price", Kind.DECIMAL)):
        unit.destination.apply_schema_changes([add(column)])
    assert world.rows(columns="id, note, price::text, _extra") == [
        (0, "short", "1.25", None),
        (1, None, None, {"note": "longer", "price": 1.255}),
        (2, "\u00fc" * 5, None, {"price": 1000}),
        (3, "", "999.99", None),
    ]


def test_a_moved_value_is_the_one_a_writer_would_have_written(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), EXTRA), ("id",))
    unit = world.settled(schema)
    instants = [-62_135_596_800_001, -1, 0, 1_700_000_000_123, 253_402_300_800_000]
    unit.write(
        "1", *[(CREATE, 1, n, to_json({"at": DatetimeMS(ms)})) for n, ms in enumerate(instants)]
    )
    unit.destination.apply_schema_changes([add(Column("at", Kind.TIMESTAMP))])
    unit.write("2", *[(CREATE, 2, n + 50, None, ms * 1000) for n, ms in enumerate(instants)])
    assert world.ask("select count(*) from (select at from shop.orders group by 1) x") == [(5,)]


def test_a_value_that_arrived_in_the_new_column_is_not_replaced_by_an_old_one(
    world: World,
) -> None:
    unit = world.settled()
    unit.destination.apply_schema_changes([add(Column("new", Kind.TEXT))])
    world.looking.execute(f"update {META}.schema_registry set unfilled = 'new'".encode())
    unit.write("1", (CREATE, 1, 1, "a", b'{"new": "older"}', "newer"))
    assert unit.schema().column("new")
    assert world.rows(columns="new, _extra") == [("newer", {"new": "older"})]


def test_a_back_fill_cut_short_is_finished_by_whoever_reads_the_schema_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), EXTRA), ("id",))
    unit = world.settled(schema)
    unit.write("1", *[(CREATE, 1, n, b'{"new": "x"}') for n in range(10)])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "_fill", killed)
        with pytest.raises(KeyboardInterrupt):
            unit.destination.apply_schema_changes([add(Column("new", Kind.TEXT))])
    assert world.ask("select count(new) from shop.orders") == [(0,)]
    assert world.destination().get_schema(ORDERS) is not None
    assert world.ask("select count(new), count(_extra) from shop.orders") == [(10, 0)]
    assert world.ask(f"select count(unfilled) from {META}.schema_registry") == [(0,)]


def test_a_table_of_many_pages_is_filled_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAGES", 3)
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), EXTRA), ("id",))
    unit = world.settled(schema)
    extra = json.dumps({"new": "x" * 400, "other": "y" * 400}).encode()
    unit.write("1", *[(CREATE, 1, n, extra) for n in range(500)])
    unit.destination.apply_schema_changes([add(Column("new", Kind.TEXT))])
    assert world.ask("select count(new), count(_extra -> 'new') from shop.orders") == [(500, 0)]


# -- keys of several types

KEYS: list[tuple[Kind, list[Any], list[Any]]] = [
    (Kind.OBJECTID, [str(OID)], [OID]),
    (Kind.INT64, [1, -(2**63), 10**15], [1, -(2**63), 10**15]),
    (Kind.UUID, [bytes(range(16))], [Binary(bytes(range(16)), 4)]),
    (Kind.BYTES, [b"\xff" * 300], [b"\xff" * 300]),
    (
        Kind.TIMESTAMP,
        [-1_000, 1_700_000_000_123_000],
        [DatetimeMS(-1), DatetimeMS(1_700_000_000_123)],
    ),
    (
        Kind.TEXT,
        ["", "1", 'ü"\\/\u2028\x7f', "".join(map(chr, range(1, 32))), "x" * 1_999],
        ["", "1", 'ü"\\/\u2028\x7f', "".join(map(chr, range(1, 32))), "x" * 1_999],
    ),
]


@pytest.mark.parametrize(("kind", "cells", "values"), KEYS, ids=[str(k[0]) for k in KEYS])
def test_a_retyped_key_finds_the_rows_written_under_the_old_one(
    world: World, kind: Kind, cells: list[Any], values: list[Any]
) -> None:
    schema = TableSchema(ORDERS, (Column("_id", kind), Column("name", Kind.TEXT), EXTRA), ("_id",))
    unit = world.settled(schema)
    unit.write("1", *[(CREATE, 1, cell, "old") for cell in cells])
    retype = SchemaChange(ORDERS, Change.RETYPE_KEY, column=Column("_id", Kind.TAGGED), base=1)
    for _ in range(2):
        world.destination().apply_schema_changes([retype])
    schema_now = unit.schema()
    assert (schema_now.version, schema_now.columns[0].kind) == (2, Kind.TAGGED)
    short = [v for v in values if len(tagged(v)) <= 2000]
    unit.write("2", *[(UPDATE, 2, tagged(value), "new") for value in short])
    found = world.rows(columns="_id, name, _extra")
    assert sorted(row[0] for row in found if row[1] == "new") == sorted(map(tagged, short))
    for key, name, extra in found:
        if name == "old":  # too long for an index: a hash, and the value where values are kept
            assert key.startswith("sha256:")
            assert extra["_id"] in cells


def test_a_key_that_cannot_be_tagged_is_refused(world: World) -> None:
    unit = world.settled(TableSchema(ORDERS, (Column("_id", Kind.FLOAT64),), ("_id",)))
    with pytest.raises(DestinationRefused, match="resync"):
        unit.destination.apply_schema_changes(
            [SchemaChange(ORDERS, Change.RETYPE_KEY, column=Column("_id", Kind.TAGGED))]
        )


# -- tables of somebody else


def test_a_table_that_was_there_keeps_its_types_and_gets_what_we_need(world: World) -> None:
    world.looking.execute(
        "create schema shop; create table shop.orders (id integer primary key,"
        " name varchar(5), at timestamp, tags text[]);"
        " insert into shop.orders values (1, 'mine', '2020-01-01'), (2, 'also', null)"
    )
    wanted = TableSchema(
        ORDERS,
        (
            Column("id", Kind.INT64),
            Column("name", Kind.TEXT),
            Column("at", Kind.TIMESTAMP),
            Column("tags", Kind.JSON),
            Column("total", Kind.DECIMAL),
        ),
        ("id",),
    )
    unit = world.settled(wanted)
    schema = unit.schema()
    assert [(c.name, c.kind) for c in schema.columns] == [
        ("id", Kind.INT32),
        ("name", Kind.TEXT),
        ("at", Kind.DATETIME),
        ("total", Kind.DECIMAL),
    ]
    unit.write("1", (READ, 0, 1, "ours", 0, None), (CREATE, 1, 3, "toolong", None, None))
    assert world.ask("select id, name, at::text from shop.orders order by id") == [
        (1, "ours", "1970-01-01 00:00:00"),
        (2, "also", None),
    ]
    assert world.ask(f"select code from {META}.quarantine") == [("SQLSTATE 22001",)]


@pytest.mark.parametrize(
    ("definition", "said"),
    [("id bigint", "primary key"), ("id bigint primary key, must text not null", "must")],
)
def test_a_table_that_was_there_and_cannot_be_used_is_refused_with_what_to_do(
    world: World, definition: str, said: str
) -> None:
    world.looking.execute(f"create schema shop; create table shop.orders ({definition})".encode())
    with pytest.raises(DestinationRefused, match=said):
        world.unit().create()
    assert world.ask(f"select count(*) from {META}.schema_registry") == [(0,)]


# -- tables changed under us


def test_deletes_may_be_made_soft_when_the_table_is_there_already(world: World) -> None:
    world.settled().write("1", (CREATE, 1, 1, "a"))
    world.table["soft_delete_column"] = "gone"
    world.unit().write("2", (DELETE, 2, 1))
    assert world.rows(columns="id, name, gone") == [(1, "a", True)]


def test_a_column_dropped_at_the_destination_is_seen_and_can_come_back(world: World) -> None:
    unit = world.settled()
    batch = unit.batch("1", (CREATE, 1, 1, "a"))
    world.looking.execute("alter table shop.orders drop column name")
    with pytest.raises(SchemaMoved):
        unit.deliver(batch)
    assert unit.schema().names() == ("id", "_extra")
    unit.write("1", (CREATE, 1, 1, b"{}"))
    unit.destination.apply_schema_changes([add(Column("name", Kind.TEXT))])
    assert unit.schema().names() == ("id", "_extra", "name")


def test_a_table_dropped_at_the_destination_is_made_anew_by_a_resync(world: World) -> None:
    unit = world.settled()
    batch = unit.batch("1", (CREATE, 1, 1, "a"))
    world.looking.execute("drop table shop.orders")
    with pytest.raises(SchemaMoved):
        unit.deliver(batch)
    with pytest.raises(DestinationRefused, match="resync"):
        unit.destination.get_schema(ORDERS)
    unit.destination.metadata().resync("shop", ORDERS, position=Position("9"))
    assert unit.destination.get_schema(ORDERS) is None
    assert unit.create().version == 2
    unit = world.unit(fence=1_000)
    unit.write("2", (CREATE, 2, 1, "b"))
    assert world.rows() == [(1, "b")]
    assert world.ask(f"select phase from {META}.sync_markers where unit = '{TABLE.id}'") == [
        (Phase.PLANNED.value,)
    ]


def test_a_destination_of_another_name_is_used_wherever_the_table_is(world: World) -> None:
    world.table["destination"] = TableId("wh", "o" * 80)
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    [[name]] = world.ask(
        "select relname from pg_class c join pg_namespace n on n.oid = relnamespace"
        " where nspname = 'wh' and relkind = 'r'"
    )
    assert len(name) == 63
    assert unit.schema().table == ORDERS


# -- a guess, made before anybody saw a document


def guess(*more: Column) -> TableSchema:
    return TableSchema(ORDERS, (Column("_id", Kind.OBJECTID), *more, EXTRA), ("_id",))


LEARNED = TableSchema(
    ORDERS,
    (Column("_id", Kind.INT64, comment="int 100 %"), Column("n", Kind.INT64), EXTRA),
    ("_id",),
)


def test_the_first_documents_correct_what_was_guessed_without_any(world: World) -> None:
    unit = world.settled(guess())
    assert unit.schema().is_guess
    learned = unit.create(LEARNED)
    assert [(c.name, c.kind) for c in learned.columns] == [
        (c.name, c.kind) for c in LEARNED.columns
    ]
    assert learned.version == 2
    assert not learned.is_guess
    unit.write("1", (CREATE, 1, 7, 70))
    assert world.rows(columns="_id, n") == [(7, 70)]


def test_a_writer_of_the_guess_is_told_to_read_the_schema_again(world: World) -> None:
    unit = world.settled(guess())
    late = unit.batch("1", (CREATE, 1, "5f"))
    world.unit(TABLE).create(LEARNED)
    with pytest.raises(SchemaMoved):
        unit.deliver(late)


def test_a_guess_that_has_rows_stays_as_it_is(world: World) -> None:
    unit = world.settled(guess())
    unit.write("1", (CREATE, 1, "5f"))
    assert unit.create(LEARNED).version == 1
    assert world.rows(columns="_id") == [("5f",)]


def test_an_adopted_table_keeps_its_key_though_it_was_guessed(world: World) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create table shop.orders (_id text primary key)")
    unit = world.settled(guess())
    assert unit.schema().is_guess
    learned = unit.create(LEARNED)
    assert [c.kind for c in learned.columns][:2] == [Kind.TEXT, Kind.INT64]
    assert world.ask("select count(*) from shop.orders") == [(0,)]


def test_a_table_of_columns_is_never_a_guess(world: World) -> None:
    unit = world.settled()
    assert not unit.schema().is_guess
