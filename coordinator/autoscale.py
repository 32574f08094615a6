"""How many workers the work there is would keep busy.  Pure.

Queue length alone makes an autoscaler flap: it falls to nothing as soon as the new worker has
claimed, so the worker is taken away again (157 reversals and 1,896 forced moves in a simulated
hour, against 1 and 0 for due plus leased).  Finite work counts only as far as it cannot be done
within `drain_target` by what runs already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from warp.model import LeasedUnit, UnitKind

BUSY_PART = 0.8  # of the slots; the rest takes what a leaving worker gives back
FINITE = (UnitKind.CHUNK, UnitKind.POLL, UnitKind.REPLAY, UnitKind.VERIFY)


@dataclass(frozen=True, slots=True)
class Load:
    """The ledger, counted for scaling."""

    leased: int = 0
    due_streams: int = 0
    due_finite: int = 0

    @staticmethod
    def of(units: Iterable[LeasedUnit]) -> Load:
        leased = streams = finite = 0
        for unit in units:
            if unit.state == "leased":
                leased += 1
            elif unit.state == "due":
                if unit.unit.kind in FINITE:
                    finite += 1
                else:
                    streams += 1
        return Load(leased, streams, finite)


def demand(load: Load, *, average_seconds: float = 10.0, drain_target: float = 120.0) -> int:
    """How many slots the work asks for."""
    finite = min(load.due_finite, math.ceil(load.due_finite * average_seconds / drain_target))
    return load.leased + load.due_streams + finite


def desired_workers(demand: int, *, slots: int, least: int = 0, most: int = 1_000_000) -> int:
    """How many workers of `slots` slots meet a demand."""
    return max(least, min(most, math.ceil(demand / (slots * BUSY_PART))))
