"""Where markers lie, and rows of them as Markers and back.  Pure.

BigQuery cancels a transaction when another one has changed the same table meanwhile, whichever
rows.  So each stream has a marker table of its own; and each source table has one, for its own row,
its chunks, its poll and its replay, which change one and the same destination table anyway.  What
is compared of it is in a table beside that: to note what was found shall not stop who writes.

The row of kind `table` counts in `writes` every transaction that changes its table or any marker
beside it: whoever decides by what he has read says which count he has seen.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from warp import metadata_rows
from warp.destinations.bigquery.names import digest, readable
from warp.model import Marker, Phase, Position, TableId, UnitKind, WorkUnit

PREFIX: Final = "markers_"
_COMPARED: Final = "comparisons_"  # the prefix of those of verifications

COLUMNS: Final = (
    ("unit", "STRING"),
    ("kind", "STRING"),
    ("schema_name", "STRING"),
    ("source_namespace", "STRING"),
    ("source_table", "STRING"),
    ("fence", "INT64"),
    ("owner", "STRING"),
    ("epoch", "INT64"),
    ("position", "STRING"),
    ("position_seconds", "FLOAT64"),
    ("batch", "INT64"),
    ("row_count", "INT64"),
    ("phase", "STRING"),
    ("updated_at", "TIMESTAMP"),
    ("schema_version", "INT64"),
    ("truncated_at", "INT64"),
    ("sweep_below", "INT64"),
    ("spec", "STRING"),  # of a chunk its range, of a stream what it follows, of a table its columns
    ("run", "STRING"),  # under way
    ("run_slot", "FLOAT64"),
    ("slot", "FLOAT64"),  # of the last complete run
    ("writes", "INT64"),
    ("aside", "INT64"),  # rows of the table that were ever set aside
    ("pending", "STRING"),  # a change of the table's columns that is being made
)


def group_of(unit: WorkUnit) -> str:
    """The marker table of a unit."""
    if unit.table is None:
        return f"{PREFIX}{readable(unit.id)}_{digest(unit.id, 12)}"
    group = group_of_table(unit.schema, unit.table)
    if unit.kind is UnitKind.VERIFY:
        return _COMPARED + group.removeprefix(PREFIX)
    return group


def group_of_table(schema: str, table: TableId) -> str:
    whole = "\x1f".join((schema, table.namespace, table.name))
    return f"{PREFIX}{readable(schema, 30)}_{readable(table.name, 60)}_{digest(whole, 12)}"


def may_hold(group: str, kinds: Collection[UnitKind]) -> bool:
    """May a table of this name have markers of one of these kinds (none named: of any)?"""
    wanted = frozenset(kinds)
    if group.startswith(_COMPARED):
        return not wanted or UnitKind.VERIFY in wanted
    if wanted and wanted <= {UnitKind.STREAM, UnitKind.VERIFY}:
        # A schema called `stream` has such names too.
        return UnitKind.STREAM in wanted and group.startswith(f"{PREFIX}{UnitKind.STREAM.value}_")
    return group.startswith(PREFIX)


def from_row(row: Mapping[str, Any]) -> Marker:
    table = None
    if row["source_namespace"] is not None:
        table = TableId(row["source_namespace"], row["source_table"])
    kind = UnitKind(row["kind"])
    spec = json.loads(row["spec"]) if row["spec"] else {}
    chunk = None
    if kind in (UnitKind.CHUNK, UnitKind.VERIFY) and table is not None:
        chunk = metadata_rows.chunk_of(table, spec)
    return Marker(
        WorkUnit(row["unit"], kind, row["schema_name"], table, chunk),
        fence=row["fence"],
        owner=row["owner"],
        epoch=row["epoch"],
        position=None
        if row["position"] is None
        else Position(row["position"], row["position_seconds"]),
        batch=row["batch"],
        rows=row["row_count"],
        phase=Phase(row["phase"]),
        updated_at=row["updated_at"].timestamp(),
        schema_version=row["schema_version"],
        truncated_at=row["truncated_at"],
        sweep_below=row["sweep_below"],
        follows=spec.get("follows", "") if kind is UnitKind.STREAM else "",
        slot=row["slot"],
    )


def to_values(
    unit: WorkUnit, *, position: Position | None = None, phase: Phase, epoch: int = 0
) -> dict[str, tuple[str, Any]]:
    """What a new marker is added with, each value with its type."""
    spec = metadata_rows.spec_of(unit)
    return {
        "unit": ("STRING", unit.id),
        "kind": ("STRING", unit.kind.value),
        "schema": ("STRING", unit.schema),
        "namespace": ("STRING", unit.table.namespace if unit.table else None),
        "table": ("STRING", unit.table.name if unit.table else None),
        "epoch": ("INT64", epoch),
        "position": ("STRING", None if position is None else position.token),
        "position_seconds": ("FLOAT64", 0.0 if position is None else position.committed_at),
        "phase": ("STRING", phase.value),
        "spec": ("STRING", None if spec is None else json.dumps(spec)),
    }


def place_of(position: Position | None) -> dict[str, tuple[str, Any]]:
    return {
        "position": ("STRING", None if position is None else position.token),
        "position_seconds": ("FLOAT64", 0.0 if position is None else position.committed_at),
    }


@dataclass(frozen=True, slots=True)
class Group:
    """The marker table of one source table, as it was read at one moment."""

    name: str
    markers: Mapping[str, Marker]
    rows: Mapping[str, Mapping[str, Any]]
    unit: str  # the id of the table's own row

    @property
    def table(self) -> Marker | None:
        return self.markers.get(self.unit)

    @property
    def row(self) -> Mapping[str, Any]:
        return self.rows[self.unit]

    @property
    def writes(self) -> int:
        return int(self.row["writes"]) if self.unit in self.rows else -1

    @property
    def chunks(self) -> list[Marker]:
        return [m for m in self.markers.values() if m.unit.kind is UnitKind.CHUNK]


def table_of(row: Mapping[str, Any]) -> TableId:
    return TableId(row["source_namespace"], row["source_table"])
