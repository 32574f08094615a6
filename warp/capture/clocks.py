"""From instants to what a column of times holds: time zones, resolutions, epochs.  Pure.

The place reached is an instant of the source's own clock and never a value of the column.  So a
row stamped in the far future does not hide those after it, and a wall clock that shows an hour
twice needs no guess which of the two a value means: both are read.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from warp.errors import SourceRefused
from warp.kinds import as_text
from warp.model import Column, Kind, TableId

SECOND: Final = 1_000_000  # microseconds
_DAY: Final = 86_400 * SECOND
_LARGEST_SHIFT: Final = 3 * 3600 * SECOND  # by which a wall clock was ever set in one night
_NUMBERS: Final = (Kind.INT32, Kind.INT64, Kind.DECIMAL, Kind.FLOAT64)
_TIMES: Final = (Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE)

# Ticks of a second.  Before 1973 and after 5138 a number of one unit could be taken for another.
_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_OLDEST_EPOCH: Final = 10**8


@dataclass(frozen=True, slots=True)
class Window:
    """Instants, both ends included; None: from the beginning.  Microseconds since 1970 UTC."""

    low: int | None
    high: int


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a column that rows stamped within a window may have, as texts of its kind."""

    low: str | None
    high: str


def is_number(column: Column) -> bool:
    return column.kind in _NUMBERS


def must_hold_times(table: TableId, column: Column) -> None:
    if column.kind not in (*_TIMES, *_NUMBERS):
        raise SourceRefused(
            f"expected times in the column {column.source!r}, found {column.kind.value}; name a "
            "column of times with change_detection.column, or a column that does not exist to "
            "have the table compared whole",
            place=str(table),
        )


def unit_of(table: TableId, column: Column, greatest: int) -> str:
    """The unit in which a column counts from 1970, by its greatest value.

    Numbers that count something else would never be reached by the clock.
    """
    if greatest < _OLDEST_EPOCH:
        raise SourceRefused(
            f"expected seconds since 1970 or a part of them in the column {column.source!r}, found "
            f"at most {greatest}; name a column of times with change_detection.column",
            place=str(table),
        )
    for unit, ticks in _UNITS.items():
        if greatest < _OLDEST_EPOCH * 1000 * ticks:
            return unit
    return "ns"


def values(column: Column, window: Window, zone: str, unit: str = "") -> Values:
    """What the column holds of rows stamped within the window; rather more than less."""
    if is_number(column):
        ticks = _UNITS[unit]
        low = None if window.low is None else str(window.low * ticks // SECOND)
        return Values(low, str(-(-window.high * ticks // SECOND)))
    # A column may keep whole seconds only, and its server cut the rest off or rounded.
    start = None if window.low is None else window.low // SECOND * SECOND
    window = Window(start, -(-window.high // SECOND) * SECOND)
    if column.kind is Kind.TIMESTAMP:
        return Values(_text(column.kind, start), as_text(column.kind, window.high))
    first, last = shown(window, ZoneInfo(zone))
    if column.kind is Kind.DATE:
        return Values(None if first is None else _date(first), _date(last))
    return Values(_text(column.kind, first), as_text(column.kind, last))


def shown(window: Window, zone: ZoneInfo) -> tuple[int | None, int]:
    """The first and the last time that a wall clock shows within the window.

    Where it is set back within the window, it shows times before the one it began with, or ends
    on one before the last: each end is looked at with both offsets.
    """
    high = window.high + _offset(window.high, zone)
    if window.low is None:
        return None, max(high, window.high + _offset(window.high - _LARGEST_SHIFT, zone))
    low = window.low
    soon = min(low + _LARGEST_SHIFT, window.high)
    before = max(window.high - _LARGEST_SHIFT, low)
    return (
        low + min(_offset(low, zone), _offset(soon, zone)),
        window.high + max(_offset(window.high, zone), _offset(before, zone)),
    )


def instant(text: str) -> int:
    """Microseconds of an ISO 8601 text with its zone."""
    return _microseconds(dt.datetime.fromisoformat(text))


def iso(microseconds: int) -> str:
    """An instant as people read it; `instant` reads it again."""
    return _utc(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _microseconds(at: dt.datetime) -> int:
    return (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _utc(microseconds: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)


def _offset(microseconds: int, zone: ZoneInfo) -> int:
    offset = _utc(microseconds).astimezone(zone).utcoffset()
    return 0 if offset is None else offset // dt.timedelta(microseconds=1)


def _text(kind: Kind, microseconds: int | None) -> str | None:
    return None if microseconds is None else as_text(kind, microseconds)


def _date(microseconds: int) -> str:
    return as_text(Kind.DATE, dt.date(1970, 1, 1) + dt.timedelta(days=microseconds // _DAY))
