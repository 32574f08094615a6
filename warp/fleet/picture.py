"""One look with what the looks before it tell: what `top` and the web page draw.  Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from warp.fleet.lines import Health, Line, counters, lines_of, with_trends
from warp.fleet.trends import Trends
from warp.fleet.view import FleetView


@dataclass(frozen=True, slots=True)
class Picture:
    fleet: FleetView
    lines: tuple[Line, ...]
    trends: Trends

    @staticmethod
    def of(fleet: FleetView, before: Picture | None = None) -> Picture:
        """`before` is the picture of the last look, if there was one."""
        lines = lines_of(fleet)
        trends = (before.trends if before else Trends()).after(fleet.as_of, counters(lines))
        return Picture(fleet, tuple(with_trends(lines, trends)), trends)

    @property
    def rate(self) -> float | None:
        """Rows per second of everything."""
        known = [line.rate for line in self.lines if line.rate is not None]
        return sum(known) if known else None

    @property
    def history(self) -> tuple[float, ...]:
        """Rows per second of everything between looks, the oldest first."""
        longest = max((len(line.history) for line in self.lines), default=0)
        padded = [(0.0,) * (longest - len(line.history)) + line.history for line in self.lines]
        return tuple(map(sum, zip(*padded, strict=True)))

    @property
    def worst_lag(self) -> float | None:
        return max((line.lag for line in self.lines if line.lag is not None), default=None)

    @property
    def health(self) -> Counter[Health]:
        return Counter(line.health for line in self.lines)
