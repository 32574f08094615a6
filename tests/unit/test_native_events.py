"""The compiled reading of replies and change events is the one in Python."""

from __future__ import annotations

import datetime as dt
import struct
import threading
from typing import Any

import bson
import pytest
from bson import Binary, Int64, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from warp import native
from warp.model import ChangeBatch, Position, TableId, TableSettings
from warp.sources.mongodb import stream as streams
from warp.sources.mongodb.cursor import RawCursor, Reply, gathering
from warp.sources.mongodb.events import careful, fast
from warp.sources.mongodb.tokens import Token

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="asked to test the plain Python half"
)

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LSID = {"id": Binary(bytes(16), 4), "uid": bytes(32)}
LIMITS = {"a": 3, "b": 2, "c": 100}  # other tables are not selected


def select(table: TableId) -> TableSettings | None:
    limit = LIMITS.get(table.name)
    return None if limit is None else TableSettings(table, table, "shop", write_batch_size=limit)


def encode(parts: dict[str, Any]) -> bytes:
    """In the order given; the encoder moves `_id` of the outermost document to the front."""
    return bson.encode({"v": parts})[7:-1]


def event(number: int, what: str, name: str, layout: str) -> bytes:
    token: dict[str, Any] = {"_data": f"82{number:016X}"}
    if layout == "odd token":
        token["_typeBits"] = b"\1"
    parts: dict[str, Any] = {"_id": token, "operationType": what}
    parts |= {"clusterTime": Timestamp(1, number), "wallTime": NOW + dt.timedelta(0, number)}
    if layout == "transaction":
        parts = {"txnNumber": Int64(4), "lsid": LSID, **parts}
    if layout == "old":
        del parts["wallTime"]
    key = {"_id": number, "v": "\0\x03ns\0"}
    if what in ("insert", "update", "replace"):
        parts["fullDocument"] = None if what == "update" and layout == "gone" else key
    parts["ns"] = {"db": "shop", "coll": name}
    if what == "rename":
        parts["to"] = {"db": "shop", "coll": "b"}
    elif what != "drop":
        parts["documentKey"] = {"_id": number}
    return encode(parts)


@st.composite
def replies(draw: st.DrawFn) -> list[bytes]:
    rows = st.sampled_from(["insert", "update", "update", "replace", "delete"])
    events = draw(
        st.lists(
            st.tuples(
                rows | st.sampled_from(["insert", "drop", "rename"]),
                st.sampled_from("aaabbcdé"),
                st.sampled_from(["plain"] * 6 + ["gone", "transaction", "old", "odd token"]),
            ),
            max_size=14,
        )
    )
    return [event(number, *parts) for number, parts in enumerate(events, 1)]


def batches(documents: list[bytes], known: int, *, compiled: bool) -> list[Any]:
    no_database: Any = None
    stream = streams.ChangeStream(
        no_database, read_size=lambda: 1000, closed=threading.Event(), oldest=lambda: ""
    )
    with native.switched(compiled):
        gathered = gathering()
        gathered.extend(documents)
        reply = Reply(gathered, 0, {"_data": f"82{99:016X}"})
        place = streams._Place(Token.at(0), Position("at:0:0"))
        found = streams._reading(reply)
        assert isinstance(found, native.replies.Events) == compiled
        made = list(stream._batches(found, reply, place, select, known))
        return [told(batch) for batch in made] + [place.resume, place.shown]


def told(batch: ChangeBatch) -> Any:
    parts = [
        (part.table, part.operations, list(part.versions), list(part.documents._raw))  # type: ignore[union-attr]
        for part in batch.changes
    ]
    return parts, batch.end, batch.reload


@given(replies(), st.integers(-1, 8))
@settings(max_examples=60, deadline=None)
def test_both_halves_cut_the_same_batches(documents: list[bytes], moment: int) -> None:
    known = moment if moment < 0 else 1 << 32 | moment
    expected = batches(documents, known, compiled=False)
    assert batches(documents, known, compiled=True) == expected


