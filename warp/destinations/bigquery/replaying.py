"""Rows that come out of quarantine: which of them land, and what becomes of the others.

What is found of their keys is as old as the table's `writes`, which the transaction asserts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from warp import replays
from warp.destinations.bigquery import staged
from warp.destinations.bigquery.merge import Landing
from warp.destinations.bigquery.staged import Staged
from warp.destinations.bigquery.staging import Staging
from warp.destinations.bigquery.tables import Table
from warp.errors import LeaseLost
from warp.model import Aside, ChangeBatch, Operation, Replay, SetAside, TableId, WorkUnit


@dataclass(slots=True)
class Part:
    """One table's changes on their way."""

    staged: Staged
    landing: Landing


@dataclass(slots=True)
class Replaying:
    """The rows of one write transaction that come out of quarantine."""

    ids: list[int]
    rows: Mapping[int, SetAside]
    operations: list[Operation]  # as they came: the staged ones do not tell a partial read
    became: dict[int, tuple[str, str]] = field(default_factory=dict)
    unlanded: list[tuple[TableId, Operation]] = field(default_factory=list)

    @classmethod
    def begun(
        cls, replay: Replay, rows: Mapping[int, SetAside], batch: ChangeBatch, unit: WorkUnit
    ) -> Self:
        wanted = [*replay.ids, *replay.refused]
        gone = [id for id in wanted if id not in rows or rows[id].state is not Aside.REPLAYING]
        if gone:
            raise LeaseLost(
                f"expected rows of the quarantine that are to be replayed, found {len(gone)} "
                f"decided about meanwhile (the first is {min(gone)}); drop the batch",
                place=unit.id,
            )
        operations = [Operation(code) for part in batch.changes for code in part.operations]
        refused = {id: (Aside.WAITING.value, why) for id, why in replay.refused.items()}
        return cls(list(replay.ids), rows, operations, refused)

    def sift(
        self,
        part: Part,
        first: int,
        table: Table,
        staging: Staging,
        *,
        soft: str | None,
        truncated_at: int,
    ) -> int:
        """Leave the rows that nothing newer overrules; how many were looked at, from `first` on."""
        rows = part.staged
        odd = staged.unfit(rows)
        fit = [row for row in range(len(rows)) if row not in odd]
        places = [n for n, c in enumerate(rows.schema.columns) if c.name in rows.schema.key]
        found = staging.standings(
            table,
            [[rows.columns[place][row] for row in fit] for place in places],
            [rows.versions[row] for row in fit],
            soft=soft,
            audit=True,
        )
        standings = dict(zip(fit, (standing for standing, _ in found), strict=True))
        lands: list[int] = []
        for row in range(len(rows)):
            id, operation = self.ids[first + row], self.operations[first + row]
            state, why = Aside.WAITING, odd.get(row, "")
            if not why:
                why = replays.overruled(
                    operation,
                    rows.versions[row],
                    standings[row],
                    cell=bool(self.rows[id].row.column),
                    truncated_at=truncated_at,
                )
                state = Aside.SUPERSEDED if why else Aside.REPLAYED
            self.became[id] = (state.value, why)
            if why:
                self.unlanded.append((rows.schema.table, operation))
            else:
                lands.append(row)
        if len(lands) < len(rows):
            part.staged = rows.only(lands)
        return len(rows)
