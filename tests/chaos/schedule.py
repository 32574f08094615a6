"""When which fault strikes, and for how long: all of it drawn from a seed before the first one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LULL: Final = (0.3, 2.0)  # seconds between two faults: shorter and longer than a takeover
LASTS: Final = (1.0, 5.0)  # seconds, of a fault that has an end: shorter and longer than a lease


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault.  `luck` decides what it strikes, where there is a choice."""

    number: int
    at: float  # seconds after the first moment
    fault: str
    lasts: float
    luck: float  # in [0, 1)


def schedule(
    seed: int,
    seconds: float,
    faults: Sequence[str],
    *,
    lull: tuple[float, float] = LULL,
    lasts: tuple[float, float] = LASTS,
) -> list[Strike]:
    """Every kind of fault once in a random order, and again until the time is over."""
    chosen = random.Random(seed)
    strikes: list[Strike] = []
    waiting: list[str] = []
    at = 0.0
    while at < seconds or len(strikes) < len(faults):
        waiting = waiting or chosen.sample(list(faults), len(faults))
        strike = Strike(len(strikes), at, waiting.pop(), chosen.uniform(*lasts), chosen.random())
        strikes.append(strike)
        at += chosen.uniform(*lull)
    return strikes
