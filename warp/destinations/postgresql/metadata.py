"""The bookkeeping beside the data, as a PostgreSQL keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp import metadata_rows
from warp.destinations.postgresql.session import Session, name, text
from warp.destinations.sql import markers
from warp.destinations.sql.metadata import SqlMetadata
from warp.destinations.sql.quarantine import REPLAYED_BYTES
from warp.model import Phase, Position, TableId, WorkUnit
from warp.sql import migrations


class PostgresMetadata(SqlMetadata[Session]):
    def prepare(self) -> None:
        steps = migrations("postgresql")
        with self._session.meaning("preparing the metadata schema"):
            if self._version() == steps[-1].version:
                return
        schema = self._session.options.metadata_schema
        with self._session.transaction("preparing the metadata schema", patient=True):
            # Released by the end of the transaction, so a killed process leaves nothing behind.
            self._session.run(b"SET LOCAL lock_timeout = '60s'")
            self._session.run(
                b"select pg_catalog.pg_advisory_xact_lock("
                b"pg_catalog.hashtextextended('cartridge-warp ' || %s, 0))",
                [schema],
            )
            if not self._exists(schema):
                self._session.run(text("create schema {}").format(name(schema)))
            self._session.named("create_schema_version")
            have = self._version() or 0
            if have > steps[-1].version:
                raise self._too_new(have, steps[-1].version, schema)
            for step in steps[have:]:
                self._session.run(self._session.compose(step.text))
                self._session.run(
                    text("insert into {} (version, name) values (%s, %s)").format(
                        name(schema, "schema_version")
                    ),
                    [step.version, step.name],
                )

    def _version(self) -> int | None:
        found = self._session.run(
            b"select pg_catalog.to_regclass(%s) is not null",
            [name(self._session.options.metadata_schema, "schema_version").as_string(None)],
        ).fetchone()
        if found is None or not found[0]:
            return None
        row = self._session.named("read_schema_version").fetchone()
        return None if row is None else row[0]

    def _exists(self, schema: str) -> bool:
        return (
            self._session.run(
                b"select 1 from pg_catalog.pg_namespace where nspname = %s", [schema]
            ).fetchone()
            is not None
        )

    def add(
        self,
        unit: WorkUnit,
        *,
        phase: Phase = Phase.PLANNED,
        position: Position | None = None,
        epoch: int | None = None,
    ) -> bool:
        given = markers.to_parameters(
            self._session,
            unit,
            position=position,
            phase=phase,
            epoch=metadata_rows.epoch_of(unit) if epoch is None else epoch,
        )
        return self._session.named("add_marker", **given).rowcount == 1

    def remove_chunks(self, tables: Sequence[WorkUnit]) -> None:
        self._session.named(
            "remove_chunks",
            schemas=[unit.schema for unit in tables],
            namespaces=[unit.table.namespace if unit.table else "" for unit in tables],
            tables=[unit.table.name if unit.table else "" for unit in tables],
        )

    def _count_beside_as_older(self, unit: WorkUnit, table: TableId, newest: int) -> None:
        self._session.named(
            "count_as_older",
            unit=unit.id,
            schema=unit.schema,
            namespace=table.namespace,
            table=table.name,
            newest=newest,
        )

    def deferred(self) -> dict[TableId, int]:
        with self._session.meaning("counting the rows that wait for others"):
            rows = self._session.named("count_deferred")
            return {TableId(namespace, table): count for namespace, table, count in rows}

    def _rows_to_replay(self, schema: str, table: TableId, limit: int) -> Sequence[Any]:
        return self._session.named(
            "rows_to_replay",
            schema=schema,
            namespace=table.namespace,
            table=table.name,
            limit=limit,
            bytes=REPLAYED_BYTES,
        ).fetchall()
