"""A source and a destination in memory: the reference implementations, and the fakes of unit tests.

They keep every promise of `warp.interfaces` in the plainest code that can, so that a reader learns
from them what a promise means, and the contracts have something to be checked against.
"""

from warp.testing.memory.destination import MemoryDestination, MemoryDestinationOptions
from warp.testing.memory.metadata import MemoryMetadata
from warp.testing.memory.source import (
    MemoryDatabase,
    MemoryDeltas,
    MemoryOneLog,
    MemorySource,
    MemorySourceOptions,
)
from warp.testing.memory.warehouse import MemoryWarehouse

__all__ = [
    "MemoryDatabase",
    "MemoryDeltas",
    "MemoryDestination",
    "MemoryDestinationOptions",
    "MemoryMetadata",
    "MemoryOneLog",
    "MemorySource",
    "MemorySourceOptions",
    "MemoryWarehouse",
]
