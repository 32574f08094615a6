"""Contracts: subclass one in your test file and your connector is tested.

    class TestMine(DestinationContract):
        def make(self): return MyDestination(MyDestination.Options(...), select)
        def read(self, table): return {(1, "a"), ...}

Every case states one promise of `warp.interfaces`.  The reference implementations in
`warp.testing.memory` pass them all; so must any connector that is shipped.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from warp.errors import FenceBehind, SchemaMoved
from warp.evolve import evolve
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    ABSENT,
    UNCHANGED,
    Change,
    ChangeBatch,
    Chunk,
    Column,
    Kind,
    Lease,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
)

ORDERS = TableId("shop", "orders")
SCHEMA = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("name", Kind.TEXT)), ("id",))
STREAM = WorkUnit.stream("shop")
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
READ, TRUNCATE = Operation.READ, Operation.TRUNCATE

Event = tuple[Operation, int, Any, Any]  # operation, version, id, name


def select(table: TableId) -> TableSettings | None:
    """The table selection of the contracts: everything in `shop`."""
    if table.namespace != ORDERS.namespace:
        return None
    return TableSettings(table, table, "shop", full_load_batch_size=7, write_batch_size=50)


class Unit:
    """One unit in a test's hand: it opens, writes and keeps the marker, as a worker does."""

    fences = itertools.count(1)

    def __init__(self, destination: DestinationConnector, unit: WorkUnit = STREAM) -> None:
        self.destination = destination
        self.lease = Lease(unit, f"worker-{next(self.fences)}", next(self.fences))
        self.marker = destination.open(self.lease)

    def write(
        self,
        token: str,
        *events: Event,
        reload: Sequence[TableId] = (),
        quarantined: Sequence[QuarantinedRow] = (),
    ) -> None:
        schema = self.destination.get_schema(ORDERS)
        if schema is None:
            create = SchemaChange(ORDERS, Change.CREATE_TABLE, schema=SCHEMA)
            self.destination.apply_schema_changes([create])
            schema = self.destination.get_schema(ORDERS)
        changes = []
        if events:
            columns: list[list[Any]] = [[e[2] for e in events], [e[3] for e in events]]
            columns += [[ABSENT] * len(events) for _ in (schema.columns[2:] if schema else ())]
            operations = bytearray(e[0] for e in events)
            versions = [e[1] for e in events]
            changes = [TableChanges(ORDERS, operations, versions, schema, columns)]
        batch = ChangeBatch(changes, Position(token, 1_000.0), tuple(reload))
        after = self.marker.advanced(batch, phase=Phase.STREAMING)
        self.destination.write_batch(batch, after, quarantined=quarantined)
        self.marker = after


