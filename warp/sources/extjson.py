"""BSON values as JSON text that PostgreSQL's jsonb takes: nothing illegal in it, nothing lost.

What JSON has stays plain JSON; the rest is canonical Extended JSON (`{"$oid": …}`).  Three values
that JSON seems to have are treated as "the rest", because orjson or jsonb would change them
without a word: NaN and the infinities (orjson writes null) and -0.0 (jsonb drops the sign).
NUL, which jsonb refuses with 22P05, becomes the visible U+2400 and is reported.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import repeat
from math import isfinite
from typing import Any, Final

import orjson
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - dates are decoded naive, in UTC
_MILLISECOND: Final = timedelta(milliseconds=1)

NUL_SEEN: Final = "\u2400"

# Subclasses go to `_rest`: Code is a str and Int64 an int, and both would pass unmarked.
OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)

# What makes a text that orjson wrote worth a second look.
_SUSPECTS: Final = (b"null", b"-0.0", b"\\u0000")


class Garbled(str):
    """Text whose bytes were not UTF-8, readable as far as possible.  `raw` is what was stored."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Garbled:
        text = super().__new__(cls, raw.decode("utf-8", "replace"))
        text.raw = raw
        return text


def milliseconds(value: datetime | DatetimeMS) -> int:
    """A date as BSON has it: milliseconds since 1970-01-01 UTC."""
    return int(value) if isinstance(value, DatetimeMS) else (value - EPOCH) // _MILLISECOND


def _binary(value: bytes, subtype: int) -> dict[str, Any]:
    text = base64.b64encode(value).decode("ascii")
    return {"$binary": {"base64": text, "subType": f"{subtype:02x}"}}


_FLAGS: Final = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (32, "u"), (64, "x"))


def _code(value: Code) -> dict[str, Any]:
    if value.scope is None:
        return {"$code": str(value)}
    return {"$code": str(value), "$scope": dict(value.scope)}


EXTENDED: Final[dict[type, Callable[[Any], Any]]] = {
    Int64: int,
    ObjectId: lambda v: {"$oid": str(v)},
    datetime: lambda v: {"$date": {"$numberLong": str(milliseconds(v))}},
    DatetimeMS: lambda v: {"$date": {"$numberLong": str(int(v))}},
    Decimal128: lambda v: {"$numberDecimal": str(v)},
    bytes: lambda v: _binary(v, 0),
    Binary: lambda v: _binary(v, v.subtype),
    Code: _code,
    Regex: lambda v: {
        "$regularExpression": {
            "pattern": v.pattern if isinstance(v.pattern, str) else v.pattern.decode("latin-1"),
            "options": "".join(letter for flag, letter in _FLAGS if v.flags & flag),
        }
    },
    Timestamp: lambda v: {"$timestamp": {"t": v.time, "i": v.inc}},
    MinKey: lambda _: {"$minKey": 1},
    MaxKey: lambda _: {"$maxKey": 1},
    DBRef: lambda v: dict(v.as_doc()),
    Garbled: str.__str__,
}


def _rest(value: Any) -> Any:
    """What orjson asks for a value JSON does not have."""
    convert = EXTENDED.get(type(value))
    if convert is None:
        raise TypeError(f"no JSON form is known for {type(value).__name__}")
    return convert(value)


def _quoted(text: str) -> str:
    return orjson.dumps(text.replace("\0", NUL_SEEN)).decode()


def _number(value: float) -> str:
    if not isfinite(value):
        name = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return f'{{"$numberDouble":"{name}"}}'
    if value == 0.0 and str(value)[0] == "-":
        return '{"$numberDouble":"-0.0"}'
    return repr(value)


def _verbatim(text: str) -> str:
    return orjson.dumps(text).decode()


