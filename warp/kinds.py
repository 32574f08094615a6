"""The type lattice: which kind holds the values of two, and exact conversions between them.  Pure.

A conversion here is exact or refused: `convert` never rounds, cuts or guesses.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import orjson

from warp.model import Kind

_NUMBERS: Final = (Kind.INT32, Kind.INT64, Kind.DECIMAL)
EXACT_FLOAT_INT: Final = 2**53  # beyond it not every int is a float
_DAY_US: Final = 86_400_000_000
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


def join(a: Kind, b: Kind) -> Kind:
    """The smallest kind that holds every value of both.

    Kinds of different families meet in JSON, which keeps the type; text would lose it.
    """
    if a == b:
        return a
    pair = {a, b}
    if pair <= {*_NUMBERS}:
        return Kind.DECIMAL if Kind.DECIMAL in pair else Kind.INT64
    if Kind.FLOAT64 in pair and pair <= {*_NUMBERS, Kind.FLOAT64}:
        # Beyond 2**53 a float column cannot hold every int: such a cell does not fit it and
        # takes the path of any misfit.
        return Kind.DECIMAL if Kind.DECIMAL in pair else Kind.FLOAT64
    if pair == {Kind.DATE, Kind.TIMESTAMP}:
        return Kind.TIMESTAMP
    return Kind.JSON


def _int_to_float(value: int) -> float:
    if abs(value) > EXACT_FLOAT_INT:
        raise ValueError(f"{value} has no exact double")
    return float(value)


def _date_to_timestamp(value: dt.date) -> int:
    return (value.toordinal() - _EPOCH) * _DAY_US


def _text_to_json(value: str) -> bytes:
    return orjson.dumps(value)


_CONVERSIONS: Final[dict[tuple[Kind, Kind], Callable[[Any], Any]]] = {
    (Kind.INT32, Kind.INT64): lambda v: v,
    (Kind.INT32, Kind.DECIMAL): Decimal,
    (Kind.INT64, Kind.DECIMAL): Decimal,
    (Kind.INT32, Kind.FLOAT64): float,
    (Kind.INT64, Kind.FLOAT64): _int_to_float,
    (Kind.FLOAT64, Kind.DECIMAL): Decimal,  # every double is a finite decimal, NaN and Inf included
    (Kind.DATE, Kind.TIMESTAMP): _date_to_timestamp,
    (Kind.OBJECTID, Kind.TEXT): lambda v: v,
    (Kind.BOOL, Kind.JSON): orjson.dumps,
    (Kind.INT32, Kind.JSON): orjson.dumps,
    (Kind.INT64, Kind.JSON): orjson.dumps,
    (Kind.TEXT, Kind.JSON): _text_to_json,
    (Kind.JSON, Kind.JSON_TEXT): lambda v: v,
}


def converter(have: Kind, want: Kind) -> Callable[[Any], Any] | None:
    """The exact conversion of one cell; it raises ValueError where a value has none.

    None where the kinds have no exact conversion at all.  Identity is a conversion.
    """
    if have == want:
        return lambda v: v
    return _CONVERSIONS.get((have, want))
