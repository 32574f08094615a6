"""The metadata of a destination in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from warp.model import (
    Aside,
    Choice,
    Chunk,
    CutShort,
    ErrorLine,
    Intent,
    Lease,
    Marker,
    Phase,
    Position,
    SetAside,
    TableId,
    UnitKind,
    WorkUnit,
    schema_of,
)
from warp.testing.memory.warehouse import MemoryWarehouse


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
                    self.warehouse.supersede_gone(table, key, row.version)
                if row.deleted or row.version < state.sweep_below:
                    del rows[key]
            self.warehouse.markers[unit.id] = replace(state, phase=Phase.STREAMING)
            return True

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        with self.warehouse.lock:
            return [m for m in self.warehouse.markers.values() if not kinds or m.unit.kind in kinds]

    def mark(self, unit_id: str, phase: Phase, *, seen: int | None = None) -> bool:
        with self.warehouse.lock:
            marker = self.warehouse.markers.get(unit_id)
            if marker is None or (seen is not None and marker.fence > seen):
                return False
            # The fence grows, so that a worker that is at it adopts it anew and sees the phase.
            self.warehouse.markers[unit_id] = replace(marker, phase=phase, fence=marker.fence + 1)
            return True

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
