"""Scheduled runs: coordinators, workers and a warehouse in memory, on a clock that the test moves.

Turns are played one by one, so that what two processes do at once has an order a test can choose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from memory_shop import ORDERS, Shop
from test_schedule import at

from coordinator.leader import Leadership
from coordinator.reconciler import Reconciler
from coordinator.watch import Watch
from warp.config import Mode, load
from warp.errors import SourceUnavailable
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import Meters
from warp.model import Lease, Marker, Phase, Position, TableSelection, TableSettings, WorkUnit
from warp.schedule import CatchUp
from warp.testing.memory import MemoryMetadata, MemorySource
from workers.cli import Schedules
from workers.hold import Held
from workers.worker import Outcome, Pace, Turn

TEN = at("2026-11-23T10:00")
MINUTE = 60.0
POLL = WorkUnit.poll("shop", ORDERS)


@dataclass
class Batch(Shop):
    """A shop whose orders were read whole at ten o'clock, and are polled from then on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.warehouse.prepared = True
        table = WorkUnit.of_table("shop", ORDERS)
        self.warehouse.markers[table.id] = Marker(table, phase=Phase.STREAMING)
        self.warehouse.markers[POLL.id] = Marker(
            POLL, position=Position("0", TEN), phase=Phase.IDLE
        )

    def selection(self, schema: str) -> TableSelection:
        settings = TableSettings(ORDERS, ORDERS, "shop", timezone="Europe/Berlin")
        return lambda table: settings if table == ORDERS else None


@dataclass
class Fleet:
    """Coordinators and workers that share one ledger and one warehouse."""

    catch_up: str = "latest"
    schedule: str = "*/15 * * * *"
    now: float = TEN
    shop: Batch = field(default_factory=Batch)
    stopping: bool = False

    def __post_init__(self) -> None:
        flags = {
            "source": "mongodb://localhost/shop",
            "destination": "postgresql://localhost/w",
            "schema": ("shop",),
        }
        settings = load(None, {}, flags)
        (schema,) = settings.schemas
        batch = replace(
            schema, mode=Mode.BATCH, schedule=self.schedule, catch_up=CatchUp(self.catch_up)
        )
        self.settings = replace(settings, schemas=(batch,))
        self.ledger = MemoryLeaseStore(clock=lambda: self.now, lease_ttl=1e6)
        self.coordinators = [self.coordinator(0.0), self.coordinator(0.0)]

    def coordinator(self, ahead: float) -> Reconciler:
        leadership = Leadership(MemoryLeaseStore(lease_ttl=1e6), "c", ttl=1e6)
        leadership.step()  # each believes that it leads
        watch = Watch(Meters(), database="shop")
        return Reconciler(
            self.settings,
            self.shop,
            self.ledger,
            leadership,
            watch,
            wall=lambda: self.now + ahead,
        )

    def rounds(self) -> None:
        for coordinator in self.coordinators:
            coordinator.round()

    def work(self, behind: float = 0.0) -> list[Outcome]:
        """Every unit that is ready, by a worker whose clock may be slow."""
        outcomes = []
        for lease in self.ledger.claim("w", 9, ttl=1e6, slots=9):
            outcome = self.turn(lease, behind).play(lambda unit: None)
            self.ledger.release(lease, delay=outcome.delay, failed=outcome.failed)
            outcomes.append(outcome)
        return outcomes

    def turn(self, lease: Lease, behind: float = 0.0) -> Turn:
        fleet = self

        class Asked(Held):
            def stopping(self) -> bool:
                return fleet.stopping

            def wait(self, seconds: float) -> None: ...

        return Turn(
            self.ledger,
            self.shop,
            Meters(),
            Asked(lease, ttl=1e6, asked_at=0.0, clock=lambda: 0.0),
            Pace(),
            {},
            lambda: 0.0,
            schedule_of=Schedules(self.settings, self.shop),
            wall=lambda: self.now - behind,
        )

    def until(self, end: float, step: float = 5.0) -> None:
        """Rounds and work, as they come, until a moment."""
        while self.now < end:
            self.now = min(self.now + step, end)
            self.rounds()
            self.work()

    def fired(self) -> list[float]:
        """The slots of the runs that came to their end, in order, in minutes after ten."""
        return [
            (run["slot"] - TEN) / MINUTE
            for run in self.shop.warehouse.runs.values()
            if run["status"] == "done"
        ]


@pytest.fixture
def make() -> Iterator[Callable[..., Fleet]]:
    with contextlib.ExitStack() as made:

        def make(**options: Any) -> Fleet:
            fleet = Fleet(**options)
            for coordinator in fleet.coordinators:
                made.callback(coordinator.close)
            return fleet

        yield make


