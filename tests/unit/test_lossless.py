"""The text of a document says all of it: the BSON rebuilt from it is the one it was made from."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import bson
import orjson
import pytest
from any_bson import array, document, documents, meaning, text_of
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from warp.sources import lossless
from warp.sources.bson_decoding import DECODING, decode
from warp.sources.lossless import rebuild, written


def fast(*raw: bytes, verbatim: bool = True) -> list[bytes]:
    return lossless.column(raw, decode(raw), DECODING, verbatim=verbatim)[0]


batches = st.lists(documents, min_size=1, max_size=5)


@given(batch=batches)
@settings(max_examples=60, deadline=None)
@pytest.mark.holds(guarantee=4, source="mongodb", destination="pretended", fault="no fault")
def test_a_document_is_rebuilt_byte_for_byte(batch: list[bytes]) -> None:
    assert list(map(rebuild, fast(*batch))) == batch
    assert [rebuild(written(raw)) for raw in batch] == batch


@given(batch=batches)
@settings(max_examples=60, deadline=None)
def test_the_text_for_jsonb_says_as_much_but_nul(batch: list[bytes]) -> None:
    texts, replaced = lossless.column(batch, decode(batch), DECODING, verbatim=False)
    for row, (raw, text) in enumerate(zip(batch, texts, strict=True)):
        assert b"\\u0000" not in text.replace(b"\\\\", b"")
        if row not in replaced:
            assert rebuild(text) == raw
        assert meaning(rebuild(text)) == meaning(raw)


@given(a=documents, b=documents)
@settings(max_examples=50, deadline=None)
def test_two_documents_never_have_one_text(a: bytes, b: bytes) -> None:
    assert (written(a) == written(b)) == (a == b)


UNREADABLE = document([(b"\xff", (0x0A, b""))])
OID = ObjectId("65f0c0ffee00000000000001")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (Int64(5), '{"$numberLong":"5"}'),
        (Int64(-(2**31)), '{"$numberLong":"-2147483648"}'),
        (Int64(2**31), "2147483648"),
        (Int64(2**63 - 1), "9223372036854775807"),
        (5.0, "5.0"),
        (0.1, "0.1"),
        (1e16, "10000000000000000.0"),
        (-1.5e17, "-150000000000000000.0"),
        (1e300, "1" + "0" * 300 + ".0"),
        (5e-324, "5e-324"),
        (-0.0, '{"$numberDouble":"-0.0"}'),
        (-0.05, "-0.05"),
        (float("nan"), '{"$numberDouble":"NaN"}'),
        (float("-inf"), '{"$numberDouble":"-Infinity"}'),
        (Decimal128("1.10"), '{"$numberDecimal":"1.10"}'),
        (Decimal128("1E+6144"), '{"$numberDecimal":"1.000000000000000000000000000000000E+6144"}'),
        (Decimal128("-0"), '{"$numberDecimal":"-0"}'),
        ("å", '"å"'),
        (True, "true"),
        (None, "null"),
        ([1, [2]], "[1,[2]]"),
        ({"b": 1, "a": {}}, '{"b":1,"a":{}}'),
        (OID, '{"$oid":"65f0c0ffee00000000000001"}'),
        (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), '{"$date":{"$numberLong":"0"}}'),
        (DatetimeMS(2**62), '{"$date":{"$numberLong":"4611686018427387904"}}'),
        (b"\0", '{"$binary":{"base64":"AA==","subType":"00"}}'),
        (Binary(b"\0", 2), '{"$binary":{"base64":"AA==","subType":"02"}}'),
        (Binary(bytes(15), 4), '{"$binary":{"base64":"AAAAAAAAAAAAAAAAAAAA","subType":"04"}}'),
        (Regex("^a", "im"), '{"$regularExpression":{"pattern":"^a","options":"im"}}'),
        (Code("f"), '{"$code":"f"}'),
        (Code("f", {"x": Int64(1)}), '{"$code":"f","$scope":{"x":{"$numberLong":"1"}}}'),
        (Timestamp(7, 9), '{"$timestamp":{"t":7,"i":9}}'),
        (MinKey(), '{"$minKey":1}'),
        (MaxKey(), '{"$maxKey":1}'),
        (DBRef("c", OID, "d"), f'{{"$ref":"c","$id":{{"$oid":"{OID}"}},"$db":"d"}}'),
        # What looks like a form of ours is wrapped; what does not is left alone.
        ({"$oid": "x"}, '{"$document":{"$oid":"x"}}'),
        ({"$scope": {}, "$code": "x"}, '{"$document":{"$scope":{},"$code":"x"}}'),
        ({"$document": {"$oid": 1}}, '{"$document":{"$document":{"$document":{"$oid":1}}}}'),
        ({"$oid": "x", "more": 1}, '{"$oid":"x","more":1}'),
        ({"$numberInt": "5"}, '{"$numberInt":"5"}'),
    ],
)
def test_each_value_has_one_text_however_it_is_made(value: Any, text: str) -> None:
    raw = bson.encode({"v": value})
    expected = f'{{"v":{text}}}'
    assert written(raw) == expected
    assert [made.decode() for made in fast(raw)] == [expected]
    assert rebuild(expected) == raw


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ((0x06, b""), '{"$undefined":true}'),
        ((0x0E, text_of(b"s")), '{"$symbol":"s"}'),
        (
            (0x0C, text_of(b"c") + OID.binary),
            f'{{"$dbPointer":{{"$ref":"c","$id":{{"$oid":"{OID}"}}}}}}',
        ),
        ((0x0B, b"a\0mi\0"), '{"$regularExpression":{"pattern":"a","options":"mi"}}'),
        ((0x02, text_of(b"caf\xe9")), '{"$bson":{"type":"02","base64":"BQAAAGNhZukA"}}'),
        ((0x01, b"\1" + bytes(5) + b"\xf8\x7f"), '{"$bson":{"type":"01","base64":"AQAAAAAA+H8="}}'),
        ((0x08, b"\7"), '{"$bson":{"type":"08","base64":"Bw=="}}'),
        ((0x13, b"\xff" * 16), '{"$bson":{"type":"13","base64":"/////////////////////w=="}}'),
        ((0x03, document([("a", (0x10, bytes(4)))] * 2)), '{"a":0,"a":0}'),
        ((0x03, UNREADABLE), '{"$bson":{"type":"03","base64":"CAAAAAr/AAA="}}'),
        ((0x04, document([("7", (0x0A, b""))])), '{"$bson":{"type":"04","base64":"CAAAAAo3AAA="}}'),
        ((0x04, array([(0x0A, b"")])), "[null]"),
        ((0x02, text_of(b"a\0")), '"a\\u0000"'),
    ],
)  # fmt: skip
def test_what_no_driver_writes_has_its_text_too(field: tuple[int, bytes], text: str) -> None:
    raw = document([("v", field)])
    assert [made.decode() for made in fast(raw)] == [f'{{"v":{text}}}']
    assert rebuild(f'{{"v":{text}}}') == raw


def test_a_document_whose_field_names_are_no_text_is_kept_as_bytes() -> None:
    raw = UNREADABLE
    assert json.loads(written(raw)) == {"$bson": {"type": "03", "base64": "CAAAAAr/AAA="}}
    assert rebuild(written(raw)) == raw


@given(raw=documents, place=st.integers(0, 10**6), byte=st.integers(0, 255))
@example(raw=bson.encode({"_id": 1, "a": "x"}), place=14, byte=200)
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_kept_too(raw: bytes, place: int, byte: int) -> None:
    at = place % len(raw)
    damaged = raw[:at] + bytes((byte,)) + raw[at + 1 :]
    assert rebuild(written(damaged)) == damaged


def test_a_document_nested_deeper_than_orjson_goes_is_written() -> None:
    value: Any = 1
    for _ in range(300):
        value = {"a": value}
    raw = bson.encode({"v": value})
    assert rebuild(fast(raw)[0]) == raw


def test_a_large_document_is_written_as_a_small_one_is() -> None:
    raw = bson.encode({"_id": 1, "a": ["x" * 1000] * 2000, "b": 1e17, "c": Int64(1)})
    [text] = fast(raw)
    assert rebuild(text) == raw


def test_an_ordinary_document_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [
        bson.encode(
            {"_id": OID, "n": n, "price": n / 7 - 0.05, "gone": None, "note": "costs $5, or 1e17"}
        )
        for n in range(300)
    ]

    def never(document: bytes, nul: str = "") -> str:
        raise AssertionError(f"the slow path was taken for {bson.decode(document)}")

    monkeypatch.setattr(lossless, "written", never)
    assert list(map(rebuild, fast(*raw))) == raw


def test_without_a_look_at_the_bytes_a_name_that_is_there_twice_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin: the decoded document is trusted."""
    raw = document([("a", (0x10, bytes(4)))] * 2)
    assert rebuild(fast(raw)[0]) == raw
    monkeypatch.setattr(lossless, "_changed", lambda *_: [])
    assert rebuild(fast(raw)[0]) != raw


def test_without_a_second_look_numbers_would_change_their_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin: orjson's text is trusted."""
    raw = bson.encode({"a": float("nan"), "b": {"$numberLong": "5"}})
    assert rebuild(fast(raw)[0]) == raw
    monkeypatch.setattr(lossless, "_suspects", lambda *_, **__: [])
    assert rebuild(fast(raw)[0]) != raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        '{"a":NaN}',
        '{"a":9223372036854775808}',
        '{"a":{"$oid":"x"}}',
        '{"a":{"$binary":5}}',
        '{"a":{"$date":5}}',
        '{"a":{"$bson":{}}}',
        '{"a":{"$code":"x","$scope":null}}',
        '{"$symbol":"x"}',
    ],
)
def test_a_text_that_was_not_written_here_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected the text of a document"):
        rebuild(text)


def test_plain_values_are_plain_json() -> None:
    raw = bson.encode({"_id": 1, "name": "a", "price": 9.5, "tags": ["x"], "at": {"n": 2}})
    assert orjson.loads(fast(raw)[0]) == bson.decode(raw)
