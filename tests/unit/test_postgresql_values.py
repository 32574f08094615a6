"""Texts of values to carriers, the few that no server test says by name."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.model import ABSENT, UNCHANGED, Invalid, Kind
from warp.sources.postgresql.values import TEXT, Types, UserType, column, text_of

OIDS = {
    "bool": 16,
    "int8": 20,
    "float4": 700,
    "numeric": 1700,
    "bytea": 17,
    "uuid": 2950,
    "date": 1082,
    "time": 1083,
    "timestamp": 1114,
    "timestamptz": 1184,
    "int4[]": 1007,
    "text[]": 1009,
    "json[]": 199,
}


def read(name: str, *cells: Any) -> list[Any]:
    return column(Types().codec(OIDS[name]), list(cells))


def test_what_is_no_text_stays_as_it_is() -> None:
    assert read("int8", b"1", None, UNCHANGED, ABSENT, b"-2") == [1, None, UNCHANGED, ABSENT, -2]
    assert read("int8", None, None) == [None, None]


@pytest.mark.parametrize(
    ("name", "text", "carrier"),
    [
        ("float4", b"0.1", 0.10000000149011612),
        ("numeric", b"1.10", Decimal("1.10")),
        ("bytea", b"\\x00ff", b"\x00\xff"),
        ("date", b"2024-02-29", date(2024, 2, 29)),
        ("date", b"infinity", Invalid("infinity")),
        ("date", b"0044-03-15 BC", Invalid("0044-03-15 BC")),
        ("time", b"23:59:59.5", 86_399_500_000),
        ("time", b"24:00:00", Invalid("24:00:00")),
        ("timestamp", b"1969-12-31 23:59:59.999999", -1),
        ("timestamp", b"12345-01-01 00:00:00", 327_403_382_400_000_000),
        ("timestamp", b"-infinity", Invalid("-infinity")),
        ("timestamptz", b"0001-01-01 00:00:00+00 BC", -62_167_219_200_000_000),
        ("int4[]", b"{1,NULL,{2}}", b"[1,null,[2]]"),
        ("text[]", b'{"a\\"b\\\\","NULL",NULL,x}', b'["a\\"b\\\\","NULL",null,"x"]'),
        ("text[]", b"[0:1]={a,b}", b'"[0:1]={a,b}"'),
        ("json[]", b'{"{\\"a\\": 1}"}', b'[{"a": 1}]'),
    ],
)
def test_each_text_becomes_its_carrier(name: str, text: bytes, carrier: Any) -> None:
    assert read(name, text) == [carrier]
    # One cell that does not fit changes none of its neighbours.
    assert read(name, text, text, None)[:2] == [carrier, carrier]


def test_bytes_that_are_not_utf8_are_invalid_and_shown() -> None:
    assert column(TEXT, [b"ok", b"\xff"]) == ["ok", Invalid("\\xff")]


@given(st.datetimes())
def test_every_moment_is_read_as_the_calendar_counts_it(moment: datetime) -> None:
    text = moment.isoformat(" ")
    micros = (moment - datetime(1970, 1, 1)) // (moment.resolution)  # noqa: DTZ001 - a wall clock
    assert read("timestamp", text.encode()) == [micros]
    assert read("timestamptz", text.encode() + b"+00") == [micros]
    assert read("timestamp", text_of(Kind.DATETIME, micros).encode()) == [micros]


@given(st.integers(-(2**57), 2**58))
def test_moments_of_any_era_go_to_text_and_back(micros: int) -> None:
    text = text_of(Kind.DATETIME, micros).encode()
    assert read("timestamp", text) == [micros]
    assert read("timestamptz", text_of(Kind.TIMESTAMP, micros).encode()) == [micros]


def test_types_are_learned_down_to_what_they_are_made_of() -> None:
    types = Types()
    assert types.unknown([23, 90_001]) == {90_001}
    types.learn([UserType(90_001, "b", 0, 90_002)])  # an array …
    assert types.unknown([90_001]) == {90_002}
    types.learn([UserType(90_002, "d", 1184, 0)])  # … of a domain
    assert types.unknown([90_001]) == set()
    codec = types.codec(90_001)
    assert codec.kind is Kind.JSON
    assert column(codec, [b'{"2024-01-01 00:00:00+00"}']) == [b'["2024-01-01 00:00:00+00"]']
    assert types.codec(90_003).kind is Kind.TEXT
