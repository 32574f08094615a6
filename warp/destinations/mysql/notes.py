"""What goes beside a batch's rows: what is said about them, what became of those that did not
simply land, and how both are written into the metadata database.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warp import metadata_rows, stored
from warp.destinations.mysql.careful import Refusal
from warp.destinations.mysql.session import Session, storable
from warp.errors import DestinationRefused
from warp.model import (
    UNCHANGED,
    Finding,
    Marker,
    Operation,
    Position,
    QuarantinedRow,
    TableId,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.options import redact
from warp.staged import Staged
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


def quarantined(part: Staged, refusal: Refusal) -> QuarantinedRow:
    """The refused row of a part."""
    schema = part.schema
    cells = [column[refusal.row] for column in part.carriers]
    code = part.operations[refusal.row]
    known = {operation.value for operation in Operation}
    operation = Operation(code) if code in known else Operation.UPDATE
    return QuarantinedRow(
        table=schema.table,
        key=stored.dump(schema.columns, cells, schema.key),
        operation=operation,
        row=stored.dump(schema.columns, cells),
        reason=refusal.reason,
        code=refusal.code,
        version=part.versions[refusal.row],
        kinds=stored.kinds_of(schema.columns) if schema.key else {},  # nobody could tell it again
        partial=operation is not Operation.DELETE and any(c is UNCHANGED for c in cells),
    )


def must_have_quarantine(settings: TableSettings | None, row: QuarantinedRow) -> None:
    """Nothing is dropped: without a quarantine the unit stops at the row (guarantee 4)."""
    if settings is not None and not settings.dead_letter_queue:
        raise DestinationRefused(
            f"a row cannot be stored and dead_letter_queue is off: {redact(row.reason)}; "
            "mend the row at the source or turn the dead letter queue on",
            place=f"{row.table} {row.key}",
        )


class Notes:
    """Writes of one connection into the metadata database, within its write transactions."""

    def __init__(self, session: Session, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection

    def set_aside(self, unit: WorkUnit, rows: Sequence[QuarantinedRow], at: Position) -> None:
        """Rows for the quarantine; `at` is the place of those that do not tell their own."""
        for row in rows:
            self._session.named(
                "set_aside",
                unit=unit.id,
                schema=schema_of_table(row.table, self._selection, unit),
                namespace=row.table.namespace,
                table=row.table.name,
                key=storable(row.key),
                operation=chr(row.operation),
                row=storable(row.row),
                reason=storable(row.reason),
                code=row.code,
                version=row.version,
                kinds=json.dumps(dict(row.kinds)),
                partial=row.partial,
                column=storable(row.column),
                **metadata_rows.place(row.position or at),
            )

    def find(self, unit: WorkUnit, findings: Sequence[Finding], at: Position) -> None:
        """Lines of the error log."""
        # In one order, so that two units never wait for each other's line in a circle.
        lines = sorted(
            (
                _line(unit, schema_of_table(found.table, self._selection, unit), found, at)
                for found in findings
            ),
            key=lambda line: bytes(line["finding"]),
        )
        for line in lines:
            self._session.named("note_finding", **line)


def place_of(marker: Marker) -> Position:
    return marker.position or Position("")


def _line(unit: WorkUnit, schema: str, found: Finding, at: Position) -> dict[str, Any]:
    """A finding as a line of the error log."""
    what = f"expected {found.expected}, found {found.met}"
    name = "\x1f".join((str(found.table), found.column, found.outcome, found.met, found.expected))
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
        # By its hash: an index takes no text as long as names may be.
        "finding": hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest(),
        "cells": found.cells,
        "original_length": found.original_length,
    }
