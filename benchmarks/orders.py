"""The orders that are moved: 8 fields, 239 bytes of BSON, one of the fields an object."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.collection import Collection

Document = dict[str, Any]
Write = InsertOne[Document] | UpdateOne | ReplaceOne[Document] | DeleteOne

TABLE = "orders"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_GENERATED_AT_ONCE = 100_000
STATES = ("new", "paid", "sent", "done")


def order(n: int, change: int = 0) -> Document:
    """The n-th order, as it is after its `change`-th change."""
    mixed = (n * 2_654_435_761 + change * 40_503) & 0xFFFFFFFF
    return {
        "_id": ObjectId(f"{n:024x}"),
        "customer": mixed % 100_003,
        "total": mixed / 7,
        "status": STATES[mixed % 4],
        "note": f"order number {n:09d} of a customer who pays by card soon",
        "paid": bool(mixed & 4),
        "created": EPOCH + timedelta(milliseconds=n * 137 + change),
        "address": {
            "city": f"city {mixed % 977:03d}",
            "zip": mixed % 99_999,
            "geo": {"lat": mixed % 90 + 0.5, "lon": mixed % 180 + 0.25},
        },
    }


def load(collection: Collection[Document], rows: int, first: int = 0) -> None:
    for start in range(first, first + rows, 5_000):
        stop = min(start + 5_000, first + rows)
        collection.insert_many([order(n) for n in range(start, stop)], ordered=False)


def generate(collection: Collection[Document], rows: int) -> None:
    """As `load`, made by the server itself: orders of the same shape, millions in minutes."""
    n, digits = "$n", {"$concat": ["0" * 24, {"$toString": "$n"}]}
    padded = {"$substrCP": [digits, {"$subtract": [{"$strLenCP": digits}, 24]}, 24]}
    mixed = {"$mod": [{"$multiply": [n, 2_654_435_761]}, 4_294_967_296]}
    fields = {
        "_id": {"$toObjectId": padded},
        "customer": {"$mod": ["$mixed", 100_003]},
        "total": {"$divide": ["$mixed", 7]},
        "status": {"$arrayElemAt": [list(STATES), {"$mod": ["$mixed", 4]}]},
        "note": {"$concat": ["order number ", padded, " of a customer who pays"]},
        "paid": {"$gte": [{"$mod": ["$mixed", 8]}, 4]},
        "created": {"$add": [EPOCH, {"$multiply": [n, 137]}]},
        "address": {
            "city": {"$concat": ["city ", {"$toString": {"$mod": ["$mixed", 977]}}]},
            "zip": {"$mod": ["$mixed", 99_999]},
            "geo": {
                "lat": {"$add": [{"$mod": ["$mixed", 90]}, 0.5]},
                "lon": {"$add": [{"$mod": ["$mixed", 180]}, 0.25]},
            },
        },
    }
    for first in range(0, rows, _GENERATED_AT_ONCE):
        last = min(first + _GENERATED_AT_ONCE, rows)
        stages: list[dict[str, Any]] = [
            {"$documents": [{"n": {"$range": [first, last]}}]},
            {"$unwind": n},
            {"$set": {"mixed": {"$toInt": {"$mod": [mixed, 2_147_483_647]}}}},
            {"$project": fields},
            {"$merge": {"into": collection.name, "whenMatched": "fail"}},
        ]
        collection.database.aggregate(stages)


def writes(rows: int, events: int, seed: int = 1) -> Iterator[Write]:
    """A third inserts, half updates of one or two fields, a sixth replacements and deletes."""
    chosen = random.Random(seed)
    new = rows
    living = list(range(rows))
    for count in range(events):
        dice = count % 6
        place = chosen.randrange(len(living))
        key = {"_id": ObjectId(f"{living[place]:024x}")}
        if dice in (0, 3):
            living.append(new)
            yield InsertOne(order(new))
            new += 1
        elif dice in (1, 2, 4):
            yield UpdateOne(key, {"$set": {"status": STATES[count % 4], "total": count / 3}})
        elif count % 12 == 5:
            yield ReplaceOne(key, order(living[place], count))
        else:
            living[place] = living[-1]
            living.pop()
            yield DeleteOne(key)


def produce(collection: Collection[Document], rows: int, events: int, seed: int = 1) -> None:
    """Every write is one event: an update always changes its document.

    Unordered, which the driver sends as inserts, updates, deletes: each still finds its document.
    """
    waiting: list[Write] = []
    for write in writes(rows, events, seed):
        waiting.append(write)
        if len(waiting) == 1_000:
            collection.bulk_write(waiting, ordered=False)
            waiting = []
    if waiting:
        collection.bulk_write(waiting, ordered=False)
