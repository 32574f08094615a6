"""A PostgreSQL destination in a test's hand: units that write, a plain connection that looks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
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
    (Column("id", Kind.INT64), Column("name", Kind.TEXT), Column("_extra", Kind.JSON)),
    ("id",),
)
STREAM = WorkUnit.stream("shop")
TABLE = WorkUnit.of_table("shop", ORDERS)
META = "cartridge_warp_metadata"

Event = tuple[Any, ...]  # operation, version, then a cell for each column; missing ones ABSENT


class World:
    """One database: `table` overrides settings, `options` the destination's block."""

    fences = itertools.count(1)

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        self.table: dict[str, Any] = {}
        self.made: list[PostgresDestination] = []
        self.looking = psycopg.connect(url, autocommit=True)

    def select(self, table: TableId) -> TableSettings:
        return replace(TableSettings(table, table, "shop"), **self.table)

    def destination(self, **options: Any) -> PostgresDestination:
        given = {"connection_string": self.url} | self.options | options
        self.made.append(PostgresDestination(PostgresOptions.model_validate(given), self.select))
        return self.made[-1]

    def prepared(self) -> PostgresDestination:
        destination = self.destination()
        destination.metadata().prepare()
        return destination

    def unit(self, unit: WorkUnit = STREAM, fence: int = 0) -> Unit:
        return Unit(self, self.prepared(), unit, fence)

    def settled(self, schema: TableSchema = SCHEMA, fence: int = 0) -> Unit:
        """A stream whose table exists and has no snapshot under way."""
        unit = self.unit(fence=fence)
        table = WorkUnit.of_table("shop", schema.table)
        unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
        unit.create(schema)
        return unit

    def ask(self, query: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
        return self.looking.execute(query.encode(), parameters).fetchall()

    def rows(self, table: str = "shop.orders", columns: str = "id, name") -> list[Any]:
        return self.ask(f"select {columns} from {table} where not _cw_deleted order by 1")

    def close(self) -> None:
        for destination in self.made:
            destination.close()
        self.looking.close()


class Unit:
    """A unit under a lease; it keeps the marker as a worker does."""

    def __init__(
        self,
        world: World,
        destination: PostgresDestination,
        unit: WorkUnit = STREAM,
        fence: int = 0,
    ) -> None:
        self.world = world
        self.destination = destination
        self.lease = Lease(unit, f"worker-{next(world.fences)}", fence or next(world.fences))
        self.marker: Marker = destination.open(self.lease)

    def create(self, schema: TableSchema = SCHEMA) -> TableSchema:
        create = SchemaChange(schema.table, Change.CREATE_TABLE, schema=schema)
        self.destination.apply_schema_changes([create])
        return self.schema(schema.table)

    def schema(self, table: TableId = ORDERS) -> TableSchema:
        schema = self.destination.get_schema(table)
        assert schema is not None
        return schema

    def batch(
        self,
        token: str,
        *events: Event,
        table: TableId = ORDERS,
        reload: Sequence[TableId] = (),
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
