"""Whether a destination did to its rows what was done at the source: no more, no less, in order.

Pure: from the history of the source, from what triggers saw in the destination, from the rows of
both sides in the end and from the quarantine.  At every position that the stream's marker ever
stood at, each row of the destination must be at least as new as the history says of that place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from history import Event, Kind, Outcome

RowKey = tuple[str, str]  # table and key
Cells = Mapping[str, Any]

STREAM: Final = "stream:"
CHUNK: Final = "chunk:"
_ENDLESS: Final = 1 << 200


class Fault(StrEnum):
    LOST = "an event that is nowhere"
    TWICE = "an event applied twice"
    REORDERED = "a row that went back to an older event"
    WRONG = "a row with values that its event did not write"
    INVENTED = "a row that no event wrote"
    LEFT_OVER = "a row that outlived its deletion"
    NOT_DELETED = "a deletion that no event asked for"
    ALONE = "a row that changed without its marker"
    UNACCOUNTED = "a refused event that is in no quarantine"
    NO_CAUSE = "a row set aside without a cause"
    ASIDE_TWICE = "a row set aside twice"
    HISTORY = "a source that is not what its history says"


@dataclass(frozen=True, slots=True)
class Accusation:
    fault: Fault
    row: RowKey
    proof: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.row[0]} {self.row[1]!r}: {self.proof}"


@dataclass(frozen=True, slots=True)
class Applied:
    """A row that a transaction of the destination wrote or deleted; `n` orders them."""

    n: int
    tx: int
    table: str
    key: str
    version: int
    stamp: int = 0
    total: int = 0
    name: str = ""
    deleted: bool = False
    at: float = 0.0  # Unix seconds


@dataclass(frozen=True, slots=True)
class Advance:
    """A transaction that moved a unit's marker."""

    n: int  # before those of the rows of the same transaction
    tx: int
    unit: str
    onward: bool = True  # False in the middle of a transaction of the source
    # Of a stream, in the numbers of `Event.place`:
    before: int = 0
    place: int = 0  # everything up to here is done
    reached: int = 0  # nothing beyond is


@dataclass(frozen=True, slots=True)
class Aside:
    """A row in quarantine."""

    table: str
    key: str
    stamp: int
    version: int
    unit: str


@dataclass(frozen=True, slots=True)
class Evidence:
    applied: Sequence[Applied]
    advances: Sequence[Advance]
    aside: Sequence[Aside]
    source: Mapping[RowKey, Cells]  # the rows in the end; each has its `stamp`
    destination: Mapping[RowKey, Cells]


def accuse(history: Sequence[Event], evidence: Evidence, *, rereads: bool) -> list[Accusation]:
    """Everything that speaks against the destination.

    With `rereads` the source's log names the row that changed, and the row is read later: what is
    applied may be newer than its event, or gone by then.
    """
    case = _Case(history, evidence, rereads)
    case.follow()
    case.look_aside()
    case.compare()
    return case.accusations


