"""What a transaction did with rows that did not simply land, those that wait for others among
them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from warp.destinations.postgresql.deferral import Tried, Waiting
from warp.destinations.sql import notes
from warp.model import Finding, Operation, Outcome, TableId


@dataclass(slots=True)
class Deed(notes.Deed):
    waiting: list[Waiting] = field(default_factory=list)  # rows of the batch, while it lasts
    deferred: list[Waiting] = field(default_factory=list)
    late: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)  # landed at last

    def add(self, tried: Tried) -> None:
        self.late += tried.landed
        self.aside += tried.given_up
        self.missing += tried.missing
        self.deferred += tried.deferred


def waits(deed: Deed) -> list[Finding]:
    """A line of the error log for each table and constraint that made rows wait."""
    found: dict[tuple[TableId, str, str], list[Waiting]] = {}
    for row in deed.deferred:
        what = (row.schema.table, row.refusal.constraint, row.refusal.code)
        found.setdefault(what, []).append(row)
    return [
        Finding(table, "", Outcome.DEFERRED, code, constraint, len(rows), rows[0].key)
        for (table, constraint, code), rows in found.items()
    ]
