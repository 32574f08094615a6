"""Tables without a key in a real PostgreSQL: whole reads that take each other's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from postgresql_world import ORDERS, READ, SCHEMA, TRUNCATE, Unit, World

from warp.destinations.postgresql.keyless import Keyless
from warp.model import (
    Aside,
    Change,
    Choice,
    Chunk,
    Column,
    Kind,
    Phase,
    Position,
    SchemaChange,
    TableSchema,
    WorkUnit,
)

POLL = WorkUnit.poll("shop", ORDERS)
KEYLESS = replace(SCHEMA, key=())


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def polled(world: World, schema: TableSchema = KEYLESS) -> Unit:
    unit = world.unit(POLL)
    unit.create(schema)
    return unit


def end(unit: Unit, token: str, version: int = 4) -> None:
    unit.write(token, (TRUNCATE, version), phase=Phase.SNAPSHOT)
    unit.write(token, phase=Phase.IDLE)


def test_rows_that_are_equal_are_all_kept(world: World) -> None:
    unit = polled(world)
    for _ in range(2):
        unit.write("1", (READ, 5, 1, "a"), (READ, 5, 1, "a"), (READ, 5, None, "b"))
        unit.write("1", (READ, 5, 1, "a"))
        end(unit, "1")
        assert world.rows() == [(1, "a"), (1, "a"), (1, "a"), (None, "b")]


def a_run_is_cut_short_and_done_again(world: World) -> None:
    first = polled(world)
    first.write("1", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
    again = world.unit(POLL)
    again.write("1", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
    end(again, "1")


@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="error")
def test_a_run_that_is_done_again_brings_no_row_twice(world: World) -> None:
    """Guarantee 7."""
    a_run_is_cut_short_and_done_again(world)
    assert world.rows() == [(1, "a"), (2, "b")]


def test_without_forgetting_what_was_cut_short_rows_would_come_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(Keyless, "forget", lambda self, settings: None)
    a_run_is_cut_short_and_done_again(world)
    assert world.rows() == [(1, "a"), (1, "a"), (2, "b"), (2, "b")]


def test_a_row_that_is_refused_is_set_aside_and_cannot_be_replayed(world: World) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create table shop.orders (id bigint check (id < 9), name text)")
    unit = polled(world, TableSchema(ORDERS, SCHEMA.columns[:2], ()))
    unit.write("1", (READ, 5, 1, "a"), (READ, 5, 10, "too many"), (READ, 5, 11, "too"))
    end(unit, "1")
    assert world.rows() == [(1, "a")]
    metadata = unit.destination.metadata()
    found = metadata.quarantine(Choice())
    assert [(a.state, dict(a.row.kinds)) for a in found] == [(Aside.WAITING, {})] * 2
    assert metadata.replay("shop", ORDERS, [a.id for a in found]) == 0


def test_a_row_that_finds_no_parent_is_set_aside_and_does_not_wait(world: World) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create table shop.parents (id bigint primary key)")
    world.looking.execute("create table shop.orders (id bigint references shop.parents, name text)")
    unit = polled(world, TableSchema(ORDERS, SCHEMA.columns[:2], ()))
    unit.write("1", (READ, 5, None, "a"), (READ, 5, 7, "no parent"), (READ, 5, 8, "nor here"))
    end(unit, "1")
    assert world.rows() == [(None, "a")]
    metadata = unit.destination.metadata()
    assert metadata.deferred() == {}
    assert metadata.quarantined() == {ORDERS: 2}


def test_a_column_that_is_added_between_two_runs_is_filled_by_the_next(world: World) -> None:
    unit = polled(world)
    unit.write("1", (READ, 5, 1, "a"))
    end(unit, "1")
    wider = replace(KEYLESS, columns=(*SCHEMA.columns, Column("n", Kind.INT64)))
    add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=wider.columns[-1], base=1)
    unit.destination.apply_schema_changes([add])
    unit.write("2", (READ, 6, 1, "a", None, 3))
    end(unit, "2", 5)
    assert world.rows(columns="id, name, n") == [(1, "a", 3)]


def test_a_table_read_anew_takes_the_place_of_what_was_there(world: World) -> None:
    unit = polled(world)
    unit.write("1", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
    end(unit, "1")
    metadata = unit.destination.metadata()
    metadata.resync("shop", ORDERS, position=Position("1"))
    assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=5)
    reader = world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
    reader.write("s", (READ, 5, 2, "b"), phase=Phase.SNAPSHOT)
    assert world.rows() == [(1, "a"), (2, "b")]
    reader.write("s", (READ, 5, 3, "c"), phase=Phase.DONE)
    assert world.rows() == [(2, "b"), (3, "c")]
    assert metadata.settle("shop", ORDERS)
    assert world.rows() == [(2, "b"), (3, "c")]
