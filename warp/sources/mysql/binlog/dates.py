"""Dates and times as the log packs them -> carriers, or the server's text of what is none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from warp.model import Invalid

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_DAY_US: Final = 86_400_000_000
_MEMORY: Final = 100_000  # days: more than two centuries


class _Days(dict[int, Any]):
    """Packed year, month and day -> its value; KeyError where there is no such day."""

    def __init__(self, unpack: Callable[[int], tuple[int, int, int]], value: Any) -> None:
        self._unpack, self._value = unpack, value

    def __missing__(self, packed: int) -> Any:
        try:
            found = self._value(dt.date(*self._unpack(packed)))
        except ValueError:
            raise KeyError(packed) from None
        if len(self) >= _MEMORY:
            self.clear()
        self[packed] = found
        return found


def _unpack_date(packed: int) -> tuple[int, int, int]:
    return packed >> 9, packed >> 5 & 15, packed & 31


def _unpack_datetime(packed: int) -> tuple[int, int, int]:
    """Seventeen bits of `year * 13 + month`, five of the day, above a sign that is always set."""
    year, month = divmod(packed >> 5 & 0x1FFFF, 13)
    return year, month, packed & 31


def _microseconds(day: dt.date) -> int:
    return (day.toordinal() - _EPOCH) * _DAY_US


DATES: Final = _Days(_unpack_date, lambda day: day)
DATETIMES: Final = _Days(_unpack_datetime, _microseconds)


def _date_text(year: int, month: int, day: int) -> str:
    return f"{year:04}-{month:02}-{day:02}"


def bad_date(packed: int) -> Invalid:
    return Invalid(_date_text(*_unpack_date(packed)))


def fraction_size(digits: int) -> tuple[int, int]:
    """(bytes of a fraction of so many digits, what its unit is in microseconds)."""
    size = (digits + 1) // 2
    return size, 10 ** (6 - 2 * size)


def fraction_text(microseconds: int, digits: int) -> str:
    return f".{microseconds:06}"[: digits + 1] if digits else ""


def bad_datetime(whole: int, microseconds: int, digits: int) -> Invalid:
    clock = f"{whole >> 12 & 31:02}:{whole >> 6 & 63:02}:{whole & 63:02}"
    fraction = fraction_text(microseconds, digits)
    return Invalid(f"{_date_text(*_unpack_datetime(whole >> 17))} {clock}{fraction}")


def time_text(packed: int, size: int, digits: int) -> str:
    sign = "-" if packed < 0 else ""
    packed = abs(packed)
    seconds = packed >> 8 * size
    fraction = packed & (1 << 8 * size) - 1
    clock = f"{sign}{seconds >> 12 & 0x3FF:02}:{seconds >> 6 & 63:02}:{seconds & 63:02}"
    return clock + fraction_text(fraction * 10 ** (6 - 2 * size), digits)


# Before MySQL 5.6, and MariaDB with mysql56_temporal_format=OFF; without fractions.


def old_time_text(value: int) -> str:
    sign = "-" if value < 0 else ""
    hours, rest = divmod(abs(value), 10_000)
    return f"{sign}{hours:02}:{rest // 100:02}:{rest % 100:02}"


def old_datetime_value(value: int) -> int | Invalid:
    days, clock = divmod(value, 1_000_000)
    year, month, day = days // 10_000, days // 100 % 100, days % 100
    hours, minutes, seconds = clock // 10_000, clock // 100 % 100, clock % 100
    try:
        start = _microseconds(dt.date(year, month, day))
    except ValueError:
        return Invalid(f"{_date_text(year, month, day)} {hours:02}:{minutes:02}:{seconds:02}")
    return start + (hours * 3600 + minutes * 60 + seconds) * 1_000_000
