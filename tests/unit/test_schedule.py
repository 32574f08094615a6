"""When a polled table runs next."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from coordinator.schedule import delay_until_due, next_slot
from warp.errors import ConfigError

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_the_next_slot_is_strictly_after_the_last_run() -> None:
    assert next_slot("*/15 * * * *", after=at("2026-11-23T10:15")) == at("2026-11-23T10:30")
    assert next_slot("*/15 * * * *", after=at("2026-11-23T10:14:59")) == at("2026-11-23T10:15")


def test_a_slot_is_read_off_the_clock_of_its_time_zone() -> None:
    noon = next_slot("0 12 * * *", after=at("2026-07-01T00:00"), timezone=BERLIN)
    assert noon == at("2026-07-01T10:00")


def test_a_slot_that_summer_time_skips_comes_at_the_hour_that_exists() -> None:
    slot = next_slot("30 2 * * *", after=at("2026-03-29T00:00", BERLIN), timezone=BERLIN)
    assert slot == at("2026-03-29T03:00", BERLIN)


def test_a_quarter_hour_schedule_runs_through_the_repeated_hour() -> None:
    slot, count = at("2026-10-25T01:59", BERLIN), 0
    while (slot := next_slot("*/15 * * * *", after=slot, timezone=BERLIN)) < at(
        "2026-10-25T03:00", BERLIN
    ):
        count += 1
    assert count == 8  # two hours on the wall are called 2


def test_many_missed_slots_are_made_up_by_one_run() -> None:
    now = at("2026-11-23T10:07")
    last = at("2026-11-20T10:00")
    assert delay_until_due(now=now, last_run=last, schedule="*/15 * * * *", interval=5) == 0
    assert delay_until_due(now=now, last_run=now, schedule="*/15 * * * *", interval=5) == 8 * 60


def test_a_table_that_never_ran_is_due_at_once() -> None:
    assert delay_until_due(now=0.0, last_run=None, schedule="0 0 1 1 *", interval=5) == 0


def test_without_a_schedule_the_polling_interval_counts() -> None:
    assert delay_until_due(now=102.0, last_run=100.0, schedule=None, interval=5.0) == 3.0
    assert delay_until_due(now=120.0, last_run=100.0, schedule=None, interval=5.0) == 0.0


def test_a_clock_set_back_delays_a_run_by_one_slot_at_most() -> None:
    now = at("2026-11-23T10:07")
    future = at("2027-11-23T10:07")
    delay = delay_until_due(now=now, last_run=future, schedule="*/15 * * * *", interval=5)
    assert delay == 8 * 60


@pytest.mark.parametrize(("schedule", "zone"), [("every day", "UTC"), ("0 0 * * *", "Mars/Base")])
def test_nonsense_is_a_mistake_in_the_configuration(schedule: str, zone: str) -> None:
    with pytest.raises(ConfigError):
        next_slot(schedule, after=0.0, timezone=zone)
