"""Updates that carry a part of a row PostgreSQL has not got yet, brought by the whole pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from postgresql_world import CREATE, DELETE, ORDERS, SCHEMA, UPDATE, World
from psycopg import sql

from warp import pipeline
from warp.model import (
    Chunk,
    Column,
    Kind,
    Lease,
    Marker,
    Phase,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    WorkUnit,
)
from warp.testing.memory import MemoryDatabase, MemoryDeltas, MemorySourceOptions

HOSTILE = TableId('sh"op %s', "or'ders\\ %d ☂")
KEY = ('the "key"', "when %(n)s")
WIDE = TableSchema(
    HOSTILE,
    (
        Column(KEY[0], Kind.TEXT),
        Column(KEY[1], Kind.TIMESTAMP),
        Column("name", Kind.TEXT),
        Column("note", Kind.BYTES),
    ),
    KEY,
)


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


class Held:
    """A hold that hands the unit back when the log's end is reached."""

    def __init__(self, lease: Lease, database: MemoryDatabase) -> None:
        self.lease = lease
        self.database = database
        self.at = -1

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return self.at >= self.database.version

    def wait(self, seconds: float) -> None: ...


class Road:
    """From a database in memory to the world, as a worker drives it."""

    fences = itertools.count(1)

    def __init__(self, world: World) -> None:
        self.world = world
        self.database = MemoryDatabase()
        self.database.create(WIDE)
        self.stream = WorkUnit.stream("shop")
        start = Position(str(self.database.version))
        world.prepared().metadata().register(self.stream, position=start, phase=Phase.STREAMING)

    def source(self) -> MemoryDeltas:
        return MemoryDeltas(MemorySourceOptions(database=self.database), self.world.select)

    def open(self, unit: WorkUnit) -> tuple[Any, Marker, Held]:
        destination = self.world.destination()
        lease = Lease(unit, "worker", next(self.fences))
        return destination, destination.open(lease), Held(lease, self.database)

    def follow(self) -> None:
        destination, marker, held = self.open(self.stream)
        source = self.source()
        acknowledge = source.acknowledge

        def seen(position: Position) -> None:
            held.at = int(position.token)
            acknowledge(position)

        source.acknowledge = seen  # type: ignore[method-assign]
        pipeline.stream(
            source,
            destination,
            marker,
            held,
            selection=self.world.select,
            meter=pipeline.NoMeter(),
            idle=0.01,
        )

    def rows(self) -> list[Any]:
        table = sql.Identifier(HOSTILE.namespace, HOSTILE.name)
        query = sql.SQL("select {}, name, note from {} where not _cw_deleted order by 1").format(
            sql.Identifier(KEY[0]), table
        )
        return self.world.looking.execute(query).fetchall()


def an_update_overtakes_the_chunk(world: World) -> list[Any]:
    road = Road(world)
    for key in ("a%s", 'b"'):
        road.database.put(HOSTILE, **{KEY[0]: key, KEY[1]: -1}, name="first", note=b"\0long")
    road.follow()  # its rows are thrown away again, as if the stream had begun after them
    world.looking.execute(sql.SQL("truncate {}").format(sql.Identifier(*str_of(HOSTILE))))
    metadata = world.destination().metadata()
    chunk = Chunk(HOSTILE, 0)
    assert metadata.plan_snapshot("shop", HOSTILE, [chunk], version=road.database.version)
    batches = list(road.source().get_full_snapshot(chunk))
    road.database.patch(HOSTILE, **{KEY[0]: "a%s", KEY[1]: -1}, name="changed")
    road.follow()
    source = road.source()
    source.get_full_snapshot = lambda chunk: iter(batches)  # type: ignore[method-assign]
    destination, marker, held = road.open(WorkUnit.of_chunk("shop", chunk, 0))
    held.at = -1
    assert pipeline.snapshot(
        source, destination, marker, held, selection=world.select, meter=pipeline.NoMeter()
    )
    return road.rows()


def str_of(table: TableId) -> tuple[str, str]:
    return table.namespace, table.name


@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="no fault")
def test_an_update_of_a_part_that_overtakes_its_chunk_keeps_the_rest_of_the_row(
    world: World,
) -> None:
    """Guarantee 4."""
    assert an_update_overtakes_the_chunk(world) == [
        ("a%s", "changed", b"\0long"),
        ('b"', "first", b"\0long"),
    ]


def test_without_the_look_up_the_rest_of_the_row_would_be_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(pipeline.Delivery, "_looked_up", lambda delivery, batch, lacking: batch)
    assert an_update_overtakes_the_chunk(world)[0] == ("a%s", "changed", None)


def test_a_soft_deleted_row_is_a_row(world: World) -> None:
    world.table = {"soft_delete_column": "is gone"}
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    unit.write("2", (DELETE, 2, 1))
    keys = SCHEMA.columns[:1]
    only = TableSchema(ORDERS, keys, ("id",), unit.schema().version)
    part = TableChanges(ORDERS, bytearray([UPDATE] * 3), [3] * 3, only, [[1, 2, 3]])
    assert unit.destination.missing(part) == [2]


def test_asking_what_is_missing_leaves_the_next_write_as_it_was(world: World) -> None:
    unit = world.settled(
        TableSchema(ORDERS, (Column("id", Kind.INT64), Column("n", Kind.INT64)), ("id", "n"))
    )
    unit.write("1", (CREATE, 1, 1, 1))
    for token in ("2", "3"):
        part = TableChanges(ORDERS, bytearray([UPDATE]), [3], unit.schema(), [[2], [2]])
        assert unit.destination.missing(part) == [0]
        unit.write(token, (CREATE, 1, int(token), 1))
    assert world.rows(columns="id, n") == [(1, 1), (2, 1), (3, 1)]
