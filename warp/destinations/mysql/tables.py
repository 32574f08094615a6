"""One table's changes into their table: straight, merged together, or one by one where one was
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pymysql

from warp import faults
from warp.destinations.mysql import ddl, keyless, merge
from warp.destinations.mysql.careful import Careful, TableState
from warp.destinations.mysql.errors import is_moved, said_by
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.notes import Deed, must_have_quarantine, quarantined
from warp.destinations.mysql.quarantine import Replaying, Standings, supersede_gone
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.straight import Straight
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
        straight: Straight,
        standings: Standings,
    ) -> None:
        self._session = session
        self._selection = selection
        self._staging = staging
        self._straight = straight
        self._standings = standings
        self._careful = Careful(session, staging)

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
                self._session.run_all(merge.truncate(landing), {"version": part.truncated_at})
                self._session.named(
                    "raise_truncated_at", unit=state.unit, version=part.truncated_at
                )
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
                row = quarantined(part, refusal)
                if replaying is not None:  # it stays the row of the quarantine it is
                    replaying.refused(row)
                    continue
                must_have_quarantine(self._selection(part.schema.table), row)
                deed.set_aside(row)
            return
        if replaying is None and self._straight.lands(part, landing, state):
            return
        self._staging.copy(part, landing)
        faults.hit("after_copy")
        self._staging.merge(part, landing, state)

    def settle(self, marker: Marker) -> None:
        """The rows' part of settling a table, in the caller's transaction that excludes writers:
        tombstones and rows that a new snapshot did not find again go."""
        unit = marker.unit
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None:
            return
        landing = self._staging.landing(schema, unit)
        supersede_gone(self._session, self._standings, landing, below=marker.sweep_below)
        self._session.run_all(merge.purge(landing))
        if marker.sweep_below > -1:
            self._session.run_all(merge.sweep(landing), {"below": marker.sweep_below})

    def count_as_older(self, unit: WorkUnit, newest: int) -> None:
        """The rows' part of a resync to another count of versions, in the caller's transaction."""
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else ddl.registered(self._session, settings)
        if schema is None or not schema.key:  # without a key nothing is compared
            return
        step = merge.count_as_older(self._staging.landing(schema, unit))
        self._session.run(step, {"newest": newest})


@contextmanager
def as_registered(table: TableId) -> Iterator[None]:
    """A statement that finds other columns than the registry tells says that the schema moved."""
    try:
        yield
    except pymysql.err.Error as error:
        if not is_moved(error):
            raise
        raise SchemaMoved(
            f"the table is not as it was registered: {said_by(error)}", place=str(table)
        ) from error
