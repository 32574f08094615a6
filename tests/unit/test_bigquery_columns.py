"""Cells of BigQuery out of Arrow: each kind its carrier, nested ones as JSON with all digits."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.kinds import as_text
from warp.model import Invalid, Kind
from warp.sources.bigquery.columns import Declared, plain_decimal
from warp.sources.bigquery.dialect import BigQueryDialect

NOON = dt.datetime.fromisoformat("2024-05-17T12:00:00.000001")
MICROSECONDS = 1_715_947_200_000_001
ITEM = Declared(
    "items",
    "STRUCT",
    repeated=True,
    fields=(Declared("n", "NUMERIC"), Declared("raw", "BYTES"), Declared("more", "JSON")),
)
ITEMS = pa.list_(
    pa.struct([("n", pa.decimal128(38, 9)), ("raw", pa.binary()), ("more", pa.string())])
)


@pytest.mark.parametrize(
    ("type", "arrow", "given", "cell"),
    [
        ("BOOL", pa.bool_(), True, True),
        ("INT64", pa.int64(), 2**62, 2**62),
        ("FLOAT64", pa.float64(), 0.1, 0.1),
        ("NUMERIC", pa.decimal128(38, 9), Decimal("1.500000000"), Decimal("1.5")),
        ("NUMERIC", pa.decimal128(38, 9), Decimal("100"), Decimal("100")),
        ("BIGNUMERIC", pa.decimal256(76, 38), Decimal("0." + "1" * 38), Decimal("0." + "1" * 38)),
        ("STRING", pa.string(), "grün", "grün"),
        ("STRING", pa.string(), "a\0b", Invalid("a\0b")),
        ("BYTES", pa.binary(), b"\0\xff", b"\0\xff"),
        ("DATE", pa.date32(), NOON.date(), NOON.date()),
        ("TIME", pa.time64("us"), NOON.time(), 43_200_000_001),
        ("DATETIME", pa.timestamp("us"), NOON, MICROSECONDS),
        ("TIMESTAMP", pa.timestamp("us", tz="UTC"), NOON.replace(tzinfo=dt.UTC), MICROSECONDS),
        ("JSON", pa.string(), '{"a":1}', b'{"a":1}'),
        ("JSON", pa.string(), '"\\u0000"', Invalid('"\\u0000"')),
        ("JSON", pa.string(), '"\\\\u0000"', b'"\\\\u0000"'),  # a backslash and a word
        ("GEOGRAPHY", pa.string(), "POINT(1 2)", "POINT(1 2)"),
        ("INTERVAL", pa.month_day_nano_interval(), (14, 3, 1_500_000_000), "1-2 3 0:0:1.5"),
    ],
)
def test_each_type_becomes_the_carrier_of_its_kind(
    type: str, arrow: Any, given: Any, cell: Any
) -> None:
    declared = Declared("c", type)
    found = list(declared.cells(pa.chunked_array([pa.array([given, None], arrow)])))
    assert found == [cell, None]
    if isinstance(cell, Decimal):
        assert str(found[0]) == str(cell)


def test_what_is_nested_becomes_json_with_all_its_digits() -> None:
    rows = [
        [{"n": Decimal("12345678901234567890.5"), "raw": b"\xff", "more": '{"b":[1]}'}],
        [],
        None,
    ]
    found = list(ITEM.cells(pa.array(rows, ITEMS)))
    assert found == [b'[{"n":12345678901234567890.5,"raw":"/w==","more":{"b":[1]}}]', b"[]", b"[]"]
    assert ITEM.kind is Kind.JSON


def test_a_missing_struct_is_null_and_not_an_object() -> None:
    declared = Declared(
        "s", "STRUCT", fields=(Declared("at", "TIMESTAMP"), Declared("f", "FLOAT64"))
    )
    arrow = pa.struct([("at", pa.timestamp("us", tz="UTC")), ("f", pa.float64())])
    rows = [None, {"at": NOON.replace(tzinfo=dt.UTC), "f": float("nan")}]
    found = list(declared.cells(pa.array(rows, arrow)))
    assert found == [None, b'{"at":"2024-05-17T12:00:00.000001Z","f":"NaN"}']


def test_a_range_is_text_as_bigquery_prints_it() -> None:
    arrow = pa.struct([("start", pa.date32()), ("end", pa.date32())])
    rows = [{"start": NOON.date(), "end": None}]
    assert list(Declared("r", "RANGE").cells(pa.array(rows, arrow))) == ["[2024-05-17, UNBOUNDED)"]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**38), max_value=10**38))
def test_a_decimal_keeps_its_value(value: Decimal) -> None:
    assert plain_decimal(value) == value
    assert orjson.loads(f"{plain_decimal(value):f}") is not None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_text_leaves_its_quotes(text: str) -> None:
    quoted = BigQueryDialect().literal(Kind.TEXT, text)
    assert _closed(quoted, "'")
    assert _closed(BigQueryDialect().name(text), "`")


def _closed(quoted: str, mark: str) -> bool:
    """Does the string end at its last character, and no earlier?"""
    place = 1
    while quoted[place] != mark:
        assert quoted[place] not in "\n\r"
        place += 2 if quoted[place] == "\\" else 1
    return quoted[0] == mark and place == len(quoted) - 1


@pytest.mark.parametrize(
    ("kind", "value", "literal"),
    [
        (Kind.INT64, -5, "-5"),
        (Kind.DECIMAL, Decimal("1.10"), "BIGNUMERIC '1.10'"),
        (Kind.FLOAT64, float("-inf"), "CAST('-inf' AS FLOAT64)"),
        (Kind.BYTES, b"\0'", r"b'\x00\x27'"),
        (Kind.DATE, NOON.date(), "DATE '2024-05-17'"),
        (Kind.DATETIME, MICROSECONDS, "DATETIME '2024-05-17 12:00:00.000001'"),
        (Kind.TIMESTAMP, MICROSECONDS, "TIMESTAMP '2024-05-17 12:00:00.000001+00'"),
    ],
)
def test_a_value_is_a_literal_of_its_type(kind: Kind, value: Any, literal: str) -> None:
    assert BigQueryDialect().literal(kind, as_text(kind, value)) == literal
