"""Columns as a table declares them: their kind, and their cells out of Arrow.

A column is converted whole; only what is nested is looked at value by value, since it becomes JSON.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Context, Decimal
from math import isfinite
from typing import Any, Final

import orjson
import pyarrow as pa
from google.cloud.bigquery import SchemaField

from warp.model import Cells, Invalid, Kind

_KINDS: Final[dict[str, Kind]] = {
    "BOOL": Kind.BOOL,
    "INT64": Kind.INT64,
    "FLOAT64": Kind.FLOAT64,
    "NUMERIC": Kind.DECIMAL,
    "BIGNUMERIC": Kind.DECIMAL,
    "STRING": Kind.TEXT,
    "BYTES": Kind.BYTES,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    "DATETIME": Kind.DATETIME,
    "TIMESTAMP": Kind.TIMESTAMP,
    "JSON": Kind.JSON,
    "STRUCT": Kind.JSON,
}
# Everything else is text: GEOGRAPHY as WKT, INTERVAL, RANGE.
_OLD_NAMES: Final = {
    "BOOLEAN": "BOOL",
    "FLOAT": "FLOAT64",
    "INTEGER": "INT64",
    "RECORD": "STRUCT",
}
_COUNTED: Final = (Kind.TIME, Kind.DATETIME, Kind.TIMESTAMP)  # microseconds in Arrow as here
_EXACT: Final = Context(prec=100)  # BIGNUMERIC has 77 digits; the usual 28 would round
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Declared:
    """One column as the table declares it now, or one field of a STRUCT."""

    name: str
    type: str  # GoogleSQL's name, such as INT64
    repeated: bool = False
    fields: tuple[Declared, ...] = ()

    @staticmethod
    def of(field: SchemaField) -> Declared:
        name = field.field_type.upper()
        return Declared(
            field.name,
            _OLD_NAMES.get(name, name),
            field.mode == "REPEATED",
            tuple(Declared.of(inner) for inner in field.fields),
        )

    @property
    def kind(self) -> Kind:
        return Kind.JSON if self.repeated else _KINDS.get(self.type, Kind.TEXT)

    @property
    def told(self) -> str:
        """The type in words, which changes when the column does."""
        inner = ", ".join(f"{field.name} {field.told}" for field in self.fields)
        plain = f"STRUCT<{inner}>" if self.fields else self.type
        return f"ARRAY<{plain}>" if self.repeated else plain

    def cells(self, column: pa.ChunkedArray | pa.Array) -> Cells:
        """A column of Arrow as carriers of the kind."""
        if self.kind in _COUNTED:
            return _listed(column.cast(pa.int64()))
        listed = _listed(column)
        if self.repeated or self.type == "STRUCT":
            return _packed(listed, nested(self))
        match self.type:
            case "JSON":
                return [None if cell is None else _json(cell.encode()) for cell in listed]
            case "NUMERIC" | "BIGNUMERIC":
                return [None if cell is None else plain_decimal(cell) for cell in listed]
            case "STRING":
                return _texts(listed)
            case "INTERVAL" | "RANGE":
                return [None if cell is None else _said(cell) for cell in listed]
            case _:
                return listed


def _listed(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    found: list[Any] = column.to_pylist()
    return found


def _texts(cells: list[Any]) -> list[Any]:
    """Text with NUL is none that a text column of every destination takes."""
    if "\0" in "".join(filter(None, cells)):
        return [Invalid(cell) if cell and "\0" in cell else cell for cell in cells]
    return cells


def _json(text: bytes) -> Any:
    return Invalid(text.decode()) if b"\\u0000" in text and _NUL.search(text) else text


def plain_decimal(value: Decimal) -> Decimal:
    """Without the zeros that Arrow adds after the point, as BigQuery itself shows it."""
    short = _EXACT.normalize(value)
    exponent = short.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:  # 1E+1, which is 10
        return _EXACT.quantize(short, Decimal(1))
    return short


# -- what is nested becomes JSON, spelled as TO_JSON_STRING spells it, but for numbers: all of them
# -- stay numbers, with all their digits

Writer = Callable[[Any], Any]


def nested(declared: Declared) -> Writer:
    """From a value as Arrow gives it to what `orjson` writes."""
    plain = _struct(declared.fields) if declared.type == "STRUCT" else _SCALARS.get(declared.type)
    one = plain or _as_it_is

    def or_null(value: Any) -> Any:
        return None if value is None else one(value)

    if declared.repeated:
        return lambda value: [or_null(item) for item in value or ()]
    return or_null


def _struct(fields: Iterable[Declared]) -> Writer:
    writers = [(field.name, nested(field)) for field in fields]
    return lambda value: {name: write(value[name]) for name, write in writers}


def _packed(cells: list[Any], write: Writer) -> Cells:
    # A REPEATED column is never NULL: what Arrow says of none is the empty list.
    found = [orjson.dumps(write(cell)) for cell in cells]
    return [None if text == b"null" else _json(text) for text in found]


def _as_it_is(value: Any) -> Any:
    return value


def _float(value: float) -> Any:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _moment(value: dt.datetime) -> str:
    text = value.replace(tzinfo=None).isoformat()
    return f"{text}Z" if value.tzinfo is not None else text


def _said(value: Any) -> str:
    """INTERVAL and RANGE as BigQuery prints them; over REST they may come printed already."""
    if isinstance(value, dict):
        ends = [_end(value.get("start")), _end(value.get("end"))]
        return f"[{', '.join(ends)})"
    if isinstance(value, tuple):  # months, days, nanoseconds
        months, days, nanoseconds = value
        return f"{_signed(months, 12, '-')} {days} {_clock(nanoseconds // 1000)}"
    return str(value)


def _end(value: Any) -> str:
    if value is None:
        return "UNBOUNDED"
    return value.isoformat(" ") if isinstance(value, dt.datetime) else str(value)


def _signed(value: int, base: int, between: str) -> str:
    whole, rest = divmod(abs(value), base)
    return f"{'-' if value < 0 else ''}{whole}{between}{rest}"


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    text = f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}"
    text = f"{text}.{fraction:06}".rstrip("0") if fraction else text
    return f"-{text}" if microseconds < 0 else text


_SCALARS: Final[dict[str, Writer]] = {
    "FLOAT64": _float,
    "NUMERIC": lambda value: orjson.Fragment(f"{plain_decimal(value):f}"),
    "BIGNUMERIC": lambda value: orjson.Fragment(f"{plain_decimal(value):f}"),
    "BYTES": lambda value: base64.b64encode(value).decode(),
    "JSON": lambda value: orjson.Fragment(value),
    "DATE": dt.date.isoformat,
    "TIME": dt.time.isoformat,
    "DATETIME": _moment,
    "TIMESTAMP": _moment,
    "INTERVAL": _said,
    "RANGE": _said,
}
