"""The bookkeeping beside the data: markers, plans, runs, errors, errands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from warp import key_range, metadata_rows
from warp.destinations.sql import markers, quarantine
from warp.destinations.sql.session import Session
from warp.errors import DestinationRefused
from warp.model import (
    Choice,
    Chunk,
    CutShort,
    ErrorLine,
    Intent,
    KeySpan,
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

S = TypeVar("S", bound=Session)


class SqlMetadata(ABC, Generic[S]):
    """`cartridge_warp_metadata`, over the destination's own connection."""

    def __init__(
        self,
        session: S,
        selection: TableSelection,
        settle_rows: Callable[[Marker], None],
        count_as_older: Callable[[WorkUnit, int], None],
    ) -> None:
        self._session = session
        self._selection = selection
        self._settle_rows = settle_rows
        self._count_as_older = count_as_older

    # -- what each server does in its own way

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def _version(self) -> int | None:
        """The newest migration applied; None where there is no metadata yet."""

    @abstractmethod
    def add(
        self,
        unit: WorkUnit,
        *,
        phase: Phase = Phase.PLANNED,
        position: Position | None = None,
        epoch: int | None = None,
    ) -> bool:
        """A unit's first marker; False where it has one."""

    @abstractmethod
    def remove_chunks(self, tables: Sequence[WorkUnit]) -> None:
        """In the caller's transaction, before it locks the tables' own rows."""

    @abstractmethod
    def _count_beside_as_older(self, unit: WorkUnit, table: TableId, newest: int) -> None:
        """What the metadata keeps of a table's versions, as if those from `newest` on were of the
        one before it."""

    # -- markers

    def prepared(self) -> bool:
        with self._session.meaning("looking for the metadata"):
            return self._version() is not None

    def _too_new(self, have: int, known: int, place: str) -> DestinationRefused:
        return DestinationRefused(
            f"expected metadata of version {known} or older, found version "
            f"{have}: a newer cartridge-warp works here; upgrade this one",
            place=f"{self._session.place} {place}",
        )

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        with self._session.meaning(f"registering {unit.id}"):
            return self.add(unit, position=position, phase=phase)

    def add_table(self, table: WorkUnit) -> None:
        """The table's own row, in the caller's transaction, unless it is there."""
        self.add(table)

    def fence_of(self, unit_id: str) -> int:
        """The committed fence of a unit; 0 where it has no marker."""
        row = self._session.named("peek_fence", unit=unit_id).fetchone()
        return row[0] if row else 0

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        with self._session.meaning("reading the markers"):
            rows = self._session.named(
                "read_markers", any_kind=not kinds, kinds=[kind.value for kind in kinds]
            ).fetchall()
            return [markers.from_row(self._session, row) for row in rows]

    def mark(self, unit_id: str, phase: Phase, *, seen: int | None = None) -> bool:
        with self._session.meaning(f"marking {unit_id} {phase}"):
            found = self._session.named("mark", unit=unit_id, phase=phase.value, seen=seen)
        return bool(found.rowcount)

    # -- snapshots

    def plan_snapshot(
        self, schema: str, table: TableId, chunks: Sequence[Chunk], *, version: int
    ) -> bool:
        return self._plan(schema, table, chunks, version)

    def plan_range(
        self,
        schema: str,
        table: TableId,
        chunks: Sequence[Chunk],
        within: KeySpan,
        *,
        version: int,
    ) -> bool:
        return self._plan(schema, table, chunks, version, within)

    def _plan(
        self,
        schema: str,
        table: TableId,
        chunks: Sequence[Chunk],
        version: int,
        within: KeySpan | None = None,
    ) -> bool:
        with self._session.transaction(f"planning the snapshot of {table}"):
            self.add_table(WorkUnit.of_table(schema, table))
            state = self._lock(schema, table)
            if state.phase != Phase.PLANNED:
                return False
            # Chunks of a range would leave out rows of a table that is to be read whole by now.
            if within is not None and state.within != within:
                return False
            for chunk in chunks:
                self.add(WorkUnit.of_chunk(schema, chunk, state.epoch))
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
            ).fetchone()
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
        row = self._session.named("read_marker", unit=unit.id).fetchone()
        return Marker(unit) if row is None else markers.from_row(self._session, row)

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
            for namespace, table_name in self._session.named("polls_of", **place).fetchall():
                again.append(WorkUnit.poll(schema, TableId(namespace, table_name)))
            self._session.named("resync_polls", **place)
            tables = [table] if table else self._tables(schema)
            self.remove_chunks([WorkUnit.of_table(schema, one) for one in tables])
            if table is not None:
                self.add_table(WorkUnit.of_table(schema, table))
            self._session.named("resync_tables", **place)
            if newest is not None:
                self._count_all_as_older(schema, tables, newest)
        return again

    def begin_history(self, stream: WorkUnit, schema: str, newest: int) -> None:
        """As `warp.digest.seams.Verifications`."""
        with self._session.transaction(f"beginning another history of {schema}", patient=True):
            self._session.named("shut_out", unit=stream.id)
            self._count_all_as_older(schema, self._tables(schema), newest)

    def _count_all_as_older(self, schema: str, tables: Sequence[TableId], newest: int) -> None:
        for table in tables:
            unit = WorkUnit.of_table(schema, table)
            self._count_as_older(unit, newest)
            self._count_beside_as_older(unit, table, newest)

    def resync_range(
        self, schema: str, table: TableId, within: KeySpan, *, stream: WorkUnit
    ) -> list[WorkUnit]:
        unit = WorkUnit.of_table(schema, table)
        with self._session.transaction(f"starting a range of {table} over"):
            moved = self._session.named("shut_out", unit=stream.id)
            self.remove_chunks([unit])
            spec = self._session.to_json({"within": key_range.dump(within)})
            if not self._session.named("resync_range", unit=unit.id, spec=spec).rowcount:
                raise DestinationRefused(
                    f"expected {table} to be complete, so that a range of it can be read anew, "
                    "found it never read, or being read; wait until `status` says `streaming`, or "
                    "run `cartridge-warp resync` without --where",
                    place=unit.id,
                )
        return [stream] if moved.rowcount else []

    def _tables(self, schema: str) -> list[TableId]:
        rows = self._session.named("tables_of_schema", schema=schema).fetchall()
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
            found = self._session.named("slot_taken", unit=unit_id, slot=slot)
            return found.fetchone() is not None

    def end_run(self, run: str, *, status: str, rows: int, error: str = "") -> None:
        said = self._session.storable(error)
        with self._session.meaning(f"ending run {run}"):
            self._session.named("end_run", run=run, status=status, rows=rows, error=said)

    def cut_short(self, *, newer_than: float, limit: int) -> list[CutShort]:
        with self._session.meaning("reading the runs that were cut short"):
            rows = self._session.named("cut_short", newer_than=newer_than, limit=limit).fetchall()
            return [CutShort(*row) for row in rows]

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
        storable = self._session.storable
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
        given = self._session.to_json(dict(arguments))
        with self._session.meaning(f"storing the errand {name}"):
            self._session.named("add_errand", id=id, name=name, arguments=given)

    def open_errands(self) -> list[tuple[str, str, dict[str, Any]]]:
        with self._session.meaning("reading the open errands"):
            rows = self._session.named("open_errands").fetchall()
            return [(id, name, self._session.of_json(given)) for id, name, given in rows]

    def end_errand(self, id: str, *, status: str, result: str = "") -> None:
        said = self._session.storable(result)
        with self._session.meaning(f"ending the errand {id}"):
            self._session.named("end_errand", id=id, status=status, result=said)

    def errands(self, id: str | None = None) -> list[Intent]:
        with self._session.meaning("reading the errands"):
            rows = self._session.named("read_errands", id=id).fetchall()
            return [
                Intent(id_, name, self._session.of_json(given), *rest)
                for id_, name, given, *rest in rows
            ]

    # -- quarantine

    def quarantined(self) -> dict[TableId, int]:
        with self._session.meaning("counting the rows in quarantine"):
            rows = self._session.named("count_quarantined").fetchall()
            return {TableId(namespace, table): count for namespace, table, count in rows}

    def deferred(self) -> dict[TableId, int]:
        """None where our sessions do not check foreign keys."""
        return {}

    def quarantine(self, choice: Choice) -> list[SetAside]:
        wanted = quarantine.chosen(self._session, choice)
        with self._session.meaning("reading the quarantine"):
            rows = self._session.named("read_quarantine", **wanted).fetchall()
            return [quarantine.set_aside(self._session, row) for row in rows]

    def replay(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        with self._session.transaction(f"marking rows of {table} for replay"):
            self.want_replay(WorkUnit.of_replay(schema, table))
            return self._session.named(
                "mark_replaying",
                ids=list(ids),
                schema=schema,
                namespace=table.namespace,
                table=table.name,
            ).rowcount

    def want_replay(self, unit: WorkUnit) -> None:
        """In the caller's transaction, before it touches the rows: the marker first, as in the
        transaction that lands them."""
        self.add(unit)
        self._session.named("mark_replay", unit=unit.id)

    @abstractmethod
    def _rows_to_replay(self, schema: str, table: TableId, limit: int) -> Sequence[Any]: ...

    def to_replay(self, schema: str, table: TableId, limit: int) -> list[SetAside]:
        with self._session.meaning(f"reading the rows of {table} to replay"):
            rows = self._rows_to_replay(schema, table, limit)
            return [quarantine.set_aside(self._session, row) for row in rows]

    def discard(self, ids: Sequence[int]) -> int:
        with self._session.meaning("discarding rows of the quarantine"):
            return self._session.named("discard_quarantined", ids=list(ids)).rowcount

    def errors(self, choice: Choice) -> list[ErrorLine]:
        wanted = quarantine.chosen(self._session, choice)
        with self._session.meaning("reading the error log"):
            rows = self._session.named("read_errors", **wanted).fetchall()
            return [metadata_rows.error_line(row) for row in rows]
