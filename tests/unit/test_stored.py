"""Rows kept outside their table come back exactly as they were."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp import stored
from warp.model import ABSENT, UNCHANGED, Column, Kind

integers = st.integers(-(2**63), 2**63 - 1)
any_text = st.text(st.characters(codec=None))  # unpaired surrogates included
CARRIERS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: integers,
    Kind.FLOAT32: st.floats(width=32),
    Kind.FLOAT64: st.floats(),
    Kind.DECIMAL: st.decimals(),
    Kind.TEXT: any_text,
    Kind.BYTES: st.binary(),
    Kind.UUID: st.binary(min_size=16, max_size=16),
    Kind.DATE: st.dates(),
    Kind.TIME: st.integers(0, 86_400_000_000 - 1),
    Kind.DATETIME: integers,
    Kind.TIMESTAMP: integers,
    Kind.JSON: st.binary(),
    Kind.JSON_TEXT: st.binary(),
    Kind.OBJECTID: st.text("0123456789abcdef", min_size=24, max_size=24),
    Kind.TAGGED: any_text,
}
COLUMNS = [Column(f"c {kind}", kind) for kind in Kind]


def test_every_kind_has_a_form() -> None:
    assert set(CARRIERS) == set(Kind)


@given(st.tuples(*(st.none() | CARRIERS[kind] for kind in Kind)))
def test_any_row_comes_back_exactly(cells: tuple[Any, ...]) -> None:
    text = stored.dump(COLUMNS, cells)

    loaded = stored.load(text, stored.kinds_of(COLUMNS))

    assert text.isascii()
    back = stored.cells_of(COLUMNS, loaded, partial=False)
    assert [(type(c), repr(c)) for c in back] == [(type(c), repr(c)) for c in cells]


def test_what_a_row_does_not_say_is_no_value() -> None:
    columns = [Column("id", Kind.INT64), Column("a", Kind.TEXT), Column("b", Kind.TEXT)]
    text = stored.dump(columns, [1, UNCHANGED, ABSENT])

    assert json.loads(text) == {"id": 1}
    loaded = stored.load(text, stored.kinds_of(columns))
    assert stored.cells_of(columns, loaded, partial=True) == [1, UNCHANGED, UNCHANGED]
    assert stored.cells_of(columns, loaded, partial=False) == [1, ABSENT, ABSENT]


def test_a_key_alone_can_be_written() -> None:
    columns = [Column("id", Kind.DECIMAL), Column("day", Kind.DATE), Column("a", Kind.TEXT)]
    cells = [Decimal("1.10"), dt.date(2026, 11, 25), "x"]

    assert stored.dump(columns, cells, ("id", "day")) == '{"id": "1.10", "day": "2026-11-25"}'


@pytest.mark.parametrize(
    ("text", "kinds", "said"),
    [
        ("[]", {}, "JSON object"),
        ('{"a": 1}', {}, "a kind for column 'a'"),
        ('{"a": "1"}', {"a": "int64"}, "column 'a': expected int64"),
        ('{"a": true}', {"a": "int64"}, "column 'a': expected int64"),
        ('{"a": "x"}', {"a": "decimal"}, "column 'a': expected decimal"),
        ('{"a": "not base64"}', {"a": "bytes"}, "column 'a': expected bytes"),
        ('{"a": 1}', {"a": "no kind"}, "column 'a': expected no kind"),
    ],
)
def test_a_text_that_was_not_written_here_is_refused(
    text: str, kinds: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        stored.load(text, kinds)
