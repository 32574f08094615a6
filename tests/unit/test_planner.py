"""What the fleet should be doing, decided from what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.planner import (
    AdoptTable,
    Duty,
    Ensure,
    GiveUp,
    OfferLater,
    PlanSnapshot,
    Revive,
    SchemaView,
    Settle,
    StartPoll,
    StartStream,
    by_schema,
    is_snapshotting,
    last_run,
    plan,
    to_withdraw,
)
from warp.model import (
    Capture,
    Chunk,
    LeasedUnit,
    Marker,
    Phase,
    Position,
    SnapshotMode,
    TableId,
    TableSettings,
    WorkUnit,
)

ORDERS = TableId("shop", "orders")
USERS = TableId("shop", "users")
ORDERS_SETTINGS = TableSettings(ORDERS, ORDERS, "shop")
STREAM = Marker(WorkUnit.stream("shop"), position=Position("p1"), phase=Phase.STREAMING)


def table(id: TableId, phase: Phase) -> Marker:
    return Marker(WorkUnit.of_table("shop", id), phase=phase)


def chunk(number: int, phase: Phase, id: TableId = ORDERS) -> Marker:
    return Marker(WorkUnit.of_chunk("shop", Chunk(id, number), 0), phase=phase)


def poll(phase: Phase, ran_at: float = 0.0) -> Marker:
    position = Position("cursor", ran_at) if ran_at else None
    return Marker(WorkUnit.poll("shop", ORDERS), position=position, phase=phase)


def duties(
    *markers: Marker,
    tables: tuple[TableSettings, ...] | None = (ORDERS_SETTINGS,),
    streams: bool = True,
    scheduled: bool = False,
    ledger: tuple[LeasedUnit, ...] = (),
    revived: dict[str, int] | None = None,
) -> list[Duty]:
    view = SchemaView("shop", tables, streams=streams, scheduled=scheduled)
    known = {entry.unit.id: entry for entry in ledger}
    of = by_schema([*markers, Marker(WorkUnit.stream("another"))])

    def delay(settings: TableSettings, marker: Marker) -> float:
        return 0.0 if last_run(marker) is None else 7.0

    return plan(
        view, of.get("shop", by_schema([STREAM])["shop"]), known, delay=delay, revived=revived or {}
    )


def offered(found: list[Duty]) -> list[str]:
    return [unit.id for duty in found if isinstance(duty, Ensure) for unit in duty.units]


def test_nothing_is_planned_before_the_streams_start_is_stored() -> None:
    assert duties(Marker(WorkUnit.stream("shop"))) == [StartStream(WorkUnit.stream("shop"))]
    assert duties(table(ORDERS, Phase.PLANNED)) == [StartStream(WorkUnit.stream("shop"))]


def test_a_chunk_of_an_earlier_epoch_is_neither_offered_nor_waited_for() -> None:
    # Its worker adopted it just after the table was planned anew, which made its marker again.
    stale = chunk(1, Phase.PLANNED)
    unit = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 1)
    present = Marker(unit, epoch=1, phase=Phase.DONE)
    again = replace(table(ORDERS, Phase.SNAPSHOT), epoch=1)
    for order in ([again, stale, present], [stale, present, again]):
        found = duties(STREAM, *order)
        assert Settle("shop", ORDERS) in found
        assert offered(found) == ["stream:shop"]
    of = by_schema([STREAM, again, stale, present])
    assert to_withdraw(["shop"], of, [LeasedUnit(stale.unit, "due")]) == [stale.unit.id]


def test_a_new_table_is_cut_into_chunks_while_the_stream_runs() -> None:
    found = duties(STREAM)
    assert PlanSnapshot("shop", ORDERS, ORDERS_SETTINGS.chunk_rows) in found
    assert offered(found) == ["stream:shop"]


def test_open_chunks_are_offered_after_the_stream_and_done_ones_are_not() -> None:
    found = duties(
        STREAM, table(ORDERS, Phase.SNAPSHOT), chunk(0, Phase.DONE), chunk(1, Phase.PLANNED)
    )
    assert offered(found) == ["stream:shop", "chunk:shop:shop.orders:0:1"]


def test_a_chunk_cut_short_is_offered_again() -> None:
    found = duties(STREAM, table(ORDERS, Phase.SNAPSHOT), chunk(0, Phase.SNAPSHOT))
    assert "chunk:shop:shop.orders:0:0" in offered(found)


def test_a_table_is_settled_when_its_last_chunk_is_done() -> None:
    half = (STREAM, table(ORDERS, Phase.SNAPSHOT), chunk(0, Phase.DONE))
    assert Settle("shop", ORDERS) not in duties(*half, chunk(1, Phase.SNAPSHOT))
    assert Settle("shop", ORDERS) in duties(*half, chunk(1, Phase.DONE))


def test_a_failed_chunk_keeps_its_table_unsettled_and_is_not_offered() -> None:
    found = duties(STREAM, table(ORDERS, Phase.SNAPSHOT), chunk(0, Phase.FAILED))
    assert offered(found) == ["stream:shop"]
    assert not [d for d in found if isinstance(d, Settle)]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.PAUSED])
def test_a_stopped_stream_waits_for_a_person(phase: Phase) -> None:
    assert offered(duties(replace(STREAM, phase=phase), table(ORDERS, Phase.STREAMING))) == []


def test_a_paused_schema_begins_nothing_new_until_it_is_resumed() -> None:
    both = (ORDERS_SETTINGS, TableSettings(USERS, USERS, "shop"))
    waiting = (table(ORDERS, Phase.PLANNED), chunk(0, Phase.PLANNED, USERS))
    assert duties(replace(STREAM, phase=Phase.PAUSED), *waiting, tables=both) == []
    assert duties(STREAM, *waiting, tables=both) != []
    assert duties(poll(Phase.PAUSED), *waiting, tables=both, streams=False) == []
    assert duties(poll(Phase.IDLE), *waiting, tables=both, streams=False) != []


def test_a_serial_stream_waits_for_the_last_chunk_of_each_such_table() -> None:
    serial = (replace(ORDERS_SETTINGS, snapshot=SnapshotMode.SERIAL),)
    assert offered(duties(STREAM, tables=serial)) == []
    assert offered(duties(STREAM, table(ORDERS, Phase.SNAPSHOT), tables=serial)) == []
    assert offered(duties(STREAM, table(ORDERS, Phase.STREAMING), tables=serial)) == ["stream:shop"]


def test_a_table_without_a_snapshot_is_complete_at_once() -> None:
    never = (replace(ORDERS_SETTINGS, snapshot=SnapshotMode.NEVER),)
    found = duties(STREAM, tables=never)
    assert AdoptTable(WorkUnit.of_table("shop", ORDERS), ORDERS) in found
    assert not [d for d in found if isinstance(d, PlanSnapshot)]


def test_a_table_that_turned_up_later_gets_its_snapshot_and_the_settled_one_does_not() -> None:
    users = TableSettings(USERS, USERS, "shop")
    found = duties(STREAM, table(ORDERS, Phase.STREAMING), tables=(ORDERS_SETTINGS, users))
    assert [d.table for d in found if isinstance(d, PlanSnapshot)] == [USERS]


def test_a_table_to_be_read_anew_but_dropped_meanwhile_is_swept() -> None:
    found = duties(STREAM, table(USERS, Phase.PLANNED), table(ORDERS, Phase.STREAMING))
    assert PlanSnapshot("shop", USERS, None) in found


def test_a_settled_table_that_was_dropped_stays_as_it_is() -> None:
    found = duties(STREAM, table(ORDERS, Phase.STREAMING), table(USERS, Phase.STREAMING))
    assert found == [Ensure((STREAM.unit,))]


POLLED = (replace(ORDERS_SETTINGS, capture=Capture.TIMESTAMP),)


def test_a_polled_table_is_cut_into_chunks_only_once_its_start_is_stored() -> None:
    unit = WorkUnit.poll("shop", ORDERS)
    assert duties(streams=False, tables=POLLED) == [StartPoll(unit, ORDERS)]
    found = duties(poll(Phase.IDLE, ran_at=100.0), streams=False, tables=POLLED)
    assert [type(duty) for duty in found] == [PlanSnapshot]


def test_a_polled_table_is_offered_only_when_its_first_rows_are_there() -> None:
    unfinished = duties(
        poll(Phase.PLANNED), table(ORDERS, Phase.SNAPSHOT), chunk(0, Phase.PLANNED),
        streams=False, tables=POLLED,
    )  # fmt: skip
    assert not [d for d in unfinished if isinstance(d, OfferLater)]
    finished = duties(
        poll(Phase.PLANNED), table(ORDERS, Phase.STREAMING), streams=False, tables=POLLED
    )
    assert OfferLater(WorkUnit.poll("shop", ORDERS), 0.0) in finished


def test_the_next_run_is_offered_for_its_time() -> None:
    found = duties(
        poll(Phase.IDLE, ran_at=100.0), table(ORDERS, Phase.STREAMING), streams=False, tables=POLLED
    )
    assert found == [OfferLater(WorkUnit.poll("shop", ORDERS), 7.0)]


def test_a_run_cut_short_by_a_wiped_ledger_starts_again_at_once() -> None:
    found = duties(
        poll(Phase.SNAPSHOT, ran_at=100.0),
        table(ORDERS, Phase.STREAMING),
        streams=False,
        tables=POLLED,
    )
    assert found == [OfferLater(WorkUnit.poll("shop", ORDERS), 0.0)]


@pytest.mark.parametrize("state", ["due", "later", "leased", "dead"])
def test_a_run_the_ledger_knows_of_is_not_offered_twice(state: str) -> None:
    found = duties(
        poll(Phase.IDLE, ran_at=100.0),
        table(ORDERS, Phase.STREAMING),
        streams=False,
        tables=POLLED,
        ledger=(LeasedUnit(WorkUnit.poll("shop", ORDERS), state),),
    )
    assert not [d for d in found if isinstance(d, OfferLater)]


@pytest.mark.parametrize(
    ("phase", "left", "tries", "again"),
    [
        (Phase.SNAPSHOT, 600.0, 0, [0.0]),
        (Phase.SNAPSHOT, 600.0, 1, []),
        (Phase.IDLE, 600.0, 0, [7.0]),
        (Phase.IDLE, 7.0, 0, []),
    ],
)
def test_a_run_due_sooner_than_it_was_offered_for_is_offered_again(
    phase: Phase, left: float, tries: int, again: list[float]
) -> None:
    """A schedule or a clock was changed; a unit that is held back for failing stays so."""
    unit = WorkUnit.poll("shop", ORDERS)
    found = duties(
        poll(phase, ran_at=100.0),
        table(ORDERS, Phase.STREAMING),
        streams=False,
        scheduled=True,
        tables=POLLED,
        ledger=(LeasedUnit(unit, "later", tries=tries, expires_in=left),),
    )
    assert [duty.delay for duty in found if isinstance(duty, OfferLater)] == again


def test_a_unit_set_aside_is_given_another_chance_only_if_it_came_on() -> None:
    settled = table(ORDERS, Phase.STREAMING)
    moved = replace(STREAM, batch=12)
    dead = (LeasedUnit(STREAM.unit, "dead"),)
    assert Revive(STREAM.unit, 12) in duties(moved, settled, ledger=dead)
    again = duties(moved, settled, ledger=dead, revived={"stream:shop": 12})
    assert GiveUp(STREAM.unit) in again


def test_units_nobody_should_work_on_are_withdrawn() -> None:
    done, open_ = chunk(0, Phase.DONE), chunk(1, Phase.PLANNED)
    markers = by_schema([STREAM, table(ORDERS, Phase.SNAPSHOT), done, open_])
    ledger = [
        LeasedUnit(STREAM.unit, "due"),
        LeasedUnit(done.unit, "due"),
        LeasedUnit(open_.unit, "due"),
        LeasedUnit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 7), "later"),
        LeasedUnit(WorkUnit.stream("gone"), "due"),
        LeasedUnit(WorkUnit.stream("gone-but-running"), "leased"),
    ]
    assert to_withdraw({"shop"}, markers, ledger) == [
        done.unit.id,
        "chunk:shop:shop.orders:7:0",
        "stream:gone",
    ]


def test_a_dead_unit_of_a_configured_schema_stays_to_be_seen() -> None:
    markers = by_schema([replace(STREAM, phase=Phase.FAILED)])
    assert to_withdraw({"shop"}, markers, [LeasedUnit(STREAM.unit, "dead")]) == []


def test_reconciling_is_hurried_while_a_table_has_not_got_its_rows() -> None:
    assert is_snapshotting(by_schema([STREAM, table(ORDERS, Phase.SNAPSHOT)]).values())
    assert not is_snapshotting(by_schema([STREAM, table(ORDERS, Phase.STREAMING)]).values())


# ---------------------------------------------------------------- replays


def replay(phase: Phase, batch: int = 0) -> Marker:
    return Marker(WorkUnit.of_replay("shop", ORDERS), phase=phase, batch=batch)


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.SNAPSHOT])
def test_a_replay_under_way_is_offered_whatever_became_of_the_ledger(phase: Phase) -> None:
    done = table(ORDERS, Phase.STREAMING)
    open_chunk = chunk(0, Phase.PLANNED)
    found = duties(STREAM, done, open_chunk, replay(phase))
    assert Ensure((STREAM.unit, replay(phase).unit, open_chunk.unit)) in found


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.FAILED, Phase.PAUSED])
def test_a_replay_that_is_over_or_stopped_is_not_offered_and_leaves_the_ledger(
    phase: Phase,
) -> None:
    unit = replay(phase).unit
    found = duties(STREAM, table(ORDERS, Phase.STREAMING), replay(phase))
    assert found == [Ensure((STREAM.unit,))]
    markers = by_schema([STREAM, replay(phase)])
    assert to_withdraw(["shop"], markers, [LeasedUnit(unit, "due")]) == [unit.id]


def test_a_replay_that_was_set_aside_gets_a_second_chance_only_if_it_has_come_on() -> None:
    unit = replay(Phase.SNAPSHOT).unit
    dead = (LeasedUnit(unit, "dead"),)
    done = table(ORDERS, Phase.STREAMING)
    came_on = duties(STREAM, done, replay(Phase.SNAPSHOT, batch=3), ledger=dead)
    assert came_on[-1] == Revive(unit, 3)
    stuck = duties(STREAM, done, replay(Phase.SNAPSHOT, batch=3), ledger=dead, revived={unit.id: 3})
    assert stuck[-1] == GiveUp(unit)
