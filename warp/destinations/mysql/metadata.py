"""The bookkeeping beside the data, as a MySQL or MariaDB keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import pymysql

from warp import metadata_rows
from warp.destinations.mysql import ddl
from warp.destinations.mysql.errors import SAME_INDEX, code_of
from warp.destinations.mysql.names import quoted
from warp.destinations.mysql.session import Session
from warp.destinations.sql.metadata import SqlMetadata
from warp.destinations.sql.quarantine import REPLAYED_BYTES
from warp.errors import DestinationUnavailable
from warp.model import Phase, Position, TableId, WorkUnit
from warp.sql import migrations

PREPARE_SECONDS = 60  # to wait for another process that prepares the metadata


class MysqlMetadata(SqlMetadata[Session]):
    def prepare(self) -> None:
        """No migration of this server is undone when it fails, so each statement of one may be
        made again, and a step counts when all of its statements are."""
        steps = migrations("mysql_destination")
        with self._session.meaning("preparing the metadata database"):
            if self._version() == steps[-1].version:
                return
            meta = self._session.meta
            # Released by the end of the connection, so a killed process leaves nothing behind.
            lock = f"cartridge-warp {sha256(meta.encode()).hexdigest()[:32]}"
            answer = self._session.run(
                "select get_lock(%(lock)s, %(seconds)s)", {"lock": lock, "seconds": PREPARE_SECONDS}
            )
            if answer.fetchall() != ((1,),):
                raise DestinationUnavailable(
                    f"another process has been preparing {meta} for {PREPARE_SECONDS} s; it is "
                    "tried again",
                    place=self._session.place,
                )
            try:
                self._prepare()
            finally:
                if not self._session.lost:
                    self._session.run("select release_lock(%(lock)s)", {"lock": lock})

    def _prepare(self) -> None:
        steps = migrations("mysql_destination")
        meta = self._session.meta
        if self._session.named("look_at_schema", schema=meta).fetchone() is None:
            self._session.run(
                f"create database if not exists {quoted(meta)}"
                f" default character set utf8mb4 collate {self._session.collation}"
            )
        self._session.named("create_schema_version")
        have = self._version() or 0
        if have > steps[-1].version:
            raise self._too_new(have, steps[-1].version, meta)
        for step in steps[have:]:
            for statement in filter(None, map(str.strip, step.text.split(";\n"))):
                try:
                    self._session.run(self._session.compose(statement.rstrip(";")))
                except pymysql.err.Error as error:
                    if code_of(error) != SAME_INDEX:  # made by a process that was killed
                        raise
            self._session.run(
                f"insert into {quoted(meta, 'schema_version')} (version, name)"
                " values (%(version)s, %(name)s)",
                {"version": step.version, "name": step.name},
            )

    def _version(self) -> int | None:
        found = self._session.named(
            "table_kind", namespace=self._session.meta, table="schema_version"
        ).fetchone()
        if found is None:
            return None
        row = self._session.named("read_schema_version").fetchone()
        return None if row is None else row[0]

    def add(
        self,
        unit: WorkUnit,
        *,
        phase: Phase = Phase.PLANNED,
        position: Position | None = None,
        epoch: int | None = None,
    ) -> bool:
        return ddl.add_marker(
            self._session,
            unit,
            position=position,
            phase=phase,
            epoch=metadata_rows.epoch_of(unit) if epoch is None else epoch,
        )

    def remove_chunks(self, tables: Sequence[WorkUnit]) -> None:
        for unit in sorted(tables, key=lambda unit: unit.id):
            where = {
                "schema": unit.schema,
                "namespace": unit.table.namespace if unit.table else "",
                "table": unit.table.name if unit.table else "",
            }
            self._session.named("abandon_chunk_runs", **where)
            self._session.named("remove_chunks", **where)

    def _count_beside_as_older(self, unit: WorkUnit, table: TableId, newest: int) -> None:
        where = {"namespace": table.namespace, "table": table.name, "newest": newest}
        self._session.named("count_quarantine_as_older", **where)
        self._session.named("count_audit_as_older", **where)
        self._session.named("count_marker_as_older", unit=unit.id, newest=newest)

    def _rows_to_replay(self, schema: str, table: TableId, limit: int) -> Sequence[Any]:
        sizes = self._session.named(
            "sizes_to_replay",
            schema=schema,
            namespace=table.namespace,
            table=table.name,
            limit=limit,
        ).fetchall()
        ids = ids_within((id, size) for id, size in sizes)
        return self._session.named("rows_to_replay", ids=ids).fetchall()


def ids_within(sizes: Iterable[tuple[int, int]], limit: int = REPLAYED_BYTES) -> list[int]:
    """The first of these rows that together have so many bytes; at least one where there is any."""
    ids: list[int] = []
    total = 0
    for id, size in sizes:
        if ids and total >= limit:
            break
        ids.append(id)
        total += size
    return ids
