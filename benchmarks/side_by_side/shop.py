"""The orders that are moved, and what happens to them: 8 fields, the same for every source.

Everything follows from a row's number and version, so that every contender meets the same data.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import orjson

TABLE: Final = "orders"
LAST: Final = 9_000_000_000
"""The id of the order that is inserted after all others: where it is, everything before it is."""

_EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
_WARES: Final = (
    *("widget", "gadget", "doohickey", "gizmo"),
    *("naïve café", "数量", 'quote"d', "back\\slash"),
)


class Order(NamedTuple):
    id: int
    customer: str
    qty: int
    amount: Decimal
    weight: float
    created_at: datetime
    paid: bool
    extra: dict[str, Any]

    @property
    def json(self) -> str:
        return orjson.dumps(self.extra).decode()


COLUMNS: Final = Order._fields


def order(n: int, version: int = 0) -> Order:
    """The n-th order, as it is after its `version`-th change."""
    mixed = (n * 2_654_435_761 + version * 40_503) & 0xFFFFFFFF
    ware = _WARES[mixed % 8]
    return Order(
        n,
        f"customer-{mixed % 100_003:06d} {ware}",
        mixed % 97 + 1,
        Decimal(mixed % 10_000_000).scaleb(-2),
        mixed % 1_000_003 / 7.0,
        _EPOCH + timedelta(milliseconds=n % 1_000_000_000 * 137 + version),
        bool(mixed & 4),
        {
            "city": f"city{mixed % 977}",
            "zip": mixed % 99_999,
            "tags": [ware, f"t{mixed % 13}"],
            "level": {"a": mixed % 5, "b": None if mixed % 3 == 0 else version},
        },
    )


def orders(rows: int) -> Iterator[Order]:
    return map(order, range(rows))


class Change(NamedTuple):
    what: Literal["insert", "update", "delete"]
    id: int


def changes(events: int) -> list[Change]:
    """Five sevenths updates, a seventh deletes, a seventh inserts, mixed; the last is `LAST`.

    Each needs its order among the first `events` ones.  No order is changed twice: whoever folds
    changes by key gains nothing here.
    """
    chosen = random.Random(42)
    inserted = max(1, events // 7)
    deleted = events // 7
    touched = chosen.sample(range(events), events - inserted)
    found = [Change("delete", n) for n in touched[:deleted]]
    found += [Change("update", n) for n in touched[deleted:]]
    found += [Change("insert", events + n) for n in range(inserted - 1)]
    chosen.shuffle(found)
    return [*found, Change("insert", LAST)]


class Written(NamedTuple):
    """What one transaction leaves: orders as they are now, and ids that are gone."""

    orders: list[Order]
    gone: list[int]


def written(some: Sequence[Change]) -> Written:
    return Written(
        [order(change.id, 1) for change in some if change.what != "delete"],
        [change.id for change in some if change.what == "delete"],
    )


def in_pieces(some: Sequence[Change], size: int) -> Iterator[Sequence[Change]]:
    """The last change alone: within a transaction the deletes come after it."""
    before = len(some) - 1
    for start in range(0, before, size):
        yield some[start : min(start + size, before)]
    yield some[before:]
