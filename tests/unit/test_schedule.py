"""When a polled table runs next, and for which slot."""

from __future__ import annotations

import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from warp.errors import ConfigError
from warp.schedule import CatchUp, Schedule

BERLIN = "Europe/Berlin"
QUARTERS = Schedule("*/15 * * * *")
SKIPPING = Schedule("*/15 * * * *", catch_up=CatchUp.SKIP)


def at(text: str, zone: str = "UTC", *, again: bool = False) -> float:
    """`again`: the second time that the clock shows this."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=again).timestamp()


def slots(schedule: Schedule, start: float, end: float) -> list[float]:
    found, slot = [], start
    while (slot := schedule.next(slot)) < end:
        found.append(slot)
    return found


def test_the_next_slot_is_strictly_after_and_the_latest_is_not() -> None:
    assert QUARTERS.next(at("2026-11-23T10:15")) == at("2026-11-23T10:30")
    assert QUARTERS.next(at("2026-11-23T10:14:59") + 0.9) == at("2026-11-23T10:15")
    assert QUARTERS.latest(at("2026-11-23T10:15")) == at("2026-11-23T10:15")
    assert QUARTERS.latest(at("2026-11-23T10:14:59") + 0.9) == at("2026-11-23T10:00")


def test_a_slot_is_read_off_the_clock_of_its_time_zone() -> None:
    noon = Schedule("0 12 * * *", BERLIN).next(at("2026-07-01T00:00"))
    assert noon == at("2026-07-01T10:00")


def test_a_slot_that_summer_time_skips_comes_when_the_clock_jumps() -> None:
    daily = Schedule("30 2 * * *", BERLIN)
    start, end = at("2026-03-28T12:00", BERLIN), at("2026-03-30T12:00", BERLIN)
    assert slots(daily, start, end) == [
        at("2026-03-29T03:00", BERLIN), at("2026-03-30T02:30", BERLIN)
    ]  # fmt: skip


def test_a_daily_slot_whose_hour_comes_twice_is_one() -> None:
    daily = Schedule("30 2 * * *", BERLIN)
    start, end = at("2026-10-24T12:00", BERLIN), at("2026-10-26T12:00", BERLIN)
    assert slots(daily, start, end) == [
        at("2026-10-25T02:30", BERLIN), at("2026-10-26T02:30", BERLIN)
    ]  # fmt: skip
    assert daily.latest(at("2026-10-25T02:45", BERLIN, again=True)) == at(
        "2026-10-25T02:30", BERLIN
    )


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_quarter_hour_schedule_keeps_its_rhythm_when_the_clock_is_changed(day: str) -> None:
    found = slots(Schedule("*/15 * * * *", BERLIN), at(f"{day}T00:00"), at(f"{day}T04:00"))
    assert len(found) == 15
    assert {b - a for a, b in itertools.pairwise(found)} == {900.0}


@pytest.mark.parametrize(("cron", "hours"), [("5 * * * *", 1), ("30 */2 * * *", 2)])
def test_a_rhythm_goes_on_by_elapsed_time_when_an_hour_is_skipped(cron: str, hours: int) -> None:
    found = slots(Schedule(cron, BERLIN), at("2026-03-28T22:00"), at("2026-03-29T04:00"))
    # Every second hour is read off the clock again after the change, so by odd hours of UTC.
    assert {b - a for a, b in itertools.pairwise(found)} <= {hours * 3600.0, 3600.0}


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "15 1-3 * * *", "*/20 2 * * 0"])
def test_looking_back_finds_what_looking_forward_found(zone: str, cron: str) -> None:
    schedule = Schedule(cron, zone)
    for day in ("2026-03-08", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-25", "2026-11-01"):
        found = slots(schedule, at(f"{day}T00:00"), at(f"{day}T00:00") + 30 * 3600)
        for one, following in itertools.pairwise(found[:: max(1, len(found) // 20)]):
            assert schedule.latest(one) == one
            assert schedule.latest(following - 0.5) >= one
            assert schedule.next(one - 0.5) == one
        for one, following in itertools.pairwise(found):
            assert one < following


def test_many_missed_slots_are_made_up_by_one_run() -> None:
    now, done = at("2026-11-23T10:07"), at("2026-11-20T10:00")
    assert QUARTERS.wait(now=now, done=done) == 0
    assert QUARTERS.wait(now=now, done=QUARTERS.latest(now)) == 8 * 60


def test_a_schedule_that_skips_lets_missed_slots_go() -> None:
    now, done = at("2026-11-23T10:07"), at("2026-11-20T10:00")
    assert SKIPPING.wait(now=now, done=done) == 8 * 60
    # A slot that has only just come is on time.
    assert SKIPPING.wait(now=at("2026-11-23T10:15:20"), done=done) == 0


def test_a_run_that_was_cut_short_is_due_whatever_the_time() -> None:
    assert SKIPPING.wait(now=at("2026-11-23T10:07"), done=None) == 0


def test_a_clock_set_back_delays_a_run_by_one_slot_at_most() -> None:
    done = at("2027-11-23T10:07")
    assert QUARTERS.wait(now=at("2026-11-23T10:07"), done=done) == 8 * 60


@pytest.mark.parametrize(
    ("cron", "zone"), [("every day", "UTC"), ("0 0 * * *", "Mars/Base"), ("0 0 31 2 *", "UTC")]
)
def test_nonsense_is_a_mistake_in_the_configuration(cron: str, zone: str) -> None:
    with pytest.raises(ConfigError):
        Schedule(cron, zone).next(0.0)
