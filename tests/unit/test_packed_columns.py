"""Packed columns hold exactly the carriers they were made of, and go to PostgreSQL as psycopg's."""

from __future__ import annotations

import datetime as dt
import re
from array import array
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer

from warp import native
from warp.destinations.postgresql.carriers import DUMPED_AS, dumped
from warp.model import ABSENT, UNCHANGED, Invalid, Kind
from warp.native import Packed

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="asked to test the plain Python half"
)

MICROSECONDS = st.integers(-210_866_803_200_000_000, 2**63 - 1)
SINGLES = st.floats(width=32, allow_nan=False)
TEXTS = st.text(max_size=12).map(lambda t: t.replace("\0", "").encode("utf-8", "ignore").decode())
DECIMALS = st.decimals(allow_nan=True, allow_infinity=True).filter(
    lambda d: not d.is_snan() and (not d.is_finite() or abs(d.as_tuple().exponent) < 900)  # type: ignore[arg-type]
) | st.from_regex(r"-?\d{1,30}(\.\d{1,30})?(E[+-]?\d{1,2})?", fullmatch=True).map(Decimal)
CARRIERS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT32: SINGLES,
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.DECIMAL: DECIMALS,
    Kind.TEXT: TEXTS,
    Kind.BYTES: st.binary(max_size=20),
    Kind.UUID: st.binary(min_size=16, max_size=16),
    Kind.DATE: st.dates(),
    Kind.TIME: st.integers(0, 86_400_000_000 - 1),
    Kind.DATETIME: MICROSECONDS,
    Kind.TIMESTAMP: MICROSECONDS,
    Kind.JSON: st.sampled_from([b"null", b'{"a": 1}', "\u00e4".encode()]),
    Kind.JSON_TEXT: st.sampled_from([b"null", b'{"a": 1}']),
    Kind.OBJECTID: st.binary(min_size=12, max_size=12).map(bytes.hex),
    Kind.TAGGED: TEXTS,
}
MARKS: list[Any] = [None, UNCHANGED, ABSENT]


def columns(marks: list[Any]) -> st.SearchStrategy[tuple[Kind, list[Any]]]:
    return st.sampled_from(sorted(CARRIERS)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.lists(CARRIERS[kind] | st.sampled_from(marks), max_size=20)
        )
    )


def packed(kind: Kind, cells: list[Any]) -> Packed:
    made = Packed.of(kind, cells)
    assert made is not None
    return made


def test_every_kind_has_a_packed_form() -> None:
    assert set(CARRIERS) == set(Kind)


def test_the_compiled_modules_are_at_work_where_they_are_tested() -> None:
    assert native.missing == ""
    assert native.active()
    with native.switched(False):
        assert not native.active()


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN, -0.0, 1.0 and 1.00 too


@given(columns(MARKS))
def test_a_packed_column_reads_as_the_carriers_it_was_made_of(case: tuple[Kind, list[Any]]) -> None:
    kind, cells = case
    column = packed(kind, cells)
    assert len(column) == len(cells)
    assert same(column.tolist(), cells)
    assert same(list(column), cells)
    assert same([column[row] for row in range(-len(cells), len(cells))], cells + cells)
    assert same(column[1:5], cells[1:5])
    assert column.kind is kind
    assert column.marked == any(c is UNCHANGED or c is ABSENT for c in cells)
    assert column.blank == any(c is None or c is UNCHANGED or c is ABSENT for c in cells)
    assert column.unchanged() == [row for row, c in enumerate(cells) if c is UNCHANGED]


@given(columns(MARKS), st.data())
def test_rows_are_taken_and_replaced_as_in_a_list(
    case: tuple[Kind, list[Any]], data: st.DataObject
) -> None:
    kind, cells = case
    column = packed(kind, cells)
    places = st.integers(0, max(0, len(cells) - 1))
    rows = data.draw(st.lists(places, max_size=10)) if cells else []
    assert same(column.take(rows).tolist(), [cells[row] for row in rows])
    other = data.draw(st.dictionaries(places, CARRIERS[kind], max_size=5)) if cells else {}
    expected = [other.get(row, cell) for row, cell in enumerate(cells)]
    assert same(list(column.replaced(other)), expected)
    odd = {row: Invalid("?") for row in other}
    expected = [odd.get(row, cell) for row, cell in enumerate(cells)]
    assert same(list(column.replaced(odd)), expected)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (Kind.INT64, 2**63),
        (Kind.INT64, -(2**63) - 1),
        (Kind.INT64, True),
        (Kind.INT64, 1.0),
        (Kind.INT32, 2**31),
        (Kind.BOOL, 1),
        (Kind.FLOAT64, 1),
        (Kind.DECIMAL, 1),
        (Kind.TEXT, b"a"),
        (Kind.TEXT, "\ud800"),
        (Kind.TEXT, "a\0"),
        (Kind.BYTES, "a"),
        (Kind.BYTES, bytearray(b"a")),
        (Kind.UUID, b"short"),
        (Kind.DATE, dt.datetime(2024, 1, 1)),  # noqa: DTZ001
        (Kind.TEXT, Invalid("?")),
        (Kind.JSON, object()),
    ],
)
def test_what_is_not_exactly_a_carrier_is_not_packed(kind: Kind, cell: Any) -> None:
    assert Packed.of(kind, [cell]) is None
    assert Packed.of(kind, [None, cell]) is None


