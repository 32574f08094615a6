"""One log, one follower: which stream follows a schema's log, and which tables that stream carries.

Where following a log twice costs as much again (a replication slot decodes everything, a binlog
thread sends everything), all schemas in stream mode share one stream.  Its schema's name is
`SHARED`; each table's own schema is in its settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from warp.model import (
    SHARED,
    Capture,
    Marker,
    Phase,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
)


def stream_of(schema: str, sharing: Collection[str]) -> WorkUnit:
    """The unit that follows the log of a schema, given the schemas that share one stream."""
    return WorkUnit.stream(SHARED if schema in sharing else schema)


class Together:
    """The selections of several schemas as one; no table is in two of them."""

    def __init__(self, parts: Mapping[str, TableSelection]) -> None:
        self.schemas = tuple(parts)
        self._parts = tuple(parts.values())
        self._known: dict[TableId, TableSettings | None] = {}

    def __call__(self, table: TableId) -> TableSettings | None:
        if table not in self._known:
            found = (part(table) for part in self._parts)
            self._known[table] = next((one for one in found if one is not None), None)
        return self._known[table]


class Followed:
    """Of a selection, what a stream carries: not the tables that are polled."""

    def __init__(self, selection: TableSelection) -> None:
        self.schemas = schemas_of(selection)
        self.namespace = getattr(selection, "namespace", None)
        self._selection = selection

    def __call__(self, table: TableId) -> TableSettings | None:
        settings = self._selection(table)
        return settings if settings is not None and settings.capture is Capture.LOG else None


def schemas_of(selection: TableSelection) -> Sequence[str] | None:
    """The schemas of a selection of several; None where it is of one."""
    schemas: Sequence[str] | None = getattr(selection, "schemas", None)
    return schemas


def schema_of_table(table: TableId, selection: TableSelection, unit: WorkUnit) -> str:
    """The schema whose table this is, for a unit that may carry tables of several."""
    settings = selection(table) if unit.schema == SHARED else None
    return settings.schema if settings is not None else unit.schema


def left_behind(
    stream: WorkUnit,
    markers: Iterable[Marker],
    *,
    polled: Collection[str],
    selections: Mapping[str, TableSelection],
) -> Iterator[WorkUnit]:
    """Tables whose changes a stream with these selections does not carry any more.

    They must be read anew should they come back, or what happened meanwhile would be missing
    (guarantee 4).  `polled` are the configured schemas without a stream.
    """
    markers = list(markers)
    polls = {(m.unit.schema, m.unit.table) for m in markers if m.unit.kind is UnitKind.POLL}
    own = {m.unit.schema for m in markers if m.unit.kind is UnitKind.STREAM}
    for marker in markers:
        schema, table = marker.unit.schema, marker.unit.table
        if marker.unit.kind is not UnitKind.TABLE or table is None:
            continue
        if marker.phase is Phase.PLANNED or (schema, table) in polls or schema in polled:
            continue
        if schema in own - {SHARED} if stream.schema == SHARED else schema != stream.schema:
            continue
        selection = selections.get(schema)
        if selection is None or selection(table) is None:
            yield marker.unit
