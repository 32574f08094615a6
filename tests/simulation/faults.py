"""What goes wrong in a run, and when: drawn whole before it begins, so that it can be shortened."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    # These strike the next call that matches.
    CRASH_BEFORE = "its process dies before it is sent"
    CRASH_AFTER = "its process dies before it hears that it was done"
    LOST_REQUEST = "it never arrives"
    LOST_REPLY = "it is done, and its answer is lost"
    LATE = "it is done after the caller gave it up"
    SLOW = "its answer comes late"
    FREEZE_BEFORE = "its process is paused before it is sent"
    FREEZE_AFTER = "its process is paused before it hears the answer"
    DUPLICATE = "the source delivers a batch twice"
    # These come at their time.
    KILL = "is killed"
    FREEZE = "is paused"
    DRAIN = "is asked to stop"
    CUT = "cannot reach"
    WIPE = "Redis is wiped"
    CLOCK = "the clock of Redis is set"
    FAILOVER = "Redis fails over to a replica that lags"
    ADD_COLUMN = "the source adds a column"
    WIDEN_COLUMN = "the source widens a column"
    TRUNCATE = "the source truncates a table"
    FORGET = "the source forgets its log"
    RESYNC = "an operator asks for a resync"
    PAUSE = "an operator pauses a schema, and resumes it"
    REPLAY = "an operator replays the quarantine"


STRIKES: Final = (
    Fault.CRASH_BEFORE,
    Fault.CRASH_AFTER,
    Fault.LOST_REQUEST,
    Fault.LOST_REPLY,
    Fault.LATE,
    Fault.SLOW,
    Fault.FREEZE_BEFORE,
    Fault.FREEZE_AFTER,
)

WORKERS: Final = ("worker-1", "worker-2", "worker-3")
COORDINATORS: Final = ("coordinator-1", "coordinator-2")
EDGES: Final = ("ledger", "source", "destination")

# Calls worth striking; those named twice are struck twice as often.
_CALLS: Final = (
    *("destination.write_batch",) * 5,
    *("destination.write_chunk",) * 3,
    *("destination.open", "destination.update_marker") * 2,
    *("destination.get_schema", "destination.apply_schema_changes", "destination.missing"),
    *("metadata.markers", "metadata.register", "metadata.plan_snapshot", "metadata.settle"),
    *("metadata.begin_run", "metadata.end_run", "metadata.slot_taken", "metadata.follow"),
    *("metadata.resync", "metadata.mark", "metadata.add_errand"),
    *("source.read",) * 3,
    *("source.chunks", "source.position", "source.acknowledge", "source.look_up"),
    *("source.poll_start", "source.version", "source.get_schema"),
    *("ledger.claim", "ledger.renew", "ledger.release") * 2,
    *("ledger.refence", "ledger.ensure", "ledger.offer", "ledger.units", "ledger.incarnation"),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing that goes wrong."""

    at: float  # or the first call that matches after it
    fault: Fault
    who: str = ""  # a process; "" for any
    call: str = ""  # an edge and a method of it; or only an edge
    seconds: float = 0.0
    schema: str = ""

    def __str__(self) -> str:
        told = f"{self.at:6.2f} s  "
        if self.call and self.fault is not Fault.CUT:
            told += f"{self.call} of {self.who or 'anybody'}: {self.fault}"
        elif self.who:
            told += f"{self.who} {self.fault} {self.call}".rstrip()
        else:
            told += f"{self.fault} {self.schema}".rstrip()
        return told + (f" ({self.seconds:g} s)" if self.seconds else "")


def draw(chance: random.Random, *, until: float, ttl: float) -> tuple[Planned, ...]:
    """A schedule in which few sorts of faults come often, so that they meet each other."""
    sorts = chance.sample(list(Fault), chance.randint(3, 8))
    if not set(sorts) & set(STRIKES):
        sorts.append(chance.choice(STRIKES))
    planned = [
        _one(chance.choice(sorts), chance, until=until, ttl=ttl)
        for _ in range(chance.randint(4, 16))
    ]
    return tuple(sorted(planned, key=lambda one: one.at))


def _one(fault: Fault, chance: random.Random, *, until: float, ttl: float) -> Planned:
    at = round(chance.uniform(0.0, until), 2)
    long = chance.choice((0.3, 1.0, 1.5, 3.0)) * ttl
    match fault:
        case Fault.LATE | Fault.SLOW | Fault.FREEZE_BEFORE | Fault.FREEZE_AFTER:
            return Planned(at, fault, call=chance.choice(_CALLS), seconds=long)
        case Fault.CRASH_BEFORE | Fault.CRASH_AFTER | Fault.LOST_REQUEST | Fault.LOST_REPLY:
            return Planned(at, fault, call=chance.choice(_CALLS))
        case Fault.KILL | Fault.DRAIN:
            return Planned(at, fault, who=_whom(chance))
        case Fault.FREEZE:
            return Planned(at, fault, who=_whom(chance), seconds=long)
        case Fault.CUT:
            edge = chance.choice(EDGES)
            return Planned(at, fault, who=_whom(chance), call=edge, seconds=2 * long)
        case Fault.CLOCK | Fault.FAILOVER:
            seconds = chance.choice((-5.0, -0.5, 0.5, 5.0)) * ttl
            return Planned(at, fault, seconds=seconds)
        case Fault.RESYNC | Fault.REPLAY:
            return Planned(at, fault, schema=chance.choice(("shop", "crm", "shop orders")))
        case Fault.PAUSE:
            return Planned(at, fault, schema=chance.choice(("shop", "crm", "cron")), seconds=long)
        case _:
            return Planned(at, fault)


def _whom(chance: random.Random) -> str:
    return chance.choice((*WORKERS, *WORKERS, *COORDINATORS))


class Strikes:
    """Those that wait for the next call that matches."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self._waiting = [one for one in planned if one.fault in STRIKES]
        self._duplicates = [one for one in planned if one.fault is Fault.DUPLICATE]

    def on(self, call: str, who: str, now: float) -> Planned | None:
        for place, one in enumerate(self._waiting):
            if one.at > now:
                return None  # they are in the order of their times
            if one.call == call and one.who in ("", who):
                return self._waiting.pop(place)
        return None

    def delivers_twice(self, now: float) -> bool:
        if self._duplicates and self._duplicates[0].at <= now:
            self._duplicates.pop(0)
            return True
        return False