def sent(kind: Kind, cell: Any, connection: psycopg.Connection[Any] | None = None) -> bytes:
    """One cell as psycopg would send it in binary."""
    [value] = dumped(kind, [cell])
    if value is None:
        return b"\xff\xff\xff\xff"
    transformer = Transformer(connection)
    oid = psycopg.adapters.types[DUMPED_AS[kind]].oid
    transformer.set_dumper_types([oid], psycopg.pq.Format.BINARY)
    [data] = transformer.dump_sequence([value], [PyFormat.BINARY])
    assert data is not None
    return len(data).to_bytes(4, "big") + bytes(data)


@given(columns(MARKS))
def test_a_cell_is_sent_as_psycopg_sends_it(case: tuple[Kind, list[Any]]) -> None:
    kind, cells = case
    expected = b"".join(b"\0\1" + sent(kind, cell) for cell in cells)
    assert native.packed.copy_rows([packed(kind, cells)]) == expected


def test_what_is_said_beside_the_cells_and_after_them_is_sent_with_each_row() -> None:
    numbers = packed(Kind.INT32, [1, -2, 3])
    tail = b"\0\0\0\1t"
    rows = native.packed.copy_rows(
        [numbers, numbers], 1, 3, wire={1: "int2"}, tail=tail, tail_fields=1
    )
    one = b"\0\3" + b"\0\0\0\4\xff\xff\xff\xfe" + b"\0\0\0\2\xff\xfe" + tail
    other = b"\0\3" + b"\0\0\0\4\0\0\0\3" + b"\0\0\0\2\0\3" + tail
    assert rows == one + other


def test_rows_are_sent_in_another_order_and_never_from_outside_the_column() -> None:
    column = packed(Kind.TEXT, ["a", None, "ccc"])
    one_by_one = [native.packed.copy_rows([column], row, row + 1) for row in (2, 0, 1)]
    assert native.packed.copy_rows([column], order=array("q", [2, 0, 1])) == b"".join(one_by_one)
    for wrong in ([0, 1, 3], [-1, 0, 1]):
        with pytest.raises(IndexError):
            native.packed.copy_rows([column], order=array("q", wrong))
    with pytest.raises(ValueError, match="an order of 3 rows"):
        native.packed.copy_rows([column], order=array("q", [0]))


@pytest.mark.parametrize("text", ["sNaN", "1E+999999", "1E-20000", "1E+131072"])
def test_a_decimal_without_a_form_at_postgresql_is_an_error(text: str) -> None:
    column = packed(Kind.DECIMAL, [Decimal(text)])
    with pytest.raises(OverflowError, match=re.escape(text)):
        native.packed.copy_rows([column])


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=2) | st.none()), max_size=12))
def test_the_last_change_of_each_key_is_the_one_that_compaction_keeps(
    keys: list[tuple[int, str | None]],
) -> None:
    numbers = packed(Kind.INT64, [number for number, _ in keys])
    names = packed(Kind.TEXT, [name for _, name in keys])
    last = {key: row for row, key in enumerate(keys)}
    kept = native.packed.last_of_each([numbers, names], b"u" * len(keys), range(len(keys)))
    assert kept == sorted(last.values())


@given(st.lists(TEXTS, max_size=4) | st.lists(TEXTS, max_size=6, unique=True).map(sorted))
def test_keys_are_in_order_where_sorting_would_leave_them(names: list[str]) -> None:
    expected = names == sorted(set(names))
    assert native.packed.in_order(packed(Kind.TEXT, names)) == expected
    numbers = [len(name) for name in names]
    in_order = native.packed.in_order(packed(Kind.INT64, numbers))
    assert in_order == (numbers == sorted(set(numbers)))


@given(st.lists(TEXTS, max_size=8, unique=True), st.lists(st.integers(-5, 5), unique=True))
def test_rows_are_sorted_by_their_keys_as_a_list_of_them_is(
    names: list[str], numbers: list[int]
) -> None:
    by_name = native.packed.sorted_rows(packed(Kind.TEXT, names))
    assert [names[row] for row in by_name] == sorted(names)
    by_number = native.packed.sorted_rows(packed(Kind.INT64, numbers))
    assert [numbers[row] for row in by_number] == sorted(numbers)


def test_rows_without_a_key_are_not_sorted() -> None:
    with pytest.raises(ValueError, match="without blank cells"):
        native.packed.sorted_rows(packed(Kind.INT64, [2, None, 1]))


def test_kinds_whose_equal_values_have_several_forms_are_not_compared_by_bytes() -> None:
    loose = {Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL, Kind.JSON, Kind.JSON_TEXT}
    assert {kind for kind in Kind if not native.packed.compares_by_bytes(kind)} == loose


@given(st.binary(max_size=24) | TEXTS.map(str.encode))
def test_bytes_are_text_where_python_reads_them_and_there_is_no_nul(data: bytes) -> None:
    try:
        readable = "\0" not in data.decode()
    except UnicodeDecodeError:
        readable = False
    assert native.packed.readable(data) == readable
