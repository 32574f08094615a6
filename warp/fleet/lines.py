"""What a person sees: one line for each stream, poll and replay, and one for each table's snapshot.

A snapshot's chunks come by the thousand, and so do the ranges of a verification: all of one table
are one line, with all their owners.  Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from warp.fleet.trends import Counters, Trends
from warp.fleet.view import FleetView, TableView, UnitView
from warp.model import SHARED, Headroom, Phase, TableId, UnitKind

LATE: Final = 30.0  # seconds; a healthy stream moves its marker at least every ten

SNAPSHOT: Final = "snapshot"  # the kind of a line that stands for a table's chunks
# Kinds of units that are parts of one table's work, and what a line of all of them is called.
FOLDED: Final = {"chunk": SNAPSHOT, "verify": "verify"}


class Health(StrEnum):
    """How a line is, the worst first."""

    FAILED = "failed"  # nothing more happens until a person acts
    LATE = "late"
    PAUSED = "paused"
    WAITING = "waiting"  # for a worker
    WELL = "well"


@dataclass(frozen=True, slots=True)
class Line:
    """A unit, or the parts of one table's snapshot or verification together."""

    key: str  # the same in every look
    kind: str
    schema: str
    tables: tuple[TableId, ...]
    phase: str
    state: str
    owners: tuple[str, ...] = ()
    fence: int = 0
    rows: int = 0
    expected: int = 0
    progress: float | None = None  # of a snapshot, 0 to 1
    lag: float | None = None
    headroom: Headroom | None = None
    quarantined: int = 0
    deferred: int = 0
    verified_at: float | None = None  # the oldest of its tables; None where one never was
    differences: int | None = None
    position: str | None = None
    slot: float | None = None
    tries: int = 0
    units: tuple[UnitView, ...] = ()
    # What only several looks can tell.
    rate: float | None = None  # rows per second
    eta: float | None = None  # seconds until a snapshot is done
    history: tuple[float, ...] = ()  # rows per second between looks, the oldest first

    @property
    def health(self) -> Health:
        if self.phase == Phase.FAILED or self.state == "dead":
            return Health.FAILED
        if self.phase == Phase.PAUSED:
            return Health.PAUSED
        if self.lag is not None and self.lag > LATE and self.kind == UnitKind.STREAM:
            return Health.LATE
        if self.state in ("due", "absent"):
            return Health.WAITING
        return Health.WELL


def lines_of(fleet: FleetView) -> list[Line]:
    """All lines, by name; finished snapshots and replays are none."""
    facts: dict[TableId, list[TableView]] = defaultdict(list)
    for fact in fleet.tables:
        facts[fact.table].append(fact)
    parts: dict[tuple[str, str, TableId], list[UnitView]] = defaultdict(list)
    lines = []
    for unit in fleet.units:
        if unit.kind.value in FOLDED:
            parts[FOLDED[unit.kind.value], unit.schema, unit.tables[0]].append(unit)
        elif unit.phase is not Phase.DONE:
            lines.append(_of_unit(unit, _about(unit.schema, unit.tables, facts)))
    for (kind, schema, table), its in parts.items():
        if any(part.phase is not Phase.DONE for part in its):
            lines.append(_of_parts(kind, schema, table, its, _about(schema, (table,), facts)))
    return sorted(lines, key=lambda line: line.key)


def counters(lines: Iterable[Line]) -> Counters:
    """What trends are made of."""
    return {line.key: (line.rows, line.progress) for line in lines}


def with_trends(lines: Iterable[Line], trends: Trends) -> list[Line]:
    return [
        replace(
            line,
            rate=trends.rate(line.key),
            eta=trends.eta(line.key),
            history=trends.history(line.key),
        )
        for line in lines
    ]


def _about(
    schema: str, tables: Iterable[TableId], facts: Mapping[TableId, Sequence[TableView]]
) -> list[TableView]:
    """A table may be in two schemas; the stream of several carries it for whichever has it."""
    return [
        fact for table in tables for fact in facts.get(table, ()) if schema in (fact.schema, SHARED)
    ]


