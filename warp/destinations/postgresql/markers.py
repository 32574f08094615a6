"""Rows of sync_markers as Markers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from warp import key_range
from warp.model import Chunk, Marker, Phase, Position, TableId, UnitKind, WorkUnit


def from_row(row: Sequence[Any]) -> Marker:
    """A marker from the columns in the order that read_markers.sql lists them."""
    (id_, kind, schema, namespace, table_name, fence, owner, epoch, token, seconds, batch, rows,
     phase, updated_at, schema_version, truncated_at, sweep_below, spec, slot) = row  # fmt: skip
    table = None if namespace is None else TableId(namespace, table_name)
    chunk = within = None
    if spec is not None and table is not None and "within" in spec:
        within = key_range.load(spec["within"])
    elif spec is not None and table is not None:
        chunk = Chunk(table, spec["number"], spec["lower"], spec["upper"], spec["rows"])
    follows = spec.get("follows", "") if spec is not None and chunk is None else ""
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


def to_parameters(
    unit: WorkUnit, *, position: Position | None = None, phase: Phase, epoch: int = 0
) -> dict[str, Any]:
    """What add_marker.sql asks for."""
    spec = None
    if unit.chunk is not None:
        chunk = unit.chunk
        spec = Jsonb(
            {
                "number": chunk.number,
                "lower": chunk.lower,
                "upper": chunk.upper,
                "rows": chunk.rows,
            }
        )
    return {
        "unit": unit.id,
        "kind": unit.kind.value,
        "schema": unit.schema,
        "namespace": unit.table.namespace if unit.table else None,
        "table": unit.table.name if unit.table else None,
        "epoch": epoch,
        "phase": phase.value,
        "spec": spec,
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
