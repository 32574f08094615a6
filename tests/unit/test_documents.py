"""BSON documents become columns; each trap of each BSON type has its sentence here."""

from __future__ import annotations

import datetime as dt
import gc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import bson
import orjson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from warp import native
from warp.cells import listed
from warp.model import (
    ABSENT,
    UNCHANGED,
    Change,
    Column,
    Handling,
    Kind,
    Operation,
    Outcome,
    Policy,
    Role,
    Shape,
    Shaped,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.sources.bson_decoding import decode
from warp.sources.documents import EMPTY, BsonDocuments
from warp.sources.proposals import DOCUMENT, EXTRA, column_name, key_kind, propose

TABLE = TableId("shop", "orders")
SETTINGS = TableSettings(TABLE, TABLE, "shop")
# No column is changed for a value: what does not fit is in `_extra`.
KEEPING = replace(SETTINGS, policy=Policy(wider=Handling.EXTRA))
DELETE, TRUNCATE, CREATE = Operation.DELETE, Operation.TRUNCATE, Operation.CREATE


def schema(*columns: Column, key: Kind = Kind.INT64) -> TableSchema:
    return TableSchema(TABLE, (Column("_id", key), *columns, EXTRA), ("_id",))


def documents(*rows: dict[str, Any]) -> BsonDocuments:
    return BsonDocuments(TABLE, [bson.encode(row) for row in rows])


def shape(known: TableSchema, *rows: dict[str, Any]) -> Shaped:
    return shaped_by(documents(*rows), known, KEEPING)


def shaped_by(rows: BsonDocuments, known: TableSchema, settings: TableSettings) -> Shaped:
    found = rows.shape(known, settings)
    return replace(found, columns=[listed(column) for column in found.columns])


@pytest.fixture(params=["compiled", "plain Python"], autouse=True)
def half(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every sentence holds for both halves."""
    with native.switched(request.param == "compiled"):
        yield


def in_extra(shaped: Shaped) -> dict[tuple[str, str], int]:
    """(column, what was met) -> cells whose value was kept in `_extra`."""
    assert all(finding.outcome is Outcome.EXTRA for _, finding in shaped.findings)
    return {(found.column, found.met): found.cells for _, found in shaped.findings}


def one(kind: Kind, value: Any) -> tuple[Any, Any]:
    """(cell, `_extra` decoded) of one value in a column of a kind."""
    shaped = shape(schema(Column("v", kind)), {"_id": 1, "v": value})
    _, [cell], [extra] = shaped.columns
    assert [finding.cells for _, finding in shaped.findings] in ([], [1])
    return cell, None if extra is None else orjson.loads(extra)


# -- cells that fit

OID = ObjectId("65f0c0ffee00000000000001")
NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 123_000, tzinfo=dt.UTC)
NOON_US = 1_767_355_200_123_000


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        (Kind.BOOL, True, True),
        (Kind.INT32, 7, 7),
        (Kind.INT64, 7, 7),
        (Kind.INT64, Int64(2**40), 2**40),
        (Kind.INT64, 7.0, 7),
        (Kind.FLOAT64, 0.5, 0.5),
        (Kind.FLOAT64, 2**53, 9007199254740992.0),
        (Kind.FLOAT64, float("inf"), float("inf")),
        (Kind.DECIMAL, Decimal128("1.10"), Decimal("1.10")),
        (Kind.DECIMAL, Decimal128("-Infinity"), Decimal("-Infinity")),
        (Kind.DECIMAL, 2**60, Decimal(2**60)),
        (Kind.DECIMAL, 0.1, Decimal("0.1")),
        (Kind.TEXT, "å", "å"),
        (Kind.BYTES, b"\0\1", b"\0\1"),
        (Kind.BYTES, Binary(b"x", 5), b"x"),
        (Kind.UUID, Binary(bytes(16), 4), bytes(16)),
        (Kind.OBJECTID, OID, "65f0c0ffee00000000000001"),
        (Kind.TIMESTAMP, NOON, NOON_US),
        (Kind.TIMESTAMP, DatetimeMS(253402300800000), 253402300800000000),
        (Kind.DATE, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.date(2026, 1, 2)),
        (Kind.JSON, {"b": 1, "a": [True, None, 0.5]}, b'{"b":1,"a":[true,null,0.5]}'),
        (Kind.JSON, "text", b'"text"'),
        (Kind.JSON, 2**60, b"1152921504606846976"),
        (Kind.JSON, None, None),
        (Kind.TAGGED, "1", '"1"'),
    ],
)
def test_a_value_of_the_columns_type_is_in_its_column(kind: Kind, value: Any, cell: Any) -> None:
    found, extra = one(kind, value)
    assert found == cell
    assert type(found) is type(cell)
    assert extra is None


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (Kind.BOOL, 1, 1),
        (Kind.INT32, 2**31, 2**31),
        (Kind.INT64, 7.5, 7.5),
        (Kind.INT64, True, True),
        (Kind.INT64, "7", "7"),
        (Kind.INT64, 1e300, 1e300),
        (Kind.INT64, float("nan"), {"$numberDouble": "NaN"}),
        (Kind.FLOAT64, 2**53 + 1, 2**53 + 1),
        (Kind.FLOAT64, Decimal128("0.5"), {"$numberDecimal": "0.5"}),
        (Kind.DECIMAL, Decimal128("1E+1001"), {"$numberDecimal": "1E+1001"}),
        (Kind.DECIMAL, Decimal128("1E-6176"), {"$numberDecimal": "1E-6176"}),
        (Kind.DECIMAL, Decimal128("0E-6176"), {"$numberDecimal": "0E-6176"}),
        (Kind.TEXT, Code("f()"), {"$code": "f()"}),
        (Kind.TEXT, Code("f()", {"x": 1}), {"$code": "f()", "$scope": {"x": 1}}),
        (Kind.TEXT, OID, {"$oid": str(OID)}),
        (Kind.UUID, Binary(bytes(15), 4), {"$binary": {"base64": "A" * 20, "subType": "04"}}),
        (
            Kind.UUID,
            Binary(bytes(16), 3),
            {"$binary": {"base64": "A" * 22 + "==", "subType": "03"}},
        ),
        (Kind.OBJECTID, str(OID), str(OID)),
        (Kind.TIMESTAMP, DatetimeMS(2**62), {"$date": {"$numberLong": str(2**62)}}),
        (Kind.TIMESTAMP, Timestamp(7, 9), {"$timestamp": {"t": 7, "i": 9}}),
        (Kind.DATE, NOON, {"$date": {"$numberLong": str(NOON_US // 1000)}}),
    ],
)
def test_a_value_of_another_type_is_kept_in_extra(kind: Kind, value: Any, kept: Any) -> None:
    assert one(kind, value) == (None, {"v": kept})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), {"$numberDouble": "NaN"}),
        (float("-inf"), {"$numberDouble": "-Infinity"}),
        (-0.0, {"$numberDouble": "-0.0"}),
        (Int64(5), 5),
        (Decimal128("1.10"), {"$numberDecimal": "1.10"}),
        (NOON, {"$date": {"$numberLong": str(NOON_US // 1000)}}),
        (b"\0", {"$binary": {"base64": "AA==", "subType": "00"}}),
        (Regex("^a", "im"), {"$regularExpression": {"pattern": "^a", "options": "im"}}),
        (MinKey(), {"$minKey": 1}),
        (MaxKey(), {"$maxKey": 1}),
        (DBRef("c", OID, "d"), {"$ref": "c", "$id": {"$oid": str(OID)}, "$db": "d"}),
        (None, None),
        ("nullable -0.0 \\u0000", "nullable -0.0 \\u0000"),
    ],
)
def test_json_holds_what_json_lacks_as_extended_json(value: Any, text: Any) -> None:
    shaped = shape(schema(Column("v", Kind.JSON)), {"_id": 1, "v": {"deep": [value]}})
    assert orjson.loads(shaped.columns[1][0]) == {"deep": [text]}
    assert not shaped.findings


def test_nul_in_a_text_is_shown_and_the_original_bytes_are_kept() -> None:
    known = schema(Column("v", Kind.TEXT))
    shaped = shape(known, {"_id": 1, "v": "a\0b"}, {"_id": 2, "v": "fine"})
    assert shaped.columns[1] == ["a\u2400b", "fine"]
    assert shaped.columns[2] == [b'{"v":{"$binary":{"base64":"YQBi","subType":"00"}}}', None]
    assert in_extra(shaped) == {("v", "NUL in a string"): 1}


def test_nul_inside_json_is_shown_and_counted() -> None:
    shaped = shape(schema(Column("v", Kind.JSON)), {"_id": 1, "v": {"a": ["x\0"]}})
    assert shaped.columns[1] == ['{"a":["x\u2400"]}'.encode()]
    assert in_extra(shaped) == {("v", "NUL in a string"): 1}


def damaged(field: str, good: str, bad: bytes) -> bytes:
    raw = bson.encode({"_id": 1, "n": 7, field: good})
    assert raw.count(good.encode()) == 1
    return raw.replace(good.encode(), bad)


def test_one_document_that_is_not_utf8_does_not_fail_the_others() -> None:
    raw = [bson.encode({"_id": 0, "v": "ok", "n": 1}), damaged("v", "caf?", b"caf\xe9")]
    known = schema(Column("v", Kind.TEXT), Column("n", Kind.INT64))
    shaped = shaped_by(BsonDocuments(TABLE, raw), known, SETTINGS)
    assert shaped.columns[1] == ["ok", "caf\ufffd"]
    assert shaped.columns[2] == [1, 7]
    assert shaped.columns[3] == [None, b'{"v":{"$binary":{"base64":"Y2Fm6Q==","subType":"00"}}}']
    assert in_extra(shaped) == {("v", "string that is not UTF-8"): 1}


def test_text_that_is_not_utf8_is_readable_at_any_depth() -> None:
    raw = bson.encode({"_id": 1, "v": {"a": [{"b": "caf?"}]}}).replace(b"caf?", b"caf\xe9")
    assert decode([raw]) == [{"_id": 1, "v": {"a": [{"b": "caf\ufffd"}]}}]


def test_a_dbref_whose_reference_is_no_text_is_an_object() -> None:
    raw = bson.encode({"_id": 1, "v": {"$ref": "x", "$id": 2}})
    raw = raw.replace(b"\x02$ref\0\x02\0\0\0x\0", b"\x10$ref\0\x02\0\0\0")
    raw = bytes([raw[0] - 2]) + raw[1:]
    at = raw.index(b"\x03v\0") + 3
    raw = raw[:at] + bytes([raw[at] - 2]) + raw[at + 1 :]
    assert decode([raw]) == [{"_id": 1, "v": {"$ref": 2, "$id": 2}}]


def test_a_missing_field_is_absent_and_a_null_is_null() -> None:
    shaped = shape(schema(Column("v", Kind.TEXT)), {"_id": 1}, {"_id": 2, "v": None})
    assert shaped.columns[1] == [ABSENT, None]


def test_columns_of_a_mixed_type_are_fitted_cell_by_cell() -> None:
    known = schema(Column("v", Kind.FLOAT64))
    shaped = shape(known, *({"_id": i, "v": v} for i, v in enumerate([0.5, 2, None, "x"])))
    assert shaped.columns[1] == [0.5, 2.0, None, None]
    assert in_extra(shaped) == {("v", "string"): 1}


# -- fields without a column


def test_a_field_without_a_column_is_in_extra_and_asks_for_one() -> None:
    shaped = shape(schema(), {"_id": 1, "colour": "red", "n": 1}, {"_id": 2, "n": 2.5}, {"_id": 3})
    assert shaped.columns[1] == [b'{"colour":"red","n":1}', b'{"n":2.5}', None]
    assert {f: (c.name, c.kind) for f, c in shaped.unknown.items()} == {
        "colour": ("colour", Kind.TEXT),
        "n": ("n", Kind.FLOAT64),
    }


def test_a_field_of_nulls_alone_asks_for_no_column() -> None:
    shaped = shape(schema(), {"_id": 1, "v": None})
    assert shaped.columns[1] == [b'{"v":null}']
    assert shaped.unknown == {}


def test_a_new_column_takes_no_name_that_is_there() -> None:
    long = "x" * 80
    known = schema(Column(column_name(long), Kind.TEXT, source="other"))
    shaped = shape(known, {"_id": 1, long: 1, "other": "a"})
    assert shaped.unknown[long].name not in known.names()


def test_a_table_without_extra_turns_to_text_or_keeps_the_original_aside() -> None:
    bare = TableSchema(TABLE, (Column("_id", Kind.INT64), Column("v", Kind.INT64)), ("_id",))
    shaped = shape(bare, {"_id": 1, "v": "x"})
    assert shaped.asked == [(Change.TEXT_COLUMN, Column("v", Kind.TEXT))]
    shaped = shape(bare, {"_id": 1, "v": 1}, {"_id": 2, "v": {"a": 1}})
    assert shaped.columns[1] == [1, UNCHANGED]
    [skipped] = shaped.skipped
    assert (skipped.row, skipped.kind, skipped.original) == (1, Kind.JSON, b'{"a":1}')
    with pytest.raises(ValueError, match="_extra"):
        shape(bare, {"_id": 1, "w": 1})


@pytest.mark.parametrize("policy", [Policy(narrower=Handling.TEXT), Policy(drastic=Handling.TEXT)])
def test_a_column_that_became_text_by_choice_takes_whatever_comes(policy: Policy) -> None:
    settings = replace(SETTINGS, policy=policy)
    value = {"a": 1} if policy.drastic else "x"
    rows = documents({"_id": 1, "v": value}, {"_id": 2, "v": 7}, {"_id": 3, "v": True})
    shaped = shaped_by(rows, schema(Column("v", Kind.INT64)), settings)
    assert (Change.TEXT_COLUMN, Column("v", Kind.TEXT)) in shaped.asked
    shaped = shaped_by(rows, schema(Column("v", Kind.TEXT)), settings)
    assert shaped.asked == []
    assert shaped.columns[1:] == [['{"a":1}' if policy.drastic else "x", "7", "true"], [None] * 3]


def test_a_document_column_holds_the_whole_document() -> None:
    known = TableSchema(TABLE, (Column("_id", Kind.INT64), DOCUMENT), ("_id",))
    shaped = shape(known, {"_id": 1, "a": {"b": 2}, "c": OID})
    expected = b'{"_id":1,"a":{"b":2},"c":{"$oid":"65f0c0ffee00000000000001"}}'
    assert shaped.columns == [[1], [expected]]
    assert shaped.unknown == {}


# -- deletes and truncates


def test_a_delete_carries_only_its_key_and_a_truncate_nothing() -> None:
    raw = [bson.encode({"_id": 1, "region": "eu"}), EMPTY, bson.encode({"_id": 2, "v": "x"})]
    columns = (Column("_id", Kind.INT64), Column("v", Kind.TEXT), DOCUMENT, EXTRA)
    known = TableSchema(TABLE, columns, ("_id",))
    rows = BsonDocuments(TABLE, raw, bytearray((DELETE, TRUNCATE, CREATE)))
    shaped = shaped_by(rows, known, SETTINGS)
    assert shaped.columns[0] == [1, ABSENT, 2]
    assert shaped.columns[1] == [ABSENT, ABSENT, "x"]
    assert shaped.columns[2] == [ABSENT, ABSENT, b'{"_id":2,"v":"x"}']
    assert shaped.columns[3] == [ABSENT, ABSENT, None]
    assert shaped.unknown == {}
    assert shaped.key_kind is None


# -- keys


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ([1, Int64(2), 3.0], Kind.INT64),
        (["a", "b"], Kind.TEXT),
        ([OID], Kind.OBJECTID),
        ([Binary(bytes(16), 4)], Kind.UUID),
        ([b"x"], Kind.BYTES),
        ([NOON.replace(tzinfo=None)], Kind.TIMESTAMP),
        ([1, "1"], Kind.TAGGED),
        ([1, 1.5], Kind.TAGGED),
        ([b"x", Binary(b"x", 5)], Kind.TAGGED),
        (["a\0"], Kind.TAGGED),
        (["x" * 3000], Kind.TAGGED),
        ([None], Kind.TAGGED),
        ([{"a": 1}], Kind.TAGGED),
        ([True], Kind.TAGGED),
        ([Decimal128("1")], Kind.TAGGED),
        ([], Kind.OBJECTID),
    ],
)
def test_the_key_has_the_one_kind_that_holds_every_id(ids: list[Any], kind: Kind) -> None:
    assert key_kind(ids) == kind


@pytest.mark.parametrize("id", ["x", 1.5, None, 2**70 * 1.0, {"a": 1}])
def test_an_id_that_the_key_cannot_hold_asks_for_a_tagged_key(id: Any) -> None:
    assert shape(schema(), {"_id": 1}, {"_id": id}).key_kind is Kind.TAGGED


def test_a_delete_of_another_id_type_asks_for_a_tagged_key() -> None:
    rows = BsonDocuments(TABLE, [bson.encode({"_id": "x"})], bytearray((DELETE,)))
    assert shaped_by(rows, schema(), SETTINGS).key_kind is Kind.TAGGED


def tag(id: Any) -> str:
    shaped = shape(schema(key=Kind.TAGGED), {"_id": id})
    [key] = shaped.columns[0]
    assert isinstance(key, str)
    return key


@pytest.mark.parametrize(
    "ids",
    [
        [1, Int64(1), 1.0, Decimal128("1"), Decimal128("1.0")],
        [0, 0.0, -0.0, Decimal128("-0"), Decimal128("0E+100")],
        [0.5, Decimal128("0.5"), Decimal128("5E-1"), Decimal128("0.500")],
        [float("nan"), Decimal128("NaN")],
        [1e22, Decimal128("1E+22")],
        [2.0**-40, Decimal128("9.094947017729282379150390625E-13")],
        [Decimal128("0.1"), Decimal128("0.10")],
    ],
)
def test_ids_that_mongodb_takes_for_one_have_one_key(ids: list[Any]) -> None:
    assert len(set(map(tag, ids))) == 1


def test_ids_that_mongodb_takes_for_different_have_different_keys() -> None:
    ids = [1, "1", 1.5, 0.1, Decimal128("0.1"), True, None, OID, str(OID), b"x", Binary(b"x", 5)]
    ids += [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": "1", "b": 2}, float("inf"), 1e300]
    ids += [Decimal128("1E+300"), Decimal128("1E+6144"), Decimal128("1E-6176"), "null", "a\0", "a"]
    ids += [NOON, Timestamp(1, 2), MinKey(), MaxKey(), float("nan"), "NaN"]
    assert len(set(map(tag, ids))) == len(ids)


def test_ids_that_are_not_utf8_stay_different() -> None:
    raw = [
        bson.encode({"_id": "caf?"}).replace(b"caf?", b"caf" + end) for end in (b"\xe9", b"\xe8")
    ]
    shaped = shaped_by(BsonDocuments(TABLE, raw), schema(key=Kind.TAGGED), SETTINGS)
    assert len(set(shaped.columns[0])) == 2


def test_a_long_id_is_hashed_and_kept_whole_in_extra() -> None:
    long = "x" * 3000
    shaped = shape(schema(key=Kind.TAGGED), {"_id": long})
    [key], [extra] = shaped.columns
    assert key.startswith("sha256:")
    assert len(key) == 71
    assert orjson.loads(extra) == {"_id": long}


def test_a_delete_of_a_long_id_finds_its_row() -> None:
    raw = [bson.encode({"_id": "x" * 3000})]
    known = schema(key=Kind.TAGGED)
    [inserted], _ = shaped_by(BsonDocuments(TABLE, raw), known, SETTINGS).columns
    deletes = BsonDocuments(TABLE, raw, bytearray((DELETE,)))
    assert shaped_by(deletes, known, SETTINGS).columns == [[inserted], [ABSENT]]


def test_a_key_that_fits_as_text_fits_as_tagged_text_too() -> None:
    """Else retyping the key would give rows written before another key than rows after."""
    edge = '"' * 999
    assert key_kind([edge]) is Kind.TEXT
    assert not tag(edge).startswith("sha256:")
    assert key_kind([edge + '"']) is Kind.TAGGED


# -- proposals


def kinds(*values: Any, **settings: Any) -> Kind:
    chosen = TableSettings(TABLE, TABLE, "shop", **settings)
    proposal = documents(*({"_id": i, "v": v} for i, v in enumerate(values))).describe(chosen)
    column = proposal.column("v")
    assert column is not None
    return column.kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, Int64(2)], Kind.INT64),
        ([1, 0.5], Kind.FLOAT64),
        ([2**53 + 1, 0.5], Kind.DECIMAL),
        ([Decimal128("1"), 0.5], Kind.DECIMAL),
        (["a", None], Kind.TEXT),
        ([1, "a"], Kind.JSON),
        ([{}, []], Kind.JSON),
        ([True, 1], Kind.JSON),
        ([NOON], Kind.TIMESTAMP),
        ([Binary(bytes(16), 4)], Kind.UUID),
        ([Binary(bytes(16), 4), b"x"], Kind.JSON),
        ([Code("f")], Kind.JSON),
    ],
)
def test_a_column_has_the_kind_that_holds_what_was_seen(values: list[Any], kind: Kind) -> None:
    assert kinds(*values) == kind


def test_the_configuration_decides_a_kind() -> None:
    assert kinds(1, columns=(("v", Kind.DECIMAL),)) is Kind.DECIMAL


def test_a_configured_field_has_a_column_before_it_was_seen() -> None:
    settings = TableSettings(TABLE, TABLE, "shop", columns=(("later", Kind.TEXT),))
    assert documents({"_id": 1}).describe(settings).names() == ("_id", "later", "_extra")


def test_the_key_comes_first_and_extra_last() -> None:
    proposal = documents({"b": 1, "a": 2, "_id": 3}).describe(SETTINGS)
    assert proposal.names() == ("_id", "b", "a", "_extra")
    assert proposal.key == ("_id",)
    assert proposal.columns[-1].role is Role.EXTRA


def test_a_field_of_fewer_than_one_document_in_a_hundred_has_no_column() -> None:
    sample = [{"_id": i, "common": 1} for i in range(1000)]
    for document in sample[:9]:
        document["rare"] = 1
    for document in sample[:10]:
        document["enough"] = 1
    assert propose(TABLE, sample, SETTINGS).names() == ("_id", "common", "enough", "_extra")


def test_of_too_many_fields_the_most_common_have_columns() -> None:
    settings = TableSettings(TABLE, TABLE, "shop", max_columns=1)
    proposal = documents({"_id": 1, "a": 1}, {"_id": 2, "a": 1, "b": 1}).describe(settings)
    assert proposal.names() == ("_id", "a", "_extra")


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (Shape.TYPED, ("_id", "a", "_extra")),
        (Shape.DOCUMENT, ("_id", "doc")),
        (Shape.BOTH, ("_id", "a", "doc", "_extra")),
    ],
)
def test_each_shape_has_its_columns(shape: Shape, names: tuple[str, ...]) -> None:
    settings = TableSettings(TABLE, TABLE, "shop", shape=shape)
    assert documents({"_id": 1, "a": 1}).describe(settings).names() == names


def test_a_columns_comment_says_which_types_were_seen() -> None:
    proposal = documents({"_id": 1, "a": 1}, {"_id": 2, "a": "x"}).describe(SETTINGS)
    assert proposal.columns[1].comment == "MongoDB field 'a': int 50 %, string 50 %"


def test_deletes_alone_propose_a_key_of_their_ids() -> None:
    rows = BsonDocuments(TABLE, [bson.encode({"_id": "x"})], bytearray((DELETE,)))
    assert rows.describe(SETTINGS).columns[0].kind is Kind.TEXT


def test_names_that_a_table_cannot_have_are_changed_and_stay_different() -> None:
    fields = ["", "_empty", "_extra", "doc", "_cw_version", "xmin", "a" * 63, "a" * 64, "a" * 70]
    fields += ["é" * 40, "plain", "_extra_field", "dotted.name", "$dollar"]
    row = dict.fromkeys(fields, 1)
    proposal = documents({"_id": 1, **row}).describe(SETTINGS)
    names = proposal.names()
    assert len(set(names)) == len(names)
    assert all(0 < len(name.encode()) <= 63 for name in names)
    assert {"_empty", "plain", "a" * 63, "dotted.name", "$dollar"} <= set(names)
    shaped = shape(
        TableSchema(TABLE, (Column("_id", Kind.INT64), *proposal.columns[1:]), ("_id",)),
        {"_id": 1, **row},
    )
    assert [c[0] for c in shaped.columns] == [1] * (len(fields) + 1) + [None]


OURS = {f"warp.sources.{name}" for name in ("documents", "shaping", "packed_documents")}


def test_a_shaped_batch_is_gone_without_a_search_for_garbage() -> None:
    """A worker looks for garbage rarely, and a batch may hold documents of 16 MB (guarantee 9)."""
    known = schema(Column("v", Kind.INT64))
    gc.collect()
    gc.disable()
    try:
        shape(known, {"_id": 1, "v": "x"}, {"_id": 2, "v": 7})
        left = [o for o in gc.get_objects() if type(o).__module__ in OURS]
    finally:
        gc.enable()
    assert left == []
