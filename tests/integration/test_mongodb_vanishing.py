"""A collection may be dropped between any two questions about it."""

from __future__ import annotations

from typing import Any, cast

from pymongo.database import Database

from warp.model import Chunk, TableId
from warp.sources.mongodb import snapshot


class CountedBefore:
    """A database whose collection was dropped just after it was counted."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self._database = database
        self.client = database.client

    def command(self, command: Any, **options: Any) -> Any:
        return {"n": 100} if "count" in command else self._database.command(command, **options)


def test_a_collection_dropped_while_it_is_cut_is_one_empty_chunk(
    mongo_database: Database[dict[str, Any]],
) -> None:
    table = TableId(mongo_database.name, "gone")
    database = cast("Database[Any]", CountedBefore(mongo_database))
    assert snapshot.cut(database, table, 10) == [Chunk(table, 0, rows=100)]
