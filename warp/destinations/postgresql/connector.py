"""The write transaction: marker first, then rows, quarantine and audit, then COMMIT.

Everything that can be decided or converted before BEGIN is; what is left inside is short, because
the marker's and the table's locks are held for it.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from warp import faults
from warp.compact import Compacted, compact
from warp.destinations.postgresql import constraints, ddl, keyless, markers, merge
from warp.destinations.postgresql.careful import Careful, TableState, is_of_a_value
from warp.destinations.postgresql.carriers import DUMPED_AS, PARTIAL, Staged, stage
from warp.destinations.postgresql.deferral import (
    Deferral,
    Tried,
    Waiting,
    must_have_quarantine,
    quarantined,
    waiting_of,
)
from warp.destinations.postgresql.look import look
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.quarantine import Replaying, supersede_deleted, supersede_gone
from warp.destinations.postgresql.session import (
    OIDS,
    PostgresOptions,
    Session,
    storable,
)
from warp.diagnosis import refuse
from warp.errors import DestinationRefused, DestinationUnavailable, FenceBehind, SchemaMoved
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Diagnosis,
    Finding,
    Lease,
    Marker,
    Operation,
    Outcome,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.streams import schema_of_table

# A commit empties every staging table of its session, so there must not be too many.
STAGING_TABLES: Final = 64

_NO: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about a batch beside its rows."""

    quarantined: Sequence[QuarantinedRow] = ()
    findings: Sequence[Finding] = ()
    replay: Replay | None = None


NOTHING_SAID: Final = Said()


@dataclass(slots=True)
class Deed:
    """What a transaction did with the rows that it did not simply land."""

    aside: list[QuarantinedRow] = field(default_factory=list)
    # Rows of the batch that are not in their table, by what was to be done with them.
    missing: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)
    waiting: list[Waiting] = field(default_factory=list)  # rows of the batch, while it lasts
    deferred: list[Waiting] = field(default_factory=list)
    late: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)  # landed at last

    def set_aside(self, row: QuarantinedRow) -> None:
        self.aside.append(row)
        self.missing[row.table, row.operation] += 1

    def add(self, tried: Tried) -> None:
        self.late += tried.landed
        self.aside += tried.given_up
        self.missing += tried.missing
        self.deferred += tried.deferred


class _ValueRefused(Exception):
    """A value of the batch cannot be stored: find out which one."""


