"""Values of a timestamp field: which of them a poll reads from."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from warp.capture.clocks import instant
from warp.sources.mongodb.times import SECOND, earlier, family_of, lowest, stamped

NOON = instant("2026-07-01T12:00:00Z")


@pytest.mark.parametrize(
    ("like", "least"),
    [
        (dt.datetime(2026, 1, 1), DatetimeMS(NOON // 1000)),  # noqa: DTZ001 - as BSON has it
        (1_767_225_600, 1_782_907_200),
        (1_767_225_600_000.0, 1_782_907_200_000),
        ("2026-01-01T00:00:00.123Z", "2026-07-01T12:00:00"),
        ("2026-01-01 00:00", "2026-07-01 14:00"),
        ("2026-01-01", "2026-07-01"),
        ("2026-01-01T00:00:00+05:30", "2026-07-01T17:30:00"),
        ("2026-01-01T00:00:00-0800", "2026-07-01T04:00:00"),
        (42, None),
        ("forty-two", None),
    ],
)
def test_an_instant_is_written_as_the_field_has_others(like: Any, least: Any) -> None:
    assert stamped(family_of(like) or "", like, NOON, "Europe/Berlin") == least


@pytest.mark.parametrize(
    ("value", "before"),
    [
        (dt.datetime(1970, 1, 1, 0, 0, 9), DatetimeMS(4000)),  # noqa: DTZ001 - as BSON has it
        (1_767_225_600, 1_767_225_595),
        ("2026-01-01T00:00:03.5Z", "2025-12-31T23:59:58"),
        ("2026-02-31", "2026-02-31"),
        (42, 42),
        ("forty-two", "forty-two"),
    ],
)
def test_a_value_less_some_seconds_is_of_its_own_sort(value: Any, before: Any) -> None:
    assert earlier(family_of(value) or "", value, 5.0) == before


@given(st.integers(NOON, NOON + 400 * 86_400 * SECOND), st.sampled_from(["Z", "+02:00", ""]))
def test_no_text_written_from_an_instant_on_sorts_before_it(at: int, zone: str) -> None:
    moment = dt.datetime.fromtimestamp(at / SECOND, dt.UTC)
    if zone == "+02:00":
        moment += dt.timedelta(hours=2)
    written = f"{moment:%Y-%m-%dT%H:%M:%S.%f}"[:23] + zone
    assert stamped("string", written, at, "UTC") <= written


def test_where_nobody_stamped_anything_since_the_clock_alone_counts() -> None:
    value = dt.datetime(2026, 7, 1)  # noqa: DTZ001 - as BSON has it
    found = lowest("date", value, value, upto=NOON, zone="UTC", overlap=5.0)
    assert found == DatetimeMS(NOON // 1000)


def test_all_clocks_behind_the_servers_are_read_from_the_greatest_they_stamped() -> None:
    seen, newest = dt.datetime(2026, 7, 1), dt.datetime(2026, 7, 1, 1)  # noqa: DTZ001
    found = lowest("date", seen, newest, upto=NOON, zone="UTC", overlap=5.0)
    assert found == earlier("date", seen, 5.0)


def test_a_counter_is_read_from_the_greatest_seen() -> None:
    assert lowest("number", 17, 19, upto=NOON, zone="UTC", overlap=5.0) == 17
