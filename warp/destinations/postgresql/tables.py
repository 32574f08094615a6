"""One table's changes into their table: straight, merged together, or one by one where one was
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from warp import faults
from warp.destinations.postgresql import constraints, ddl, keyless, merge
from warp.destinations.postgresql.careful import Careful, TableState
from warp.destinations.postgresql.deferral import (
    Deferral,
    Waiting,
    must_have_quarantine,
    quarantined,
    waiting_of,
)
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.notes import Deed, Notes, place_of
from warp.destinations.postgresql.quarantine import Replaying, supersede_gone
from warp.destinations.postgresql.session import Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.straight import Straight
from warp.errors import SchemaMoved
from warp.model import Marker, TableId, TableSelection, WorkUnit
from warp.staged import Staged


class Tables:
    """Lands changes within a write transaction that holds their table's own row."""

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        staging: Staging,
        careful: Careful,
        deferral: Deferral,
        notes: Notes,
    ) -> None:
        self._session = session
        self._selection = selection
        self._staging = staging
        self._careful = careful
        self._deferral = deferral
        self._notes = notes
        self._straight = Straight(session)

    def land(
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
        with as_registered(part.schema.table):
            if part.truncated_at is not None and part.schema.key:
                self._truncate(landing, state, part.truncated_at, deed, carefully=carefully)
                state = replace(state, truncated_at=max(state.truncated_at, part.truncated_at))
            if len(part):
                self._land_rows(part, landing, state, deed, replaying, carefully=carefully)
            if part.truncated_at is not None and not part.schema.key:
                keyless.reveal(self._session, landing.place)

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
        if replaying is None and self._straight.lands(part, landing, state):
            return
        self._staging.copy(part, landing)
        faults.hit("after_copy")
        self._staging.merge(part, landing, state)

    def _truncate(
        self, landing: Landing, state: TableState, version: int, deed: Deed, *, carefully: bool
    ) -> None:
        """All rows up to a version; those that are still referred to go when they are not."""
        parameters = {"version": version}
        steps = merge.truncate(landing)
        if not carefully:
            self._session.run_all(steps, parameters)
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

    def settle(self, marker: Marker) -> None:
        """The rows' part of settling a table, in the caller's transaction that excludes writers:
        tombstones and rows that a new snapshot did not find again go, and what waits and is
        overruled by one of them with it."""
        unit = marker.unit
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None:
            return
        landing = self._staging.landing(schema, unit)
        state = TableState(
            unit.id, marker.epoch, marker.phase, marker.schema_version, marker.truncated_at
        )
        self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
        # What lies aside is not looked for by its key: of a range it stays, and is judged by its
        # version when somebody wants it.
        aside_below = -1 if marker.within is not None else marker.sweep_below
        supersede_gone(self._session, landing, below=aside_below)
        deed = Deed()
        deed.add(self._deferral.clear_out(unit, state, schema.table, aside_below))
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

    def count_as_older(self, unit: WorkUnit, newest: int) -> None:
        """The rows' part of a resync to another count of versions, in the caller's transaction."""
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None or not schema.key:  # without a key nothing is compared
            return
        step = merge.count_as_older(self._staging.landing(schema, unit))
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
