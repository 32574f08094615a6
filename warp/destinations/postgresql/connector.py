"""PostgreSQL as a destination: what each call of the connector does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from psycopg.errors import LockNotAvailable
from pydantic import BaseModel

from warp.compact import Compacted, compact
from warp.destinations.postgresql import ddl, foreseen, keyless, markers, merge
from warp.destinations.postgresql.careful import Careful
from warp.destinations.postgresql.comparing import PostgresComparing
from warp.destinations.postgresql.deferral import Deferral
from warp.destinations.postgresql.look import look
from warp.destinations.postgresql.metadata import PostgresMetadata
from warp.destinations.postgresql.notes import Deed, Notes
from warp.destinations.postgresql.session import PostgresOptions, Session
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.tables import Tables, as_registered
from warp.destinations.postgresql.transaction import Transactions
from warp.destinations.postgresql.verifications import PostgresVerifications
from warp.diagnosis import refuse
from warp.errors import DestinationRefused, FenceBehind
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Diagnosis,
    Finding,
    Foreseen,
    Lease,
    Marker,
    Operation,
    Phase,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.staged import NOTHING_SAID, Said, Staged, stage


class PostgresDestination:
    """Writes to PostgreSQL 13 or later.  Connects when first used, and again after a loss."""

    Options: ClassVar[type[BaseModel]] = PostgresOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        transactional_ddl=True, ranges=True, foresees=True, compares=True, tells_cut_short=True
    )

    def __init__(self, options: PostgresOptions, selection: TableSelection) -> None:
        self._options = options
        self._selection = selection
        self._session = Session(options)
        self._staging = Staging(self._session, selection)
        careful = Careful(self._session, self._staging)
        self._deferral = Deferral(self._session, selection, careful, self._staging.landing)
        notes = Notes(self._session, selection)
        tables = Tables(self._session, selection, self._staging, careful, self._deferral, notes)
        self._metadata = PostgresMetadata(
            self._session, selection, tables.settle, tables.count_as_older
        )
        self._transactions = Transactions(
            self._session, selection, self._metadata, self._staging, tables, self._deferral, notes
        )
        # What transactions without a batch did, to be told with the next one that has one.
        self._untold = Deed()

    def check(self) -> None:
        refuse(self._look(), DestinationRefused, place=self._session.place)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def open(self, lease: Lease) -> Marker:
        unit = lease.unit
        with self._session.meaning(f"adopting {unit.id}"):
            row = self._adopt(lease)
            # Not before: an insert would wait for a predecessor paused in its transaction.
            if row is None and self._metadata.register(unit, position=None, phase=Phase.PLANNED):
                row = self._adopt(lease)
            if row is None:
                found = self._metadata.fence_of(unit.id)
                raise FenceBehind(
                    f"expected a fence below {lease.fence}, found {found}; refence or drop the "
                    "unit",
                    found=found,
                    place=unit.id,
                )
            marker = markers.from_row(row)
            if unit.kind is UnitKind.CHUNK and marker.phase is not Phase.DONE:
                self._session.named("forget_set_aside", unit=unit.id)
            if marker.phase is not Phase.DONE and (
                settings := keyless.read_whole(self._session, self._selection, unit)
            ):
                keyless.forget(self._session, settings)
        # The lease's unit is the fuller one where the plan has not been stored.
        return marker if marker.unit.chunk else replace(marker, unit=unit)

    def _adopt(self, lease: Lease) -> Sequence[Any] | None:
        """Raise the fence; a predecessor that was paused inside its transaction is ended."""
        mine = {"unit": lease.unit.id, "fence": lease.fence, "owner": lease.owner}
        try:
            with self._session.block():
                self._session.run(b"SET LOCAL lock_timeout = '1s'")
                row: Sequence[Any] | None = self._session.named("adopt_marker", **mine).fetchone()
        except LockNotAvailable:
            self._session.named("end_superseded", unit=lease.unit.id, fence=lease.fence)
            row = self._session.named("adopt_marker", **mine).fetchone()
        return row

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return ddl.current(self._session, settings)

    def standing(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None or not self._metadata.prepared():
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return ddl.registered(self._session, settings)

    def foresee(self, have: TableSchema | None, change: SchemaChange) -> Foreseen:
        settings = self._settings_of(change.table)
        with self._session.meaning(f"looking at {settings.destination}"):
            return foreseen.foresee(self._session, settings, have, change)

    def missing(self, changes: TableChanges) -> list[int]:
        """By one statement over the staged keys, in a transaction that changes nothing."""
        settings = self._selection(changes.table)
        if settings is None or changes.schema is None:
            raise AssertionError("rows of a selected table, shaped into columns")
        rows = range(len(changes))
        keys = Compacted(bytes(changes.operations), changes.versions, changes.columns)
        part = stage(changes.schema, keys)
        unit = WorkUnit.of_table(settings.schema, changes.table)
        with self._session.meaning(f"looking for rows of {settings.destination}"):
            self._session.connect()
            landing = self._staging.landing(changes.schema, unit)
            self._staging.begin()
            with self._session.block(), as_registered(changes.table):
                self._staging.copy(part, landing, rows)
                [statement] = merge.missing(landing)
                found = self._session.run(statement, {"unit": unit.id}).fetchall()
        return [number for (number,) in found]

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        for change in changes:
            settings = self._settings_of(change.table)
            with self._session.meaning(f"{change.change} on {settings.destination}"):
                ddl.apply(self._session, settings, change)

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        started = time.monotonic()
        transactions = self._transactions
        if not transactions.was_committed(batch, marker):
            parts = [_staged(part) for part in batch.changes if len(part)]
            transactions.write(batch, marker, parts, Said(quarantined, findings, replay))
        deed, untold, self._untold = transactions.deed, self._untold, Deed()
        counts: Counter[tuple[TableId, Operation]] = Counter()
        for changes in batch.changes:
            for code in set(changes.operations):
                counts[changes.table, Operation(code)] += changes.operations.count(code)
        counts.subtract(deed.missing)
        counts.update(deed.late + untold.late)
        for what in transactions.replaying.unlanded if transactions.replaying else ():
            counts[what] -= 1
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(
                row.table for row in [*deed.aside, *untold.aside] if not row.column
            ),
            deferred=Counter(row.schema.table for row in deed.deferred),
            seconds=time.monotonic() - started,
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._transactions.was_committed(None, marker):
            self._transactions.write(None, marker, [], NOTHING_SAID)
            deed = self._transactions.deed
            self._untold.late += deed.late
            self._untold.aside += deed.aside

    def deferred_due(self, schema: str) -> bool:
        with self._session.meaning(f"looking for rows of {schema} that wait for others"):
            return self._deferral.due(schema)

    def metadata(self) -> PostgresMetadata:
        return self._metadata

    def comparing(self) -> PostgresComparing:
        return PostgresComparing(self._session, self._selection)

    def verifications(self) -> PostgresVerifications:
        return PostgresVerifications(self._session, self._metadata)

    def close(self) -> None:
        self._session.close()

    def _settings_of(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise DestinationRefused(
                f"{table} is not selected by the configuration", place=self._session.place
            )
        return settings


def _staged(changes: TableChanges) -> Staged:
    if changes.schema is None:
        raise AssertionError("changes reach a destination shaped into columns")
    return stage(changes.schema, compact(changes))
