"""`docs/errors.md`, written from the error classes: `python -m warp.errors_reference`.

What cannot stand beside a class (the outcomes of cells, the codes of rows set aside) is told here.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Final

from warp.errors import WarpError
from warp.model import Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """What a person should know about a code."""

    meaning: str
    then: str
    advice: str


CELLS: Final[dict[Outcome, Told]] = {
    Outcome.CONVERTED: Told(
        "A value of another type than its column's was converted to it exactly.",
        "The row landed, and nothing of the value was lost.",
        "Nothing.",
    ),
    Outcome.TRUNCATED: Told(
        "A value was longer than the destination's column allows.",
        "The row landed with the value cut and a visible mark at its end; `original_length` says "
        "how long it was.",
        "Lengthen the column, then change the row at the source or resync the table.",
    ),
    Outcome.EXTRA: Told(
        "A value's type is not its column's, or a part of it cannot be written there.",
        "The row landed with the value whole in `_extra`, as Extended JSON; its column is NULL.",
        "Nothing is lost. Read it from `_extra`, or mend the field at the source.",
    ),
    Outcome.SKIPPED: Told(
        "A value changed drastically, as from a scalar to an object.",
        "The row landed without it: an update left the column as it was, an insert has NULL. The "
        "value is in quarantine.",
        "Change the column's kind, then `cartridge-warp quarantine replay`; or discard it.",
    ),
    Outcome.NULLED: Told(
        "A value could not be converted to its column's type.",
        "The row landed with NULL there; the error log keeps the first such value.",
        "Mend the value at the source, or fix the column's kind and resync.",
    ),
    Outcome.QUARANTINED: Told(
        "A value stands where none of the above is possible, as in the key.",
        "The whole row was set aside.",
        "See docs/operations/quarantine.md.",
    ),
    Outcome.DEFERRED: Told(
        "A row refers to a row that is not there yet.",
        "The row waits for it and lands after it.",
        "Nothing, unless it lasts: then the row it refers to was never copied.",
    ),
}

# The codes of rows in quarantine; `SQLSTATE` stands for every code of the destination's own.
ASIDE: Final[dict[str, Told]] = {
    "conversion": Told(
        "A cell of the row has no exact form in its column.",
        "The row waits in quarantine; the rest of its batch landed.",
        "Change the column, then replay the row; or mend it at the source and discard this one.",
    ),
    "SCHEMA": Told(
        "A row waited for another row, and a column it was kept for has changed its kind "
        "meanwhile, in a way that not every value survives.",
        "The row waits in quarantine instead.",
        "Replay it: a replay decides anew about each of its values.",
    ),
    "SQLSTATE": Told(
        "The destination refused the row, mostly by a constraint; the code is its own "
        "(23505 unique, 23514 check, 23502 not null, 22001 too long, 54000 too large for an "
        "index).",
        "The row waits in quarantine; the rest of its batch landed.",
        "Mend what refused it, then replay the row.",
    ),
    "DataError": Told(
        "The driver could not write a value at all, as text with a NUL character in it. The names "
        "of other Python errors, such as OverflowError or UnicodeEncodeError, say the same.",
        "The row waits in quarantine; the rest of its batch landed.",
        "Mend the value at the source and discard this row.",
    ),
}

HEAD: Final = """\
# Errors

Written by `python -m warp.errors_reference`; do not edit it by hand.

Every message starts with a code, names the place it is about, and says what was expected, what was
found and what to do. The codes are stable, and each has an anchor here: `docs/errors.md#warp-510`.
What happens next depends on the code alone.

`cartridge-warp errors` shows the error log of the metadata schema: a line per error with its unit,
table, position and the action taken, and a line per sort of finding about cells with their number.
"""


def classes(root: type[WarpError] = WarpError) -> list[type[WarpError]]:
    """An error and all that derive from it in `warp.errors`, by their codes."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            found += classes(child)
    return sorted(found, key=lambda error: error.code)


def cell_code(outcome: Outcome) -> str:
    return f"CELL-{outcome.value}"


def anchor(code: str) -> str:
    return code.lower().replace("_", "-")


def page() -> str:
    parts = [HEAD, "## Errors of units and processes\n"]
    for error in classes():
        told = Told(_meaning(error), error.then, error.advice)
        parts.append(_section(error.code, f"{error.code} {error.__name__}", told))
    parts.append(
        "## What became of cells\n\n"
        "A cell that did not fit its column is never lost silently; the error log counts each sort "
        "under one of these codes.\n"
    )
    parts += [_section(cell_code(o), cell_code(o), told) for o, told in CELLS.items()]
    parts.append(
        "## Why rows are in quarantine\n\n"
        "The code of a row in quarantine; "
        "[operations/quarantine.md](operations/quarantine.md) says how to get it out.\n"
    )
    parts += [_section(f"aside-{code}", code, told) for code, told in ASIDE.items()]
    return "\n".join(parts)


def _section(code: str, heading: str, told: Told) -> str:
    return (
        f'<a id="{anchor(code)}"></a>\n\n### {heading}\n\n{told.meaning}\n\n'
        f"* **What happens next:** {told.then}\n* **What to do:** {told.advice}\n"
    )


def _meaning(error: type[WarpError]) -> str:
    return " ".join((inspect.getdoc(error) or "").split())


if __name__ == "__main__":
    sys.stdout.write(page())
