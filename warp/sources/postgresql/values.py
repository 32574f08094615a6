"""The server's text of a value to its carrier, a column at a time.

The log and a snapshot both carry what the type's output function writes, and both come through
here, so that a row read twice is the same row.  What text depends on is set on every connection
(`session.SETTINGS`).  A value that its carrier cannot hold (`infinity`, a year 10000 as a date,
`24:00:00`) becomes Invalid with its text; it never fails the column.
"""

from __future__ import annotations

import json
import re
from array import array
from binascii import unhexlify
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final

from psycopg.postgres import types as pg_types

from warp.model import Cells, Invalid, Kind
from warp.native import Packed

if TYPE_CHECKING:
    from warp.native.postgresql import Taken

Raw = list[Any]
"""Cells as the server wrote them, with None and marks between them."""
Converter = Callable[[list[bytes]], list[Any]]

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock; an instant is read in UTC
_DAY: Final = 86_400_000_000
_SECOND: Final = 1_000_000
_MISREAD: Final = (ValueError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of one type are read."""

    kind: Kind
    read: Converter  # a whole column without NULLs; raises where one cell does not fit
    made_of: bool = False  # an array: only `read` knows how
    binary: bool = False  # the compiled reader knows the type's binary form too

    @property
    def compiled(self) -> Kind | None:
        """As the compiled reader takes such a column; None where it leaves it to `read`."""
        return None if self.made_of else self.kind


def column(codec: Codec, cells: Raw) -> list[Any]:
    """The column's carriers; what is no text (None, a mark) stays as it is."""
    types = set(map(type, cells))
    if types == {bytes}:
        return _read(codec, cells)
    if bytes not in types:
        return cells
    values = iter(_read(codec, [cell for cell in cells if type(cell) is bytes]))
    return [next(values) if type(cell) is bytes else cell for cell in cells]


def settled(codec: Codec, taken: Taken) -> Cells:
    """A column as the compiled reader gathered it, and what it left to be read here."""
    cells, odd = taken
    if not isinstance(cells, Packed):
        return column(codec, cells)
    if not odd:
        return cells
    return cells.replaced(dict(zip(odd, column(codec, list(odd.values())), strict=True)))


def _read(codec: Codec, cells: list[bytes]) -> list[Any]:
    try:
        return codec.read(cells)
    except _MISREAD:
        return [_one(codec, cell) for cell in cells]


def _one(codec: Codec, cell: bytes) -> Any:
    try:
        return codec.read([cell])[0]
    except _MISREAD:
        return Invalid(cell.decode("utf-8", "backslashreplace"))


# --- scalars -------------------------------------------------------------------------------------


def _bools(cells: list[bytes]) -> list[Any]:
    return [cell == b"t" for cell in cells]


def _ints(cells: list[bytes]) -> list[Any]:
    return list(map(int, cells))


def _floats(cells: list[bytes]) -> list[Any]:
    return list(map(float, cells))


def _singles(cells: list[bytes]) -> list[Any]:
    return array("f", map(float, cells)).tolist()


def _decimals(cells: list[bytes]) -> list[Any]:
    return list(map(Decimal, map(bytes.decode, cells)))


def _texts(cells: list[bytes]) -> list[Any]:
    return list(map(bytes.decode, cells))


def _bytes(cells: list[bytes]) -> list[Any]:
    return [unhexlify(cell[2:]) for cell in cells]  # \x…


def _uuids(cells: list[bytes]) -> list[Any]:
    return [unhexlify(cell.replace(b"-", b"")) for cell in cells]


def _dates(cells: list[bytes]) -> list[Any]:
    return list(map(date.fromisoformat, map(bytes.decode, cells)))


def _times(cells: list[bytes]) -> list[Any]:
    return [_time(cell) for cell in cells]


def _time(cell: bytes) -> int:
    if cell[:2] == b"24":  # the one time of day that only PostgreSQL has
        raise ValueError("24:00:00")
    whole = int(cell[:2]) * 3600 + int(cell[3:5]) * 60 + int(cell[6:8])
    return whole * _SECOND + int(cell[9:].ljust(6, b"0"))


def _moments(cells: list[bytes]) -> list[Any]:
    """Of `timestamp`: 2024-02-29 12:34:56.789"""
    return _read_moments(cells, None)


def _instants(cells: list[bytes]) -> list[Any]:
    """Of `timestamptz`: the same and +00, for every connection is set to UTC."""
    return _read_moments(cells, -3)


def _read_moments(cells: list[bytes], end: int | None) -> list[Any]:
    try:
        minute = _Minutes.known
        return [minute[c[:16]] + round(float(c[17:end]) * 1e6) for c in cells]
    except ValueError:  # beyond the years of Python's calendar, which the carrier is not
        return [_moment(cell.replace(b"+00", b"") if end else cell) for cell in cells]


class _Minutes(dict[bytes, int]):
    """Minutes as microseconds since 1970: neighbouring rows share them."""

    known: ClassVar[_Minutes]

    def __missing__(self, text: bytes) -> int:
        if len(self) > 10_000:
            self.clear()
        since = datetime.fromisoformat(text.decode()) - _EPOCH
        found = self[text] = since.days * _DAY + since.seconds * _SECOND
        return found


_Minutes.known = _Minutes()


_MOMENT: Final = re.compile(rb"(\d{4,})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)( BC)?")


def _moment(cell: bytes) -> int:
    found = _MOMENT.fullmatch(cell)
    if found is None:
        raise ValueError(cell)
    year = int(found[1])
    days = _days(1 - year if found[5] else year, int(found[2]), int(found[3]))
    return days * _DAY + _time(found[4])


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 in the Gregorian calendar, before its time and after Python's too."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


def _as_they_are(cells: list[bytes]) -> list[Any]:
    return cells


TEXT: Final = Codec(Kind.TEXT, _texts)
"""Of every type that no kind is made for: an interval, a range, an address, an enum."""

_STRING: Final = Codec(Kind.TEXT, _texts, binary=True)
"""Of the types whose binary form is their text."""

_SCALARS: Final[dict[str, Codec]] = {
    "text": TEXT,
    "varchar": TEXT,
    "bpchar": TEXT,
    "name": TEXT,
    "bool": Codec(Kind.BOOL, _bools),
    "int2": Codec(Kind.INT32, _ints),
    "int4": Codec(Kind.INT32, _ints),
    "int8": Codec(Kind.INT64, _ints),
    "oid": Codec(Kind.INT64, _ints),
    "float4": Codec(Kind.FLOAT32, _singles),
    "float8": Codec(Kind.FLOAT64, _floats),
    "numeric": Codec(Kind.DECIMAL, _decimals),
    "bytea": Codec(Kind.BYTES, _bytes),
    "uuid": Codec(Kind.UUID, _uuids),
    "date": Codec(Kind.DATE, _dates),
    "time": Codec(Kind.TIME, _times),
    "timestamp": Codec(Kind.DATETIME, _moments),
    "timestamptz": Codec(Kind.TIMESTAMP, _instants),
    "json": Codec(Kind.JSON_TEXT, _as_they_are),
    "jsonb": Codec(Kind.JSON, _as_they_are),
}


# --- arrays --------------------------------------------------------------------------------------

_PART: Final = re.compile(r'[{},]|"(?:[^"\\]|\\.)*"|[^{},"]+', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_NUMBERS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL})
_OTHER_DELIMITER: Final = frozenset({"box"})


