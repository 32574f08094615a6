"""A writer to kill or to pause: a few batches to one table, resumed at the marker."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from typing import Any

from fix_bigquery import Warehouse
from fix_servers import GivenBigQuery

from warp import sql
from warp.destinations.bigquery import script
from warp.model import ABSENT, UNCHANGED, Operation, Phase, QuarantinedRow, WorkUnit
from warp.testing.contracts import ORDERS, Event, Unit, aside, select

CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
BATCHES = 3
ROWS = 4  # created by each


@dataclass(frozen=True, slots=True)
class Order:
    """What to write where, in an argument of the process."""

    url: str
    project: str
    mark: str
    fence: int
    without: tuple[str, ...] = ()  # the twin: guards of advance_marker.sql that are taken away

    def text(self) -> str:
        return json.dumps([self.url, self.project, self.mark, self.fence, *self.without])

    @staticmethod
    def parse(text: str) -> Order:
        url, project, mark, fence, *without = json.loads(text)
        return Order(url, project, mark, fence, tuple(without))


def events(batch: int) -> list[Event]:
    """Four rows, and of those of the batch before one changed, one kept and one deleted."""
    version, first = batch * 10, batch * 10
    found: list[Event] = [(CREATE, version, first + n, f"row {first + n}") for n in range(ROWS)]
    if batch > 1:
        found.append((UPDATE, version, first - 10, "changed"))
        found.append((UPDATE, version, first - 9, UNCHANGED))
        found.append((DELETE, version, first - 8, ABSENT))
    return found


def set_aside(batch: int) -> QuarantinedRow:
    return aside(CREATE, batch * 10, 900 + batch, "does not fit")


def all_rows() -> set[tuple[int, str]]:
    """What the batches leave behind, whoever wrote them and however often they died."""
    found: dict[int, str] = {}
    for batch in range(1, BATCHES + 1):
        for operation, _, id, name in events(batch):
            if operation is DELETE:
                del found[id]
            elif name is not UNCHANGED:
                found[id] = name
    return set(found.items())


def unguarded(guards: tuple[str, ...]) -> Any:
    """The loader of statements that leaves guards of advance_marker.sql out."""

    def load(dialect: str, name: str) -> str:
        text = sql.load(dialect, name)
        for guard in guards if name == "advance_marker" else ():
            assert guard in text, f"{guard!r} is not in {name}.sql"
            text = text.replace(guard, "")
        return text

    return load


def unit_of(warehouse: Warehouse) -> Unit:
    """A stream whose table has no snapshot under way."""
    destination = warehouse.destination(select)
    destination.metadata().prepare()
    table = WorkUnit.of_table("shop", ORDERS)
    destination.metadata().register(table, position=None, phase=Phase.STREAMING)
    return Unit(destination)


def main(order: Order) -> None:
    vars(script)["load"] = unguarded(order.without)
    Unit.fences = itertools.count(order.fence)
    unit = unit_of(Warehouse(GivenBigQuery(order.url, "", order.project), order.mark))
    while unit.marker.batch < BATCHES:
        batch = unit.marker.batch + 1
        unit.write(str(batch), *events(batch), quarantined=[set_aside(batch)])


if __name__ == "__main__":
    main(Order.parse(sys.argv[1]))
