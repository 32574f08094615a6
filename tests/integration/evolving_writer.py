"""Changes a table's columns while it writes; run as a process that a fault point kills.

python evolving_writer.py URL FENCE
"""

from __future__ import annotations

import sys

from postgresql_world import CREATE, ORDERS, World

from warp.model import Change, Column, Kind, SchemaChange, TableSchema
from warp.sources.proposals import EXTRA

FIRST = TableSchema(
    ORDERS, (Column("id", Kind.INT64, comment="seen"), Column("v", Kind.INT32), EXTRA), ("id",)
)
NEW = Column("new", Kind.TEXT)
WIDE = Column("v", Kind.INT64)


def main(url: str, fence: int) -> None:
    world = World(url)
    unit = world.settled(FIRST, fence)
    if unit.marker.batch == 0:
        unit.write("1", (CREATE, 1, 1, 5, b'{"new": "a", "v": 1099511627776}'))
    changes = [
        SchemaChange(ORDERS, Change.ADD_COLUMN, column=NEW),
        SchemaChange(ORDERS, Change.WIDEN_COLUMN, column=WIDE),
    ]
    for change in changes:
        unit.destination.apply_schema_changes([change])
    if unit.marker.batch == 1:
        names = unit.schema().names()
        row = {"id": 2, "v": 2**40, "_extra": None, "new": "b"}
        unit.write("2", (CREATE, 2, *(row[name] for name in names)))
    world.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
