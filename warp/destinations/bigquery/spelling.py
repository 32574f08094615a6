"""How BigQuery spells each kind, what a staged cell is, and how it becomes the column's.  Pure.

A Parquet file carries what it carries exactly on every reader: numbers, texts, bytes, dates and
instants.  A decimal, a wall clock's time and JSON go as text or as microseconds, and the statement
that merges them makes them what they are.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from warp.cells import listed
from warp.model import UNCHANGED, Cells, Column, Kind

_MARK: Final = type(UNCHANGED)

TYPES: Final[dict[Kind, str]] = {
    Kind.BOOL: "BOOL",
    Kind.INT32: "INT64",
    Kind.INT64: "INT64",
    Kind.FLOAT32: "FLOAT64",
    Kind.FLOAT64: "FLOAT64",
    Kind.DECIMAL: "BIGNUMERIC",
    Kind.TEXT: "STRING",
    Kind.BYTES: "BYTES",
    Kind.UUID: "STRING",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.DATETIME: "DATETIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.JSON: "JSON",
    Kind.JSON_TEXT: "STRING",
    Kind.OBJECTID: "STRING",
    Kind.TAGGED: "STRING",
}

KINDS: Final[dict[str, Kind]] = {
    "BOOL": Kind.BOOL,
    "BOOLEAN": Kind.BOOL,
    "INT64": Kind.INT64,
    "INTEGER": Kind.INT64,
    "FLOAT64": Kind.FLOAT64,
    "FLOAT": Kind.FLOAT64,
    "NUMERIC": Kind.DECIMAL,
    "BIGNUMERIC": Kind.DECIMAL,
    "STRING": Kind.TEXT,
    "BYTES": Kind.BYTES,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    "DATETIME": Kind.DATETIME,
    "TIMESTAMP": Kind.TIMESTAMP,
    "JSON": Kind.JSON,
}
"""The kind of a column that somebody else made."""

DIGITS: Final[dict[str, tuple[int, int]]] = {"NUMERIC": (38, 9), "BIGNUMERIC": (76, 38)}
"""Of a decimal type: digits in all, and after the point.  BIGNUMERIC holds a part of a 77th, which
we leave alone."""

TEXTS: Final = frozenset({Kind.TEXT, Kind.OBJECTID, Kind.TAGGED, Kind.UUID, Kind.JSON_TEXT})
"""Kinds that a STRING holds as they are."""

# In place, and harmless when done again by somebody late: only what ALTER COLUMN can do.
WIDENED_IN_PLACE: Final = frozenset(
    {
        ("INT64", "NUMERIC"),
        ("INT64", "BIGNUMERIC"),
        ("INT64", "FLOAT64"),
        ("NUMERIC", "BIGNUMERIC"),
        ("NUMERIC", "FLOAT64"),
    }
)
CLUSTERABLE: Final = frozenset(
    {"BIGNUMERIC", "BOOL", "DATE", "DATETIME", "INT64", "NUMERIC", "STRING", "TIMESTAMP"}
)
PARTITIONABLE: Final = frozenset({"DATE", "DATETIME", "TIMESTAMP"})

_FIRST: Final = -62_135_596_800_000_000  # microseconds: 0001-01-01
_LAST: Final = 253_402_300_799_999_999  # 9999-12-31 23:59:59.999999


@dataclass(frozen=True, slots=True)
class Spelled:
    """A column as the table has it: its name and type there."""

    column: Column
    name: str
    type: str

    @property
    def staged_type(self) -> str:
        """The type of its cells in the staging table."""
        if self.column.kind in _AS_TEXT:
            return "STRING"
        return _AS_NUMBER.get(self.column.kind, self.type)

    def landed(self, cell: str) -> str:
        """A staged cell as the column takes it."""
        kind = self.column.kind
        if kind is Kind.DECIMAL:
            return f"CAST({cell} AS {self.type})"
        if kind is Kind.DATETIME:
            return f"DATETIME(TIMESTAMP_MICROS({cell}))"
        if kind is Kind.JSON and self.type == "JSON":
            return f"PARSE_JSON({cell}, wide_number_mode=>'round')"
        return cell


_AS_TEXT: Final = frozenset({Kind.DECIMAL, Kind.JSON, Kind.JSON_TEXT, Kind.UUID})
_AS_NUMBER: Final = {Kind.DATETIME: "INT64"}


def spelled(column: Column, name: str, *, decimal: str, json: str) -> Spelled:
    """A column of a table that we make."""
    kind = column.kind
    type_ = decimal if kind is Kind.DECIMAL else json if kind is Kind.JSON else TYPES[kind]
    return Spelled(limited(column, type_), name, type_)


def limited(column: Column, type_: str) -> Column:
    """With the limits of the type: no wider decimal exists here."""
    digits = DIGITS.get(type_) if column.kind is Kind.DECIMAL else None
    if digits is None:
        return column
    return replace(column, limit=digits[0], scale=digits[1])


def staged(kind: Kind, cells: Cells) -> list[Any]:
    """Cells of a column as Parquet takes them; None for what holds no value."""
    values = [None if type(cell) is _MARK else cell for cell in listed(cells)]
    convert = _CONVERTED.get(kind)
    if convert is None:
        return values
    return [None if value is None else convert(value) for value in values]


def unfit(kind: Kind, cells: Sequence[Any]) -> Mapping[int, str]:
    """Rows whose cell no column of this kind could hold here, and why."""
    look = _LOOKS.get(kind)
    if look is None:
        return {}
    return {
        row: why
        for row, cell in enumerate(cells)
        if cell is not None and type(cell) is not _MARK and (why := look(cell))
    }


def _decimal(value: Decimal) -> str:
    return f"{value:f}"


def _text(value: bytes) -> str:
    return value.decode("utf-8")


_CONVERTED: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.DECIMAL: _decimal,
    Kind.UUID: lambda value: str(uuid.UUID(bytes=value)),
    Kind.JSON: _text,
    Kind.JSON_TEXT: _text,
}


def _no_decimal(value: Decimal) -> str:
    if not value.is_finite():
        return f"{value} is no number that BigQuery's decimals have"
    _, digits, exponent = value.as_tuple()
    scale = max(0, -int(exponent))
    whole = len(digits) + int(exponent)
    if scale > 38 or whole > 38:
        return f"{len(digits)} digits do not fit into BIGNUMERIC, which has 38 and 38"
    return ""


def _no_moment(value: int) -> str:
    return "" if _FIRST <= value <= _LAST else "out of the years 1 to 9999"


def _no_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair, which UTF-8 has no form for"
    return ""


def _no_json(value: bytes) -> str:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    return ""


_LOOKS: Final[dict[Kind, Callable[[Any], str]]] = {
    Kind.DECIMAL: _no_decimal,
    Kind.DATETIME: _no_moment,
    Kind.TIMESTAMP: _no_moment,
    Kind.TEXT: _no_text,
    Kind.TAGGED: _no_text,
    Kind.JSON: _no_json,
    Kind.JSON_TEXT: _no_json,
}


def read(kind: Kind, value: Any) -> Any:
    """What a query answers, as the carrier of its kind; for keys that are read back."""
    if value is None:
        return None
    if kind is Kind.UUID:
        return uuid.UUID(value).bytes
    if kind in (Kind.TIMESTAMP, Kind.DATETIME) and isinstance(value, dt.datetime):
        known = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return (known - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    if kind in (Kind.FLOAT32, Kind.FLOAT64):
        return float(value) if not isinstance(value, float) or not math.isnan(value) else value
    return value
