"""Cells that no column of this server could hold: NaN, infinity, a year beyond 9999.  Pure.

The cell becomes NULL and its text a line of the error log, as `warp.precedence` has it for a value
that no column could hold; a key is never changed, so its row is refused when it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from warp import stored
from warp.cells import listed
from warp.destinations.mysql.carriers import FIRST_INSTANT, LAST_INSTANT
from warp.kinds import as_text
from warp.model import Cells, Column, Finding, Kind, Outcome
from warp.staged import Staged


def without(part: Staged) -> tuple[Staged, list[Finding]]:
    """The changes with NULL for such cells, and what is to be said of them."""
    columns: list[Cells] = list(part.carriers)
    findings: list[Finding] = []
    for place, column in enumerate(part.schema.columns):
        find = _FIND.get(column.kind)
        if find is None or column.name in part.schema.key:
            continue
        cells = columns[place] = listed(columns[place])
        if rows := find(cells):
            first = [of[rows[0]] for of in part.carriers]
            findings.append(
                Finding(
                    part.schema.table,
                    column.name,
                    Outcome.NULLED,
                    "a value that this server has no form for",
                    column.kind.value,
                    len(rows),
                    key=stored.dump(part.schema.columns, first, part.schema.key),
                    original=as_text(column.kind, cells[rows[0]]),
                )
            )
            for row in rows:
                cells[row] = None
    return replace(part, carriers=columns), findings


def nulled(columns: Sequence[Column], cells: Sequence[Cells], key: Collection[str]) -> list[Cells]:
    """The cells with NULL for those, as they are kept."""
    kept = list(cells)
    for place, column in enumerate(columns):
        find = _FIND.get(column.kind)
        if find is not None and column.name not in key:
            listed_ = listed(kept[place])
            for row in find(listed_):
                listed_[row] = None
            kept[place] = listed_
    return kept


def _floats(cells: Sequence[Any]) -> list[int]:
    try:
        if math.isfinite(sum(cells)):
            return []
    except TypeError:  # NULL among them
        pass
    return [n for n, cell in enumerate(cells) if type(cell) is float and not math.isfinite(cell)]


def _decimals(cells: Sequence[Any]) -> list[int]:
    return [n for n, cell in enumerate(cells) if type(cell) is Decimal and not cell.is_finite()]


def _instants(cells: Sequence[Any]) -> list[int]:
    try:
        if not cells or (min(cells) >= FIRST_INSTANT and max(cells) <= LAST_INSTANT):
            return []
    except TypeError:
        pass
    return [
        n
        for n, cell in enumerate(cells)
        if type(cell) is int and not FIRST_INSTANT <= cell <= LAST_INSTANT
    ]


_FIND: Final[Mapping[Kind, Callable[[Sequence[Any]], list[int]]]] = {
    Kind.FLOAT32: _floats,
    Kind.FLOAT64: _floats,
    Kind.DECIMAL: _decimals,
    Kind.DATETIME: _instants,
    Kind.TIMESTAMP: _instants,
}
