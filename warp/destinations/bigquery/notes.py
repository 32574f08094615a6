"""What goes beside a batch's rows: what is set aside, and lines of the error log.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from warp import stored
from warp.destinations.bigquery import markers, quarantine
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.metadata import storable
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.staged import Staged
from warp.errors import DestinationRefused
from warp.model import (
    Aside,
    Finding,
    Operation,
    Position,
    QuarantinedRow,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.replays import OVERTAKEN
from warp.streams import schema_of_table

CODE: Final = "bigquery-value"


def refused(part: Staged, row: int, why: str, settings: TableSettings | None) -> QuarantinedRow:
    """A row that no table here could hold, for the quarantine."""
    table = part.schema.table
    key = part.key_of(row)
    if settings is not None and not settings.dead_letter_queue:
        raise DestinationRefused(
            f"expected a row that BigQuery can hold, found {why} (key {key}); correct it at the "
            "source, or set error_handling.dead_letter_queue to set such rows aside",
            place=str(table),
        )
    keeps = any(row in rows for rows in part.kept.values())
    return QuarantinedRow(
        table,
        key,
        Operation(part.operations[row]),
        part.row_of(row),
        why,
        CODE,
        version=part.versions[row],
        kinds=stored.kinds_of(part.schema.columns),
        partial=keeps,
    )


def set_aside(
    script: Script,
    places: dict[str, str],
    numbers: Numbers,
    selection: TableSelection,
    unit: WorkUnit,
    rows: Sequence[QuarantinedRow],
    at: Position,
) -> None:
    overtaken: dict[int, tuple[str, str]] = {}
    for row in rows:
        id = numbers.draw()
        if row.overtaken:
            overtaken[id] = Aside.SUPERSEDED.value, OVERTAKEN
        script.named(
            "set_aside",
            places,
            id=id,
            unit=unit.id,
            schema=schema_of_table(row.table, selection, unit),
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
            **markers.place_of(row.position or at),
        )
    quarantine.decide(script, places, overtaken)


def find(
    script: Script,
    places: dict[str, str],
    numbers: Numbers,
    selection: TableSelection,
    unit: WorkUnit,
    findings: Sequence[Finding],
    at: Position,
) -> None:
    for found in findings:
        what = f"expected {found.expected}, found {found.met}"
        sort = (str(found.table), found.column, found.outcome, found.met, found.expected)
        script.named(
            "add_error",
            places,
            id=numbers.draw(),
            code=f"CELL-{found.outcome.value}",
            error_class="Finding",
            message=storable(f"{what}: {found.original}" if found.original else what),
            schema=schema_of_table(found.table, selection, unit),
            unit=unit.id,
            run="",
            namespace=found.table.namespace,
            table=found.table.name,
            column=storable(found.column),
            key=storable(found.key),
            position=at.token,
            action=found.outcome.value,
            finding=storable("\x1f".join(sort)),
            cells=found.cells,
            length=("INT64", found.original_length),
        )
