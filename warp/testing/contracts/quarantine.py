"""What every destination promises of rows in quarantine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from warp.errors import FenceBehind, LeaseLost
from warp.interfaces import (
    TellsCutShort,
)
from warp.model import (
    ABSENT,
    Aside,
    ChangeBatch,
    Choice,
    Chunk,
    Finding,
    Outcome,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    TableId,
    UnitKind,
    Verdict,
    WorkUnit,
)
from warp.testing.contracts.one_destination import OneDestination
from warp.testing.contracts.orders import (
    CREATE,
    DELETE,
    ORDERS,
    READ,
    STREAM,
    TRUNCATE,
    UPDATE,
    Unit,
    aside,
)


class QuarantineContract(OneDestination):
    """What is set aside can be read, replayed once and never over anything newer, or given up."""

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

    def test_a_row_that_its_own_batch_deletes_is_kept_and_never_lands(self) -> None:
        stream = self.settled()
        gone = replace(aside(CREATE, 9, 7, "bad"), overtaken=True)
        rows = [gone, aside(CREATE, 9, 7, "again")]
        stream.write("1", (CREATE, 1, 0, "there"), (DELETE, 9, 7, ABSENT), quarantined=rows)
        assert [s for s, _ in self.states().values()] == [Aside.SUPERSEDED, Aside.WAITING]
        [told, _] = stream.destination.metadata().quarantine(Choice())
        assert "same batch" in told.last_error
        [_, second] = self.states()
        self.replay(second).write("r", (CREATE, 9, 7, "again"), replay=Replay([second]))
        assert self.read(ORDERS) == {(0, "there"), (7, "again")}

    def test_a_row_made_anew_by_the_transaction_that_deletes_it_waits_and_lands(self) -> None:
        """Both are of one version; the delete came first, and is in the audit or a tombstone."""
        stream = self.settled()
        stream.write("1", (CREATE, 1, 0, "there"), (CREATE, 1, 7, "old"))
        stream.write("1", (DELETE, 9, 7, ABSENT))
        stream.write("2", (UPDATE, 9, 0, "there"), quarantined=[aside(CREATE, 9, 7, "new")])
        [id] = self.states()
        self.replay(id).write("r", (CREATE, 9, 7, "new"), replay=Replay([id]))
        assert self.read(ORDERS) == {(0, "there"), (7, "new")}
        assert self.states() == {id: (Aside.REPLAYED, 1)}

    def test_a_row_made_anew_beside_a_snapshot_waits_on_after_it(self) -> None:
        stream, [chunk] = self.planned()
        stream.write("9", (DELETE, 9, 7, ABSENT))  # a tombstone, purged by settling
        stream.write("9", (UPDATE, 9, 1, "a"), quarantined=[aside(CREATE, 9, 7, "bad")])
        reader = Unit(self.make(), chunk)
        reader.write("s", (READ, 5, 2, "b"))
        self.finish(reader)
        assert stream.destination.metadata().settle("shop", ORDERS)
        assert [state for state, _ in self.states().values()] == [Aside.WAITING]

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
