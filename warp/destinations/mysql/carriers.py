"""How this destination spells each kind, and cells as the texts that the server reads them from."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from warp.cells import listed
from warp.destinations.mysql.errors import NotAsSent
from warp.model import UNCHANGED, Cells, Column, Kind, TableSchema

TYPES: Final[Mapping[Kind, str]] = {
    Kind.BOOL: "tinyint(1)",
    Kind.INT32: "int",
    Kind.INT64: "bigint",
    Kind.FLOAT32: "float",
    Kind.FLOAT64: "double",
    Kind.DECIMAL: "decimal(65,30)",
    Kind.TEXT: "longtext",
    Kind.BYTES: "longblob",
    Kind.UUID: "binary(16)",
    Kind.DATE: "date",
    Kind.TIME: "time(6)",
    # TIMESTAMP ends in 2038, and reads differently in each session's time zone.
    Kind.DATETIME: "datetime(6)",
    Kind.TIMESTAMP: "datetime(6)",
    # MySQL's own JSON makes doubles of all numbers beyond 64 bits and of all with a point.
    Kind.JSON: "longtext",
    Kind.JSON_TEXT: "longtext",
    Kind.OBJECTID: "char(24)",
    Kind.TAGGED: "longtext",
}
"""The type of a column that is in no key."""

TEXTS: Final = frozenset({Kind.TEXT, Kind.TAGGED, Kind.JSON, Kind.JSON_TEXT})
IN_HEX: Final = frozenset({Kind.BYTES, Kind.UUID})
_ESCAPED: Final = frozenset({*TEXTS, Kind.OBJECTID})
_BARE_NUMBERS: Final = frozenset({Kind.BOOL, Kind.INT32, Kind.INT64})

MOST_DIGITS: Final = 65  # of a DECIMAL
MOST_SCALE: Final = 30  # of them after the point
MOST_KEY_BYTES: Final = 3072  # of an index; a character is four bytes of it
_KEY_BYTES: Final[Mapping[Kind, int]] = {
    Kind.BOOL: 1,
    Kind.INT32: 4,
    Kind.INT64: 8,
    Kind.FLOAT32: 4,
    Kind.FLOAT64: 8,
    Kind.DECIMAL: 30,
    Kind.UUID: 16,
    Kind.DATE: 3,
    Kind.TIME: 6,
    Kind.DATETIME: 8,
    Kind.TIMESTAMP: 8,
    Kind.OBJECTID: 24,
}


def key_bytes(schema: TableSchema) -> int:
    """How many bytes of the index each text or binary column of the key may have; 0: too few."""
    kinds = [column.kind for column in schema.columns if column.name in schema.key]
    sized = [kind for kind in kinds if kind not in _KEY_BYTES]
    left = MOST_KEY_BYTES - sum(_KEY_BYTES.get(kind, 0) for kind in kinds)
    return max(0, left // len(sized)) if sized else MOST_KEY_BYTES


def spelled(kind: Kind, collation: str, *, key: int = 0) -> str:
    """The type of a column; `key` bytes of it at most where it is in the key."""
    if kind is Kind.OBJECTID:
        return "char(24) character set ascii collate ascii_bin"
    type_ = TYPES[kind]
    if key and kind is Kind.BYTES:
        type_ = f"varbinary({key})"
    elif kind in TEXTS:
        if key:
            type_ = f"varchar({key // 4})"
        type_ += f" character set utf8mb4 collate {collation}"
    return type_


@dataclass(frozen=True, slots=True)
class ServerColumn:
    """A column as the server has it."""

    name: str
    type: str  # the type's name alone
    spelled: str  # with its length and sign
    characters: int | None
    precision: int | None
    scale: int | None
    charset: str | None
    collation: str | None
    nullable: bool
    has_default: bool
    extra: str
    fraction: int | None  # digits of a second

    @property
    def generated(self) -> bool:
        return "GENERATED" in self.extra.upper().replace("DEFAULT_GENERATED", "")


_SAME: Final[Mapping[str, Kind]] = {
    "smallint": Kind.INT32,
    "mediumint": Kind.INT32,
    "int": Kind.INT32,
    "year": Kind.INT32,
    "bigint": Kind.INT64,
    "float": Kind.FLOAT32,
    "double": Kind.FLOAT64,
    "decimal": Kind.DECIMAL,
    "char": Kind.TEXT,
    "varchar": Kind.TEXT,
    "tinytext": Kind.TEXT,
    "text": Kind.TEXT,
    "mediumtext": Kind.TEXT,
    "longtext": Kind.TEXT,
    "enum": Kind.TEXT,
    "set": Kind.TEXT,
    "varbinary": Kind.BYTES,
    "tinyblob": Kind.BYTES,
    "blob": Kind.BYTES,
    "mediumblob": Kind.BYTES,
    "longblob": Kind.BYTES,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "datetime": Kind.DATETIME,
    "timestamp": Kind.TIMESTAMP,
    "json": Kind.JSON,
}
_AS: Final[Mapping[Kind, frozenset[Kind]]] = {
    Kind.TEXT: frozenset({Kind.TEXT, Kind.OBJECTID, Kind.TAGGED, Kind.JSON, Kind.JSON_TEXT}),
    Kind.JSON: frozenset({Kind.JSON, Kind.JSON_TEXT}),
    Kind.DATETIME: frozenset({Kind.DATETIME, Kind.TIMESTAMP}),
}
"""Kinds that are told apart by the registry alone."""


def kind_there(there: ServerColumn, wanted: Kind) -> Kind | None:
    """The kind of a column that is there, `wanted` where it can be; None: we cannot write it."""
    kind = _SAME.get(there.type)
    if there.type == "tinyint":
        kind = Kind.BOOL if there.spelled.startswith("tinyint(1)") else Kind.INT32
    elif there.type == "binary":
        # Shorter values would be filled up with zeros.
        kind = Kind.UUID if wanted is Kind.UUID and there.characters == 16 else None
    elif there.type in ("float", "double") and there.scale is not None:
        kind = None  # float(7,2) rounds
    if kind is None or there.generated:
        return None
    if there.type in ("enum", "set") and wanted is not Kind.TEXT:
        return None
    if kind is Kind.JSON and wanted in TEXTS - {Kind.JSON_TEXT}:
        return Kind.JSON
    return wanted if wanted in _AS.get(kind, frozenset({kind})) else kind


def limits(there: ServerColumn, kind: Kind) -> tuple[int | None, int | None]:
    """The limit and scale of `warp.model.Column`; for times the digits of a second."""
    if kind is Kind.DECIMAL:
        return there.precision, there.scale
    if kind in (Kind.TIME, Kind.DATETIME, Kind.TIMESTAMP):
        return None, None if there.fraction in (None, 6) else there.fraction
    if kind in (Kind.TEXT, Kind.TAGGED) and there.type not in ("longtext", "enum", "set"):
        return there.characters, None
    return None, None


_MARK: Final = type(UNCHANGED)
_NONE: Final = type(None)


# ---------------------------------------------------------------------------------------------
# Texts

_MINUTES: Final = [f"{minute // 60:02}:{minute % 60:02}:" for minute in range(1440)]
_SECONDS: Final = [f"{second:02}." for second in range(60)]
_DAY: Final = 86_400_000_000  # microseconds
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_FIRST: Final = 1 - _EPOCH  # days
_LAST: Final = dt.date.max.toordinal() - _EPOCH
FIRST_INSTANT: Final = _FIRST * _DAY
LAST_INSTANT: Final = (_LAST + 1) * _DAY - 1


def texts(column: Column, cells: Cells) -> list[str | None]:
    """The cells as the server reads them, without any quoting; hexadecimal those of `IN_HEX`.

    NotAsSent where a value has no form there: no server of this family knows NaN, infinity or a
    year beyond 9999.
    """
    write = _WRITERS.get(column.kind)
    values: list[Any] = cells if isinstance(cells, list) else listed(cells)
    types = set(map(type, values))
    if _MARK in types:
        values = [None if type(cell) is _MARK else cell for cell in values]
    if column.scale is not None and column.kind is not Kind.DECIMAL:
        _must_be_whole(column.scale, values)
    if write is None:
        return values
    if _MARK in types or _NONE in types:
        return [None if cell is None else write(cell) for cell in values]
    return [write(cell) for cell in values]


def _must_be_whole(digits: int, values: Sequence[Any]) -> None:
    """A column that somebody made with fewer digits of a second would round them off."""
    step = 10 ** (6 - digits)
    for value in values:
        if value is not None and value % step:
            raise NotAsSent(1292, f"a time with more than {digits} digits of a second")


def _bool(value: bool) -> str:
    return "1" if value else "0"


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise NotAsSent(1264, f"{value} is no number that this server knows")
    return repr(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise NotAsSent(1264, f"{value} is no number that this server knows")
    return f"{value:f}"


def _time(value: int) -> str:
    seconds, micros = divmod(value, 1_000_000)
    return f"{_MINUTES[seconds // 60]}{_SECONDS[seconds % 60]}{micros:06}"


def _instant(value: int) -> str:
    days, rest = divmod(value, _DAY)
    if not _FIRST <= days <= _LAST:
        raise NotAsSent(1292, f"a time {days} days from 1970, beyond the years 1 to 9999")
    day = _DAYS.get(days) or _day(days)
    seconds, micros = divmod(rest, 1_000_000)
    return f"{day}{_MINUTES[seconds // 60]}{_SECONDS[seconds % 60]}{micros:06}"


_DAYS: Final[dict[int, str]] = {}


def _day(days: int) -> str:
    if len(_DAYS) > 10_000:
        _DAYS.clear()
    _DAYS[days] = text = f"{dt.date.fromordinal(days + _EPOCH).isoformat()} "
    return text


_WRITERS: Final[Mapping[Kind, Callable[[Any], str]]] = {
    Kind.BOOL: _bool,
    Kind.INT32: str,
    Kind.INT64: str,
    Kind.FLOAT32: _float,
    Kind.FLOAT64: _float,
    Kind.DECIMAL: _decimal,
    Kind.BYTES: bytes.hex,
    Kind.UUID: bytes.hex,
    Kind.DATE: dt.date.isoformat,
    Kind.TIME: _time,
    Kind.DATETIME: _instant,
    Kind.TIMESTAMP: _instant,
    Kind.JSON: bytes.decode,
    Kind.JSON_TEXT: bytes.decode,
}


def must_escape(kind: Kind) -> bool:
    return kind in _ESCAPED


def is_bare(kind: Kind) -> bool:
    """Needs no quotes in a statement."""
    return kind in _BARE_NUMBERS
