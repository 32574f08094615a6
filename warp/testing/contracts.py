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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from warp import headroom, stored
from warp.errors import DestinationRefused, FenceBehind, LeaseLost, SchemaMoved, SourceRefused
from warp.evolve import evolve
from warp.interfaces import (
    CutsRanges,
    DestinationConnector,
    EstimatesRows,
    SourceConnector,
    TellsCutShort,
)
from warp.model import (
    ABSENT,
    SHARED,
    UNCHANGED,
    Aside,
    Change,
    ChangeBatch,
    Choice,
    Chunk,
    Column,
    Edge,
    Finding,
    KeySpan,
    Kind,
    Lease,
    Operation,
    Outcome,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    UnitKind,
    Verdict,
    WorkUnit,
)

ORDERS = TableId("shop", "orders")
SCHEMA = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("name", Kind.TEXT)), ("id",))
STREAM = WorkUnit.stream("shop")
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
READ, TRUNCATE = Operation.READ, Operation.TRUNCATE

# Rows of a batch, at most.
SNAPSHOT_ROWS = 7
STREAM_ROWS = 50

Event = tuple[Operation, int, Any, Any]  # operation, version, id, name


def select(table: TableId) -> TableSettings | None:
    """The table selection of the contracts: everything in `shop`."""
    if table.namespace != ORDERS.namespace:
        return None
    return TableSettings(
        table, table, "shop", full_load_batch_size=SNAPSHOT_ROWS, write_batch_size=STREAM_ROWS
    )


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
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
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
        self.destination.write_batch(
            batch, after, quarantined=quarantined, findings=findings, replay=replay
        )
        self.marker = after


