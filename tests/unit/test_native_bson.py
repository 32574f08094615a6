"""The compiled pass over BSON gives what the reference gives, to the last byte and finding."""

from __future__ import annotations

import struct

import bson
import pytest
from any_bson import document, text_of
from bson import Decimal128, Int64
from bson_halves import TABLE, batches, compare, damaged_batches, shaped, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from warp import native
from warp.model import Column, Kind, Operation, TableSchema, TableSettings
from warp.sources.documents import BsonDocuments
from warp.sources.proposals import DOCUMENT, EXTRA

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="asked to test the plain Python half"
)

Table = tuple[TableSchema, TableSettings]
BARE = st.integers(0, 63) | st.just(0)
SETTINGS = TableSettings(TABLE, TABLE, "shop")


@given(raw=batches, bare=BARE, table=tables())
@settings(max_examples=100, deadline=None)
def test_both_halves_shape_any_documents_alike(raw: list[bytes], bare: int, table: Table) -> None:
    compare(raw, bare, *table)


@given(raw=damaged_batches, table=tables())
@settings(max_examples=60, deadline=None)
def test_both_halves_shape_damaged_documents_alike(raw: list[bytes], table: Table) -> None:
    compare(raw, 0, *table)


@pytest.mark.soak
@pytest.mark.timeout(0)
@given(raw=batches | damaged_batches, bare=BARE, table=tables())
@settings(max_examples=30_000, deadline=None)
def test_both_halves_shape_alike_for_long(raw: list[bytes], bare: int, table: Table) -> None:
    compare(raw, bare, *table)


numbers = st.one_of(
    st.floats(),
    st.integers(-(10**15), 10**15).map(lambda n: n / 1000),
    st.integers(0, 10**6).map(lambda n: n / 10**5),
    st.integers(-(2**63), 2**63 - 1).map(float),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.integers(-(2**31), 2**31 - 1),
    st.tuples(st.integers(-(10**34) + 1, 10**34 - 1), st.integers(-40, 40)).map(
        lambda n: Decimal128(f"{n[0]}E{n[1]}")
    ),
)
NUMBERS = TableSchema(
    TABLE,
    (
        Column("_id", Kind.TAGGED),
        *(
            Column(kind.value, kind)
            for kind in (
                Kind.INT32,
                Kind.INT64,
                Kind.FLOAT32,
                Kind.FLOAT64,
                Kind.DECIMAL,
                Kind.JSON,
                Kind.JSON_TEXT,
            )
        ),
        DOCUMENT,
        EXTRA,
    ),
    ("_id",),
)


@given(st.lists(numbers, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_both_halves_write_numbers_alike(some: list[float]) -> None:
    fields = ["_id", *(c.name for c in NUMBERS.columns[1:-2]), "without a column"]
    compare([bson.encode(dict.fromkeys(fields, n)) for n in some], 0, NUMBERS, SETTINGS)


def test_rows_that_were_left_to_the_reference_stand_where_they_were() -> None:
    known = TableSchema(TABLE, (Column("_id", Kind.INT64), Column("v", Kind.TEXT), EXTRA), ("_id",))
    raw = [
        bson.encode({"_id": n, "v": "x\0" if n % 7 == 0 else f"text {n}", "more": n})
        for n in range(300)
    ]
    compare(raw, 0b1011, known, SETTINGS)
    with native.switched(True):
        found = BsonDocuments(TABLE, raw).shape(known, SETTINGS)
    assert all(isinstance(column, native.Packed) for column in found.columns)
    assert found.columns[1][13:15] == ["text 13", "x\u2400"]


def test_a_guess_where_the_reference_should_have_been_asked_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = [document([("_id", (0x02, text_of(b"caf\xe9")))])]
    known = TableSchema(TABLE, (Column("_id", Kind.INT64), EXTRA), ("_id",))
    layout = native.bson.Layout
    monkeypatch.setattr("warp.native.bson.Layout", lambda columns: _Guessing(layout(columns)))
    with pytest.raises(AssertionError):
        compare(raw, 0, known, SETTINGS)


class _Guessing:
    """Says that no row need be looked at again."""

    def __init__(self, layout: native.bson.Layout) -> None:
        self._layout = layout

    def shape(self, raw: list[bytes], said: bytes) -> object:
        columns, _, _, met = self._layout.shape(raw, said)
        return columns, [], [], met


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 4, 2**31 - 1, 2**31 - 5])
@pytest.mark.parametrize("code", [0x02, 0x03, 0x04, 0x05, 0x0C, 0x0D, 0x0E, 0x0F])
def test_an_absurd_length_is_left_to_the_reference(code: int, length: int) -> None:
    value = struct.pack("<i", length) + b"\0abcdefghijklmno\0"
    raw = [document([("_id", (0x10, bytes(4))), ("v", (code, value))])]
    columns = [
        ("field", Kind.INT64, b"_id", True, -1, -1),
        ("extra", Kind.JSON, b"", False, -1, -1),
    ]
    made, slow, _, met = native.bson.Layout(columns).shape(raw, b"")
    assert slow == [0]
    assert not met
    assert [list(column) for column in made] == [[None], [None]]


def test_documents_nested_beyond_the_bound_are_left_to_the_reference() -> None:
    deep: tuple[int, bytes] = (0x10, bytes(4))
    for _ in range(3000):
        deep = (0x03, document([("v", deep)]))
    raw = [document([("_id", (0x10, bytes(4))), ("v", deep)])]
    columns = [
        ("field", Kind.INT64, b"_id", True, -1, -1),
        ("extra", Kind.JSON, b"", False, -1, -1),
    ]
    _, slow, *_ = native.bson.Layout(columns).shape(raw, b"")
    assert slow == [0]


def test_a_key_without_its_document_keeps_all_other_cells_absent() -> None:
    known = TableSchema(TABLE, (Column("_id", Kind.INT64), Column("v", Kind.TEXT), EXTRA), ("_id",))
    raw = [bson.encode({"_id": 1}), b"\x05\0\0\0\0"]
    said = bytes([Operation.DELETE, Operation.TRUNCATE])
    with native.switched(True):
        found = shaped(raw, said, known, SETTINGS)
    assert isinstance(found, dict)
    assert found["columns"] == ["[1, ABSENT]", "[ABSENT, ABSENT]", "[ABSENT, ABSENT]"]
