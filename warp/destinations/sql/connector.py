"""What each call of a SQL destination does, in terms of its parts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from warp.compact import Compacted, compact
from warp.destinations.sql.foreseen import Foreseeing
from warp.destinations.sql.keyless import Keyless
from warp.destinations.sql.landing import selected
from warp.destinations.sql.metadata import SqlMetadata
from warp.destinations.sql.quarantine import undecided
from warp.destinations.sql.session import Session
from warp.destinations.sql.transaction import SqlTransactions
from warp.destinations.sql.verifications import SqlVerifications
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
from warp.staged import NOTHING_SAID, Said, Staged, counted, stage

S = TypeVar("S", bound=Session)
M = TypeVar("M", bound=SqlMetadata[Any])
T = TypeVar("T", bound=SqlTransactions[Any, Any, Any])


class SqlDestination(ABC, Generic[S, M, T]):
    """See `warp.interfaces.DestinationConnector`.  Connects when first used, and again after a
    loss."""

    Options: ClassVar[type[BaseModel]]
    traits: ClassVar[DestinationTraits]

    def __init__(
        self,
        session: S,
        selection: TableSelection,
        metadata: M,
        transactions: T,
        keyless: Keyless[S],
    ) -> None:
        self._session = session
        self._selection = selection
        self._metadata = metadata
        self._transactions = transactions
        self._keyless = keyless

    # -- what each server does in its own way

    @abstractmethod
    def _look(self) -> Iterator[Diagnosis]: ...

    @abstractmethod
    def _adopt(self, lease: Lease) -> Marker | None:
        """Raise the fence; a predecessor that was paused inside its transaction is ended."""

    @abstractmethod
    def _registered(self, settings: TableSettings) -> TableSchema | None:
        """The table as it was last registered."""

    @abstractmethod
    def _current(self, settings: TableSettings) -> TableSchema | None:
        """The same, after finishing what configuration or a killed process left to do."""

    @abstractmethod
    def _foreseeing(self, settings: TableSettings) -> Foreseeing[S]: ...

    @abstractmethod
    def _change(self, settings: TableSettings, change: SchemaChange) -> None: ...

    @abstractmethod
    def _missing(self, part: Staged, unit: WorkUnit) -> Iterable[Sequence[int]]:
        """The numbers of the rows whose keys are not there."""

    def _parts(self, batch: ChangeBatch) -> tuple[list[Staged], list[Finding]]:
        """What is written of a batch, and what is found about its cells on the way."""
        return [_staged(part) for part in batch.changes if len(part)], []

    # -- the calls

    def check(self) -> None:
        refuse(self._look(), DestinationRefused, place=self._session.place)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def open(self, lease: Lease) -> Marker:
        unit = lease.unit
        with self._session.meaning(f"adopting {unit.id}"):
            marker = self._adopt(lease)
            # Not before: an insert would wait for a predecessor paused in its transaction.
            if marker is None and self._metadata.add(unit):
                marker = self._adopt(lease)
            if marker is None:
                found = self._metadata.fence_of(unit.id)
                raise FenceBehind(
                    f"expected a fence below {lease.fence}, found {found}; refence or drop the "
                    "unit",
                    found=found,
                    place=unit.id,
                )
            if marker.phase is not Phase.DONE:
                if unit.kind is UnitKind.CHUNK:
                    self._session.named("forget_set_aside", unit=unit.id)
                self._keyless.begin(unit)
        # The lease's unit is the fuller one where the plan has not been stored.
        return marker if marker.unit.chunk else replace(marker, unit=unit)

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return self._current(settings)

    def standing(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None or not self._metadata.prepared():
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return self._registered(settings)

    def foresee(self, have: TableSchema | None, change: SchemaChange) -> Foreseen:
        settings = self._settings_of(change.table)
        with self._session.meaning(f"looking at {settings.destination}"):
            return self._foreseeing(settings).foresee(have, change)

    def missing(self, changes: TableChanges) -> list[int]:
        """By one statement over the staged keys, in a transaction that changes nothing."""
        settings = self._selection(changes.table)
        if settings is None or changes.schema is None:
            raise AssertionError("rows of a selected table, shaped into columns")
        keys = Compacted(bytes(changes.operations), changes.versions, changes.columns)
        unit = WorkUnit.of_table(settings.schema, changes.table)
        with self._session.meaning(f"looking for rows of {settings.destination}"):
            self._session.connect()
            asked = stage(changes.schema, keys)
            found = {number for (number,) in self._missing(asked, unit)}
            return sorted(found | undecided(self._session, asked))

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        for change in changes:
            settings = self._settings_of(change.table)
            with self._session.meaning(f"{change.change} on {settings.destination}"):
                self._change(settings, change)

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
        if not self._transactions.was_committed(batch, marker):
            parts, found = self._parts(batch)
            said = Said(quarantined, [*findings, *found], replay)
            self._transactions.write(batch, marker, parts, said)
        return replace(self._written(batch), seconds=time.monotonic() - started)

    def _written(self, batch: ChangeBatch) -> Written:
        """What became of the rows of the last transaction, which wrote this batch."""
        deed, replaying = self._transactions.deed, self._transactions.replaying
        counts = counted(batch)
        counts.subtract(deed.missing)
        for what in replaying.unlanded if replaying else ():
            counts[what] -= 1
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(row.table for row in deed.aside if not row.column),
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._transactions.was_committed(None, marker):
            self._transactions.write(None, marker, [], NOTHING_SAID)

    def metadata(self) -> M:
        return self._metadata

    def verifications(self) -> SqlVerifications:
        return SqlVerifications(self._session, self._metadata)

    def close(self) -> None:
        self._session.close()

    def _settings_of(self, table: TableId) -> TableSettings:
        return selected(self._selection, table, place=self._session.place)


def _staged(changes: TableChanges) -> Staged:
    if changes.schema is None:
        raise AssertionError("changes reach a destination shaped into columns")
    return stage(changes.schema, compact(changes))
