"""Rows kept outside their table, as JSON text and back: what is quarantined or deferred.  Pure.

The text is plain for people (`{"id": 7, "price": "1.10"}`); the kinds beside it make every cell
exact again, whatever has become of the table since.  ASCII only, so that NUL and unpaired
surrogates, which a row may be set aside for, survive in a text column.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from warp.model import ABSENT, UNCHANGED, Column, Kind

_MARK: Final = type(UNCHANGED)


def dump(columns: Sequence[Column], cells: Sequence[Any], names: Iterable[str] = ()) -> str:
    """The carriers of one row by column name; those in `names` only, where some are given.

    UNCHANGED and ABSENT cells are left out: neither is a value.
    """
    wanted = frozenset(names) or None
    return json.dumps(
        {
            column.name: _written(column.kind, cell)
            for column, cell in zip(columns, cells, strict=True)
            if (wanted is None or column.name in wanted) and type(cell) is not _MARK
        },
        # A carrier of another type than its kind's is a bug elsewhere; it must not lose the row.
        default=str,
    )


def kinds_of(columns: Iterable[Column]) -> dict[str, str]:
    """What `load` needs to read the columns' cells again."""
    return {column.name: column.kind.value for column in columns}


def load(text: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Carriers by column name, exactly as they were dumped.

    ValueError names the column whose text is not one that `dump` writes.
    """
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {text[:80]!r}")
    cells: dict[str, Any] = {}
    for name, value in row.items():
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"expected a kind for column {name!r}, found none")
        try:
            cells[name] = None if value is None else _READ[Kind(kind)](value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"column {name!r}: expected {kind}, found {value!r}") from error
    return cells


def cells_of(columns: Sequence[Column], row: Mapping[str, Any], *, partial: bool) -> list[Any]:
    """A loaded row as cells of these columns; what it does not say is UNCHANGED in a partial row
    and ABSENT in a whole one."""
    missing = UNCHANGED if partial else ABSENT
    return [row.get(column.name, missing) for column in columns]


def _written(kind: Kind, cell: Any) -> Any:
    if isinstance(cell, bytes):
        if kind is Kind.UUID and len(cell) == 16:
            return str(uuid.UUID(bytes=cell))
        if kind in (Kind.JSON, Kind.JSON_TEXT):
            return cell.decode("utf-8", "surrogateescape")
        return base64.b64encode(cell).decode()
    if isinstance(cell, float) and not math.isfinite(cell):
        return str(cell)  # NaN and the infinities are no JSON
    if isinstance(cell, Decimal | dt.date):
        return str(cell)
    return cell


def _exactly(type_: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not type_:
            raise ValueError
        return value

    return read


def _float(value: Any) -> float:
    if type(value) not in (float, int, str):
        raise ValueError
    return float(value)


def _json(value: Any) -> bytes:
    text: str = _exactly(str)(value)
    return text.encode("utf-8", "surrogateescape")


_READ: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.BOOL: _exactly(bool),
    Kind.INT32: _exactly(int),
    Kind.INT64: _exactly(int),
    Kind.FLOAT32: _float,
    Kind.FLOAT64: _float,
    Kind.DECIMAL: lambda v: Decimal(_exactly(str)(v)),
    Kind.TEXT: _exactly(str),
    Kind.BYTES: lambda v: base64.b64decode(_exactly(str)(v), validate=True),
    Kind.UUID: lambda v: uuid.UUID(_exactly(str)(v)).bytes,
    Kind.DATE: lambda v: dt.date.fromisoformat(_exactly(str)(v)),
    Kind.TIME: _exactly(int),
    Kind.DATETIME: _exactly(int),
    Kind.TIMESTAMP: _exactly(int),
    Kind.JSON: _json,
    Kind.JSON_TEXT: _json,
    Kind.OBJECTID: _exactly(str),
    Kind.TAGGED: _exactly(str),
}
