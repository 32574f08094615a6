"""How much of its time a comparison works, and how many rows a second it has read: `verify`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from warp.interfaces import Hold
from warp.model import TableSettings

LOOK_EVERY: Final = 1.0  # seconds of a rest between two signs that its unit is at work


def rest_due(worked: float, rows: int, *, share: float, rate: float | None) -> float:
    """Seconds to rest after having worked on so many rows, so that both limits hold.  Pure."""
    of_time = worked * (1.0 / share - 1.0)
    of_rows = 0.0 if rate is None else rows / rate - worked
    return max(0.0, of_time, of_rows)


class Pace:
    """The rests of one comparison, between its questions to the servers."""

    def __init__(
        self,
        settings: TableSettings,
        hold: Hold,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = settings.verify_budget
        self._rate = settings.verify_rate
        self._hold = hold
        self._clock = clock
        self._since = clock()

    def begins(self) -> None:
        """Work begins now: what was waited for until here is none."""
        self._since = self._clock()

    def rests(self, rows: int = 0) -> None:
        """Leave servers and processor to others, as long as the work since the last rest asks for.

        A rest may be longer than a unit may go without a sign of progress: seen with a budget of
        5 %, whose rest of a minute cost the lease, so that the range was begun again for ever.
        """
        left = rest_due(self._clock() - self._since, rows, share=self._share, rate=self._rate)
        until = self._clock() + left
        while (left := until - self._clock()) > 0 and not self._hold.stopping():
            self._hold.wait(min(left, LOOK_EVERY))
            self._hold.check()
        self._since = self._clock()
