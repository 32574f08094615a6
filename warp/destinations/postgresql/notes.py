"""What goes beside a batch's rows: what is said about them, what became of those that did not
simply land, and how both are written into the metadata schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from warp import metadata_rows
from warp.destinations.postgresql.deferral import Tried, Waiting
from warp.destinations.postgresql.session import Session, storable
from warp.model import (
    Finding,
    Marker,
    Operation,
    Outcome,
    Position,
    QuarantinedRow,
    TableId,
    TableSelection,
    WorkUnit,
)
from warp.streams import schema_of_table


@dataclass(slots=True)
class Deed:
    """What a transaction did with the rows that it did not simply land."""

    aside: list[QuarantinedRow] = field(default_factory=list)
    # Rows of the batch that are not in their table, by what was to be done with them.
    missing: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)
    waiting: list[Waiting] = field(default_factory=list)  # rows of the batch, while it lasts
    deferred: list[Waiting] = field(default_factory=list)
    late: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)  # landed at last

    def set_aside(self, row: QuarantinedRow) -> None:
        self.aside.append(row)
        self.missing[row.table, row.operation] += 1

    def add(self, tried: Tried) -> None:
        self.late += tried.landed
        self.aside += tried.given_up
        self.missing += tried.missing
        self.deferred += tried.deferred


class Notes:
    """Writes of one connection into the metadata schema, within its write transactions."""

    def __init__(self, session: Session, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection

    def set_aside(self, unit: WorkUnit, rows: Sequence[QuarantinedRow], at: Position) -> None:
        """Rows for the quarantine; `at` is the place of those that do not tell their own."""
        if not rows:
            return
        with self._session.connect().cursor() as cursor:
            cursor.executemany(
                self._session.statement("set_aside"),
                [
                    {
                        "unit": unit.id,
                        "schema": schema_of_table(row.table, self._selection, unit),
                        "namespace": row.table.namespace,
                        "table": row.table.name,
                        "key": storable(row.key),
                        "operation": chr(row.operation),
                        "row": storable(row.row),
                        "reason": storable(row.reason),
                        "code": row.code,
                        "version": row.version,
                        "kinds": Jsonb(dict(row.kinds)),
                        "partial": row.partial,
                        "column": storable(row.column),
                        **metadata_rows.place(row.position or at),
                    }
                    for row in rows
                ],
            )

    def find(self, unit: WorkUnit, findings: Sequence[Finding], at: Position) -> None:
        """Lines of the error log."""
        if not findings:
            return
        with self._session.connect().cursor() as cursor:
            # In one order, so that two units never wait for each other's line in a circle.
            lines = sorted(
                (
                    _line(unit, schema_of_table(found.table, self._selection, unit), found, at)
                    for found in findings
                ),
                key=_by_finding,
            )
            cursor.executemany(self._session.statement("note_finding"), lines)


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


def place_of(marker: Marker) -> Position:
    return marker.position or Position("")


def _line(unit: WorkUnit, schema: str, found: Finding, at: Position) -> dict[str, Any]:
    """A finding as a line of the error log."""
    what = f"expected {found.expected}, found {found.met}"
    return {
        "code": f"CELL-{found.outcome.value}",
        "message": storable(f"{what}: {found.original}" if found.original else what),
        "unit": unit.id,
        "schema": schema,
        "namespace": found.table.namespace,
        "table": found.table.name,
        "column": storable(found.column),
        "key": storable(found.key),
        "position": at.token,
        "action": found.outcome.value,
        "finding": storable(
            "\x1f".join((str(found.table), found.column, found.outcome, found.met, found.expected))
        ),
        "cells": found.cells,
        "original_length": found.original_length,
    }


def _by_finding(line: Mapping[str, Any]) -> str:
    return str(line["finding"])
