"""The path of a change, driven with the in-memory connectors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from warp import pipeline
from warp.errors import FenceBehind, LeaseLost, PositionLost
from warp.model import (
    Chunk,
    Column,
    Kind,
    Lease,
    Marker,
    Phase,
    Position,
    TableSchema,
    WorkUnit,
)
from warp.testing.contracts import ORDERS, SCHEMA, STREAM, select
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)


class Held:
    """A hold that stops when a condition is met."""

    def __init__(self, lease: Lease, until: Callable[[], bool]) -> None:
        self.lease = lease
        self.until = until
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise LeaseLost("lost in a test")

    def stopping(self) -> bool:
        return self.until()

    def wait(self, seconds: float) -> None: ...


@pytest.fixture
def database() -> MemoryDatabase:
    database = MemoryDatabase()
    database.create(SCHEMA)
    return database


@pytest.fixture
def warehouse() -> MemoryWarehouse:
    return MemoryWarehouse()


def source_of(database: MemoryDatabase) -> MemorySource:
    return MemorySource(MemorySourceOptions(database=database), select)


def destination_of(warehouse: MemoryWarehouse) -> MemoryDestination:
    return MemoryDestination(MemoryDestinationOptions(warehouse=warehouse), select)


def run_stream(
    database: MemoryDatabase, warehouse: MemoryWarehouse, until: Callable[[], bool], fence: int = 1
) -> tuple[MemorySource, Marker]:
    source, destination = source_of(database), destination_of(warehouse)
    lease = Lease(STREAM, f"worker-{fence}", fence)
    marker = destination.open(lease)
    hold = Held(lease, until)
    marker = pipeline.stream(
        source, destination, marker, hold, selection=select, meter=pipeline.NoMeter(), idle=0.01
    )
    return source, marker


def names(warehouse: MemoryWarehouse) -> dict[int, Any]:
    return {row["id"]: row["name"] for row in warehouse.rows(ORDERS)}


def test_a_stream_begins_at_the_logs_end_and_stores_it_before_reading(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    database.put(ORDERS, id=1, name="before")
    run_stream(database, warehouse, until=lambda: True)
    stored = warehouse.markers[STREAM.id].position
    assert stored is not None
    assert stored.token == "1"


def test_a_stream_carries_changes_and_acknowledges_what_is_durable(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)
    for id in range(250):
        database.put(ORDERS, id=id, name=f"n{id}")
    source, marker = run_stream(
        database, warehouse, until=lambda: len(names(warehouse)) == 250, fence=2
    )
    assert names(warehouse) == {id: f"n{id}" for id in range(250)}
    assert source.acknowledged == marker.position
    assert marker.rows == 250


@pytest.mark.holds(guarantee=3, source="none", destination="pretended", fault="no fault")
def test_the_source_is_told_only_after_the_marker_is_durable(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guarantee 3."""
    seen: list[tuple[int, int]] = []

    def acknowledge(self: MemorySource, position: Position) -> None:
        stored = warehouse.markers[STREAM.id].position
        assert stored is not None
        seen.append((int(position.token), int(stored.token)))

    monkeypatch.setattr(MemorySource, "acknowledge", acknowledge)
    run_stream(database, warehouse, until=lambda: True)
    for id in range(300):
        database.put(ORDERS, id=id, name="x")
    run_stream(database, warehouse, until=lambda: len(names(warehouse)) == 300, fence=2)
    assert seen
    assert all(told <= durable for told, durable in seen)


