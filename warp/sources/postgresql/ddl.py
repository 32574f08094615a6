"""What the log does not say of changed columns.

A Relation message lists the columns of a moment.  It does not say whether a column was renamed, nor
which value an old row has in a new one: such rows have no event (seen on 15 and 18).  A table whose
old rows are not what the destination makes of them is read anew; the destination keeps its columns.

Between two owners of the stream nobody has seen the columns of before.  So a position carries a
horizon: what transactions older than it did to columns is accounted for.  A table that a younger
one has changed is read anew when the stream begins, once: the position says that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from warp.model import TableId
from warp.sources.postgresql.catalog import Catalog, Table
from warp.sources.postgresql.pgoutput import RelationMessage
from warp.sources.postgresql.position import Place

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


Columns = tuple[tuple[str, ...], tuple[int, ...]]
"""Names and type oids, in the table's order."""


class SeenColumns:
    """The columns of each relation as its rows last came."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._seen: dict[int, Columns] = {}
        self._accounted: dict[int, Columns] = {}
        self._oids: dict[TableId, int] = {}

    def begin(self, tables: Sequence[Table], place: Place) -> set[TableId]:
        """Which of the tables to read anew, since their columns changed behind the marker."""
        oids = [t.oid for t in tables]
        changed = self._catalog.changed_since(oids, place.horizon)
        unread = changed and self._catalog.changed_since(oids, place.read_anew)
        now = self._now(oids)
        self._accounted = dict(now)
        self._oids = {t.id: t.oid for t in tables}
        # The log may still hold rows of the older columns of a changed table.
        self._seen = {oid: columns for oid, columns in now.items() if oid not in changed}
        reload = {t.id for t in tables if t.oid in unread}
        for table in sorted(reload):
            log.warning(
                "columns_changed",
                table=str(table),
                action="the table is read anew: columns changed while nobody followed its log",
            )
        return reload

    def all_accounted(self, tables: Sequence[Table], horizon: int) -> bool:
        """Has the log told of every change of columns since the horizon?"""
        changed = self._catalog.changed_since([t.oid for t in tables], horizon)
        return not changed or all(
            self._accounted.get(oid) == columns for oid, columns in self._now(changed).items()
        )

    def _now(self, oids: Iterable[int]) -> dict[int, Columns]:
        return {
            oid: (tuple(c.name for c in s.columns), tuple(c.type_oid for c in s.columns))
            for oid, s in self._catalog.shapes(list(oids)).items()
        }

    def ask_for_a_reload(self, now: RelationMessage) -> bool:
        """Did old rows change without an event since the last message of this relation?"""
        before = self._seen.get(now.oid)
        self._seen[now.oid] = self._accounted[now.oid] = now.columns, now.types
        former, self._oids[now.table] = self._oids.get(now.table, now.oid), now.oid
        if former != now.oid:
            # Renamed into its place, or made anew: its rows may be there without an event.
            log.warning("table_replaced", table=str(now.table), action="the table is read anew")
            return True
        if before is None or before == self._seen[now.oid]:
            return False
        columns_before, types_before = before
        old = dict(zip(columns_before, types_before, strict=True))
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
            for a, b in zip(columns_before, now.columns, strict=False)
            if a in dropped and b in added
        ]
        filled = self._filled(now, added) if added else []
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