def aside(operation: Operation, version: int, id: int, name: Any, **more: Any) -> QuarantinedRow:
    """A row of `shop.orders` as a stream sets it aside."""
    return QuarantinedRow(
        ORDERS,
        stored.dump(SCHEMA.columns, [id, ABSENT]),
        operation,
        stored.dump(SCHEMA.columns, [id, name]),
        more.pop("reason", "too long for the column"),
        more.pop("code", "SQLSTATE 22001"),
        version=version,
        kinds=more.pop("kinds", stored.kinds_of(SCHEMA.columns)),
        **more,
    )


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

    def test_columns_that_differ_only_in_case_are_columns_of_their_own(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"))
        for base, name in enumerate(("Name", "NAME"), 1):
            column = Column(name, Kind.TEXT)
            add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=column, base=base)
            unit.destination.apply_schema_changes([add])
        schema = unit.destination.get_schema(ORDERS)
        assert schema is not None
        assert [c.source for c in schema.columns] == ["id", "name", "Name", "NAME"]
        columns: list[list[Any]] = [[1, 2], [UNCHANGED, "b"], ["x", "x"], ["y", "y"]]
        part = TableChanges(ORDERS, bytearray([UPDATE, CREATE]), [2, 2], schema, columns)
        batch = ChangeBatch([part], Position("2"))
        unit.destination.write_batch(batch, unit.marker.advanced(batch))
        assert self.read(ORDERS) == {(1, "a"), (2, "b")}

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

    def test_a_chunk_of_an_earlier_snapshot_opened_late_keeps_no_table_from_settling(self) -> None:
        stream, [late] = self.planned()
        metadata = stream.destination.metadata()
        metadata.resync("shop", ORDERS, position=Position("50"))
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=60)
        Unit(self.make(), late)  # by a worker that had claimed it before
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 60, 1, "a"))
        self.finish(reader)
        assert metadata.settle("shop", ORDERS)

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

    # -- a table without a key

    def keyless(self, unit: WorkUnit) -> Unit:
        """A unit that reads `shop.orders` whole, which has no key here."""
        destination = self.make()
        destination.metadata().prepare()
        schema = replace(SCHEMA, key=())
        create = SchemaChange(ORDERS, Change.CREATE_TABLE, schema=schema)
        destination.apply_schema_changes([create])
        return Unit(destination, unit)

    def idle(self, unit: Unit) -> None:
        batch = ChangeBatch([], Position("end"))
        after = unit.marker.advanced(batch, phase=Phase.IDLE)
        unit.destination.update_marker(after)
        unit.marker = after

    def test_a_whole_read_without_a_key_takes_the_place_of_the_last_at_once(self) -> None:
        poll = self.keyless(WorkUnit.poll("shop", ORDERS))
        poll.write("1", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
        assert self.read(ORDERS) == set()
        poll.write("1", (TRUNCATE, 4, ABSENT, ABSENT))
        self.idle(poll)
        assert self.read(ORDERS) == {(1, "a"), (2, "b")}
        # The source may be so quiet that its version is still the same.
        for events in [(READ, 5, 2, "b")], [(READ, 5, 3, "c"), (READ, 5, None, None)]:
            poll.write("2", *events)
            assert self.read(ORDERS) == {(1, "a"), (2, "b")}
        poll.write("2", (READ, 5, 4, "d"), (TRUNCATE, 4, ABSENT, ABSENT))
        assert self.read(ORDERS) == {(2, "b"), (3, "c"), (None, None), (4, "d")}
        self.idle(poll)
        poll.write("3", (TRUNCATE, 8, ABSENT, ABSENT))
        self.idle(poll)
        assert self.read(ORDERS) == set()

    def test_a_whole_read_that_was_cut_short_leaves_nothing(self) -> None:
        unit = WorkUnit.poll("shop", ORDERS)
        first = self.keyless(unit)
        first.write("1", (READ, 5, 1, "half"))
        again = Unit(self.make(), unit)
        again.write("1", (READ, 5, 1, "whole"))
        again.write("1", (TRUNCATE, 4, ABSENT, ABSENT))
        self.idle(again)
        assert self.read(ORDERS) == {(1, "whole")}

    def test_a_chunk_without_a_key_is_seen_when_it_is_done_and_can_be_read_again(self) -> None:
        self.keyless(WorkUnit.poll("shop", ORDERS))
        metadata = self.make().metadata()
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=0)
        unit = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
        Unit(self.make(), unit).write("s", (READ, 5, 1, "half"))
        reader = Unit(self.make(), unit)
        reader.write("s", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
        assert self.read(ORDERS) == set()
        self.finish(reader)
        assert self.read(ORDERS) == {(1, "a"), (2, "b")}
        assert metadata.settle("shop", ORDERS)
        assert self.read(ORDERS) == {(1, "a"), (2, "b")}

    def test_a_poll_that_picks_rows_out_of_a_table_without_a_key_is_refused(self) -> None:
        poll = self.keyless(WorkUnit.poll("shop", ORDERS))
        poll.write("1", (READ, 5, 1, "changed"))
        with pytest.raises(DestinationRefused, match="whole"):
            self.idle(poll)

    # -- rows that updates carry a part of

    def missing(self, unit: Unit, *ids: int) -> list[int]:
        """Which of these ids of `shop.orders` the destination says it has not got."""
        schema = unit.destination.get_schema(ORDERS)
        if schema is None:
            raise AssertionError("asked about a table that is there")
        only = replace(schema, columns=schema.columns[:1])
        operations = bytearray([UPDATE]) * len(ids)
        part = TableChanges(ORDERS, operations, [50] * len(ids), only, [list(ids)])
        return [ids[place] for place in unit.destination.missing(part)]

    def test_rows_that_are_not_there_are_missing(self) -> None:
        unit = self.settled()
        unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 2, 2, "b"))
        unit.write("2", (DELETE, 3, 2, ABSENT))
        assert self.missing(unit, 3, 1, 2) == [3, 2]
        assert self.missing(unit, 1) == []

    def test_a_row_whose_delete_is_remembered_is_missing(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (DELETE, 9, 1, ABSENT))
        Unit(self.make(), chunk).write("s", (READ, 5, 2, "b"))
        assert self.missing(stream, 1, 2) == [1]

    def test_a_row_that_a_second_snapshot_has_not_brought_yet_is_missing(self) -> None:
        stream, [unit] = self.planned()
        reader = Unit(self.make(), unit)
        reader.write("s", (READ, 5, 1, "a"), (READ, 5, 2, "b"))
        assert self.missing(stream, 1, 2) == []
        self.finish(reader)
        metadata = stream.destination.metadata()
        metadata.settle("shop", ORDERS)
        stream.write("9", reload=[ORDERS])
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=20)
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 21, 1, "a"))
        assert self.missing(stream, 1, 2) == [2]

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

    def test_a_resync_to_another_count_of_versions_lets_older_numbers_land(self) -> None:
        stream = self.settled()
        stream.write("1", (CREATE, 90, 1, "old"), (CREATE, 91, 2, "gone"), (CREATE, 4, 3, "low"))
        stream.write("2", (DELETE, 92, 9, ABSENT))
        self.make().metadata().resync("shop", None, position=Position("x"), newest=7)
        again = Unit(self.make())
        again.write("3", (UPDATE, 8, 1, "new"))
        metadata = again.destination.metadata()
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=8)
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 8, 1, "new"), (READ, 8, 3, "read"))
        self.finish(reader)
        assert metadata.settle("shop", ORDERS)
        again.write("4", (CREATE, 9, 9, "back"))
        assert self.read(ORDERS) == {(1, "new"), (3, "read"), (9, "back")}

    def test_saying_what_a_stream_carries_shuts_out_its_worker_once(self) -> None:
        stream = self.settled()
        stream.write("1", (CREATE, 1, 1, "a"))
        metadata = self.make().metadata()
        assert metadata.follow(STREAM, "these tables", left=[])
        with pytest.raises(FenceBehind):
            stream.write("2", (CREATE, 2, 2, "b"))
        assert not metadata.follow(STREAM, "these tables", left=[])
        again = Unit(self.make())
        assert again.marker.follows == "these tables"
        again.write("2", (CREATE, 2, 2, "b"))
        found = {m.unit.id: m for m in metadata.markers()}
        assert (found[STREAM.id].follows, found[STREAM.id].batch) == ("these tables", 2)

    def test_a_table_that_its_stream_carries_no_more_is_to_be_read_anew(self) -> None:
        _, [chunk] = self.planned()
        metadata = self.make().metadata()
        table = WorkUnit.of_table("shop", ORDERS)
        assert metadata.follow(STREAM, "without it", left=[table])
        found = {m.unit.id: m for m in metadata.markers()}
        assert chunk.id not in found
        assert (found[table.id].phase, found[table.id].epoch) == (Phase.PLANNED, 1)

    def test_a_resync_of_a_schema_leaves_a_stream_where_it_is_that_others_share(self) -> None:
        shared = Unit(self.start().destination, WorkUnit.stream(SHARED))
        shared.write("1", (CREATE, 1, 1, "a"))
        stream, table = shared.lease.unit, WorkUnit.of_table("shop", ORDERS)
        metadata = self.make().metadata()
        again = metadata.resync("shop", None, position=Position("50"), stream=stream)
        assert again == [stream]
        found = {m.unit.id: m for m in metadata.markers()}
        assert found[stream.id].position == Position("1", 1_000.0)
        assert metadata.resync(SHARED, None, position=Position("50")) == [stream]
        assert {m.unit.id: m.position for m in metadata.markers()}[stream.id] == Position("50")
        assert table.id not in found or found[table.id].phase is Phase.PLANNED

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

    # -- quarantine

    def replay(self, *ids: int) -> Unit:
        """The replay unit of `shop.orders`, these rows marked for it."""
        destination = self.make()
        marked = destination.metadata().replay("shop", ORDERS, ids)
        assert marked == len(ids)
        return Unit(destination, WorkUnit.of_replay("shop", ORDERS))

    def states(self) -> dict[int, tuple[Aside, int]]:
        """Where each row of the quarantine stands, and how often it was tried."""
        found = self.make().metadata().quarantine(Choice())
        return {a.id: (a.state, a.tries) for a in found}

    def set_aside(self, *rows: QuarantinedRow) -> tuple[Unit, list[int]]:
        """A settled table with these rows in quarantine, by a stream; their ids."""
        unit = self.settled()
        unit.write("1", (CREATE, 1, 0, "there"), quarantined=rows)
        return unit, list(self.states())

    def test_what_is_set_aside_can_be_read_whole(self) -> None:
        row = aside(UPDATE, 5, 7, "x", position=Position("p5", 3.0), partial=True, column="name")
        _, [id] = self.set_aside(row)
        [found] = self.make().metadata().quarantine(Choice())
        assert found.row == replace(row, row="")
        [found] = self.make().metadata().quarantine(Choice(whole=True))
        assert found.row == row
        assert (found.id, found.schema, found.unit) == (id, "shop", STREAM.id)
        assert (found.state, found.tries, found.tried_at) == (Aside.WAITING, 0, None)
        assert found.at > 0

    def test_the_quarantine_is_narrowed_by_each_part_of_a_choice(self) -> None:
        others = TableId("shop", "others")
        rows = [
            aside(CREATE, 5, 1, "a"),
            aside(CREATE, 5, 2, "b", reason="no 100% fit", code="conversion"),
            replace(aside(CREATE, 5, 3, "c"), table=others),
        ]
        _, ids = self.set_aside(*rows)
        metadata = self.make().metadata()
        assert metadata.discard(ids[:1]) == 1

        def chosen(**parts: Any) -> list[int]:
            return [ids.index(a.id) for a in metadata.quarantine(Choice(**parts))]

        assert chosen() == [0, 1, 2]
        assert chosen(ids=(ids[2], ids[0])) == [0, 2]
        assert chosen(schemas=("other", "shop")) == [0, 1, 2]
        assert chosen(schemas=("sho",)) == []
        assert chosen(code="conversion") == [1]
        assert chosen(table="orders") == chosen(table="shop.orders") == [0, 1]
        assert chosen(reason="0% f") == chosen(reason="conversion") == [1]
        assert chosen(reason="conv") == []
        assert chosen(states=(Aside.WAITING,)) == [1, 2]
        assert chosen(older_than=3600.0) == []
        assert chosen(newer_than=3600.0) == [0, 1, 2]
        assert chosen(after=ids[0], limit=1) == [1]

    def test_a_row_that_is_replayed_lands_and_is_told_so_in_one_transaction(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "late"))
        unit = self.replay(*ids)
        [row] = unit.destination.metadata().to_replay("shop", ORDERS, 10)
        assert row.id == ids[0]
        unit.write("r", (CREATE, 5, 7, "late"), replay=Replay(ids))
        assert self.read(ORDERS) == {(0, "there"), (7, "late")}
        assert self.states() == {ids[0]: (Aside.REPLAYED, 1)}
        assert unit.destination.metadata().to_replay("shop", ORDERS, 10) == []

    def test_a_row_is_replayed_once(self) -> None:
        stream, ids = self.set_aside(aside(CREATE, 5, 7, "late"))
        first = self.replay(*ids)
        first.write("r", (CREATE, 5, 7, "late"), replay=Replay(ids))
        stream.write("2", (UPDATE, 5, 7, "changed"))
        with pytest.raises(LeaseLost):
            first.write("r", (CREATE, 5, 7, "late"), replay=Replay(ids))
        assert self.make().metadata().replay("shop", ORDERS, ids) == 0
        assert self.read(ORDERS) == {(0, "there"), (7, "changed")}

    def test_a_row_that_was_discarded_meanwhile_does_not_land(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "a"), aside(CREATE, 5, 8, "b"))
        unit = self.replay(*ids)
        assert self.make().metadata().discard(ids[:1]) == 1
        with pytest.raises(LeaseLost):
            unit.write("r", (CREATE, 5, 7, "a"), (CREATE, 5, 8, "b"), replay=Replay(ids))
        assert self.read(ORDERS) == {(0, "there")}
        states = self.states()
        assert [states[id][0] for id in ids] == [Aside.DISCARDED, Aside.REPLAYING]

    def test_a_replayed_row_never_overrules_a_newer_one(self) -> None:
        stream, ids = self.set_aside(aside(CREATE, 5, 7, "old"), aside(UPDATE, 5, 8, "only"))
        stream.write("2", (UPDATE, 9, 7, "new"), (CREATE, 3, 8, "older"))
        unit = self.replay(*ids)
        unit.write("r", (CREATE, 5, 7, "old"), (UPDATE, 5, 8, "only"), replay=Replay(ids))
        assert self.read(ORDERS) == {(0, "there"), (7, "new"), (8, "only")}
        assert [state for state, _ in self.states().values()] == [
            Aside.SUPERSEDED,
            Aside.REPLAYED,
        ]
        [told, _] = unit.destination.metadata().quarantine(Choice())
        assert "version 9" in told.last_error

    def test_a_replay_never_brings_back_a_row_that_was_deleted_since(self) -> None:
        stream = self.settled()
        stream.write("1", (CREATE, 1, 7, "first"))
        stream.write("2", quarantined=[aside(UPDATE, 5, 7, "bad")])
        ids = list(self.states())
        unit = self.replay(*ids)
        stream.write("3", (DELETE, 9, 7, ABSENT))
        assert self.states()[ids[0]][0] is Aside.SUPERSEDED
        with pytest.raises(LeaseLost):
            unit.write("r", (UPDATE, 5, 7, "bad"), replay=Replay(ids))
        assert self.read(ORDERS) == set()

    def test_a_row_that_never_landed_and_was_deleted_since_is_superseded(self) -> None:
        stream, ids = self.set_aside(aside(CREATE, 5, 7, "bad"), aside(CREATE, 12, 7, "again"))
        stream.write("2", (DELETE, 9, 7, ABSENT), (DELETE, 9, 8, ABSENT))
        assert [state for state, _ in self.states().values()] == [
            Aside.SUPERSEDED,
            Aside.WAITING,
        ]
        [told, _] = stream.destination.metadata().quarantine(Choice())
        assert "deleted at version 9" in told.last_error
        self.replay(ids[1]).write("r", (CREATE, 12, 7, "again"), replay=Replay(ids[1:]))
        assert self.read(ORDERS) == {(0, "there"), (7, "again")}

    def test_a_replay_never_survives_a_truncate(self) -> None:
        stream, ids = self.set_aside(aside(CREATE, 5, 7, "bad"))
        stream.write("2", (TRUNCATE, 9, ABSENT, ABSENT))
        self.replay(*ids).write("r", (CREATE, 5, 7, "bad"), replay=Replay(ids))
        assert self.read(ORDERS) == set()
        assert self.states() == {ids[0]: (Aside.SUPERSEDED, 1)}

    def test_a_row_deleted_beside_a_snapshot_is_not_replayed_after_it(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (DELETE, 9, 7, ABSENT))  # a tombstone, purged by settling
        reader = Unit(self.make(), chunk)
        reader.write("s", (READ, 5, 1, "a"), quarantined=[aside(READ, 5, 7, "bad")])
        self.finish(reader)
        assert stream.destination.metadata().settle("shop", ORDERS)
        assert [state for state, _ in self.states().values()] == [Aside.SUPERSEDED]

    def test_a_table_read_anew_overrules_what_was_set_aside_before(self) -> None:
        stream, [unit] = self.planned()
        reader = Unit(self.make(), unit)
        reader.write("s", (READ, 5, 1, "a"), quarantined=[aside(READ, 5, 7, "bad")])
        self.finish(reader)
        metadata = stream.destination.metadata()
        metadata.settle("shop", ORDERS)
        stream.write("9", reload=[ORDERS])
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=20)
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 21, 1, "a"), quarantined=[aside(READ, 21, 7, "still bad")])
        self.finish(reader)
        assert metadata.settle("shop", ORDERS)
        assert [state for state, _ in self.states().values()] == [
            Aside.SUPERSEDED,
            Aside.WAITING,
        ]

    def test_a_row_refused_before_the_write_waits_again_with_its_reason(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "bad"), aside(CREATE, 5, 8, "good"))
        unit = self.replay(*ids)
        replay = Replay(ids[1:], {ids[0]: "no exact form"})
        unit.write("r", (CREATE, 5, 8, "good"), replay=replay)
        assert self.states() == {ids[0]: (Aside.WAITING, 1), ids[1]: (Aside.REPLAYED, 1)}
        found = unit.destination.metadata().quarantine(Choice(ids=(ids[0],)))
        assert [(a.last_error, a.row.reason) for a in found] == [
            ("no exact form", "too long for the column")
        ]
        assert found[0].tried_at

    def test_a_cell_lands_alone_and_only_on_the_very_version_it_belongs_to(self) -> None:
        stream = self.settled()
        stream.write("1", (CREATE, 5, 1, None), (CREATE, 5, 2, None))
        cells = [aside(UPDATE, 5, id, "cell", column="name") for id in (1, 2, 3)]
        stream.write("2", (UPDATE, 6, 2, "newer"), quarantined=cells)
        ids = list(self.states())
        unit = self.replay(*ids)
        events = [(UPDATE, 5, id, "cell") for id in (1, 2, 3)]
        unit.write("r", *events, replay=Replay(ids))
        assert self.read(ORDERS) == {(1, "cell"), (2, "newer")}
        assert [state for state, _ in self.states().values()] == [
            Aside.REPLAYED,
            Aside.SUPERSEDED,
            Aside.SUPERSEDED,
        ]

    def test_a_row_without_kinds_cannot_be_marked_for_replay(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "bad", kinds={}))
        assert self.make().metadata().replay("shop", ORDERS, ids) == 0
        assert self.states() == {ids[0]: (Aside.WAITING, 0)}

    def test_rows_are_marked_for_replay_together_with_the_units_marker(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "late"), aside(CREATE, 4, 8, "first"))
        unit = self.replay(*ids[:1])
        before = unit.marker
        assert unit.destination.metadata().replay("shop", ORDERS, ids) == 1
        # Whoever was about to end the unit is refused, and looks again.
        with pytest.raises(FenceBehind):
            unit.destination.update_marker(before.advanced(ChangeBatch([], Position("end"))))
        markers = {m.unit.id: m for m in self.make().metadata().markers([UnitKind.REPLAY])}
        assert markers[before.unit.id].phase is Phase.PLANNED
        rows = unit.destination.metadata().to_replay("shop", ORDERS, 10)
        assert [a.id for a in rows] == [ids[1], ids[0]]  # the oldest version first

    def test_a_paused_replay_stays_paused_though_more_rows_are_marked(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "late"), aside(CREATE, 4, 8, "first"))
        unit = self.replay(*ids[:1]).lease.unit
        metadata = self.make().metadata()
        metadata.mark(unit.id, Phase.PAUSED)
        assert metadata.replay("shop", ORDERS, ids) == 1
        assert [m.phase for m in metadata.markers([UnitKind.REPLAY])] == [Phase.PAUSED]

    def test_a_failed_replay_leaves_rows_and_quarantine_as_they_were(self) -> None:
        _, ids = self.set_aside(aside(CREATE, 5, 7, "late"))
        unit = self.replay(*ids)
        Unit(self.make(), unit.lease.unit)
        with pytest.raises(FenceBehind):
            unit.write("r", (CREATE, 5, 7, "late"), replay=Replay(ids))
        assert self.read(ORDERS) == {(0, "there")}
        assert self.states() == {ids[0]: (Aside.REPLAYING, 0)}

    def test_the_error_log_is_read_with_the_latest_first_and_narrowed(self) -> None:
        metadata = self.start().destination.metadata()
        for n, unit in enumerate((STREAM.id, WorkUnit.poll("web:a", ORDERS).id)):
            metadata.log_error(
                code=f"WARP-{n}00",
                error_class="Trouble",
                message=f"trouble {n}, 10% of it",
                unit=unit,
                table=ORDERS if n else None,
                action="tried again",
            )
        latest, first = metadata.errors(Choice())
        assert (first.code, first.schema, first.table) == ("WARP-000", "shop", None)
        assert (latest.code, latest.schema, latest.table) == ("WARP-100", "web:a", ORDERS)
        assert (latest.message, latest.action) == ("trouble 1, 10% of it", "tried again")
        assert latest.cells is None
        assert latest.last_at >= first.last_at > 0
        for narrowed in (
            Choice(schemas=("web:a",)),
            Choice(code="WARP-100"),
            Choice(table="orders"),
            Choice(reason="WARP-100"),
            Choice(reason="1, 10%"),
            Choice(limit=1),
            Choice(ids=(latest.id,)),
        ):
            assert metadata.errors(narrowed) == [latest], narrowed
        assert metadata.errors(Choice(older_than=3600.0)) == []
        assert len(metadata.errors(Choice(newer_than=3600.0))) == 2

    def test_findings_are_one_line_of_each_sort_that_counts_their_cells(self) -> None:
        unit = self.settled()
        finding = Finding(
            ORDERS, "n", Outcome.NULLED, "string", "int64", 2, key='{"id": 1}', original="many"
        )
        other = replace(finding, met="object", cells=5)
        unit.write("1", findings=[finding, other])
        unit.write("2", findings=[replace(finding, key='{"id": 9}', original="few")])
        lines = unit.destination.metadata().errors(Choice(code="CELL-nulled"))
        assert sorted((line.column, line.key, line.cells) for line in lines) == [
            ("n", '{"id": 1}', 4),
            ("n", '{"id": 1}', 5),
        ]
        assert any("expected int64, found string: many" in line.message for line in lines)

    def test_a_slot_is_taken_by_the_transaction_that_ends_its_run(self) -> None:
        self.start()
        poll, slot = WorkUnit.poll("shop", ORDERS), 1_800_000_000.0
        killed = Unit(self.make(), poll)
        store = killed.destination.metadata()
        store.begin_run(killed.lease, "killed", slot=slot)
        store.begin_run(killed.lease, "killed", slot=slot + 60)  # it waited for its source
        assert not store.slot_taken(poll.id, slot + 60)
        unit = Unit(self.make(), poll)
        store.begin_run(unit.lease, "whole", slot=slot + 60)
        after = unit.marker.advanced(ChangeBatch([], Position("8", 2.0)), phase=Phase.IDLE)
        unit.destination.update_marker(after)
        store.end_run("killed", status="done", rows=9)  # back from a pause: it stays abandoned
        assert [store.slot_taken(poll.id, s) for s in (slot, slot + 60)] == [False, True]
        assert not store.slot_taken(WorkUnit.poll("other", ORDERS).id, slot + 60)
        (marker,) = store.markers([UnitKind.POLL])
        assert (marker.slot, marker.phase) == (slot + 60, Phase.IDLE)
        assert Unit(self.make(), poll).marker.slot == slot + 60

    def test_runs_that_were_cut_short_are_told_the_newest_first(self) -> None:
        self.start()
        unit = Unit(self.make(), WorkUnit.poll("shop", ORDERS))
        if not unit.destination.traits.tells_cut_short:
            return
        store = unit.destination.metadata()
        store.begin_run(unit.lease, "killed")
        store.begin_run(unit.lease, "superseded")
        store.end_run("superseded", status="lost", rows=0, error="a newer owner")
        store.begin_run(unit.lease, "whole")
        store.end_run("whole", status="done", rows=1)
        told = cast(TellsCutShort, store).cut_short(newer_than=3600.0, limit=9)
        assert [(run.status, run.error) for run in told] == [
            ("lost", "a newer owner"),
            ("abandoned", ""),
        ]
        assert {(run.unit, run.schema, run.worker, run.fence) for run in told} == {
            (unit.lease.unit.id, "shop", unit.lease.owner, unit.lease.fence)
        }
        assert len(cast(TellsCutShort, store).cut_short(newer_than=3600.0, limit=1)) == 1
        assert cast(TellsCutShort, store).cut_short(newer_than=-3600.0, limit=9) == []

    def test_a_look_finds_nothing_that_keeps_work_from_starting(self) -> None:
        destination = self.make()
        for prepared in (False, True):
            if prepared:
                destination.metadata().prepare()
            destination.check()
            assert not [one for one in destination.diagnose() if one.verdict is Verdict.FAILED]

    def test_a_destination_says_whether_it_was_prepared(self) -> None:
        metadata = self.make().metadata()
        assert not metadata.prepared()
        metadata.prepare()
        assert metadata.prepared()


