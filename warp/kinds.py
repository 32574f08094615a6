"""The type lattice: which kind holds the values of two, and exact conversions between them.  Pure.

Every pair of kinds has one relation, which `docs/types.md` lists.  A conversion here is exact or
refused: it never rounds, cuts or guesses.  What is done where it refuses, `warp.precedence` says.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from math import isfinite
from typing import Any, Final

import orjson

from warp.model import Kind

Convert = Callable[[Any], Any]
"""One cell; ValueError where it has no exact form."""

_DAY_US: Final = 86_400_000_000
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_DAYS_OF_400_YEARS: Final = 146_097
_SINGLE: Final = struct.Struct("<f")
LONGEST_NUMBER: Final = 1000  # digits: Decimal 1E+6144 would be a text of 6,145


class Relation(StrEnum):
    """How values of one kind get into a column of another."""

    SAME = "same"
    LOSSLESS = "lossless"  # every value has an exact form
    WIDER = "wider"  # the column is widened to a kind that holds both
    EXACT = "exact"  # a value that has an exact form gets it; for others the column is widened
    NARROWER = "narrower"  # another family of scalars: tried, else the column becomes text
    DRASTIC = "drastic"  # an object or array where a scalar was


# ---------------------------------------------------------------------------------------------
# The table of pairs

_WIDENED: Final[dict[tuple[Kind, Kind], Kind]] = {
    # (what comes, what the column is) -> what the column becomes
    (Kind.INT64, Kind.INT32): Kind.INT64,
    (Kind.DECIMAL, Kind.INT32): Kind.DECIMAL,
    (Kind.DECIMAL, Kind.INT64): Kind.DECIMAL,
    (Kind.FLOAT32, Kind.INT32): Kind.FLOAT64,
    (Kind.FLOAT64, Kind.INT32): Kind.FLOAT64,
    # No double holds every bigint, but a decimal holds every one of both.
    (Kind.FLOAT32, Kind.INT64): Kind.DECIMAL,
    (Kind.FLOAT64, Kind.INT64): Kind.DECIMAL,
    (Kind.INT32, Kind.FLOAT32): Kind.FLOAT64,
    (Kind.INT64, Kind.FLOAT32): Kind.DECIMAL,
    (Kind.INT64, Kind.FLOAT64): Kind.DECIMAL,
    (Kind.FLOAT64, Kind.FLOAT32): Kind.FLOAT64,
    (Kind.DECIMAL, Kind.FLOAT32): Kind.DECIMAL,
    (Kind.DECIMAL, Kind.FLOAT64): Kind.DECIMAL,
    (Kind.DATETIME, Kind.DATE): Kind.DATETIME,
    (Kind.TIMESTAMP, Kind.DATE): Kind.TIMESTAMP,
}

_JSON_KINDS: Final = (Kind.JSON, Kind.JSON_TEXT)

# Most of what comes has an exact form as the column is: it is not widened before one has not.
_EXACT_FIRST: Final = frozenset(
    {
        (Kind.INT32, Kind.FLOAT32),
        (Kind.INT64, Kind.FLOAT32),
        (Kind.INT64, Kind.FLOAT64),
    }
)


def relation(have: Kind, want: Kind) -> Relation:
    """How a value of kind `have` gets into a column of kind `want`."""
    if have is want:
        return Relation.SAME
    if (have, want) in _LOSSLESS:
        return Relation.LOSSLESS
    if (have, want) in _EXACT_FIRST:
        return Relation.EXACT
    if (have, want) in _WIDENED:
        return Relation.WIDER
    return Relation.DRASTIC if have in _JSON_KINDS else Relation.NARROWER


def widened(have: Kind, want: Kind) -> Kind | None:
    """The kind that a column of kind `want` becomes to hold every value of both; None: no such."""
    return _WIDENED.get((have, want))


def join(a: Kind, b: Kind) -> Kind:
    """The kind of a column, not yet made, for values of both.

    Kinds of different families meet in JSON, which keeps the type; text would lose it.
    """
    if a is b:
        return a
    pair = {a, b}
    if pair == {Kind.INT64, Kind.FLOAT64}:
        # Beyond 2**53 a float column cannot hold every int: such a cell does not fit it and
        # takes the path of any misfit.  As a decimal every double would be one.
        return Kind.FLOAT64
    if Kind.TAGGED in pair:
        return Kind.TAGGED
    for have, want in ((a, b), (b, a)):
        kind = _WIDENED.get((have, want))
        if kind is not None:
            return kind
    return Kind.JSON


def converter(have: Kind, want: Kind) -> Convert | None:
    """The exact conversion of one cell, which raises ValueError where a value has none.

    None where no value has an exact form.  Identity is a conversion.
    """
    if have is want:
        return _same
    found = _LOSSLESS.get((have, want))
    return found or _PARTIAL.get((have, want))


# ---------------------------------------------------------------------------------------------
# Text of every kind, much as PostgreSQL casts it: in a column that became text, the values that
# were there and those that come later look alike


def as_text(kind: Kind, value: Any) -> str:
    """The text that a column of kind TEXT gets for a value of any kind."""
    return _TEXTS[kind](value)


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        return "NaN" if value.is_nan() else str(value)
    short = abs(value.adjusted()) <= LONGEST_NUMBER and len(value.as_tuple().digits) <= 2_000
    return f"{value:f}" if short else str(value)


def _float_text(value: float) -> str:
    if not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    return text.removesuffix(".0")


def _date_text(value: dt.date) -> str:
    return value.isoformat()


def _time_text(value: int) -> str:
    seconds, fraction = divmod(value, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _datetime_text(value: int) -> str:
    day, time = divmod(value, _DAY_US)
    # Python knows the years 1 to 9999; the calendar repeats every 400 years.
    cycles, rest = divmod(day, _DAYS_OF_400_YEARS)
    date = dt.date(1970, 1, 1) + dt.timedelta(days=rest)
    year = date.year + 400 * cycles
    era = "" if year > 0 else " BC"
    year = year if year > 0 else 1 - year
    return f"{year:04}-{date.month:02}-{date.day:02} {_time_text(time)}{era}"


def _timestamp_text(value: int) -> str:
    text = _datetime_text(value)
    return f"{text.removesuffix(' BC')}+00{' BC' if text.endswith(' BC') else ''}"


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _same(value: Any) -> Any:
    return value


_TEXTS: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.BOOL: _bool_text,
    Kind.INT32: str,
    Kind.INT64: str,
    Kind.FLOAT32: lambda v: _single_text(v),
    Kind.FLOAT64: _float_text,
    Kind.DECIMAL: _decimal_text,
    Kind.TEXT: _same,
    Kind.BYTES: lambda v: "\\x" + v.hex(),
    Kind.UUID: lambda v: str(uuid.UUID(bytes=v)),
    Kind.DATE: _date_text,
    Kind.TIME: _time_text,
    Kind.DATETIME: _datetime_text,
    Kind.TIMESTAMP: _timestamp_text,
    Kind.JSON: lambda v: v.decode("utf-8", "replace"),
    Kind.JSON_TEXT: lambda v: v.decode("utf-8", "replace"),
    Kind.OBJECTID: _same,
    Kind.TAGGED: _same,
}


def _single_text(value: float) -> str:
    """The shortest text that names this 32-bit number: 0.1, not 0.10000000149011612."""
    if isfinite(value):
        for digits in range(6, 10):
            short = float(f"{value:.{digits}g}")
            if _SINGLE.pack(short) == _SINGLE.pack(value):
                return _float_text(short)
    return _float_text(value)


# ---------------------------------------------------------------------------------------------
# Conversions


def _int_to_float(value: int) -> float:
    converted = float(value)
    if int(converted) != value:
        raise ValueError(f"{value} has no exact double")
    return converted


def _to_single(value: float) -> float:
    try:
        exact = value != value or _SINGLE.unpack(_SINGLE.pack(value))[0] == value
    except OverflowError:
        exact = False
    if not exact:
        raise ValueError(f"{value!r} has no exact 32-bit form")
    return value


def _float_to_int(lowest: int, highest: int) -> Callable[[float | Decimal], int]:
    def convert(value: float | Decimal) -> int:
        try:
            whole = int(value)
        except (OverflowError, ValueError):  # infinities, NaN
            raise ValueError(f"{value} is no integer") from None
        if whole != value or not lowest <= whole <= highest:
            raise ValueError(f"{value} is no integer from {lowest} to {highest}")
        return whole

    return convert


def _in_range(lowest: int, highest: int) -> Convert:
    def convert(value: int) -> int:
        if not lowest <= value <= highest:
            raise ValueError(f"{value} is not from {lowest} to {highest}")
        return value

    return convert


_INT32: Final = (-(2**31), 2**31 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)


def _decimal_to_float(value: Decimal) -> float:
    converted = float(value)
    # By its shortest text, as a double becomes a decimal: 0.1 is 0.1 both ways.
    if value.is_nan() or Decimal(repr(converted)) == value or Decimal(converted) == value:
        return converted
    raise ValueError(f"{value} has no exact double")


def _decimal_to_single(value: Decimal) -> float:
    return _parsed_single(str(value)) if value.is_finite() else float(value)


def _float_to_decimal(value: float) -> Decimal:
    # The shortest text of a double names that double and no other; its exact digits would be
    # 0.1000000000000000055511151231257827 for 0.1.
    return Decimal(repr(value))


def _date_to_microseconds(value: dt.date) -> int:
    return (value.toordinal() - _EPOCH) * _DAY_US


def _microseconds_to_date(value: int) -> dt.date:
    day, time = divmod(value, _DAY_US)
    if time:
        raise ValueError(f"{_datetime_text(value)} is no midnight")
    try:
        return dt.date.fromordinal(day + _EPOCH)
    except (ValueError, OverflowError):
        raise ValueError(f"{_datetime_text(value)} is out of the years 1 to 9999") from None


def _number_to_bool(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError(f"{value} is neither 0 nor 1")
    return bool(value)


def _sixteen_bytes(value: bytes) -> bytes:
    if len(value) != 16:
        raise ValueError(f"{len(value)} bytes are no UUID, which has 16")
    return value


def _text_to_json(value: str) -> bytes:
    return orjson.dumps(value.replace("\0", "\u2400"))


def _float_to_json(value: float) -> bytes:
    if isfinite(value):
        return repr(value).encode()
    return b'{"$numberDouble":"' + _float_text(value).encode() + b'"}'


def _decimal_to_json(value: Decimal) -> bytes:
    text = _decimal_text(value)
    if value.is_finite() and "E" not in text:
        return text.encode()
    return b'{"$numberDecimal":"' + text.encode() + b'"}'


def _bytes_to_json(value: bytes) -> bytes:
    return b'{"$binary":{"base64":"' + base64.b64encode(value) + b'","subType":"00"}}'


def _quoted(kind: Kind) -> Convert:
    def convert(value: Any) -> bytes:
        return orjson.dumps(as_text(kind, value))

    return convert


_JSONS: Final[dict[Kind, Convert]] = {
    Kind.BOOL: orjson.dumps,
    Kind.INT32: orjson.dumps,
    Kind.INT64: orjson.dumps,
    Kind.FLOAT32: _float_to_json,
    Kind.FLOAT64: _float_to_json,
    Kind.DECIMAL: _decimal_to_json,
    Kind.TEXT: _text_to_json,
    Kind.BYTES: _bytes_to_json,
    Kind.UUID: _quoted(Kind.UUID),
    Kind.DATE: _quoted(Kind.DATE),
    Kind.TIME: _quoted(Kind.TIME),
    Kind.DATETIME: _quoted(Kind.DATETIME),
    Kind.TIMESTAMP: _quoted(Kind.TIMESTAMP),
    Kind.OBJECTID: lambda v: b'{"$oid":"' + v.encode() + b'"}',
    Kind.TAGGED: lambda v: v.replace("\\u0000", "\\u2400").encode(),
}


def _tagged(kind: Kind) -> Convert:
    if kind in _JSON_KINDS:
        return _TEXTS[kind]
    return lambda v: _JSONS[kind](v).decode()


def _parsed(pattern: str, make: Callable[[str], Any]) -> Convert:
    compiled = re.compile(pattern)

    def convert(value: str) -> Any:
        text = value.strip()
        if not compiled.fullmatch(text):
            raise ValueError(f"{value[:40]!r} does not read as one")
        return make(text)

    return convert


def _parsed_decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is no number") from None
    if abs(value.adjusted()) > LONGEST_NUMBER:
        raise ValueError(f"{text[:40]!r} is out of range")
    return value


def _parsed_float(text: str) -> float:
    value = float(text)
    if not isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise ValueError(f"{text[:40]!r} has no exact double")
    return value


def _parsed_single(text: str) -> float:
    try:
        (value,) = _SINGLE.unpack(_SINGLE.pack(float(text)))
    except OverflowError:
        value = float("inf")
    if not isfinite(value) or Decimal(text) not in (Decimal(_single_text(value)), Decimal(value)):
        raise ValueError(f"{text[:40]!r} has no exact 32-bit form")
    return float(value)


def _parsed_datetime(text: str) -> int:
    value = dt.datetime.fromisoformat(text)
    if value.tzinfo is not None:
        raise ValueError(f"{text[:40]!r} names a zone")
    return _microseconds(value.replace(tzinfo=dt.UTC))


def _parsed_timestamp(text: str) -> int:
    value = dt.datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"{text[:40]!r} names no zone")
    return _microseconds(value)


def _microseconds(value: dt.datetime) -> int:
    return (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


_WHOLE_NUMBER: Final = r"[-+]?[0-9]{1,30}"
_NUMBER: Final = r"[-+]?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,4})?"
_DAY: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT: Final = _DAY + r"[T ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?"

_LOSSLESS: Final[dict[tuple[Kind, Kind], Convert]] = {
    (Kind.INT32, Kind.INT64): _same,
    (Kind.INT32, Kind.DECIMAL): Decimal,
    (Kind.INT64, Kind.DECIMAL): Decimal,
    (Kind.INT32, Kind.FLOAT64): float,
    (Kind.FLOAT32, Kind.FLOAT64): _same,
    (Kind.FLOAT32, Kind.DECIMAL): lambda v: Decimal(_single_text(v)),
    (Kind.FLOAT64, Kind.DECIMAL): _float_to_decimal,
    (Kind.DATE, Kind.DATETIME): _date_to_microseconds,
    (Kind.DATE, Kind.TIMESTAMP): _date_to_microseconds,
    (Kind.UUID, Kind.BYTES): _same,
    **{(kind, Kind.TEXT): text for kind, text in _TEXTS.items() if kind is not Kind.TEXT},
    **{(kind, json): convert for kind, convert in _JSONS.items() for json in _JSON_KINDS},
    (Kind.JSON, Kind.JSON_TEXT): _same,
    (Kind.JSON_TEXT, Kind.JSON): lambda v: v.replace(b"\\u0000", "\u2400".encode()),
    **{(kind, Kind.TAGGED): _tagged(kind) for kind in Kind if kind is not Kind.TAGGED},
}

# Conversions that some values have.
_PARTIAL: Final[dict[tuple[Kind, Kind], Convert]] = {
    (Kind.INT64, Kind.INT32): _in_range(*_INT32),
    (Kind.INT32, Kind.FLOAT32): lambda v: _to_single(float(v)),
    (Kind.INT64, Kind.FLOAT32): lambda v: _to_single(_int_to_float(v)),
    (Kind.INT64, Kind.FLOAT64): _int_to_float,
    (Kind.FLOAT32, Kind.INT32): _float_to_int(*_INT32),
    (Kind.FLOAT64, Kind.INT32): _float_to_int(*_INT32),
    (Kind.DECIMAL, Kind.INT32): _float_to_int(*_INT32),
    (Kind.FLOAT32, Kind.INT64): _float_to_int(*_INT64),
    (Kind.FLOAT64, Kind.INT64): _float_to_int(*_INT64),
    (Kind.DECIMAL, Kind.INT64): _float_to_int(*_INT64),
    (Kind.FLOAT64, Kind.FLOAT32): _to_single,
    (Kind.DECIMAL, Kind.FLOAT32): _decimal_to_single,
    (Kind.DECIMAL, Kind.FLOAT64): _decimal_to_float,
    (Kind.DATETIME, Kind.DATE): _microseconds_to_date,
    (Kind.TIMESTAMP, Kind.DATE): _microseconds_to_date,
    (Kind.BYTES, Kind.UUID): _sixteen_bytes,
    **{(Kind.BOOL, kind): int for kind in (Kind.INT32, Kind.INT64)},
    (Kind.BOOL, Kind.FLOAT32): float,
    (Kind.BOOL, Kind.FLOAT64): float,
    (Kind.BOOL, Kind.DECIMAL): lambda v: Decimal(int(v)),
    **{
        (kind, Kind.BOOL): _number_to_bool
        for kind in (Kind.INT32, Kind.INT64, Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL)
    },
    (Kind.TEXT, Kind.BOOL): _parsed("(?i:true|false)", lambda t: t.lower() == "true"),
    (Kind.TEXT, Kind.INT32): _parsed(_WHOLE_NUMBER, lambda t: _in_range(*_INT32)(int(t))),
    (Kind.TEXT, Kind.INT64): _parsed(_WHOLE_NUMBER, lambda t: _in_range(*_INT64)(int(t))),
    (Kind.TEXT, Kind.FLOAT32): _parsed(_NUMBER, _parsed_single),
    (Kind.TEXT, Kind.FLOAT64): _parsed(_NUMBER, _parsed_float),
    (Kind.TEXT, Kind.DECIMAL): _parsed(_NUMBER, _parsed_decimal),
    (Kind.TEXT, Kind.UUID): _parsed(
        "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", lambda t: uuid.UUID(t).bytes
    ),
    (Kind.TEXT, Kind.DATE): _parsed(_DAY, dt.date.fromisoformat),
    (Kind.TEXT, Kind.TIME): _parsed(
        "[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?",
        lambda t: _parsed_datetime(f"1970-01-01 {t}"),
    ),
    (Kind.TEXT, Kind.DATETIME): _parsed(_MOMENT, _parsed_datetime),
    (Kind.TEXT, Kind.TIMESTAMP): _parsed(
        _MOMENT + "(Z|[-+][0-9]{2}(:[0-9]{2})?)", _parsed_timestamp
    ),
    (Kind.TEXT, Kind.OBJECTID): _parsed("[0-9a-f]{24}", _same),
    (Kind.OBJECTID, Kind.BYTES): bytes.fromhex,
}
