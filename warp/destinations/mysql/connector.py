"""MySQL or MariaDB as a destination: what a worker calls, and how it is put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import pymysql
from pydantic import BaseModel

from warp.destinations.mysql import ddl, formless, merge
from warp.destinations.mysql.comparing import MysqlComparing
from warp.destinations.mysql.errors import LOCK_WAIT, code_of
from warp.destinations.mysql.foreseen import Foreseeing
from warp.destinations.mysql.keyless import Keyless
from warp.destinations.mysql.loading import Loader
from warp.destinations.mysql.look import look
from warp.destinations.mysql.metadata import MysqlMetadata
from warp.destinations.mysql.quarantine import Standings
from warp.destinations.mysql.session import MysqlWriterOptions, Session
from warp.destinations.mysql.staging import Staging
from warp.destinations.mysql.straight import Straight
from warp.destinations.mysql.tables import Tables, as_registered
from warp.destinations.mysql.transaction import Transactions
from warp.destinations.sql import markers
from warp.destinations.sql.connector import SqlDestination
from warp.interfaces import DestinationTraits
from warp.model import (
    ChangeBatch,
    Diagnosis,
    Finding,
    Lease,
    Marker,
    SchemaChange,
    TableSchema,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.staged import Staged


class MysqlDestination(SqlDestination[Session, MysqlMetadata, Transactions]):
    """MySQL 8 or MariaDB 10.6 or later."""

    Options: ClassVar[type[BaseModel]] = MysqlWriterOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        best_batch_rows=2_000, ranges=True, foresees=True, compares=True, tells_cut_short=True
    )

    def __init__(self, options: MysqlWriterOptions, selection: TableSelection) -> None:
        session = Session(options)
        self._loader = loader = Loader(session)
        self._staging = staging = Staging(session, selection, loader)
        standings, keyless = Standings(session, loader), Keyless(session, selection)
        straight = Straight(session, loader)
        tables = Tables(session, selection, staging, straight, standings, keyless)
        metadata = MysqlMetadata(session, selection, tables.settle, tables.count_as_older)
        transactions = Transactions(
            session, selection, metadata, staging, tables, standings, keyless
        )
        super().__init__(session, selection, metadata, transactions, keyless)

    def _look(self) -> Iterator[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def _adopt(self, lease: Lease) -> Marker | None:
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
            row = self._session.named("read_marker", unit=lease.unit.id).fetchone()
            if row is None:
                raise AssertionError("the row whose fence was just raised")
            return markers.from_row(self._session, row)

    def _end_superseded(self, lease: Lease) -> None:
        """End the connection that holds the marker.  Its fence is older than ours, so it may only
        lose.  It has written its own number into the row, which is not committed, so only who
        reads uncommitted rows sees it.  A user may end its own connections without further rights.
        """
        self._session.run("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        row = self._session.named("holder", unit=lease.unit.id).fetchone()
        if row is None or row[0] >= lease.fence or not row[1]:
            return
        try:
            self._session.run(f"KILL CONNECTION {int(row[1])}")
        except pymysql.err.Error as error:
            if code_of(error) not in _GONE:
                raise

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
        with self._session.block(), as_registered(part.schema.table):
            self._staging.copy(part, landing, range(len(part)))
            [statement] = merge.missing(landing)
            return self._session.run(statement, {"unit": unit.id}).fetchall()

    def _parts(self, batch: ChangeBatch) -> tuple[list[Staged], list[Finding]]:
        parts, findings = super()._parts(batch)
        kept = [formless.without(part) for part in parts]
        return [part for part, _ in kept], [*findings, *(one for _, more in kept for one in more)]

    def deferred_due(self, schema: str) -> bool:
        """Nothing waits for other rows here: see `Session`."""
        return False

    def comparing(self) -> MysqlComparing:
        return MysqlComparing(self._session, self._selection, self._loader)


_GONE = frozenset({1094, 1095})  # no such connection any more, or somebody else's by now
