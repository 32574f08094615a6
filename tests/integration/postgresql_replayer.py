"""A replay to kill: lands what is marked in a database's quarantine, two rows at a time.

Its arguments are a URL and, for a broken twin, what is broken.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from postgresql_world import META, ORDERS, World

from warp import pipeline
from warp.destinations.postgresql import PostgresDestination
from warp.destinations.sql.quarantine import Replaying
from warp.model import ChangeBatch, Lease, Marker, Operation, Written
from warp.model import WorkUnit as Unit
from warp.testing.memory import MemorySource, MemorySourceOptions

REPLAY = Unit.of_replay("shop", ORDERS)


class Free:
    """A hold that nobody asks for back."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def wait(self, seconds: float) -> None: ...


class Counting(pipeline.NoMeter):
    """What was counted as committed."""

    def __init__(self) -> None:
        self.counts: Counter[Operation] = Counter()

    def committed(self, batch: ChangeBatch, written: Written) -> None:
        for (_, operation), rows in written.counts.items():
            self.counts[operation] += rows


def replay(world: World, unit: Unit = REPLAY, meter: pipeline.Meter | None = None) -> bool:
    """One turn of a replay unit, as a worker takes it."""
    destination = world.destination()
    [(fence,)] = world.ask(
        f"select coalesce(max(fence), 0) from {META}.sync_markers where unit = %s", [unit.id]
    )
    lease = Lease(unit, "replayer", fence + 1)
    return pipeline.replay(
        MemorySource(MemorySourceOptions(), world.select),
        destination,
        destination.open(lease),
        Free(lease),
        selection=world.select,
        meter=meter or pipeline.NoMeter(),
    )


def settle_after_the_commit() -> None:
    """The broken twin: what became of a row is written in a transaction of its own."""
    settle, write = Replaying.settle, PostgresDestination.write_batch

    def write_batch(
        self: PostgresDestination, batch: ChangeBatch, marker: Marker, **said: Any
    ) -> Written:
        written = write(self, batch, marker, **said)
        if self._transactions.replaying is not None:
            settle(self._transactions.replaying)
        return written

    Replaying.settle = lambda self: None  # type: ignore[method-assign]
    PostgresDestination.write_batch = write_batch  # type: ignore[method-assign, assignment]


def main(url: str, broken: str) -> None:
    pipeline.REPLAYED_AT_ONCE = 2
    if broken:
        settle_after_the_commit()
    world = World(url)
    replay(world)
    world.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
