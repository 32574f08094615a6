"""What a column is: a list of carriers, or the same cells packed by the compiled modules.

Both are sequences of the carriers that `warp.model.Kind` names, so whoever does not care reads
either.  What is done often, and differently for the two, is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from warp.model import UNCHANGED, Cells, Invalid
from warp.native import Packed

_MARK: Final = type(UNCHANGED)


def listed(column: Cells) -> list[Any]:
    """The column as a list that the caller may change."""
    return column.tolist() if isinstance(column, Packed) else list(column)


def taken(column: Cells, rows: Sequence[int]) -> Cells:
    """These of its rows, in this order."""
    if isinstance(column, Packed):
        return column.take(rows)
    return [column[row] for row in rows]


def holds_marks(column: Cells) -> bool:
    """Is one of its cells UNCHANGED or ABSENT?"""
    if isinstance(column, Packed):
        return column.marked
    return _MARK in set(map(type, column))


def unchanged(column: Cells) -> list[int]:
    """The rows whose cell is UNCHANGED."""
    if isinstance(column, Packed):
        return column.unchanged()
    return [row for row, cell in enumerate(column) if cell is UNCHANGED]


def holds_invalid(column: Cells) -> bool:
    """Is one of its cells Invalid?  A packed one never is."""
    return not isinstance(column, Packed) and Invalid in set(map(type, column))
