"""A row that its table would not take, as the quarantine keeps it.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp import stored
from warp.errors import DestinationRefused
from warp.model import (
    UNCHANGED,
    Operation,
    Position,
    QuarantinedRow,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.options import redact
from warp.staged import Staged


def operation_of(part: Staged, row: int) -> Operation:
    """What was to be done; a row that keeps some of its cells is an update."""
    code = part.operations[row]
    known = {operation.value for operation in Operation}
    return Operation(code) if code in known else Operation.UPDATE


def is_partial(operation: Operation, cells: Sequence[Any]) -> bool:
    return operation is not Operation.DELETE and any(cell is UNCHANGED for cell in cells)


def quarantined(
    schema: TableSchema,
    cells: Sequence[Any],
    operation: Operation,
    version: int,
    *,
    reason: str,
    code: str,
    position: Position | None = None,
) -> QuarantinedRow:
    return QuarantinedRow(
        table=schema.table,
        key=stored.dump(schema.columns, cells, schema.key),
        operation=operation,
        row=stored.dump(schema.columns, cells),
        reason=reason,
        code=code,
        position=position,
        version=version,
        kinds=stored.kinds_of(schema.columns) if schema.key else {},  # nobody could tell it again
        partial=is_partial(operation, cells),
    )


def must_have_quarantine(
    settings: TableSettings | None, table: TableId, key: str, reason: str
) -> None:
    """Nothing is dropped: without a quarantine the unit stops at the row (guarantee 4)."""
    if settings is not None and not settings.dead_letter_queue:
        raise DestinationRefused(
            f"a row cannot be stored and dead_letter_queue is off: {redact(reason)}; "
            "mend the row at the source or turn the dead letter queue on",
            place=f"{table} {key}",
        )
