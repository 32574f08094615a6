"""Writes docs/types.md from the lattice and the precedence: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from warp.config.blocks import PolicyKeys
from warp.kinds import Relation, converter, relation, widened
from warp.model import Column, Handling, Kind, Outcome, Policy
from warp.precedence import TRUNCATION_MARK, handling

_HEAD: Final = """\
# Types, and values that do not fit

Made by `make docs` from `warp/kinds.py` and `warp/precedence.py`; `make check` fails where it is
not up to date.

Every source's types become one of our *kinds*, and every destination spells a kind its own way.
When a value meets a column of another kind, this is tried in this order, and the first that
applies is done:

1. **lossless**: every value of the kind has an exact form in the column. It is converted.
2. **widen**: the column is changed to a kind that holds every value of both, in place, and without
   a rewrite of the table where the server can avoid one. Readers never wait behind the change for
   more than a tenth of a second: it is asked for briefly, and again.
3. **exact**: a value that has an exact form in the column as it is gets it (5.0 in a column of
   integers); for one that has none the column is widened.
4. **narrower**: another family of scalars. An exact form is tried (`"7"` is 7); else the column
   becomes text, which says what each value was; or, for documents, the value is kept in `_extra`.
5. **truncated**: only where a length limit is the destination's own (a `varchar(n)` of a table that
   somebody else made): cut to the limit with a visible `{mark}` at its end, the original length in
   `error_log`; documents keep the whole text in `_extra`. A number is never rounded to the digits
   of its column: the limit is lifted as in 2.
6. **drastic**: an object or array where a scalar was. The column is left as it was (untouched by an
   update, NULL in a new row) and the original goes to `quarantine`; documents keep it in `_extra`.
7. **invalid**: a value that its own source cannot read, or that no column could hold. NULL, and the
   original text in `error_log`; documents keep it in `_extra`.

Nothing here drops a row or a value: it is in its column, in `_extra`, in `quarantine`, or its text
is in `error_log`. Whatever happens is one line of `error_log` for each table, column, outcome and
type met, which counts the cells; and `cartridge_warp_cells_total{{column, outcome}}`.

A column is **fixed** where the server refuses to change it (a view uses it, it is not ours) or
where the table is larger than `rewrite_limit`: `error_log` says so with the statement to run, and
values that do not fit are kept beside it: in `_extra`, else in `quarantine`. Once a person has
changed the column it is used as it is.

A key column is only ever widened. A row whose key has no exact form is set aside whole.
"""

_POLICIES: Final = """
## Choosing

For all tables, a schema, a table or a column (`columns: {{price: {{on_narrower: quarantine}}}}`):

{choices}

`skip` leaves the column as it is and keeps the original in quarantine, `set_null` keeps its text in
`error_log`, `quarantine` sets the whole row aside, `stop` stops the unit. With
`dead_letter_queue: false` whatever would be set aside stops the unit instead.

## What became of a cell

| outcome | meaning |
| --- | --- |
"""

_OUTCOMES: Final = {
    Outcome.CONVERTED: "converted exactly to the column's kind, of another family",
    Outcome.TRUNCATED: "cut to the destination's limit, with a mark",
    Outcome.EXTRA: "kept whole in `_extra`",
    Outcome.SKIPPED: "left out of its row; the original is in `quarantine`",
    Outcome.NULLED: "NULL; the original's text is in `error_log`",
    Outcome.QUARANTINED: "the whole row is in `quarantine`",
    Outcome.DEFERRED: "the whole row waits for the row that it refers to",
}


_SITUATIONS: Final = {
    "on_wider": "2 and 3: the column could be widened",
    "on_narrower": "4, and no exact form",
    "on_too_long": "5: text beyond the destination's own limit",
    "on_drastic": "6: an object or array for a scalar column",
    "on_invalid": "7: unreadable, or beyond what any column holds",
}


def _choices() -> Iterator[str]:
    yield "| key | situation | choices and defaults |"
    yield "| --- | --- | --- |"
    for key, situation in _SITUATIONS.items():
        yield f"| `{key}` | {situation} | {PolicyKeys.model_fields[key].description} |"


def page() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD.format(mark=TRUNCATION_MARK)
    yield from _matrix()
    yield from _pairs()
    yield _POLICIES.format(choices="\n".join(_choices())).rstrip("\n")
    for outcome, meaning in _OUTCOMES.items():
        yield f"| `{outcome.value}` | {meaning} |"


_SHORT: Final = {
    Relation.SAME: "=",
    Relation.LOSSLESS: "✓",
    Relation.NARROWER: "text",
    Relation.DRASTIC: "✗",
}


def _matrix() -> Iterator[str]:
    yield "## Every pair\n"
    yield "Rows: what comes. Columns: the kind of the destination's column. `=` the same, `✓`"
    yield "lossless, a kind: what the column is widened to (after `5→`, where most values fit as it"
    yield "is), `text`: narrower (`?` where some values have an exact form), `✗` drastic.\n"
    yield "| | " + " | ".join(kind.value for kind in Kind) + " |"
    yield "|---|" + "---|" * len(Kind)
    for have in Kind:
        cells = " | ".join(_cell(have, want) for want in Kind)
        yield f"| **{have.value}** | {cells} |"


def _cell(have: Kind, want: Kind) -> str:
    found = relation(have, want)
    becomes = widened(have, want)
    if becomes is not None:
        return f"5→ {becomes.value}" if found is Relation.EXACT else becomes.value
    tried = found is Relation.NARROWER and converter(have, want) is not None
    return ("? " if tried else "") + _SHORT[found]


def _pairs() -> Iterator[str]:
    yield "\n## Every pair, by what is done with a value that has no exact form\n"
    yield "| what comes | column | relation | in a table without `_extra` | with `_extra` |"
    yield "|---|---|---|---|---|"
    for have in Kind:
        for want in Kind:
            found = relation(have, want)
            if found in (Relation.SAME, Relation.LOSSLESS):
                continue
            column = Column("c", want)
            done = (
                _done(handling(have, column, Policy(), extra=extra, key=False), have, want)
                for extra in (False, True)
            )
            yield f"| {have.value} | {want.value} | {found.value} | {' | '.join(done)} |"


def _done(handled: Handling, have: Kind, want: Kind) -> str:
    if handled is Handling.WIDEN:
        becomes = widened(have, want)
        return f"column becomes {becomes.value}" if becomes else "the limit is lifted"
    return {
        Handling.TEXT: "column becomes text",
        Handling.EXTRA: "kept in `_extra`",
        Handling.SKIP: "column untouched, original in quarantine",
        Handling.SET_NULL: "NULL, text in `error_log`",
    }[handled]


if __name__ == "__main__":
    sys.stdout.write(page())
