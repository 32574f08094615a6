"""Columns as a table declares them: their kind, how to select them, and what a cell's text means.

What is read by SELECT must equal what the log says of the same row (guarantee 4 would otherwise be
kept by luck): FLOAT is asked for as the double it is, BIT and binary as bytes, text as utf8mb4.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from warp.model import Invalid, Kind
from warp.mysql_family import identifier

Convert = Callable[[bytes], Any]

_INTEGERS: Final = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_PLAIN: Final[dict[str, Kind]] = {
    "float": Kind.FLOAT32,
    "double": Kind.FLOAT64,
    "decimal": Kind.DECIMAL,
    "date": Kind.DATE,
    "time": Kind.TEXT,  # a span of up to 838 hours, not a time of day
    "datetime": Kind.DATETIME,
    "timestamp": Kind.TIMESTAMP,
    "year": Kind.INT32,
    "char": Kind.TEXT,
    "varchar": Kind.TEXT,
    "tinytext": Kind.TEXT,
    "text": Kind.TEXT,
    "mediumtext": Kind.TEXT,
    "longtext": Kind.TEXT,
    "enum": Kind.TEXT,
    "set": Kind.TEXT,
    "inet4": Kind.TEXT,
    "inet6": Kind.TEXT,
    "json": Kind.JSON,
    "uuid": Kind.UUID,
}
# Everything else is bytes: binary, blob, geometry in all its shapes, vector.
_COMPILED: Final[dict[Kind, str]] = {
    **dict.fromkeys((Kind.INT32, Kind.INT64), "whole"),
    **dict.fromkeys((Kind.FLOAT32, Kind.FLOAT64), "real"),
    **dict.fromkeys((Kind.DATETIME, Kind.TIMESTAMP), "moment"),
    **dict.fromkeys((Kind.BYTES, Kind.JSON), "bytes"),
    Kind.DECIMAL: "decimal",
    Kind.TEXT: "text",
    Kind.UUID: "uuid",
    Kind.DATE: "day",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """One column as the table declares it now."""

    name: str
    data_type: str  # lower case, without length: `int`, `varchar`, `uuid`
    column_type: str  # whole: `int(10) unsigned`, `enum('a','b')`
    charset: str | None = None
    expression: str = ""  # of a generated column

    @staticmethod
    def of(
        name: str, data_type: str, column_type: str, charset: str | None, expression: str
    ) -> Declared:
        return Declared(name, data_type.lower(), column_type, charset, expression)

    @property
    def unsigned(self) -> bool:
        return "unsigned" in self.column_type.lower()

    @property
    def bits(self) -> int:
        """Of a BIT column."""
        found = re.search(r"\d+", self.column_type)
        return int(found[0]) if found else 1

    @property
    def kind(self) -> Kind:
        match self.data_type:
            case "bigint":
                return Kind.DECIMAL if self.unsigned else Kind.INT64
            case "int":
                return Kind.INT64 if self.unsigned else Kind.INT32
            case "tinyint" | "smallint" | "mediumint":
                return Kind.INT32
            case "bit":
                if self.bits == 1:
                    return Kind.BOOL
                return Kind.INT64 if self.bits < 64 else Kind.DECIMAL
            case other:
                return _PLAIN.get(other, Kind.BYTES)

    # -- in a SELECT

    @property
    def selected(self) -> str:
        """The expression whose text has everything."""
        name = identifier(self.name)
        if self.data_type == "float":
            # The server rounds a FLOAT to six digits where it prints one.
            return f"{name} * 1e0"
        return name

    def cells(self, column: Sequence[bytes | None]) -> list[Any]:
        """A column of a result as the carriers of its kind."""
        convert = self._convert
        if None in column:
            return [None if cell is None else convert(cell) for cell in column]
        return list(map(convert, column))  # type: ignore[arg-type]  # no None among them

    @property
    def _convert(self) -> Convert:
        if self.data_type in _INTEGERS or self.data_type == "year":
            return _decimal if self.kind is Kind.DECIMAL else int
        if self.data_type == "bit":
            bit: dict[Kind, Convert] = {Kind.BOOL: _bool, Kind.INT64: _bits, Kind.DECIMAL: _wide}
            return bit[self.kind]
        match self.kind:
            case Kind.FLOAT32 | Kind.FLOAT64:
                return float
            case Kind.DECIMAL:
                return _decimal
            case Kind.DATE:
                return _date
            case Kind.DATETIME | Kind.TIMESTAMP:
                return _microseconds
            case Kind.TEXT:
                return _text
            case Kind.UUID:
                return _uuid
            case _:
                return bytes

    @property
    def reading(self) -> str:
        """How the compiled half reads a cell, which for every cell means what `cells` does."""
        if self.data_type == "bit":
            return {Kind.BOOL: "bool", Kind.INT64: "bits", Kind.DECIMAL: "wide"}[self.kind]
        return _COMPILED[self.kind]

    # -- in a WHERE

    @property
    def as_bound(self) -> str:
        """The expression whose text, made a literal by `literal`, compares as the column does."""
        name = identifier(self.name)
        match self.data_type:
            case "enum" | "set" | "bit":
                return f"{name} + 0"  # in the order of their numbers, as the index has them
            case "float":
                return f"{name} * 1e0"
            case "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext":
                return f"HEX({name})"  # in its own charset: no way back is lost
            case _ if self.kind is Kind.BYTES:
                return f"HEX({name})"
            case _:
                return f"CAST({name} AS CHAR)"

    def literal(self, text: str) -> str:
        """A bound as SQL.  Its text comes from a marker, so it is checked and never trusted."""
        match self.data_type:
            case "enum" | "set" | "bit" | "float" | "double" | "decimal" | "year":
                return _number(text)
            case name if name in _INTEGERS:
                return _number(text)
            case "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext":
                return f"_{_word(self.charset or 'binary')} X'{_hexadecimal(text)}'"
            case _ if self.kind is Kind.BYTES:
                return f"X'{_hexadecimal(text)}'"
            case _:
                return _quoted(text)

    def written(self, value: Any) -> str:
        """A carrier of this column as SQL that equals the cell."""
        match value:
            case bool():
                return str(int(value))
            case Invalid():
                return _quoted(value.text)
            case int() if self.kind in (Kind.DATETIME, Kind.TIMESTAMP):
                return _quoted(str(_START + dt.timedelta(microseconds=value)))
            case int():
                return str(value)
            case float():
                return _number(repr(value))
            case Decimal():
                return _number(f"{value:f}")
            case dt.date():
                return _quoted(value.isoformat())
            case bytes() if self.kind is Kind.UUID:
                return _quoted(str(uuid.UUID(bytes=value)))
            case bytes():
                return f"X'{value.hex()}'"
            case str():
                return _quoted(value)
            case _:
                raise ValueError(f"a value of a key was expected, found {value!r}")


_START: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock, or UTC as the session is


def _quoted(text: str) -> str:
    return f"_utf8mb4 X'{text.encode().hex()}'"


def _number(text: str) -> str:
    if not re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text):
        raise ValueError(f"a number was expected as a chunk's bound, found {text!r}")
    return text


def _hexadecimal(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]*", text):
        raise ValueError(f"hexadecimal digits were expected as a chunk's bound, found {text!r}")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"\w+", text):
        raise ValueError(f"the name of a charset was expected, found {text!r}")
    return text


def _decimal(cell: bytes) -> Decimal:
    return Decimal(cell.decode("ascii"))


def _bool(cell: bytes) -> bool:
    return cell != b"\0"


def _bits(cell: bytes) -> int:
    return int.from_bytes(cell, "big")


def _wide(cell: bytes) -> Decimal:
    return Decimal(int.from_bytes(cell, "big"))


def _text(cell: bytes) -> str | Invalid:
    if b"\0" in cell:
        return Invalid(cell.decode("utf-8", "replace"))
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return Invalid(cell.decode("utf-8", "replace"))


def _uuid(cell: bytes) -> bytes:
    return bytes.fromhex(cell.decode("ascii").replace("-", ""))


_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_days: dict[bytes, int] = {}
_MOST_DAYS: Final = 20_000


def _date(cell: bytes) -> dt.date | Invalid:
    try:
        return dt.date.fromisoformat(cell.decode("ascii"))
    except ValueError:
        return Invalid(cell.decode("ascii"))


def _microseconds(cell: bytes) -> int | Invalid:
    """`2024-02-29 23:59:59.123456` as microseconds since 1970."""
    day = _days.get(cell[:10])
    if day is None:
        date = _date(cell[:10])
        if isinstance(date, Invalid):
            return Invalid(cell.decode("ascii"))
        if len(_days) > _MOST_DAYS:
            _days.clear()
        day = _days[cell[:10]] = (date.toordinal() - _EPOCH) * 86_400
    seconds = day + int(cell[11:13]) * 3600 + int(cell[14:16]) * 60 + int(cell[17:19])
    fraction = cell[20:]
    return seconds * 1_000_000 + (int(fraction.ljust(6, b"0")) if fraction else 0)
