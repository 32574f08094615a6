"""From instants to what a column of times holds: time zones, resolutions, epochs.  Pure.

The place reached is an instant of the source's own clock.  Where a run begins to read is found from
it anew each time, so a wall clock that shows an hour twice needs no guess which of the two a value
means: the earlier one is begun with.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from warp.errors import SourceRefused
from warp.kinds import as_text, converter
from warp.model import Column, Kind, TableId

SECOND: Final = 1_000_000  # microseconds
_DAY: Final = 86_400 * SECOND
_LARGEST_SHIFT: Final = 3 * 3600 * SECOND  # by which a wall clock was ever set in one night
_NUMBERS: Final = (Kind.INT32, Kind.INT64, Kind.DECIMAL, Kind.FLOAT64)
_TIMES: Final = (Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE)

# Ticks of a second.  Before 1973 and after 5138 a number of one unit could be taken for another.
_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_OLDEST_EPOCH: Final = 10**8


Time = int | float | Decimal | dt.date
"""A cell of a column of times, as its kind's carrier."""


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


def unit_of(table: TableId, column: Column, greatest: Time) -> str:
    """The unit in which a column of numbers counts from 1970, by its greatest value.

    Of numbers that count something else no instant could be told.
    """
    if isinstance(greatest, dt.date) or not is_number(column):
        return ""
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


def stamped(column: Column, at: int, zone: str, unit: str = "") -> Time:
    """The least that the column may hold of a row that is stamped at an instant or later."""
    if is_number(column):
        return at * _UNITS[unit] // SECOND
    at = at // SECOND * SECOND  # a column may keep whole seconds only
    if column.kind is Kind.TIMESTAMP:
        return at
    shown = least_shown(at, ZoneInfo(zone))
    return _day(shown) if column.kind is Kind.DATE else shown


def least_shown(at: int, zone: ZoneInfo) -> int:
    """The least time that a wall clock shows from an instant on, as microseconds.

    It may be set back soon, and then shows times before the one it shows now.
    """
    return at + min(_offset(at, zone), _offset(at + _LARGEST_SHIFT, zone))


def before(column: Column, value: Time, seconds: float, unit: str = "") -> Time:
    """A value, less so many seconds."""
    if isinstance(value, dt.date):
        return value - dt.timedelta(days=int(seconds) // 86_400)
    if is_number(column):
        return int(value) - int(seconds * _UNITS[unit])
    return int(value) - int(seconds * SECOND)


def read(column: Column, value: str) -> Time:
    """What `text` wrote."""
    if is_number(column):
        return Decimal(value)
    convert = converter(Kind.TEXT, column.kind)
    if convert is None:
        raise AssertionError(f"{column.kind} is no kind of times")
    return convert(value)  # type: ignore[no-any-return]


def is_later(value: Time, other: Time) -> bool:
    """Of two values of one column."""
    if isinstance(value, dt.date) or isinstance(other, dt.date):
        return isinstance(value, dt.date) and isinstance(other, dt.date) and value > other
    return value > other


def text(column: Column, value: Time) -> str:
    """As `warp.kinds.as_text` writes a cell of this column."""
    if is_number(column) and isinstance(value, int):
        return str(value)
    return as_text(column.kind, value)


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


def _day(microseconds: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=microseconds // _DAY)
