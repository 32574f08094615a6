"""The destination: what a worker calls, and how it is put together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pymysql
from pydantic import BaseModel

from warp.compact import Compacted, compact
from warp.destinations.mysql import ddl, formless, keyless, markers, merge
from warp.destinations.mysql.errors import LOCK_WAIT, code_of
from warp.destinations.mysql.loading import Loader
from warp.destinations.mysql.look import look
from warp.destinations.mysql.metadata import MysqlMetadata
from warp.destinations.mysql.notes import Deed, Notes
from warp.destinations.mysql.quarantine import Standings
from warp.destinations.mysql.session import MysqlWriterOptions, Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.straight import Straight
from warp.destinations.mysql.tables import Tables, as_registered
from warp.destinations.mysql.transaction import Transactions
from warp.diagnosis import refuse
from warp.errors import DestinationRefused, FenceBehind
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Diagnosis,
    Finding,
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


class MysqlDestination:
    """MySQL or MariaDB: see `warp.interfaces.DestinationConnector`."""

    Options: ClassVar[type[BaseModel]] = MysqlWriterOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        atomic_marker=True, transactional_ddl=False, best_batch_rows=2_000
    )

    def __init__(self, options: MysqlWriterOptions, selection: TableSelection) -> None:
        self._selection = selection
        self._session = session = Session(options)
        loader = Loader(session)
        self._staging = Staging(session, selection, loader)
        standings = Standings(session, loader)
        tables = Tables(session, selection, self._staging, Straight(session, loader), standings)
        self._metadata = MysqlMetadata(session, selection, tables.settle, tables.count_as_older)
        self._transactions = Transactions(
            session,
            selection,
            self._metadata,
            self._staging,
            tables,
            standings,
            Notes(session, selection),
        )

    def check(self) -> None:
        refuse(self._look(), DestinationRefused, place=self._session.place)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def open(self, lease: Lease) -> Marker:
        unit = lease.unit
        with self._session.meaning(f"adopting {unit.id}"):
            marker = self._adopt(lease)
            if marker is None and self._metadata.register(unit, position=None, phase=Phase.PLANNED):
                marker = self._adopt(lease)
            if marker is None:
                found = self._metadata.fence_of(unit.id)
                raise FenceBehind(
                    f"expected a fence below {lease.fence}, found {found}; refence or drop the "
                    "unit",
                    found=found,
                    place=unit.id,
                )
            if unit.kind is UnitKind.CHUNK and marker.phase is not Phase.DONE:
                self._session.named("forget_set_aside", unit=unit.id)
            if marker.phase is not Phase.DONE and (
                settings := keyless.read_whole(self._session, self._selection, unit)
            ):
                keyless.forget(self._session, settings)
        # The lease's unit is the fuller one where the plan has not been stored.
        return marker if marker.unit.chunk else replace(marker, unit=unit)

    def _adopt(self, lease: Lease) -> Marker | None:
        """Raise the fence; a predecessor that was paused inside its transaction is ended."""
        self._session.run("SET SESSION innodb_lock_wait_timeout = 1")
        try:
            return self._raise_fence(lease)
        except pymysql.err.OperationalError as error:
            if code_of(error) != LOCK_WAIT:
                raise
        finally:
            if not self._session.lost:
                patience = max(1, round(self._session.options.lock_timeout))
                self._session.run(f"SET SESSION innodb_lock_wait_timeout = {patience}")
        self._end_superseded(lease)
        return self._raise_fence(lease)

    def _raise_fence(self, lease: Lease) -> Marker | None:
        with self._session.block():
            mine = {"unit": lease.unit.id, "fence": lease.fence, "owner": lease.owner}
            if self._session.named("adopt_marker", **mine).rowcount != 1:
                return None
            row = self._session.named("read_marker", unit=lease.unit.id).first()
            if row is None:
                raise AssertionError("the row whose fence was just raised")
            return markers.from_row(row)

    def _end_superseded(self, lease: Lease) -> None:
        """End the connection that holds the marker.  Its fence is older than ours, so it may only
        lose.  It has written its own number into the row, which is not committed, so only who
        reads uncommitted rows sees it.  A user may end its own connections without further rights.
        """
        self._session.run("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        row = self._session.named("holder", unit=lease.unit.id).first()
        if row is None or row[0] >= lease.fence or not row[1]:
            return
        try:
            self._session.run(f"KILL CONNECTION {int(row[1])}")
        except pymysql.err.Error as error:
            if code_of(error) not in _GONE:
                raise

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            return ddl.current(self._session, settings)

    def missing(self, changes: TableChanges) -> list[int]:
        """By one statement over the staged keys, in a transaction that changes nothing."""
        settings = self._selection(changes.table)
        if settings is None or changes.schema is None:
            raise AssertionError("rows of a selected table, shaped into columns")
        keys = Compacted(bytes(changes.operations), changes.versions, changes.columns)
        part = stage(changes.schema, keys)
        unit = WorkUnit.of_table(settings.schema, changes.table)
        with self._session.meaning(f"looking for rows of {settings.destination}"):
            self._session.connect()
            landing = self._staging.landing(changes.schema, unit)
            with self._session.block(), as_registered(changes.table):
                self._staging.copy(part, landing, range(len(changes)))
                [statement] = merge.missing(landing)
                found = self._session.run(statement, {"unit": unit.id}).rows
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
            parts: list[Staged] = []
            said = list(findings)
            for changes in batch.changes:
                if len(changes):
                    part, found = formless.without(_staged(changes))
                    parts.append(part)
                    said += found
            transactions.write(batch, marker, parts, Said(quarantined, said, replay))
        deed: Deed = transactions.deed
        counts: Counter[tuple[TableId, Operation]] = Counter()
        for changes in batch.changes:
            for code in set(changes.operations):
                counts[changes.table, Operation(code)] += changes.operations.count(code)
        counts.subtract(deed.missing)
        for what in transactions.replaying.unlanded if transactions.replaying else ():
            counts[what] -= 1
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(row.table for row in deed.aside if not row.column),
            seconds=time.monotonic() - started,
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._transactions.was_committed(None, marker):
            self._transactions.write(None, marker, [], NOTHING_SAID)

    def deferred_due(self, schema: str) -> bool:
        """Nothing waits for other rows here: see `Session`."""
        return False

    def metadata(self) -> MysqlMetadata:
        return self._metadata

    def close(self) -> None:
        self._session.close()

    def _settings_of(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise DestinationRefused(
                f"{table} is not selected by the configuration", place=self._session.place
            )
        return settings


_GONE = frozenset({1094, 1095})  # no such connection any more, or somebody else's by now


def _staged(changes: TableChanges) -> Staged:
    if changes.schema is None:
        raise AssertionError("changes reach a destination shaped into columns")
    return stage(changes.schema, compact(changes))
