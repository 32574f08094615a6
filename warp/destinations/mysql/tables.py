"""One table's changes into a table of MySQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pymysql

from warp.destinations.mysql import ddl, merge
from warp.destinations.mysql.careful import Careful, quarantined
from warp.destinations.mysql.errors import is_moved, said_by
from warp.destinations.mysql.keyless import Keyless
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.quarantine import Standings
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.straight import Straight
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.notes import Deed
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
        straight: Straight,
        standings: Standings,
        keyless: Keyless,
    ) -> None:
        super().__init__(session, selection, staging, straight, standings, keyless)
        self._careful = Careful(session, staging)

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
            row = quarantined(part, refusal)
            if replaying is not None:  # it stays the row of the quarantine it is
                replaying.refused(row)
                continue
            must_have_quarantine(self._selection(row.table), row.table, row.key, row.reason)
            deed.set_aside(row)

    def _remove_all(
        self, landing: Landing, state: TableState, version: int, deed: Deed, *, carefully: bool
    ) -> None:
        self._session.run_all(merge.truncate(landing), {"version": version})

    def _settle(self, marker: Marker, landing: Landing) -> None:
        below, within = marker.sweep_below, marker.within
        # What lies aside is not looked for by its key: of a range it stays, and is judged by its
        # version when somebody wants it.
        aside_below = -1 if within is not None else below
        supersede_gone(self._session, self._standings, landing, below=aside_below)
        self._session.run_all(merge.purge(landing))
        if below > -1:
            self._session.run_all(merge.sweep(landing, within), {"below": below})

    def _older(self, landing: Landing, newest: int) -> None:
        self._session.run(merge.count_as_older(landing), {"newest": newest})


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
