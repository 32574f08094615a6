"""What the contracts of a destination share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from warp.interfaces import (
    DestinationConnector,
)
from warp.model import (
    ChangeBatch,
    Chunk,
    Phase,
    Position,
    TableId,
    WorkUnit,
)
from warp.testing.contracts.orders import (
    ORDERS,
    Unit,
)


class OneDestination(ABC):
    """A destination, which is empty when a test starts."""

    @abstractmethod
    def make(self) -> DestinationConnector:
        """A connector to this test's destination; called twice it reaches the same data."""

    @abstractmethod
    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        """(id, name) of every row a user of the table takes for live."""

    def start(self) -> Unit:
        destination = self.make()
        destination.metadata().prepare()
        return Unit(destination)

    def settled(self) -> Unit:
        """A unit whose table has no snapshot under way."""
        unit = self.start()
        table = WorkUnit.of_table("shop", ORDERS)
        unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
        return unit

    def planned(self, chunks: int = 1) -> tuple[Unit, list[WorkUnit]]:
        stream = self.start()
        cut = [Chunk(ORDERS, number) for number in range(chunks)]
        planned = stream.destination.metadata().plan_snapshot("shop", ORDERS, cut, version=0)
        assert planned
        return stream, [WorkUnit.of_chunk("shop", chunk, 0) for chunk in cut]

    def finish(self, unit: Unit) -> None:
        batch = ChangeBatch([], Position("done"))
        unit.destination.update_marker(unit.marker.advanced(batch, phase=Phase.DONE))
