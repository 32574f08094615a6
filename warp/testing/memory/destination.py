"""A destination in memory: each batch is one transaction over a warehouse."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from warp import replays
from warp.diagnosis import refuse
from warp.errors import (
    DestinationRefused,
    FenceBehind,
    LeaseLost,
    SchemaMoved,
)
from warp.interfaces import DestinationTraits, MetadataStore
from warp.kinds import Relation, converter, relation
from warp.model import (
    ABSENT,
    UNCHANGED,
    Aside,
    Change,
    ChangeBatch,
    Column,
    Diagnosis,
    Finding,
    Lease,
    Marker,
    Operation,
    Phase,
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
)
from warp.streams import schema_of_table
from warp.testing.memory.metadata import MemoryMetadata
from warp.testing.memory.source import cells_of
from warp.testing.memory.warehouse import MemoryWarehouse, Stored, copied

_numbers = itertools.count()  # tell rows apart that have no key


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

    def _keep_if(self, table: TableId | None, kept: Callable[[Stored], bool]) -> None:
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
            below = state.stale_below if state else -1
            rows = self.warehouse.tables.get(changes.table, {})
            names = self.warehouse.schemas[changes.table].key
            keys = list(zip(*(cells_of(changes, name) for name in names), strict=True))
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
                {table: copied(rows) for table, rows in warehouse.tables.items()},
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
                    if row.overtaken:
                        aside = replace(aside, state=Aside.SUPERSEDED, last_error=replays.OVERTAKEN)
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
                rows[next(_numbers),] = Stored(cells_, version, deleted=True)
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
                    rows[key] = Stored(kept | {soft: True}, version)
                elif settled:
                    rows.pop(key, None)
                else:
                    rows[key] = Stored(kept, version, deleted=True)
                continue
            base = old.cells if old else dict.fromkeys(names)
            full = {
                n: base.get(n) if v is UNCHANGED else None if v is ABSENT else v
                for n, v in row.items()
            }
            rows[key] = Stored(full | ({soft: False} if soft else {}), version)

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
