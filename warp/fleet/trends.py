"""Rates, their course, and when a snapshot will be done: from looks one after the other.  Pure.

Rates come from the rows that markers count, so they are of committed rows whoever wrote them, and
one that several workers share is one rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KEPT: Final = 60  # looks
RATE_OVER: Final = 10.0  # seconds; shorter, and a batch of 5,000 rows a second makes it jump
ETA_OVER: Final = 60.0
_LEAST: Final = 0.001  # seconds between two looks that can be told apart

Counters = Mapping[str, tuple[int, float | None]]
"""Of each line its rows and its progress, as `warp.fleet.lines.counters` gives them."""


@dataclass(frozen=True, slots=True)
class Look:
    at: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class Trends:
    """The last looks, the oldest first."""

    looks: tuple[Look, ...] = ()

    def after(self, at: float, counters: Counters) -> Trends:
        """With one look more.  A clock that was set back begins anew."""
        look = Look(at, counters)
        if not self.looks:
            return Trends((look,))
        passed = at - self.looks[-1].at
        if passed < 0:
            return Trends((look,))
        if passed < _LEAST:
            return Trends((*self.looks[:-1], look))
        return Trends((*self.looks, look)[-KEPT:])

    def history(self, key: str) -> tuple[float, ...]:
        """Rows per second between each look and the next, the oldest first."""
        steps = []
        for before, after in zip(self.looks, self.looks[1:], strict=False):
            if key in before.counters and key in after.counters:
                rows = after.counters[key][0] - before.counters[key][0]
                # Fewer than before: the unit was planned anew, and counts from 0.
                steps.append(max(0, rows) / (after.at - before.at))
        return tuple(steps)

    def rate(self, key: str) -> float | None:
        """Rows per second of late; None before there are two looks at it."""
        if len(self.looks) < 2:
            return None
        until, rows, seconds = self.looks[-1].at, 0, 0.0
        for before, after in zip(self.looks[-2::-1], self.looks[:0:-1], strict=True):
            if key not in before.counters or key not in after.counters:
                break
            # The step to the look before last counts whatever its length: else a slow display
            # would never show a rate.
            if seconds and until - before.at > RATE_OVER:
                break
            rows += max(0, after.counters[key][0] - before.counters[key][0])
            seconds += after.at - before.at
        return rows / seconds if seconds else None

    def eta(self, key: str) -> float | None:
        """Seconds until the progress is 1, as it went of late; None where nothing tells."""
        if not self.looks:
            return None
        last = self.looks[-1]
        progress = last.counters.get(key, (0, None))[1]
        if progress is None:
            return None
        if progress >= 1.0:
            return 0.0
        first = None
        for look in reversed(self.looks[:-1]):
            found = look.counters.get(key, (0, None))[1]
            # Less later than before: the snapshot began again in between.
            if found is None or found > progress or last.at - look.at > ETA_OVER:
                break
            first = (look.at, found)
        if first is None or progress <= first[1]:
            return None
        return (1.0 - progress) * (last.at - first[0]) / (progress - first[1])
