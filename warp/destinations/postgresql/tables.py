"""One table's changes into a table of PostgreSQL, with those that wait for other rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from warp.destinations.postgresql import constraints, ddl, merge
from warp.destinations.postgresql.careful import Careful
from warp.destinations.postgresql.deferral import Deferral, Waiting, quarantined, waiting_of
from warp.destinations.postgresql.keyless import Keyless
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.notes import Deed
from warp.destinations.postgresql.quarantine import Standings
from warp.destinations.postgresql.session import Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.straight import Straight
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.notes import Notes, place_of
from warp.destinations.sql.quarantine import Replaying, supersede_gone
from warp.destinations.sql.refused import must_have_quarantine
from warp.destinations.sql.tables import SqlTables
from warp.errors import SchemaMoved
from warp.model import Marker, TableId, TableSchema, TableSelection, TableSettings
from warp.staged import Staged


class Tables(SqlTables[Session, Landing, Deed]):
    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        staging: Staging,
        careful: Careful,
        deferral: Deferral,
        standings: Standings,
        keyless: Keyless,
    ) -> None:
        super().__init__(session, selection, staging, Straight(session), standings, keyless)
        self._careful = careful
        self._deferral = deferral
        self._notes = Notes(session, selection)

    def _as_registered(self, table: TableId) -> AbstractContextManager[None]:
        return as_registered(table)

    def _registered(self, settings: TableSettings) -> TableSchema | None:
        return ddl.registered(self._session, settings)

    def _land_one_by_one(
        self,
        part: Staged,
        landing: Landing,
        state: TableState,
        deed: Deed,
        replaying: Replaying[Landing] | None,
    ) -> None:
        for refusal in self._careful.land(part, landing, state):
            row = waiting_of(part, refusal)
            if replaying is not None:  # it stays the row of the quarantine it is
                replaying.refused(quarantined(row, refusal.reason))
            elif refusal.waits and part.schema.key:
                deed.waiting.append(row)
            else:
                settings = self._selection(part.schema.table)
                must_have_quarantine(settings, part.schema.table, row.key, refusal.reason)
                deed.set_aside(quarantined(row, refusal.reason))

    def _remove_all(
        self, landing: Landing, state: TableState, version: int, deed: Deed, *, carefully: bool
    ) -> None:
        """Those that are still referred to go when they are not."""
        parameters = {"version": version}
        steps = merge.truncate(landing)
        if not carefully:
            self._session.run_all(steps, parameters)
        elif not self._careful.alone(steps, parameters):
            found = constraints.up_to_version()
            deed.waiting += self._still_needed(landing, state, found, parameters, version)

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

    def _settle(self, marker: Marker, landing: Landing) -> None:
        unit = marker.unit
        state = TableState(
            unit.id, marker.epoch, marker.phase, marker.schema_version, marker.truncated_at
        )
        self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
        # What lies aside is not looked for by its key: of a range it stays, and is judged by its
        # version when somebody wants it.
        aside_below = -1 if marker.within is not None else marker.sweep_below
        supersede_gone(self._session, self._standings, landing, below=aside_below)
        deed = Deed()
        deed.add(self._deferral.clear_out(unit, state, landing.schema.table, aside_below))
        steps = [(merge.purge(landing), constraints.is_tombstone())]
        if marker.sweep_below > -1:
            within = marker.within
            steps.append((merge.sweep(landing, within), merge.stale(landing, within)))
        parameters = {"below": marker.sweep_below}
        for step, found in steps:
            if not self._careful.alone([step.as_bytes(None)], parameters):
                deed.waiting += self._still_needed(landing, state, found, parameters)
        deed.add(self._deferral.keep(unit, deed.waiting, {}, marker.position))
        self._notes.set_aside(unit, deed.aside, place_of(marker))

    def _older(self, landing: Landing, newest: int) -> None:
        step = merge.count_as_older(landing)
        self._session.run(step.as_bytes(None), {"newest": newest})


@contextmanager
def as_registered(table: TableId) -> Iterator[None]:
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