def test_acknowledging_before_the_write_is_caught(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of guarantee 3: the acknowledgement moved in front of the write."""
    write = pipeline.Delivery.write

    def early(self: pipeline.Delivery, marker: Marker, batch: Any, phase: Phase) -> Marker:
        self._source.acknowledge(batch.end)
        return write(self, marker, batch, phase)

    monkeypatch.setattr(pipeline.Delivery, "write", early)
    with pytest.raises(AssertionError):
        test_the_source_is_told_only_after_the_marker_is_durable(database, warehouse, monkeypatch)


def test_a_lost_lease_writes_nothing_more(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)
    database.put(ORDERS, id=1, name="late")
    destination = destination_of(warehouse)
    lease = Lease(STREAM, "worker-2", 2)
    marker = destination.open(lease)
    hold = Held(lease, until=lambda: False)
    hold.lost = True
    with pytest.raises(LeaseLost):
        pipeline.stream(
            source_of(database),
            destination,
            marker,
            hold,
            selection=select,
            meter=pipeline.NoMeter(),
            idle=0.01,
        )
    assert names(warehouse) == {}


def test_a_superseded_stream_ends_with_the_fence_it_met(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)
    destination = destination_of(warehouse)
    lease = Lease(STREAM, "worker-2", 2)
    marker = destination.open(lease)
    destination_of(warehouse).open(Lease(STREAM, "worker-3", 3))
    database.put(ORDERS, id=1, name="zombie")
    with pytest.raises(FenceBehind):
        pipeline.stream(
            source_of(database),
            destination,
            marker,
            Held(lease, lambda: False),
            selection=select,
            meter=pipeline.NoMeter(),
            idle=0.01,
        )
    assert names(warehouse) == {}


@pytest.mark.holds(guarantee=6, source="none", destination="pretended", fault="lost position")
def test_a_lost_position_stops_and_never_skips(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    """Guarantee 6."""
    run_stream(database, warehouse, until=lambda: True)
    database.put(ORDERS, id=1, name="never seen")
    database.forget()
    before = warehouse.markers[STREAM.id].position
    with pytest.raises(PositionLost, match="resync"):
        run_stream(database, warehouse, until=lambda: False, fence=2)
    assert warehouse.markers[STREAM.id].position == before


def test_a_new_column_is_added_between_transactions(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)
    database.put(ORDERS, id=1, name="a")
    run_stream(database, warehouse, until=lambda: len(names(warehouse)) == 1, fence=2)
    wider = replace(SCHEMA, columns=(*SCHEMA.columns, Column("colour", Kind.TEXT)))
    database.schemas[ORDERS] = wider
    database.put(ORDERS, id=2, name="b", colour="red")
    run_stream(database, warehouse, until=lambda: len(names(warehouse)) == 2, fence=3)
    assert {r["id"]: r.get("colour") for r in warehouse.rows(ORDERS)} == {1: None, 2: "red"}


def test_a_value_without_an_exact_form_is_set_aside_and_the_rest_lands(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    """Guarantee 4."""
    run_stream(database, warehouse, until=lambda: True)
    database.put(ORDERS, id=1, name="text")
    run_stream(database, warehouse, until=lambda: len(names(warehouse)) == 1, fence=2)
    text_now = (Column("id", Kind.TEXT), Column("name", Kind.TEXT))
    database.schemas[ORDERS] = TableSchema(ORDERS, text_now, ("id",))
    database.put(ORDERS, id="two", name="raw")
    database.put(ORDERS, id="3", name=None)
    run_stream(database, warehouse, until=lambda: 3 in names(warehouse), fence=3)
    assert names(warehouse) == {1: "text", 3: None}
    [row] = warehouse.quarantine
    assert (row.key, row.row) == ('{"id": "two"}', '{"id": "two", "name": "raw"}')
    assert "column id: 'two'" in row.reason


def test_a_chunk_ends_done_and_is_not_read_again(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    for id in range(30):
        database.put(ORDERS, id=id, name="x")
    destination = destination_of(warehouse)
    chunk = Chunk(ORDERS, 0)
    destination.metadata().plan_snapshot("shop", ORDERS, [chunk], version=0)
    unit = WorkUnit.of_chunk("shop", chunk, 0)
    for fence in (1, 2):
        lease = Lease(unit, "w", fence)
        marker = destination.open(lease)
        assert pipeline.snapshot(
            source_of(database),
            destination,
            marker,
            Held(lease, lambda: False),
            selection=select,
            meter=pipeline.NoMeter(),
        )
    assert warehouse.markers[unit.id].phase == Phase.DONE
    assert warehouse.markers[unit.id].rows == 30
    assert len(names(warehouse)) == 30


def snapshot_of_nothing(database: MemoryDatabase, warehouse: MemoryWarehouse) -> None:
    source, destination = source_of(database), destination_of(warehouse)
    chunk = Chunk(ORDERS, 0)
    destination.metadata().plan_snapshot("shop", ORDERS, [chunk], version=0)
    lease = Lease(WorkUnit.of_chunk("shop", chunk, 0), "worker", 1)
    assert pipeline.snapshot(
        source,
        destination,
        destination.open(lease),
        Held(lease, lambda: False),
        selection=select,
        meter=pipeline.NoMeter(),
    )


def test_a_table_without_a_row_is_made_all_the_same(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    snapshot_of_nothing(database, warehouse)
    assert warehouse.rows(ORDERS) == []
    assert destination_of(warehouse).get_schema(ORDERS) is not None


def test_without_asking_for_its_schema_a_table_without_a_row_would_be_missing(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: tables made by their first rows only."""
    monkeypatch.setattr(pipeline.Delivery, "know", lambda self, table, documents=None: None)
    snapshot_of_nothing(database, warehouse)
    assert destination_of(warehouse).get_schema(ORDERS) is None


def test_a_chunk_that_must_stop_half_way_is_not_done(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    for id in range(30):
        database.put(ORDERS, id=id, name="x")
    destination = destination_of(warehouse)
    chunk = Chunk(ORDERS, 0)
    destination.metadata().plan_snapshot("shop", ORDERS, [chunk], version=0)
    unit = WorkUnit.of_chunk("shop", chunk, 0)
    lease = Lease(unit, "w", 1)
    marker = destination.open(lease)
    assert not pipeline.snapshot(
        source_of(database),
        destination,
        marker,
        Held(lease, lambda: True),
        selection=select,
        meter=pipeline.NoMeter(),
    )
    assert warehouse.markers[unit.id].phase != Phase.DONE


def test_a_poll_run_ends_idle_and_the_next_one_starts_where_it_ended(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    unit = WorkUnit.poll("shop", ORDERS)
    destination = destination_of(warehouse)
    for fence, id in ((1, 1), (2, 2)):
        database.put(ORDERS, id=id, name="x")
        lease = Lease(unit, "w", fence)
        marker = destination.open(lease)
        assert pipeline.poll(
            source_of(database),
            destination,
            marker,
            Held(lease, lambda: False),
            selection=select,
            meter=pipeline.NoMeter(),
            fire_time=0.0,
        )
    assert set(names(warehouse)) == {1, 2}
    assert warehouse.markers[unit.id].rows == 2
    assert warehouse.markers[unit.id].phase == Phase.IDLE


@pytest.mark.holds(guarantee=3, source="none", destination="pretended", fault="no fault")
def test_a_poll_acknowledges_a_batch_once_it_is_durable(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    unit = WorkUnit.poll("shop", ORDERS)
    lease = Lease(unit, "w", 1)
    database.put(ORDERS, id=1, name="x")
    source, destination = source_of(database), destination_of(warehouse)
    there: list[set[int]] = []

    def acknowledge(position: Position) -> None:
        there.append(set(names(warehouse)))

    source.acknowledge = acknowledge  # type: ignore[method-assign]
    marker = destination.open(lease)
    hold = Held(lease, lambda: False)
    meter = pipeline.NoMeter()
    pipeline.poll(source, destination, marker, hold, selection=select, meter=meter, fire_time=0.0)
    assert there == [{1}]


def test_two_workers_that_take_turns_lose_and_repeat_nothing(
    database: MemoryDatabase, warehouse: MemoryWarehouse
) -> None:
    run_stream(database, warehouse, until=lambda: True)

    def write() -> None:
        for id in range(2000):
            database.put(ORDERS, id=id, name=str(id))

    writer = threading.Thread(target=write)
    writer.start()
    fence = 2
    while len(names(warehouse)) < 2000:
        seen = len(names(warehouse))
        run_stream(
            database,
            warehouse,
            fence=fence,
            until=lambda seen=seen: len(names(warehouse)) > seen,  # type: ignore[misc]
        )
        fence += 1
    writer.join()
    assert warehouse.markers[STREAM.id].rows == 2000


def test_a_quiet_stream_makes_a_transaction_for_rows_that_wait_for_others(
    database: MemoryDatabase, warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transactions(due_at: int, fence: int) -> tuple[int, Marker]:
        """How many a quiet stream makes that is asked three times, and where it ends."""
        asked: list[str] = []

        def due(destination: MemoryDestination, schema: str) -> bool:
            asked.append(schema)
            return len(asked) == due_at

        monkeypatch.setattr(MemoryDestination, "deferred_due", due)
        before = warehouse.markers[STREAM.id].batch if STREAM.id in warehouse.markers else 0
        _, marker = run_stream(database, warehouse, until=lambda: len(asked) >= 3, fence=fence)
        assert set(asked) == {"shop"}
        return marker.batch - before, marker

    transactions(due_at=0, fence=1)  # the first makes one more, to say where it starts
    without, _ = transactions(due_at=0, fence=2)
    with_due, marker = transactions(due_at=2, fence=3)
    assert with_due == without + 1
    assert marker.phase is Phase.STREAMING