def offered_late(fleet: Fleet) -> list[float]:
    """A coordinator that read the markers before a run ended offers the unit after it."""
    fleet.now = TEN + 15 * MINUTE
    fleet.rounds()
    marker = fleet.shop.warehouse.markers[POLL.id]
    fleet.work()
    delay = fleet.coordinators[1]._delay_of(fleet.settings.schema("shop"))
    settings = fleet.shop.selection("shop")(ORDERS)
    assert settings is not None
    assert fleet.ledger.offer(POLL, delay=delay(settings, marker))
    fleet.now += 2.0
    fleet.work()
    return fleet.fired()


def test_each_slot_fires_once_whatever_the_number_of_coordinators(
    make: Callable[..., Fleet],
) -> None:
    fleet = make()
    fleet.until(TEN + 61 * MINUTE)
    assert fleet.fired() == [15, 30, 45, 60]


def test_a_slot_offered_twice_fires_once(make: Callable[..., Fleet]) -> None:
    assert offered_late(make()) == [15]


def test_without_the_record_of_a_slot_it_would_fire_twice(
    make: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test before, with the guarded line removed."""
    monkeypatch.setattr(MemoryMetadata, "slot_taken", lambda *_: False)
    assert offered_late(make()) == [15, 15]


def test_a_worker_whose_clock_is_slow_neither_doubles_nor_drops_a_slot(
    make: Callable[..., Fleet],
) -> None:
    fleet = make()
    while fleet.now < TEN + 46 * MINUTE:
        fleet.now += 5.0
        fleet.rounds()
        fleet.work(behind=3.0)
    assert fleet.fired() == [15, 30, 45]


def test_a_coordinator_whose_clock_is_fast_neither_doubles_nor_drops_a_slot(
    make: Callable[..., Fleet],
) -> None:
    fleet = make()
    fleet.coordinators.append(fleet.coordinator(ahead=7.0))
    fleet.until(TEN + 46 * MINUTE)
    fleet.coordinators[-1].close()
    assert fleet.fired() == [15, 30, 45]


def test_missed_slots_are_made_up_by_one_run(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.now = TEN + 52 * MINUTE
    fleet.until(TEN + 61 * MINUTE)
    assert fleet.fired() == [45, 60]


def test_a_schedule_that_skips_waits_for_its_next_slot(make: Callable[..., Fleet]) -> None:
    fleet = make(catch_up="skip")
    fleet.now = TEN + 52 * MINUTE
    fleet.until(TEN + 61 * MINUTE)
    assert fleet.fired() == [60]


@pytest.mark.parametrize(("catch_up", "expected"), [("latest", [45, 60]), ("skip", [60])])
def test_a_slot_offered_while_no_worker_ran_follows_the_policy_too(
    make: Callable[..., Fleet], catch_up: str, expected: list[float]
) -> None:
    fleet = make(catch_up=catch_up)
    fleet.now = TEN + 15 * MINUTE
    fleet.rounds()
    fleet.now = TEN + 52 * MINUTE
    fleet.work()
    fleet.until(TEN + 61 * MINUTE)
    assert fleet.fired() == expected


@pytest.mark.parametrize(("catch_up", "expected"), [("latest", [15, 30, 45]), ("skip", [15, 45])])
def test_a_slot_that_comes_while_a_run_is_under_way_is_decided_after_it(
    make: Callable[..., Fleet], catch_up: str, expected: list[float]
) -> None:
    fleet = make(catch_up=catch_up)
    fleet.now = TEN + 15 * MINUTE
    fleet.rounds()
    (lease,) = fleet.ledger.claim("w", 9, ttl=1e6, slots=9)

    def made(source: MemorySource, schema: str) -> None:
        poll = source.poll

        def slow(*arguments: Any, **named: Any) -> Any:
            yield from poll(*arguments, **named)
            fleet.now = TEN + 33 * MINUTE
            fleet.rounds()
            assert fleet.ledger.claim("other", 9, ttl=1e6, slots=9) == []  # no overlap

        source.poll = slow  # type: ignore[method-assign]

    fleet.shop.source_made = made
    outcome = fleet.turn(lease).play(lambda unit: None)
    fleet.shop.source_made = lambda source, schema: None
    fleet.ledger.release(lease, delay=outcome.delay)
    fleet.until(TEN + 46 * MINUTE)
    assert fleet.fired() == expected


def test_a_run_cut_short_is_run_again_for_its_slot(make: Callable[..., Fleet]) -> None:
    fleet = make(catch_up="skip")
    fleet.shop.database.put(ORDERS, id=1, name="a")
    fleet.now = TEN + 15 * MINUTE
    fleet.rounds()
    fleet.stopping = True
    assert [outcome.status for outcome in fleet.work()] == ["stopped"]
    assert fleet.fired() == []
    fleet.stopping = False
    fleet.until(TEN + 20 * MINUTE)
    assert fleet.fired() == [15]


def test_an_abandoned_runs_slot_is_run_again(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.now = TEN + 15 * MINUTE
    slot = fleet.now
    fleet.shop.bookkeeping().metadata().begin_run(Lease(POLL, "killed", 0), "lost", slot=slot)
    fleet.until(TEN + 16 * MINUTE)
    statuses = [(run["status"], run["slot"]) for run in fleet.shop.warehouse.runs.values()]
    assert statuses == [("abandoned", slot), ("done", slot)]


def test_a_run_that_waited_for_its_source_belongs_to_the_slot_it_was_read_in(
    make: Callable[..., Fleet],
) -> None:
    fleet = make()

    def made(source: MemorySource, schema: str) -> None:
        if fleet.now < TEN + 40 * MINUTE and fleet.shop.warehouse.runs:
            fleet.now += 10 * MINUTE
            raise SourceUnavailable("no route to host")

    fleet.now = TEN + 15 * MINUTE
    fleet.rounds()

    def first(source: MemorySource, schema: str) -> None:
        def away(*_: Any, **__: Any) -> Any:
            fleet.shop.source_made = made
            raise SourceUnavailable("no route to host")
            yield

        source.poll = away  # type: ignore[method-assign]

    fleet.shop.source_made = first
    fleet.work()
    assert fleet.fired() == [45]


def test_a_clock_set_back_fires_no_slot_again_and_stops_none(make: Callable[..., Fleet]) -> None:
    fleet = make()
    fleet.until(TEN + 46 * MINUTE)
    fleet.now = TEN + 29 * MINUTE
    fleet.until(TEN + 61 * MINUTE)
    assert fleet.fired() == [15, 30, 45, 60]


def test_a_clock_set_forward_makes_up_what_it_passed_by_one_run(
    make: Callable[..., Fleet],
) -> None:
    fleet = make(schedule="0 * * * *")
    fleet.until(TEN + 2 * MINUTE)
    wall = 0.0
    for coordinator in fleet.coordinators:
        coordinator._wall = lambda: fleet.now + wall
    wall = 180 * MINUTE  # the ledger's clock did not move: its offer is for eleven
    fleet.rounds()
    fleet.work(behind=-wall)
    assert fleet.fired() == [180]


def test_a_schedule_moved_to_sooner_counts_at_once(make: Callable[..., Fleet]) -> None:
    fleet = make(schedule="0 0 1 1 *")
    fleet.until(TEN + 2 * MINUTE)  # offered for the first of January
    (schema,) = fleet.settings.schemas
    sooner = replace(schema, schedule="*/15 * * * *")
    fleet.settings = replace(fleet.settings, schemas=(sooner,))
    for coordinator in fleet.coordinators:
        coordinator.close()
    fleet.coordinators = [fleet.coordinator(0.0)]
    fleet.until(TEN + 31 * MINUTE)
    fleet.coordinators[0].close()
    assert fleet.fired() == [15, 30]


def test_a_clock_that_was_a_day_ahead_and_was_set_right_stops_no_slot(
    make: Callable[..., Fleet],
) -> None:
    fleet = make()
    fleet.now += 24 * 60 * MINUTE
    fleet.until(fleet.now + MINUTE)
    fleet.now = TEN + 20 * MINUTE
    fleet.until(TEN + 46 * MINUTE)
    assert fleet.fired() == [24 * 60, 30, 45]


@pytest.mark.parametrize(
    ("day", "schedule", "count"),
    [
        ("2026-03-29T00:50", "30 2 * * *", 1),
        ("2026-10-24T23:50", "30 2 * * *", 1),
        ("2026-03-28T23:50", "*/15 * * * *", 16),
        ("2026-10-24T23:50", "*/15 * * * *", 16),
    ],
)
def test_the_days_on_which_summer_time_begins_and_ends_have_their_slots(
    make: Callable[..., Fleet], day: str, schedule: str, count: int
) -> None:
    """Four hours around the change of the clock in Berlin."""
    fleet = make(schedule=schedule, now=at(day))
    marker = fleet.shop.warehouse.markers[POLL.id]
    fleet.shop.warehouse.markers[POLL.id] = Marker(
        marker.unit, position=Position("0", at(day)), phase=Phase.IDLE
    )
    fleet.until(at(day) + 4 * 3600, step=30.0)
    assert len(fleet.fired()) == len(set(fleet.fired())) == count
