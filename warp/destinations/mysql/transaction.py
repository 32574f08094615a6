"""The write transaction on MySQL.

Nothing in it commits by itself on this server: no DDL but that of temporary tables, no TRUNCATE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pymysql

from warp.destinations.mysql.errors import is_of_a_value
from warp.destinations.mysql.keyless import Keyless
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.metadata import MysqlMetadata
from warp.destinations.mysql.quarantine import Standings
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.tables import Tables
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.notes import Deed
from warp.destinations.sql.transaction import SqlTransactions
from warp.model import ChangeBatch, QuarantinedRow, TableId, TableSelection, WorkUnit
from warp.staged import Staged


class Transactions(SqlTransactions[Session, Landing, Deed]):
    FAILURES = (pymysql.err.Error, OSError)

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        metadata: MysqlMetadata,
        staging: Staging,
        tables: Tables,
        standings: Standings,
        keyless: Keyless,
    ) -> None:
        super().__init__(session, selection, metadata, standings, keyless)
        self._staging = staging
        self._tables = tables

    @staticmethod
    def _is_of_a_value(error: BaseException) -> bool:
        return is_of_a_value(error)

    def _new_deed(self, aside: list[QuarantinedRow]) -> Deed:
        return Deed(aside)

    def _landings(self, parts: Sequence[Staged], unit: WorkUnit) -> list[Landing]:
        self._staging.drop_old()
        return [self._staging.landing(part.schema, unit) for part in parts]

    def _land_all(
        self,
        batch: ChangeBatch,
        unit: WorkUnit,
        parts: Sequence[Staged],
        landings: Sequence[Landing],
        states: Mapping[TableId, TableState],
        deed: Deed,
        carefully: bool,
    ) -> None:
        """Each table's changes."""
        replaying = self.replaying
        for part, landing in zip(parts, landings, strict=True):
            state = states[part.schema.table]
            if replaying is not None:
                part = replaying.sift(part, landing, state.truncated_at, carefully=carefully)
            self._tables.land(part, landing, state, deed, replaying, carefully=carefully)

    def _finish_poll(self, unit: WorkUnit) -> None:
        run = self._session.named("peek_run", unit=unit.id).fetchone()
        if run is not None and run[1] is not None:
            self._session.named("take_slot", unit=unit.id, slot=run[1])
        self._session.named("finish_runs", unit=unit.id)
