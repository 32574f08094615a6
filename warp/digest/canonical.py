"""One byte form for each value of a kind, and the hash of a row.  Pure.

Two rows are equal where their forms are; two engines that hold the same value give the same form,
whatever they print: numbers lose the zeros that say nothing, instants are counted, floats are their
bits.  NULL has a form that no value has, and free text its length before it, so no two rows run
together into one text.
"""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Any, Final

from warp import native
from warp.cells import listed
from warp.model import ABSENT, UNCHANGED, Cells, Column, Kind, TableSchema
from warp.native import Packed

HASH_BYTES: Final = 16
NULL: Final = "-,"
_MARK: Final = type(UNCHANGED)
_EPOCH_DAY: Final = dt.date(2000, 1, 1).toordinal()
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_DOUBLE: Final = struct.Struct(">d")
_SINGLE: Final = struct.Struct(">f")
_DAY: Final = struct.Struct(">i")
_LONG: Final = struct.Struct(">q")
_NAN: Final = "7ff8000000000000"
_NAN_SINGLE: Final = "7fc00000"

FREE_TEXT: Final = frozenset({Kind.TEXT, Kind.TAGGED, Kind.JSON, Kind.JSON_TEXT})
"""Kinds whose form may hold a comma; its length stands before it."""


_WHOLE_NUMBERS: Final = (Kind.INT32, Kind.INT64, Kind.DECIMAL)  # each holds those before it


def have_one_form(source: Kind | None, destination: Kind) -> bool:
    """Is every value of the one kind one of the other, of the same form?  So are whole numbers."""
    if source is destination:
        return True
    wider = _WHOLE_NUMBERS[_WHOLE_NUMBERS.index(source) + 1 :] if source in _WHOLE_NUMBERS else ()
    return destination in wider


def form(kind: Kind, value: Any) -> str | None:
    """The canonical text of one carrier; None for NULL, and for what is written as NULL."""
    if value is None or value is ABSENT:
        return None
    return FORMS[kind](value)


def of_form(kind: Kind, text: str | None) -> Any:
    """The carrier again.  A JSON form gives the JSON that it is, spelled as the form spells it."""
    return None if text is None else _CARRIERS[kind](text)


def row_texts(columns: Sequence[Column], cells: Sequence[Cells]) -> list[str]:
    """The texts that are hashed, one a row.  No cell may be UNCHANGED."""
    fields = [_fields(c.kind, column) for c, column in zip(columns, cells, strict=True)]
    return list(map("".join, zip(*fields, strict=True)))


def row_hashes(columns: Sequence[Column], cells: Sequence[Cells]) -> list[bytes]:
    """The first 128 bits of SHA-256 of each row's text."""
    if not native.active() or not any(isinstance(column, Packed) for column in cells):
        return list(map(hash_of, row_texts(columns, cells)))
    fields = [
        cells if isinstance(cells, Packed) and cells.kind is c.kind else _fields(c.kind, cells)
        for c, cells in zip(columns, cells, strict=True)
    ]
    texts = native.forms.row_texts(fields, lambda kind, value: _field(kind, FORMS[kind](value)))
    return [sha256(text).digest()[:HASH_BYTES] for text in texts]


def hash_of(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


def text_of_forms(columns: Sequence[Column], forms: Sequence[str | None]) -> str:
    """The text of one row whose forms are known already."""
    return "".join(_field(c.kind, text) for c, text in zip(columns, forms, strict=True))


def key_columns(schema: TableSchema) -> list[Column]:
    """The columns of the key, in the order of the key."""
    by_name = {column.name: column for column in schema.columns}
    return [by_name[name] for name in schema.key]


def _field(kind: Kind, text: str | None) -> str:
    if text is None:
        return NULL
    if kind in FREE_TEXT:
        return f"{len(text.encode('utf-8', 'surrogatepass'))}:{text},"
    return f"{text},"


def _fields(kind: Kind, cells: Cells) -> list[str]:
    made = FORMS[kind]
    values = listed(cells)
    if kind in FREE_TEXT:
        return [
            NULL if value is None or value is ABSENT else _field(kind, made(value))
            for value in values
        ]
    return [NULL if value is None or value is ABSENT else made(value) + "," for value in values]


# ---------------------------------------------------------------- the forms


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
    if not value:
        return "0"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _double(value: float) -> str:
    if value != value:
        return _NAN
    return _DOUBLE.pack(value or 0.0).hex()  # minus zero is zero


def _single(value: float) -> str:
    if value != value:
        return _NAN_SINGLE
    return _SINGLE.pack(value or 0.0).hex()


def _number(token: str) -> str:
    """A number in JSON as it is kept: all its digits, no exponent, no minus before zero."""
    if "e" in token or "E" in token:
        token = f"{Decimal(token):f}"
    return token[1:] if token[0] == "-" and not token.strip("-0.") else token


class _Number(str):
    __slots__ = ()


def json_form(text: bytes | str) -> str:
    """JSON as PostgreSQL prints a jsonb: names sorted by length, then by bytes; the last of two
    equal ones; numbers with all their digits; nothing escaped that need not be."""
    if native.active() and (form := native.forms.json_form(text)) is not None:
        return form
    return _spelled(_decode(text if isinstance(text, str) else text.decode()))


# Made once: `json.loads` would make one for each call.
_decode: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number
).decode


