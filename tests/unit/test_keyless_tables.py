"""Tables without a key on the path of a change: only whole reads, and each from its start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from test_pipeline import Held, destination_of, run_stream, source_of

from warp import pipeline
from warp.compact import compact
from warp.errors import SourceRefused
from warp.model import (
    ABSENT,
    ChangeBatch,
    Chunk,
    Lease,
    Operation,
    Phase,
    Position,
    TableChanges,
    TableId,
    WorkUnit,
)
from warp.testing.contracts import ORDERS, SCHEMA, STREAM, select
from warp.testing.memory import MemoryDatabase, MemorySource, MemoryWarehouse

READ, TRUNCATE = Operation.READ, Operation.TRUNCATE


@pytest.fixture
def database() -> MemoryDatabase:
    database = MemoryDatabase()
    database.create(SCHEMA)
    database.put(ORDERS, id=1, name="a")
    database.schemas[ORDERS] = replace(SCHEMA, key=())
    return database


@pytest.fixture
def warehouse() -> MemoryWarehouse:
    return MemoryWarehouse()


def test_a_stream_of_a_table_without_a_key_is_refused_with_what_to_do(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)
    before = warehouse.markers[STREAM.id].position
    database._append(ORDERS, Operation.CREATE, {"id": 2, "name": "b"})
    with pytest.raises(SourceRefused, match=r"primary key, found none.*give the table one"):
        run_stream(database, warehouse, until=lambda: False, fence=2)
    assert warehouse.rows(ORDERS) == []
    assert warehouse.markers[STREAM.id].position == before


def test_a_table_without_a_key_that_is_cut_into_several_chunks_is_refused(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    destination = destination_of(warehouse)
    lease = Lease(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0, None, "m"), 0), "w", 1)
    marker = destination.open(lease)
    hold = Held(lease, lambda: False)
    source = source_of(database)
    with pytest.raises(SourceRefused, match="one chunk"):
        pipeline.snapshot(
            source, destination, marker, hold, selection=select, meter=pipeline.NoMeter()
        )


class WholeReads(MemorySource):
    """Every poll reads the whole table, at one version, a row a batch."""

    begun: list[Position | None]

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        self.begun.append(position)
        version = self.database.version
        end = Position(str(version), fire_time)
        for row in self.database.tables[table].values():
            yield ChangeBatch([self._changes(table, [(version, READ, row)])], end)
        yield ChangeBatch([self._changes(table, [(version - 1, TRUNCATE, {})])], end)


def poll(source: WholeReads, warehouse: MemoryWarehouse, fence: int, until: Any) -> bool:
    destination = destination_of(warehouse)
    lease = Lease(WorkUnit.poll("shop", ORDERS), "w", fence)
    return pipeline.poll(
        source,
        destination,
        destination.open(lease),
        Held(lease, until),
        selection=select,
        meter=pipeline.NoMeter(),
        fire_time=0.0,
    )


def test_a_poll_that_was_cut_short_begins_again_and_brings_no_row_twice(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    source = WholeReads(WholeReads.Options(database=database), select)  # type: ignore[arg-type]
    source.begun = []
    database.tables[ORDERS] = {(n,): {"id": 1, "name": "equal"} for n in range(3)}
    assert not poll(source, warehouse, 1, until=lambda: True)
    assert warehouse.rows(ORDERS) == []
    assert poll(source, warehouse, 2, until=lambda: False)
    assert warehouse.rows(ORDERS) == [{"id": 1, "name": "equal"}] * 3
    assert poll(source, warehouse, 3, until=lambda: False)
    assert warehouse.rows(ORDERS) == [{"id": 1, "name": "equal"}] * 3
    assert source.begun == [None] * 3
    assert warehouse.markers["poll:shop:shop.orders"].phase is Phase.IDLE


def test_a_truncate_at_the_end_of_a_whole_read_leaves_the_rows_of_its_own_version() -> None:
    operations = bytearray([READ, READ, Operation.CREATE, TRUNCATE, READ])
    columns: list[list[Any]] = [[1, 2, 3, ABSENT, 4], ["a", "b", "old", ABSENT, "d"]]
    part = TableChanges(ORDERS, operations, [9, 9, 3, 8, 9], SCHEMA, columns)
    found = compact(part)
    assert found.truncated_at == 8
    assert found.columns[0] == [1, 2, 4]
