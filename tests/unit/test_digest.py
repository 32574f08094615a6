"""The one byte form of each value, sums of hashes, and what counts as a difference."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from any_cells import ANY_CELL
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.digest import canonical, certificate, ranges
from warp.digest.certificate import Certificate, Page, Place
from warp.digest.comparing import (
    NO_VERSION,
    Difference,
    Forms,
    Judgement,
    Seen,
    Sort,
    Stored,
    difference,
    in_groups,
    judge,
    keys_apart,
    leaves_apart,
    rows_apart,
)
from warp.digest.ranges import Range, Wanted, compared_of
from warp.digest.sums import Sums, leaf_of, leaves_of, total
from warp.errors import ConfigError
from warp.model import ABSENT, UNCHANGED, Column, Kind, TableId, TableSchema

ROW = (Column("a", Kind.TEXT), Column("b", Kind.TEXT), Column("n", Kind.INT64))
SPECIFICATION = Path(__file__).parents[2] / "docs" / "digest.md"


def text_of(*cells: Any) -> str:
    [text] = canonical.row_texts(ROW, [[cell] for cell in cells])
    return text


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("kind", "values", "form"),
    [
        (Kind.DECIMAL, [Decimal("1.10"), Decimal("1.1"), Decimal("11e-1")], "1.1"),
        (Kind.DECIMAL, [Decimal("-0.00"), Decimal("0"), Decimal("0e5")], "0"),
        (Kind.DECIMAL, [Decimal("1e3"), Decimal("1000.0")], "1000"),
        (Kind.DECIMAL, [Decimal("NaN")], "NaN"),
        (Kind.FLOAT64, [0.0, -0.0], "0000000000000000"),
        (Kind.FLOAT64, [float("nan"), -float("nan")], "7ff8000000000000"),
        (Kind.FLOAT64, [0.1], "3fb999999999999a"),
        (Kind.FLOAT32, [0.5], "3f000000"),
        (Kind.DATE, [dt.date(2000, 1, 1)], "00000000"),
        (Kind.DATE, [dt.date(1999, 12, 31)], "ffffffff"),
        (Kind.TIMESTAMP, [946_684_800_000_000], "0000000000000000"),
        (Kind.BOOL, [True], "t"),
        (Kind.BYTES, [b"\x00\xff"], "00ff"),
        (Kind.JSON, [b'{"bb":1,"a":2,"a":3}', b'{ "a":3, "bb":1 }'], '{"a": 3, "bb": 1}'),
        (Kind.JSON, [b"1.10", b"11.0e-1"], "1.10"),
        (Kind.JSON, [b"[-0, 1E2]"], "[0, 100]"),
        (Kind.JSON, [b'"\\u00e9\\/\\n\\u0001"'], '"é/\\n\\u0001"'),
        (Kind.JSON_TEXT, [b'{ "b":1,"a" :2}'], '{ "b":1,"a" :2}'),
    ],
)
def test_equal_values_have_one_form(kind: Kind, values: list[Any], form: str) -> None:
    assert {canonical.form(kind, value) for value in values} == {form}


def test_no_two_rows_run_together_into_one_text() -> None:
    texts = [
        text_of(None, "a", 1),
        text_of("a", None, 1),
        text_of("", "a", 1),
        text_of("a", "", 1),
        text_of("a,", "", 1),
        text_of("-,", "", 1),
        text_of("1:a", "", 1),
    ]
    assert len(set(texts)) == len(texts)


def test_what_is_written_as_null_is_null() -> None:
    assert text_of(ABSENT, "a", 1) == text_of(None, "a", 1)


@given(ANY_CELL)
@settings(max_examples=60)
def test_a_form_gives_its_carrier_back_up_to_what_is_equal(cell: tuple[Kind, Any]) -> None:
    kind, value = cell
    form = canonical.form(kind, value)
    assert form is not None
    assert canonical.form(kind, canonical.of_form(kind, form)) == form


def test_the_specification_s_own_examples_come_out_as_it_says() -> None:
    """Another program is written from the page, so the page must be right."""
    page = SPECIFICATION.read_text(encoding="utf-8")
    vectors = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[-1])
    assert len(vectors["rows"]) >= 5
    columns = [Column(name, Kind(kind)) for name, kind in vectors["columns"]]
    key = [column for column in columns if column.name in vectors["key"]]
    hashes = []
    for row in vectors["rows"]:
        forms = row["forms"]
        text = canonical.text_of_forms(columns, forms)
        assert text == row["text"]
        hashes.append(canonical.hash_of(text))
        assert hashes[-1].hex() == row["hash"]
        by_name = dict(zip([c.name for c in columns], forms, strict=True))
        key_text = canonical.text_of_forms(key, [by_name[c.name] for c in key])
        assert leaf_of(key_text) == row["leaf"]
    assert str(Sums.of(hashes)) == vectors["digest"]


# ---------------------------------------------------------------- sums

HASHES = st.lists(st.binary(min_size=16, max_size=16), max_size=8)


@given(HASHES, HASHES)
def test_the_digest_of_a_range_is_that_of_its_parts_however_cut(
    some: list[bytes], others: list[bytes]
) -> None:
    assert Sums.of(some) + Sums.of(others) == Sums.of([*others, *some])
    assert Sums.read(str(Sums.of(some))) == Sums.of(some)


def test_a_row_that_is_there_twice_counts_twice() -> None:
    hash_ = canonical.hash_of("x")
    assert Sums.of([hash_, hash_]) not in (Sums(), Sums.of([hash_]), Sums(2))


def test_leaves_are_told_by_the_key_alone() -> None:
    key = (Column("id", Kind.INT64),)
    assert leaves_of(key, [[1, 2]]) == [leaf_of("1,"), leaf_of("2,")]
    ours = {1: Sums(1, 1, 1), 2: Sums(1, 2, 2)}
    theirs = {1: Sums(1, 1, 1), 3: Sums(1, 3, 3)}
    assert leaves_apart(ours, theirs) == [2, 3]
    assert total(ours.values()) == Sums(2, 3, 3)


# ---------------------------------------------------------------- differences


def stored(version: int, *forms: Any, gone: bool = False) -> Stored:
    return Stored(version, gone, forms)


A: Forms = ("a", "b", "1")
B: Forms = ("a", "c", "1")


@pytest.mark.parametrize(
    ("before", "now", "judgement"),
    [
        (None, Seen(A, stored=stored(5, *A)), Judgement.SAME),
        (None, Seen(), Judgement.SAME),
        (None, Seen(stored=stored(5, *A, gone=True)), Judgement.SAME),
        (None, Seen(A, stored=stored(5, *B)), Judgement.MOVING),
        (Seen(A, stored=stored(5, *B)), Seen(A, stored=stored(5, *B)), Judgement.DIFFERENT),
        # written between the looks: what the source had then, nobody knows
        (Seen(A, stored=stored(4, *B)), Seen(A, stored=stored(5, *B)), Judgement.MOVING),
        (Seen(B, stored=stored(5, *B)), Seen(A, stored=stored(5, *B)), Judgement.MOVING),
        (Seen(A), Seen(A), Judgement.DIFFERENT),
        (Seen(A), Seen(B), Judgement.MOVING),
        (Seen(A), Seen(), Judgement.SAME),
        (Seen(None, stored=stored(5, *A)), Seen(None, stored=stored(5, *A)), Judgement.DIFFERENT),
        (Seen(None, aside=True), Seen(None, aside=True, stored=stored(1, *A)), Judgement.ASIDE),
        # nothing is expected of a cell that the row does not say
        (None, Seen(("a", UNCHANGED, "1"), stored=stored(5, *B)), Judgement.SAME),
    ],
)
def test_a_difference_is_one_that_two_looks_saw_unmoved(
    before: Seen | None, now: Seen, judgement: Judgement
) -> None:
    assert judge(before, now, ROW) is judgement


def test_what_is_wrong_with_a_row_is_named() -> None:
    missing, extra = Seen(A), Seen(None, stored=stored(7, *A))
    assert difference(("k",), missing, ROW) == Difference(("k",), Sort.MISSING)
    assert difference(("k",), extra, ROW) == Difference(("k",), Sort.EXTRA, version=7)
    differs = difference(("k",), Seen(A, stored=stored(7, *B)), ROW)
    assert differs == Difference(("k",), Sort.DIFFERS, ("b",), 7)


@pytest.mark.parametrize(
    ("odd", "sort"),
    [
        (Stored(7, False, A, copies=2), Sort.DUPLICATE),
        (Stored(NO_VERSION, False, A), Sort.DIFFERS),
    ],
)
def test_a_row_that_no_change_would_land_on_differs_whatever_it_holds(
    odd: Stored, sort: Sort
) -> None:
    seen = Seen(A, stored=odd)
    assert judge(seen, seen, ROW) is Judgement.DIFFERENT
    assert difference(("k",), seen, ROW).sort is sort
    extra = replace(seen, expected=None)
    assert difference(("k",), extra, ROW).sort is Sort.EXTRA


def test_keys_are_looked_at_where_either_side_has_them_alone_or_hashes_differ() -> None:
    ours = [(("1",), b"a"), (("2",), b"b"), (("3",), None)]
    theirs = [(("1",), b"a"), (("2",), b"x"), (("3",), b"c"), (("4",), b"d")]
    assert keys_apart(ours, theirs) == [("2",), ("3",), ("4",)]
    assert keys_apart(ours[:1], [*theirs[:1], *theirs[:1]]) == [("1",)]  # there twice
    assert rows_apart([("a",), ("a",)], [("a",), ("b",)]) == {("a",): 1, ("b",): -1}


# ---------------------------------------------------------------- certificates

CERTIFICATE = Certificate(
    written_at=1.5,
    version="1",
    configuration="c",
    source="s",
    destination="d",
    streams=(Place("stream:shop", "p", 3, 5, 4, 0),),
    tables=(
        Page(
            *("shop", ("shop", "orders"), ("shop", "orders"), (("id", "int64"),), None),
            *(1, str(Sums(1, 2, 3)), 9, 1.0, 2.0),
        ),
    ),
)


def test_a_certificate_is_read_as_it_was_written() -> None:
    assert certificate.read(certificate.written(CERTIFICATE), place="f") == CERTIFICATE


@pytest.mark.parametrize(
    "tamper",
    [
        lambda text: text.replace('"rows": 1', '"rows": 2'),
        lambda text: text.replace('"batch": 3', '"batch": 4'),
        lambda text: text.replace('"written_at": 1.5', '"written_at": 1.25'),
        lambda text: text.replace("stream:shop", "stream:shoq"),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
    ],
)
def test_a_certificate_that_was_changed_is_refused(tamper: Callable[[str], str]) -> None:
    text = tamper(certificate.written(CERTIFICATE))
    with pytest.raises(ConfigError, match="certificate"):
        certificate.read(text, place="f")


def test_a_certificate_of_another_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="rule"):
        certificate.read(certificate.written(replace(CERTIFICATE, rule=99)), place="f")


# ---------------------------------------------------------------- key ranges

ORDERS = TableId("shop", "orders")
TABLE = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("name", Kind.TEXT)), ("id",))
COMPARED = compared_of(TABLE, None)


def wanted(*rows: tuple[Any, Any]) -> Wanted:
    return Wanted([list(column) for column in zip(*rows, strict=True)], len(rows))


def test_a_range_is_digested_alike_whether_its_rows_are_kept_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [(id, f"n{id}") for id in range(20)]
    kept, passed_by = Range(COMPARED), Range(COMPARED)
    kept.add(wanted(*rows))
    monkeypatch.setattr(ranges, "KEPT_ROWS", 7)
    for start in range(0, 20, 4):
        passed_by.add(wanted(*rows[start : start + 4]))
    assert kept.sums == passed_by.sums
    assert kept.leaves() == passed_by.leaves()
    leaves = sorted(kept.leaves())[:2]
    found = kept.rows(leaves)
    assert found
    assert passed_by.rows(leaves) is None
    again = Range(COMPARED, only=frozenset(leaves))
    again.add(wanted(*rows))
    assert again.rows(leaves) == found


def test_a_row_of_which_a_cell_is_not_known_is_looked_at_by_its_key() -> None:
    of = Range(COMPARED)
    of.add(wanted((1, "a"), (2, UNCHANGED)))
    assert of.partial
    assert of.partial_leaves == {leaf_of("2,")}
    assert of.rows([leaf_of("2,")]) == [(("2",), None)]
    assert of.sums.rows == 2


def test_columns_are_compared_in_the_order_of_their_names_without_those_dropped() -> None:
    have = TableSchema(
        ORDERS,
        (Column("id", Kind.INT64), Column("b", Kind.TEXT), Column("a", Kind.TEXT)),
        ("id",),
    )
    at_source = replace(have, columns=(have.columns[0], have.columns[2]))
    assert [c.name for c in compared_of(have, at_source).columns] == ["a", "id"]
    assert [c.name for c in compared_of(have, at_source).key] == ["id"]
    keyless = replace(have, key=())
    assert [c.name for c in compared_of(keyless, None).key] == ["a", "b", "id"]


@given(
    st.dictionaries(st.integers(0, 40), st.integers(0, 9)),
    st.dictionaries(st.integers(0, 40), st.integers(0, 9)),
)
def test_leaves_are_asked_for_in_groups_whose_rows_fit_into_memory(
    ours: dict[int, int], theirs: dict[int, int]
) -> None:
    here = {leaf: Sums(rows) for leaf, rows in ours.items()}
    there = {leaf: Sums(rows) for leaf, rows in theirs.items()}
    leaves = sorted({*ours, *theirs})
    groups = in_groups(leaves, here, there, 10)
    assert [leaf for group in groups for leaf in group] == leaves
    for group in groups:
        rows = sum(ours.get(leaf, 0) + theirs.get(leaf, 0) for leaf in group)
        assert rows <= 10 or len(group) == 1


def test_whole_numbers_have_one_form_in_each_kind_that_holds_them() -> None:
    for wide in (Kind.INT32, Kind.INT64, Kind.DECIMAL):
        assert canonical.have_one_form(Kind.INT32, wide)
        assert canonical.form(wide, Decimal(-7) if wide is Kind.DECIMAL else -7) == "-7"
    assert not canonical.have_one_form(Kind.DECIMAL, Kind.INT64)  # it may have a fraction
    assert not canonical.have_one_form(Kind.INT64, Kind.INT32)  # it may be too large
    assert not canonical.have_one_form(Kind.FLOAT32, Kind.FLOAT64)
    assert not canonical.have_one_form(None, Kind.INT64)  # the column is gone