def _spelled(value: Any) -> str:
    kind = type(value)
    if kind is _Number:
        return _number(value)
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        named = [prefix + _spelled(value[name]) for name, prefix in _in_order(tuple(value))]
        return "{" + ", ".join(named) + "}"
    if kind is list:
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return "null" if value is None else "true" if value else "false"


@lru_cache(maxsize=1024)
def _in_order(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """The names of an object as they are printed, each with what stands before its value.

    Kept, because the documents of a table have few sets of names.
    """
    return [(name, encode_basestring(name) + ": ") for name in sorted(names, key=_by_length)]


def _by_length(name: str) -> tuple[int, bytes]:
    raw = name.encode("utf-8", "surrogatepass")
    return len(raw), raw


def _same(value: str) -> str:
    return value


FORMS: Final[Mapping[Kind, Callable[[Any], str]]] = {
    Kind.BOOL: lambda v: "t" if v else "f",
    Kind.INT32: str,
    Kind.INT64: str,
    Kind.FLOAT32: _single,
    Kind.FLOAT64: _double,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _same,
    Kind.BYTES: bytes.hex,
    Kind.UUID: bytes.hex,
    Kind.DATE: lambda v: _DAY.pack(v.toordinal() - _EPOCH_DAY).hex(),
    Kind.TIME: lambda v: _LONG.pack(v).hex(),
    Kind.DATETIME: lambda v: _LONG.pack(v - _EPOCH_US).hex(),
    Kind.TIMESTAMP: lambda v: _LONG.pack(v - _EPOCH_US).hex(),
    Kind.JSON: json_form,
    Kind.JSON_TEXT: lambda v: v.decode("utf-8", "surrogateescape"),
    Kind.OBJECTID: _same,
    Kind.TAGGED: _same,
}


def _count(unpack: struct.Struct) -> Callable[[str], int]:
    def read(text: str) -> int:
        (value,) = unpack.unpack(bytes.fromhex(text))
        return int(value)

    return read


_days, _longs = _count(_DAY), _count(_LONG)

_CARRIERS: Final[Mapping[Kind, Callable[[str], Any]]] = {
    Kind.BOOL: lambda t: t == "t",
    Kind.INT32: int,
    Kind.INT64: int,
    Kind.FLOAT32: lambda t: _SINGLE.unpack(bytes.fromhex(t))[0],
    Kind.FLOAT64: lambda t: _DOUBLE.unpack(bytes.fromhex(t))[0],
    Kind.DECIMAL: Decimal,
    Kind.TEXT: _same,
    Kind.BYTES: bytes.fromhex,
    Kind.UUID: bytes.fromhex,
    Kind.DATE: lambda t: dt.date.fromordinal(_days(t) + _EPOCH_DAY),
    Kind.TIME: _longs,
    Kind.DATETIME: lambda t: _longs(t) + _EPOCH_US,
    Kind.TIMESTAMP: lambda t: _longs(t) + _EPOCH_US,
    Kind.JSON: str.encode,
    Kind.JSON_TEXT: lambda t: t.encode("utf-8", "surrogateescape"),
    Kind.OBJECTID: _same,
    Kind.TAGGED: _same,
}


def forms_of(columns: Sequence[Column], cells: Sequence[Cells]) -> list[tuple[Any, ...]]:
    """The forms of each row; UNCHANGED stays what it is."""
    made = [
        [UNCHANGED if v is UNCHANGED else form(column.kind, v) for v in listed(values)]
        for column, values in zip(columns, cells, strict=True)
    ]
    return list(zip(*made, strict=True))
