"""Rows by way of a temporary table: binary COPY into it, and one merge out of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from warp import faults
from warp.destinations.postgresql import constraints, copying, keyless, merge
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.session import Session
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.quarantine import supersede_deleted
from warp.errors import DestinationRefused
from warp.model import Operation, Phase, TableSchema, TableSelection, UnitKind, WorkUnit
from warp.staged import PARTIAL, READS, STREAMED, Staged

# A commit empties every staging table of its session, so there must not be too many.
MOST_TABLES: Final = 64


class Staging:
    """The temporary tables of one connection, each for one version of a table and one unit."""

    def __init__(self, session: Session, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection
        # By table, version, kinds and unit; the one not used for the longest time first.
        self._landings: OrderedDict[tuple[Any, ...], Landing] = OrderedDict()
        self._made = 0
        self._new: list[tuple[Any, ...]] = []  # made inside the open transaction
        session.renewed.append(self._landings.clear)
        session.undone.append(self._forget_new)

    def landing(self, schema: TableSchema, unit: WorkUnit) -> Landing:
        """The table to write to, with its staging table on this connection."""
        kinds = tuple(column.kind for column in schema.columns)
        key = (schema.table, schema.version, kinds, unit.id)
        made = self._landings.get(key)
        if made is not None:
            self._landings.move_to_end(key)
            return made
        settings = self._selection(schema.table)
        if settings is None:
            raise DestinationRefused(
                f"{schema.table} is not selected by the configuration", place=self._session.place
            )
        self._made += 1
        awaited = constraints.read(self._session, settings.destination).awaited()
        made = Landing(
            schema,
            settings.destination,
            f"cw_{self._made}",
            settings.soft_delete_column,
            self._session.options.metadata_schema,
            unit.id,
            unit.kind is UnitKind.CHUNK,
            awaited,
        )
        self._session.run(merge.staging_table(made.staging, kinds))
        self._landings[key] = made
        self._new.append(key)
        return made

    def drop_old(self) -> None:
        """Before a transaction: no more tables than a commit can empty in no time."""
        while len(self._landings) > MOST_TABLES:
            _, oldest = self._landings.popitem(last=False)
            self._session.run(merge.drop_staging(oldest.staging))

    def begin(self) -> None:
        """What was made so far stays when the transaction that begins now is undone."""
        self._new.clear()

    def _forget_new(self) -> None:
        for key in self._new:
            self._landings.pop(key, None)
        self._new.clear()

    def copy(self, part: Staged, landing: Landing, numbers: Sequence[int] | None = None) -> None:
        """Rows into the staging table, by binary COPY; with numbers, all that tells them apart."""
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
        """Staged rows into their table: deletes, whole ones, partial ones.

        Deletes first: a unique value that one of them frees may be what another row takes.
        """
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
