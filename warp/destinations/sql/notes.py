"""What goes beside a batch's rows: what is said about them, what became of those that did not
simply land, and how both are written into the metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warp import metadata_rows
from warp.destinations.sql.session import Session
from warp.model import (
    Aside,
    Finding,
    Marker,
    Operation,
    Position,
    QuarantinedRow,
    TableId,
    TableSelection,
    WorkUnit,
)
from warp.replays import OVERTAKEN
from warp.streams import schema_of_table


@dataclass(slots=True)
class Deed:
    """What a transaction did with the rows that it did not simply land."""

    aside: list[QuarantinedRow] = field(default_factory=list)
    # Rows of the batch that are not in their table, by what was to be done with them.
    missing: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)

    def set_aside(self, row: QuarantinedRow) -> None:
        self.aside.append(row)
        self.missing[row.table, row.operation] += 1


class Notes:
    """Writes of one connection into the metadata, within its write transactions."""

    def __init__(self, session: Session, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection

    def set_aside(self, unit: WorkUnit, rows: Sequence[QuarantinedRow], at: Position) -> None:
        """Rows for the quarantine; `at` is the place of those that do not tell their own."""
        lines = [
            {
                **aside_line(self._session, unit, self._schema_of(unit, row.table), row),
                "column": self._session.storable(row.column),
                **metadata_rows.place(row.position or at),
            }
            for row in rows
        ]
        if lines:
            self._session.each("set_aside", lines)

    def find(self, unit: WorkUnit, findings: Sequence[Finding], at: Position) -> None:
        """Lines of the error log."""
        # In one order, so that two units never wait for each other's line in a circle.
        lines = sorted(
            (self._line(unit, found, at) for found in findings),
            key=lambda line: str(line["finding"]),
        )
        if lines:
            self._session.each("note_finding", lines)

    def _line(self, unit: WorkUnit, found: Finding, at: Position) -> dict[str, Any]:
        """A finding as a line of the error log."""
        storable = self._session.storable
        what = f"expected {found.expected}, found {found.met}"
        sort = (str(found.table), found.column, found.outcome, found.met, found.expected)
        return {
            "code": f"CELL-{found.outcome.value}",
            "message": storable(f"{what}: {found.original}" if found.original else what),
            "unit": unit.id,
            "schema": self._schema_of(unit, found.table),
            "namespace": found.table.namespace,
            "table": found.table.name,
            "column": storable(found.column),
            "key": storable(found.key),
            "position": at.token,
            "action": found.outcome.value,
            "finding": storable("\x1f".join(sort)),
            "cells": found.cells,
            "original_length": found.original_length,
        }

    def _schema_of(self, unit: WorkUnit, table: TableId) -> str:
        return schema_of_table(table, self._selection, unit)


def aside_line(
    session: Session, unit: WorkUnit, schema: str, row: QuarantinedRow
) -> dict[str, Any]:
    """What every row of the quarantine says of itself."""
    return {
        "unit": unit.id,
        "schema": schema,
        "namespace": row.table.namespace,
        "table": row.table.name,
        "key": session.storable(row.key),
        "operation": chr(row.operation),
        "row": session.storable(row.row),
        "reason": session.storable(row.reason),
        "code": row.code,
        "version": row.version,
        "kinds": session.to_json(dict(row.kinds)),
        "partial": row.partial,
        "state": (Aside.SUPERSEDED if row.overtaken else Aside.WAITING).value,
        "why": OVERTAKEN if row.overtaken else "",
    }


def place_of(marker: Marker) -> Position:
    return marker.position or Position("")
