"""Guarantee 5: within a batch, a table's rows and its truncations stand in the log's order."""

from __future__ import annotations

import threading
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.model import ChangeBatch, Operation, Position, TableId, TableSettings
from warp.sources.documents import EMPTY
from warp.sources.mongodb import stream as streams
from warp.sources.mongodb.cursor import Reply
from warp.sources.mongodb.events import OtherEvent, RowEvent
from warp.sources.mongodb.tokens import Token

CREATE, TRUNCATE = Operation.CREATE.value, Operation.TRUNCATE.value
NAMES = ("a", "b", "elsewhere")  # the last one is not selected

Change = tuple[str, str, str]  # what, of which collection, its new name
Seen = list[tuple[int, int]]  # operation, version


def select(table: TableId) -> TableSettings | None:
    if table.name == "elsewhere":
        return None
    return TableSettings(table, table, "shop", write_batch_size=3)


def event(number: int, change: Change) -> RowEvent | OtherEvent:
    what, name, to = change
    token = {"_data": f"82{number:016X}"}
    if what == "insert":
        namespace = bson.encode({"db": "shop", "coll": name})
        return token, CREATE, namespace, number, 0, bson.encode({"_id": number})
    new_name = ("shop", to) if what == "rename" else None
    return OtherEvent(token, what, "shop", name, new_name, number, 0)


def expected(changes: list[Change], name: str) -> Seen:
    seen: Seen = []
    for number, (what, of, to) in enumerate(changes, 1):
        if of == name:
            seen.append((CREATE if what == "insert" else TRUNCATE, number))
        if what == "rename" and to == name:
            seen.append((TRUNCATE, number - 1))
    return seen


def batches(changes: list[Change]) -> list[ChangeBatch]:
    """As if all of it came in one reply of the server."""
    no_database: Any = None
    stream = streams.ChangeStream(
        no_database, read_size=lambda: 1000, closed=threading.Event(), oldest=lambda: ""
    )
    reply = Reply([b""], 0, {"_data": f"82{len(changes):016X}"})
    place = streams._Place(Token.at(0), Position("at:0:0"))
    events = [event(number, change) for number, change in enumerate(changes, 1)]
    return list(stream._batches(events, reply, place, select, -1))


def found(made: list[ChangeBatch], name: str) -> Seen:
    return [
        change
        for batch in made
        for part in batch.changes
        if part.table.name == name
        for change in zip(part.operations, part.versions, strict=True)
    ]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "drop", "rename"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ).filter(lambda change: change[0] != "rename" or change[1] != change[2]),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
@pytest.mark.holds(guarantee=5, source="mongodb", destination="pretended", fault="drop and rename")
def test_rows_and_truncations_of_a_table_keep_their_order(changes: list[Change]) -> None:
    made = batches(changes)
    for name in ("a", "b"):
        assert found(made, name) == expected(changes, name)
    for batch in made:
        tables = [part.table for part in batch.changes]
        assert len(tables) == len(set(tables))


DROP, INSERT, RENAME = ("drop", "a", ""), ("insert", "a", ""), ("rename", "a", "elsewhere")


def test_rows_between_two_truncations_of_one_batch_come_between_them() -> None:
    made = batches([DROP, INSERT, RENAME])
    assert found(made, "a") == [(TRUNCATE, 1), (CREATE, 2), (TRUNCATE, 3)]


def test_with_a_part_of_their_own_truncations_overtake_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_truncate", in_a_part_of_their_own)
    made = batches([DROP, INSERT, RENAME])
    assert found(made, "a") != [(TRUNCATE, 1), (CREATE, 2), (TRUNCATE, 3)]


def in_a_part_of_their_own(parts: dict[Any, Any], table: TableId, version: int) -> int:
    part = parts.setdefault(("truncations", table), streams._Part(table))
    part.operations.append(TRUNCATE)
    part.versions.append(version)
    part.documents.append(EMPTY)
    return 1
