"""The write transaction: marker first, then rows, quarantine and audit, then COMMIT.

Everything that can be decided or converted before BEGIN is; what is left inside is short, because
the marker's and the table's locks are held for it.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from warp import faults, stored
from warp.compact import compact
from warp.destinations.postgresql import ddl, markers, merge
from warp.destinations.postgresql.carriers import DUMPED_AS, PARTIAL, Staged, stage
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.quarantine import Replaying, supersede_deleted
from warp.destinations.postgresql.session import (
    MINIMUM_VERSION,
    OIDS,
    PostgresOptions,
    Session,
    storable,
)
from warp.errors import DestinationRefused, DestinationUnavailable, FenceBehind, SchemaMoved
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Finding,
    Lease,
    Marker,
    Operation,
    Phase,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.options import redact

# A commit empties every staging table of its session, so there must not be too many.
STAGING_TABLES: Final = 64

# 21 two rows of one statement for one key, 22 values, 23 constraints, 54 index row too large
_VALUE_CLASSES: Final = frozenset({"21", "22", "23", "54"})
_OF_A_VALUE: Final = (psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError)
_NO: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class TableState:
    """A table's own marker row, as a write transaction finds and locks it."""

    unit: str
    epoch: int
    phase: Phase
    schema_version: int
    truncated_at: int


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about a batch beside its rows."""

    quarantined: Sequence[QuarantinedRow] = ()
    findings: Sequence[Finding] = ()
    replay: Replay | None = None


NOTHING_SAID: Final = Said()


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
        self._metadata = PostgresMetadata(self._session, selection)
        # By table, version, kinds and unit; the one not used for the longest time first.
        self._landings: OrderedDict[tuple[Any, ...], Landing] = OrderedDict()
        self._staging_made = 0
        self._aside: list[QuarantinedRow] = []  # by the last write
        self._replaying: Replaying | None = None  # the rows of the last write out of quarantine
        # What a lost connection left open: whether this batch with this marker was committed.
        self._undecided: tuple[ChangeBatch | None, Marker] | None = None

    # -- the connector

    def check(self) -> None:
        """Version, encoding, writability and rights, each with the statement that mends it."""
        with self._session.meaning("checking the destination"):
            found = self._session.run(
                b"select pg_catalog.current_setting('server_version_num')::int,"
                b" pg_catalog.current_setting('server_encoding'), pg_catalog.pg_is_in_recovery(),"
                b" pg_catalog.has_database_privilege(current_database(), 'CREATE'),"
                b" pg_catalog.has_database_privilege(current_database(), 'TEMPORARY'),"
                b" current_database(), current_user"
            ).fetchone()
        if found is None:
            raise AssertionError("a select without a table has one row")
        version, encoding, standby, create, temporary, database, user = found
        database_name, user_name = (sql.Identifier(n).as_string(None) for n in (database, user))
        if version < MINIMUM_VERSION:
            raise self._refused(f"expected PostgreSQL 13 or later, found {version // 10000}")
        if encoding != "UTF8":
            raise self._refused(f"expected a database in UTF8, found {encoding}; create another")
        if standby:
            raise self._refused("expected a primary, found a standby; connect to the primary")
        for right, given in (("CREATE", create), ("TEMPORARY", temporary)):
            if not given:
                raise self._refused(
                    f"expected the right {right} on the database, found it missing; run: "
                    f"GRANT {right} ON DATABASE {database_name} TO {user_name}"
                )

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

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return ddl.current(self._session, settings)

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        for change in changes:
            settings = self._selection(change.table)
            if settings is None:
                raise self._refused(f"{change.table} is not selected by the configuration")
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
            said = Said(quarantined, findings, replay)
            try:
                self._transact(batch, marker, parts, said, carefully=False)
            except _ValueRefused:
                self._transact(batch, marker, parts, said, carefully=True)
        counts: Counter[tuple[TableId, Operation]] = Counter()
        for changes in batch.changes:
            for code in set(changes.operations):
                counts[changes.table, Operation(code)] += changes.operations.count(code)
        for row in self._aside[len(quarantined) :]:  # these were among the batch's rows
            counts[row.table, row.operation] -= 1
        for what in self._replaying.unlanded if self._replaying else ():
            counts[what] -= 1
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(row.table for row in self._aside if not row.column),
            seconds=time.monotonic() - started,
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._was_committed(None, marker):
            self._transact(None, marker, [], NOTHING_SAID, carefully=False)

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
        settings = self._selection(schema.table)
        if settings is None:
            raise self._refused(f"{schema.table} is not selected by the configuration")
        self._staging_made += 1
        made = Landing(
            schema,
            settings.destination,
            f"cw_{self._staging_made}",
            settings.soft_delete_column,
            self._options.metadata_schema,
            unit.id,
        )
        self._session.run(merge.staging_table(made.staging, kinds))
        self._landings[key] = made
        return made

    def _forget_staging(self) -> None:
        self._landings.clear()

    # -- the transaction

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
        aside = list(said.quarantined)
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
            self._session.run(b"BEGIN", prepare=False)
            try:
                faults.hit("before_marker")
                if batch is not None:
                    faults.hit("before_marker_of_rows")
                self._advance(marker)
                if marker.phase == Phase.DONE:
                    self._session.named("finish_runs", unit=unit.id)
                faults.hit("after_marker")
                if batch is not None:
                    states = self._lock_tables(batch, marker)
                    faults.hit("after_table_lock")
                    if replaying is not None:
                        replaying.lock()
                    for place, (part, landing) in enumerate(zip(parts, landings, strict=True)):
                        if landing in landings[:place]:  # a table that came up before
                            self._run_all(merge.empty_staging(landing))
                        state = states[part.schema.table]
                        if replaying is not None:
                            newest = state.truncated_at
                            part = replaying.sift(part, landing, newest, carefully=carefully)
                        refused = self._land(part, landing, state, carefully=carefully)
                        if replaying is not None:
                            replaying.refused(refused)
                        else:
                            aside += refused
                    self._set_aside(unit, aside, batch)
                    self._note(unit, said.findings, batch)
                    if replaying is not None:
                        replaying.settle()
                    faults.hit("after_quarantine")
                faults.hit("before_commit")
            except BaseException as error:
                self._session.rollback()
                if not carefully and _is_of_a_value(error):
                    raise _ValueRefused from error
                raise
            self._aside = aside
            self._commit(batch, marker)
        faults.hit("after_commit")

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
        schema = marker.unit.schema
        if batch.reload:
            self._metadata.remove_chunks(schema, batch.reload)
        units = {
            WorkUnit.of_table(schema, table).id: table
            for table in (*(part.table for part in batch.changes if len(part)), *batch.reload)
        }
        if not units:
            return {}
        truncates = any(Operation.TRUNCATE in part.operations for part in batch.changes)
        for table in batch.reload:
            self._metadata.add_table(schema, table)
        replays = marker.unit.kind is UnitKind.REPLAY
        rows = self._session.named(
            "lock_tables_alone" if truncates or batch.reload or replays else "lock_tables_shared",
            units=list(units),
        ).fetchall()
        states = {
            units[id_]: TableState(id_, epoch, Phase(phase), version, truncated_at)
            for id_, epoch, phase, version, truncated_at in rows
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
            self._session.named(
                "replan_tables",
                units=[WorkUnit.of_table(schema, table).id for table in batch.reload],
            )
        return states

    def _land(
        self, part: Staged, landing: Landing, state: TableState, *, carefully: bool
    ) -> list[QuarantinedRow]:
        """One table's changes.  Returns what cannot be stored, when asked to find out."""
        try:
            if part.truncated_at is not None:
                self._run_all(merge.truncate(landing), {"version": part.truncated_at})
                self._session.named(
                    "raise_truncated_at",
                    unit=state.unit,
                    version=part.truncated_at,
                )
                state = replace(state, truncated_at=max(state.truncated_at, part.truncated_at))
            if not len(part):
                return []
            if carefully:
                return self._land_one_by_one(part, landing, state, 0, len(part))
            self._copy(part, landing)
            faults.hit("after_copy")
            self._merge(part, landing, state)
            return []
        except (
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedTable,
            psycopg.errors.InvalidColumnReference,
            psycopg.errors.DatatypeMismatch,
        ) as error:
            raise SchemaMoved(
                f"the table is not as it was registered: {error.diag.message_primary}",
                place=str(part.schema.table),
            ) from error

    def _copy(self, part: Staged, landing: Landing) -> None:
        """Rows into the staging table, by binary COPY."""
        op, v = _mixed(part), _versions_differ(part)
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
        [statement] = merge.copy_in(landing, op=op, v=v, kept=part.kept is not None)
        with self._session.connect().cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            write = copy.write_row
            for row in zip(*columns, strict=True):
                write(row)
            faults.hit("in_copy")

    def _merge(self, part: Staged, landing: Landing, state: TableState) -> None:
        """Staged rows into their table: whole ones, partial ones, deletes."""
        one_version = not _versions_differ(part)
        parameters = {"after": state.truncated_at, "version": part.versions[0]}
        present = frozenset(part.operations)
        mixed = _mixed(part)
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
        if Operation.DELETE in present:
            settled = state.phase == Phase.STREAMING
            steps = merge.delete(
                landing, settled=settled, all_rows=not mixed, one_version=one_version
            )
            self._run_all(steps, parameters)
            supersede_deleted(self._session, part)
        faults.hit("after_deletes")

    def _run_all(self, steps: Sequence[bytes], parameters: Mapping[str, Any] = _NO) -> None:
        for step in steps:
            self._session.run(step, parameters)

    def _land_one_by_one(
        self, part: Staged, landing: Landing, state: TableState, start: int, stop: int
    ) -> list[QuarantinedRow]:
        """Halve the rows until each that cannot be stored stands alone; the rest lands."""
        some = part.part(start, stop)
        self._session.run(b"SAVEPOINT land")
        try:
            self._copy(some, landing)
            self._merge(some, landing, state)
            self._run_all(merge.empty_staging(landing))
        except BaseException as error:
            if not _is_of_a_value(error) or self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT land")
            refused = error
        else:
            self._session.run(b"RELEASE SAVEPOINT land")
            return []
        if stop - start == 1:
            return [self._refused_row(part, start, refused)]
        middle = (start + stop) // 2
        first = self._land_one_by_one(part, landing, state, start, middle)
        return first + self._land_one_by_one(part, landing, state, middle, stop)

    def _refused_row(self, part: Staged, row: int, error: BaseException) -> QuarantinedRow:
        schema = part.schema
        cells = [column[row] for column in part.carriers]
        code = part.operations[row]
        reason = str(error)
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        key = stored.dump(schema.columns, cells, schema.key)
        settings = self._selection(schema.table)
        aside_already = self._replaying is not None
        if settings is not None and not settings.dead_letter_queue and not aside_already:
            raise DestinationRefused(
                f"a row cannot be stored and dead_letter_queue is off: {redact(reason)}; "
                "mend the row at the source or turn the dead letter queue on",
                place=f"{schema.table} {key}",
            )
        return QuarantinedRow(
            table=schema.table,
            key=key,
            operation=Operation.UPDATE if code == PARTIAL else Operation(code),
            row=stored.dump(schema.columns, cells),
            reason=reason,
            code=f"SQLSTATE {sqlstate}" if sqlstate else type(error).__name__,
            version=part.versions[row],
            kinds=stored.kinds_of(schema.columns),
            partial=code == PARTIAL,
        )

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
            lines = sorted((_line(unit, found, batch) for found in findings), key=_by_finding)
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


_READS: Final = frozenset({Operation.READ.value})
_STREAMED: Final = frozenset({Operation.CREATE.value, Operation.UPDATE.value})


def _line(unit: WorkUnit, found: Finding, batch: ChangeBatch) -> dict[str, Any]:
    """A finding as a line of the error log."""
    what = f"expected {found.expected}, found {found.met}"
    return {
        "code": f"CELL-{found.outcome.value}",
        "message": storable(f"{what}: {found.original}" if found.original else what),
        "unit": unit.id,
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


def _is_of_a_value(error: BaseException) -> bool:
    """Is it one row's fault, so that the others can land without it?"""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate[:2] in _VALUE_CLASSES
    return isinstance(error, _OF_A_VALUE)
