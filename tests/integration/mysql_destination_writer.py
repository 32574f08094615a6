"""A writer to kill: five batches to one table, resumed at the marker."""

from __future__ import annotations

import sys

from mysql_destination_world import CREATE, DELETE, TRUNCATE, UPDATE, Event, World, aside

from warp.model import UNCHANGED

BATCHES = 5


def events(batch: int) -> list[Event]:
    """Rows of one batch: ten created, two of the batch before changed, one of it deleted."""
    version, first = batch * 10, batch * 10
    found: list[Event] = [(CREATE, version, first + n, f"row {first + n}") for n in range(10)]
    if batch == 1:
        found.insert(0, (TRUNCATE, 5, None))
    else:
        found.append((UPDATE, version, first - 9, "changed"))
        found.append((UPDATE, version, first - 8, UNCHANGED, b'{"also": 1}'))
        found.append((DELETE, version, first - 7))
    return found


def main(url: str, name: str, fence: int) -> None:
    world = World(url, name)
    unit = world.settled(fence=fence)
    while unit.marker.batch < BATCHES:
        batch = unit.marker.batch + 1
        unit.write(str(batch), *events(batch), quarantined=[aside(key=str(batch))])
    world.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
