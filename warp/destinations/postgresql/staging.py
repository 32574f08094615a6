"""Rows by way of a temporary table: binary COPY into it, and one merge out of it."""

from __future__ import annotations

from collections.abc import Sequence

from warp import faults
from warp.destinations.postgresql import constraints, copying, keyless, merge
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.session import Session
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.quarantine import supersede_deleted
from warp.destinations.sql.staging import SqlStaging
from warp.model import (
    Operation,
    Phase,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
)
from warp.staged import PARTIAL, READS, STREAMED, Staged


class Staging(SqlStaging[Session, Landing]):
    # A commit empties every staging table of its session, so there must not be too many.
    MOST_TABLES = 64

    def __init__(self, session: Session, selection: TableSelection) -> None:
        super().__init__(session, selection)
        self._new: list[Landing] = []  # made inside the open transaction
        session.renewed.append(self._landings.clear)
        session.undone.append(self._forget_new)

    def _make(
        self, name: str, schema: TableSchema, settings: TableSettings, unit: WorkUnit
    ) -> Landing:
        made = Landing(
            schema,
            settings.destination,
            name,
            settings.soft_delete_column,
            self._session.options.metadata_schema,
            unit.id,
            unit.kind is UnitKind.CHUNK,
            constraints.read(self._session, settings.destination).awaited(),
        )
        kinds = [column.kind for column in schema.columns]
        self._session.run(merge.staging_table(name, kinds))
        self._new.append(made)
        return made

    def _drop(self, landing: Landing) -> None:
        self._session.run(merge.drop_staging(landing.staging))

    def begin(self) -> None:
        """What was made so far stays when the transaction that begins now is undone."""
        self._new.clear()

    def _forget_new(self) -> None:
        for key, landing in list(self._landings.items()):
            if landing in self._new:
                del self._landings[key]
        self._new.clear()

    def copy(self, part: Staged, landing: Landing, numbers: Sequence[int] | None = None) -> None:
        """By binary COPY."""
        told = numbers is not None
        op, v = told or part.mixed, told or not part.one_version
        said: list[copying.Said] = []
        if op:
            said.append(("int2", part.operations))
        if v:
            said.append(("int8", part.versions))
        if part.kept is not None:
            said.append(("bytea", part.kept))
        if numbers is not None:
            said.append(("int4", numbers))
        [statement] = merge.copy_in(landing, op=op, v=v, kept=part.kept is not None, numbered=told)
        copying.copy(self._session, statement, part.columns, rows=len(part), beside=said)

    def merge(self, part: Staged, landing: Landing, state: TableState) -> None:
        """Deletes, whole rows, partial ones."""
        one_version = part.one_version
        parameters = {"after": state.truncated_at, "version": part.versions[0]}
        if not part.schema.key:
            step = keyless.append(landing, one_version=one_version)
            self._session.run(step, parameters)
            faults.hit("after_merge")
            return
        present = frozenset(part.operations)
        mixed = part.mixed
        if Operation.DELETE in present:
            settled = state.phase == Phase.STREAMING
            deletes = merge.delete(
                landing, settled=settled, all_rows=not mixed, one_version=one_version
            )
            self._session.run_all(deletes, parameters)
            supersede_deleted(self._session, part)
        faults.hit("after_deletes")
        steps: list[bytes] = []
        for group in (STREAMED, READS):
            if met := present & group:
                steps += merge.upsert(
                    landing,
                    operations=met if mixed else None,
                    reads=group is READS,
                    one_version=one_version,
                    left_out=part.left_out,
                )
        if PARTIAL in present:
            steps += merge.partial(landing, one_version=one_version, left_out=part.left_out)
        self._session.run_all(steps, parameters)
        faults.hit("after_merge")
