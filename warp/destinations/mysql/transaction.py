"""The write transaction: marker first, then rows, quarantine and audit, then COMMIT.

Nothing in it commits by itself on this server: no DDL but that of temporary tables, no TRUNCATE.
Everything that can be decided or converted before BEGIN is; what is left inside is short, because
the marker's and the table's locks are held for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pymysql

from warp import faults, metadata_rows
from warp.destinations.mysql import keyless, markers
from warp.destinations.mysql.careful import TableState
from warp.destinations.mysql.errors import is_of_a_value
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.metadata import MysqlMetadata
from warp.destinations.mysql.notes import Deed, Notes
from warp.destinations.mysql.quarantine import Replaying, Standings
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.tables import Tables
from warp.errors import DestinationUnavailable, FenceBehind, SchemaMoved
from warp.model import (
    ChangeBatch,
    Marker,
    Operation,
    Phase,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
)
from warp.staged import Said, Staged
from warp.streams import schema_of_table


class _ValueRefused(Exception):
    """A value of the batch cannot be stored: find out which one."""


class Transactions:
    """The writes of one destination, one after the other."""

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        metadata: MysqlMetadata,
        staging: Staging,
        tables: Tables,
        standings: Standings,
        notes: Notes,
    ) -> None:
        self._session = session
        self._selection = selection
        self._metadata = metadata
        self._staging = staging
        self._tables = tables
        self._standings = standings
        self._notes = notes
        self.deed = Deed()  # of the last transaction
        self.replaying: Replaying | None = None  # the rows of the last write out of quarantine
        # What a lost connection left open: whether this batch with this marker was committed.
        self._undecided: tuple[ChangeBatch | None, Marker] | None = None

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
        deed = Deed(list(said.quarantined))
        unit = marker.unit
        self._undecided = None
        replaying = self.replaying = None
        if batch is not None and said.replay is not None:
            replaying = Replaying(self._session, self._standings, unit, said.replay, batch)
            self.replaying = replaying
        with self._session.meaning(f"writing {unit.id}"):
            self._session.connect()  # a new connection has no staging tables: forget them now
            self._staging.drop_old()
            landings = [self._staging.landing(part.schema, unit) for part in parts]
            self._session.run("BEGIN")
            try:
                faults.hit("before_marker")
                if batch is not None:
                    faults.hit("before_marker_of_rows")
                self._advance(marker)
                self._end_run(marker)
                faults.hit("after_marker")
                if batch is not None:
                    states = self._lock_tables(batch, marker)
                    faults.hit("after_table_lock")
                    if replaying is not None:
                        replaying.lock()
                    self._land_all(parts, landings, states, deed, replaying, carefully)
                    self._notes.set_aside(unit, deed.aside, batch.end)
                    self._notes.find(unit, said.findings, batch.end)
                    if replaying is not None:
                        replaying.settle()
                    faults.hit("after_quarantine")
                if marker.phase in (Phase.DONE, Phase.IDLE):
                    self._end_of_read(marker)
                faults.hit("before_commit")
            except BaseException as error:
                self._session.rollback()
                if not carefully and is_of_a_value(error):
                    raise _ValueRefused from error
                raise
            self.deed = deed
            self._commit(batch, marker)
        faults.hit("after_commit")

    def _land_all(
        self,
        parts: Sequence[Staged],
        landings: Sequence[Landing],
        states: Mapping[TableId, TableState],
        deed: Deed,
        replaying: Replaying | None,
        carefully: bool,
    ) -> None:
        """Each table's changes."""
        for part, landing in zip(parts, landings, strict=True):
            state = states[part.schema.table]
            if replaying is not None:
                part = replaying.sift(part, landing, state.truncated_at, carefully=carefully)
            self._tables.land(part, landing, state, deed, replaying, carefully=carefully)

    def _end_run(self, marker: Marker) -> None:
        """A unit's last transaction ends its run, and takes the slot that the run was for."""
        unit = marker.unit
        if marker.phase is Phase.IDLE and unit.kind is UnitKind.POLL:
            run = self._session.named("peek_run", unit=unit.id).first()
            if run is not None and run[1] is not None:
                self._session.named("take_slot", unit=unit.id, slot=run[1])
        elif marker.phase is not Phase.DONE:
            return
        self._session.named("finish_runs", unit=unit.id)

    def _end_of_read(self, marker: Marker) -> None:
        """A table without a key shows a run when it is whole."""
        settings = keyless.read_whole(self._session, self._selection, marker.unit)
        if settings is None:
            return
        if marker.phase is Phase.DONE:
            keyless.reveal(self._session, settings.destination)
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
        ).rows
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
            self._session.named("replan_tables", units=[unit.id for unit in reloaded])
        return states

    def _unit_of(self, table: TableId, marker: Marker) -> WorkUnit:
        """The table's own row, by the schema that the table is of."""
        return WorkUnit.of_table(schema_of_table(table, self._selection, marker.unit), table)

    # -- the outcome

    def _commit(self, batch: ChangeBatch | None, marker: Marker) -> None:
        """COMMIT; where the connection did not tell its outcome, the marker does (guarantee 7)."""
        try:
            self._session.run("COMMIT")
        except (pymysql.err.Error, OSError) as error:
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
            row = self._session.named("read_marker", unit=marker.unit.id).first()
        self._undecided = None
        if row is None:
            return False
        stored = markers.from_row(row)
        return stored.fence == marker.fence and stored.batch == marker.batch
