"""Guarantee 5, from MongoDB to PostgreSQL: a collection goes, comes again and goes, at one blow.

All of it lies in the log before the stream starts, so it comes in one reply and one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pymongo.database import Database

from warp import pipeline
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.model import Lease, Operation, Phase, Position, TableId, TableSettings, WorkUnit
from warp.pipeline import NoMeter
from warp.sources.documents import EMPTY
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.mongodb import stream as streams

LIMIT = 30.0  # seconds a test waits for what it expects

Follow = Callable[[Callable[[], None]], list[int]]


@dataclass(frozen=True, slots=True)
class Selection:
    namespace: str

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace or table.name != "h":
            return None
        return TableSettings(table, table, self.namespace)


class Follower(MongoSource):
    """Says when everything up to a place is durable."""

    goal: Position | None = None
    arrived = False

    def acknowledge(self, position: Position) -> None:
        super().acknowledge(position)
        self.arrived = self.goal is not None and self.reached(position, self.goal)


@dataclass(slots=True)
class Watch:
    lease: Lease
    source: Follower
    deadline: float = field(default_factory=lambda: time.monotonic() + LIMIT)

    def check(self) -> None:
        assert time.monotonic() < self.deadline, "the stream has not arrived"

    def stopping(self) -> bool:
        return self.source.arrived

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


@pytest.fixture
def follow(mongo: Any, mongo_database: Database[Any], pg_database: str) -> Follow:
    """Make changes, follow them all, and say which rows of `h` the destination then has."""
    namespace = mongo_database.name
    selection = Selection(namespace)
    table = TableId(namespace, "h")

    def followed(change: Callable[[], None]) -> list[int]:
        from_mongo = MongoOptions.model_validate({"connection_string": mongo.url})
        to_postgres = PostgresOptions.model_validate({"connection_string": pg_database})
        with (
            closing(Follower(from_mongo, selection)) as source,
            closing(PostgresDestination(to_postgres, selection)) as destination,
        ):
            metadata = destination.metadata()
            metadata.prepare()
            of_table, unit = WorkUnit.of_table(namespace, table), WorkUnit.stream(namespace)
            metadata.register(of_table, position=None, phase=Phase.STREAMING)
            metadata.register(unit, position=source.position(), phase=Phase.STREAMING)
            change()
            source.goal = source.position()
            lease = Lease(unit, "worker", 1)
            pipeline.stream(
                source,
                destination,
                destination.open(lease),
                Watch(lease, source),
                selection=selection,
                meter=NoMeter(),
                idle=0.05,
            )
        with psycopg.connect(pg_database) as looking:
            place = sql.Identifier(namespace, "h")
            rows = looking.execute(sql.SQL("select _id from {} order by 1").format(place))
            return [id for (id,) in rows]

    return followed


def goes_twice(database: Database[Any]) -> Callable[[], None]:
    """Changes that begin with a drop, so that it is the first event of their batch."""

    def change() -> None:
        database.h.drop()
        database.h.insert_many([{"_id": 2}, {"_id": 3}])
        database.h.rename("away")

    database.h.insert_one({"_id": 1})
    return change


@pytest.mark.holds(guarantee=5, source="mongodb", destination="postgresql", fault="drop and rename")
def test_rows_between_a_drop_and_a_rename_go_with_the_rename(
    follow: Follow, mongo_database: Database[Any]
) -> None:
    assert follow(goes_twice(mongo_database)) == []


def test_rows_after_the_last_drop_stay(follow: Follow, mongo_database: Database[Any]) -> None:
    def change() -> None:
        goes_twice(mongo_database)()
        mongo_database.h.insert_one({"_id": 4})

    assert follow(change) == [4]


def test_with_a_part_of_their_own_truncations_leave_rows_that_are_gone(
    follow: Follow, mongo_database: Database[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def apart(parts: dict[Any, Any], table: TableId, version: int) -> int:
        part = parts.setdefault(("truncations", table), streams._Part(table))
        part.operations.append(Operation.TRUNCATE)
        part.versions.append(version)
        part.documents.append(EMPTY)
        return 1

    monkeypatch.setattr(streams, "_truncate", apart)
    assert follow(goes_twice(mongo_database)) == [2, 3]
