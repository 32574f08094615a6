"""Changes that carry a part of a row, where the destination has not got the row yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from test_pipeline import Held, destination_of, names

from warp import pipeline
from warp.errors import WarpError
from warp.model import (
    UNCHANGED,
    Chunk,
    Column,
    Kind,
    Lease,
    Operation,
    TableChanges,
    TableSchema,
    WorkUnit,
)
from warp.testing.contracts import ORDERS, STREAM, Unit, aside, select
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDeltas,
    MemoryDestination,
    MemorySourceOptions,
    MemoryWarehouse,
)

WIDE = TableSchema(
    ORDERS,
    (Column("id", Kind.INT64), Column("name", Kind.TEXT), Column("note", Kind.TEXT)),
    ("id",),
)


@pytest.fixture
def database() -> MemoryDatabase:
    database = MemoryDatabase()
    database.create(WIDE)
    return database


@pytest.fixture
def warehouse() -> MemoryWarehouse:
    return MemoryWarehouse()


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of each look-up."""
    asked: list[list[int]] = []
    look_up = MemoryDeltas.look_up

    def noted(source: MemoryDeltas, rows: TableChanges) -> TableChanges:
        asked.append(list(rows.columns[0]))
        return look_up(source, rows)

    monkeypatch.setattr(MemoryDeltas, "look_up", noted)
    return asked


def source_of(database: MemoryDatabase) -> MemoryDeltas:
    return MemoryDeltas(MemorySourceOptions(database=database), select)


def run(
    database: MemoryDatabase, warehouse: MemoryWarehouse, until: Callable[[], bool], fence: int
) -> None:
    destination = destination_of(warehouse)
    lease = Lease(STREAM, f"worker-{fence}", fence)
    pipeline.stream(
        source_of(database),
        destination,
        destination.open(lease),
        Held(lease, until),
        selection=select,
        meter=pipeline.NoMeter(),
        idle=0.01,
    )


def follow_to_the_end(database: MemoryDatabase, warehouse: MemoryWarehouse, fence: int) -> None:
    def at_end() -> bool:
        position = warehouse.markers[STREAM.id].position
        return position is not None and int(position.token) == database.version

    run(database, warehouse, at_end, fence)


def snapshot(database: MemoryDatabase, warehouse: MemoryWarehouse, before_write: Any) -> None:
    """One chunk, read before `before_write` is called and written after it."""
    source, destination = source_of(database), destination_of(warehouse)
    chunk = Chunk(ORDERS, 0)
    destination.metadata().plan_snapshot("shop", ORDERS, [chunk], version=database.version)
    batches = list(source.get_full_snapshot(chunk))
    before_write()
    source.get_full_snapshot = lambda chunk: iter(batches)  # type: ignore[method-assign]
    lease = Lease(WorkUnit.of_chunk("shop", chunk, 0), "reader", 1)
    marker = destination.open(lease)
    hold = Held(lease, lambda: False)
    assert pipeline.snapshot(
        source, destination, marker, hold, selection=select, meter=pipeline.NoMeter()
    )


