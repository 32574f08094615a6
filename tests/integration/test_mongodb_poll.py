"""Polling a MongoDB collection goes on where its snapshot began."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fix_servers import Server
from pymongo.database import Database

from warp.model import Position, TableId, TableSettings
from warp.sources.mongodb import MongoOptions, MongoSource

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
NOW = 1_800_000_000.0


@pytest.fixture
def orders(mongo_database: Database[dict[str, Any]]) -> TableId:
    mongo_database["orders"].insert_many(
        [{"_id": n, "updated_at": NEW_YEAR + timedelta(days=n)} for n in range(10)]
        + [{"_id": f"numbered {n}", "updated_at": n} for n in range(10)]
    )
    return TableId(mongo_database.name, "orders")


@pytest.fixture
def source(mongo: Server, orders: TableId) -> Iterator[MongoSource]:
    source = MongoSource(
        MongoOptions.model_validate({"connection_string": mongo.url}),
        lambda table: TableSettings(table, table, "shop") if table == orders else None,
    )
    yield source
    source.close()


def polled(source: MongoSource, table: TableId, start: Position | None) -> set[Any]:
    found: set[Any] = set()
    for batch in source.poll(table, start, fire_time=NOW):
        for part in batch.changes:
            assert part.documents is not None
            documents = part.documents.documents()  # type: ignore[attr-defined]
            # A comparison ends with a TRUNCATE, whose document is empty.
            found |= {document["_id"] for document in documents if document}
    return found


def test_a_poll_from_the_snapshots_start_reads_only_ties_and_what_came_later(
    source: MongoSource, orders: TableId, mongo_database: Database[dict[str, Any]]
) -> None:
    start = source.poll_start(orders, fire_time=NOW)
    assert start.committed_at == NOW
    mongo_database["orders"].insert_one({"_id": "later", "updated_at": NEW_YEAR + timedelta(99)})
    mongo_database["orders"].update_one({"_id": 0}, {"$set": {"updated_at": 10}})
    assert polled(source, orders, start) == {9, "numbered 9", "later", 0}
    assert len(polled(source, orders, None)) == 21


def test_a_collection_without_the_column_is_compared_whole_from_any_start(
    source: MongoSource, orders: TableId, mongo_database: Database[dict[str, Any]]
) -> None:
    mongo_database["orders"].update_many({}, {"$unset": {"updated_at": ""}})
    start = source.poll_start(orders, fire_time=NOW)
    assert len(polled(source, orders, start)) == 20
