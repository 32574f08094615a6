"""A table whose columns cannot be changed now: documents go on, with their values in `_extra`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
import orjson
import pytest

from warp.errors import SchemaBusy
from warp.model import (
    Change,
    ChangeBatch,
    Column,
    Kind,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    SchemaChange,
    TableChanges,
    TableSchema,
)
from warp.pipeline import BUSY_SECONDS, Delivery, NoMeter
from warp.sources.documents import BsonDocuments
from warp.sources.proposals import EXTRA
from warp.testing.contracts import ORDERS, STREAM, select
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)

KEY = Column("_id", Kind.INT64, comment="seen")


class Held:
    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def wait(self, seconds: float) -> None: ...


class Busy(MemoryDestination):
    """Refuses to change a table while somebody reads it."""

    busy = False

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        if self.busy:
            raise SchemaBusy("a report is running")
        super().apply_schema_changes(changes)


class Line:
    """One unit that delivers documents, at a time that the test sets."""

    def __init__(self, *columns: Column) -> None:
        self.warehouse = MemoryWarehouse()
        options = MemoryDestinationOptions(warehouse=self.warehouse)
        self.destination = Busy(options, select)
        self.now = 100.0
        lease = Lease(STREAM, "worker", 1)
        self.marker: Marker = self.destination.open(lease)
        schema = TableSchema(ORDERS, (KEY, *columns), ("_id",))
        self.destination.apply_schema_changes(
            [SchemaChange(ORDERS, Change.CREATE_TABLE, schema=schema)]
        )
        source = MemorySource(MemorySourceOptions(database=MemoryDatabase()), select)
        self.delivery = Delivery(
            source, self.destination, Held(lease), select, NoMeter(), lambda: self.now
        )

    def send(self, version: int, **document: Any) -> None:
        raw = [bson.encode(document)]
        part = TableChanges(
            ORDERS,
            bytearray([Operation.CREATE]),
            [version],
            documents=BsonDocuments(ORDERS, raw),
        )
        batch = ChangeBatch([part], Position(str(version)))
        self.marker = self.delivery.write(self.marker, batch, Phase.STREAMING)
        self.delivery.promote()

    def row(self, id: int) -> dict[str, Any]:
        [row] = [r for r in self.warehouse.rows(ORDERS) if r["_id"] == id]
        extra = row.get("_extra")
        return row | {"_extra": None if extra is None else orjson.loads(extra)}

    def kind(self, name: str) -> Kind | None:
        column = self.warehouse.schemas[ORDERS].column(name)
        return column.kind if column else None


def test_a_value_waits_in_extra_until_its_column_can_be_widened() -> None:
    line = Line(Column("n", Kind.INT64), EXTRA)
    line.destination.busy = True
    line.send(1, _id=1, n=1.5)
    assert line.row(1) == {"_id": 1, "n": None, "_extra": {"n": 1.5}}
    assert line.kind("n") is Kind.INT64

    line.destination.busy = False
    line.now += BUSY_SECONDS / 2
    line.send(2, _id=2, n=2.5)
    assert line.kind("n") is Kind.INT64  # not asked for again with every batch
    line.now += BUSY_SECONDS
    line.delivery.promote()
    line.send(3, _id=3, n=3.5)
    assert line.kind("n") is Kind.DECIMAL
    assert float(line.row(3)["n"]) == 3.5


def test_a_new_field_waits_longer_for_its_column() -> None:
    line = Line(EXTRA)
    line.send(1, _id=1, colour="red")
    line.destination.busy = True
    line.now += 10
    line.send(2, _id=2)  # its time has come, and the table is in use
    assert line.kind("colour") is None
    line.destination.busy = False
    line.now += 10
    line.send(3, _id=3)
    assert line.kind("colour") is Kind.TEXT


def test_a_table_without_extra_waits_as_a_whole() -> None:
    line = Line(Column("n", Kind.INT64))
    line.destination.busy = True
    with pytest.raises(SchemaBusy):
        line.send(1, _id=1, n=1.5)
    assert line.warehouse.rows(ORDERS) == []
