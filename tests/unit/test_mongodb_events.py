"""The fast reading of a change event is the careful one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import bson
import pytest
from bson import Binary, Int64, Timestamp

from warp.model import Operation
from warp.sources.mongodb.cursor import array_of_documents
from warp.sources.mongodb.events import OtherEvent, careful, fast, table_of

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LSID = {"id": Binary(bytes(16), 4), "uid": bytes(32)}


def event(operation: str, **parts: Any) -> dict[str, Any]:
    return {
        "_id": {"_data": "82AB"},
        "operationType": operation,
        "clusterTime": Timestamp(7, 9),
        "wallTime": NOW,
        **parts,
        "ns": {"db": "shop", "coll": "orders"},
        "documentKey": {"_id": 1},
    }


def encode(parts: dict[str, Any]) -> bytes:
    """In the order given; the encoder moves `_id` of the outermost document to the front."""
    return bson.encode({"v": parts})[7:-1]


LAYOUTS = [
    event("insert", fullDocument={"_id": 1, "v": "\0\x03ns\0"}),
    event("update", fullDocument={"_id": 1}) | {"updateDescription": {"updatedFields": {}}},
    event("replace", fullDocument={"_id": 1}),
    event("delete"),
    {"txnNumber": Int64(4), "lsid": LSID, **event("insert", fullDocument={"_id": 1})},
]


@pytest.mark.parametrize("parts", LAYOUTS)
def test_a_known_layout_is_read_fast_and_the_same(parts: dict[str, Any]) -> None:
    raw = encode(parts)
    quick, slow = fast(raw), careful(raw)
    assert quick is not None
    assert not isinstance(slow, OtherEvent)
    assert quick[1:] == slow[1:]
    assert isinstance(slow[0], dict)
    assert quick[0] == slow[0]["_data"].encode()
    assert table_of(quick[2]) == ("shop", "orders")
    assert quick[3] == 7 << 32 | 9
    assert quick[4] == 1_767_225_600_000


@pytest.mark.parametrize(
    "parts",
    [
        {k: v for k, v in event("insert", fullDocument={"_id": 1}).items() if k != "wallTime"},
        event("insert", fullDocument={"_id": 1}) | {"_id": {"_data": "82", "_typeBits": b"\1"}},
        dict(reversed(event("insert", fullDocument={"_id": 1}).items())),
        {"new": 1, **event("insert", fullDocument={"_id": 1})},
    ],
)
def test_an_unknown_layout_is_read_carefully(parts: dict[str, Any]) -> None:
    raw = encode(parts)
    assert fast(raw) is None
    row = careful(raw)
    assert not isinstance(row, OtherEvent)
    assert row[1] == Operation.CREATE
    assert row[5] == bson.encode({"_id": 1})


def test_an_update_whose_document_is_gone_has_none() -> None:
    raw = encode(event("update", fullDocument=None))
    row = fast(raw) or careful(raw)
    assert not isinstance(row, OtherEvent)
    assert row[5] is None


def test_a_rename_says_both_names() -> None:
    parts = {"to": {"db": "shop", "coll": "new"}, **event("rename")}
    del parts["documentKey"]
    found = careful(encode(parts))
    assert isinstance(found, OtherEvent)
    assert (found.database, found.collection, found.to) == ("shop", "orders", ("shop", "new"))


def test_a_dropped_database_has_no_collection() -> None:
    parts = event("dropDatabase") | {"ns": {"db": "shop"}}
    del parts["documentKey"]
    found = careful(encode(parts))
    assert isinstance(found, OtherEvent)
    assert (found.operation, found.collection) == ("dropDatabase", "")


def test_an_array_is_cut_into_its_documents() -> None:
    rows = [{"_id": i, "v": "\0" * i} for i in range(1100)]
    array = bson.encode({str(i): row for i, row in enumerate(rows)})
    assert list(map(bson.decode, array_of_documents(array))) == rows
