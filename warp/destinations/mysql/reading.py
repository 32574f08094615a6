"""Cells of a table as carriers again: how they are selected, and what becomes of the driver's
values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from warp.destinations.mysql.names import quoted
from warp.model import Column, Kind

# What is not its carrier yet when the driver hands it over.
_READ_AS: Final[Mapping[Kind, str]] = {
    Kind.FLOAT32: "({} * 1e0)",  # as it is, it comes with six digits
    Kind.TIME: "timestampdiff(microsecond, '1970-01-01', timestamp('1970-01-01', {}))",
    Kind.DATETIME: "timestampdiff(microsecond, '1970-01-01', {})",
    Kind.TIMESTAMP: "timestampdiff(microsecond, '1970-01-01', {})",
    Kind.DATE: "cast({} as char)",
}
_CARRIERS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.BOOL: bool,
    Kind.FLOAT32: float,
    Kind.FLOAT64: float,
    Kind.DATE: dt.date.fromisoformat,
    Kind.JSON: str.encode,
    Kind.JSON_TEXT: str.encode,
}


def selected(columns: Sequence[Column], row: str = "d") -> str:
    """The columns of a row by this name, for a statement whose percent signs stand for
    parameters."""
    return ", ".join(_READ_AS.get(c.kind, "{}").format(f"{row}.{quoted(c.name)}") for c in columns)


def carriers(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The selected cells of at least one row, column by column."""
    return [
        [None if v is None else _CARRIERS.get(c.kind, _same)(v) for v in values]
        for c, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _same(value: Any) -> Any:
    return value
