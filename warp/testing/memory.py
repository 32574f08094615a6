"""A source and a destination in memory: the reference implementations, and the fakes of unit tests.

They keep every promise of `warp.interfaces` in the plainest code that can, so that a reader learns
from them what a promise means, and the contracts have something to be checked against.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from warp import replays, stored
from warp.diagnosis import refuse
from warp.errors import (
    DestinationRefused,
    FenceBehind,
    LeaseLost,
    PositionLost,
    SchemaMoved,
    SourceRefused,
)
from warp.interfaces import DestinationTraits, MetadataStore, SourceTraits
from warp.kinds import Relation, converter, relation
from warp.machine import Condition
from warp.model import (
    ABSENT,
    UNCHANGED,
    Aside,
    Change,
    ChangeBatch,
    Choice,
    Chunk,
    Column,
    CutShort,
    Diagnosis,
    ErrorLine,
    Finding,
    Headroom,
    Intent,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    SchemaChange,
    SetAside,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    UnitKind,
    WorkUnit,
    Written,
    schema_of,
)
from warp.streams import schema_of_table

_numbers = itertools.count()  # tell rows apart that have no key
Row = dict[str, Any]
Key = tuple[Any, ...]
_Event = tuple[int, TableId, Operation, Row]


# ---------------------------------------------------------------- source


@dataclass
class MemoryDatabase:
    """A database with a log.  `forget()` drops the log's past, as a rolled-over oplog does."""

    schemas: dict[TableId, TableSchema] = field(default_factory=dict)
    tables: dict[TableId, dict[Key, Row]] = field(default_factory=dict)
    log: list[_Event] = field(default_factory=list)
    version: int = 0
    first: int = 0  # changes up to this version are forgotten
    found: list[Diagnosis] = field(default_factory=list)  # what a look at it tells
    changed: Condition = field(default_factory=threading.Condition)
    clock: Callable[[], float] = time.time
    _within: bool = False  # a transaction

    def create(self, schema: TableSchema) -> None:
        self.schemas[schema.table] = schema
        self.tables[schema.table] = {}

    def put(self, table: TableId, **row: Any) -> None:
        key = self._key(table, row)
        operation = Operation.UPDATE if key in self.tables[table] else Operation.CREATE
        self.tables[table][key] = row
        self._append(table, operation, row)

    def patch(self, table: TableId, **cells: Any) -> None:
        """An update whose log line carries the key and these cells only."""
        row = self.tables[table][self._key(table, cells)] | cells
        self.tables[table][self._key(table, cells)] = row
        self._append(table, Operation.UPDATE, dict.fromkeys(row, UNCHANGED) | cells)

    def delete(self, table: TableId, **key: Any) -> None:
        self.tables[table].pop(self._key(table, key), None)
        self._append(table, Operation.DELETE, key)

    def truncate(self, table: TableId) -> None:
        self.tables[table].clear()
        self._append(table, Operation.TRUNCATE, {})

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes made in it are one place of the log, and carry one version."""
        self.version += 1
        self._within = True
        try:
            yield
        finally:
            self._within = False

    def forget(self) -> None:
        self.first = self.version
        self.log.clear()

    def _key(self, table: TableId, row: Row) -> Key:
        return tuple(row[name] for name in self.schemas[table].key)

    def _append(self, table: TableId, operation: Operation, row: Row) -> None:
        with self.changed:
            self.version += not self._within
            self.log.append((self.version, table, operation, row))
            self.changed.notify_all()


class MemorySourceOptions(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    database: Any = Field(default_factory=MemoryDatabase)


class MemorySource:
    """Reads a MemoryDatabase."""

    Options: ClassVar[type[BaseModel]] = MemorySourceOptions
    traits: ClassVar[SourceTraits] = SourceTraits(headroom=True)

    def __init__(self, options: MemorySourceOptions, selection: TableSelection) -> None:
        self.database: MemoryDatabase = options.database
        self.selection = selection
        self.acknowledged: Position | None = None
        self.closed = False

    def check(self) -> None:
        refuse(self.diagnose(), SourceRefused)

    def diagnose(self) -> list[Diagnosis]:
        return list(self.database.found)

    def tables(self) -> list[TableId]:
        return [t for t in self.database.tables if self.selection(t) is not None]

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        return {t: self.database.schemas[t] for t in tables if t in self.database.schemas}

    def position(self) -> Position:
        return self._at(self.database.version)

    def version(self) -> int:
        return self.database.version

    def look_up(self, rows: TableChanges) -> TableChanges:
        if self.traits.full_rows:
            raise SourceRefused("expected no update to be partial", place=str(rows.table))
        names = self.database.schemas[rows.table].key
        keys = zip(*(_cells_of(rows, name) for name in names), strict=True)
        have = self.database.tables[rows.table]
        version = self.database.version
        found = [(version, Operation.READ, have[key]) for key in keys if key in have]
        return self._changes(rows.table, found)

    def namespaces(self) -> list[str]:
        return sorted({table.namespace for table in self.database.tables})

    def reached(self, position: Position, goal: Position) -> bool:
        return int(position.token) >= int(goal.token)

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        keys = sorted(repr(key) for key in self.database.tables[table])
        edges = [None, *keys[rows::rows], None]
        return [
            Chunk(table, number, lower, upper, rows)
            for number, (lower, upper) in enumerate(itertools.pairwise(edges))
        ]

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        version = self.database.version
        rows = [
            row
            for key, row in sorted(self.database.tables[chunk.table].items(), key=repr)
            if (chunk.lower is None or repr(key) >= chunk.lower)
            and (chunk.upper is None or repr(key) < chunk.upper)
        ]
        start = 0
        while start < len(rows) or not start:
            settings = self.selection(chunk.table)  # for each batch: its size may follow the load
            size = settings.full_load_batch_size if settings else 1000
            part = [(version, Operation.READ, row) for row in rows[start : start + size]]
            changes = [self._changes(chunk.table, part)] if part else []
            yield ChangeBatch(changes, self._at(version), read_at=self.database.clock())
            start += size

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        after = int(position.token)
        begun = 0  # changes of the transaction behind it that were yielded already
        while not self.closed:
            if after < self.database.first:
                raise PositionLost(
                    f"the log begins at {self.database.first}, the marker stands at {after}; "
                    "run `cartridge-warp resync`"
                )
            with self.database.changed:
                if self.database.version == after:
                    self.database.changed.wait(idle)
                sizes = [s.write_batch_size for t in self.database.tables if (s := selection(t))]
                left = [e for e in self.database.log if e[0] > after][begun:]
                events = left[: min(sizes, default=100)]
            parts: dict[TableId, list[tuple[int, Operation, Row]]] = {}
            for version, table, operation, row in events:
                if selection(table) is not None:
                    parts.setdefault(table, []).append((version, operation, row))
            after, begun = _read_up_to(after, begun, events, left)
            changes = [self._changes(table, part) for table, part in parts.items()]
            yield ChangeBatch(changes, self._at(after), read_at=self.database.clock())

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        after = int(position.token) if position else 0
        version = self.database.version
        newest = {
            k: (v, o, r)
            for v, t, o, r in self.database.log
            if t == table and v > after
            for k in [self.database._key(t, r)]
        }
        part = [(v, Operation.READ, r) for v, o, r in newest.values() if o != Operation.DELETE]
        changes = [self._changes(table, part)] if part else []
        yield ChangeBatch(changes, self._at(version), read_at=self.database.clock())

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        return Position(str(self.database.version), fire_time)

    def acknowledge(self, position: Position) -> None:
        self.acknowledged = position

    def headroom(self, position: Position) -> Headroom:
        first, last = self.database.first, self.database.version
        left = int(position.token) - first
        ratio = max(0.0, left / max(1, last - first)) if last > first else 1.0
        return Headroom(f"changes from {first} to {last}", ratio, window=60.0, lost=left < 0)

    def close(self) -> None:
        self.closed = True

    def _at(self, version: int) -> Position:
        return Position(str(version), self.database.clock())

    def _changes(self, table: TableId, part: Sequence[tuple[int, Operation, Row]]) -> TableChanges:
        schema = self.database.schemas[table]
        return TableChanges(
            table,
            bytearray(operation for _, operation, _ in part),
            [version for version, _, _ in part],
            schema,
            [[row.get(c.name, ABSENT) for _, _, row in part] for c in schema.columns],
        )


class MemoryDeltas(MemorySource):
    """A MemoryDatabase whose log may carry parts of rows (`patch`)."""

    traits: ClassVar[SourceTraits] = SourceTraits(full_rows=False, headroom=True)


class MemoryOneLog(MemorySource):
    """A MemoryDatabase whose log is dear to follow twice, as a binlog is."""

    traits: ClassVar[SourceTraits] = SourceTraits(
        follows_twice=False, holds_log=True, headroom=True
    )


def _read_up_to(
    after: int, begun: int, events: Sequence[_Event], left: Sequence[_Event]
) -> tuple[int, int]:
    """The last transaction that was read whole, and how much of the next one was read."""
    if not events:
        return after, begun
    last = events[-1][0]
    if len(events) == len(left) or left[len(events)][0] != last:
        return last, 0
    whole = [version for version, *_ in events if version != last]
    cut = sum(version == last for version, *_ in events)
    return (whole[-1], cut) if whole else (after, begun + cut)


def _cells_of(rows: TableChanges, name: str) -> Sequence[Any]:
    if rows.schema is None:
        raise AssertionError("rows of a database have a schema")
    return rows.columns[rows.schema.names().index(name)]


# ---------------------------------------------------------------- destination


@dataclass
class _Stored:
    """One row of a table: its cells, its version, and whether it is a tombstone."""

    cells: Row
    version: int
    deleted: bool = False


@dataclass
class MemoryWarehouse:
    """What survives a destination connector: data and metadata, changed under one lock."""

    prepared: bool = False
    found: list[Diagnosis] = field(default_factory=list)  # what a look at it tells
    schemas: dict[TableId, TableSchema] = field(default_factory=dict)
    tables: dict[TableId, dict[Key, _Stored]] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)
    aside: list[SetAside] = field(default_factory=list)  # the quarantine; ids are its places
    deferred: Counter[TableId] = field(default_factory=Counter)  # always empty, but for a test
    audit: list[tuple[TableId, Key, Row, int]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    errands: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: Callable[[], float] = time.time

    @property
    def quarantine(self) -> list[QuarantinedRow]:
        """What was set aside, whatever has become of it."""
        return [aside.row for aside in self.aside]

    def rows(self, table: TableId) -> list[Row]:
        """The rows a reader sees."""
        with self.lock:  # tests look while others write
            return [dict(r.cells) for r in self.tables.get(table, {}).values() if not r.deleted]

    def undecided(self, table: TableId) -> set[str]:
        """The keys, as the quarantine writes them, of which something may still land."""
        open_ = (Aside.WAITING, Aside.REPLAYING)
        return {a.row.key for a in self.aside if a.state in open_ and a.row.table == table}

    def text_of(self, table: TableId, key: Key) -> str:
        """As the quarantine writes it."""
        schema = self.schemas[table]
        return stored.dump([c for name in schema.key if (c := schema.column(name))], key)

    def supersede(self, table: TableId, why: str, older: Callable[[SetAside], bool]) -> None:
        """Rows of the quarantine that something newer overrules will not land any more."""
        for place, aside in enumerate(self.aside):
            undecided = aside.state in (Aside.WAITING, Aside.REPLAYING)
            if undecided and aside.row.table == table and older(aside):
                self.aside[place] = replace(aside, state=Aside.SUPERSEDED, last_error=why)

    def supersede_deleted(self, table: TableId, key: Key, version: int) -> None:
        """A row that never landed leaves no line in the audit when it is deleted."""
        text = self.text_of(table, key)
        self.supersede(
            table,
            f"the row was deleted at version {version}",
            lambda aside: aside.row.key == text and aside.row.version <= version,
        )


def _copied(rows: Mapping[Key, _Stored]) -> dict[Key, _Stored]:
    """What a transaction goes back to; cells are replaced as a whole, never changed."""
    return {key: _Stored(row.cells, row.version, row.deleted) for key, row in rows.items()}


class MemoryDestinationOptions(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    warehouse: Any = Field(default_factory=MemoryWarehouse)


class MemoryDestination:
    """Writes to a MemoryWarehouse."""

    Options: ClassVar[type[BaseModel]] = MemoryDestinationOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        transactional_ddl=True, tells_cut_short=True
    )

    def __init__(self, options: MemoryDestinationOptions, selection: TableSelection) -> None:
        self.warehouse: MemoryWarehouse = options.warehouse
        self.selection = selection

    def check(self) -> None:
        refuse(self.diagnose(), DestinationRefused)

    def diagnose(self) -> list[Diagnosis]:
        return list(self.warehouse.found)

    def open(self, lease: Lease) -> Marker:
        with self.warehouse.lock:
            marker = self.warehouse.markers.get(lease.unit.id, Marker(lease.unit))
            if marker.fence >= lease.fence:
                raise FenceBehind(
                    f"fence {marker.fence} stands in the destination, ours is {lease.fence}",
                    found=marker.fence,
                    place=lease.unit.id,
                )
            marker = replace(marker, fence=lease.fence, owner=lease.owner)
            self.warehouse.markers[lease.unit.id] = marker
            if marker.phase is not Phase.DONE and self._is_read_whole(lease.unit):
                self._keep_if(lease.unit.table, lambda row: not row.deleted)
            return marker

    def _is_read_whole(self, unit: WorkUnit) -> bool:
        schema = self.warehouse.schemas.get(unit.table) if unit.table else None
        reads = unit.kind in (UnitKind.CHUNK, UnitKind.POLL)
        return reads and schema is not None and not schema.key

    def _keep_if(self, table: TableId | None, kept: Callable[[_Stored], bool]) -> None:
        if table is not None:
            rows = self.warehouse.tables[table]
            self.warehouse.tables[table] = {k: row for k, row in rows.items() if kept(row)}

    def _reveal(self, table: TableId | None) -> None:
        """A whole run of a table without a key takes the place of the last one."""
        self._keep_if(table, lambda row: row.deleted)
        for row in self.warehouse.tables[table].values() if table else ():
            row.deleted = False

    def _end_of_run(self, marker: Marker) -> None:
        if not self._is_read_whole(marker.unit):
            return
        if marker.phase is Phase.DONE:
            self._reveal(marker.unit.table)
        elif marker.phase is Phase.IDLE and marker.unit.table:
            hidden = [r for r in self.warehouse.tables[marker.unit.table].values() if r.deleted]
            if hidden:
                raise DestinationRefused(
                    "expected a table without a key to be read whole, found rows that were picked "
                    "out; capture it by a full comparison",
                    place=marker.unit.id,
                )

    def get_schema(self, table: TableId) -> TableSchema | None:
        return self.warehouse.schemas.get(table)

    def missing(self, changes: TableChanges) -> list[int]:
        with self.warehouse.lock:
            settings = self.selection(changes.table)
            unit = WorkUnit.of_table(settings.schema if settings else "", changes.table)
            state = self.warehouse.markers.get(unit.id)
            below = state.sweep_below if state and state.phase is Phase.SNAPSHOT else -1
            rows = self.warehouse.tables.get(changes.table, {})
            names = self.warehouse.schemas[changes.table].key
            keys = list(zip(*(_cells_of(changes, name) for name in names), strict=True))
            found = [rows.get(key) for key in keys]
            aside = self.warehouse.undecided(changes.table)
            text = [self.warehouse.text_of(changes.table, key) for key in keys if aside]
            return [
                place
                for place, row in enumerate(found)
                if row is None
                or row.deleted
                or row.version < below
                or (aside and text[place] in aside)
            ]

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        with self.warehouse.lock:
            for change in changes:
                self._apply(change)

    def _apply(self, change: SchemaChange) -> None:
        have = self.warehouse.schemas.get(change.table)
        if change.change == Change.CREATE_TABLE:
            if have is None and change.schema is not None:
                self.warehouse.schemas[change.table] = replace(change.schema, version=1)
                self.warehouse.tables[change.table] = {}
            return
        if (
            have is None
            or change.column is None
            or have.column(change.column.name) == change.column
        ):
            return
        columns: tuple[Column, ...]
        if change.change == Change.ADD_COLUMN:
            if have.column(change.column.name) is not None:
                return
            columns = (*have.columns, change.column)
        else:
            new = change.column
            old = next(c for c in have.columns if c.name == new.name)
            if change.change == Change.WIDEN_COLUMN and (
                relation(new.kind, old.kind) in (Relation.SAME, Relation.LOSSLESS)
            ):
                return
            for stored in self.warehouse.tables[change.table].values():
                cell = stored.cells.get(new.name)
                if cell is not None and cell is not ABSENT:
                    convert = converter(old.kind, new.kind)
                    stored.cells[new.name] = convert(cell) if convert else cell
            columns = tuple(new if c.name == new.name else c for c in have.columns)
        self.warehouse.schemas[change.table] = replace(
            have, columns=columns, version=have.version + 1
        )

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        warehouse = self.warehouse
        with warehouse.lock:
            before = (
                {table: _copied(rows) for table, rows in warehouse.tables.items()},
                dict(warehouse.markers),
                len(warehouse.audit),
                list(warehouse.aside),
            )
            try:
                self._advance(marker)  # first: it also excludes every other owner
                counts: dict[tuple[TableId, Operation], int] = {}
                changes = batch.changes
                if replay is not None:
                    changes = self._sift(batch.changes, marker.unit, replay)
                for part in changes:
                    self._write(part, marker.unit, counts)
                for table in batch.reload:
                    self._reload(schema_of_table(table, self.selection, marker.unit), table)
                for row in quarantined:
                    id, unit = len(warehouse.aside) + 1, marker.unit
                    of = schema_of_table(row.table, self.selection, unit)
                    aside = SetAside(id, of, unit.id, row, at=warehouse.clock())
                    warehouse.aside.append(aside)
                for finding in findings:
                    self._note(finding, marker.unit)
                self._end_of_run(marker)
            except BaseException:
                warehouse.tables, warehouse.markers = before[0], before[1]
                del warehouse.audit[before[2] :]
                warehouse.aside = before[3]
                raise
            self._finish(marker)
            rows = Counter(row.table for row in quarantined if not row.column)
            return Written(counts, quarantined=rows)

    def _sift(
        self, changes: Sequence[TableChanges], unit: WorkUnit, replay: Replay
    ) -> list[TableChanges]:
        """The rows that may land; what becomes of each is written into the quarantine."""
        places = {aside.id: place for place, aside in enumerate(self.warehouse.aside)}
        for id in (*replay.ids, *replay.refused):
            if self.warehouse.aside[places[id]].state is not Aside.REPLAYING:
                raise LeaseLost(f"row {id} of the quarantine is not to be replayed", place=unit.id)
        ids = iter(replay.ids)
        sifted = []
        became = dict.fromkeys(replay.refused, Aside.WAITING)
        reasons = dict(replay.refused)
        for part in changes:
            lands = []
            for row, cells in enumerate(part.rows()):
                id = next(ids)
                aside = self.warehouse.aside[places[id]].row
                why = replays.overruled(
                    Operation(part.operations[row]),
                    part.versions[row],
                    self._standing(part, cells),
                    cell=bool(aside.column),
                    truncated_at=self._truncated_at(unit.schema, part.table),
                )
                became[id], reasons[id] = (Aside.SUPERSEDED, why) if why else (Aside.REPLAYED, "")
                if not why:
                    lands.append(row)
            sifted.append(
                TableChanges(
                    part.table,
                    bytearray(part.operations[row] for row in lands),
                    [part.versions[row] for row in lands],
                    part.schema,
                    [[column[row] for row in lands] for column in part.columns],
                )
            )
        for id, state in became.items():
            self._settle_aside(places[id], state, reasons[id])
        return sifted

    def _standing(self, part: TableChanges, cells: Sequence[Any]) -> replays.Standing:
        schema = self.warehouse.schemas[part.table]
        row = dict(zip(schema.names(), cells, strict=True))
        key = tuple(row[name] for name in schema.key)
        settings = self.selection(part.table)
        soft = settings.soft_delete_column if settings else None
        have = self.warehouse.tables[part.table].get(key)
        gone = have is not None and (have.deleted or bool(soft and have.cells.get(soft)))
        deleted = [v for t, k, _, v in self.warehouse.audit if (t, k) == (part.table, key)]
        return replays.Standing(have.version if have else None, gone, max(deleted, default=-1))

    def _truncated_at(self, schema: str, table: TableId) -> int:
        state = self.warehouse.markers.get(WorkUnit.of_table(schema, table).id)
        return state.truncated_at if state else -1

    def _settle_aside(self, place: int, state: Aside, why: str) -> None:
        aside = self.warehouse.aside[place]
        self.warehouse.aside[place] = replace(
            aside,
            state=state,
            last_error=why,
            tries=aside.tries + 1,
            tried_at=self.warehouse.clock(),
        )

    def _note(self, finding: Finding, unit: WorkUnit) -> None:
        """One line for all findings of a sort, which counts their cells."""
        sort = (finding.table, finding.column, finding.outcome, finding.met, finding.expected)
        for line in self.warehouse.errors:
            if line.get("finding") == sort:
                line["cells"] += finding.cells
                return
        self.warehouse.errors.append(
            {
                "at": self.warehouse.clock(),
                "code": f"CELL-{finding.outcome}",
                "class": "Finding",
                "message": f"expected {finding.expected}, found {finding.met}: {finding.original}",
                "schema": schema_of_table(finding.table, self.selection, unit),
                "unit": unit.id,
                "table": finding.table,
                "action": finding.outcome.value,
                "finding": sort,
                "column": finding.column,
                "key": finding.key,
                "cells": finding.cells,
            }
        )

    def _advance(self, marker: Marker) -> None:
        """The compare-and-set that every transaction starts with (guarantee 2, second half)."""
        stored = self.warehouse.markers.get(marker.unit.id)
        if stored is None or stored.fence != marker.fence or stored.batch + 1 != marker.batch:
            found = stored.fence if stored else 0
            raise FenceBehind(
                f"expected fence {marker.fence} and batch {marker.batch - 1}, "
                f"found {found} and {stored.batch if stored else 0}; drop the unit",
                found=found,
                place=marker.unit.id,
            )
        self.warehouse.markers[marker.unit.id] = replace(
            marker,
            epoch=stored.epoch,
            owner=stored.owner,
            slot=stored.slot,
            updated_at=self.warehouse.clock(),
        )

    def _finish(self, marker: Marker) -> None:
        """A poll's run ends, and takes its slot, with the marker that ends it."""
        if marker.phase is not Phase.IDLE or marker.unit.kind is not UnitKind.POLL:
            return
        markers = self.warehouse.markers
        for run in self.warehouse.runs.values():
            if run["unit"] == marker.unit.id and run["status"] == "running":
                run["status"] = "done"
                if run["slot"] is not None:
                    markers[marker.unit.id] = replace(markers[marker.unit.id], slot=run["slot"])

    def _write(
        self,
        part: TableChanges,
        unit: WorkUnit,
        counts: dict[tuple[TableId, Operation], int],
    ) -> None:
        schema = self.warehouse.schemas[part.table]
        if part.schema is None or part.schema.version != schema.version:
            raise SchemaMoved("read the schema again", place=str(part.table))
        of = schema_of_table(part.table, self.selection, unit)
        state = self.warehouse.markers.get(WorkUnit.of_table(of, part.table).id)
        settled = state is not None and state.phase == Phase.STREAMING
        truncated_at = state.truncated_at if state else -1
        settings = self.selection(part.table)
        soft = settings.soft_delete_column if settings else None
        rows = self.warehouse.tables[part.table]
        names = schema.names()
        for code, version, cells in zip(part.operations, part.versions, part.rows(), strict=True):
            operation = Operation(code)
            counts[part.table, operation] = counts.get((part.table, operation), 0) + 1
            if operation == Operation.TRUNCATE and not schema.key:
                self._reveal(part.table)
                rows = self.warehouse.tables[part.table]
                continue
            if operation == Operation.TRUNCATE:
                self._truncate(of, part.table, version)
                continue
            row = dict(zip(names, cells, strict=True))
            key = tuple(row[name] for name in schema.key)
            if not schema.key:
                cells_ = {n: None if isinstance(v, type(ABSENT)) else v for n, v in row.items()}
                rows[next(_numbers),] = _Stored(cells_, version, deleted=True)
                continue
            old = rows.get(key)
            if operation == Operation.READ:
                if version <= truncated_at or (old is not None and old.version >= version):
                    continue
            elif old is not None and old.version > version:
                continue
            if operation == Operation.DELETE:
                if old is not None and not old.deleted:
                    self.warehouse.audit.append((part.table, key, dict(old.cells), version))
                self.warehouse.supersede_deleted(part.table, key, version)
                kept = dict(old.cells) if old else {n: row.get(n) for n in schema.key}
                if soft is not None and old is not None:
                    rows[key] = _Stored(kept | {soft: True}, version)
                elif settled:
                    rows.pop(key, None)
                else:
                    rows[key] = _Stored(kept, version, deleted=True)
                continue
            base = old.cells if old else dict.fromkeys(names)
            full = {
                n: base.get(n) if v is UNCHANGED else None if v is ABSENT else v
                for n, v in row.items()
            }
            rows[key] = _Stored(full | ({soft: False} if soft else {}), version)

    def _truncate(self, schema: str, table: TableId, version: int) -> None:
        rows = self.warehouse.tables[table]
        for key in [k for k, r in rows.items() if r.version <= version]:
            del rows[key]
        unit = WorkUnit.of_table(schema, table)
        state = self.warehouse.markers.get(unit.id, Marker(unit))
        self.warehouse.markers[unit.id] = replace(
            state, truncated_at=max(version, state.truncated_at)
        )

    def _reload(self, schema: str, table: TableId) -> None:
        unit = WorkUnit.of_table(schema, table)
        state = self.warehouse.markers.get(unit.id, Marker(unit))
        for id, marker in list(self.warehouse.markers.items()):
            if marker.unit.kind == UnitKind.CHUNK and marker.unit.table == table:
                del self.warehouse.markers[id]
        self.warehouse.markers[unit.id] = replace(state, epoch=state.epoch + 1, phase=Phase.PLANNED)

    def update_marker(self, marker: Marker) -> None:
        with self.warehouse.lock:
            self._end_of_run(marker)
            self._advance(marker)
            self._finish(marker)

    def deferred_due(self, schema: str) -> bool:
        return False  # nothing here refers to anything, so nothing waits

    def metadata(self) -> MetadataStore:
        return MemoryMetadata(self.warehouse)

    def close(self) -> None: ...


