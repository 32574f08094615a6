"""What becomes of a value that does not fit its column: one table, for every source.  Pure.

In this order: lossless, widen the column, convert exactly, narrow (try, else text), truncate (a
length limit of the destination's own), drastic (keep out of the column, keep the original),
invalid (NULL).  `docs/types.md` is generated from here.
"""

from __future__ import annotations

from typing import Final

from warp.kinds import Relation, relation, widened
from warp.model import Column, Handling, Kind, Policy

TRUNCATION_MARK: Final = "\u2026"  # one character, "…", at the end of what was cut


def handling(have: Kind, column: Column, policy: Policy, *, extra: bool, key: bool) -> Handling:
    """What to do with a value of kind `have` that has no exact form in the column.

    `extra`: the table has `_extra`, where the value can be kept whole.  A key is never cut, set to
    NULL or left out: without its exact key no row is found again.
    """
    if column.kind is have and column.limit is not None:  # digits of a number
        chosen = policy.wider or Handling.WIDEN
    elif column.kind is have:  # no column of this destination could hold it
        chosen = policy.invalid or (Handling.EXTRA if extra else Handling.SET_NULL)
    elif relation(have, column.kind) is Relation.DRASTIC:
        chosen = policy.drastic or (Handling.EXTRA if extra else Handling.SKIP)
    elif widened(have, column.kind) is not None:
        chosen = policy.wider or Handling.WIDEN
    else:
        chosen = policy.narrower or (Handling.EXTRA if extra else Handling.TEXT)
    return possible(chosen, column, extra=extra, key=key)


def too_long(column: Column, policy: Policy, *, extra: bool, key: bool) -> Handling:
    """What to do with text longer than the column's limit."""
    return possible(policy.too_long or Handling.TRUNCATE, column, extra=extra, key=key)


def invalid(column: Column, policy: Policy, *, extra: bool, key: bool) -> Handling:
    """What to do with a cell that its own source could not read as what it should be."""
    return possible(policy.invalid or Handling.SET_NULL, column, extra=extra, key=key)


def possible(chosen: Handling, column: Column, *, extra: bool, key: bool) -> Handling:
    """The handling itself, or the next best where the column or table does not allow it."""
    if chosen in (Handling.WIDEN, Handling.TEXT) and column.fixed:
        chosen = Handling.EXTRA  # the server refused to change the column, or it is too large
    if chosen is Handling.EXTRA and not extra:
        chosen = Handling.SKIP
    if key and chosen not in (Handling.WIDEN, Handling.STOP):
        return Handling.QUARANTINE
    return chosen


def truncated(text: str, limit: int) -> str:
    """The beginning of a text, with a mark that says so, in `limit` characters."""
    return text[: max(limit - len(TRUNCATION_MARK), 0)] + TRUNCATION_MARK[:limit]
