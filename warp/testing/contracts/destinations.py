"""What every destination promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from warp.errors import DestinationRefused, FenceBehind, SchemaMoved
from warp.model import (
    ABSENT,
    SHARED,
    UNCHANGED,
    Change,
    ChangeBatch,
    Chunk,
    Column,
    Kind,
    Marker,
    Phase,
    Position,
    QuarantinedRow,
    SchemaChange,
    TableChanges,
    TableId,
    UnitKind,
    WorkUnit,
)
from warp.testing.contracts.orders import (
    CREATE,
    DELETE,
    ORDERS,
    READ,
    SCHEMA,
    STREAM,
    TRUNCATE,
    UPDATE,
    Unit,
    aside,
)
from warp.testing.contracts.quarantine import QuarantineContract


class DestinationContract(QuarantineContract):
    """What every destination promises.  Each test starts from an empty destination."""

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

    def test_a_row_of_which_something_waits_in_quarantine_is_missing(self) -> None:
        """An update with a part of it would overrule what waits, and that alone has the rest."""
        unit, ids = self.set_aside(aside(UPDATE, 5, 0, "bad"), aside(UPDATE, 5, 7, "bad"))
        unit.write("2", (UPDATE, 6, 7, "there"), (UPDATE, 6, 8, "there"))
        assert self.missing(unit, 8, 7, 0, 9) == [7, 0, 9]
        unit.destination.metadata().discard(ids)
        assert self.missing(unit, 8, 7, 0, 9) == [9]

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

    def test_each_row_is_missing_from_a_resync_until_its_chunks_are_cut(self) -> None:
        """The stream goes on behind changes that nobody has carried: what is here may lack them,
        and a part of a row on top of it would outlive the chunk that brings them (guarantee 4).
        """
        stream = self.settled()
        stream.write("9", (CREATE, 9, 1, "a"))
        metadata = stream.destination.metadata()
        assert self.missing(stream, 1) == []
        metadata.resync("shop", None, position=Position("50"))
        stream = Unit(self.make(), STREAM)
        assert self.missing(stream, 1, 2) == [1, 2]
        assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=50)
        assert self.missing(stream, 1) == [1]
        reader = Unit(self.make(), WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1))
        reader.write("s", (READ, 51, 1, "a"))
        assert self.missing(stream, 1) == []

    # -- bookkeeping

    def test_a_mark_under_a_fence_that_has_passed_changes_nothing(self) -> None:
        """It was sent before somebody decided otherwise, and arrives after."""
        stream = self.settled()
        metadata = stream.destination.metadata()

        def found() -> Marker:
            return next(m for m in metadata.markers((UnitKind.STREAM,)) if m.unit == STREAM)

        seen = found().fence
        assert metadata.mark(STREAM.id, Phase.PAUSED, seen=seen)
        assert metadata.mark(STREAM.id, Phase.STREAMING, seen=found().fence)
        assert not metadata.mark(STREAM.id, Phase.PAUSED, seen=seen)
        assert (found().phase, found().fence) == (Phase.STREAMING, seen + 2)
        assert not metadata.mark("stream:nobody", Phase.PAUSED)

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
