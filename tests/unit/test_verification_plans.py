"""When tables are compared by themselves, and which units of it the ledger holds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_planner import ORDERS, ORDERS_SETTINGS, STREAM, offered, table

from coordinator.planner import Duty, PlanVerification, SchemaView, by_schema, plan, to_withdraw
from warp import verifying
from warp.errors import SourceRefused
from warp.interfaces import DestinationTraits, SourceTraits
from warp.leases import spec
from warp.model import Chunk, LeasedUnit, Marker, Phase, WorkUnit, schema_of
from warp.pace import Pace
from workers.hold import default_stall_after

DAILY = replace(ORDERS_SETTINGS, verify_every=86_400.0)
DAY = 86_400.0
COMPLETE = (STREAM, table(ORDERS, Phase.STREAMING))


def unit(at: float, phase: Phase, number: int = 0) -> Marker:
    of = WorkUnit.of_verification("shop", Chunk(ORDERS, number), int(at * 1000))
    return Marker(of, phase=phase)


def duties(*markers: Marker, now: float, settings: object = DAILY) -> list[Duty]:
    view = SchemaView("shop", (settings,), now=now)  # type: ignore[arg-type]
    of = by_schema(markers)["shop"]
    return plan(view, of, {}, delay=lambda table, marker: 0.0, revived={})


def planned(found: list[Duty]) -> list[PlanVerification]:
    return [duty for duty in found if isinstance(duty, PlanVerification)]


def test_a_complete_table_is_compared_as_often_as_it_is_configured() -> None:
    wanted = [PlanVerification("shop", ORDERS, DAILY.chunk_rows)]
    assert planned(duties(*COMPLETE, now=10 * DAY)) == wanted
    done = unit(10 * DAY, Phase.DONE)
    assert planned(duties(*COMPLETE, done, now=10.9 * DAY)) == []
    assert planned(duties(*COMPLETE, done, now=11 * DAY)) == wanted


def test_nothing_is_compared_unasked_nor_before_its_first_rows_nor_twice_at_once() -> None:
    assert planned(duties(*COMPLETE, now=10 * DAY, settings=ORDERS_SETTINGS)) == []
    assert planned(duties(STREAM, table(ORDERS, Phase.SNAPSHOT), now=10 * DAY)) == []
    under_way = unit(1.0, Phase.PLANNED, 1)
    assert planned(duties(*COMPLETE, unit(1.0, Phase.DONE), under_way, now=10 * DAY)) == []


def test_open_units_are_in_the_ledger_and_done_ones_leave_it() -> None:
    open_, done = unit(1.0, Phase.PLANNED, 0), unit(1.0, Phase.DONE, 1)
    found = duties(*COMPLETE, open_, done, now=2.0)
    assert open_.unit.id in offered(found)
    assert done.unit.id not in offered(found)
    entries = [LeasedUnit(marker.unit, "due") for marker in (open_, done)]
    of = by_schema([*COMPLETE, open_, done])
    assert to_withdraw(["shop"], of, entries) == [done.unit.id]


def test_a_unit_of_a_comparison_is_stored_in_the_ledger_and_read_again() -> None:
    marker = unit(1.0, Phase.PLANNED)
    assert spec.decode(marker.unit.id, spec.encode(marker.unit)) == marker.unit
    assert schema_of(marker.unit.id, ORDERS) == "shop"


class Worked:
    """A hold and its clock, which only rests and `works` move."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.longest = 0.0  # without a sign that the unit is at work
        self.seen_at = 0.0
        hold: Any = SimpleNamespace(wait=self.passes, check=self.check, stopping=lambda: False)
        self.pace = Pace(replace(DAILY, **settings), hold, clock=lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def check(self) -> None:
        self.longest = max(self.longest, self.now - self.seen_at)
        self.seen_at = self.now

    def rested_after(self, seconds: float, rows: int) -> float:
        self.now += seconds
        self.check()
        began = self.now
        self.longest = 0.0
        self.pace.rests(rows)
        return self.now - began


def test_a_comparison_rests_for_the_others_as_its_budget_and_its_rate_say() -> None:
    assert Worked().rested_after(2.0, 1_000_000) == 0.0  # all of the time is its own
    assert Worked(verify_budget=0.25).rested_after(2.0, 10) == pytest.approx(6.0)
    assert Worked(verify_rate=1_000.0).rested_after(2.0, 5_000) == pytest.approx(3.0)
    assert Worked(verify_rate=1_000.0).rested_after(2.0, 500) == 0.0
    both = Worked(verify_budget=0.5, verify_rate=1_000.0)
    assert both.rested_after(2.0, 5_000) == pytest.approx(3.0)


def test_a_long_rest_does_not_cost_the_lease() -> None:
    worked = Worked(verify_budget=0.05)
    assert worked.rested_after(10.0, 1) == pytest.approx(190.0)
    assert worked.longest < default_stall_after(10.0)


def test_a_rest_ends_when_the_unit_is_asked_back() -> None:
    worked = Worked(verify_budget=0.05)
    worked.pace._hold.stopping = lambda: True  # type: ignore[method-assign]
    assert worked.rested_after(10.0, 1) == 0.0


def test_a_pass_over_rows_that_cannot_be_compared_is_refused_before_it_is_stored() -> None:
    """A BigQuery, as a source: a pass that is stored would wait for its units."""
    source = SimpleNamespace(traits=SourceTraits())
    destination = SimpleNamespace(traits=DestinationTraits(compares=True))  # and nothing else
    with pytest.raises(SourceRefused, match="leave its tables out of `verify`"):
        verifying.plan(source, destination, "shop", ORDERS, 25, 1.0)  # type: ignore[arg-type]
