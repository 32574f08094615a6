"""What BigQuery answers, as carriers: JSON by its numbers, and cells that are not of their kind."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
from typing import Any

import pytest
from any_cells import CELLS
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.destinations.bigquery import markers, readback, witness
from warp.destinations.bigquery.comparing import _within as within
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.spelling import Spelled, spelled
from warp.digest import canonical
from warp.digest import witness as second_opinion
from warp.model import Chunk, Column, Kind, TableId, UnitKind, WorkUnit

ORDERS = TableId("shop", "orders")


def column(kind: Kind, name: str = "c", json_type: str = "JSON") -> Spelled:
    return spelled(Column(name, kind), name, decimal="BIGNUMERIC", json=json_type)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('{"a": 1.50}', '{"a": 1.5}'),
        ("[1e2, 2.0, -0.0, -0]", "[100, 2, 0, 0]"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),  # a double, and that very number
        ("-9223372036854775809", "-9223372036854775808"),
        ("1e-7", "0.0000001"),
        ('{"text": "1.50 e"}', '{"text": "1.50 e"}'),
    ],
)
def test_numbers_of_json_are_those_that_bigquery_keeps(written: str, kept: str) -> None:
    assert canonical.json_form(readback.as_kept(written.encode())) == kept


@given(text=CELLS[Kind.JSON])
@settings(max_examples=60, deadline=None)
def test_json_is_the_same_however_often_it_was_kept_and_to_the_witness(text: bytes) -> None:
    kept = readback.as_kept(text)
    assert canonical.json_form(readback.as_kept(kept)) == canonical.json_form(kept)
    hash_ = canonical.row_hashes([Column("j", Kind.JSON)], [[kept]])
    rows, digest = second_opinion.count([[witness._shown(text.decode())]], ["json"])
    high, low = struct.unpack(">QQ", hash_[0])
    assert (rows, digest) == (1, f"1:{high:016x}{low:016x}")


@pytest.mark.parametrize(
    ("one", "odd"),
    [
        (column(Kind.UUID), "no uuid"),
        (column(Kind.UUID), "00010203-0405-0607-0809-0A0B0C0D0E0F"),  # of other letters
        (column(Kind.FLOAT32), 0.1),
        (column(Kind.FLOAT32), 1e300),
        (column(Kind.JSON, json_type="STRING"), "{"),
    ],
)
def test_a_cell_that_is_none_of_its_kind_differs_from_every_one_that_is(
    one: Spelled, odd: Any
) -> None:
    cells = [readback.carriers(one, [odd, None])]
    [[form], [nothing]] = readback.forms_of([one], cells)
    assert nothing is None
    assert form.startswith("?")
    found = readback.row_hashes([one], cells)
    assert found[1] == canonical.row_hashes([one.column], [[None]])[0]
    assert found[0] == canonical.hash_of(canonical.text_of_forms([one.column], [form]))


@given(value=CELLS[Kind.FLOAT32])
@settings(max_examples=50, deadline=None)
def test_every_single_float_is_one_when_it_comes_back(value: float) -> None:
    [found] = readback.carriers(column(Kind.FLOAT32), [value])
    assert found == value or (math.isnan(found) and math.isnan(value))


@given(
    value=st.sampled_from([Kind.DATE, Kind.UUID]).flatmap(lambda k: st.tuples(st.just(k), CELLS[k]))
)
@settings(max_examples=50, deadline=None)
def test_what_was_asked_for_as_a_number_or_a_text_is_the_value_again(
    value: tuple[Kind, Any],
) -> None:
    kind, cell = value
    told = (cell - dt.date(1970, 1, 1)).days if kind is Kind.DATE else None
    answered = readback.bound(column(kind), cell)[1] if told is None else told
    assert readback.carriers(column(kind), [answered]) == [cell]


def test_json_is_asked_for_so_that_null_stays_null() -> None:
    assert readback.selected(column(Kind.JSON, "a`b")) == (
        "IF(`a\\`b` IS NULL, NULL, TO_JSON_STRING(`a\\`b`))"
    )
    assert readback.selected(column(Kind.JSON, json_type="STRING")) == "`c`"
    assert json.loads(readback.as_kept(b'"a`b"')) == "a`b"


# ---------------------------------------------------------------- which marker tables are read


def test_only_marker_tables_that_may_have_such_units_are_read() -> None:
    chunk = Chunk(ORDERS, 0)
    groups = {
        unit.kind: markers.group_of(unit)
        for unit in (
            WorkUnit.stream("shop"),
            WorkUnit.of_table("shop", ORDERS),
            WorkUnit.of_verification("shop", chunk, 7),
        )
    }
    assert markers.group_of(WorkUnit.of_replay("shop", ORDERS)) == groups[UnitKind.TABLE]

    def read(*kinds: UnitKind) -> set[UnitKind]:
        return {kind for kind, group in groups.items() if markers.may_hold(group, kinds)}

    assert read() == set(groups)
    assert read(UnitKind.STREAM) == {UnitKind.STREAM}
    assert read(UnitKind.VERIFY) == {UnitKind.VERIFY}
    assert read(UnitKind.VERIFY, UnitKind.STREAM) == {UnitKind.VERIFY, UnitKind.STREAM}
    assert UnitKind.TABLE in read(UnitKind.REPLAY)
    assert UnitKind.VERIFY not in read(UnitKind.REPLAY)
    assert not markers.may_hold("sync_runs", ())
    # A schema named as a kind is read too often, never too seldom.
    of_stream = markers.group_of(WorkUnit.of_table("stream", ORDERS))
    assert markers.may_hold(of_stream, (UnitKind.TABLE,))


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, None, []),
        ((1, 2), None, ["`a` >= @p0", "(`a` > @p0 OR (`a` = @p0 AND `b` >= @p1))"]),
        (
            None,
            (1, 2),
            [
                "(`a` <= @p0 OR `a` IS NULL)",
                "((`a` < @p0 OR (`a` = @p0 AND `b` < @p1)) OR `a` IS NULL)",
            ],
        ),
    ],
)
def test_a_range_of_a_key_of_two_columns(lower: Any, upper: Any, expected: list[str]) -> None:
    key = [column(Kind.INT64, "a"), column(Kind.INT64, "b")]
    assert within(Script(), key, lower, upper) == expected