def _careful(value: Any, quoted: Callable[[str], str] = _quoted) -> str:
    """The reference: slow, and right for every value.  The fast path must agree with it."""
    kind = type(value)
    if kind is str:
        return quoted(value)
    if kind is dict:
        fields = (f"{quoted(k)}:{_careful(v, quoted)}" for k, v in value.items())
        return "{" + ",".join(fields) + "}"
    if kind is list:
        return "[" + ",".join(_careful(v, quoted) for v in value) + "]"
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return _number(value)
    return _careful(_rest(value), quoted)


def to_json_text(value: Any) -> bytes:
    """One value as JSON text for a column that keeps text as it is: NUL is allowed there."""
    return _careful(value, _verbatim).encode()


def to_json(value: Any) -> bytes:
    """One value as JSON text."""
    return column_to_json([value])[0][0]


def column_to_json(values: Sequence[Any]) -> tuple[list[bytes], list[int]]:
    """Each value as JSON text, and the places of those in which NUL was replaced."""
    try:
        texts = list(map(orjson.dumps, values, repeat(_rest), repeat(OPTIONS)))
    except orjson.JSONEncodeError:  # nested deeper than orjson goes
        return [_careful(v).encode() for v in values], _with_nul(values, range(len(values)))
    everything = b"".join(texts)
    suspects = [mark for mark in _SUSPECTS if mark in everything]
    if not suspects:
        return texts, []
    places = [i for i, text in enumerate(texts) if any(mark in text for mark in suspects)]
    for i in places:
        texts[i] = _careful(values[i]).encode()
    if _SUSPECTS[2] not in suspects:
        return texts, []
    return texts, _with_nul(values, places)


def _with_nul(values: Sequence[Any], places: Sequence[int]) -> list[int]:
    return [i for i in places if _holds_nul(values[i])]


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_holds_nul, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return False


def tagged(value: Any) -> str:
    """JSON text of a value of any type such that two texts are equal exactly when the ids are.

    MongoDB takes 1, 1.0 and Decimal 1 for one id, and 1 and "1" for two; so numbers are written
    by their value and strings with their quotes.  A document keeps the order of its fields:
    {a, b} and {b, a} are two ids.
    """
    kind = type(value)
    if kind is str:
        return orjson.dumps(value).decode()  # NUL stays \u0000: this is text, not jsonb
    if kind is Garbled:
        return '{"$invalidUtf8":"' + base64.b64encode(value.raw).decode("ascii") + '"}'
    if kind is int or kind is Int64:
        return str(int(value))
    if kind is float or kind is Decimal128:
        return _tagged_number(value)
    if kind is dict:
        fields = (f"{orjson.dumps(k).decode()}:{tagged(v)}" for k, v in value.items())
        return "{" + ",".join(fields) + "}"
    if kind is list:
        return "[" + ",".join(map(tagged, value)) + "]"
    return _careful(value)


def _tagged_number(value: float | Decimal128) -> str:
    """By value: an integer as its digits; a double by its shortest text where that is exact."""
    exact = value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)
    if not exact.is_finite():
        name = "NaN" if exact.is_nan() else "Infinity" if exact > 0 else "-Infinity"
        return f'{{"$numberDouble":"{name}"}}'
    if exact.adjusted() > _LONGEST:  # 1E+6144 has 6145 digits
        return f'{{"$numberDecimal":"{_bare(exact)}"}}'
    if exact == 0:
        return "0"
    if exact.adjusted() >= 0 and int(exact) == exact:
        return str(int(exact))
    double = float(exact)
    if Decimal(double) != exact:
        return f'{{"$numberDecimal":"{_bare(exact)}"}}'
    shortest = repr(double)
    return shortest if Decimal(shortest) == exact else f'{{"$numberDouble":"{shortest}"}}'


_LONGEST: Final = 400  # digits; every double has fewer


def _bare(value: Decimal) -> str:
    """Without trailing zeros, whatever the precision of the context: 1.10 and 1.1 are one id."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):  # NaN and infinities were dealt with
        return str(value)
    text = "".join(map(str, digits))
    kept = text.rstrip("0") or "0"
    whole = tuple(map(int, kept))
    return str(Decimal((sign, whole, exponent + len(text) - len(kept))))
