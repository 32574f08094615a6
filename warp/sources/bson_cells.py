"""BSON values as cells of a column: the exact type, or no cell at all; never a guess.  Pure.

A column is converted by one C-level pass where the set of its cells' types says that nothing can
go wrong, and cell by cell where it does not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import repeat
from operator import attrgetter, floordiv, sub
from typing import Any, Final

from bson import Binary, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from warp.kinds import as_text
from warp.model import ABSENT, Kind
from warp.sources.bson_types import KIND_OF, NAMES, type_name
from warp.sources.extjson import (
    EPOCH,
    column_to_json,
    milliseconds,
    tagged,
    to_json,
    to_json_text,
)

_LONGEST_KEY: Final = 2000  # bytes; a btree entry holds 2,700
_LARGEST_EXPONENT: Final = 1000  # 1E+6144 would be 6,145 digits of numeric

_Mark: Final[type] = type(ABSENT)
_BLANK: Final[frozenset[type]] = frozenset({type(None), _Mark})

# What PostgreSQL's timestamptz holds: 4714-11-24 BC to the end of 294276, in microseconds.
_FIRST_INSTANT: Final = -210_866_803_200_000_000
_LAST_INSTANT: Final = 9_224_318_016_000_000_000 - 1

_MICROSECOND: Final = timedelta(microseconds=1)
MISFIT: Final = object()


def _whole_double(value: float) -> Any:
    if value.is_integer() and -(1 << 63) <= value < (1 << 63):
        return int(value)
    return MISFIT


def _exact_double(value: int) -> Any:
    converted = float(value)
    return converted if int(converted) == value else MISFIT


def _int32(value: int) -> Any:
    return int(value) if -(1 << 31) <= value < (1 << 31) else MISFIT


def _decimal128(value: Decimal128) -> Any:
    converted = value.to_decimal()
    if not converted.is_finite():
        return MISFIT if converted.is_snan() else converted
    digits = converted.as_tuple().digits
    first, last = converted.adjusted(), converted.adjusted() - len(digits) + 1
    return converted if max(abs(first), abs(last)) <= _LARGEST_EXPONENT else MISFIT


def _instant(value: datetime | DatetimeMS) -> Any:
    converted = milliseconds(value) * 1000
    return converted if _FIRST_INSTANT <= converted <= _LAST_INSTANT else MISFIT


def _day(value: datetime) -> Any:
    """Only midnight is a date: anything else would lose its time."""
    midnight = not (value.hour or value.minute or value.second or value.microsecond)
    return date(value.year, value.month, value.day) if midnight else MISFIT


def _single(value: float) -> Any:
    """What a 32-bit column gives back as it was: 0.1 does not."""
    try:
        (stored,) = _SINGLE.unpack(_SINGLE.pack(value))
    except OverflowError:
        return MISFIT
    return value if stored == value or value != value else MISFIT


_SINGLE: Final = struct.Struct("<f")


def _whole_single(value: int) -> Any:
    converted = _exact_double(value)
    return converted if converted is MISFIT else _single(converted)


def _uuid(value: Binary) -> Any:
    return bytes(value) if value.subtype == 4 and len(value) == 16 else MISFIT


def _same(value: Any) -> Any:
    return value


def cell_of_text(value: Any) -> str:
    """Any value in a column of text: scalars as PostgreSQL would cast them, the rest as JSON."""
    if isinstance(value, str):
        return str(value)
    kind = KIND_OF[type_name(value)]
    if kind is not Kind.JSON:
        convert = CELLS[kind].get(type(value))
        made = MISFIT if convert is None else convert(value)
        if made is not MISFIT:
            return as_text(kind, made)
    return to_json(value).decode()


# For each kind, the exact types that may fit it and what makes a cell of them.
CELLS: Final[dict[Kind, dict[type, Callable[[Any], Any]]]] = {
    Kind.BOOL: {bool: _same},
    Kind.INT32: {int: _int32, Int64: _int32},
    Kind.INT64: {int: _same, Int64: int, float: _whole_double},
    Kind.FLOAT32: {float: _single, int: _whole_single, Int64: _whole_single},
    Kind.FLOAT64: {float: _same, int: _exact_double, Int64: _exact_double},
    # The shortest text of a double names that double and no other; its exact digits would be
    # 0.1000000000000000055511151231257827 for 0.1.
    Kind.DECIMAL: {
        Decimal128: _decimal128,
        int: Decimal,
        Int64: lambda v: Decimal(int(v)),
        float: lambda v: Decimal(repr(v)),
    },
    Kind.TEXT: {str: lambda v: MISFIT if "\0" in v else v},
    Kind.BYTES: {bytes: _same, Binary: bytes},
    Kind.UUID: {Binary: _uuid},
    Kind.DATE: {datetime: _day},
    Kind.TIME: {},
    Kind.DATETIME: {datetime: _instant, DatetimeMS: _instant},  # BSON dates are in UTC
    Kind.TIMESTAMP: {datetime: _instant, DatetimeMS: _instant},
    Kind.OBJECTID: {ObjectId: str},
    Kind.JSON_TEXT: dict.fromkeys([*NAMES, Binary], to_json_text),
}

# Keys must be exact: two ids must never become one cell.
KEY_CELLS: Final[dict[Kind, dict[type, Callable[[Any], Any]]]] = {
    Kind.INT64: CELLS[Kind.INT64],
    Kind.TEXT: {str: lambda v: v if "\0" not in v and _taggable(v) else MISFIT},
    Kind.BYTES: {bytes: lambda v: v if _taggable(v) else MISFIT},  # Binary has a subtype too
    Kind.UUID: CELLS[Kind.UUID],
    Kind.TIMESTAMP: CELLS[Kind.TIMESTAMP],
    Kind.OBJECTID: CELLS[Kind.OBJECTID],
}


def short(key: str) -> bool:
    """Fits an index entry."""
    return len(key) * 4 <= _LONGEST_KEY or len(key.encode()) <= _LONGEST_KEY


def _taggable(id: Any) -> bool:
    """Would this id be short as a tagged key too, which its column may have to become?"""
    return short(tagged(id))


def _whole_text(cells: list[Any]) -> list[Any] | None:
    return None if "\0" in "".join(cells) else cells


def _whole_key_text(cells: list[Any]) -> list[Any] | None:
    if max(map(len, cells), default=0) * 6 + 2 > _LONGEST_KEY:  # as if all of it were escaped
        return None
    return _whole_text(cells)


def _whole_instants(cells: list[Any]) -> list[Any]:
    # Years 1 to 9999 all fit, so nothing is left to check.
    since = map(sub, cells, repeat(EPOCH))
    return list(map(floordiv, since, repeat(_MICROSECOND)))


_object_id_bytes: Final = attrgetter("_ObjectId__id")


def _whole_object_ids(cells: list[Any]) -> list[Any]:
    return list(map(bytes.hex, map(_object_id_bytes, cells)))


def _whole_ints(cells: list[Any]) -> list[Any]:
    return list(map(int, cells))


# For each kind, the types a column may be made of entirely for a pass in C.  None: look closer.
_WholePass = tuple[frozenset[type], Callable[[list[Any]], list[Any] | None]]
WHOLE: Final[dict[Kind, tuple[_WholePass, ...]]] = {
    Kind.BOOL: ((frozenset({bool}), _same),),
    Kind.INT64: ((frozenset({int}), _same), (frozenset({int, Int64}), _whole_ints)),
    Kind.FLOAT64: ((frozenset({float}), _same),),
    Kind.TEXT: ((frozenset({str}), _whole_text),),
    Kind.BYTES: ((frozenset({bytes}), _same),),
    Kind.TIMESTAMP: ((frozenset({datetime}), _whole_instants),),
    Kind.OBJECTID: ((frozenset({ObjectId}), _whole_object_ids),),
}
KEY_WHOLE: Final[dict[Kind, tuple[_WholePass, ...]]] = {
    Kind.INT64: WHOLE[Kind.INT64],
    Kind.TEXT: ((frozenset({str}), _whole_key_text),),
    Kind.TIMESTAMP: WHOLE[Kind.TIMESTAMP],
    Kind.OBJECTID: WHOLE[Kind.OBJECTID],
}


def fit(
    cells: list[Any],
    whole: tuple[_WholePass, ...],
    single: Mapping[type, Callable[[Any], Any]],
) -> tuple[list[Any], list[int]]:
    """Cells of a kind, and the places of those that are not of it (None stands there)."""
    types = set(map(type, cells))
    if types <= _BLANK:
        return list(cells), []
    for accepted, convert in whole:
        if types <= accepted:
            converted = convert(cells)
            if converted is not None:
                return converted, []
            break
        if types - _BLANK <= accepted:
            filled = convert([c for c in cells if c is not None and c is not ABSENT])
            if filled is not None:
                take = iter(filled)
                return [c if c is None or c is ABSENT else next(take) for c in cells], []
            break
    fitted: list[Any] = []
    misfits: list[int] = []
    for place, cell in enumerate(cells):
        if cell is None or cell is ABSENT:
            fitted.append(cell)
            continue
        make = single.get(type(cell))
        made = MISFIT if make is None else make(cell)
        if made is MISFIT:
            misfits.append(place)
            made = None
        fitted.append(made)
    return fitted, misfits


def fit_json(cells: list[Any]) -> tuple[list[Any], list[int]]:
    """JSON holds everything; the places are those where NUL had to be replaced."""
    if _BLANK.isdisjoint(map(type, cells)):
        return column_to_json(cells)
    filled = [i for i, c in enumerate(cells) if c is not None and c is not ABSENT]
    texts, changed = column_to_json([cells[i] for i in filled])
    fitted = list(cells)
    for place, text in zip(filled, texts, strict=True):
        fitted[place] = text
    return fitted, [filled[i] for i in changed]
