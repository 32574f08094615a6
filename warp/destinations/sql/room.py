"""What of a new table's columns it has room for.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from warp.model import Column, Kind, Role, TableSchema


def fitted(schema: TableSchema, has_room: Callable[[Sequence[Column], Kind], bool]) -> TableSchema:
    """Without the fields for which a new table has no room, where their values have another place:
    they stay in `_extra`, or in `doc` alone.
    """
    if all(column.role is Role.FIELD for column in schema.columns):
        return schema
    kept = [c for c in schema.columns if c.role is not Role.FIELD or c.name in schema.key]
    chosen = set(kept)
    for column in schema.columns:
        if column not in chosen and has_room(kept, column.kind):
            kept.append(column)
            chosen.add(column)
    return replace(schema, columns=tuple(c for c in schema.columns if c in chosen))
