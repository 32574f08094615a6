"""Wall clocks, resolutions and epochs: a stamp made within a window is never outside its values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.capture import clocks
from warp.capture.clocks import SECOND, instant, iso, least_shown, stamped, unit_of
from warp.errors import SourceRefused
from warp.kinds import as_text
from warp.model import Column, Kind, TableId

ORDERS = TableId("shop", "orders")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
BERLIN = ZoneInfo("Europe/Berlin")
YEAR = st.integers(instant("2026-01-01T00:00:00Z"), instant("2027-01-01T00:00:00Z"))


def wall(microseconds: int, zone: str) -> int:
    """What a clock on the wall shows, as microseconds."""
    at = dt.datetime.fromtimestamp(microseconds / SECOND, ZoneInfo(zone)).replace(tzinfo=dt.UTC)
    return int(at.timestamp() * SECOND)


@settings(max_examples=150)
@given(YEAR, st.integers(0, 30 * 3600), st.sampled_from(ZONES))
def test_no_wall_clock_ever_shows_less_than_what_is_read_from(
    at: int, later: int, zone: str
) -> None:
    assert least_shown(at, ZoneInfo(zone)) <= wall(at + later * SECOND, zone)


def test_the_hour_that_autumn_shows_twice_is_read_from_its_beginning() -> None:
    # Clocks go from 03:00 back to 02:00 at 01:00 UTC.
    before_it = instant("2026-10-25T00:50:00Z")
    found = stamped(Column("at", Kind.DATETIME), before_it, "Europe/Berlin")
    assert as_text(Kind.DATETIME, found) == "2026-10-25 01:50:00"


def test_without_the_later_offset_rows_of_that_hour_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin: 02:10, shown 20 minutes after 02:50."""
    monkeypatch.setattr(clocks, "_LARGEST_SHIFT", 0)
    stamp = wall(instant("2026-10-25T01:10:00Z"), "Europe/Berlin")
    assert least_shown(instant("2026-10-25T00:50:00Z"), BERLIN) > stamp


def test_the_hour_that_spring_leaves_out_changes_nothing() -> None:
    before_it = instant("2026-03-29T00:59:59Z")
    found = stamped(Column("at", Kind.DATETIME), before_it, "Europe/Berlin")
    assert as_text(Kind.DATETIME, found) == "2026-03-29 01:59:59"


@pytest.mark.parametrize(
    ("kind", "unit", "least"),
    [
        (Kind.TIMESTAMP, "", "2026-01-01 00:00:00+00"),
        (Kind.DATE, "", "2026-01-01"),
        (Kind.INT32, "s", "1767225600"),
        (Kind.INT64, "ms", "1767225600500"),
        (Kind.DECIMAL, "us", "1767225600500000"),
        (Kind.FLOAT64, "ns", "1767225600500000000"),
    ],
)
def test_an_instant_becomes_the_least_value_that_its_resolution_leaves(
    kind: Kind, unit: str, least: str
) -> None:
    column = Column("at", kind)
    value = stamped(column, instant("2026-01-01T00:00:00.500000Z"), "UTC", unit)
    assert clocks.text(column, value) == least


@pytest.mark.parametrize(
    ("kind", "unit", "earlier"),
    [
        (Kind.TIMESTAMP, "", "2025-12-31 23:59:55.5+00"),
        (Kind.DATETIME, "", "2025-12-31 23:59:55.5"),
        (Kind.DATE, "", "2026-01-01"),
        (Kind.INT64, "ms", "1767225595500"),
    ],
)
def test_a_value_of_before_is_read_and_written_back(kind: Kind, unit: str, earlier: str) -> None:
    column = Column("at", kind)
    texts = {
        Kind.TIMESTAMP: "2026-01-01 00:00:00.5+00",
        Kind.DATETIME: "2026-01-01 00:00:00.5",
        Kind.DATE: "2026-01-01",
        Kind.INT64: "1767225600500",
    }
    value = clocks.read(column, texts[kind])
    assert clocks.text(column, value) == texts[kind]
    assert clocks.text(column, clocks.before(column, value, 5.0, unit)) == earlier


def test_the_unit_of_a_number_shows_by_its_size() -> None:
    column = Column("at", Kind.INT64)
    found = {n: unit_of(ORDERS, column, 1_790_000_000 * 1000**n) for n in range(4)}
    assert found == {0: "s", 1: "ms", 2: "us", 3: "ns"}


def test_a_number_that_counts_something_else_is_refused() -> None:
    with pytest.raises(SourceRefused, match="found at most 42"):
        unit_of(ORDERS, Column("revision", Kind.INT64), 42)


@given(YEAR)
def test_an_instant_is_read_as_it_was_written(microseconds: int) -> None:
    assert instant(iso(microseconds)) == microseconds


def test_texts_of_values_are_those_a_server_reads() -> None:
    assert as_text(Kind.DECIMAL, Decimal("1.50")) == "1.50"
    assert as_text(Kind.BYTES, b"\x00'") == "\\x0027"
