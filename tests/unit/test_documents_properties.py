"""Over any documents: shaping never raises, and every field is in its column or in `_extra`."""

from __future__ import annotations

import base64
import datetime as dt
from decimal import Decimal
from typing import Any

import bson
import orjson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.model import (
    ABSENT,
    Column,
    Handling,
    Kind,
    Operation,
    Policy,
    Role,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.sources import extjson
from warp.sources.bson_decoding import decode
from warp.sources.documents import BsonDocuments
from warp.sources.extjson import Garbled, column_to_json, milliseconds, to_json
from warp.sources.proposals import DOCUMENT, EXTRA

TABLE = TableId("shop", "orders")
# No column is changed for a value: what does not fit is in `_extra`.
SETTINGS = TableSettings(TABLE, TABLE, "shop", policy=Policy(wider=Handling.EXTRA))

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(["a", "b", "c", "", "é" * 40, "_extra", "$x", "a.b"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(),
    st.sampled_from([-0.0, 5.0, 2.0**53, 1e300, 5e-324]),
    text,
    st.binary(max_size=8),
    st.builds(Binary, st.binary(max_size=17), st.sampled_from([0, 3, 4, 5, 128])),
    st.builds(Binary, st.binary(min_size=16, max_size=16), st.just(4)),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
    st.datetimes().map(lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)),
    st.decimals(allow_nan=True, places=3).map(lambda d: Decimal128(str(d)[:20])),
    st.sampled_from([Decimal128(s) for s in ("1E+6144", "1E-6176", "-0", "sNaN", "Infinity")]),
    st.sampled_from([MinKey(), MaxKey(), Regex("^x", "i"), Timestamp(1, 2), DBRef("c", 1)]),
    st.sampled_from([Code("f"), Code("f", {"s": 1})]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
ids = scalars.filter(lambda v: v is not None)
rows = st.builds(
    lambda id, fields: {"_id": id} | fields, ids, st.dictionaries(names, values, max_size=5)
)
batches = st.lists(rows, min_size=1, max_size=6)
kinds = st.sampled_from([k for k in Kind if k is not Kind.TAGGED])
FIELD = Role.FIELD


def holds(kind: Kind, cell: Any, value: Any) -> bool:
    """Is the cell exactly this value?  Written without the code under test."""
    if kind is Kind.JSON:
        return bool(cell == to_json(value))
    if kind is Kind.JSON_TEXT:
        return bool(cell.replace(b"\\u0000", "\u2400".encode()) == to_json(value))
    if kind in (Kind.INT32, Kind.INT64, Kind.FLOAT32, Kind.FLOAT64):
        return type(value) is not bool and (cell == value or (cell != cell and value != value))
    if kind is Kind.DECIMAL:
        if isinstance(value, Decimal128):
            return bool(cell.compare_total(value.to_decimal()) == 0)
        return (
            bool(float(cell) == value or value != value)
            if isinstance(value, float)
            else (cell == Decimal(int(value)))
        )
    if kind in (Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE):
        instant = milliseconds(value)
        if kind is Kind.DATE:
            return bool((cell - dt.date(1970, 1, 1)).days * 86_400_000 == instant)
        return bool(cell == instant * 1000)
    if kind is Kind.OBJECTID:
        return bool(cell == str(value))
    if kind is Kind.TEXT:
        return type(value) is str and cell == value
    if kind in (Kind.BYTES, Kind.UUID):
        return bool(cell == bytes(value))
    return cell is value


def check(document: dict[str, Any], cells: tuple[Any, ...], known: TableSchema) -> None:
    """Nothing of the document is lost in the row."""
    row = list(zip(known.columns, cells, strict=True))
    fields = {"" if c.name == "_empty" else c.source: (c, v) for c, v in row if c.role is FIELD}
    extra = {} if cells[-1] is None else orjson.loads(cells[-1])
    for field, value in document.items():
        if field == "_id":
            continue
        if field not in fields:
            assert extra[field] == orjson.loads(to_json(value))
            continue
        column, cell = fields[field]
        if value is None:
            assert cell is None
        elif type(value) is str and "\0" in value and column.kind is Kind.TEXT:
            assert cell == value.replace("\0", "\u2400")
            assert base64.b64decode(extra[field]["$binary"]["base64"]) == value.encode()
        elif cell is None:
            assert extra[field] == orjson.loads(to_json(value))
        else:
            assert holds(column.kind, cell, value)
            assert field not in extra


@given(seen=batches, later=batches)
@settings(max_examples=80, deadline=None)
@pytest.mark.holds(guarantee=4, source="mongodb", destination="pretended", fault="no fault")
def test_every_field_is_in_its_column_or_in_extra(
    seen: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    known = BsonDocuments(TABLE, list(map(bson.encode, seen))).describe(SETTINGS)
    known = TableSchema(TABLE, (Column("_id", Kind.TAGGED), *known.columns[1:]), known.key)
    raw = list(map(bson.encode, later))
    shaped = BsonDocuments(TABLE, raw).shape(known, SETTINGS)
    assert [len(c) for c in shaped.columns] == [len(later)] * len(known.columns)
    for document, cells in zip(decode(raw), zip(*shaped.columns, strict=True), strict=True):
        check(document, cells, known)


@given(batch=batches, kind=kinds)
@settings(max_examples=80, deadline=None)
def test_every_value_survives_a_column_of_any_kind(batch: list[dict[str, Any]], kind: Kind) -> None:
    columns = (Column("_id", Kind.TAGGED), Column("a", kind), EXTRA)
    known = TableSchema(TABLE, columns, ("_id",))
    raw = list(map(bson.encode, batch))
    shaped = BsonDocuments(TABLE, raw).shape(known, SETTINGS)
    for document, cells in zip(decode(raw), zip(*shaped.columns, strict=True), strict=True):
        check(document, cells, known)
        assert ("a" in document) == (cells[1] is not ABSENT)


@given(batch=batches, key=kinds)
@settings(max_examples=80, deadline=None)
def test_a_key_holds_its_id_or_asks_to_be_tagged(batch: list[dict[str, Any]], key: Kind) -> None:
    known = TableSchema(TABLE, (Column("_id", key), DOCUMENT), ("_id",))
    raw = list(map(bson.encode, batch))
    operations = bytearray(b"ud"[i % 2] for i in range(len(raw)))
    shaped = BsonDocuments(TABLE, raw, operations).shape(known, SETTINGS)
    if shaped.key_kind is None:
        for document, cell in zip(decode(raw), shaped.columns[0], strict=True):
            assert holds(key, cell, document["_id"])
    else:
        assert shaped.key_kind is Kind.TAGGED
    assert all(
        (cell is ABSENT) == (operation == Operation.DELETE)
        for cell, operation in zip(shaped.columns[1], operations, strict=True)
    )


@given(batch=st.lists(values, max_size=4))
@settings(max_examples=80, deadline=None)
def test_the_fast_json_is_the_careful_one(batch: list[Any]) -> None:
    read = decode([bson.encode({"v": value}) for value in batch])
    cells = [document["v"] for document in read]
    texts, _ = column_to_json(cells)
    careful = [extjson._careful(cell).encode() for cell in cells]
    assert list(map(orjson.loads, texts)) == list(map(orjson.loads, careful))
    assert not any(b"\\u0000" in text.replace(b"\\\\", b"") for text in texts)


@given(batch=batches, places=st.lists(st.integers(0, 10**6), max_size=4))
@settings(max_examples=80, deadline=None)
def test_damaged_text_never_fails_a_batch(batch: list[dict[str, Any]], places: list[int]) -> None:
    raw = [bson.encode(row | {"t": "caf\xe9", "u": {"w": "\xe9"}}) for row in batch]
    for place in places:
        row = place % len(raw)
        raw[row] = raw[row].replace("\xe9".encode(), b"\xff\xfe")
    known = BsonDocuments(TABLE, raw).describe(SETTINGS)
    shaped = BsonDocuments(TABLE, raw).shape(known, SETTINGS)
    assert all(len(c) == len(raw) for c in shaped.columns)
    for document in decode(raw):
        assert isinstance(document["t"], str | Garbled)
