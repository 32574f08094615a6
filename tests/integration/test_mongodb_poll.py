"""Polling a MongoDB collection goes on where its snapshot began."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fix_servers import Server
from pymongo.database import Database

from warp.model import Position, TableId, TableSettings
from warp.sources.mongodb import MongoOptions, MongoSource, poll
from warp.testing.servers import Mongod

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


def transaction_around_a_poll(
    source: MongoSource, mongo_database: Database[dict[str, Any]], table: TableId
) -> set[Any]:
    """What the second of two polls finds, where a transaction stamped before the first and
    committed after it."""
    client, orders = mongo_database.client, mongo_database["orders"]
    with client.start_session() as session, session.start_transaction():
        orders.insert_one({"_id": "slow", "updated_at": datetime.now(UTC)}, session=session)
        orders.insert_one({"_id": "quick", "updated_at": datetime.now(UTC)})
        *_, last = source.poll(table, source.poll_start(table, fire_time=NOW), fire_time=NOW)
    orders.insert_one({"_id": "later", "updated_at": datetime.now(UTC)})
    return polled(source, table, last.end)


@pytest.mark.holds(guarantee=4, source="mongodb", destination="pretended", fault="late commit")
def test_a_transaction_that_commits_after_a_later_one_is_not_missed(
    source: MongoSource, orders: TableId, mongo_database: Database[dict[str, Any]]
) -> None:
    assert "slow" in transaction_around_a_poll(source, mongo_database, orders)


def test_from_the_greatest_time_seen_such_a_document_would_be_lost(
    source: MongoSource,
    orders: TableId,
    mongo_database: Database[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin."""

    def greatest(family: str, greatest: Any, newest: Any, **rest: Any) -> Any:
        return greatest

    monkeypatch.setattr(poll, "lowest", greatest)
    assert "slow" not in transaction_around_a_poll(source, mongo_database, orders)


def test_a_document_from_the_far_future_hides_none_of_those_after_it(
    source: MongoSource, orders: TableId, mongo_database: Database[dict[str, Any]]
) -> None:
    future = datetime(2099, 1, 1, tzinfo=UTC)
    mongo_database["orders"].insert_one({"_id": "future", "updated_at": future})
    *_, last = source.poll(orders, None, fire_time=NOW)
    mongo_database["orders"].insert_one({"_id": "now", "updated_at": datetime.now(UTC)})
    assert "now" in polled(source, orders, last.end)


def test_a_run_that_is_cut_short_goes_on_after_its_last_document(
    mongo: Server, orders: TableId
) -> None:
    options = MongoOptions.model_validate({"connection_string": mongo.url})
    settings = TableSettings(orders, orders, "shop", write_batch_size=4)
    source = MongoSource(options, lambda table: settings if table == orders else None)
    first = next(iter(source.poll(orders, None, fire_time=NOW)))
    rest = polled(source, orders, first.end)
    source.close()
    assert len(rest) == 17  # and the last one again


def test_a_position_of_before_there_were_clocks_is_still_understood(
    source: MongoSource, orders: TableId, mongo_database: Database[dict[str, Any]]
) -> None:
    start = Position('{"cursor": {"number": {"$numberInt": "8"}}, "slot": 1}')
    assert polled(source, orders, start) == {*range(10), "numbered 8", "numbered 9"}


def test_who_may_not_ask_for_transactions_reads_a_minute_again(
    start_server: Callable[[Mongod], Mongod],
) -> None:
    server = start_server(Mongod(auth=True))
    with server.client() as client:
        client["shop"]["orders"].insert_one({"_id": 1, "updated_at": datetime.now(UTC)})
        client["admin"].command(
            "createUser", "reader", pwd="secret", roles=[{"role": "read", "db": "shop"}]
        )
    url = server.url.replace(f"root:{server.password}", "reader:secret")
    table = TableId("shop", "orders")
    settings = TableSettings(table, table, "shop")
    source = MongoSource(
        MongoOptions.model_validate({"connection_string": url}), lambda table: settings
    )
    assert not poll.read_clock(source._client).told
    start = poll.Reached.parse(source.poll_start(table, fire_time=NOW))
    ahead = poll.read_clock(source._client).now - (start.upto or 0)
    assert 60_000_000 < ahead < 90_000_000
    source.close()
