"""Rows by way of a temporary table: loaded into it, and merged out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pymysql

from warp import faults
from warp.destinations.mysql import keyless, merge
from warp.destinations.mysql.errors import DUPLICATE, code_of
from warp.destinations.mysql.loading import Into, Loader, into
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.names import fitting
from warp.destinations.mysql.session import Session
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.quarantine import supersede_deleted
from warp.destinations.sql.staging import SqlStaging
from warp.destinations.sql.straight import key_order
from warp.model import (
    Kind,
    Operation,
    Phase,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
)
from warp.staged import PARTIAL, READS, STREAMED, Staged

_FEW: Final = 100  # rows
# Another writer of the table inserts a row between our look and our insert: looked at again.
_LOOKS: Final = 3


class Staging(SqlStaging[Session, Landing]):
    """Neither making nor dropping a temporary table ends a transaction, where a TRUNCATE does."""

    MOST_TABLES = 32

    def __init__(self, session: Session, selection: TableSelection, loader: Loader) -> None:
        super().__init__(session, selection)
        self._loader = loader
        self._filled: dict[Landing, int] = {}  # with about how many rows
        session.renewed.append(self._forget)

    def _forget(self) -> None:
        self._landings.clear()
        self._filled.clear()

    def _make(
        self, name: str, schema: TableSchema, settings: TableSettings, unit: WorkUnit
    ) -> Landing:
        soft = settings.soft_delete_column
        made = Landing(
            schema,
            settings.destination,
            name,
            None if soft is None else fitting(soft),
            self._session.meta,
            unit.id,
            unit.kind is UnitKind.CHUNK and self._has_its_key(settings.destination, schema),
            collation=self._session.collation,
        )
        self._session.run(merge.staging_table(made))
        return made

    def _drop(self, landing: Landing) -> None:
        self._filled.pop(landing, None)
        self._session.run(merge.drop_staging(landing))

    def _has_its_key(self, place: TableId, schema: TableSchema) -> bool:
        """Would a row be refused whose key is there already?  Somebody may have dropped the key."""
        found = self._session.named(
            "table_key", namespace=fitting(place.namespace), table=fitting(place.name)
        ).fetchall()
        return {name for name, _ in found} == set(schema.key)

    def empty(self, landing: Landing) -> None:
        """Not by TRUNCATE, which would end the transaction, and not by a DELETE of many rows, which
        takes longer than to make the table anew."""
        rows = self._filled.pop(landing, 0)
        if rows > _FEW:
            self._session.run(merge.drop_staging(landing))
            self._session.run(merge.staging_table(landing))
        elif rows:
            self._session.run(merge.empty_staging(landing))

    def copy(self, part: Staged, landing: Landing, numbers: Sequence[int] | None = None) -> None:
        self.empty(landing)
        if numbers is None and (order := key_order(part, landing)) is not None:
            part = part.only(order)
        told = numbers is not None
        places = [Into(f"c{n}", column) for n, column in enumerate(part.schema.columns)]
        columns: list[Sequence[Any]] = list(part.carriers)
        if told or part.mixed:
            places.append(into("op", Kind.INT32))
            columns.append(list(part.operations))
        if told or not part.one_version:
            places.append(into("v", Kind.INT64))
            columns.append(list(part.versions))
        if part.kept is not None:
            places.append(into("kept", Kind.BYTES))
            columns.append(part.kept)
        if numbers is not None:
            places.append(into("n", Kind.INT32))
            columns.append(list(numbers))
        self._filled[landing] = len(part)
        self._loader.load(landing.staged, places, columns, rows=len(part))

    def merge(self, part: Staged, landing: Landing, state: TableState) -> None:
        one_version = part.one_version
        parameters = {"after": state.truncated_at, "version": part.versions[0]}
        if not part.schema.key:
            self._session.run(keyless.append(landing, one_version=one_version), parameters)
            faults.hit("after_merge")
            return
        present = frozenset(part.operations)
        mixed = part.mixed
        if Operation.DELETE in present:
            settled = state.phase == Phase.STREAMING
            self._session.run_all(
                merge.delete(landing, settled=settled, all_rows=not mixed, one_version=one_version),
                parameters,
            )
            supersede_deleted(self._session, part)
        faults.hit("after_deletes")
        streamed = STREAMED | {PARTIAL}
        for group in (streamed, READS):
            if met := present & group:
                steps = merge.upsert(
                    landing,
                    operations=met if mixed else None,
                    reads=group is READS,
                    one_version=one_version,
                    left_out=part.left_out,
                    partial=PARTIAL in met,
                )
                self._upsert(steps, parameters)
        faults.hit("after_merge")

    def _upsert(self, steps: Sequence[str], parameters: dict[str, Any]) -> None:
        for look in range(1, _LOOKS + 1):
            try:
                self._session.run_all(steps, parameters)
                return
            except pymysql.err.IntegrityError as error:
                if code_of(error) != DUPLICATE or look == _LOOKS:
                    raise
