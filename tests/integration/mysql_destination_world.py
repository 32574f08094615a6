"""A MySQL or MariaDB destination in a test's hand: units that write as the user of
docs/destinations/mysql.md, a connection of an administrator that looks.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import least_rights
from fix_servers import mysql_client

from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.model import (
    ABSENT,
    Change,
    ChangeBatch,
    Column,
    Kind,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    Role,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
    Written,
)

READ, CREATE, UPDATE = Operation.READ, Operation.CREATE, Operation.UPDATE
DELETE, TRUNCATE = Operation.DELETE, Operation.TRUNCATE

ORDERS = TableId("shop", "orders")
SCHEMA = TableSchema(
    ORDERS,
    (
        Column("id", Kind.INT64, comment="types: int"),
        Column("name", Kind.TEXT),
        Column("_extra", Kind.JSON, role=Role.EXTRA),
    ),
    ("id",),
)
STREAM = WorkUnit.stream("shop")

Event = tuple[Any, ...]  # operation, version, then a cell for each column; missing ones ABSENT


class World:
    """Two databases of their own on a shared server: `table` overrides settings, `options` the
    destination's block."""

    fences = itertools.count(1)

    def __init__(self, url: str, name: str = "", **options: Any) -> None:
        """With a name it joins the world of another process."""
        self.url = url
        self.name = name or secrets.token_hex(4)
        self.shop, self.meta, self.user = (f"{w}_{self.name}" for w in ("shop", "meta", "writer"))
        self.options = options
        self.table: dict[str, Any] = {}
        self.made: list[MysqlDestination] = []
        self.looking = mysql_client(url)
        self.joined = bool(name)
        if not name:
            for statement in least_rights.mysql_writer(self.user, self.meta, self.shop):
                self.ask(statement)

    @property
    def writer_url(self) -> str:
        host = urlsplit(self.url).netloc.rpartition("@")[2]
        return f"mysql://{self.user}:{least_rights.PASSWORD}@{host}/"

    def select(self, table: TableId) -> TableSettings:
        place = TableId(self.shop, table.name)
        return replace(TableSettings(table, place, "shop"), **self.table)

    def destination(self, **options: Any) -> MysqlDestination:
        given = {"connection_string": self.writer_url, "metadata_schema": self.meta}
        given |= self.options | options
        self.made.append(MysqlDestination(MysqlWriterOptions.model_validate(given), self.select))
        return self.made[-1]

    def unit(self, unit: WorkUnit = STREAM, fence: int = 0) -> Unit:
        destination = self.destination()
        destination.metadata().prepare()
        return Unit(self, destination, unit, fence)

    def settled(self, schema: TableSchema = SCHEMA, fence: int = 0) -> Unit:
        """A stream whose table exists and has no snapshot under way."""
        unit = self.unit(fence=fence)
        table = WorkUnit.of_table("shop", schema.table)
        unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
        unit.create(schema)
        return unit

    def ask(self, query: str, parameters: Sequence[Any] | None = None) -> list[Any]:
        with self.looking.cursor() as cursor:
            cursor.execute(query, parameters)
            return list(cursor.fetchall())

    def rows(self, columns: str = "id, name", table: str = "orders") -> list[Any]:
        where = f"`{self.shop}`.`{table}`"
        return self.ask(f"select {columns} from {where} where not _cw_deleted order by 1")

    def of_meta(self, columns: str, table: str, more: str = "") -> list[Any]:
        return self.ask(f"select {columns} from {self.meta}.{table} {more}")

    def close(self) -> None:
        for destination in self.made:
            destination.close()
        if not self.joined:
            for database in (self.shop, self.meta):
                self.ask(f"drop database if exists {database}")
            self.ask(f"drop user {self.user}")
        self.looking.close()


class Unit:
    """A unit under a lease; it keeps the marker as a worker does."""

    def __init__(
        self, world: World, destination: MysqlDestination, unit: WorkUnit, fence: int = 0
    ) -> None:
        self.world = world
        self.destination = destination
        self.lease = Lease(unit, f"worker-{next(world.fences)}", fence or next(world.fences))
        self.marker: Marker = destination.open(self.lease)

    def create(self, schema: TableSchema = SCHEMA) -> TableSchema:
        create = SchemaChange(schema.table, Change.CREATE_TABLE, schema=schema)
        self.destination.apply_schema_changes([create])
        return self.schema(schema.table)

    def change(self, change: Change, column: Column, table: TableId = ORDERS) -> TableSchema:
        self.destination.apply_schema_changes([SchemaChange(table, change, column=column)])
        return self.schema(table)

    def schema(self, table: TableId = ORDERS) -> TableSchema:
        schema = self.destination.get_schema(table)
        assert schema is not None
        return schema

    def batch(
        self, token: str, *events: Event, table: TableId = ORDERS, reload: Sequence[TableId] = ()
    ) -> ChangeBatch:
        changes = []
        if events:
            schema = self.schema(table)
            width = len(schema.columns)
            full = [(*e[2:], *[ABSENT] * (width - len(e) + 2)) for e in events]
            changes = [
                TableChanges(
                    table,
                    bytearray(e[0] for e in events),
                    [e[1] for e in events],
                    schema,
                    [list(column) for column in zip(*full, strict=True)],
                )
            ]
        return ChangeBatch(changes, Position(token, 1_000.5), tuple(reload))

    def write(
        self,
        token: str,
        *events: Event,
        table: TableId = ORDERS,
        reload: Sequence[TableId] = (),
        quarantined: Sequence[QuarantinedRow] = (),
        phase: Phase = Phase.STREAMING,
    ) -> Written:
        batch = self.batch(token, *events, table=table, reload=reload)
        return self.deliver(batch, quarantined=quarantined, phase=phase)

    def deliver(
        self,
        batch: ChangeBatch,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        phase: Phase = Phase.STREAMING,
    ) -> Written:
        after = self.marker.advanced(batch, phase=phase)
        written = self.destination.write_batch(batch, after, quarantined=quarantined)
        self.marker = after
        return written


def aside(key: str = '{"id": 7}', row: str = '{"id": 7, "name": "bad"}') -> QuarantinedRow:
    return QuarantinedRow(ORDERS, key, CREATE, row, "does not fit", "conversion", None)
