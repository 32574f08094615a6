"""The write transaction: everything is loaded and composed before it, and it is one request.

What was read to compose it (the table's version, its phase) is asserted in it, and changed in it,
so that BigQuery cancels one of two that meet.  A refusal is looked at again, an abort is tried
again, and an outcome nobody told is read from the marker (guarantee 7).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from warp import faults
from warp.compact import compact
from warp.destinations.bigquery import ddl, markers, merge, notes, quarantine, staged, verdicts
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.groups import Groups
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.merge import Beside
from warp.destinations.bigquery.metadata import BigQueryMetadata, places
from warp.destinations.bigquery.names import literal
from warp.destinations.bigquery.quotas import TABLES_OF_A_BATCH
from warp.destinations.bigquery.replaying import Part, Replaying
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import PATIENCE, Session, Told
from warp.destinations.bigquery.staged import stage
from warp.destinations.bigquery.staging import Staging
from warp.destinations.bigquery.tables import Table
from warp.destinations.bigquery.verdicts import Verdict
from warp.destinations.sql.notes import Deed
from warp.errors import (
    DestinationRefused,
    DestinationUnavailable,
    FenceBehind,
    SchemaMoved,
)
from warp.model import (
    ChangeBatch,
    Choice,
    Marker,
    Operation,
    Phase,
    Position,
    Replay,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
)
from warp.staged import Said
from warp.streams import schema_of_table


class Transactions:
    """The writes of one destination, one after the other."""

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        groups: Groups,
        metadata: BigQueryMetadata,
        staging: Staging,
        numbers: Numbers,
    ) -> None:
        self._session = session
        self._selection = selection
        self._groups = groups
        self._metadata = metadata
        self._staging = staging
        self._numbers = numbers
        self._known: dict[WorkUnit, Group] = {}
        self._attempt = 0
        self._undecided: tuple[ChangeBatch | None, Marker] | None = None
        self.deed = Deed()
        self.replaying: Replaying | None = None

    def forget(self) -> None:
        """What was read of tables, which others may have changed since."""
        self._known.clear()

    def write(self, batch: ChangeBatch | None, marker: Marker, said: Said) -> None:
        """One transaction; on any error nothing of it remains."""
        unit = marker.unit
        with self._session.meaning(f"writing {unit.id}"):
            waits = PATIENCE.delays()
            while True:
                try:
                    self._attempt_at(batch, marker, said)
                    return
                except Told as told:
                    wait = self._after(told, batch, marker, next(waits, None))
                if wait is None:
                    return
                time.sleep(wait)
                self.forget()

    def _after(
        self, told: Told, batch: ChangeBatch | None, marker: Marker, wait: float | None
    ) -> float | None:
        """How long to wait before the next attempt; None where it was committed after all."""
        unit = marker.unit
        match told.verdict:
            case Verdict.FENCED:
                raise self._fenced(marker) from told
            case Verdict.PARTIAL:
                raise DestinationRefused(
                    f"expected {unit.table}, which has no key, to be read whole by each poll, "
                    "found rows that were picked out; give it a key, or capture it by a full "
                    "comparison",
                    place=unit.id,
                ) from told
            case Verdict.UNKNOWN:
                self._undecided = (batch, marker)
                if self.was_committed(batch, marker):
                    return None
                raise DestinationUnavailable(
                    f"writing {unit.id}: {told.message}; the transaction has not happened so far; "
                    "write the batch again",
                    place=self._session.place,
                ) from told
            case Verdict.MOVED | Verdict.CONFLICT | Verdict.BUSY | Verdict.GONE:
                if wait is None:
                    raise told
                return wait
            case _:
                raise told

    def _fenced(self, marker: Marker) -> FenceBehind:
        there = self._groups.marker(marker.unit)
        found = there.fence if there else 0
        return FenceBehind(
            f"expected fence {marker.fence} and batch {marker.batch - 1}, found fence {found} "
            f"and batch {there.batch if there else 0}; drop the unit",
            found=found,
            place=marker.unit.id,
        )

    def was_committed(self, batch: ChangeBatch | None, marker: Marker) -> bool:
        """Did an earlier attempt at this very batch, whose outcome nobody told, succeed?"""
        if self._undecided is None:
            return False
        attempted, wanted = self._undecided
        if attempted is not batch or wanted != marker:
            self._undecided = None
            return False
        with self._session.meaning(f"asking for the outcome of a commit of {marker.unit.id}"):
            there = self._groups.marker(marker.unit)
        self._undecided = None
        return there is not None and (there.fence, there.batch) == (marker.fence, marker.batch)

    # -- one attempt

    def _attempt_at(self, batch: ChangeBatch | None, marker: Marker, said: Said) -> None:
        deed = Deed(list(said.quarantined))
        self.replaying = replaying = None
        parts: list[Part] = []
        tables: dict[TableId, tuple[Group, Table]] = {}
        if said.replay is not None:
            self.forget()  # it decides by all there is of its rows: nothing may be older than that
        if batch is not None:
            parts = self._compacted(batch, marker, deed, said, tables)
            if said.replay is not None:
                self.replaying = replaying = self._sift(batch, marker, parts, said.replay, tables)
            self._load(parts)
        faults.hit("after_copy")
        self._attempt += 1
        slices = list(_slices(parts))
        for number, some in enumerate(slices):
            last = number == len(slices) - 1
            script = self._composed(batch, marker, some, tables, deed, said, replaying, last=last)
            faults.hit("before_commit")
            self._session.transact(
                script, self._staging.job_id(marker.batch, self._attempt * 100 + number)
            )
        faults.hit("after_commit")
        self.deed = deed
        if deed.aside or replaying is not None or batch is None:
            self.forget()
        for part in parts:
            if part.staged.truncated_at is not None or (batch and batch.reload):
                self.forget()

    def _compacted(
        self,
        batch: ChangeBatch,
        marker: Marker,
        deed: Deed,
        said: Said,
        tables: dict[TableId, tuple[Group, Table]],
    ) -> list[Part]:
        parts: list[Part] = []
        for changes in batch.changes:
            if not len(changes):
                continue
            if changes.schema is None:
                raise AssertionError("changes reach a destination shaped into columns")
            table_id = changes.table
            if table_id not in tables:
                tables[table_id] = self._table(table_id, marker, changes.schema.version)
            _, table = tables[table_id]
            settings = self._selection(table_id)
            part = stage(changes.schema, compact(changes))
            odd = staged.unfit(part) if said.replay is None else {}
            for row, why in odd.items():
                aside = notes.refused(part, row, why, settings)
                deed.aside.append(aside)
                deed.missing[table_id, aside.operation] += 1
            if odd:
                part = part.only([row for row in range(len(part)) if row not in odd])
            soft = settings.soft_delete_column if settings else None
            landing = self._staging.landing(
                table, self._staging.next(table_id), soft=soft, unit=marker.unit.id
            )
            parts.append(Part(part, landing))
        return parts

    def _table(self, table: TableId, marker: Marker, version: int) -> tuple[Group, Table]:
        """The table as the batch was shaped for it, or the error that says what has moved."""
        unit = self._unit_of(table, marker)
        group = self._group(unit)
        found = ddl.registered(group)
        if found is None or found.schema.version != version or found.todo:
            self._known.pop(unit, None)
            group = self._group(unit)
            found = ddl.registered(group)
        if found is None or found.schema.version != version or found.todo:
            have = found.schema.version if found else "no table"
            raise SchemaMoved(
                f"expected schema version {version}, found {have}; read the schema again",
                place=str(table),
            )
        epoch = int(group.row["epoch"])
        if marker.unit.kind is UnitKind.CHUNK and epoch != marker.epoch:
            raise FenceBehind(
                f"expected a chunk of epoch {epoch}, found one of {marker.epoch}: the table is "
                "being read anew; drop the unit",
                found=marker.fence,
                place=marker.unit.id,
            )
        return group, found

    def _group(self, unit: WorkUnit) -> Group:
        found = self._known.get(unit)
        if found is None:
            if unit.table is None:
                raise AssertionError("a table's unit names the table")
            found = self._known[unit] = self._groups.of_table(unit.schema, unit.table)
        return found

    def _unit_of(self, table: TableId, marker: Marker) -> WorkUnit:
        return WorkUnit.of_table(schema_of_table(table, self._selection, marker.unit), table)

    def _load(self, parts: Sequence[Part]) -> None:
        waiting = [part for part in parts if len(part.staged)]
        self._staging.pace(len(waiting))
        for part in waiting:
            staging = part.landing.staging.rpartition(".")[2].strip("`")
            keys = part.staged.has(Operation.DELETE)
            self._staging.load(staging, part.staged, part.landing.spelled, keys=keys)

    def _sift(
        self,
        batch: ChangeBatch,
        marker: Marker,
        parts: Sequence[Part],
        replay: Replay,
        tables: Mapping[TableId, tuple[Group, Table]],
    ) -> Replaying:
        unit = marker.unit
        if unit.table is None:
            raise AssertionError("a replay is of one table")
        group = self._group(WorkUnit.of_table(unit.schema, unit.table))
        asked = Choice(ids=(*replay.ids, *replay.refused))
        found = {row.id: row for row in self._metadata.quarantine(asked)}
        replaying = Replaying.begun(replay, found, batch, unit)
        first = 0
        for part in parts:
            table_id = part.staged.schema.table
            settings = self._selection(table_id)
            first += replaying.sift(
                part,
                first,
                tables[table_id][1],
                self._staging,
                soft=settings.soft_delete_column if settings else None,
                truncated_at=int(group.row["truncated_at"]),
            )
        return replaying

    # -- its statements

    def _composed(
        self,
        batch: ChangeBatch | None,
        marker: Marker,
        parts: Sequence[Part],
        tables: Mapping[TableId, tuple[Group, Table]],
        deed: Deed,
        said: Said,
        replaying: Replaying | None,
        *,
        last: bool,
    ) -> Script:
        script = Script()
        self._advance(script, marker, last=last)
        aside: dict[WorkUnit, int] = {}
        if last:
            for row in deed.aside:
                unit = self._unit_of(row.table, marker)
                aside[unit] = aside.get(unit, 0) + 1
        reloaded = list(batch.reload) if batch is not None and last else []
        written = dict.fromkeys(self._unit_of(p.staged.schema.table, marker) for p in parts)
        for table in reloaded:
            self._metadata.read_anew(script, self._group(self._unit_of(table, marker)))
        if replaying is not None and marker.unit.table is not None:
            written.setdefault(self._unit_of(marker.unit.table, marker))
        for unit in dict.fromkeys([*written, *aside]):
            if unit.table in reloaded:
                continue
            self._guard(script, unit, aside.get(unit, 0), parts, replaying)
        beside = Beside(_token(batch, marker), self._run_of(script, marker.unit))
        for part in parts:
            group, _ = tables[part.staged.schema.table]
            self._land(script, part, group, beside)
        if batch is not None and last:
            self._note(script, batch, marker, deed, said, replaying)
        if last and marker.phase in (Phase.DONE, Phase.IDLE):
            self._end_of_run(script, marker)
        return script

    def _advance(self, script: Script, marker: Marker, *, last: bool) -> None:
        """The compare-and-set that every transaction starts with (guarantee 2)."""
        unit = marker.unit
        group = {"group": self._groups.quoted(markers.group_of(unit)), **places(self._session)}
        who = {"unit": unit.id, "fence": marker.fence, "batch": marker.batch}
        if not last:
            script.named("touch_marker", group, **who)
            script.require_one(verdicts.FENCE)
            return
        ends = marker.phase is Phase.DONE or (
            marker.phase is Phase.IDLE and unit.kind is UnitKind.POLL
        )
        if ends:
            script.named("finish_run", group, unit=unit.id)
        script.named(
            "advance_marker",
            group,
            **who,
            rows=marker.rows,
            phase=marker.phase.value,
            ends=ends,
            **markers.place_of(marker.position),
        )
        script.require_one(verdicts.FENCE)

    def _guard(
        self,
        script: Script,
        unit: WorkUnit,
        aside: int,
        parts: Sequence[Part],
        replaying: Replaying | None,
    ) -> None:
        """The table is as it was read, and whoever else thinks so is refused."""
        group = self._group(unit)
        cut = [
            part.staged.truncated_at
            for part in parts
            if part.staged.schema.table == unit.table
            and part.staged.truncated_at is not None
            and part.staged.schema.key
        ]
        changes = {}
        if aside:
            changes["aside"] = f"aside + {aside}"
        if cut:
            changes["truncated_at"] = f"GREATEST(truncated_at, {max(cut)})"
        if replaying is not None:
            # It decides by every row of its keys, the audit and the quarantine.
            self._groups.bump(script, group, **changes)
            return
        sets = ["writes = writes + 1", *(f"{name} = {sql}" for name, sql in changes.items())]
        seen = [
            f"{name} = {script.bind(group.row[name])}"
            for name in ("schema_version", "epoch", "phase", "truncated_at", "aside")
        ]
        script.add(
            f"UPDATE {self._groups.quoted(group.name)} SET {', '.join(sets)}"
            f" WHERE unit = {script.bind(unit.id)} AND {' AND '.join(seen)}"
        )
        script.require_one(verdicts.TABLE)

    def _run_of(self, script: Script, unit: WorkUnit) -> str:
        group = self._groups.quoted(markers.group_of(unit))
        return f"(SELECT MAX(m.run) FROM {group} AS m WHERE m.unit = {script.bind(unit.id)})"

    def _land(self, script: Script, part: Part, group: Group, beside: Beside) -> None:
        rows, landing = part.staged, part.landing
        keyed = bool(rows.schema.key)
        after = int(group.row["truncated_at"])
        if rows.truncated_at is not None and keyed:
            merge.truncate(landing, script, beside, rows.truncated_at)
            after = max(after, rows.truncated_at)
        if len(rows) and keyed:
            settled = group.row["phase"] == Phase.STREAMING.value
            if rows.has(Operation.DELETE):
                merge.audit_deleted(landing, script, beside, settled=settled)
                if int(group.row["aside"]):
                    script.named(
                        "supersede_deleted",
                        {**places(self._session), "staging": landing.staging},
                        namespace=rows.schema.table.namespace,
                        table=rows.schema.table.name,
                        # A delete that comes out of quarantine does not overrule itself.
                        replayed=("ARRAY<INT64>", self.replaying.ids if self.replaying else []),
                    )
            script.add(merge.land(landing, rows, settled=settled, after=after))
        elif len(rows):
            script.add(merge.append(landing))
        if rows.truncated_at is not None and not keyed:
            for statement in merge.reveal(landing.table):
                script.add(statement)

    def _note(
        self,
        script: Script,
        batch: ChangeBatch,
        marker: Marker,
        deed: Deed,
        said: Said,
        replaying: Replaying | None,
    ) -> None:
        of = (places(self._session), self._numbers, self._selection, marker.unit)
        notes.set_aside(script, *of, deed.aside, batch.end)
        notes.find(script, *of, said.findings, batch.end)
        if replaying is not None:
            quarantine.decide(script, places(self._session), replaying.became, tried=True)

    def _end_of_run(self, script: Script, marker: Marker) -> None:
        """A table without a key shows a run when it is whole."""
        table = self.read_whole(marker.unit)
        if table is None:
            return
        if marker.phase is Phase.DONE:
            for statement in merge.reveal(table):
                script.add(statement)
        elif marker.unit.kind is UnitKind.POLL:
            script.add(
                f"ASSERT NOT EXISTS (SELECT 1 FROM {table} AS d WHERE d.{merge.DELETED})"
                f" AS {literal(verdicts.WHOLE)}"
            )

    def read_whole(self, unit: WorkUnit) -> str | None:
        """The table that a chunk or poll reads whole, because it has no key; quoted."""
        if unit.table is None or unit.kind not in (UnitKind.CHUNK, UnitKind.POLL):
            return None
        table = ddl.registered(self._group(WorkUnit.of_table(unit.schema, unit.table)))
        if table is None or table.schema.key:
            return None
        return self._staging.landing(table, "", soft=None, unit="").table


def _slices(parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """As many tables at once as one transaction may change; one slice at least."""
    some: list[Part] = []
    met: set[TableId] = set()
    for part in parts:
        table = part.staged.schema.table
        if table not in met and len(met) == TABLES_OF_A_BATCH:
            yield some
            some, met = [], set()
        some.append(part)
        met.add(table)
    yield some


def _token(batch: ChangeBatch | None, marker: Marker) -> str:
    position: Position | None = batch.end if batch is not None else marker.position
    return position.token if position is not None else ""