def array_of(element: Codec) -> Codec:
    """An array as JSON: numbers, booleans and JSON as themselves, the rest as strings."""
    kind = Kind.JSON_TEXT if element.kind is Kind.JSON_TEXT else Kind.JSON

    def read(cells: list[bytes]) -> list[Any]:
        return [_array(cell.decode(), element.kind).encode() for cell in cells]

    return Codec(kind, read, made_of=True)


def _array(text: str, kind: Kind) -> str:
    if text.startswith("["):
        # It does not start at 1; JSON has no word for that, so it stays as it was written.
        return json.dumps(text, ensure_ascii=False)
    parts: list[str] = []
    for part in _PART.findall(text):
        if part in "{},":
            parts.append({"{": "[", "}": "]", ",": ","}[part])
        elif part[0] == '"':
            parts.append(_element(_ESCAPED.sub(r"\1", part[1:-1]), kind))
        else:
            parts.append("null" if part == "NULL" else _element(part, kind))
    return "".join(parts)


def _element(text: str, kind: Kind) -> str:
    if kind in _NUMBERS and _NUMBER.fullmatch(text):
        return text
    if kind is Kind.BOOL:
        return "true" if text == "t" else "false"
    if kind in (Kind.JSON, Kind.JSON_TEXT):
        return text
    return json.dumps(text, ensure_ascii=False)  # NaN and infinity among them