class _OneTable(ABC):
    """A source with one table, `shop.orders`, which is empty when a test starts."""

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


class RowsContract(_OneTable):
    """What every source promises of its tables and chunks, with a log or without."""

    def test_the_table_is_listed_with_its_key(self) -> None:
        self.put(1, "a")
        source = self.make()
        source.check()
        assert not [one for one in source.diagnose() if one.verdict is Verdict.FAILED]
        assert source.tables() == [ORDERS]
        schema = source.get_schema([ORDERS])[ORDERS]
        assert len(schema.key) == 1
        source.close()

    def test_about_how_many_rows_there_are_is_told_where_a_source_knows(self) -> None:
        self.put(1, "a")
        source = self.make()
        if source.traits.estimates:
            found = cast(EstimatesRows, source).rows_about([ORDERS])
            assert [table for table in found if found[table] >= 0] == [ORDERS]
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

    def test_a_chunk_s_batches_are_as_large_as_the_selection_says_by_then(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for id in range(30):
            self.put(id, f"n{id}")
        source = self.make()
        [chunk] = source.chunks(ORDERS, 100)
        sizes: list[int] = []
        for batch in source.get_full_snapshot(chunk):
            sizes.append(len(batch))
            monkeypatch.setattr("warp.testing.contracts.SNAPSHOT_ROWS", 3)
        assert sizes[0] == 7
        assert max(sizes[1:]) == 3
        assert sum(sizes) == 30
        source.close()

    def test_rows_are_looked_up_by_key_as_they_are_now(self) -> None:
        for id, name in enumerate(["a", "b", "c", "d"]):
            self.put(id, name)
        self.put(1, "changed")
        self.delete(2)
        source = self.make()
        schema = source.get_schema([ORDERS])[ORDERS]
        keys: list[list[Any]] = [
            [1, 2, 0, 9] if c.name in schema.key else [UNCHANGED] * 4 for c in schema.columns
        ]
        asked = TableChanges(ORDERS, bytearray([UPDATE]) * 4, [1] * 4, schema, keys)
        if source.traits.full_rows and not source.traits.compares:
            with pytest.raises(SourceRefused):
                source.look_up(asked)
        else:
            batch = ChangeBatch([source.look_up(asked)], Position("now"))
            found = self.events(source, batch)
            assert sorted((e[0], e[2], e[3]) for e in found) == [
                (READ, 0, "a"),
                (READ, 1, "changed"),
            ]
        source.close()

    def test_a_chunk_is_read_at_one_version_no_older_than_the_source_says(self) -> None:
        self.put(1, "a")
        self.put(2, "b")
        source = self.make()
        before = source.version()
        source.close()
        [version] = {event[1] for event in self.snapshot(rows=100)}
        assert version >= before


class SourceContract(RowsContract):
    """What every source promises that has a log to follow."""

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

    def test_a_stream_s_batches_are_as_large_as_the_selection_says_by_then(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("warp.testing.contracts.STREAM_ROWS", 4)
        start = self.position()
        for id in range(40):
            self.put(id, f"n{id}")
        source = self.make()
        sizes: list[int] = []
        for batch in self._changes(source, start):
            if not len(batch):  # an idle one may come before a busy server has answered
                continue
            sizes.append(len(batch))
            monkeypatch.setattr("warp.testing.contracts.STREAM_ROWS", 8)
            if sum(sizes) >= 40:
                break
        source.close()
        assert sizes[0] == 4
        assert max(sizes) == 8

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

    def test_a_place_at_the_log_s_end_is_kept_where_a_source_can_tell(self) -> None:
        source = self.make()
        found = headroom.ask(source, source.position())
        source.close()
        if not source.traits.headroom:
            assert found is None
            return
        assert found is not None
        assert (found.lost, found.ratio) == (False, 1.0)
        assert found.told

    def test_a_range_of_keys_is_cut_into_chunks_where_a_source_can_do_that(self) -> None:
        for id in range(50):
            self.put(id, f"n{id}")
        source = self.make()
        schema = source.get_schema([ORDERS])[ORDERS]
        key = tuple(c.source for c in schema.columns if c.name in schema.key)

        def read(lower: Edge | None, upper: Edge | None) -> tuple[list[Any], int]:
            within = KeySpan(key, lower, upper)
            chunks = cast(CutsRanges, source).chunks_within(ORDERS, within, 4)
            batches = [b for chunk in chunks for b in source.get_full_snapshot(chunk)]
            return [e[2] for b in batches for e in self.events(source, b)], len(chunks)

        if source.traits.ranges:
            ten, twenty = Edge(("10",), inclusive=True), Edge(("20",), inclusive=False)
            assert read(ten, twenty) == (list(range(10, 20)), 3)
            after, until = Edge(("10",), inclusive=False), Edge(("20",), inclusive=True)
            assert read(after, until)[0] == list(range(11, 21))
            assert read(Edge(("47",), inclusive=False), None)[0] == [48, 49]
            assert read(None, Edge(("1",), inclusive=True))[0] == [0, 1]
            assert read(Edge(("50",), inclusive=True), None)[0] == []
            assert read(twenty, ten)[0] == []
        source.close()

    def position(self) -> Position:
        source = self.make()
        position = source.position()
        source.close()
        return position


class PollContract(_OneTable):
    """What every source promises that is polled, by whatever strategy."""

    sees_deletes: bool  # does the strategy?

    # -- reading helpers

    def run(self, position: Position | None) -> Iterator[tuple[list[Event], Position]]:
        """The batches of one run, each as its events and its end."""
        source = self.make()
        try:
            for batch in source.poll(ORDERS, position, fire_time=1_000.0):
                yield self.events(source, batch), batch.end
        finally:
            source.close()

    def start(self) -> Position:
        source = self.make()
        found = source.poll_start(ORDERS, fire_time=999.0)
        source.close()
        return found

    # -- promises

    def test_a_first_run_finds_every_row(self) -> None:
        for id in range(20):
            self.put(id, f"n{id}")
        copy = _Copy()
        copy.follow(self.run(None))
        assert copy.rows() == {n: f"n{n}" for n in range(20)}

    def test_a_run_from_the_start_of_a_snapshot_finds_what_changed_since(self) -> None:
        self.put(1, "before")
        start = self.start()
        self.put(1, "changed")
        self.put(2, "new")
        copy = _Copy()
        copy.follow(self.run(start))
        assert copy.rows() == {1: "changed", 2: "new"}

    def test_runs_keep_a_copy_equal(self) -> None:
        copy = _Copy()
        position: Position | None = None
        truth: dict[int, str] = {}
        for number in range(3):
            for id in range(number, number + 4):
                truth[id] = f"{id} of {number}"
                self.put(id, truth[id])
            if self.sees_deletes and number:
                del truth[number]
                self.delete(number)
            position = copy.follow(self.run(position))
            assert copy.rows() == truth

    def test_a_run_cut_short_after_any_batch_goes_on_and_loses_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("warp.testing.contracts.STREAM_ROWS", 3)
        for id in range(5):
            self.put(id, f"n{id}")
        batches = len(list(self.run(None)))
        assert batches > 2
        for cut in range(1, batches):
            copy = _Copy()
            position = copy.follow(itertools.islice(self.run(None), cut))
            copy.follow(self.run(position))
            assert copy.rows() == {n: f"n{n}" for n in range(5)}

    def test_versions_never_fall_from_run_to_run(self) -> None:
        last, position = 0, None
        for number in range(2):
            self.put(1, f"n{number}")
            copy = _Copy()
            position = copy.follow(self.run(position))
            assert copy.versions[1] >= last
            last = copy.versions[1]


class _Copy:
    """What a destination makes of events: the version of each row is kept, and none goes back."""

    def __init__(self) -> None:
        self.names: dict[int, Any] = {}
        self.versions: dict[int, int] = {}

    def rows(self) -> dict[int, Any]:
        return self.names

    def follow(self, batches: Iterable[tuple[list[Event], Position]]) -> Position:
        """Apply them; the end of the last."""
        end: Position | None = None
        for events, reached in batches:
            for event in events:
                self._apply(*event)
            end = reached
        if end is None:
            raise AssertionError("a run yields at least one batch")
        return end

    def _apply(self, operation: Operation, version: int, id: int, name: Any) -> None:
        if operation == TRUNCATE:
            for key in [key for key, at in self.versions.items() if at <= version]:
                del self.names[key], self.versions[key]
        elif operation == DELETE:
            self.names.pop(id, None)
            self.versions.pop(id, None)
        elif self.versions.get(id, version) <= version:
            self.names[id], self.versions[id] = name, version
