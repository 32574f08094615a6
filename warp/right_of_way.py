"""Who goes first in one process: a stream, before the chunks of a snapshot beside it.

Chunks take whatever processor and interpreter there is, and the rows of a stream wait for them: at
5,000 rows a second on two cores, with both servers on them, for 66 ms (p50) and 403 ms (p99), and
alone for 18 and 35 [measured].  So chunks take turns, as many as a stream's own batches show to be
harmless.

How long a batch takes says nothing by itself: where the destination is far away, each takes
200 ms.  It is held against the least that batches of its size took, and chunks begin with few
turns, so that this least is seen.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from warp.interfaces import Hold
from warp.machine import THIS_MACHINE, Machine

# Chunks at work at once, on average: whatever the stream needs, and at most.
LEAST: Final = 0.15
MOST: Final = 16.0
QUIET_AFTER: Final = 0.5  # seconds without a batch of a stream: nobody is waited for
LONGEST_REST: Final = 1.0  # seconds, between two turns
LOOK_EVERY: Final = 1.0  # seconds of a wait between two signs that its unit is at work

# A batch is late that took so much longer than the least.
_LATE: Final = 1.5
_LATE_SECONDS: Final = 0.002  # the turn of another thread is no lateness
_LESS: Final = 0.7  # for each batch that is late
_MORE: Final = 1.0  # by so much the logarithm grows in a second without such a batch
_FORGETS: Final = 1.001  # of the least, for each batch: servers and rows change


def next_share(share: float, seconds: float, least: float, passed: float) -> float:
    """How many chunks may be at work, after a stream's batch took `seconds`.  Pure.

    `passed` are the seconds since the batch before it ended.
    """
    if seconds > _LATE * least + _LATE_SECONDS:
        return max(LEAST, share * _LESS)
    return min(MOST, share * math.exp(min(_MORE * passed, math.log(MOST / LEAST))))


class RightOfWay:
    """Of one process; asked and told from the threads of its units."""

    def __init__(self, machine: Machine = THIS_MACHINE) -> None:
        self._clock = machine.monotonic
        self._lock = machine.lock()
        self._share = LEAST
        self._least: dict[int, float] = {}  # seconds, by the number of digits of a batch's rows
        self._heard: float | None = None  # when a stream told of a batch
        self._turn = 0.0  # seconds that the last one took
        self._free_at = self._clock()  # when the next one may begin

    def delivered(self, rows: int, seconds: float) -> None:
        """A stream's batch took `seconds` from being at hand to its commit."""
        now, size = self._clock(), rows.bit_length()
        with self._lock:
            passed = 0.0 if self._heard is None else now - self._heard
            self._heard = now
            least = min(seconds, self._least.get(size, seconds) * _FORGETS)
            self._least[size] = least
            self._share = next_share(self._share, seconds, least, passed)

    @contextmanager
    def turn(self, hold: Hold) -> Generator[None]:
        """A chunk works on one batch, once it may."""
        begin = self.next_turn()
        while (left := begin - self._clock()) > 0 and not hold.stopping():
            hold.wait(min(left, LOOK_EVERY))
            hold.check()
        begun = self._clock()
        yield
        self._turn = self._clock() - begun

    def next_turn(self) -> float:
        """When it begins, so that there are as many of all chunks as the streams leave room for."""
        now = self._clock()
        with self._lock:
            if self._heard is None or now - self._heard > QUIET_AFTER:
                self._free_at = now
                return now
            begin = max(now, self._free_at)
            self._free_at = begin + min(LONGEST_REST, self._turn / self._share)
            return begin
