"""A shop in memory: a database, a warehouse, and the assembly that connects them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    SHARED,
    Column,
    Kind,
    Marker,
    Phase,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.streams import Together
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)

ORDERS = TableId("shop", "orders")
STREAM = WorkUnit.stream("shop")


@dataclass
class Shop:
    """A database, a warehouse, and the assembly that connects them."""

    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    warehouse: MemoryWarehouse = field(default_factory=MemoryWarehouse)
    schemas: tuple[str, ...] = ("shop", "other")
    source_class: type[MemorySource] = MemorySource
    # Which tables each schema means; those not named mean `orders`.
    tables: Mapping[str, tuple[TableId, ...]] = field(default_factory=dict)
    source_made: Callable[[MemorySource, str], None] = lambda source, schema: None
    destination_made: Callable[[MemoryDestination], None] = lambda destination: None

    def __post_init__(self) -> None:
        columns = (Column("id", Kind.INT64), Column("name", Kind.TEXT))
        self.database.create(TableSchema(ORDERS, columns, ("id",)))

    def knows(self, schema: str) -> bool:
        return bool(self.sharing()) if schema == SHARED else schema in self.schemas

    def sharing(self) -> tuple[str, ...]:
        return () if self.source_class.traits.follows_twice else self.schemas

    def follows(self, schema: str) -> str:
        named = self.sharing() if schema == SHARED else (schema,)
        return repr([(name, self.tables.get(name)) for name in sorted(named)])

    def selection(self, schema: str) -> TableSelection:
        if schema == SHARED:
            return Together({name: self.selection(name) for name in self.sharing()})
        meant = self.tables.get(schema, (ORDERS,))
        return lambda table: TableSettings(table, table, schema) if table in meant else None

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        options = MemorySourceOptions(database=self.database)
        source = self.source_class(options, selection or self.selection(schema))
        self.source_made(source, schema)
        return source

    def destination(self, schema: str) -> DestinationConnector:
        options = MemoryDestinationOptions(warehouse=self.warehouse)
        destination = MemoryDestination(options, self.selection(schema))
        self.destination_made(destination)
        return destination

    def bookkeeping(self) -> DestinationConnector:
        return self.destination("shop")

    def names(self) -> set[Any]:
        return {row["name"] for row in self.warehouse.rows(ORDERS)}

    def phase(self, unit: WorkUnit) -> Phase | None:
        marker = self.warehouse.markers.get(unit.id)
        return marker.phase if marker else None

    def start(self, unit: WorkUnit) -> None:
        """What a coordinator does."""
        position = MemorySource(
            MemorySourceOptions(database=self.database), self.selection("shop")
        ).position()
        self.warehouse.markers[unit.id] = Marker(unit, position=position, phase=Phase.STREAMING)
