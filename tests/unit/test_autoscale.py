"""How many workers the work would keep busy."""

from __future__ import annotations

from coordinator.autoscale import Load, demand, desired_workers
from warp.model import LeasedUnit, TableId, UnitKind, WorkUnit


def entry(kind: UnitKind, state: str) -> LeasedUnit:
    return LeasedUnit(WorkUnit(f"{kind}:{state}", kind, "shop", TableId("shop", "t")), state)


def test_units_that_run_count_as_demand_though_the_queue_is_empty() -> None:
    assert demand(Load(leased=24)) == 24


def test_claiming_a_stream_does_not_change_the_demand() -> None:
    assert demand(Load(leased=3, due_streams=2)) == demand(Load(leased=5, due_streams=0))


def test_chunks_that_can_be_drained_in_time_ask_for_few_slots() -> None:
    assert demand(Load(due_finite=400), average_seconds=10, drain_target=120) == 34
    assert demand(Load(due_finite=1), average_seconds=10, drain_target=120) == 1


def test_a_long_chunk_asks_for_no_more_than_one_slot() -> None:
    assert demand(Load(due_finite=3), average_seconds=10_000, drain_target=120) == 3


def test_workers_are_sized_so_that_a_fifth_of_the_slots_stays_free() -> None:
    assert desired_workers(24, slots=4) == 8
    assert desired_workers(0, slots=4) == 0
    assert desired_workers(0, slots=4, least=1) == 1
    assert desired_workers(1000, slots=4, most=20) == 20


def test_the_ledger_is_counted_by_what_waits_and_what_runs() -> None:
    load = Load.of(
        [
            entry(UnitKind.STREAM, "leased"),
            entry(UnitKind.STREAM, "due"),
            entry(UnitKind.CHUNK, "due"),
            entry(UnitKind.POLL, "due"),
            entry(UnitKind.POLL, "later"),
            entry(UnitKind.CHUNK, "dead"),
        ]
    )
    assert load == Load(leased=1, due_streams=1, due_finite=2)
