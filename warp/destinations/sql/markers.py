"""Rows of sync_markers as Markers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp import metadata_rows
from warp.destinations.sql.session import Session
from warp.model import Marker, Phase, Position, WorkUnit


def from_row(session: Session, row: Sequence[Any]) -> Marker:
    """A marker from the columns in the order that read_markers.sql lists them."""
    *plain, spec, follows, slot = row
    said = None if spec is None else session.of_json(spec)
    return metadata_rows.marker(plain, said, follows=follows or "", slot=slot)


def to_parameters(
    session: Session,
    unit: WorkUnit,
    *,
    position: Position | None = None,
    phase: Phase,
    epoch: int = 0,
) -> dict[str, Any]:
    """What add_marker.sql asks for."""
    spec = metadata_rows.spec_of(unit)
    plain = metadata_rows.new_marker(unit, position=position, phase=phase, epoch=epoch)
    return plain | {"spec": None if spec is None else session.to_json(spec)}
