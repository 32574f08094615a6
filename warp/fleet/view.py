"""The fleet as it stands at one moment: every unit, who holds it, how far it has got.  Pure.

Lag is told from markers and from where the log ends now, so a stopped worker's lag grows here
although nobody measures it there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from warp.fleet.news import News
from warp.model import SHARED, Headroom, LeasedUnit, Marker, Phase, TableId, UnitKind, WorkerState

# Where a stream's log ends and whether the stream has got there, by schema.
Reached = Mapping[str, bool]

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class UnitView:
    """One unit of work, from its marker and its lease."""

    id: str
    kind: UnitKind
    schema: str
    tables: tuple[TableId, ...]
    phase: Phase
    state: str = "absent"  # in the ledger: due | later | leased | dead
    owner: str = ""
    fence: int = 0
    epoch: int = 0
    rows: int = 0  # committed since its marker was made
    expected: int = 0  # of a chunk: about how many rows it has
    batch: int = 0
    slot: float | None = None  # of a schedule, run last
    lag_seconds: float = 0.0
    position: str | None = None
    updated_at: float = 0.0
    tries: int = 0  # failures in a row
    expires_in: float = 0.0  # seconds until the lease ends, or a waiting unit is due
    headroom: Headroom | None = None  # what the source still keeps behind its position


@dataclass(frozen=True, slots=True)
class TableView:
    """One table, from its own marker and those of its chunks."""

    table: TableId
    schema: str
    phase: Phase
    epoch: int = 0
    quarantined: int = 0
    deferred: int = 0
    chunks_done: int = 0
    chunks: int = 0
    rows: int = 0  # read by the snapshot so far
    expected: int = 0  # about how many it will read
    verified_at: float | None = None  # when it was last compared with its source, row by row
    differences: int | None = None  # that were found then


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker process, as the ledger knows it."""

    id: str
    slots: int  # 0 while it drains
    held: int
    alive_for: float  # seconds until it counts as dead
    heard_ago: float | None = None  # seconds since its last heartbeat
    memory: int | None = None  # resident bytes; None where it does not tell

    @property
    def draining(self) -> bool:
        return self.slots == 0


@dataclass(frozen=True, slots=True)
class FleetView:
    """One look at everything."""

    units: tuple[UnitView, ...] = ()
    tables: tuple[TableView, ...] = ()
    workers: tuple[WorkerView, ...] = ()
    caught_up: bool = False
    news: tuple[News, ...] = ()  # the latest first
    as_of: float = 0.0


def lag_of(marker: Marker, now: float, *, reached: bool) -> float:
    """Seconds between the commit of what was delivered last and now; 0 when all is delivered."""
    if reached:
        return 0.0
    at = marker.position.committed_at if marker.position else 0.0
    return max(0.0, now - (at or marker.updated_at)) if at or marker.updated_at else 0.0


def fleet_of(
    markers: Sequence[Marker],
    ledger: Iterable[LeasedUnit],
    workers: Iterable[WorkerState],
    *,
    schemas: Sequence[str],
    reached: Reached,
    quarantined: Mapping[TableId, int],
    deferred: Mapping[TableId, int],
    left_out: Collection[str] = (),
    headroom: Mapping[str, Headroom] = _NOTHING,
    verified: Mapping[TableId, tuple[float, int]] = _NOTHING,
    news: Sequence[News] = (),
    lease_ttl: float | None = None,
    now: float,
) -> FleetView:
    """The view, from what markers, ledger and sources said.

    `left_out` are units of tables that are not selected any more: shown, and not waited for.
    `headroom` is by unit, `verified` by table: when, and how many differences were found.
    """
    leases = {entry.unit.id: entry for entry in ledger}
    carried = _tables_by_schema(markers, schemas)
    shown = (*schemas, SHARED)
    units = [
        _unit(marker, leases.get(marker.unit.id), carried, reached, headroom, now)
        for marker in markers
        if marker.unit.kind is not UnitKind.TABLE and marker.unit.schema in shown
    ]
    return FleetView(
        units=tuple(sorted(units, key=lambda unit: unit.id)),
        tables=tuple(_tables(markers, schemas, quarantined, deferred, verified)),
        workers=tuple(_worker(worker, lease_ttl) for worker in workers),
        caught_up=is_caught_up([m for m in markers if m.unit.id not in left_out], schemas, reached),
        news=tuple(news),
        as_of=now,
    )


