"""When a polled table runs, and which slot of its schedule a run belongs to.  Pure.

A slot is an instant that a cron expression names on a wall clock.  The clock's two odd days are
decided here, not left to a library, so that looking forward and looking back always agree:

* where minutes or hours are `*` or `*/n` it is a rhythm, which goes on by elapsed time: a wall
  time that comes twice is two slots, and one that is skipped is the one that is shown instead;
* else it names moments of a day: one that comes twice is one slot, the first of the two, and one
  that is skipped comes when the clock jumps (02:30 becomes 03:00).

Slots that were missed are never made up one by one: what is read is the state of now, so one run
brings all that the missed ones would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from croniter.croniter import CroniterError

from warp.errors import ConfigError

# A slot that cannot begin within this time of its own is missed.  As long as a minute, which is
# the finest cron can say: a claim or a round that is late must not make a run skip.
ON_TIME: Final = 60.0

_TICK: Final = timedelta(seconds=1)
# Around a change of the clock, wall times and instants are not in one order for this long.
_ODD: Final = timedelta(hours=3)


class CatchUp(StrEnum):
    """What becomes of slots that passed while nothing could run."""

    LATEST = "latest"  # one run at once, which belongs to the latest of them
    SKIP = "skip"  # none: the next slot's run brings it all


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression on the wall clock of a time zone.  All instants are Unix seconds."""

    expression: str
    timezone: str = "UTC"
    catch_up: CatchUp = CatchUp.LATEST

    def next(self, after: float) -> float:
        """The first slot strictly after an instant."""
        return _next(self.expression, self.timezone, math.floor(after))

    def latest(self, at: float) -> float:
        """The last slot at or before an instant."""
        return _latest(self.expression, self.timezone, math.floor(at))

    def wait(self, *, now: float, done: float | None) -> float:
        """Seconds until the next run; 0 where one is due.

        `done` is the last slot that was run, or when something stood for one; None where a run
        is due whatever the time, as one that was cut short is.
        """
        if done is None:
            return 0.0
        # One in the future is a clock that was set back: wait no longer than one slot.
        due = self.next(min(done, now))
        if due <= now and self.is_missed(self.latest(now), now=now):
            due = self.next(now)
        return max(0.0, due - now)

    def is_missed(self, slot: float, *, now: float) -> bool:
        """Is it too late to begin this slot's run?"""
        return self.catch_up is CatchUp.SKIP and now - slot > ON_TIME


@lru_cache(4096)
def _next(expression: str, timezone: str, after: int) -> float:
    zone = _zone(timezone)
    wall = _wall(after, zone)
    if _is_steady(after, zone):
        [*slots] = _slots(expression, next(_forward(expression, wall)), zone)
        return min(slots)
    found = []
    for naive in _forward(expression, wall - _ODD - _TICK):
        found += [slot for slot in _slots(expression, naive, zone) if slot > after]
        if found and naive > wall + _ODD:
            break
    return min(found)


@lru_cache(4096)
def _latest(expression: str, timezone: str, at: int) -> float:
    zone = _zone(timezone)
    wall = _wall(at, zone)
    if _is_steady(at, zone):
        # Backwards from the next second: an instant's own slot counts.
        return max(_slots(expression, next(_backward(expression, wall + _TICK)), zone))
    found: list[float] = []
    for naive in _backward(expression, wall + _ODD + _TICK):
        found += [slot for slot in _slots(expression, naive, zone) if slot <= at]
        if found and naive < wall - _ODD:
            break
    return max(found)


def _slots(expression: str, naive: datetime, zone: ZoneInfo) -> list[float]:
    """The instants that stand for a time of the wall clock: one, or two where it comes twice."""
    first, second = (naive.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    rhythm = _is_rhythm(expression)
    if first > second and not rhythm:  # skipped: each fold takes the offset of the other side
        return [_jump_between(second, first, zone)]
    return [first, second] if first < second and rhythm else [first]


def _jump_between(before: float, after: float, zone: ZoneInfo) -> float:
    """The first second of the clock's new offset."""
    low, high = int(before), int(after)
    offset = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return float(high)


def _is_rhythm(expression: str) -> bool:
    if expression.startswith("@"):
        return expression.strip().lower() == "@hourly"
    minutes, hours = expression.split()[:2]
    return minutes.startswith("*") or hours.startswith("*")


def _is_steady(at: float, zone: ZoneInfo) -> bool:
    odd = _ODD.total_seconds()
    return _offset(at - odd, zone) == _offset(at + odd, zone)


def _forward(expression: str, after: datetime) -> Iterator[datetime]:
    with _Meaning(expression):
        slots = croniter(expression, after)
        while True:
            yield slots.get_next(datetime)


def _backward(expression: str, before: datetime) -> Iterator[datetime]:
    with _Meaning(expression):
        slots = croniter(expression, before)
        while True:
            yield slots.get_prev(datetime)


class _Meaning:
    """What the library says about an expression, as a mistake in the configuration."""

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CroniterError):
            raise ConfigError(
                "expected a cron expression such as '*/15 * * * *', "
                f"found {self._expression!r}: {error}",
                place="schedule",
            ) from None


def _wall(at: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at, tz=UTC).astimezone(zone).replace(tzinfo=None)


def _offset(at: float, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(at, tz=UTC).astimezone(zone).utcoffset()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            f"expected a time zone such as Europe/Berlin, found {name!r}", place="timezone"
        ) from None
