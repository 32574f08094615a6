"""Columns of a real PostgreSQL table that are widened, become text, or stay as they are."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from postgresql_world import META, ORDERS, World

from warp import pipeline
from warp.destinations.postgresql import ddl
from warp.errors import SchemaBusy
from warp.evolve import evolve
from warp.kinds import as_text, relation, widened
from warp.model import (
    Change,
    ChangeBatch,
    Column,
    Evolution,
    Kind,
    Operation,
    Position,
    SchemaChange,
    TableChanges,
    TableSchema,
)

DAY = 86_400_000_000


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def table(kind: Kind, **more: Any) -> TableSchema:
    return TableSchema(ORDERS, (Column("id", Kind.INT64), Column("v", kind, **more)), ("id",))


def batch(token: int, kind: Kind, *cells: tuple[int, Any]) -> ChangeBatch:
    """Rows as a source with a schema sends them: (id, v)."""
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("v", kind)), ("id",))
    part = TableChanges(
        ORDERS,
        bytearray([Operation.CREATE] * len(cells)),
        [token] * len(cells),
        schema,
        [[id for id, _ in cells], [value for _, value in cells]],
    )
    return ChangeBatch([part], Position(str(token), 1.0))


class Carrier:
    """A unit that evolves and writes as the pipeline does, and keeps what was decided."""

    def __init__(self, world: World, schema: TableSchema) -> None:
        self.world = world
        self.unit = world.settled(schema)
        self.plan = Evolution(ChangeBatch([], Position("")))

    def carry(self, sent: ChangeBatch) -> None:
        for _ in range(pipeline.EVOLVE_ATTEMPTS):
            self.plan = evolve(sent, {ORDERS: self.unit.schema()}, self.world.select)
            if not self.plan.ddl:
                break
            self.unit.destination.apply_schema_changes(self.plan.ddl)
        after = self.unit.marker.advanced(self.plan.batch)
        self.unit.destination.write_batch(
            self.plan.batch,
            after,
            quarantined=self.plan.quarantined,
            findings=self.plan.findings,
        )
        self.unit.marker = after

    def values(self) -> list[Any]:
        return [v for (v,) in self.world.ask("select v from shop.orders order by id")]

    def type(self) -> str:
        [(found,)] = self.world.ask(
            "select format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'shop.orders'::regclass and attname = 'v'"
        )
        return str(found)


ORIGINALS: dict[Kind, list[Any]] = {
    Kind.INT32: [0, -(2**31), 2**31 - 1],
    Kind.INT64: [0, -(2**63), 2**63 - 1],
    Kind.FLOAT32: [0.0, 0.5, 0.10000000149011612, 16777216.0],
    Kind.FLOAT64: [0.1, -2.5, 1e300, 5e-324, 2.0**53],
    Kind.DECIMAL: [Decimal("1.10"), Decimal("-0.001"), Decimal(10**30)],
    Kind.DATE: [dt.date(1, 1, 1), dt.date(2026, 11, 25), dt.date(9999, 12, 31)],
    Kind.TIME: [0, DAY - 1, 3_600_000_001],
    Kind.DATETIME: [0, -1, 1_700_000_000_123_456, -62_135_596_800_000_000],
    Kind.TIMESTAMP: [0, -1, 1_700_000_000_123_456, 253_402_300_799_999_999],
    Kind.BOOL: [True, False],
    Kind.UUID: [bytes(16), bytes(range(16))],
    Kind.BYTES: [b"", b"\0\xff"],
}
WIDENED = [
    (have, want)
    for have in Kind
    for want in Kind
    if widened(have, want) is not None and want in ORIGINALS and have in ORIGINALS
]


@pytest.mark.parametrize(("have", "want"), WIDENED)
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="drift")
def test_a_column_is_widened_in_place_and_keeps_every_value(
    world: World, have: Kind, want: Kind
) -> None:
    carrier = Carrier(world, table(want))
    before = ORIGINALS[want]
    carrier.carry(batch(1, want, *enumerate(before)))
    after = ORIGINALS[have]
    carrier.carry(batch(2, have, *enumerate(after, start=100)))

    becomes = widened(have, want)
    assert becomes is not None
    assert carrier.unit.schema().columns[1].kind is becomes
    # What was there is what would have arrived: both kinds, sent anew, change nothing.
    old = carrier.values()
    carrier.carry(batch(3, want, *enumerate(before)))
    carrier.carry(batch(4, have, *enumerate(after, start=100)))
    assert carrier.values() == old
    assert len(old) == len(before) + len(after)
    assert not carrier.plan.ddl


@pytest.mark.parametrize("want", [k for k in ORIGINALS if relation(Kind.TEXT, k) == "narrower"])
def test_a_column_that_becomes_text_says_what_its_values_were(world: World, want: Kind) -> None:
    carrier = Carrier(world, table(want))
    before = ORIGINALS[want]
    carrier.carry(batch(1, want, *enumerate(before)))
    carrier.carry(batch(2, Kind.TEXT, (100, "no such value")))

    assert carrier.type() == "text"
    assert carrier.values()[-1] == "no such value"
    if want not in (Kind.FLOAT32, Kind.FLOAT64):  # the server writes 1e+15, Python 1000000000000000
        assert carrier.values()[:-1] == [as_text(want, value) for value in before]
    carrier.carry(batch(3, want, (200, before[0])))
    assert carrier.values()[-1] == as_text(want, before[0])


def test_a_limit_goes_without_a_rewrite_of_the_table(world: World) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create table shop.orders (id bigint primary key, v numeric(5, 2))")
    carrier = Carrier(world, table(Kind.DECIMAL))
    carrier.carry(batch(1, Kind.DECIMAL, (1, Decimal("123.45"))))
    file = "select pg_relation_filenode('shop.orders'::regclass)"
    before = world.ask(file)

    carrier.carry(batch(2, Kind.DECIMAL, (2, Decimal("123.456"))))

    assert carrier.values() == [Decimal("123.45"), Decimal("123.456")]
    assert carrier.type() == "numeric"
    assert world.ask(file) == before


def test_text_beyond_a_limit_of_the_destination_is_cut_with_a_mark(world: World) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create table shop.orders (id bigint primary key, v varchar(10))")
    carrier = Carrier(world, table(Kind.TEXT))
    long = "ü" * 25
    carrier.carry(batch(1, Kind.TEXT, (1, "0123456789"), (2, long)))

    assert carrier.values() == ["0123456789", "ü" * 9 + "…"]
    [line] = world.ask(
        "select column_name, action, cells, original_length, key, message"
        f" from {META}.error_log where finding is not null"
    )
    assert line[:5] == ("v", "truncated", 1, 25, '{"id": 2}')
    assert long in line[5]
    carrier.carry(batch(2, Kind.TEXT, (3, long + long)))
    assert world.ask(f"select cells, original_length from {META}.error_log") == [(2, 50)]


def test_a_drastic_change_leaves_the_column_and_keeps_the_original_aside(world: World) -> None:
    carrier = Carrier(world, table(Kind.INT64))
    carrier.carry(batch(1, Kind.INT64, (1, 7)))
    carrier.carry(batch(2, Kind.JSON, (1, b'{"a": 1}'), (2, b"[1]")))

    assert carrier.values() == [7, None]  # untouched on update, NULL on insert
    assert world.ask(
        f"select key, row, column_name, code, version from {META}.quarantine order by id"
    ) == [
        ('{"id": 1}', '{"v": "{\\"a\\": 1}"}', "v", "CELL-skipped", 2),
        ('{"id": 2}', '{"v": "[1]"}', "v", "CELL-skipped", 2),
    ]


def test_a_column_the_server_cannot_change_stays_and_says_why(world: World) -> None:
    carrier = Carrier(world, table(Kind.INT32))
    world.looking.execute("create view shop.report as select v from shop.orders")

    carrier.carry(batch(1, Kind.INT64, (1, 5), (2, 2**40)))

    column = carrier.unit.schema().columns[1]
    assert (column.kind, column.fixed) == (Kind.INT32, True)
    assert carrier.values() == [5, None]
    [(message, action)] = world.ask(
        f"select message, action from {META}.error_log where finding is null"
    )
    assert "view" in message
    assert "the column stays" in action
    assert world.ask(f"select row from {META}.quarantine") == [(f'{{"v": {2**40}}}',)]


def test_a_table_too_large_to_rewrite_keeps_its_column_until_a_person_changes_it(
    world: World,
) -> None:
    world.table["rewrite_limit"] = 1000
    carrier = Carrier(world, table(Kind.INT32))
    carrier.carry(batch(1, Kind.INT32, (1, 5)))
    carrier.carry(batch(2, Kind.INT64, (2, 2**40)))
    assert carrier.type() == "integer"
    [(message,)] = world.ask(f"select message from {META}.error_log where finding is null")
    assert "ALTER COLUMN v TYPE bigint at a quiet hour" in message

    world.looking.execute("alter table shop.orders alter column v type bigint")
    carrier.carry(batch(3, Kind.INT64, (2, 2**40)))
    assert carrier.values() == [5, 2**40]
    assert carrier.unit.schema().columns[1] == Column("v", Kind.INT64)


def test_two_workers_that_ask_for_different_columns_get_the_wider(world: World) -> None:
    carrier = Carrier(world, table(Kind.INT32))
    other = world.destination()
    wide = SchemaChange(ORDERS, Change.WIDEN_COLUMN, column=Column("v", Kind.DECIMAL), base=1)
    less = replace(wide, column=Column("v", Kind.INT64))
    other.apply_schema_changes([wide])
    carrier.unit.destination.apply_schema_changes([less])
    assert carrier.type() == "numeric"
    assert carrier.unit.schema().version == 2


def test_readers_never_queue_behind_a_change_of_columns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long report holds the table; the change waits for it, and later readers do not."""
    monkeypatch.setattr(ddl, "LOCK_TRIES", 4)
    carrier = Carrier(world, table(Kind.INT32))
    with psycopg.connect(world.url) as report:
        report.execute("select * from shop.orders")  # its transaction stays open
        with pytest.raises(SchemaBusy, match="in use each time"):
            carrier.carry(batch(1, Kind.INT64, (1, 2**40)))
        assert world.ask("select count(*) from shop.orders") == [(0,)]
        assert carrier.type() == "integer"
        waiting = threading.Thread(target=carrier.carry, args=(batch(1, Kind.INT64, (1, 2**40)),))
        monkeypatch.setattr(ddl, "LOCK_TRIES", 1000)
        waiting.start()
        with psycopg.connect(world.url, options="-c statement_timeout=5000") as reader:
            for _ in range(20):
                reader.execute("select count(*) from shop.orders")
                reader.rollback()
        assert waiting.is_alive()
    waiting.join(timeout=60)
    assert carrier.values() == [2**40]


def test_without_the_short_patience_a_reader_would_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test before, with the guarded line removed."""
    monkeypatch.setattr(ddl, "LOCK_PATIENCE", b"SET LOCAL lock_timeout = '60s'")
    carrier = Carrier(world, table(Kind.INT32))
    with psycopg.connect(world.url) as report:
        report.execute("select * from shop.orders")
        waiting = threading.Thread(target=carrier.carry, args=(batch(1, Kind.INT64, (1, 2**40)),))
        waiting.start()

        def queued() -> bool:
            return bool(
                world.ask("select 1 from pg_locks where not granted and mode like 'Access%%'", [])
            )

        while not queued():
            assert waiting.is_alive()
        with (
            psycopg.connect(world.url, options="-c statement_timeout=1000") as reader,
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            reader.execute("select count(*) from shop.orders")
    waiting.join(timeout=60)
    assert carrier.values() == [2**40]
