"""Rows of sync_markers as Markers, and back, as psycopg brings and takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from warp import metadata_rows
from warp.model import Marker, Phase, Position, WorkUnit


def from_row(row: Sequence[Any]) -> Marker:
    """A marker from the columns in the order that read_markers.sql lists them."""
    *plain, spec, slot = row
    of_stream = spec is not None and "follows" in spec
    follows = spec["follows"] if of_stream else ""
    return metadata_rows.marker(plain, spec, follows=follows, slot=slot)


def to_parameters(
    unit: WorkUnit, *, position: Position | None = None, phase: Phase, epoch: int = 0
) -> dict[str, Any]:
    """What add_marker.sql asks for."""
    spec = metadata_rows.spec_of(unit)
    plain = metadata_rows.new_marker(unit, position=position, phase=phase, epoch=epoch)
    return plain | {"spec": None if spec is None else Jsonb(spec)}
