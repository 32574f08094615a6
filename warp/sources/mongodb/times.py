"""What a timestamp field may hold, and from which value on a poll reads.  Pure.

MongoDB compares a value only with values of its own BSON type, so a place is kept for each of the
three families a timestamp is written in: dates, numbers and strings.  Numbers are seconds since
1970 or a part of them, strings are ISO 8601; what is neither (a counter, other text) is read from
the greatest value on, since no clock can be put beside it.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from bson.datetime_ms import DatetimeMS

from warp.capture.clocks import least_shown

# Family -> its BSON types as $type names them.
FAMILIES: Final = {"date": "date", "number": "number", "string": "string"}

SECOND: Final = 1_000_000  # microseconds
_UNITS: Final = (1, 1_000, 1_000_000, 1_000_000_000)  # ticks of a second
_OLDEST_EPOCH: Final = 10**8  # in 1973; less is taken for a counter
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:([T ])(\d\d:\d\d)(:\d\d)?(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """The server's clock and its open transactions; microseconds since 1970 UTC."""

    now: int
    oldest: int | None = None  # when the oldest open transaction began
    told: bool = True  # False: we may not ask for transactions


def family_of(value: Any) -> str | None:
    """None for a value that says nothing about a row's age."""
    name = type(value).__name__
    if name in ("datetime", "DatetimeMS"):
        return "date"
    if name in ("int", "Int64", "float", "Decimal128"):
        return None if str(value).lower() == "nan" else "number"  # nothing is greater than NaN
    return "string" if name == "str" else None


def lowest(
    family: str, greatest: Any, newest: Any, *, upto: int | None, zone: str, overlap: float
) -> Any:
    """From which value on this run reads a family.

    `greatest` was seen by the last run, `newest` is the greatest now, `upto` the instant the last
    run reached.  Where nobody has stamped anything since, the documents of the greatest time, of
    which there may be very many, are not read again.
    """
    by_clock = None if upto is None else stamped(family, newest, upto, zone)
    if by_clock is None:
        return greatest
    if newest == greatest:
        return by_clock
    seen = earlier(family, greatest, overlap)
    return min(by_clock, seen, key=_comparable)


def stamped(family: str, like: Any, at: int, zone: str) -> Any:
    """The least that is written for an instant or later, in the way `like` is; None: no such."""
    if family == "date":
        return DatetimeMS(at // 1000)
    if family == "number":
        ticks = _ticks(like)
        return None if ticks is None else at * ticks // SECOND
    found = _ISO.fullmatch(like)
    if found is None:
        return None
    offset = found[6]
    if offset is None:
        at = least_shown(at, ZoneInfo(zone))
    elif offset != "Z":
        at += _seconds(offset) * SECOND
    return _written(found, at)


def earlier(family: str, value: Any, seconds: float) -> Any:
    """A value, less so many seconds; the value where that means nothing."""
    if family == "date":
        return DatetimeMS(int(DatetimeMS(value)) - int(seconds * 1000))
    if family == "number":
        ticks = _ticks(value)
        return value if ticks is None else int(float(str(value))) - int(seconds * ticks)
    found = _ISO.fullmatch(value)
    if found is None:
        return value
    shown = f"{found[1]} {found[3] or '00:00'}{found[4] or ':00'}"
    try:
        at = dt.datetime.fromisoformat(shown).replace(tzinfo=dt.UTC)
    except ValueError:
        return value
    return _written(found, round((at.timestamp() - seconds) * SECOND))


def _ticks(value: Any) -> int | None:
    """The unit of a number shows by its size."""
    size = float(str(value))
    if not _OLDEST_EPOCH <= size < _OLDEST_EPOCH * 1000 * _UNITS[-1]:
        return None
    return next(ticks for ticks in _UNITS if size < _OLDEST_EPOCH * 1000 * ticks)


def _seconds(offset: str) -> int:
    sign = -1 if offset[0] == "-" else 1
    return sign * (int(offset[1:3]) * 3600 + int(offset[-2:]) * 60)


def _written(like: re.Match[str], at: int) -> str:
    """As the other text, cut to whole seconds and without zone: what sorts before all that have."""
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=at)  # noqa: DTZ001 - as shown
    if like[2] is None:
        return f"{moment:%Y-%m-%d}"
    seconds = f":{moment:%S}" if like[4] else ""
    return f"{moment:%Y-%m-%d}{like[2]}{moment:%H:%M}{seconds}"


def _comparable(value: Any) -> Any:
    return int(value) if isinstance(value, DatetimeMS) else value
