"""MySQL's binary JSON: every document comes back as the text the server prints."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_encoder import Opaque, encoded

from warp.errors import WarpError
from warp.sources.mysql.binlog.json_binary import double_text, json_text

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_every_document_comes_back(document: Any) -> None:
    text = json_text(encoded(document)).decode()
    back = json.loads(text)
    assert back == document
    assert repr(back) == repr(sorted_keys(document))  # 1 is not 1.0, 0.0 is not -0.0


def sorted_keys(value: Any) -> Any:
    """Keys in the server's order: by length, then by bytes."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return {name: sorted_keys(value[name]) for name in names}
    if isinstance(value, list):
        return [sorted_keys(item) for item in value]
    return value


@settings(max_examples=80, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_reads_back_the_same_and_is_told_from_an_integer(value: float) -> None:
    text = double_text(value)
    assert struct.pack("d", float(text)) == struct.pack("d", value)
    assert set(text) & set(".e")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (123456789012345680.0, "1.2345678901234568e17"),
        (1039514241563211.8, "1039514241563211.8"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (-0.0, "-0.0"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ],
)
def test_a_double_is_written_as_mysql_writes_it(value: float, text: str) -> None:
    assert double_text(value) == text


def test_large_containers_are_read() -> None:
    document = {"long": "x" * 70_000, "numbers": list(range(0, 300_000, 70_000)), "n": 70_000}
    raw = encoded(document)
    assert raw[0] == 1  # offsets of four bytes
    assert json.loads(json_text(raw)) == document


def test_values_that_json_lacks_are_written_as_mysql_writes_them() -> None:
    # DECIMAL(5,2) -123.45, and bytes with a line break after 76 characters.
    decimal = bytes((5, 2, 0x7F, 0x84, 0xD2))
    assert json_text(encoded(Opaque(246, decimal))) == b"-123.45"
    text = json_text(encoded(Opaque(15, b"\0" * 60))).decode()
    assert text == f'"base64:type15:{"A" * 76}\\nAAAA"'
    assert json.loads(text)


def test_a_nul_inside_a_text_is_escaped_and_kept() -> None:
    assert json_text(encoded("a\0b")) == b'"a\\u0000b"'


@settings(max_examples=80, deadline=None)
@given(DOCUMENTS, st.data())
def test_damaged_documents_raise_and_give_no_other_error(document: Any, data: Any) -> None:
    raw = bytearray(encoded(document))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(1, len(raw)))])
    with contextlib.suppress(WarpError):
        json.loads(json_text(cut), parse_constant=refuse)


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@settings(max_examples=100, deadline=None)
@given(st.lists(SCALARS, min_size=1, max_size=5), st.data())
def test_a_document_cut_short_is_never_a_shorter_document(items: list[Any], data: Any) -> None:
    raw = encoded(items)
    with pytest.raises(WarpError, match="damaged"):
        json_text(raw[: data.draw(st.integers(1, len(raw) - 1))])