def an_update_overtakes_the_chunk(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> list[dict[str, Any]]:
    """The rows after an update of a part came while the chunk with its row was under way."""
    database.put(ORDERS, id=1, name="a", note="long")
    database.put(ORDERS, id=2, name="b", note="longer")
    run(database, warehouse, lambda: True, fence=1)

    def meanwhile() -> None:
        database.patch(ORDERS, id=1, name="z")
        follow_to_the_end(database, warehouse, fence=2)

    snapshot(database, warehouse, meanwhile)
    return sorted(warehouse.rows(ORDERS), key=lambda row: int(row["id"]))


def test_an_update_of_a_part_that_overtakes_its_chunk_keeps_the_rest_of_the_row(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    """Guarantee 4."""
    assert an_update_overtakes_the_chunk(database, warehouse) == [
        {"id": 1, "name": "z", "note": "long"},
        {"id": 2, "name": "b", "note": "longer"},
    ]


def test_without_the_look_up_the_rest_of_the_row_would_be_lost(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(pipeline.Delivery, "_looked_up", lambda delivery, batch, lacking: batch)
    found = an_update_overtakes_the_chunk(database, warehouse)
    assert found[0] == {"id": 1, "name": "z", "note": None}


def test_a_row_that_is_there_is_not_looked_up(
    database: MemoryDatabase, warehouse: MemoryWarehouse, looked_up: list[list[int]]
) -> None:
    run(database, warehouse, lambda: True, fence=1)
    database.put(ORDERS, id=1, name="a", note="long")
    follow_to_the_end(database, warehouse, fence=2)
    database.patch(ORDERS, id=1, name="z")
    follow_to_the_end(database, warehouse, fence=3)
    assert warehouse.rows(ORDERS) == [{"id": 1, "name": "z", "note": "long"}]
    assert looked_up == []


def test_an_earlier_whole_row_of_the_batch_counts_as_there(
    database: MemoryDatabase, warehouse: MemoryWarehouse, looked_up: list[list[int]]
) -> None:
    run(database, warehouse, lambda: True, fence=1)
    database.put(ORDERS, id=1, name="a", note="long")
    database.patch(ORDERS, id=1, name="y")
    database.patch(ORDERS, id=1, name="z")
    follow_to_the_end(database, warehouse, fence=2)
    assert warehouse.rows(ORDERS) == [{"id": 1, "name": "z", "note": "long"}]
    assert looked_up == []


def a_part_after_a_whole_row_that_was_set_aside(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> list[dict[str, Any]]:
    """The rows after an update of a part came behind one that could not be written."""
    run(database, warehouse, lambda: True, fence=next(Unit.fences))
    database.put(ORDERS, id=1, name="a", note="old")
    follow_to_the_end(database, warehouse, fence=next(Unit.fences))
    database.put(ORDERS, id=1, name="a", note="new")
    refused = aside(Operation.UPDATE, database.version, 1, "a")
    unit = Unit(destination_of(warehouse))
    unit.write(str(database.version), quarantined=[refused])
    database.patch(ORDERS, id=1, name="z")
    follow_to_the_end(database, warehouse, fence=next(Unit.fences))
    return warehouse.rows(ORDERS)


def test_an_update_of_a_part_brings_what_waits_in_quarantine_with_it(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    """It overrules what waits there (guarantee 4)."""
    found = a_part_after_a_whole_row_that_was_set_aside(database, warehouse)
    assert found == [{"id": 1, "name": "z", "note": "new"}]


def test_were_the_quarantine_not_looked_at_its_part_of_the_row_would_be_lost(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(MemoryWarehouse, "undecided", lambda warehouse, table: set())
    found = a_part_after_a_whole_row_that_was_set_aside(database, warehouse)
    assert found == [{"id": 1, "name": "z", "note": "old"}]


def test_rows_that_are_gone_at_the_source_are_left_out_and_each_key_is_asked_once(
    database: MemoryDatabase, warehouse: MemoryWarehouse, looked_up: list[list[int]]
) -> None:
    for id in (1, 2):
        database.put(ORDERS, id=id, name="a", note="long")
    run(database, warehouse, lambda: True, fence=1)
    for name in ("x", "y"):
        for id in (1, 2):
            database.patch(ORDERS, id=id, name=name)
    patched = database.version
    database.delete(ORDERS, id=1)
    log = database.log
    database.log = log[:-1]  # the delete is not read yet
    run(database, warehouse, lambda: str(patched) in _token(warehouse), fence=2)
    assert warehouse.rows(ORDERS) == [{"id": 2, "name": "y", "note": "long"}]
    assert [sorted(ids) for ids in looked_up] == [[1, 2]]
    database.log = log
    follow_to_the_end(database, warehouse, fence=3)
    assert names(warehouse) == {2: "y"}


def _token(warehouse: MemoryWarehouse) -> str:
    position = warehouse.markers[STREAM.id].position
    return position.token if position else ""


def test_a_row_created_by_a_new_key_takes_what_was_not_sent_from_the_source(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run(database, warehouse, lambda: True, fence=1)
    database.put(ORDERS, id=1, name="a", note="long")
    follow_to_the_end(database, warehouse, fence=2)
    # As a source tells that key 1 became 2: what it keeps outside the row was not sent again.
    database.tables[ORDERS][2,] = database.tables[ORDERS].pop((1,)) | {"id": 2}
    database._append(ORDERS, Operation.DELETE, {"id": 1})
    database._append(ORDERS, Operation.CREATE, {"id": 2, "name": "a", "note": UNCHANGED})
    follow_to_the_end(database, warehouse, fence=3)
    assert warehouse.rows(ORDERS) == [{"id": 2, "name": "a", "note": "long"}]


def test_a_key_that_does_not_fit_is_set_aside_as_it_is_and_the_others_are_made_whole(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run(database, warehouse, lambda: True, fence=1)
    database.put(ORDERS, id=7, name="a", note="long")
    follow_to_the_end(database, warehouse, fence=2)
    text_now = (replace(WIDE.columns[0], kind=Kind.TEXT), *WIDE.columns[1:])
    database.schemas[ORDERS] = replace(WIDE, columns=text_now)
    database.tables[ORDERS] = {
        ("two",): {"id": "two", "name": "b", "note": "b"},
        ("3",): {"id": "3", "name": "c", "note": "longer"},
    }
    database.patch(ORDERS, id="two", name="y")
    database.patch(ORDERS, id="3", name="z")
    follow_to_the_end(database, warehouse, fence=3)
    assert {"id": 3, "name": "z", "note": "longer"} in warehouse.rows(ORDERS)
    [row] = warehouse.quarantine
    assert (row.key, row.partial) == ('{"id": "two"}', True)


def test_a_batch_of_whole_rows_asks_nobody(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(destination: MemoryDestination, changes: TableChanges) -> list[int]:
        raise WarpError("asked")

    monkeypatch.setattr(MemoryDestination, "missing", never)
    run(database, warehouse, lambda: True, fence=1)
    for name in ("a", "b"):
        database.put(ORDERS, id=1, name=name, note=None)
    follow_to_the_end(database, warehouse, fence=2)
    assert names(warehouse) == {1: "b"}