class DestinationContract(ABC):
    """What every destination promises.  Each test starts from an empty destination."""

    @abstractmethod
    def make(self) -> DestinationConnector:
        """A connector to this test's destination; called twice it reaches the same data."""

    @abstractmethod
    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        """(id, name) of every row a user of the table takes for live."""

    def start(self) -> Unit:
        destination = self.make()
        destination.metadata().prepare()
        return Unit(destination)

    def settled(self) -> Unit:
        """A unit whose table has no snapshot under way."""
        unit = self.start()
        table = WorkUnit.of_table("shop", ORDERS)
        unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
        return unit

    # -- rows

    def test_applies_creates_updates_and_deletes(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 2, 2, "b"))
        unit.write("2", (UPDATE, 3, 1, "z"), (DELETE, 4, 2, ABSENT))
        assert self.read(ORDERS) == {(1, "z")}

    def test_the_last_change_of_a_key_in_a_batch_wins(self) -> None:
        unit = self.settled()
        unit.write(
            "1",
            (CREATE, 1, 1, "a"),
            (UPDATE, 2, 1, "b"),
            (DELETE, 3, 1, ABSENT),
            (CREATE, 4, 1, "c"),
            (CREATE, 5, 2, "x"),
            (DELETE, 6, 2, ABSENT),
        )
        assert self.read(ORDERS) == {(1, "c")}

    def test_changes_of_one_version_apply_in_their_order(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"))
        unit.write("2", (DELETE, 5, 1, ABSENT), (CREATE, 5, 1, "b"))
        unit.write("3", (UPDATE, 5, 1, "c"))
        assert self.read(ORDERS) == {(1, "c")}

    def test_an_older_change_never_replaces_a_newer_one(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 9, 1, "new"))
        unit.write("2", (UPDATE, 3, 1, "old"))
        assert self.read(ORDERS) == {(1, "new")}

    def test_applying_a_batch_twice_changes_nothing(self) -> None:
        unit = self.settled()
        for token in ("1", "2"):
            unit.write(token, (CREATE, 1, 1, "a"), (UPDATE, 2, 1, "b"))
        assert self.read(ORDERS) == {(1, "b")}

    def test_an_unchanged_cell_keeps_what_is_there(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "kept"))
        unit.write("2", (UPDATE, 2, 1, UNCHANGED))
        assert self.read(ORDERS) == {(1, "kept")}

    def test_null_and_absent_become_null(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, None), (CREATE, 2, 2, ABSENT))
        assert self.read(ORDERS) == {(1, None), (2, None)}

    def test_a_truncate_removes_the_rows_before_it_and_no_later_ones(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 2, 2, "b"))
        unit.write("2", (UPDATE, 3, 1, "c"), (TRUNCATE, 4, ABSENT, ABSENT), (CREATE, 5, 3, "d"))
        assert self.read(ORDERS) == {(3, "d")}

    # -- marker and fence

    def test_a_new_unit_has_no_position(self) -> None:
        assert self.start().marker.position is None

    def test_a_new_owner_starts_at_the_marker(self) -> None:
        unit = self.settled()
        unit.write("7", (CREATE, 1, 1, "a"))
        marker = Unit(self.make()).marker
        assert marker.position == Position("7", 1_000.0)
        assert (marker.batch, marker.rows) == (1, 1)

    def test_an_empty_batch_moves_the_marker(self) -> None:
        unit = self.settled()
        unit.write("7")
        after = unit.marker.advanced(ChangeBatch([], Position("8", 2.0)))
        unit.destination.update_marker(after)
        assert Unit(self.make()).marker.position == Position("8", 2.0)

    def test_an_old_owner_writes_neither_rows_nor_marker(self) -> None:
        old = self.settled()
        old.write("1", (CREATE, 1, 1, "a"))
        Unit(self.make())
        with pytest.raises(FenceBehind):
            old.write("2", (CREATE, 2, 2, "b"))
        assert self.read(ORDERS) == {(1, "a")}
        assert Unit(self.make()).marker.position == Position("1", 1_000.0)

    def test_an_old_owner_cannot_open(self) -> None:
        old = self.start()
        new = Unit(self.make())
        with pytest.raises(FenceBehind) as caught:
            self.make().open(old.lease)
        assert caught.value.found == new.lease.fence

    def test_a_batch_that_does_not_follow_the_marker_is_refused(self) -> None:
        unit = self.settled()
        before = unit.marker
        unit.write("1", (CREATE, 1, 1, "a"))
        unit.marker = before  # as if the acknowledgement had been lost
        with pytest.raises(FenceBehind):
            unit.write("2", (CREATE, 2, 2, "b"))
        assert self.read(ORDERS) == {(1, "a")}

    # -- schema

    def test_a_schema_change_made_twice_is_made_once(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"))
        add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=Column("colour", Kind.TEXT), base=1)
        for _ in range(2):
            self.make().apply_schema_changes([add])
        schema = unit.destination.get_schema(ORDERS)
        assert schema is not None
        assert schema.version == 2
        assert [c.kind for c in schema.columns if c.name == "colour"] == [Kind.TEXT]

    def test_a_batch_for_an_older_schema_is_refused_whole(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"))
        schema = unit.destination.get_schema(ORDERS)
        add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=Column("colour", Kind.TEXT), base=1)
        self.make().apply_schema_changes([add])
        part = TableChanges(ORDERS, bytearray([CREATE]), [2], schema, [[2], ["b"]])
        batch = ChangeBatch([part], Position("2"))
        with pytest.raises(SchemaMoved):
            unit.destination.write_batch(batch, unit.marker.advanced(batch))
        assert self.read(ORDERS) == {(1, "a")}
        unit.write("2", (CREATE, 2, 2, "b"))
        assert self.read(ORDERS) == {(1, "a"), (2, "b")}

    # -- snapshot beside stream

    def planned(self, chunks: int = 1) -> tuple[Unit, list[WorkUnit]]:
        stream = self.start()
        cut = [Chunk(ORDERS, number) for number in range(chunks)]
        planned = stream.destination.metadata().plan_snapshot("shop", ORDERS, cut, version=0)
        assert planned
        return stream, [WorkUnit.of_chunk("shop", chunk, 0) for chunk in cut]

    def finish(self, unit: Unit) -> None:
        batch = ChangeBatch([], Position("done"))
        unit.destination.update_marker(unit.marker.advanced(batch, phase=Phase.DONE))

    def test_a_late_chunk_row_never_replaces_a_newer_one(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (UPDATE, 9, 1, "new"))
        Unit(self.make(), chunk).write("s", (READ, 5, 1, "old"), (READ, 5, 2, "b"))
        assert self.read(ORDERS) == {(1, "new"), (2, "b")}

    def test_a_late_chunk_row_never_brings_back_a_deleted_one(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (DELETE, 9, 1, ABSENT))
        reader = Unit(self.make(), chunk)
        reader.write("s", (READ, 5, 1, "old"))
        self.finish(reader)
        assert stream.destination.metadata().settle("shop", ORDERS)
        assert self.read(ORDERS) == set()

    def test_a_row_deleted_and_created_during_a_snapshot_lives(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (DELETE, 8, 1, ABSENT), (CREATE, 9, 1, "again"))
        reader = Unit(self.make(), chunk)
        reader.write("s", (READ, 5, 1, "old"))
        self.finish(reader)
        stream.destination.metadata().settle("shop", ORDERS)
        assert self.read(ORDERS) == {(1, "again")}

    def test_a_late_chunk_row_never_survives_a_truncate(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (TRUNCATE, 9, ABSENT, ABSENT))
        Unit(self.make(), chunk).write("s", (READ, 5, 1, "old"))
        assert self.read(ORDERS) == set()

    def test_a_table_settles_when_its_last_chunk_is_done(self) -> None:
        stream, chunks = self.planned(2)
        metadata = stream.destination.metadata()
        for number, unit in enumerate(chunks):
            assert not metadata.settle("shop", ORDERS)
            reader = Unit(self.make(), unit)
            reader.write("s", (READ, 5, number, "a"))
            self.finish(reader)
        assert metadata.settle("shop", ORDERS)
        assert not metadata.settle("shop", ORDERS)

    def test_a_table_that_is_gone_at_the_source_settles_without_a_chunk(self) -> None:
        stream, [unit] = self.planned()
        reader = Unit(self.make(), unit)
        reader.write("s", (READ, 5, 1, "gone meanwhile"))
        self.finish(reader)
        metadata = stream.destination.metadata()
        metadata.settle("shop", ORDERS)
        stream.write("9", reload=[ORDERS])
        assert not metadata.settle("shop", ORDERS)  # not planned yet
        assert metadata.plan_snapshot("shop", ORDERS, [], version=20)
        assert metadata.settle("shop", ORDERS)
        assert self.read(ORDERS) == set()

    def test_a_snapshot_is_planned_once(self) -> None:
        stream, _ = self.planned(2)
        again = self.make().metadata()
        assert not again.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=0)
        chunks = [m for m in stream.destination.metadata().markers() if m.unit.chunk is not None]
        assert len(chunks) == 2

    def test_a_chunk_of_a_table_that_is_read_anew_is_refused(self) -> None:
        stream, [unit] = self.planned()
        reader = Unit(self.make(), unit)
        stream.write("9", reload=[ORDERS])
        with pytest.raises(FenceBehind):
            reader.write("s", (READ, 5, 1, "old"))
        assert self.read(ORDERS) == set()

    def test_rows_gone_at_the_source_are_swept_after_a_second_snapshot(self) -> None:
        stream, [unit] = self.planned()
        reader = Unit(self.make(), unit)
        reader.write("s", (READ, 5, 1, "a"), (READ, 5, 2, "gone meanwhile"))
        self.finish(reader)
        metadata = stream.destination.metadata()
        metadata.settle("shop", ORDERS)
        stream.write("9", reload=[ORDERS])
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=20)
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 21, 1, "a"))
        self.finish(reader)
        assert metadata.settle("shop", ORDERS)
        assert self.read(ORDERS) == {(1, "a")}

    # -- bookkeeping

    def test_a_resync_fences_off_the_running_stream(self) -> None:
        stream = self.settled()
        stream.write("1", (CREATE, 1, 1, "a"))
        self.make().metadata().resync("shop", None, position=Position("50"))
        with pytest.raises(FenceBehind):
            stream.write("2", (CREATE, 2, 2, "b"))
        found = {m.unit.id: m for m in self.make().metadata().markers()}[STREAM.id]
        assert found.position == Position("50")
        assert found.epoch == 1

    def test_registering_twice_keeps_the_first_position(self) -> None:
        metadata = self.start().destination.metadata()
        unit = WorkUnit.stream("other")
        assert metadata.register(unit, position=Position("1"), phase=Phase.STREAMING)
        assert not metadata.register(unit, position=Position("2"), phase=Phase.STREAMING)
        assert {m.unit.id: m.position for m in metadata.markers()}[unit.id] == Position("1")

    def test_an_errand_stays_open_until_it_is_ended(self) -> None:
        metadata = self.start().destination.metadata()
        metadata.add_errand("e1", "resync", {"schema": "shop"})
        metadata.add_errand("e1", "resync", {"schema": "shop"})
        assert metadata.open_errands() == [("e1", "resync", {"schema": "shop"})]
        metadata.end_errand("e1", status="done", result="as asked")
        assert metadata.open_errands() == []

    def test_what_became_of_an_errand_can_be_read(self) -> None:
        metadata = self.start().destination.metadata()
        for id in ("e1", "e2", "e3"):
            metadata.add_errand(id, "pause", {"schema": "shop"})
        metadata.end_errand("e3", status="failed", result="no such schema")
        assert [intent.id for intent in metadata.errands()] == ["e2", "e1", "e3"]
        [ended] = metadata.errands("e3")
        assert (ended.name, ended.arguments) == ("pause", {"schema": "shop"})
        assert (ended.status, ended.result) == ("failed", "no such schema")
        assert ended.added_at > 0
        assert metadata.errands("e4") == []

    def test_rows_in_quarantine_are_counted_by_table(self) -> None:
        unit = self.settled()
        metadata = unit.destination.metadata()
        assert metadata.quarantined() == {}
        others = TableId("shop", "others")
        rows = [
            QuarantinedRow(table, f'{{"id": {n}}}', CREATE, "{}", "too long", "22001")
            for n, table in enumerate((ORDERS, ORDERS, others))
        ]
        unit.write("1", quarantined=rows)
        assert metadata.quarantined() == {ORDERS: 2, others: 1}

    def test_nothing_waits_where_nothing_refers_to_anything(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"), (DELETE, 2, 2, ABSENT))
        assert unit.destination.metadata().deferred() == {}
        assert not unit.destination.deferred_due("shop")

    def test_a_destination_says_whether_it_was_prepared(self) -> None:
        metadata = self.make().metadata()
        assert not metadata.prepared()
        metadata.prepare()
        assert metadata.prepared()


class SourceContract(ABC):
    """What every source promises.  Each test starts with one empty table, `shop.orders`."""

    @abstractmethod
    def make(self) -> SourceConnector:
        """A new connector, selecting as `select` does."""

    @abstractmethod
    def put(self, id: int, name: str) -> None:
        """Insert or update one row at the source, committed on return."""

    @abstractmethod
    def delete(self, id: int) -> None: ...

    # -- reading helpers

    def events(self, source: SourceConnector, batch: ChangeBatch) -> list[Event]:
        """(operation, version, id, name) of every row of a batch, as evolve shapes it."""
        known = source.get_schema([part.table for part in batch.changes])
        plan = evolve(batch, known, select)
        while plan.ddl:
            known |= {c.table: c.schema for c in plan.ddl if c.schema is not None}
            plan = evolve(batch, known, select)
        found: list[Event] = []
        for part in plan.batch.changes:
            if part.schema is None:
                raise AssertionError("an evolved part has a schema")
            names = [c.source for c in part.schema.columns]
            key = names.index(part.schema.column(part.schema.key[0]).source)  # type: ignore[union-attr]
            name = names.index("name") if "name" in names else None
            for code, version, row in zip(part.operations, part.versions, part.rows(), strict=True):
                value = None if name is None else row[name]
                found.append((Operation(code), version, row[key], value))
        return found

    def follow(self, position: Position, count: int) -> list[tuple[Event, Position]]:
        """The next `count` events after a position, each with the end of its batch."""
        source = self.make()
        found: list[tuple[Event, Position]] = []
        try:
            for batch in self._changes(source, position):
                found += [(event, batch.end) for event in self.events(source, batch)]
                if len(found) >= count:
                    return found
        finally:
            source.close()
        raise AssertionError("the stream ended")

    def _changes(self, source: SourceConnector, position: Position) -> Iterator[ChangeBatch]:
        return source.get_changes(position, selection=select, idle=0.05)

    def snapshot(self, rows: int = 10) -> list[Event]:
        source = self.make()
        found: list[Event] = []
        for chunk in source.chunks(ORDERS, rows):
            for batch in source.get_full_snapshot(chunk):
                found += self.events(source, batch)
        source.close()
        return found

    # -- promises

    def test_the_table_is_listed_with_its_key(self) -> None:
        self.put(1, "a")
        source = self.make()
        source.check()
        assert source.tables() == [ORDERS]
        schema = source.get_schema([ORDERS])[ORDERS]
        assert len(schema.key) == 1
        source.close()

    def test_the_chunks_hold_every_row_once(self) -> None:
        for id in range(100):
            self.put(id, f"n{id}")
        found = self.snapshot(rows=10)
        assert sorted(e[2] for e in found) == list(range(100))
        assert {e[0] for e in found} == {READ}

    def test_an_empty_table_has_a_chunk_that_yields_a_batch(self) -> None:
        self.put(1, "a")
        self.delete(1)
        source = self.make()
        chunks = source.chunks(ORDERS, 10)
        assert chunks
        for chunk in chunks:
            assert [len(b) for b in source.get_full_snapshot(chunk)] == [0]
        source.close()

    def test_a_chunk_is_read_at_one_version_at_or_after_the_changes_it_holds(self) -> None:
        start = self.position()
        self.put(1, "a")
        self.put(2, "b")
        changed = max(event[1] for event, _ in self.follow(start, 2))
        versions = {event[1] for event in self.snapshot(rows=100)}
        assert len(versions) == 1
        assert min(versions) >= changed

    def test_a_stream_carries_what_came_after_its_position_in_order(self) -> None:
        self.put(1, "before")
        start = self.position()
        self.put(1, "a")
        self.put(2, "b")
        self.put(1, "c")
        self.delete(2)
        events = [event for event, _ in self.follow(start, 4)]
        assert [e[2] for e in events] == [1, 2, 1, 2]
        assert events[2][3] == "c"  # the first update may already show a later value
        assert events[3][0] == DELETE
        assert [e[1] for e in events] == sorted(e[1] for e in events)

    def test_resuming_at_any_batch_end_loses_nothing(self) -> None:
        start = self.position()
        for id in range(20):
            self.put(id, f"n{id}")
        whole = self.follow(start, 20)
        for index, (_, end) in enumerate(whole):
            rest = [e for e, other in whole[index + 1 :] if other != end]
            if rest:
                again = [event for event, _ in self.follow(end, len(rest))]
                assert [e[2] for e in again] == [e[2] for e in rest]

    def test_an_idle_stream_yields_empty_batches_whose_end_never_moves_back(self) -> None:
        self.put(1, "a")
        source = self.make()
        start = source.position()
        ends = [batch.end for batch in itertools.islice(self._changes(source, start), 3)]
        assert all(source.reached(later, earlier) for earlier, later in itertools.pairwise(ends))
        source.close()

    def test_a_position_is_reached_when_its_changes_were_delivered(self) -> None:
        start = self.position()
        self.put(1, "a")
        goal = self.position()
        source = self.make()
        assert not source.reached(start, goal)
        for batch in self._changes(source, start):
            if source.reached(batch.end, goal):
                break
        source.close()

    def position(self) -> Position:
        source = self.make()
        position = source.position()
        source.close()
        return position