class MemoryMetadata:
    """The metadata store over a MemoryWarehouse."""

    def __init__(self, warehouse: MemoryWarehouse) -> None:
        self.warehouse = warehouse

    def prepare(self) -> None:
        self.warehouse.prepared = True

    def prepared(self) -> bool:
        return self.warehouse.prepared

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        with self.warehouse.lock:
            if unit.id in self.warehouse.markers:
                return False
            self.warehouse.markers[unit.id] = Marker(unit, position=position, phase=phase)
            return True

    def plan_snapshot(
        self, schema: str, table: TableId, chunks: Sequence[Chunk], *, version: int
    ) -> bool:
        with self.warehouse.lock:
            unit = WorkUnit.of_table(schema, table)
            state = self.warehouse.markers.get(unit.id, Marker(unit))
            if state.phase != Phase.PLANNED:
                return False
            sweep = version if state.epoch else -1
            self.warehouse.markers[unit.id] = replace(
                state, phase=Phase.SNAPSHOT, sweep_below=sweep
            )
            for chunk in chunks:
                chunk_unit = WorkUnit.of_chunk(schema, chunk, state.epoch)
                self.warehouse.markers[chunk_unit.id] = Marker(chunk_unit, epoch=state.epoch)
            return True

    def settle(self, schema: str, table: TableId) -> bool:
        with self.warehouse.lock:
            unit = WorkUnit.of_table(schema, table)
            state = self.warehouse.markers.get(unit.id)
            chunks = [
                m
                for m in self.warehouse.markers.values()
                if m.unit.kind == UnitKind.CHUNK
                and m.unit.schema == schema
                and m.unit.table == table
            ]
            if state is None or state.phase != Phase.SNAPSHOT:
                return False
            # Not those of an earlier epoch: whoever opens one late makes its marker again.
            if any(m.phase != Phase.DONE for m in chunks if m.epoch == state.epoch):
                return False
            rows = self.warehouse.tables.get(table, {})
            self.warehouse.supersede(
                table,
                f"the table was read anew at version {state.sweep_below}",
                lambda aside: aside.row.version < state.sweep_below,
            )
            for key, row in list(rows.items()):
                if row.deleted:
                    self.warehouse.supersede_deleted(table, key, row.version)
                if row.deleted or row.version < state.sweep_below:
                    del rows[key]
            self.warehouse.markers[unit.id] = replace(state, phase=Phase.STREAMING)
            return True

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        with self.warehouse.lock:
            return [m for m in self.warehouse.markers.values() if not kinds or m.unit.kind in kinds]

    def mark(self, unit_id: str, phase: Phase) -> None:
        with self.warehouse.lock:
            if unit_id in self.warehouse.markers:
                marker = self.warehouse.markers[unit_id]
                # The fence grows, so that a worker that is at it adopts it anew and sees the phase.
                self.warehouse.markers[unit_id] = replace(
                    marker, phase=phase, fence=marker.fence + 1
                )

    def follow(self, stream: WorkUnit, follows: str, *, left: Sequence[WorkUnit]) -> bool:
        with self.warehouse.lock:
            marker = self.warehouse.markers.get(stream.id)
            if marker is None or marker.follows == follows:
                return False
            self.warehouse.markers[stream.id] = replace(
                marker, follows=follows, fence=marker.fence + 1
            )
            for unit in left:
                self._read_anew(self.warehouse.markers[unit.id])
            return True

    def _read_anew(self, table: Marker) -> None:
        unit = table.unit
        for id, marker in list(self.warehouse.markers.items()):
            of = (marker.unit.schema, marker.unit.table)
            if marker.unit.kind is UnitKind.CHUNK and of == (unit.schema, unit.table):
                del self.warehouse.markers[id]
        self.warehouse.markers[unit.id] = replace(table, phase=Phase.PLANNED, epoch=table.epoch + 1)

    def resync(
        self,
        schema: str,
        table: TableId | None,
        *,
        position: Position,
        stream: WorkUnit | None = None,
        newest: int | None = None,
    ) -> list[WorkUnit]:
        with self.warehouse.lock:
            stays = stream is not None
            stream = stream or WorkUnit.stream(schema)
            for id, marker in list(self.warehouse.markers.items()):
                unit = marker.unit
                if unit.schema != schema or (table is not None and unit.table not in (None, table)):
                    continue
                if unit.kind == UnitKind.CHUNK:
                    del self.warehouse.markers[id]
                elif unit.kind == UnitKind.TABLE:
                    self.warehouse.markers[id] = replace(
                        marker, phase=Phase.PLANNED, epoch=marker.epoch + 1
                    )
                    if newest is not None and unit.table is not None:
                        self._count_as_older(unit, unit.table, newest)
                elif unit.kind == UnitKind.STREAM and table is None and not stays:
                    self.warehouse.markers[id] = replace(
                        marker,
                        phase=Phase.STREAMING,
                        position=position,
                        fence=marker.fence + 1,
                        epoch=marker.epoch + 1,
                    )
            return [stream]

    def _count_as_older(self, unit: WorkUnit, table: TableId, newest: int) -> None:
        warehouse, older = self.warehouse, newest - 1
        for row in warehouse.tables.get(table, {}).values():
            row.version = min(row.version, older)
        warehouse.aside = [
            replace(aside, row=replace(aside.row, version=min(aside.row.version, older)))
            if aside.row.table == table
            else aside
            for aside in warehouse.aside
        ]
        warehouse.audit = [
            (of, key, row, min(version, older) if of == table else version)
            for of, key, row, version in warehouse.audit
        ]
        state = warehouse.markers[unit.id]
        warehouse.markers[unit.id] = replace(state, truncated_at=min(state.truncated_at, older))

    def begin_run(self, lease: Lease, run: str, *, slot: float | None = None) -> None:
        for id, other in self.warehouse.runs.items():
            if id != run and other["unit"] == lease.unit.id and other["status"] == "running":
                other |= {"status": "abandoned", "ended_at": self.warehouse.clock()}
        self.warehouse.runs[run] = {
            "unit": lease.unit.id,
            "schema": lease.unit.schema,
            "owner": lease.owner,
            "fence": lease.fence,
            "status": "running",
            "slot": slot,
        }

    def slot_taken(self, unit_id: str, slot: float) -> bool:
        with self.warehouse.lock:
            return any(
                (run["unit"], run["slot"], run["status"]) == (unit_id, slot, "done")
                for run in self.warehouse.runs.values()
            )

    def end_run(self, run: str, *, status: str, rows: int, error: str = "") -> None:
        stored = self.warehouse.runs[run]
        # A run that a successor called abandoned stays so, and one that ended with its marker too.
        if stored["status"] in ("running", status):
            at = self.warehouse.clock()
            stored |= {"status": status, "rows": rows, "error": error, "ended_at": at}

    def cut_short(self, *, newer_than: float, limit: int) -> list[CutShort]:
        with self.warehouse.lock:
            ended = [
                r for r in self.warehouse.runs.values() if r["status"] in ("abandoned", "lost")
            ]
        found = [
            CutShort(
                *(run["unit"], run["schema"], run["owner"], run["fence"], run["status"]),
                *(run["ended_at"], run.get("error", "")),
            )
            for run in ended
            if run["ended_at"] >= self.warehouse.clock() - newer_than
        ]
        return sorted(found, key=lambda run: -run.ended_at)[:limit]

    def log_error(
        self,
        *,
        code: str,
        error_class: str,
        message: str,
        unit: str = "",
        run: str = "",
        table: TableId | None = None,
        column: str = "",
        key: str = "",
        position: Position | None = None,
        action: str = "",
    ) -> None:
        self.warehouse.errors.append(
            {
                "at": self.warehouse.clock(),
                "code": code,
                "class": error_class,
                "message": message,
                "schema": schema_of(unit, table),
                "unit": unit,
                "table": table,
                "action": action,
            }
        )

    def add_errand(self, id: str, name: str, arguments: Mapping[str, Any]) -> None:
        self.warehouse.errands.setdefault(
            id,
            {
                "name": name,
                "arguments": dict(arguments),
                "status": "open",
                "result": "",
                "added_at": self.warehouse.clock(),
            },
        )

    def open_errands(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (id, e["name"], e["arguments"])
            for id, e in self.warehouse.errands.items()
            if e["status"] == "open"
        ]

    def end_errand(self, id: str, *, status: str, result: str = "") -> None:
        self.warehouse.errands[id] |= {"status": status, "result": result}

    def errands(self, id: str | None = None) -> list[Intent]:
        found = [Intent(i, **e) for i, e in self.warehouse.errands.items() if id in (None, i)]
        found.reverse()
        return sorted(found, key=lambda intent: intent.status != "open")[:100]

    def quarantined(self) -> dict[TableId, int]:
        with self.warehouse.lock:
            waiting = [a for a in self.warehouse.aside if a.state is Aside.WAITING]
            return dict(Counter(aside.row.table for aside in waiting))

    def deferred(self) -> dict[TableId, int]:
        with self.warehouse.lock:
            return dict(self.warehouse.deferred)

    def quarantine(self, choice: Choice) -> list[SetAside]:
        with self.warehouse.lock:
            found = [a for a in self.warehouse.aside if _chosen(a, choice)][: choice.limit]
            if choice.whole:
                return found
            return [replace(a, row=replace(a.row, row="")) for a in found]

    def replay(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        with self.warehouse.lock:
            unit = WorkUnit.of_replay(schema, table)
            marker = self.warehouse.markers.get(unit.id, Marker(unit))
            phase = Phase.PAUSED if marker.phase is Phase.PAUSED else Phase.PLANNED
            self.warehouse.markers[unit.id] = replace(marker, phase=phase, fence=marker.fence + 1)
            return self._decide(
                Aside.REPLAYING,
                lambda a: (
                    a.id in ids
                    and (a.schema, a.row.table) == (schema, table)
                    and a.state is Aside.WAITING
                    and bool(a.row.kinds)
                ),
            )

    def to_replay(self, schema: str, table: TableId, limit: int) -> list[SetAside]:
        with self.warehouse.lock:
            found = [
                a
                for a in self.warehouse.aside
                if a.state is Aside.REPLAYING and (a.schema, a.row.table) == (schema, table)
            ]
            return sorted(found, key=lambda a: (a.row.version, a.id))[:limit]

    def discard(self, ids: Sequence[int]) -> int:
        open_ = (Aside.WAITING, Aside.REPLAYING)
        with self.warehouse.lock:
            return self._decide(Aside.DISCARDED, lambda a: a.id in ids and a.state in open_)

    def _decide(self, state: Aside, about: Callable[[SetAside], bool]) -> int:
        places = [place for place, a in enumerate(self.warehouse.aside) if about(a)]
        for place in places:
            self.warehouse.aside[place] = replace(self.warehouse.aside[place], state=state)
        return len(places)

    def errors(self, choice: Choice) -> list[ErrorLine]:
        lines = [
            ErrorLine(
                id,
                line["at"],
                line["at"],
                line["code"],
                line["class"],
                line["message"],
                line["schema"],
                line["unit"],
                line["table"],
                column=line.get("column", ""),
                key=line.get("key", ""),
                action=line["action"],
                cells=line.get("cells"),
            )
            for id, line in enumerate(self.warehouse.errors, start=1)
        ]
        found = [line for line in reversed(lines) if _told(line, choice)]
        return found[: choice.limit]


def _named(table: TableId | None, choice: Choice) -> bool:
    return not choice.table or (table is not None and choice.table in (table.name, str(table)))


def _of_age(at: float, choice: Choice) -> bool:
    age = time.time() - at
    return (choice.older_than is None or age >= choice.older_than) and (
        choice.newer_than is None or age <= choice.newer_than
    )


def _chosen(aside: SetAside, choice: Choice) -> bool:
    return (
        (choice.ids is None or aside.id in choice.ids)
        and aside.id > choice.after
        and (not choice.schemas or aside.schema in choice.schemas)
        and choice.code in ("", aside.row.code)
        and _named(aside.row.table, choice)
        and (choice.reason in aside.row.reason or choice.reason == aside.row.code)
        and (not choice.states or aside.state in choice.states)
        and _of_age(aside.at, choice)
    )


def _told(line: ErrorLine, choice: Choice) -> bool:
    return (
        (choice.ids is None or line.id in choice.ids)
        and (not choice.schemas or line.schema in choice.schemas)
        and choice.code in ("", line.code)
        and _named(line.table, choice)
        and (choice.reason in line.message or choice.reason == line.code)
        and _of_age(line.last_at, choice)
    )
