"""The bookkeeping beside the data: markers, plans, runs, errors, errands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pymysql

from warp import metadata_rows
from warp.destinations.mysql import ddl, markers, quarantine
from warp.destinations.mysql.errors import DUPLICATE, code_of
from warp.destinations.mysql.names import quoted
from warp.destinations.mysql.session import Session, storable
from warp.errors import DestinationRefused, DestinationUnavailable
from warp.model import (
    Choice,
    Chunk,
    ErrorLine,
    Intent,
    Lease,
    Marker,
    Phase,
    Position,
    SetAside,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
    schema_of,
)
from warp.sql import migrations

PREPARE_SECONDS = 60  # to wait for another process that prepares the metadata


class MysqlMetadata:
    """`cartridge_warp_metadata`, over the destination's own connection."""

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        settle_rows: Callable[[Marker], None],
        count_as_older: Callable[[WorkUnit, int], None],
    ) -> None:
        self._session = session
        self._selection = selection
        self._settle_rows = settle_rows
        self._count_as_older = count_as_older

    # -- the database itself

    def prepare(self) -> None:
        """No migration of this server is undone when it fails, so each statement of one may be
        made again, and a step counts when all of its statements are."""
        steps = migrations("mysql_destination")
        with self._session.meaning("preparing the metadata database"):
            if self._version() == steps[-1].version:
                return
            meta = self._session.meta
            # Released by the end of the connection, so a killed process leaves nothing behind.
            lock = f"cartridge-warp {sha256(meta.encode()).hexdigest()[:32]}"
            answer = self._session.run(
                "select get_lock(%(lock)s, %(seconds)s)", {"lock": lock, "seconds": PREPARE_SECONDS}
            )
            if answer.rows != ((1,),):
                raise DestinationUnavailable(
                    f"another process has been preparing {meta} for {PREPARE_SECONDS} s; it is "
                    "tried again",
                    place=self._session.place,
                )
            try:
                self._prepare()
            finally:
                if not self._session.lost:
                    self._session.run("select release_lock(%(lock)s)", {"lock": lock})

    def _prepare(self) -> None:
        steps = migrations("mysql_destination")
        meta = self._session.meta
        if self._session.named("look_at_schema", schema=meta).first() is None:
            self._session.run(
                f"create database if not exists {quoted(meta)}"
                f" default character set utf8mb4 collate {self._session.collation}"
            )
        self._session.named("create_schema_version")
        have = self._version() or 0
        if have > steps[-1].version:
            raise DestinationRefused(
                f"expected metadata of version {steps[-1].version} or older, found version "
                f"{have}: a newer cartridge-warp works here; upgrade this one",
                place=f"{self._session.place} {meta}",
            )
        for step in steps[have:]:
            for statement in filter(None, map(str.strip, step.text.split(";\n"))):
                self._session.run(self._session.compose(statement.rstrip(";")))
            self._session.run(
                f"insert into {quoted(meta, 'schema_version')} (version, name)"
                " values (%(version)s, %(name)s)",
                {"version": step.version, "name": step.name},
            )

    def prepared(self) -> bool:
        with self._session.meaning("looking for the metadata database"):
            return self._version() is not None

    def _version(self) -> int | None:
        """The newest migration applied; None where there is no metadata yet."""
        found = self._session.named(
            "table_kind", namespace=self._session.meta, table="schema_version"
        ).first()
        if found is None:
            return None
        row = self._session.named("read_schema_version").first()
        return None if row is None else row[0]

    # -- markers

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        with self._session.meaning(f"registering {unit.id}"):
            return self._add(unit, position=position, phase=phase)

    def _add(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        return ddl.add_marker(
            self._session, unit, position=position, phase=phase, epoch=metadata_rows.epoch_of(unit)
        )

    def add_table(self, table: WorkUnit) -> None:
        """The table's own row, in the caller's transaction, unless it is there."""
        self._add(table, position=None, phase=Phase.PLANNED)

    def fence_of(self, unit_id: str) -> int:
        """The committed fence of a unit; 0 where it has no marker."""
        row = self._session.named("peek_fence", unit=unit_id).first()
        return row[0] if row else 0

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        with self._session.meaning("reading the markers"):
            rows = self._session.named(
                "read_markers", any_kind=not kinds, kinds=[kind.value for kind in kinds]
            ).rows
            return [markers.from_row(row) for row in rows]

    def mark(self, unit_id: str, phase: Phase) -> None:
        with self._session.meaning(f"marking {unit_id} {phase}"):
            self._session.named("mark", unit=unit_id, phase=phase.value)

    # -- snapshots

    def plan_snapshot(
        self, schema: str, table: TableId, chunks: Sequence[Chunk], *, version: int
    ) -> bool:
        with self._session.transaction(f"planning the snapshot of {table}"):
            self.add_table(WorkUnit.of_table(schema, table))
            state = self._lock(schema, table)
            if state.phase != Phase.PLANNED:
                return False
            for chunk in chunks:
                unit = WorkUnit.of_chunk(schema, chunk, state.epoch)
                self._add(unit, position=None, phase=Phase.PLANNED)
            # A first snapshot sweeps nothing: there is no earlier one whose rows could be gone.
            self._session.named(
                "plan_table", unit=state.unit.id, version=version if state.epoch else -1
            )
        return True

    def settle(self, schema: str, table: TableId) -> bool:
        with self._session.transaction(f"settling {table}", patient=True):
            state = self._lock(schema, table)
            if state.phase != Phase.SNAPSHOT:
                return False
            unfinished = self._session.named(
                "unfinished_chunk",
                schema=schema,
                namespace=table.namespace,
                table=table.name,
                epoch=state.epoch,
            ).first()
            if unfinished is not None:
                return False
            if self._selection(table) is None:
                raise DestinationRefused(
                    f"expected a table of the configuration, found {table}; settle it with a "
                    "destination of its schema, which knows where it lies",
                    place=state.unit.id,
                )
            self._settle_rows(state)
            self._session.named("settle_table", unit=state.unit.id)
        return True

    def _lock(self, schema: str, table: TableId) -> Marker:
        """The table's row, with no writer beside us; an unwritten one where there is none."""
        unit = WorkUnit.of_table(schema, table)
        row = self._session.named("read_marker", unit=unit.id).first()
        return Marker(unit) if row is None else markers.from_row(row)

    def remove_chunks(self, tables: Sequence[WorkUnit]) -> None:
        """In the caller's transaction, before it locks the tables' own rows."""
        for unit in sorted(tables, key=lambda unit: unit.id):
            where = {
                "schema": unit.schema,
                "namespace": unit.table.namespace if unit.table else "",
                "table": unit.table.name if unit.table else "",
            }
            self._session.named("abandon_chunk_runs", **where)
            self._session.named("remove_chunks", **where)

    def follow(self, stream: WorkUnit, follows: str, *, left: Sequence[WorkUnit]) -> bool:
        with self._session.transaction(f"saying what {stream.id} follows"):
            changed = self._session.named("follow", unit=stream.id, follows=follows).rowcount
            if changed:
                self.remove_chunks(left)
                self._session.named("replan_tables", units=sorted(unit.id for unit in left))
        return bool(changed)

    def resync(
        self,
        schema: str,
        table: TableId | None,
        *,
        position: Position,
        stream: WorkUnit | None = None,
        newest: int | None = None,
    ) -> list[WorkUnit]:
        place = {
            "schema": schema,
            "namespace": table.namespace if table else None,
            "table": table.name if table else None,
        }
        moves = table is None and stream is None
        stream = stream or WorkUnit.stream(schema)
        with self._session.transaction(f"starting {table or schema} over", patient=True):
            again = []
            # Units first, tables last: the order in which writers take the same locks.
            moved = self._session.named(
                "resync_stream", unit=stream.id, moves=moves, **metadata_rows.place(position)
            )
            if moved.rowcount:
                again.append(stream)
            for namespace, table_name in self._session.named("polls_of", **place).rows:
                again.append(WorkUnit.poll(schema, TableId(namespace, table_name)))
            self._session.named("resync_polls", **place)
            tables = [table] if table else self._tables(schema)
            self.remove_chunks([WorkUnit.of_table(schema, one) for one in tables])
            if table is not None:
                self.add_table(WorkUnit.of_table(schema, table))
            self._session.named("resync_tables", **place)
            if newest is not None:
                for one in tables:
                    self._count_all_as_older(WorkUnit.of_table(schema, one), one, newest)
        return again

    def _count_all_as_older(self, unit: WorkUnit, table: TableId, newest: int) -> None:
        self._count_as_older(unit, newest)
        where = {"namespace": table.namespace, "table": table.name, "newest": newest}
        self._session.named("count_quarantine_as_older", **where)
        self._session.named("count_audit_as_older", **where)
        self._session.named("count_marker_as_older", unit=unit.id, newest=newest)

    def _tables(self, schema: str) -> list[TableId]:
        rows = self._session.named("tables_of_schema", schema=schema).rows
        return [TableId(namespace, table) for namespace, table in rows]

    # -- runs, errors, errands

    def begin_run(self, lease: Lease, run: str, *, slot: float | None = None) -> None:
        unit = lease.unit
        with self._session.transaction(f"beginning a run of {unit.id}"):
            self._session.named("abandon_runs", unit=unit.id, run=run)
            self._session.named(
                "begin_run",
                run=run,
                unit=unit.id,
                schema=unit.schema,
                namespace=unit.table.namespace if unit.table else None,
                table=unit.table.name if unit.table else None,
                worker=lease.owner,
                fence=lease.fence,
                slot=slot,
            )

    def slot_taken(self, unit_id: str, slot: float) -> bool:
        with self._session.meaning(f"asking for the last run of {unit_id}"):
            return self._session.named("slot_taken", unit=unit_id, slot=slot).first() is not None

    def end_run(self, run: str, *, status: str, rows: int, error: str = "") -> None:
        with self._session.meaning(f"ending run {run}"):
            self._session.named("end_run", run=run, status=status, rows=rows, error=storable(error))

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
        with self._session.meaning("writing to the error log"):
            self._session.named(
                "log_error",
                code=code,
                error_class=error_class,
                message=storable(message),
                schema=schema_of(unit, table) if unit else "",
                unit=unit,
                run=run,
                namespace=table.namespace if table else None,
                table=table.name if table else None,
                column=storable(column),
                key=storable(key),
                position=position.token if position else None,
                action=storable(action),
            )

    def add_errand(self, id: str, name: str, arguments: Mapping[str, Any]) -> None:
        with self._session.meaning(f"storing the errand {name}"):
            try:
                self._session.named(
                    "add_errand", id=id, name=name, arguments=json.dumps(dict(arguments))
                )
            except pymysql.err.IntegrityError as error:
                if code_of(error) != DUPLICATE:
                    raise

    def open_errands(self) -> list[tuple[str, str, dict[str, Any]]]:
        with self._session.meaning("reading the open errands"):
            return [(i, n, json.loads(a)) for i, n, a in self._session.named("open_errands").rows]

    def end_errand(self, id: str, *, status: str, result: str = "") -> None:
        with self._session.meaning(f"ending the errand {id}"):
            self._session.named("end_errand", id=id, status=status, result=storable(result))

    def errands(self, id: str | None = None) -> list[Intent]:
        with self._session.meaning("reading the errands"):
            return [
                Intent(id_, name, json.loads(arguments), *rest)
                for id_, name, arguments, *rest in self._session.named("read_errands", id=id).rows
            ]

    def quarantined(self) -> dict[TableId, int]:
        with self._session.meaning("counting the rows in quarantine"):
            rows = self._session.named("count_quarantined").rows
            return {TableId(namespace, table): count for namespace, table, count in rows}

    def deferred(self) -> dict[TableId, int]:
        """None ever: foreign keys are not checked by our sessions."""
        return {}

    # -- quarantine

    def quarantine(self, choice: Choice) -> list[SetAside]:
        with self._session.meaning("reading the quarantine"):
            rows = self._session.named("read_quarantine", **quarantine.chosen(choice)).rows
            return [quarantine.set_aside(row) for row in rows]

    def replay(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        unit = WorkUnit.of_replay(schema, table)
        with self._session.transaction(f"marking rows of {table} for replay"):
            # The marker first, as in the transaction that lands the rows.
            self._add(unit, position=None, phase=Phase.PLANNED)
            self._session.named("mark_replay", unit=unit.id)
            return self._session.named(
                "mark_replaying",
                ids=list(ids),
                schema=schema,
                namespace=table.namespace,
                table=table.name,
            ).rowcount

    def to_replay(self, schema: str, table: TableId, limit: int) -> list[SetAside]:
        with self._session.meaning(f"reading the rows of {table} to replay"):
            sizes = self._session.named(
                "sizes_to_replay",
                schema=schema,
                namespace=table.namespace,
                table=table.name,
                limit=limit,
            ).rows
            ids = quarantine.ids_within((id, size) for id, size in sizes)
            rows = self._session.named("rows_to_replay", ids=ids).rows
            return [quarantine.set_aside(row) for row in rows]

    def discard(self, ids: Sequence[int]) -> int:
        with self._session.meaning("discarding rows of the quarantine"):
            return self._session.named("discard_quarantined", ids=list(ids)).rowcount

    def errors(self, choice: Choice) -> list[ErrorLine]:
        with self._session.meaning("reading the error log"):
            rows = self._session.named("read_errors", **quarantine.chosen(choice)).rows
            return [metadata_rows.error_line(row) for row in rows]