def is_caught_up(markers: Sequence[Marker], schemas: Sequence[str], reached: Reached) -> bool:
    """Is every table complete and every stream at the end its log had when it was asked?"""
    if any(not reached.get(schema, False) for schema in schemas):
        return False
    return all(
        marker.phase is Phase.STREAMING
        for marker in markers
        if marker.unit.kind is UnitKind.TABLE and marker.unit.schema in schemas
    )


def _unit(
    marker: Marker,
    lease: LeasedUnit | None,
    carried: Mapping[str, Sequence[TableId]],
    reached: Reached,
    headroom: Mapping[str, Headroom],
    now: float,
) -> UnitView:
    unit = marker.unit
    follows_log = unit.kind is UnitKind.STREAM
    at_end = reached.get(unit.schema, False) if follows_log else marker.phase is not Phase.PLANNED
    tables = (unit.table,) if unit.table else tuple(sorted(carried.get(unit.schema, ())))
    return UnitView(
        id=unit.id,
        kind=unit.kind,
        schema=unit.schema,
        tables=tables,
        phase=marker.phase,
        state=lease.state if lease else "absent",
        owner=lease.owner if lease else "",
        fence=marker.fence,
        epoch=marker.epoch,
        rows=marker.rows,
        expected=unit.chunk.rows if unit.chunk else 0,
        batch=marker.batch,
        slot=marker.slot,
        lag_seconds=round(lag_of(marker, now, reached=at_end), 3),
        position=marker.position.token if marker.position else None,
        updated_at=marker.updated_at,
        tries=lease.tries if lease else 0,
        expires_in=lease.expires_in if lease else 0.0,
        headroom=headroom.get(unit.id),
    )


def _tables(
    markers: Sequence[Marker],
    schemas: Sequence[str],
    quarantined: Mapping[TableId, int],
    deferred: Mapping[TableId, int],
    verified: Mapping[TableId, tuple[float, int]],
) -> Iterable[TableView]:
    chunks: dict[tuple[str, TableId | None], list[Marker]] = defaultdict(list)
    for marker in markers:
        if marker.unit.kind is UnitKind.CHUNK:
            chunks[marker.unit.schema, marker.unit.table].append(marker)
    for marker in markers:
        table, schema = marker.unit.table, marker.unit.schema
        if marker.unit.kind is not UnitKind.TABLE or schema not in schemas or table is None:
            continue
        its = chunks[schema, table]
        when, differences = verified.get(table, (None, None))
        yield TableView(
            table=table,
            schema=schema,
            phase=marker.phase,
            epoch=marker.epoch,
            quarantined=quarantined.get(table, 0),
            deferred=deferred.get(table, 0),
            chunks_done=sum(chunk.phase is Phase.DONE for chunk in its),
            chunks=len(its),
            rows=sum(chunk.rows for chunk in its),
            expected=sum(chunk.unit.chunk.rows for chunk in its if chunk.unit.chunk),
            verified_at=when,
            differences=differences,
        )


def _worker(worker: WorkerState, lease_ttl: float | None) -> WorkerView:
    # It says with each heartbeat how long it is to count as alive.
    ago = None if lease_ttl is None else max(0.0, lease_ttl - worker.alive_for)
    return WorkerView(
        worker.id, worker.slots, worker.held, worker.alive_for, ago, worker.memory or None
    )


def _tables_by_schema(
    markers: Sequence[Marker], schemas: Sequence[str]
) -> Mapping[str, Sequence[TableId]]:
    """Of the schemas, and under SHARED those that a stream of several carries."""
    polled = {(m.unit.schema, m.unit.table) for m in markers if m.unit.kind is UnitKind.POLL}
    tables: dict[str, list[TableId]] = defaultdict(list)
    for marker in markers:
        unit = marker.unit
        if unit.kind is UnitKind.TABLE and unit.schema in schemas and unit.table is not None:
            tables[unit.schema].append(unit.table)
            if (unit.schema, unit.table) not in polled:
                tables[SHARED].append(unit.table)
    return tables
