"""A writer to kill: children that come two batches before their parent, some of them changed or
deleted while they wait.  Resumed at the marker; its arguments are a URL and a fence."""

from __future__ import annotations

import sys

from postgresql_world import CREATE, DELETE, ORDERS, UPDATE, Event, World

from warp.model import UNCHANGED, Column, Kind, TableId, TableSchema

CUSTOMERS = TableId("shop", "customers")
CUSTOMER = TableSchema(
    CUSTOMERS,
    (Column("id", Kind.INT64), Column("name", Kind.TEXT), Column("best", Kind.INT64)),
    ("id",),
)
ORDER = TableSchema(
    ORDERS,
    (Column("id", Kind.INT64), Column("customer", Kind.INT64), Column("name", Kind.TEXT)),
    ("id",),
)
BATCHES = 6


def children(batch: int) -> list[Event]:
    """Four orders of a customer that comes two batches later; of those of the batch before, which
    wait, one is changed and one deleted."""
    version, first = batch * 10, batch * 10
    found: list[Event] = [(CREATE, version, first + n, batch + 1, "new") for n in range(4)]
    if batch > 1:
        found.append((UPDATE, version, first - 10, UNCHANGED, "changed"))
        found.append((DELETE, version, first - 9))
    return found


def parents(batch: int) -> list[Event]:
    return [(CREATE, batch * 10, batch - 1, "customer")]


def landed() -> list[tuple[int, int, str]]:
    """The orders whose customers have come in the end."""
    return [
        (batch * 10 + n, batch + 1, "new" if n else "changed")
        for batch in range(1, BATCHES - 1)
        for n in (0, 2, 3)
    ]


def waiting() -> list[int]:
    """The orders whose customers have not."""
    return [
        batch * 10 + n
        for batch in (BATCHES - 1, BATCHES)
        for n in range(4)
        if (batch, n) != (BATCHES - 1, 1)
    ]


def main(url: str, fence: int) -> None:
    world = World(url)
    unit = world.unit(fence=fence)
    while unit.marker.batch < BATCHES:
        number = unit.marker.batch + 1
        batch = unit.batch(str(number), *children(number))
        batch.changes += unit.batch(str(number), *parents(number), table=CUSTOMERS).changes
        unit.deliver(batch)
    world.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
