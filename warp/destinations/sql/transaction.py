"""The write transaction: marker first, then rows, quarantine and audit, then COMMIT.

Everything that can be decided or converted before BEGIN is; what is left inside is short, because
the marker's and the table's locks are held for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from warp import faults, metadata_rows
from warp.destinations.sql import markers
from warp.destinations.sql.keyless import Keyless
from warp.destinations.sql.landing import Landing, TableState
from warp.destinations.sql.metadata import SqlMetadata
from warp.destinations.sql.notes import Deed, Notes
from warp.destinations.sql.quarantine import Replaying, Standings
from warp.destinations.sql.session import Session
from warp.errors import DestinationUnavailable, FenceBehind, SchemaMoved
from warp.model import (
    ChangeBatch,
    Finding,
    Marker,
    Operation,
    Phase,
    QuarantinedRow,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
)
from warp.staged import Said, Staged
from warp.streams import schema_of_table

S = TypeVar("S", bound=Session)
L = TypeVar("L", bound=Landing)
D = TypeVar("D", bound=Deed)


class _ValueRefused(Exception):
    """A value of the batch cannot be stored: find out which one."""


class SqlTransactions(ABC, Generic[S, L, D]):
    """The writes of one destination, one after the other."""

    FAILURES: ClassVar[tuple[type[BaseException], ...]]
    """What the driver raises where a statement or the connection failed."""

    def __init__(
        self,
        session: S,
        selection: TableSelection,
        metadata: SqlMetadata[S],
        standings: Standings[S, L],
        keyless: Keyless[S],
    ) -> None:
        self._session = session
        self._selection = selection
        self._metadata = metadata
        self._standings = standings
        self._keyless = keyless
        self._notes = Notes(session, selection)
        self.deed = self._new_deed([])  # of the last transaction
        self.replaying: Replaying[L] | None = None  # the rows of the last write out of quarantine
        # What a lost connection left open: whether this batch with this marker was committed.
        self._undecided: tuple[ChangeBatch | None, Marker] | None = None

    # -- what each server does in its own way

    @staticmethod
    @abstractmethod
    def _is_of_a_value(error: BaseException) -> bool:
        """Is it one row's fault, so that the others can land without it?"""

    @abstractmethod
    def _new_deed(self, aside: list[QuarantinedRow]) -> D: ...

    @abstractmethod
    def _landings(self, parts: Sequence[Staged], unit: WorkUnit) -> list[L]:
        """Where each part is staged and lands; made before the transaction."""

    @abstractmethod
    def _land_all(
        self,
        batch: ChangeBatch,
        unit: WorkUnit,
        parts: Sequence[Staged],
        landings: Sequence[L],
        states: Mapping[TableId, TableState],
        deed: D,
        carefully: bool,
    ) -> None: ...

    @abstractmethod
    def _finish_poll(self, unit: WorkUnit) -> None:
        """A complete run of a poll ends, and takes the slot that it was for."""

    def _judge_at_once(self) -> None:
        """Else a constraint may refuse the whole transaction at COMMIT."""

    def _without_rows(self, marker: Marker, deed: D) -> None:
        """What else a transaction does that only moves the marker."""

    def _more_findings(self, deed: D) -> list[Finding]:
        return []

    # -- one transaction

    def write(
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
        deed = self._new_deed(list(said.quarantined))
        unit = marker.unit
        self._undecided = None
        replaying = self.replaying = None
        if batch is not None and said.replay is not None:
            replaying = self.replaying = Replaying(
                self._session, self._standings, unit, said.replay, batch
            )
        with self._session.meaning(f"writing {unit.id}"):
            self._session.connect()  # a new connection has no staging tables: forget them now
            landings = self._landings(parts, unit)
            self._session.begin()
            try:
                if carefully:
                    self._judge_at_once()
                faults.hit("before_marker")
                if batch is not None:
                    faults.hit("before_marker_of_rows")
                self._advance(marker)
                if marker.phase is Phase.DONE:
                    self._session.named("finish_runs", unit=unit.id)
                elif marker.phase is Phase.IDLE and unit.kind is UnitKind.POLL:
                    self._finish_poll(unit)
                faults.hit("after_marker")
                if batch is None:
                    self._without_rows(marker, deed)
                else:
                    states = self._lock_tables(batch, marker)
                    faults.hit("after_table_lock")
                    if replaying is not None:
                        replaying.lock()
                    self._land_all(batch, unit, parts, landings, states, deed, carefully)
                    self._notes.set_aside(unit, deed.aside, batch.end)
                    findings = [*said.findings, *self._more_findings(deed)]
                    self._notes.find(unit, findings, batch.end)
                    if replaying is not None:
                        replaying.settle()
                    faults.hit("after_quarantine")
                if marker.phase in (Phase.DONE, Phase.IDLE):
                    self._keyless.end(marker)
                faults.hit("before_commit")
            except BaseException as error:
                self._session.rollback()
                if not carefully and self._is_of_a_value(error):
                    raise _ValueRefused from error
                raise
            self.deed = deed
            try:
                self._commit(batch, marker)
            except self.FAILURES as error:
                # A check that was put off until now.
                if not carefully and self._is_of_a_value(error):
                    raise _ValueRefused from error
                raise
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
            **metadata_rows.place(marker.position),
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
        # Who changes a table's own row holds it alone from the start; so does who replays, since
        # what is looked at first must not change before it is written.
        alone = bool(reloaded) or truncates or marker.unit.kind is UnitKind.REPLAY
        rows = self._session.named(
            "lock_tables_alone" if alone else "lock_tables_shared", units=sorted(units)
        ).fetchall()
        states = {
            units[id]: TableState(id, epoch, Phase(phase), *more)
            for id, epoch, phase, *more in rows
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

    # -- the outcome

    def _commit(self, batch: ChangeBatch | None, marker: Marker) -> None:
        """COMMIT; where the connection did not tell its outcome, the marker does (guarantee 7)."""
        try:
            self._session.commit()
        except self.FAILURES as error:
            if not self._session.lost:
                self._session.rollback()
                raise
            self._undecided = (batch, marker)
            if not self.was_committed(batch, marker):
                raise DestinationUnavailable(
                    "the connection was lost at COMMIT and the transaction did not happen; "
                    "write the batch again",
                    place=marker.unit.id,
                ) from error

    def was_committed(self, batch: ChangeBatch | None, marker: Marker) -> bool:
        """Did an earlier attempt at this very batch, whose outcome nobody told, succeed?"""
        if self._undecided is None:
            return False
        attempted, wanted = self._undecided
        if attempted is not batch or wanted != marker:
            self._undecided = None
            return False
        with self._session.meaning(f"asking for the outcome of a commit of {marker.unit.id}"):
            row: Any = self._session.named("read_marker", unit=marker.unit.id).fetchone()
        self._undecided = None
        if row is None:
            return False
        stored = markers.from_row(self._session, row)
        return stored.fence == marker.fence and stored.batch == marker.batch
