"""The one table of the contracts, and a unit that writes to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from warp import stored
from warp.interfaces import (
    DestinationConnector,
)
from warp.model import (
    ABSENT,
    Change,
    ChangeBatch,
    Column,
    Finding,
    Kind,
    Lease,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
)

ORDERS = TableId("shop", "orders")
SCHEMA = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("name", Kind.TEXT)), ("id",))
STREAM = WorkUnit.stream("shop")
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
READ, TRUNCATE = Operation.READ, Operation.TRUNCATE

# Rows of a batch, at most.
SNAPSHOT_ROWS = 7
STREAM_ROWS = 50

Event = tuple[Operation, int, Any, Any]  # operation, version, id, name


def select(table: TableId) -> TableSettings | None:
    """The table selection of the contracts: everything in `shop`."""
    if table.namespace != ORDERS.namespace:
        return None
    return TableSettings(
        table, table, "shop", full_load_batch_size=SNAPSHOT_ROWS, write_batch_size=STREAM_ROWS
    )


class Unit:
    """One unit in a test's hand: it opens, writes and keeps the marker, as a worker does."""

    fences = itertools.count(1)

    def __init__(self, destination: DestinationConnector, unit: WorkUnit = STREAM) -> None:
        self.destination = destination
        self.lease = Lease(unit, f"worker-{next(self.fences)}", next(self.fences))
        self.marker = destination.open(self.lease)

    def write(
        self,
        token: str,
        *events: Event,
        reload: Sequence[TableId] = (),
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> None:
        schema = self.destination.get_schema(ORDERS)
        if schema is None:
            create = SchemaChange(ORDERS, Change.CREATE_TABLE, schema=SCHEMA)
            self.destination.apply_schema_changes([create])
            schema = self.destination.get_schema(ORDERS)
        changes = []
        if events:
            columns: list[list[Any]] = [[e[2] for e in events], [e[3] for e in events]]
            columns += [[ABSENT] * len(events) for _ in (schema.columns[2:] if schema else ())]
            operations = bytearray(e[0] for e in events)
            versions = [e[1] for e in events]
            changes = [TableChanges(ORDERS, operations, versions, schema, columns)]
        batch = ChangeBatch(changes, Position(token, 1_000.0), tuple(reload))
        after = self.marker.advanced(batch, phase=Phase.STREAMING)
        self.destination.write_batch(
            batch, after, quarantined=quarantined, findings=findings, replay=replay
        )
        self.marker = after


def aside(operation: Operation, version: int, id: int, name: Any, **more: Any) -> QuarantinedRow:
    """A row of `shop.orders` as a stream sets it aside."""
    return QuarantinedRow(
        ORDERS,
        stored.dump(SCHEMA.columns, [id, ABSENT]),
        operation,
        stored.dump(SCHEMA.columns, [id, name]),
        more.pop("reason", "too long for the column"),
        more.pop("code", "SQLSTATE 22001"),
        version=version,
        kinds=more.pop("kinds", stored.kinds_of(SCHEMA.columns)),
        **more,
    )
