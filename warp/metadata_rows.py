"""Rows of the metadata tables as the model's nouns, and back.  Pure: whoever reads them says how
its server keeps JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warp import key_range
from warp.model import (
    Aside,
    Chunk,
    ErrorLine,
    Marker,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    SetAside,
    TableId,
    UnitKind,
    WorkUnit,
)


def marker(
    row: Sequence[Any], spec: Mapping[str, Any] | None, *, follows: str, slot: float | None
) -> Marker:
    """A marker from the columns in the order that read_markers.sql lists them, up to its `spec`."""
    (id_, kind, schema, namespace, table_name, fence, owner, epoch, token, seconds, batch, rows,
     phase, updated_at, schema_version, truncated_at, sweep_below) = row  # fmt: skip
    table = None if namespace is None else TableId(namespace, table_name)
    chunk = within = None
    if spec is not None and table is not None and "within" in spec:
        within = key_range.load(spec["within"])
    elif spec is not None and table is not None:
        chunk = chunk_of(table, spec)
    return Marker(
        WorkUnit(id_, UnitKind(kind), schema, table, chunk),
        fence=fence,
        owner=owner,
        epoch=epoch,
        position=None if token is None else Position(token, seconds),
        batch=batch,
        rows=rows,
        phase=Phase(phase),
        updated_at=updated_at,
        schema_version=schema_version,
        truncated_at=truncated_at,
        sweep_below=sweep_below,
        within=within,
        follows=follows,
        slot=slot,
    )


def chunk_of(table: TableId, spec: Mapping[str, Any]) -> Chunk:
    return Chunk(table, spec["number"], spec["lower"], spec["upper"], spec["rows"])


def spec_of(unit: WorkUnit) -> dict[str, Any] | None:
    """What a marker keeps of a chunk beside the columns that every unit has."""
    chunk = unit.chunk
    if chunk is None:
        return None
    return {
        "number": chunk.number,
        "lower": chunk.lower,
        "upper": chunk.upper,
        "rows": chunk.rows,
    }


def new_marker(
    unit: WorkUnit, *, position: Position | None = None, phase: Phase, epoch: int = 0
) -> dict[str, Any]:
    """What add_marker.sql asks for, but for the `spec`."""
    return {
        "unit": unit.id,
        "kind": unit.kind.value,
        "schema": unit.schema,
        "namespace": unit.table.namespace if unit.table else None,
        "table": unit.table.name if unit.table else None,
        "epoch": epoch,
        "phase": phase.value,
        **place(position),
    }


def place(position: Position | None) -> dict[str, Any]:
    return {
        "position": None if position is None else position.token,
        "position_seconds": 0.0 if position is None else position.committed_at,
    }


def epoch_of(unit: WorkUnit) -> int:
    """The epoch a chunk was planned in, or the pass of a verification; part of the unit's id."""
    of_range = unit.kind in (UnitKind.CHUNK, UnitKind.VERIFY)
    return int(unit.id.rsplit(":", 2)[1]) if of_range else 0


def set_aside(row: Sequence[Any], kinds: Mapping[str, str]) -> SetAside:
    """A row of the quarantine from the columns in the order that read_quarantine.sql lists them."""
    (id, schema, unit, namespace, table, key, operation, values, reason, code, token, seconds,
     version, _, partial, column, state, at, tries, tried_at, last_error) = row  # fmt: skip
    return SetAside(
        id,
        schema,
        unit,
        QuarantinedRow(
            TableId(namespace, table),
            key,
            Operation(ord(operation)),
            values,
            reason,
            code,
            None if token is None else Position(token, seconds),
            version,
            dict(kinds),
            bool(partial),
            column,
        ),
        Aside(state),
        at,
        tries,
        tried_at,
        last_error,
    )


KINDS_OF_SET_ASIDE = 13
"""Where the kinds of a row's cells stand among the columns of read_quarantine.sql."""


def error_line(row: Sequence[Any]) -> ErrorLine:
    """A line of the error log from the columns in the order that read_errors.sql lists them."""
    (id, at, last_at, code, error_class, message, schema, unit, namespace, table, column, key,
     position, action, cells, original_length) = row  # fmt: skip
    return ErrorLine(
        id,
        at,
        last_at,
        code,
        error_class,
        message,
        schema,
        unit,
        None if namespace is None else TableId(namespace, table),
        column,
        key,
        position or "",
        action,
        cells,
        original_length,
    )
