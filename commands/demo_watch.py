"""What the demo sees, looking from outside: both databases, and nothing the engine says of itself
but its markers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql
from pymongo.database import Database

from commands.demo_data import DATABASE, ROWS, LiveChanges, Trace

METADATA: Final = "cartridge_warp_metadata"


class Worker(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def running(self) -> bool: ...
    def is_owner(self, owner: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Unit:
    id: str
    kind: str
    owner: str
    fence: int
    phase: str


@dataclass(slots=True)
class TableState:
    """One line of the display."""

    name: str
    source_rows: int = 0
    destination_rows: int = 0
    written: int = 0
    per_second: float = 0.0
    phase: str = "waiting"


@dataclass(slots=True)
class Look:
    """What stands in both databases at one moment."""

    tables: list[TableState]
    units: list[Unit]
    workers: list[tuple[str, str, int]]  # label, state, units held
    lag: float | None
    worst_lag: float
    changes: int

    @property
    def stream_owner(self) -> str:
        return next((unit.owner for unit in self.units if unit.kind == "stream"), "")

    @property
    def settled(self) -> bool:
        return all(table.phase == "streaming" for table in self.tables)


@dataclass(frozen=True, slots=True)
class Takeover:
    """A unit of the killed worker, in the hands of another."""

    unit: str
    from_owner: str
    to_owner: str
    from_fence: int
    to_fence: int
    seconds: float


@dataclass(slots=True)
class Takeovers:
    """What the killed worker held, and who has it now.  Pure: it is told what was seen."""

    killed_at: float
    held: dict[str, Unit]
    seen: list[Takeover] = field(default_factory=list)

    def look(self, units: Sequence[Unit], now: float) -> list[Takeover]:
        """The takeovers that are new in this look."""
        new = []
        for unit in units:
            before = self.held.get(unit.id)
            if before is None or unit.owner == before.owner or unit.fence <= before.fence:
                continue
            del self.held[unit.id]
            new.append(
                Takeover(
                    unit.id,
                    *(before.owner, unit.owner),
                    *(before.fence, unit.fence),
                    seconds=now - self.killed_at,
                )
            )
        self.seen += new
        return new


class Watcher:
    """Looks at both databases from outside: row counts, markers, and how long changes take."""

    def __init__(
        self,
        source: Database[dict[str, Any]],
        warehouse: psycopg.Connection[Any],
        workers: Sequence[Worker],
        changes: LiveChanges,
    ) -> None:
        self._source = source
        self._warehouse = warehouse
        self._workers = workers
        self._tables = {name: TableState(name) for name in ROWS}
        self._looked = time.monotonic()
        self._owners: dict[str, str] = {}
        self._lags: list[float] = []
        self.changes = changes

    def look(self) -> Look:
        units = self._units()
        phases = {u.id.rpartition(".")[2]: u.phase for u in units if u.kind == "table"}
        self._count(phases)
        lag = self._lag()
        held = Counter(
            worker.label
            for worker in self._workers
            for unit in units
            if self.holds(worker.label, unit)
        )
        return Look(
            tables=list(self._tables.values()),
            units=units,
            workers=[
                (w.label, "running" if w.running else "killed", held[w.label])
                for w in self._workers
            ],
            lag=lag,
            worst_lag=max(self._lags, default=0.0),
            changes=self.changes.made.total,
        )

    def label(self, owner: str) -> str:
        """The name on the screen of a worker's id; remembered, since the dead have no pid."""
        for worker in self._workers:
            if owner and owner not in self._owners and worker.is_owner(owner):
                self._owners[owner] = worker.label
        return self._owners.get(owner, owner)

    def holds(self, label: str, unit: Unit) -> bool:
        """Is the unit unfinished, and this worker the last that had it?"""
        return unit.phase not in ("done", "failed") and self.label(unit.owner) == label

    def arrived(self, trace: Trace) -> bool:
        """Is this insert visible in the warehouse?"""
        return bool(self._arrivals([trace.key]))

    def errors(self) -> list[str]:
        """The last lines of error_log, newest first."""
        rows = self._warehouse.execute(
            sql.SQL("select unit, code, message from {} order by id desc limit 3").format(
                sql.Identifier(METADATA, "error_log")
            )
        ).fetchall()
        return [f"{unit}: {code} {message}" for unit, code, message in rows]

    def _units(self) -> list[Unit]:
        try:
            rows = self._warehouse.execute(
                sql.SQL("select unit, kind, owner, fence, phase from {}").format(
                    sql.Identifier(METADATA, "sync_markers")
                )
            ).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return []  # nobody has started yet
        return [Unit(*row) for row in rows]

    def _count(self, phases: dict[str, str]) -> None:
        now = time.monotonic()
        elapsed = max(now - self._looked, 0.001)
        self._looked = now
        rows = self._warehouse.execute(
            "select relname, n_live_tup, n_tup_ins + n_tup_upd + n_tup_del"
            " from pg_stat_user_tables where schemaname = %s",
            (DATABASE,),
        ).fetchall()
        counted = {name: (live, written) for name, live, written in rows}
        for table in self._tables.values():
            table.source_rows = self._source[table.name].estimated_document_count()
            live, written = counted.get(table.name, (0, 0))
            rate = (written - table.written) / elapsed
            # PostgreSQL publishes these counts once a second; the mean of a few looks is true.
            table.per_second += (rate - table.per_second) * min(1.0, elapsed / 1.5)
            table.written = written
            table.destination_rows = live
            table.phase = phases.get(table.name, table.phase)

    def _lag(self) -> float | None:
        """Seconds from MongoDB's acknowledgement to PostgreSQL's commit, of the latest insert."""
        traces = self.changes.made.traces
        pending = {trace.key: trace for trace in list(traces)}
        if not pending:
            return None
        arrived = self._arrivals(list(pending))
        newest: float | None = None
        for trace in pending.values():
            committed = arrived.get(trace.key)
            if committed is None:
                continue
            newest = max(0.0, committed - trace.acknowledged_at)
            self._lags.append(newest)
            traces.remove(trace)
        waiting = [trace for trace in pending.values() if trace.key not in arrived]
        if waiting:
            oldest = time.time() - waiting[0].acknowledged_at
            return max(oldest, newest or 0.0)
        return newest

    def _arrivals(self, keys: list[str]) -> dict[str, float]:
        """Row -> when it was committed, of those that are there."""
        try:
            rows = self._warehouse.execute(
                sql.SQL(
                    "select _id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8"
                    " from {} where _id = any(%s)"
                ).format(sql.Identifier(DATABASE, "flights")),
                (keys,),
            ).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return {}
        # A row that vacuum has frozen has no commit time any more; it is old, and it is there.
        return {key: committed or 0.0 for key, committed in rows}
