"""The write transaction: marker first, then rows, quarantine and audit, then COMMIT.

Everything that can be decided or converted before BEGIN is; what is left inside is short, because
the marker's and the table's locks are held for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg

from warp import faults, metadata_rows
from warp.destinations.postgresql import keyless, markers, merge
from warp.destinations.postgresql.careful import TableState, is_of_a_value
from warp.destinations.postgresql.deferral import Deferral
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.notes import Deed, Notes, place_of, waits
from warp.destinations.postgresql.quarantine import Replaying
from warp.destinations.postgresql.session import Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.tables import Tables
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
        metadata: PostgresMetadata,
        staging: Staging,
        tables: Tables,
        deferral: Deferral,
        notes: Notes,
    ) -> None:
        self._session = session
        self._selection = selection
        self._metadata = metadata
        self._staging = staging
        self._tables = tables
        self._deferral = deferral
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
            replaying = self.replaying = Replaying(self._session, unit, said.replay, batch)
        with self._session.meaning(f"writing {unit.id}"):
            self._session.connect()  # a new connection has no staging tables: forget them now
            self._staging.drop_old()
            landings = [self._staging.landing(part.schema, unit) for part in parts]
            self._staging.begin()
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
                    self._notes.set_aside(unit, deed.aside, place_of(marker))
                else:
                    states = self._lock_tables(batch, marker)
                    faults.hit("after_table_lock")
                    if replaying is not None:
                        replaying.lock()
                    self._land_all(batch, unit, parts, landings, states, deed, replaying, carefully)
                    self._notes.set_aside(unit, deed.aside, batch.end)
                    self._notes.find(unit, [*said.findings, *waits(deed)], batch.end)
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
            self.deed = deed
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
                self._session.run_all(merge.empty_staging(landing))
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
            self._tables.land(part, landing, states[table], deed, replaying, carefully=carefully)
            written.append((landing, part))
        tried = self._deferral.finish(unit, states, deed.waiting, written, taken, batch.end)
        deed.add(tried)

    def _end_of_run(self, marker: Marker) -> None:
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
            row = self._session.named("read_marker", unit=marker.unit.id).fetchone()
        self._undecided = None
        if row is None:
            return False
        stored = markers.from_row(row)
        return stored.fence == marker.fence and stored.batch == marker.batch