# --- back to text --------------------------------------------------------------------------------


def text_of(kind: Kind, cell: Any) -> str:
    """A carrier as the server reads it, for the keys of rows that are looked up."""
    if isinstance(cell, Invalid):
        return cell.text
    if kind is Kind.BYTES:
        return "\\x" + bytes(cell).hex()
    if kind is Kind.UUID:
        return bytes(cell).hex()
    if kind is Kind.TIME:
        return _clock(cell)
    if kind in (Kind.DATETIME, Kind.TIMESTAMP):
        days, micros = divmod(cell, _DAY)
        year, month, day = _civil(days)
        era = " BC" if year < 1 else ""
        zone = "+00" if kind is Kind.TIMESTAMP else ""
        date_ = f"{1 - year if year < 1 else year:04}-{month:02}-{day:02}"
        return f"{date_} {_clock(micros)}{zone}{era}"
    if isinstance(cell, bytes):
        return cell.decode()
    return str(cell)


def _clock(micros: int) -> str:
    seconds, fraction = divmod(micros, _SECOND)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}"


def _civil(days: int) -> tuple[int, int, int]:
    """The inverse of `_days`."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    return year_of_era + era * 400 + (month <= 2), month, day


# --- types ---------------------------------------------------------------------------------------


def _built_in() -> dict[int, Codec]:
    known: dict[int, Codec] = {}
    for each in pg_types:
        codec = _SCALARS.get(each.name)
        codec = TEXT if codec is None else replace(codec, binary=True)
        known[each.oid] = codec
        if each.array_oid and each.name not in _OTHER_DELIMITER:
            known[each.array_oid] = array_of(codec)
    return known


_BUILT_IN: Final = _built_in()


@dataclass(frozen=True, slots=True)
class UserType:
    """A row of pg_type, for a type that is not the server's own."""

    oid: int
    sort: str  # typtype: `d` domain, `e` enum, `c` composite, `r` range …
    base: int = 0  # of a domain
    element: int = 0  # of an array


class Types:
    """The types of one database: the server's own, and what was learned of the others."""

    def __init__(self) -> None:
        self._learned: dict[int, UserType] = {}

    def unknown(self, oids: Iterable[int]) -> set[int]:
        """Those that must be learned first, and of learned ones what they are made of."""
        wanted: set[int] = set()
        for oid in oids:
            if oid in _BUILT_IN:
                continue
            found = self._learned.get(oid)
            if found is None:
                wanted.add(oid)
            else:
                wanted |= self.unknown(part for part in (found.base, found.element) if part)
        return wanted

    def learn(self, types: Iterable[UserType]) -> None:
        self._learned.update((each.oid, each) for each in types)

    def codec(self, oid: int) -> Codec:
        """Text for what nobody knows (any more)."""
        known = _BUILT_IN.get(oid)
        if known is not None:
            return known
        found = self._learned.get(oid)
        if found is None:
            return TEXT
        if found.base:
            return self.codec(found.base)
        if found.sort == "e":
            return _STRING
        return array_of(self.codec(found.element)) if found.element else TEXT
