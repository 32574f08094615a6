"""The compiled forms mean what the plain ones mean (guarantee 6: a difference that is none, or one
that is missed, would make a comparison worth nothing)."""

from __future__ import annotations

import json
import struct
from decimal import Decimal
from typing import Any

import pytest
from any_cells import CELLS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from warp import native
from warp.digest import canonical
from warp.model import ABSENT, UNCHANGED, Column, Kind
from warp.native import Packed

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="asked to test the plain Python half"
)

LETTERS = st.text(max_size=6)  # of every plane, NUL and halves of pairs among them
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=True)
    | st.sampled_from([-0.0, 1e300, 5e-324])
    | LETTERS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.tuples(st.sampled_from(["a", "b", "ab", "é", "z"]) | LETTERS, inner)).map(
            lambda pairs: Pairs(pairs)
        )
    ),
    max_leaves=12,
)


class Pairs(list[Any]):
    """An object whose names may come twice."""


def spelled(value: Any, draw: st.DrawFn) -> str:
    """JSON of a value, in one of the many ways to write it."""
    blank: str = draw(st.sampled_from(["", "", " ", "\n\t", "\r "]))
    if isinstance(value, Pairs):
        inner = [f"{spelled(n, draw)}:{blank}{spelled(v, draw)}" for n, v in value]
        return blank + "{" + f"{blank},".join(inner) + blank + "}"
    if isinstance(value, list):
        return "[" + f",{blank}".join(spelled(v, draw) for v in value) + blank + "]" + blank
    return blank + json.dumps(value, ensure_ascii=draw(st.booleans())) + blank


@st.composite
def texts(draw: st.DrawFn) -> str:
    return spelled(draw(VALUES), draw)


def form_or_refusal(text: bytes | str) -> str | type[Exception]:
    try:
        return canonical.json_form(text)
    except (ValueError, RecursionError) as error:
        return type(error)


def plain(text: bytes | str) -> str | type[Exception]:
    with native.switched(False):
        return form_or_refusal(text)


@given(texts())
@example('{"b": 1, "a": 2, "b": [-0, -0.00, 1.50, 1E2, 0.1e-7]}')
@example('{"\\u0061": 1, "a": 2}')
@example('"\\ud83d\\ude00 \\ud83d \\u0000 \\u00e9\\/\\u0022\\u005c\\u007f"')
@example("[01]")
@example("[1.]")
@example("[-]")
@example('{"a" 1}')
@example("[1] 2")
@example("[NaN, -Infinity]")
@example("\ufeff[]")
@example('"a\tb"')
@example("[" * 150 + "]" * 150)
@settings(max_examples=80, deadline=None)
def test_json_has_the_form_that_plain_python_gives_it(text: str) -> None:
    assert form_or_refusal(text) == plain(text)
    raw = text.encode("utf-8", "surrogatepass")
    assert form_or_refusal(raw) == plain(raw)


@given(texts(), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_json_is_refused_as_plain_python_refuses_it(text: str, data: st.DataObject) -> None:
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 3))):
        if raw:
            place = data.draw(st.integers(0, len(raw) - 1))
            raw[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    assert form_or_refusal(bytes(raw)) == plain(bytes(raw))


def test_usual_json_is_not_left_to_python() -> None:
    usual = '{"sku": "é \\" \\n", "n": [1, -2.50, true, null], "deep": {"b": {}, "a": []}}'
    assert native.forms.json_form(usual) == plain(usual)
    assert native.forms.json_form(usual.encode()) == plain(usual)


COLUMNS = [Column(kind.value, kind) for kind in Kind]
ROWS = st.lists(
    st.tuples(*(st.none() | st.just(ABSENT) | CELLS[kind] for kind in Kind)),
    min_size=1,
    max_size=4,
)


@given(ROWS, st.sets(st.integers(0, len(COLUMNS) - 1)))
@settings(max_examples=50, deadline=None)
def test_rows_of_every_kind_have_the_hashes_that_plain_python_gives_them(
    rows: list[tuple[Any, ...]], listed: set[int]
) -> None:
    columns: list[Any] = [list(cells) for cells in zip(*rows, strict=True)]
    packed = [
        cells if place in listed else Packed.of(column.kind, cells) or cells
        for place, (column, cells) in enumerate(zip(COLUMNS, columns, strict=True))
    ]
    with native.switched(False):
        expected = canonical.row_hashes(COLUMNS, columns)
    assert canonical.row_hashes(COLUMNS, packed) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(
            (Kind.DECIMAL, Decimal(text))
            for text in ("-0.00", "1e3", "1E-9", "-7.10", "NaN", "100")
        ),
        *((Kind.FLOAT32, value) for value in (-0.0, float("nan"), float("-inf"), 1e-45)),
        *((Kind.FLOAT64, value) for value in (-0.0, float("nan"), float("inf"))),
        (Kind.TIMESTAMP, 2**63 - 1),
        (Kind.JSON_TEXT, b"\xff damaged"),
        (Kind.JSON, b'{"far": 1e400}'),
        (Kind.INT64, -(2**63)),
    ],
)
def test_values_at_the_edges_have_the_same_form_too(kind: Kind, value: Any) -> None:
    column = Column("c", kind)
    packed = Packed.of(kind, [value])
    assert packed is not None
    with native.switched(False):
        expected = canonical.row_hashes([column], [[value]])
    assert canonical.row_hashes([column], [packed]) == expected


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.TIMESTAMP])
def test_what_has_no_form_is_refused_as_plain_python_refuses_it(kind: Kind) -> None:
    value = 1e300 if kind is Kind.FLOAT32 else -(2**63)
    packed = Packed.of(kind, [value])
    assert packed is not None
    refused = OverflowError if kind is Kind.FLOAT32 else struct.error
    with native.switched(False), pytest.raises(refused):
        canonical.row_hashes([Column("c", kind)], [[value]])
    with pytest.raises(refused):
        canonical.row_hashes([Column("c", kind)], [packed])


def test_a_cell_that_is_not_known_has_no_form() -> None:
    packed = Packed.of(Kind.TEXT, ["a", UNCHANGED])
    assert packed is not None
    with pytest.raises(ValueError, match="not known"):
        canonical.row_hashes([Column("c", Kind.TEXT)], [packed])


def test_a_column_of_another_kind_is_written_as_the_kind_that_is_compared() -> None:
    packed = Packed.of(Kind.INT32, [7, -7, None])
    assert packed is not None
    wider = [Column("c", Kind.DECIMAL)]
    with native.switched(False):
        expected = canonical.row_hashes(wider, [[Decimal(7), Decimal(-7), None]])
    assert canonical.row_hashes([Column("c", Kind.INT64)], [packed]) == expected
