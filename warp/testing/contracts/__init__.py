"""Contracts: subclass one in your test file and your connector is tested.

    class TestMine(DestinationContract):
        def make(self): return MyDestination(MyDestination.Options(...), select)
        def read(self, table): return {(1, "a"), ...}

Every case states one promise of `warp.interfaces`.  The reference implementations in
`warp.testing.memory` pass them all; so must any connector that is shipped.
"""

from warp.testing.contracts.destinations import DestinationContract
from warp.testing.contracts.orders import (
    ORDERS,
    SCHEMA,
    STREAM,
    Event,
    Unit,
    aside,
    select,
)
from warp.testing.contracts.sources import PollContract, RowsContract, SourceContract

__all__ = [
    "ORDERS",
    "SCHEMA",
    "STREAM",
    "DestinationContract",
    "Event",
    "PollContract",
    "RowsContract",
    "SourceContract",
    "Unit",
    "aside",
    "select",
]