def _of_unit(unit: UnitView, tables: Sequence[TableView]) -> Line:
    line = Line(
        key=unit.id,
        kind=unit.kind.value,
        schema=unit.schema,
        tables=unit.tables,
        phase=unit.phase.value,
        state=unit.state,
        owners=(unit.owner,) if unit.owner else (),
        fence=unit.fence,
        rows=unit.rows,
        lag=unit.lag_seconds,
        headroom=unit.headroom,
        position=unit.position,
        slot=unit.slot,
        tries=unit.tries,
        units=(unit,),
    )
    return _with_facts(line, tables)


def _of_parts(
    kind: str,
    schema: str,
    table: TableId,
    parts: Sequence[UnitView],
    facts: Sequence[TableView],
) -> Line:
    leased = [part for part in parts if part.state == "leased"]
    open_ = [part for part in parts if part.phase is not Phase.DONE]
    states = [part.state for part in open_]
    failed = any(part.phase is Phase.FAILED or part.state == "dead" for part in open_)
    paused = all(part.phase is Phase.PAUSED for part in open_)
    line = Line(
        key=f"{kind}:{schema}:{table}",
        kind=kind,
        schema=schema,
        tables=(table,),
        phase=Phase.FAILED.value if failed else Phase.PAUSED.value if paused else kind,
        state="leased" if leased else min(states, key=("due", "later", "dead", "absent").index),
        owners=tuple(sorted({part.owner for part in leased if part.owner})),
        fence=max(part.fence for part in parts),
        rows=sum(part.rows for part in parts),
        expected=sum(part.expected for part in parts),
        progress=_progress(parts),
        tries=max(part.tries for part in parts),
        units=tuple(parts),
    )
    return _with_facts(line, facts)


def _progress(parts: Iterable[UnitView]) -> float:
    """By rows where the source told how many a chunk has, else each chunk counts as much."""
    done = all_ = 0.0
    for part in parts:
        size = max(1, part.expected)
        all_ += size
        # An estimate: only its done-mark says that a chunk is done.
        done += size if part.phase is Phase.DONE else min(part.rows, 0.99 * size)
    return done / all_ if all_ else 0.0


def _with_facts(line: Line, tables: Sequence[TableView]) -> Line:
    times = [table.verified_at for table in tables]
    known = [time for time in times if time is not None]
    found = [table.differences for table in tables if table.differences is not None]
    return replace(
        line,
        quarantined=sum(table.quarantined for table in tables),
        deferred=sum(table.deferred for table in tables),
        verified_at=min(known) if known and len(known) == len(times) else None,
        differences=sum(found) if found else None,
    )


# ---------------------------------------------------------------- choosing among them

Key = Callable[[Line], Any]

ORDERS: Final[Mapping[str, Key]] = {
    "name": lambda line: line.key,
    "health": lambda line: (list(Health).index(line.health), -(line.lag or 0.0), line.key),
    "lag": lambda line: (-(line.lag or 0.0), line.key),
    "rows/s": lambda line: (-(line.rate or 0.0), line.key),
    "progress": lambda line: (line.progress is None, line.progress or 0.0, line.key),
    "quarantine": lambda line: (-line.quarantined - line.deferred, line.key),
}


def chosen(lines: Iterable[Line], *, order: str = "name", text: str = "") -> list[Line]:
    """In an order of ORDERS, and only those in which every word of `text` stands somewhere."""
    words = text.casefold().split()
    found = [line for line in lines if all(word in _said(line) for word in words)]
    return sorted(found, key=ORDERS[order])


def _said(line: Line) -> str:
    tables = " ".join(map(str, line.tables))
    parts = (line.key, line.phase, line.state, line.health, *line.owners, tables)
    return " ".join(parts).casefold()
