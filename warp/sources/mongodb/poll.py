"""Collections read on a schedule: what a timestamp field says has changed, or everything.

MongoDB compares a value only with values of its own BSON type, so the place reached is kept for
each of the three families a timestamp is written in: dates, numbers and strings (ISO 8601 text
sorts as its instants do).  Documents whose field is missing, null or of any other type say
nothing about their age and are read in every run.

A collection in which no document has the field is compared in full: every row is read, then the
rows this run has not seen are removed, which also finds deletes; a timestamp never does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bson import Timestamp, json_util
from pymongo.database import Database

from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Position, TableId
from warp.sources.documents import decode
from warp.sources.mongodb.cursor import RawCursor
from warp.sources.mongodb.errors import translated
from warp.sources.mongodb.snapshot import BOUNDS

# Family -> its BSON types as $type names them.
_FAMILIES: Final = {"date": "date", "number": "number", "string": "string"}
_REPLY_ROWS: Final = 1_000
_FULL_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Reached:
    """The greatest value of each family that was read; printable as a position."""

    families: dict[str, Any]

    @classmethod
    def parse(cls, position: Position | None) -> Reached:
        if position is None:
            return cls({})
        try:
            families = json_util.loads(position.token, json_options=BOUNDS)["cursor"]
            return cls({name: families[name] for name in _FAMILIES if name in families})
        except (ValueError, KeyError, TypeError) as error:
            raise SourceRefused(
                f"the position of a polled collection was expected, found {position.token!r}; "
                "run `cartridge-warp resync SCHEMA`"
            ) from error

    def position(self, fire_time: float) -> Position:
        families = json.loads(json_util.dumps(self.families, json_options=BOUNDS))
        token = json.dumps({"cursor": families, "slot": fire_time}, sort_keys=True)
        return Position(token, fire_time)

    def with_value(self, value: Any) -> Reached:
        family = family_of(value)
        return self if family is None else Reached({**self.families, family: value})

    def filter(self, field: str) -> dict[str, Any]:
        """What may have changed since: ties again, since equal times need not be equal rows."""
        conditions: list[dict[str, Any]] = [{field: {"$not": {"$type": list(_FAMILIES.values())}}}]
        for family, type_name in _FAMILIES.items():
            if family in self.families:
                conditions.append({field: {"$gte": self.families[family], "$type": type_name}})
            else:
                conditions.append({field: {"$type": type_name}})
        return {"$or": conditions}


def family_of(value: Any) -> str | None:
    """None for a value that says nothing about a row's age."""
    name = type(value).__name__
    if name in ("datetime", "DatetimeMS"):
        return "date"
    if name in ("int", "Int64", "float", "Decimal128"):
        return None if str(value).lower() == "nan" else "number"  # nothing is greater than NaN
    return "string" if name == "str" else None


def has_field(database: Database[Any], table: TableId, field: str) -> bool:
    found = database.command({"find": table.name, "filter": {field: {"$exists": True}}, "limit": 1})
    return bool(found["cursor"]["firstBatch"])


def newest(database: Database[Any], table: TableId, field: str) -> Reached:
    """The greatest value of each family now; ties with it are read again by the next poll."""
    reached = Reached({})
    for type_name in _FAMILIES.values():
        command = {
            "find": table.name,
            "filter": {field: {"$type": type_name}},
            "sort": {field: -1},
            "projection": {field: 1, "_id": 0},
            "limit": 1,
            "batchSize": 1,
            "singleBatch": True,
        }
        cursor = RawCursor(database, command)
        try:
            with translated(f"find the newest of {table}"):
                reached = _reached(reached, cursor.read(1).documents, field)
        finally:
            cursor.close()
    return reached


def read(
    database: Database[Any],
    table: TableId,
    reached: Reached,
    field: str | None,
    *,
    version: Timestamp,
    rows: int,
    closed: threading.Event,
) -> Iterator[tuple[list[bytes], Reached]]:
    """Documents in the order of `field`, with how far each part of them reaches.

    Without a field, all of them.  One consistent version: a run that takes longer than the server
    keeps it (some five minutes) fails, and the next goes on from where this one got to.
    """
    command: dict[str, Any] = {"find": table.name, "batchSize": min(rows, _REPLY_ROWS)}
    if field is not None:
        command["filter"] = reached.filter(field)
        command["sort"] = {field: 1, "_id": 1}
        command["allowDiskUse"] = True
    command["readConcern"] = {"level": "snapshot", "atClusterTime": version}
    cursor = RawCursor(database, command)
    documents: list[bytes] = []
    size = 0
    try:
        while not cursor.exhausted:
            if closed.is_set():  # to end here would look like the end of the rows
                raise SourceUnavailable("the connector was closed", place=str(table))
            with translated(f"poll {table}"):
                reply = cursor.read(max(1, min(rows - len(documents), _REPLY_ROWS)))
            documents += reply.documents
            size += reply.size
            if len(documents) >= rows or size >= _FULL_BYTES:
                reached = _reached(reached, documents, field)
                yield documents, reached
                documents, size = [], 0
    finally:
        cursor.close()
    if documents:
        yield documents, _reached(reached, documents, field)


def _reached(reached: Reached, documents: list[bytes], field: str | None) -> Reached:
    """They come sorted, so the last of each family is its greatest."""
    if field is None:
        return reached
    path = field.split(".")
    for document in decode(documents):
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        reached = reached.with_value(value)
    return reached
