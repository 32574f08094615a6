"""Wall clocks, resolutions and epochs: a stamp made within a window is never outside its values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.capture import clocks
from warp.capture.clocks import SECOND, Window, instant, iso, shown, unit_of, values
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
@given(YEAR, st.integers(0, 10 * 3600), st.floats(0, 1), st.sampled_from(ZONES))
def test_what_a_wall_clock_shows_within_a_window_is_within_what_is_read(
    low: int, seconds: int, share: float, zone: str
) -> None:
    high = low + seconds * SECOND
    at = low + int(share * seconds) * SECOND
    first, last = shown(Window(low, high), ZoneInfo(zone))
    assert first is not None
    assert first <= wall(at, zone) <= last


def test_the_hour_that_autumn_shows_twice_is_read_both_times() -> None:
    # Clocks go from 03:00 back to 02:00 at 01:00 UTC.
    around = Window(instant("2026-10-25T00:50:00Z"), instant("2026-10-25T01:10:00Z"))
    found = values(Column("at", Kind.DATETIME), around, "Europe/Berlin")
    assert found.low == "2026-10-25 01:50:00"
    assert found.high == "2026-10-25 03:10:00"


def test_without_both_offsets_rows_of_that_hour_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin: 02:55, stamped before the change, lies outside of 02:50 to 02:10."""
    monkeypatch.setattr(clocks, "_LARGEST_SHIFT", 0)
    low, high = instant("2026-10-25T00:50:00Z"), instant("2026-10-25T01:10:00Z")
    first, last = shown(Window(low, high), BERLIN)
    assert first is not None
    stamped = wall(instant("2026-10-25T00:55:00Z"), "Europe/Berlin")
    assert not first <= stamped <= last


def test_the_hour_that_spring_leaves_out_is_read_too() -> None:
    around = Window(instant("2026-03-29T00:59:59Z"), instant("2026-03-29T01:00:01Z"))
    found = values(Column("at", Kind.DATETIME), around, "Europe/Berlin")
    assert found.low is not None
    assert found.low < "2026-03-29 02:30:00" < found.high


@pytest.mark.parametrize(
    ("kind", "unit", "low", "high"),
    [
        (Kind.TIMESTAMP, "", "2026-01-01 00:00:00+00", "2026-01-01 00:00:02+00"),
        (Kind.DATE, "", "2026-01-01", "2026-01-01"),
        (Kind.INT32, "s", "1767225600", "1767225602"),
        (Kind.INT64, "ms", "1767225600500", "1767225601501"),
        (Kind.DECIMAL, "us", "1767225600500000", "1767225601500001"),
        (Kind.FLOAT64, "ns", "1767225600500000000", "1767225601500001000"),
    ],
)
def test_the_ends_of_a_window_are_those_a_resolution_leaves(
    kind: Kind, unit: str, low: str, high: str
) -> None:
    window = Window(
        instant("2026-01-01T00:00:00.500000Z"), instant("2026-01-01T00:00:01.500001Z")
    )
    found = values(Column("at", kind), window, "UTC", unit)
    assert (found.low, found.high) == (low, high)


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
