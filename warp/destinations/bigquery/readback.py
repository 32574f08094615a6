"""What a query answers, as carriers again: exactly, and whatever somebody else has written.  Pure.

Each column is asked for in a form that every way of reading gives alike: numbers, texts, bytes.
BigQuery has no type of its own for some kinds (a UUID is a STRING there), so a cell may be none of
its column's kind.  That is a difference like any other, so it has a form too: a question mark and
hexadecimal digits, which no value of the kind has.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from warp.cells import listed
from warp.destinations.bigquery.names import quoted
from warp.destinations.bigquery.spelling import Spelled
from warp.digest import canonical
from warp.digest.comparing import Forms
from warp.model import Cells, Kind

_UNIX: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNIX_DAY: Final = _UNIX.toordinal()
_SINGLE: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")

_SELECTED: Final[Mapping[Kind, str]] = {
    Kind.DECIMAL: "CAST({x} AS STRING)",
    Kind.DATE: "UNIX_DATE({x})",
    Kind.TIME: "TIME_DIFF({x}, TIME '00:00:00', MICROSECOND)",
    Kind.DATETIME: "UNIX_MICROS(TIMESTAMP({x}))",
    Kind.TIMESTAMP: "UNIX_MICROS({x})",
}


def selected(one: Spelled) -> str:
    """The column as it is asked for."""
    cell = quoted(one.name)
    if one.type == "JSON":
        return f"IF({cell} IS NULL, NULL, TO_JSON_STRING({cell}))"
    return _SELECTED.get(one.column.kind, "{x}").format(x=cell)


# ---------------------------------------------------------------- JSON, whose numbers are changed

# Digits, a point and digits, an exponent; or more digits than 64 bits hold for certain.
_ODD_NUMBER: Final = re.compile(rb"\d[.eE]|\d{19}|-0")


def as_kept(text: bytes) -> bytes:
    """JSON with its numbers as a column of that type has them: whole ones of 64 bits, else doubles.

    A double that is a whole number is written as one, since nobody promises how BigQuery does.
    """
    if _ODD_NUMBER.search(text) is None:
        return text
    return json.dumps(_decode(text.decode())).encode()


def _number(token: str) -> int | float:
    value = float(token)
    return int(value) if value.is_integer() else value


def _whole(token: str) -> int | float:
    value = int(token) if len(token) < 25 else 1 << 64
    return value if -(1 << 63) <= value < 1 << 64 else _number(token)


_decode: Final = json.JSONDecoder(parse_float=_number, parse_int=_whole).decode


def kept(spelled: Sequence[Spelled], cells: Sequence[Cells]) -> list[Cells]:
    """Cells that were to be written, as they are there."""
    found = list(cells)
    for place, one in enumerate(spelled):
        if one.type == "JSON":
            found[place] = [
                as_kept(cell) if isinstance(cell, bytes) else cell for cell in listed(found[place])
            ]
    return found


# ---------------------------------------------------------------- cells that were read


class Alien:
    """A cell that is no value of its column's kind, by its form."""

    __slots__ = ("form",)

    def __init__(self, raw: bytes) -> None:
        self.form = f"?{raw.hex()}"


def carriers(one: Spelled, cells: Sequence[Any]) -> list[Any]:
    """A column of an answer as carriers, an Alien where a cell is none."""
    made = _made(one)
    if made is None:
        return list(cells)
    return [None if cell is None else made(cell) for cell in cells]


def _made(one: Spelled) -> Callable[[Any], Any] | None:
    if one.column.kind is Kind.JSON:
        return _json if one.type == "JSON" else _json_text
    return _CARRIERS.get(one.column.kind)


def _json(text: str) -> bytes:
    return as_kept(text.encode())


def _json_text(text: str) -> bytes | Alien:
    raw = text.encode()
    try:
        json.loads(raw)
    except ValueError:
        return Alien(raw)
    return raw


def _uuid(text: str) -> bytes | Alien:
    try:
        found = uuid.UUID(text)
    except ValueError:
        return Alien(text.encode())
    return found.bytes if str(found) == text else Alien(text.encode())


def _single(value: float) -> float | Alien:
    """Half of a double's digits would be taken for all of it."""
    if math.isfinite(value):
        try:
            same = _SINGLE.unpack(_SINGLE.pack(value))[0] == value
        except OverflowError:
            same = False
        if not same:
            return Alien(_DOUBLE.pack(value))
    return value


_CARRIERS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.DECIMAL: Decimal,
    Kind.DATE: lambda days: dt.date.fromordinal(days + _UNIX_DAY),
    Kind.JSON_TEXT: str.encode,
    Kind.UUID: _uuid,
    Kind.FLOAT32: _single,
}


def forms_of(spelled: Sequence[Spelled], cells: Sequence[Sequence[Any]]) -> list[Forms]:
    """As `canonical.forms_of`, of cells that were read."""
    made = [
        [v.form if type(v) is Alien else canonical.form(one.column.kind, v) for v in values]
        for one, values in zip(spelled, cells, strict=True)
    ]
    return list(zip(*made, strict=True))


def row_hashes(spelled: Sequence[Spelled], cells: Sequence[Sequence[Any]]) -> list[bytes]:
    """As `canonical.row_hashes`, of cells that were read."""
    columns = [one.column for one in spelled]
    odd = {
        row
        for one, values in zip(spelled, cells, strict=True)
        if one.column.kind in _MAY_BE_ALIEN
        for row, value in enumerate(values)
        if type(value) is Alien
    }
    if not odd:
        return canonical.row_hashes(columns, cells)
    hashes: list[bytes] = []
    for values in zip(*cells, strict=True):
        forms = forms_of(spelled, [[value] for value in values])[0]
        hashes.append(canonical.hash_of(canonical.text_of_forms(columns, forms)))
    return hashes


_MAY_BE_ALIEN: Final = frozenset({Kind.UUID, Kind.FLOAT32, Kind.JSON})


# ---------------------------------------------------------------- keys that are asked for


def bound(one: Spelled, cell: Any) -> tuple[str, Any]:
    """A carrier of a key as a parameter: its type, and what the client takes for a value."""
    kind = one.column.kind
    if cell is None:
        return one.type, None
    if kind in (Kind.DATETIME, Kind.TIMESTAMP):
        moment = _UNIX + dt.timedelta(microseconds=cell)
        return one.type, moment if kind is Kind.TIMESTAMP else moment.replace(tzinfo=None)
    if kind is Kind.TIME:
        return one.type, (_UNIX + dt.timedelta(microseconds=cell)).time()
    if kind is Kind.UUID:
        return one.type, str(uuid.UUID(bytes=cell))
    if kind in (Kind.JSON, Kind.JSON_TEXT):
        return one.type, cell.decode()
    return one.type, cell