class PostgresDestination:
    """Writes to PostgreSQL 13 or later.  Connects when first used, and again after a loss."""

    Options: ClassVar[type[BaseModel]] = PostgresOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(transactional_ddl=True)

    def __init__(self, options: PostgresOptions, selection: TableSelection) -> None:
        self._options = options
        self._selection = selection
        self._session = Session(options)
        self._session.renewed.append(self._forget_staging)
        self._session.undone.append(self._forget_new_staging)
        self._careful = Careful(self._session, _Writes(self))
        self._deferral = Deferral(self._session, selection, self._careful, self._landing)
        self._metadata = PostgresMetadata(
            self._session, selection, self._settle_rows, self._count_as_older
        )
        # By table, version, kinds and unit; the one not used for the longest time first.
        self._landings: OrderedDict[tuple[Any, ...], Landing] = OrderedDict()
        self._staging_made = 0
        self._replaying: Replaying | None = None  # the rows of the last write out of quarantine
        self._new: list[tuple[Any, ...]] = []  # made inside the open transaction
        self._deed = Deed()  # of the last transaction
        # What transactions without a batch did, to be told with the next one that has one.
        self._untold = Deed()
        # What a lost connection left open: whether this batch with this marker was committed.
        self._undecided: tuple[ChangeBatch | None, Marker] | None = None

    # -- the connector

    def check(self) -> None:
        refuse(self._look(), DestinationRefused, place=self._session.place)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def open(self, lease: Lease) -> Marker:
        unit = lease.unit
        with self._session.meaning(f"adopting {unit.id}"):
            row = self._adopt(lease)
            # Not before: an insert would wait for a predecessor paused in its transaction.
            if row is None and self._metadata.register(unit, position=None, phase=Phase.PLANNED):
                row = self._adopt(lease)
            if row is None:
                found = self._metadata.fence_of(unit.id)
                raise FenceBehind(
                    f"expected a fence below {lease.fence}, found {found}; refence or drop the "
                    "unit",
                    found=found,
                    place=unit.id,
                )
            marker = markers.from_row(row)
            if unit.kind is UnitKind.CHUNK and marker.phase is not Phase.DONE:
                self._session.named("forget_set_aside", unit=unit.id)
            if marker.phase is not Phase.DONE and (settings := self._keyless(unit)):
                keyless.forget(self._session, settings)
        # The lease's unit is the fuller one where the plan has not been stored.
        return marker if marker.unit.chunk else replace(marker, unit=unit)

    def _adopt(self, lease: Lease) -> Sequence[Any] | None:
        """Raise the fence; a predecessor that was paused inside its transaction is ended."""
        mine = {"unit": lease.unit.id, "fence": lease.fence, "owner": lease.owner}
        try:
            with self._session.block():
                self._session.run(b"SET LOCAL lock_timeout = '1s'")
                row: Sequence[Any] | None = self._session.named("adopt_marker", **mine).fetchone()
        except LockNotAvailable:
            self._session.named("end_superseded", unit=lease.unit.id, fence=lease.fence)
            row = self._session.named("adopt_marker", **mine).fetchone()
        return row

    def _keyless(self, unit: WorkUnit) -> TableSettings | None:
        """The table that a chunk or poll reads whole, because it has no key."""
        if unit.table is None or unit.kind not in (UnitKind.CHUNK, UnitKind.POLL):
            return None
        settings = self._selection(unit.table)
        if settings is None or not keyless.is_keyless(self._session, settings):
            return None
        return settings

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return ddl.current(self._session, settings)

    def missing(self, changes: TableChanges) -> list[int]:
        """By one statement over the staged keys, in a transaction that changes nothing."""
        settings = self._selection(changes.table)
        if settings is None or changes.schema is None:
            raise AssertionError("rows of a selected table, shaped into columns")
        rows = range(len(changes))
        keys = Compacted(bytes(changes.operations), changes.versions, changes.columns)
        part = stage(changes.schema, keys)
        unit = WorkUnit.of_table(settings.schema, changes.table)
        with self._session.meaning(f"looking for rows of {settings.destination}"):
            self._session.connect()
            landing = self._landing(changes.schema, unit)
            self._new.clear()
            with self._session.block(), _as_registered(changes.table):
                self._copy(part, landing, rows)
                [statement] = merge.missing(landing)
                found = self._session.run(statement, {"unit": unit.id}).fetchall()
        return [number for (number,) in found]

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        for change in changes:
            settings = self._settings_of(change.table)
            with self._session.meaning(f"{change.change} on {settings.destination}"):
                ddl.apply(self._session, settings, change)

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        started = time.monotonic()
        if not self._was_committed(batch, marker):
            parts = [self._stage(part) for part in batch.changes if len(part)]
            self._write(batch, marker, parts, Said(quarantined, findings, replay))
        counts: Counter[tuple[TableId, Operation]] = Counter()
        for changes in batch.changes:
            for code in set(changes.operations):
                counts[changes.table, Operation(code)] += changes.operations.count(code)
        counts.subtract(self._deed.missing)
        counts.update(self._deed.late + self._untold.late)
        for what in self._replaying.unlanded if self._replaying else ():
            counts[what] -= 1
        aside = [*self._deed.aside, *self._untold.aside]
        self._untold = Deed()
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(row.table for row in aside if not row.column),
            deferred=Counter(row.schema.table for row in self._deed.deferred),
            seconds=time.monotonic() - started,
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._was_committed(None, marker):
            self._write(None, marker, [], NOTHING_SAID)
            self._untold.late += self._deed.late
            self._untold.aside += self._deed.aside

    def deferred_due(self, schema: str) -> bool:
        with self._session.meaning(f"looking for rows of {schema} that wait for others"):
            return self._deferral.due(schema)

    def metadata(self) -> PostgresMetadata:
        return self._metadata

    def close(self) -> None:
        self._session.close()

    # -- before the transaction

    def _stage(self, changes: TableChanges) -> Staged:
        """Compacted and converted, and a temporary table to copy it into."""
        if changes.schema is None:
            raise AssertionError("changes reach a destination shaped into columns")
        return stage(changes.schema, compact(changes))

    def _landing(self, schema: TableSchema, unit: WorkUnit) -> Landing:
        """The table to write to, with its staging table on this connection."""
        kinds = tuple(column.kind for column in schema.columns)
        key = (schema.table, schema.version, kinds, unit.id)
        made = self._landings.get(key)
        if made is not None:
            self._landings.move_to_end(key)
            return made
        settings = self._settings_of(schema.table)
        self._staging_made += 1
        awaited = constraints.read(self._session, settings.destination).awaited()
        made = Landing(
            schema,
            settings.destination,
            f"cw_{self._staging_made}",
            settings.soft_delete_column,
            self._options.metadata_schema,
            unit.id,
            awaited,
        )
        self._session.run(merge.staging_table(made.staging, kinds))
        self._landings[key] = made
        self._new.append(key)
        return made

    def _settings_of(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise self._refused(f"{table} is not selected by the configuration")
        return settings

    def _forget_staging(self) -> None:
        self._landings.clear()

    def _forget_new_staging(self) -> None:
        for key in self._new:
            self._landings.pop(key, None)
        self._new.clear()

    # -- the transaction

    def _write(
        self, batch: ChangeBatch | None, marker: Marker, parts: Sequence[Staged], said: Said
    ) -> None:
        try:
            self._transact(batch, marker, parts, said, carefully=False)
        except _ValueRefused:
            self._transact(batch, marker, parts, said, carefully=True)

    def _transact(
        self,
        batch: ChangeBatch | None,
        marker: Marker,
        parts: Sequence[Staged],
        said: Said,
        *,
        carefully: bool,
    ) -> None:
        """One transaction; on any error nothing of it remains."""
        deed = Deed(list(said.quarantined))
        unit = marker.unit
        self._undecided = None
        replaying = self._replaying = None
        if batch is not None and said.replay is not None:
            replaying = self._replaying = Replaying(self._session, unit, said.replay, batch)
        with self._session.meaning(f"writing {unit.id}"):
            self._session.connect()  # a new connection has no staging tables: forget them now
            while len(self._landings) > STAGING_TABLES:
                _, oldest = self._landings.popitem(last=False)
                self._session.run(merge.drop_staging(oldest.staging))
            landings = [self._landing(part.schema, unit) for part in parts]
            self._new.clear()
            self._session.run(b"BEGIN", prepare=False)
            try:
                if carefully:
                    # Else a constraint may refuse the whole transaction at COMMIT.
                    self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
                faults.hit("before_marker")
                if batch is not None:
                    faults.hit("before_marker_of_rows")
                self._advance(marker)
                if marker.phase == Phase.DONE:
                    self._session.named("finish_runs", unit=unit.id)
                elif marker.phase is Phase.IDLE and unit.kind is UnitKind.POLL:
                    self._session.named("finish_poll", unit=unit.id)
                faults.hit("after_marker")
                if batch is None:
                    tried = self._deferral.finish(unit, {}, [], [], {}, marker.position)
                    deed.add(tried)
                    self._set_aside(unit, deed.aside, ChangeBatch([], _place(marker)))
                else:
                    states = self._lock_tables(batch, marker)
                    faults.hit("after_table_lock")
                    if replaying is not None:
                        replaying.lock()
                    self._land_all(batch, unit, parts, landings, states, deed, replaying, carefully)
                    self._set_aside(unit, deed.aside, batch)
                    self._note(unit, [*said.findings, *_waits(deed)], batch)
                    if replaying is not None:
                        replaying.settle()
                    faults.hit("after_quarantine")
                if marker.phase in (Phase.DONE, Phase.IDLE):
                    self._end_of_run(marker)
                faults.hit("before_commit")
            except BaseException as error:
                self._session.rollback()
                if not carefully and is_of_a_value(error):
                    raise _ValueRefused from error
                raise
            self._deed = deed
            try:
                self._commit(batch, marker)
            except psycopg.Error as error:
                if not carefully and is_of_a_value(error):  # a check that was put off until now
                    raise _ValueRefused from error
                raise
        faults.hit("after_commit")

    def _land_all(
        self,
        batch: ChangeBatch,
        unit: WorkUnit,
        parts: Sequence[Staged],
        landings: Sequence[Landing],
        states: Mapping[TableId, TableState],
        deed: Deed,
        replaying: Replaying | None,
        carefully: bool,
    ) -> None:
        """Each table's changes, then what waits for them."""
        written: list[tuple[Landing, Staged]] = []
        taken: dict[TableId, dict[str, int]] = {}
        states = dict(states)
        for place, (part, landing) in enumerate(zip(parts, landings, strict=True)):
            table = part.schema.table
            if landing in landings[:place]:  # a table that came up before
                self._run_all(merge.empty_staging(landing))
                if deed.waiting or taken:
                    kept = self._deferral.keep(unit, deed.waiting, taken, batch.end)
                    deed.add(kept)
                    deed.waiting, taken = [], {}
                    states[table] = replace(states[table], waiting=True)
            if replaying is not None:
                newest = states[table].truncated_at
                part = replaying.sift(part, landing, newest, carefully=carefully)
            elif states[table].waiting:
                of = schema_of_table(table, self._selection, unit)
                part, taken[table], lost = self._deferral.overrule(part, of)
                deed.aside += lost
            self._land(part, landing, states[table], deed, replaying, carefully=carefully)
            written.append((landing, part))
        tried = self._deferral.finish(unit, states, deed.waiting, written, taken, batch.end)
        deed.add(tried)

    def _end_of_run(self, marker: Marker) -> None:
        """A table without a key shows a run when it is whole."""
        settings = self._keyless(marker.unit)
        if settings is None:
            return
        if marker.phase is Phase.DONE:
            keyless.reveal(self._session, settings)
        else:
            keyless.must_be_whole(self._session, settings)

    def _advance(self, marker: Marker) -> None:
        """The compare-and-set that every transaction starts with (guarantee 2)."""
        moved = self._session.named(
            "advance_marker",
            unit=marker.unit.id,
            fence=marker.fence,
            batch=marker.batch,
            rows=marker.rows,
            phase=marker.phase.value,
            **markers.place(marker.position),
        )
        if moved.rowcount != 1:
            found = self._metadata.fence_of(marker.unit.id)
            raise FenceBehind(
                f"expected fence {marker.fence} and batch {marker.batch - 1}, found fence {found} "
                "or another batch; drop the unit",
                found=found,
                place=marker.unit.id,
            )

    def _lock_tables(self, batch: ChangeBatch, marker: Marker) -> dict[TableId, TableState]:
        """The tables' own rows: no DDL and no settling beside this transaction.

        Also makes the changes that a batch asks of them: reloads.
        """
        reloaded = [self._unit_of(table, marker) for table in batch.reload]
        if reloaded:
            self._metadata.remove_chunks(reloaded)
        changed = [self._unit_of(part.table, marker) for part in batch.changes if len(part)]
        units = {unit.id: unit.table for unit in (*changed, *reloaded) if unit.table}
        if not units:
            return {}
        truncates = any(Operation.TRUNCATE in part.operations for part in batch.changes)
        for unit in reloaded:
            self._metadata.add_table(unit)
        replays = marker.unit.kind is UnitKind.REPLAY
        rows = self._session.named(
            "lock_tables_alone" if truncates or batch.reload or replays else "lock_tables_shared",
            units=list(units),
        ).fetchall()
        states = {
            units[id_]: TableState(id_, epoch, Phase(phase), version, truncated_at, waiting)
            for id_, epoch, phase, version, truncated_at, waiting in rows
        }
        for part in batch.changes:
            if not len(part):
                continue
            state = states.get(part.table)
            expected = part.schema.version if part.schema else 0
            if state is None or state.schema_version != expected:
                found = state.schema_version if state else "no table"
                raise SchemaMoved(
                    f"expected schema version {expected}, found {found}; read the schema again",
                    place=str(part.table),
                )
            if marker.unit.kind == UnitKind.CHUNK and state.epoch != marker.epoch:
                raise FenceBehind(
                    f"expected a chunk of epoch {state.epoch}, found one of {marker.epoch}: the "
                    "table is being read anew; drop the unit",
                    found=marker.fence,
                    place=marker.unit.id,
                )
        if batch.reload:
            self._session.named("replan_tables", units=[unit.id for unit in reloaded])
        return states

    def _unit_of(self, table: TableId, marker: Marker) -> WorkUnit:
        """The table's own row, by the schema that the table is of."""
        return WorkUnit.of_table(schema_of_table(table, self._selection, marker.unit), table)

    def _land(
        self,
        part: Staged,
        landing: Landing,
        state: TableState,
        deed: Deed,
        replaying: Replaying | None,
        *,
        carefully: bool,
    ) -> None:
        """One table's changes; what is refused goes into the deed, when asked to find it out."""
        with _as_registered(part.schema.table):
            if part.truncated_at is not None and part.schema.key:
                self._truncate(landing, state, part.truncated_at, deed, carefully=carefully)
                state = replace(state, truncated_at=max(state.truncated_at, part.truncated_at))
            if len(part):
                self._land_rows(part, landing, state, deed, replaying, carefully=carefully)
            if part.truncated_at is not None and not part.schema.key:
                keyless.reveal(self._session, self._settings_of(part.schema.table))

    def _land_rows(
        self,
        part: Staged,
        landing: Landing,
        state: TableState,
        deed: Deed,
        replaying: Replaying | None,
        *,
        carefully: bool,
    ) -> None:
        if carefully:
            for refusal in self._careful.land(part, landing, state):
                row = waiting_of(part, refusal)
                if replaying is not None:  # it stays the row of the quarantine it is
                    replaying.refused([quarantined(row, refusal.reason)])
                elif refusal.waits and part.schema.key:
                    deed.waiting.append(row)
                else:
                    settings = self._selection(part.schema.table)
                    table = part.schema.table
                    must_have_quarantine(settings, table, row.key, refusal.reason)
                    deed.set_aside(quarantined(row, refusal.reason))
            return
        self._copy(part, landing)
        faults.hit("after_copy")
        self._merge(part, landing, state)

    def _truncate(
        self, landing: Landing, state: TableState, version: int, deed: Deed, *, carefully: bool
    ) -> None:
        """All rows up to a version; those that are still referred to go when they are not."""
        parameters = {"version": version}
        steps = merge.truncate(landing)
        if not carefully:
            self._run_all(steps, parameters)
        elif not self._careful.alone(steps, parameters):
            found = constraints.up_to_version()
            deed.waiting += self._still_needed(landing, state, found, parameters, version)
        self._session.named("raise_truncated_at", unit=state.unit, version=version)

    def _still_needed(
        self,
        landing: Landing,
        state: TableState,
        condition: sql.Composable,
        parameters: Mapping[str, Any],
        version: int | None = None,
    ) -> list[Waiting]:
        """Delete rows one by one; returns deletes that wait until nothing refers to the row."""
        return [
            replace(waiting_of(part, refusal), of_batch=False)
            for part, refused in self._careful.cleared(
                landing, state, condition, parameters, version=version
            )
            for refusal in refused
        ]

    def _settle_rows(self, marker: Marker) -> None:
        """The rows' part of settling a table, in the caller's transaction that excludes writers:
        tombstones and rows that a new snapshot did not find again go, and what waits and is
        overruled by one of them with it."""
        unit = marker.unit
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None:
            return
        landing = self._landing(schema, unit)
        state = TableState(
            unit.id, marker.epoch, marker.phase, marker.schema_version, marker.truncated_at
        )
        self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
        supersede_gone(self._session, landing, below=marker.sweep_below)
        deed = Deed()
        deed.add(self._deferral.clear_out(unit, state, schema.table, marker.sweep_below))
        steps = [(merge.purge(landing), constraints.is_tombstone())]
        if marker.sweep_below > -1:
            steps.append((merge.sweep(landing), constraints.below_version()))
        parameters = {"below": marker.sweep_below}
        for step, found in steps:
            if not self._careful.alone([step.as_bytes(None)], parameters):
                deed.waiting += self._still_needed(landing, state, found, parameters)
        deed.add(self._deferral.keep(unit, deed.waiting, {}, marker.position))
        self._set_aside(unit, deed.aside, ChangeBatch([], _place(marker)))

    def _count_as_older(self, unit: WorkUnit, newest: int) -> None:
        """The rows' part of a resync to another count of versions, in the caller's transaction."""
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None or not schema.key:  # without a key nothing is compared
            return
        step = merge.count_as_older(self._landing(schema, unit))
        self._session.run(step.as_bytes(None), {"newest": newest})

    def _copy(self, part: Staged, landing: Landing, numbers: Sequence[int] | None = None) -> None:
        """Rows into the staging table, by binary COPY; with numbers, all that tells them apart."""
        told = numbers is not None
        op, v = told or _mixed(part), told or _versions_differ(part)
        columns = [*part.cells]
        types = [OIDS[DUMPED_AS[column.kind]] for column in part.schema.columns]
        if op:
            columns.append(part.operations)
            types.append(OIDS["int2"])
        if v:
            columns.append(part.versions)
            types.append(OIDS["int8"])
        if part.kept is not None:
            columns.append(part.kept)
            types.append(OIDS["bytea"])
        if numbers is not None:
            columns.append(numbers)
            types.append(OIDS["int4"])
        [statement] = merge.copy_in(landing, op=op, v=v, kept=part.kept is not None, numbered=told)
        with self._session.connect().cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            write = copy.write_row
            for row in zip(*columns, strict=True):
                write(row)
            faults.hit("in_copy")

    def _merge(self, part: Staged, landing: Landing, state: TableState) -> None:
        """Staged rows into their table: deletes, whole ones, partial ones.

        Deletes first: a unique value that one of them frees may be what another row takes.
        """
        one_version = not _versions_differ(part)
        parameters = {"after": state.truncated_at, "version": part.versions[0]}
        if not part.schema.key:
            step = keyless.append(landing, one_version=one_version)
            self._run_all([step.as_bytes(None)], parameters)
            faults.hit("after_merge")
            return
        present = frozenset(part.operations)
        mixed = _mixed(part)
        if Operation.DELETE in present:
            settled = state.phase == Phase.STREAMING
            deletes = merge.delete(
                landing, settled=settled, all_rows=not mixed, one_version=one_version
            )
            self._run_all(deletes, parameters)
            supersede_deleted(self._session, part)
        faults.hit("after_deletes")
        steps: list[bytes] = []
        for group in (_STREAMED, _READS):
            if met := present & group:
                steps += merge.upsert(
                    landing,
                    operations=met if mixed else None,
                    reads=group is _READS,
                    one_version=one_version,
                    left_out=part.left_out,
                )
        if PARTIAL in present:
            steps += merge.partial(landing, one_version=one_version, left_out=part.left_out)
        self._run_all(steps, parameters)
        faults.hit("after_merge")

    def _run_all(self, steps: Sequence[bytes], parameters: Mapping[str, Any] = _NO) -> None:
        for step in steps:
            self._session.run(step, parameters)

    def _set_aside(
        self, unit: WorkUnit, rows: Sequence[QuarantinedRow], batch: ChangeBatch
    ) -> None:
        if not rows:
            return
        with self._session.connect().cursor() as cursor:
            cursor.executemany(
                self._session.statement("set_aside"),
                [
                    {
                        "unit": unit.id,
                        "schema": schema_of_table(row.table, self._selection, unit),
                        "namespace": row.table.namespace,
                        "table": row.table.name,
                        "key": storable(row.key),
                        "operation": chr(row.operation),
                        "row": storable(row.row),
                        "reason": storable(row.reason),
                        "code": row.code,
                        "version": row.version,
                        "kinds": Jsonb(dict(row.kinds)),
                        "partial": row.partial,
                        "column": storable(row.column),
                        **markers.place(row.position or batch.end),
                    }
                    for row in rows
                ],
            )

    def _note(self, unit: WorkUnit, findings: Sequence[Finding], batch: ChangeBatch) -> None:
        if not findings:
            return
        with self._session.connect().cursor() as cursor:
            # In one order, so that two units never wait for each other's line in a circle.
            lines = sorted(
                (
                    _line(unit, schema_of_table(found.table, self._selection, unit), found, batch)
                    for found in findings
                ),
                key=_by_finding,
            )
            cursor.executemany(self._session.statement("note_finding"), lines)

    # -- the outcome

    def _commit(self, batch: ChangeBatch | None, marker: Marker) -> None:
        """COMMIT; where the connection did not tell its outcome, the marker does (guarantee 7)."""
        try:
            self._session.run(b"COMMIT", prepare=False)
        except psycopg.Error as error:
            if not self._session.lost:
                self._session.rollback()
                raise
            self._undecided = (batch, marker)
            if not self._was_committed(batch, marker):
                raise DestinationUnavailable(
                    "the connection was lost at COMMIT and the transaction did not happen; "
                    "write the batch again",
                    place=marker.unit.id,
                ) from error

    def _was_committed(self, batch: ChangeBatch | None, marker: Marker) -> bool:
        """Did an earlier attempt at this very batch, whose outcome nobody told, succeed?"""
        if self._undecided is None:
            return False
        attempted, wanted = self._undecided
        if attempted is not batch or wanted != marker:
            self._undecided = None
            return False
        with self._session.meaning(f"asking for the outcome of a commit of {marker.unit.id}"):
            row = self._session.named("read_marker", unit=marker.unit.id).fetchone()
        self._undecided = None
        if row is None:
            return False
        stored = markers.from_row(row)
        return stored.fence == marker.fence and stored.batch == marker.batch

    def _refused(self, message: str) -> DestinationRefused:
        return DestinationRefused(message, place=self._session.place)


class _Writes:
    """What `Careful` asks of the destination; looked up when used, so that tests can replace it."""

    def __init__(self, destination: PostgresDestination) -> None:
        self._destination = destination

    def copy(self, part: Staged, landing: Landing, numbers: Sequence[int] | None = None) -> None:
        self._destination._copy(part, landing, numbers)

    def merge(self, part: Staged, landing: Landing, state: TableState) -> None:
        self._destination._merge(part, landing, state)


@contextmanager
def _as_registered(table: TableId) -> Iterator[None]:
    """A statement that finds other columns than the registry tells says that the schema moved."""
    try:
        yield
    except (
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidColumnReference,
        psycopg.errors.DatatypeMismatch,
    ) as error:
        raise SchemaMoved(
            f"the table is not as it was registered: {error.diag.message_primary}",
            place=str(table),
        ) from error


def _place(marker: Marker) -> Position:
    return marker.position or Position("")


def _waits(deed: Deed) -> list[Finding]:
    """A line of the error log for each table and constraint that made rows wait."""
    found: dict[tuple[TableId, str, str], list[Waiting]] = {}
    for row in deed.deferred:
        what = (row.schema.table, row.refusal.constraint, row.refusal.code)
        found.setdefault(what, []).append(row)
    return [
        Finding(table, "", Outcome.DEFERRED, code, constraint, len(rows), rows[0].key)
        for (table, constraint, code), rows in found.items()
    ]


_READS: Final = frozenset({Operation.READ.value})
_STREAMED: Final = frozenset({Operation.CREATE.value, Operation.UPDATE.value})


def _line(unit: WorkUnit, schema: str, found: Finding, batch: ChangeBatch) -> dict[str, Any]:
    """A finding as a line of the error log."""
    what = f"expected {found.expected}, found {found.met}"
    return {
        "code": f"CELL-{found.outcome.value}",
        "message": storable(f"{what}: {found.original}" if found.original else what),
        "unit": unit.id,
        "schema": schema,
        "namespace": found.table.namespace,
        "table": found.table.name,
        "column": storable(found.column),
        "key": storable(found.key),
        "position": batch.end.token,
        "action": found.outcome.value,
        "finding": storable(
            "\x1f".join((str(found.table), found.column, found.outcome, found.met, found.expected))
        ),
        "cells": found.cells,
        "original_length": found.original_length,
    }


def _by_finding(line: Mapping[str, Any]) -> str:
    return str(line["finding"])


def _mixed(part: Staged) -> bool:
    """Must the merge tell the staged rows apart?"""
    met = set(part.operations)
    return not (met <= _READS or met <= _STREAMED or met == {Operation.DELETE.value})


def _versions_differ(part: Staged) -> bool:
    return part.versions[0] != part.versions[-1] or len(set(part.versions)) > 1