def test_events_of_the_known_layout_are_read_where_they_lie() -> None:
    documents = gathering()
    plain = [event(n, what, "a", "plain") for n, what in enumerate(("insert", "update", "delete"))]
    documents.extend([*plain, event(4, "insert", "a", "old"), event(5, "update", "a", "gone")])
    assert isinstance(documents, native.replies.Slices)
    events = native.replies.Events(documents)
    assert [events.namespace(place) for place in range(5)] == [0, 0, 0, None, 0]
    assert events.run(0, 2, -1, b"\1") == (2, 2)
    assert events.run(0, 9, -1, b"\2") == (0, 0)
    assert events.run(2, 9, -1, b"\0") == (3, 0)
    for place, raw in enumerate(plain):
        row = fast(raw)
        assert row is not None
        [(_, operations, versions, found)] = events.gather(place, place + 1, -1, b"\1")
        assert (events.token(place), operations[0], events.wall_ms(place)) == (
            row[0],
            row[1],
            row[4],
        )
        assert (events.namespaces[0], versions, list(found)) == (row[2], [row[3]], [row[5]])


def damaged(raw: bytes, at: int, what: bytes, cut: int) -> bytes:
    changed = raw[: 4 + at] + what + raw[4 + at + cut :]
    return struct.pack("<i", len(changed)) + changed[4:]


@given(
    st.sampled_from(["insert", "update", "delete"]),
    st.sampled_from(["plain", "transaction", "gone"]),
    st.integers(0, 250),
    st.binary(max_size=4),
    st.integers(0, 40),
)
@settings(max_examples=80, deadline=None)
def test_a_damaged_event_is_read_alike_or_left_to_python(
    what: str, layout: str, at: int, put: bytes, cut: int
) -> None:
    raw = damaged(event(1, what, "a", layout), at, put, cut)
    documents = native.replies.Slices()
    documents.append(raw)
    events = native.replies.Events(documents)
    if events.namespace(0) is None:
        return
    row = fast(raw) or careful(raw)
    assert isinstance(row, tuple)
    rows = events.gather(0, 1, -1, b"\1")
    token = row[0] if isinstance(row[0], bytes) else row[0]["_data"].encode()
    assert (events.token(0), events.wall_ms(0)) == (token, row[4] & (1 << 64) - 1)
    if row[5] is None:
        assert rows == []
    else:
        [(_, operations, versions, found)] = rows
        assert (operations[0], versions[0], list(found)) == (row[1], row[3], [row[5]])


def answer(documents: list[dict[str, Any]], name: str = "nextBatch") -> bytes:
    cursor = {name: documents, "id": Int64(2**40), "ns": "shop.a.b"}
    cursor["postBatchResumeToken"] = {"_data": "82AB"}
    return bson.encode({"cursor": cursor, "ok": 1.0, "operationTime": Timestamp(1, 2)})


def taken(reply: bytes, *, compiled: bool) -> Any:
    cursor = RawCursor(None, {})  # type: ignore[arg-type]
    with native.switched(compiled):
        found = cursor._take(reply)
    return list(found.documents), found.size, found.resume, cursor._id, cursor._collection


@pytest.mark.parametrize("name", ["firstBatch", "nextBatch"])
@pytest.mark.parametrize("count", [0, 1, 120])
def test_a_reply_is_cut_alike(name: str, count: int) -> None:
    reply = answer([{"_id": n, "v": "\0" * n} for n in range(count)], name)
    assert native.replies.cut(reply) is not None
    assert taken(reply, compiled=True) == taken(reply, compiled=False)


@given(st.integers(0, 200), st.binary(max_size=4), st.integers(0, 12))
@settings(max_examples=80, deadline=None)
def test_a_damaged_reply_is_never_read_beyond_its_end(at: int, put: bytes, cut: int) -> None:
    reply = damaged(answer([{"_id": n, "v": "text"} for n in range(3)]), at, put, cut)
    found = native.replies.cut(reply)
    if found is not None:
        assert all(len(document) >= 5 and document in reply for document in found[3])
        native.replies.Events(found[3])
