"""The write transaction on PostgreSQL, with changes that wait for other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg

from warp.destinations.postgresql import merge
from warp.destinations.postgresql.careful import is_of_a_value
from warp.destinations.postgresql.deferral import Deferral
from warp.destinations.postgresql.keyless import Keyless
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.notes import Deed, waits
from warp.destinations.postgresql.quarantine import Standings
from warp.destinations.postgresql.session import Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.tables import Tables
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.notes import place_of
from warp.destinations.sql.transaction import SqlTransactions
from warp.model import (
    ChangeBatch,
    Finding,
    Marker,
    QuarantinedRow,
    TableId,
    TableSelection,
    WorkUnit,
)
from warp.staged import Staged
from warp.streams import schema_of_table


class Transactions(SqlTransactions[Session, Landing, Deed]):
    FAILURES = (psycopg.Error,)

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        metadata: PostgresMetadata,
        staging: Staging,
        tables: Tables,
        deferral: Deferral,
        standings: Standings,
        keyless: Keyless,
    ) -> None:
        super().__init__(session, selection, metadata, standings, keyless)
        self._staging = staging
        self._tables = tables
        self._deferral = deferral

    @staticmethod
    def _is_of_a_value(error: BaseException) -> bool:
        return is_of_a_value(error)

    def _new_deed(self, aside: list[QuarantinedRow]) -> Deed:
        return Deed(aside)

    def _landings(self, parts: Sequence[Staged], unit: WorkUnit) -> list[Landing]:
        self._staging.drop_old()
        landings = [self._staging.landing(part.schema, unit) for part in parts]
        self._staging.begin()
        return landings

    def _judge_at_once(self) -> None:
        self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")

    def _without_rows(self, marker: Marker, deed: Deed) -> None:
        deed.add(self._deferral.finish(marker.unit, {}, [], [], {}, marker.position))
        self._notes.set_aside(marker.unit, deed.aside, place_of(marker))

    def _more_findings(self, deed: Deed) -> list[Finding]:
        return waits(deed)

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
        """Each table's changes, then what waits for them."""
        replaying = self.replaying
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

    def _finish_poll(self, unit: WorkUnit) -> None:
        self._session.named("finish_poll", unit=unit.id)
