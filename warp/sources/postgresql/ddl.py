"""What the log does not say of changed columns.

A Relation message lists the columns of a moment.  It does not say whether a column was renamed, nor
which value an old row has in a new one: such rows have no event (seen on 15 and 18).  A table whose
old rows are not what the destination makes of them is read anew; the destination keeps its columns.
"""

from __future__ import annotations

from typing import Final

import structlog

from warp.sources.postgresql.catalog import Catalog
from warp.sources.postgresql.pgoutput import RelationMessage

log = structlog.get_logger(__name__)

_INT2, _INT4, _INT8, _FLOAT4, _FLOAT8, _TEXT, _VARCHAR = 21, 23, 20, 700, 701, 25, 1043

# Old values are what they were, once read again as the new type.
_SAME_VALUES: Final = frozenset(
    {
        (_INT2, _INT4),
        (_INT2, _INT8),
        (_INT4, _INT8),
        (_FLOAT4, _FLOAT8),
        (_VARCHAR, _TEXT),
        (_TEXT, _VARCHAR),
    }
)


class SeenColumns:
    """The columns of each relation as its rows last came."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._seen: dict[int, RelationMessage] = {}

    def ask_for_a_reload(self, now: RelationMessage) -> bool:
        """Did old rows change without an event since the last message of this relation?"""
        before = self._seen.get(now.oid)
        self._seen[now.oid] = now
        if before is None:
            return False
        if before.table != now.table:
            log.warning("table_renamed", table=str(before.table), to=str(now.table))
        old = dict(zip(before.columns, before.types, strict=True))
        new = dict(zip(now.columns, now.types, strict=True))
        dropped = [name for name in old if name not in new]
        added = [name for name in new if name not in old]
        retyped = [
            name
            for name in new
            if name in old and old[name] != new[name] and (old[name], new[name]) not in _SAME_VALUES
        ]
        renamed = [
            (a, b)
            for a, b in zip(before.columns, now.columns, strict=False)
            if a in dropped and b in added
        ]
        filled = self._filled(now, added) if added else []
        if not (dropped or added or retyped):
            return False
        reload = bool(renamed or filled or retyped)
        log.warning(
            "columns_changed",
            table=str(now.table),
            added=added,
            dropped=dropped,
            renamed=[f"{a} -> {b}" for a, b in renamed],
            retyped=retyped,
            filled_by_default=filled,
            action="the table is read anew; columns that are gone are kept at the destination"
            if reload
            else "new columns are added; columns that are gone are kept at the destination",
        )
        return reload

    def _filled(self, now: RelationMessage, added: list[str]) -> list[str]:
        """New columns that old rows have a value in: the default they were added with."""
        found = self._catalog.shapes([now.oid]).get(now.oid)
        if found is None:
            return []
        return [c.name for c in found.columns if c.name in added and c.filled]