@dataclass
class _Case:
    history: Sequence[Event]
    evidence: Evidence
    rereads: bool
    accusations: list[Accusation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._of: dict[RowKey, list[Event]] = defaultdict(list)
        for event in sorted(self.history, key=lambda e: e.stamp):
            self._of[event.row].append(event)
        self._stamps = {row: [e.stamp for e in events] for row, events in self._of.items()}
        self._aside: dict[RowKey, set[int]] = defaultdict(set)
        for row in self.evidence.aside:
            self._aside[row.table, row.key].add(row.stamp)
        self._unit_of = {advance.tx: advance for advance in self.evidence.advances}
        self._state: dict[RowKey, int] = {}  # the stamp that a row has now; 0: there is none
        self._by_chunk: set[RowKey] = set()  # whose present state a chunk brought
        self._newest: dict[RowKey, int] = {}  # the newest stamp that the stream brought
        self._landed: dict[tuple[RowKey, int], int] = {}  # row and version -> who brought it
        self._needed: dict[RowKey, Event] = {}  # the last event that must be in the destination
        self._told: set[tuple[RowKey, int]] = set()

    def _say(self, fault: Fault, row: RowKey, proof: str) -> None:
        self.accusations.append(Accusation(fault, row, proof))

    def _event(self, row: RowKey, stamp: int) -> Event | None:
        """The event, unless it never took place."""
        stamps = self._stamps.get(row, [])
        at = bisect_left(stamps, stamp)
        if at == len(stamps) or stamps[at] != stamp:
            return None
        event = self._of[row][at]
        return None if event.outcome is Outcome.UNDONE else event

    def _later(self, row: RowKey, stamp: int) -> Iterator[Event]:
        """The row's events behind this one that may have taken place."""
        at = bisect_left(self._stamps.get(row, []), stamp + 1)
        return (e for e in self._of.get(row, [])[at:] if e.outcome is not Outcome.UNDONE)

    # -- what the destination did, transaction by transaction

    def follow(self) -> None:
        applied = sorted(self.evidence.applied, key=lambda a: a.n)
        steps = sorted(
            (a for a in self.evidence.advances if a.unit.startswith(STREAM)), key=lambda a: a.n
        )
        start = steps[0].before if steps else _ENDLESS
        certain = [e for e in self.history if e.outcome is Outcome.SURE and e.place is not None]
        certain = [e for e in certain if (e.place or 0) > start]
        certain.sort(key=lambda e: e.place or 0)
        done = passed = 0
        touched: set[RowKey] = set()
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            end = after.n if after else _ENDLESS
            while done < len(applied) and applied[done].n < end:
                self._apply(applied[done])
                if applied[done].tx == step.tx:
                    touched.add((applied[done].table, applied[done].key))
                done += 1
            if not step.onward:
                continue
            while passed < len(certain) and (certain[passed].place or 0) <= step.place:
                event = certain[passed]
                touched.add(event.row)
                if event.stamp > self._stamp_needed(event.row):
                    self._needed[event.row] = event
                passed += 1
            for row in touched:
                self._check(row, step)
            touched.clear()
        for entry in applied[done:]:
            self._apply(entry)

    def _stamp_needed(self, row: RowKey) -> int:
        needed = self._needed.get(row)
        return needed.stamp if needed else 0

    def _apply(self, entry: Applied) -> None:
        row = entry.table, entry.key
        by = self._unit_of.get(entry.tx)
        state = self._state.get(row, 0)
        if entry.deleted:
            if state and not any(
                not e.alive for e in self._later(row, self._stamp_needed(row) - 1)
            ):
                self._say(Fault.NOT_DELETED, row, f"stamp {state} was there")
            self._state[row] = 0
            return
        event = self._event(row, entry.stamp)
        if event is None or not event.alive:
            self._say(Fault.INVENTED, row, f"stamp {entry.stamp} in transaction {entry.tx}")
        elif (event.total, event.name) != (entry.total, entry.name):
            proof = f"stamp {entry.stamp}: {(entry.total, entry.name)} for {event}"
            self._say(Fault.WRONG, row, proof)
        if by is None:
            if entry.stamp != state:
                self._say(Fault.ALONE, row, f"from stamp {state} to {entry.stamp}")
        elif by.unit.startswith(STREAM):
            self._stream_brought(row, entry, by)
        elif not self.rereads and entry.stamp < state and row not in self._by_chunk:
            self._say(Fault.REORDERED, row, f"a chunk, from stamp {state} to {entry.stamp}")
        self._state[row] = entry.stamp
        if by is not None and by.unit.startswith(CHUNK):
            self._by_chunk.add(row)
        else:
            self._by_chunk.discard(row)

    def _stream_brought(self, row: RowKey, entry: Applied, by: Advance) -> None:
        if by.onward:
            before = self._landed.setdefault((row, entry.version), entry.tx)
            if before != entry.tx:
                proof = f"version {entry.version} in transactions {before} and {entry.tx}"
                self._say(Fault.TWICE, row, proof)
        newest = self._newest.get(row, 0)
        if not self.rereads and entry.stamp < newest:
            self._say(Fault.REORDERED, row, f"from stamp {newest} to {entry.stamp}")
        self._newest[row] = max(newest, entry.stamp)

    def _check(self, row: RowKey, step: Advance) -> None:
        """Is the row as new as the marker says that it is?"""
        needed = self._needed.get(row)
        state = self._state.get(row, 0)
        if needed is None or state >= needed.stamp or (row, needed.stamp) in self._told:
            return
        if not needed.alive and not state:
            return
        for later in (needed, *self._later(row, needed.stamp)):
            within = later.after < step.reached
            if (self.rereads or within) and later.stamp in self._aside[row]:
                return
            # A row that is gone when it is read again is left to its deletion, which follows.  Of a
            # part that is where the destination lacks its row, or something of it in quarantine.
            waits = any(stamp < needed.stamp for stamp in self._aside[row])
            left = needed.kind is Kind.CHANGE and (self.rereads or not state or waits)
            if not later.alive and later is not needed and ((within and not state) or left):
                return
        self._told.add((row, needed.stamp))
        fault = Fault.UNACCOUNTED if needed.refused else Fault.LOST
        there = f"stamp {state} is there" if state else "the row is not there"
        self._say(fault, row, f"the marker is at {step.place}, {there}, expected {needed}")

    # -- the quarantine

    def look_aside(self) -> None:
        seen: set[tuple[RowKey, int]] = set()
        for aside in self.evidence.aside:
            row = aside.table, aside.key
            event = self._event(row, aside.stamp)
            if event is None:
                self._say(Fault.INVENTED, row, f"stamp {aside.stamp} in quarantine")
            elif not event.refused:
                self._say(Fault.NO_CAUSE, row, f"{event}")
            if aside.unit.startswith(STREAM):
                if (row, aside.version) in seen:
                    self._say(Fault.ASIDE_TWICE, row, f"version {aside.version}")
                seen.add((row, aside.version))

    # -- both sides in the end

    def compare(self) -> None:
        source, destination = self.evidence.source, self.evidence.destination
        for row in sorted({*source, *destination, *self._of}):
            there, here = source.get(row), destination.get(row)
            self._check_source(row, there)
            event = self._event(row, int(there["stamp"])) if there else None
            if event and event.refused:
                if event.stamp not in self._aside[row] and (row, event.stamp) not in self._told:
                    self._say(Fault.UNACCOUNTED, row, f"{event}")
            elif there is None and here is not None:
                self._say(Fault.LEFT_OVER, row, f"stamp {here['stamp']} in the end")
            elif there is not None and (here is None or here["stamp"] < there["stamp"]):
                older = f"stamp {here['stamp']}" if here else "nothing"
                self._say(Fault.LOST, row, f"{older} in the end, expected {event or there}")
            elif there is not None and here is not None and there != here:
                names = sorted({n for n in {*there, *here} if there.get(n) != here.get(n)})
                told = {n: (there.get(n), here.get(n)) for n in names}
                self._say(Fault.WRONG, row, f"(source, destination) {str(told)[:300]}")

    def _check_source(self, row: RowKey, there: Cells | None) -> None:
        """The history is proof of nothing where the source has gone another way."""
        events = [e for e in self._of.get(row, []) if e.outcome is not Outcome.UNDONE]
        sure = [e for e in events if e.outcome is Outcome.SURE]
        oldest = sure[-1].stamp if sure else 0
        may_be = {e.stamp if e.alive else 0 for e in events if e.stamp >= oldest}
        if not sure:
            may_be.add(0)
        stamp = int(there["stamp"]) if there else 0
        if stamp not in may_be:
            self._say(Fault.HISTORY, row, f"stamp {stamp} in the end, expected one of {may_be}")
