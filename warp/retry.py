"""How long to wait before trying again.  Pure: the random numbers and the clock are given."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow by a factor up to a cap, each shortened at random.

    The jitter is there so that units that failed together do not come back together.
    """

    max_retries: int | None = 3  # tries after the first; None: as long as it takes
    factor: float = 2.0
    base: float = 1.0  # seconds: the first wait
    cap: float = 60.0  # seconds: no wait is longer
    jitter: float = 0.5  # the share of a wait that chance may take off it

    def __post_init__(self) -> None:
        if (
            self.factor < 1
            or not 0 < self.base <= self.cap
            or not 0 <= self.jitter <= 1
            or (self.max_retries is not None and self.max_retries < 0)
        ):
            raise ValueError(f"expected factor >= 1, 0 < base <= cap, 0 <= jitter <= 1: {self}")

    def longest(self, attempt: int) -> float:
        """The wait before retry `attempt` (from 0) without jitter."""
        try:
            return min(self.cap, self.base * self.factor**attempt)
        except OverflowError:  # after a thousand doublings
            return self.cap

    def delay(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """The wait before retry `attempt`; `chance` draws from [0, 1)."""
        return self.longest(attempt) * (1 - self.jitter * chance())

    def delays(self, chance: Callable[[], float] = random.random) -> Iterator[float]:
        """One wait per retry; ends when no more are allowed."""
        attempt = 0
        while self.max_retries is None or attempt < self.max_retries:
            yield self.delay(attempt, chance)
            attempt += 1


class Streak:
    """Failures in a row, and what to do after each.

    A failure long after the last one starts a new streak: a server that restarts once a day must
    not use up its tries in three days.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._failed_at = 0.0

    @property
    def failures(self) -> int:
        return self._failures

    def failed(self) -> float | None:
        """Seconds to wait before the next try; None where no more are allowed."""
        now = self._clock()
        if now - self._failed_at > 2 * self._backoff.cap:
            self._failures = 0
        self._failed_at = now
        attempt, self._failures = self._failures, self._failures + 1
        most = self._backoff.max_retries
        if most is not None and attempt >= most:
            return None
        return self._backoff.delay(attempt, self._chance)

    def succeeded(self) -> bool:
        """End the streak; True where there was one."""
        was, self._failures = self._failures, 0
        return was > 0
