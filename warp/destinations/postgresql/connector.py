"""PostgreSQL as a destination: what a worker calls, and how it is put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from psycopg.errors import LockNotAvailable
from pydantic import BaseModel

from warp.destinations.postgresql import ddl, merge
from warp.destinations.postgresql.careful import Careful
from warp.destinations.postgresql.comparing import PostgresComparing
from warp.destinations.postgresql.deferral import Deferral
from warp.destinations.postgresql.foreseen import Foreseeing
from warp.destinations.postgresql.keyless import Keyless
from warp.destinations.postgresql.look import look
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.notes import Deed
from warp.destinations.postgresql.quarantine import Standings
from warp.destinations.postgresql.session import PostgresOptions, Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.tables import Tables, as_registered
from warp.destinations.postgresql.transaction import Transactions
from warp.destinations.sql import markers
from warp.destinations.sql.connector import SqlDestination
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Diagnosis,
    Lease,
    Marker,
    SchemaChange,
    TableSchema,
    TableSelection,
    TableSettings,
    WorkUnit,
    Written,
)
from warp.staged import Staged


class PostgresDestination(SqlDestination[Session, PostgresMetadata, Transactions]):
    """Writes to PostgreSQL 13 or later."""

    Options: ClassVar[type[BaseModel]] = PostgresOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        transactional_ddl=True, ranges=True, foresees=True, compares=True, tells_cut_short=True
    )

    def __init__(self, options: PostgresOptions, selection: TableSelection) -> None:
        session = Session(options)
        self._staging = staging = Staging(session, selection)
        careful = Careful(session, staging)
        standings, keyless = Standings(session), Keyless(session, selection)
        self._deferral = deferral = Deferral(session, selection, careful, staging.landing)
        tables = Tables(session, selection, staging, careful, deferral, standings, keyless)
        metadata = PostgresMetadata(session, selection, tables.settle, tables.count_as_older)
        transactions = Transactions(
            session, selection, metadata, staging, tables, deferral, standings, keyless
        )
        super().__init__(session, selection, metadata, transactions, keyless)
        # What transactions without a batch did, to be told with the next one that has one.
        self._untold = Deed()

    def _look(self) -> Iterator[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def _adopt(self, lease: Lease) -> Marker | None:
        mine = {"unit": lease.unit.id, "fence": lease.fence, "owner": lease.owner}
        try:
            with self._session.block():
                self._session.run(b"SET LOCAL lock_timeout = '1s'")
                row = self._session.named("adopt_marker", **mine).fetchone()
        except LockNotAvailable:
            self._session.named("end_superseded", unit=lease.unit.id, fence=lease.fence)
            row = self._session.named("adopt_marker", **mine).fetchone()
        return None if row is None else markers.from_row(self._session, row)

    def _registered(self, settings: TableSettings) -> TableSchema | None:
        return ddl.registered(self._session, settings)

    def _current(self, settings: TableSettings) -> TableSchema | None:
        return ddl.current(self._session, settings)

    def _change(self, settings: TableSettings, change: SchemaChange) -> None:
        ddl.apply(self._session, settings, change)

    def _foreseeing(self, settings: TableSettings) -> Foreseeing:
        return Foreseeing(self._session, settings)

    def _missing(self, part: Staged, unit: WorkUnit) -> Iterable[Sequence[int]]:
        landing = self._staging.landing(part.schema, unit)
        self._staging.begin()
        with self._session.block(), as_registered(part.schema.table):
            self._staging.copy(part, landing, range(len(part)))
            [statement] = merge.missing(landing)
            return self._session.run(statement, {"unit": unit.id}).fetchall()

    def _written(self, batch: ChangeBatch) -> Written:
        written = super()._written(batch)
        deed, untold, self._untold = self._transactions.deed, self._untold, Deed()
        counts = Counter(written.counts)
        counts.update(deed.late + untold.late)
        aside = Counter(written.quarantined)
        aside.update(row.table for row in untold.aside if not row.column)
        return replace(
            written,
            counts={what: rows for what, rows in counts.items() if rows},
            quarantined=aside,
            deferred=Counter(row.schema.table for row in deed.deferred),
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._transactions.was_committed(None, marker):
            super().update_marker(marker)
            deed = self._transactions.deed
            self._untold.late += deed.late
            self._untold.aside += deed.aside

    def deferred_due(self, schema: str) -> bool:
        with self._session.meaning(f"looking for rows of {schema} that wait for others"):
            return self._deferral.due(schema)

    def comparing(self) -> PostgresComparing:
        return PostgresComparing(self._session, self._selection)
