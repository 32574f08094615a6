"""Marker tables: made, read and written.

A table of markers is made together with its first row, in one statement, so that there is never one
without it: every later change also changes that row, and so BigQuery lets only one of two pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from warp import metadata_rows
from warp.destinations.bigquery import markers, verdicts
from warp.destinations.bigquery.markers import COLUMNS, Group
from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.verdicts import Verdict
from warp.model import Marker, Phase, Position, TableId, UnitKind, WorkUnit

UNREGISTERED: Final = "unregistered"
"""The phase of a first row that nobody has registered yet: for everyone else it is not there."""

_FIRST: Final = {
    "fence": "0",
    "owner": "''",
    "epoch": "0",
    "position_seconds": "0.0",
    "batch": "0",
    "row_count": "0",
    "phase": f"'{UNREGISTERED}'",
    "updated_at": "CURRENT_TIMESTAMP()",
    "schema_version": "0",
    "truncated_at": "-1",
    "sweep_below": "-1",
    "writes": "0",
    "aside": "0",
}


class Groups:
    """The marker tables of one metadata dataset."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._made: set[str] = set()

    def quoted(self, group: str) -> str:
        return self._session.meta(group)

    # -- reading

    def of_table(self, schema: str, table: TableId) -> Group:
        """The marker table of a source table, as it is now; made where there is none."""
        unit = WorkUnit.of_table(schema, table)
        name = markers.group_of(unit)
        rows = self._session.rows(name)
        if not rows:
            self.ensure(unit)
            rows = self._session.rows(name)
        self._made.add(name)
        return _group(name, rows, unit.id)

    def marker(self, unit: WorkUnit) -> Marker | None:
        return known(self._session.rows(markers.group_of(unit))).get(unit.id)

    def all(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        rows = self._session.many(self.names(kinds))
        return [m for m in known(rows).values() if not kinds or m.unit.kind in kinds]

    def names(self, kinds: Sequence[UnitKind] = ()) -> list[str]:
        """The marker tables that may have markers of these kinds: each is a request to read."""
        return [name for name in self._session.tables("") if markers.may_hold(name, kinds)]

    def of_schema(self, schema: str) -> list[Group]:
        """Those of all source tables of a schema."""
        found: dict[str, TableId] = {}
        for marker in self.all():
            if marker.unit.schema == schema and marker.unit.table is not None:
                found[str(marker.unit.table)] = marker.unit.table
        return [self.of_table(schema, table) for table in found.values()]

    # -- writing

    def ensure(self, unit: WorkUnit) -> str:
        """The unit's marker table is there, with its first row; its name."""
        name = markers.group_of(unit)
        if name not in self._made:
            first = unit if unit.table is None else WorkUnit.of_table(unit.schema, unit.table)
            self._make(name, first)
            self._made.add(name)
        return name

    def _make(self, name: str, first: WorkUnit) -> None:
        of = {
            "unit": first.id,
            "kind": first.kind.value,
            "schema_name": first.schema,
            "source_namespace": first.table.namespace if first.table else None,
            "source_table": first.table.name if first.table else None,
        }
        script = Script()
        cells = []
        for column, type_ in COLUMNS:
            if column in of and of[column] is not None:
                value = literal(str(of[column]))
            else:
                value = _FIRST.get(column, "NULL")
            cells.append(f"CAST({value} AS {type_}) AS {quoted(column)}")
        script.add(f"CREATE TABLE IF NOT EXISTS {self.quoted(name)} AS SELECT {', '.join(cells)}")
        try:
            self._session.until_alone(lambda: self._session.query(script))
        except Told as told:
            # Of two that make it at once, one may be told so in spite of IF NOT EXISTS.
            if told.verdict is not Verdict.EXISTS:
                raise

    def bump(self, script: Script, group: Group, **changes: Any) -> None:
        """Every writer of the group passes here; refused where anybody did since it was read.

        `changes` are columns of the first row: SQL, or a value with its type.
        """
        sets = ["writes = writes + 1", "updated_at = CURRENT_TIMESTAMP()"]
        for column, value in changes.items():
            bound = value if isinstance(value, str) else script.bind(value[1], value[0])
            sets.append(f"{column} = {bound}")
        script.add(
            f"UPDATE {self.quoted(group.name)} SET {', '.join(sets)}"
            f" WHERE unit = {script.bind(group.unit)} AND writes = {script.bind(group.writes)}"
        )
        script.require_one(verdicts.TABLE)

    def add(
        self,
        script: Script,
        name: str,
        unit: WorkUnit,
        *,
        phase: Phase,
        position: Position | None = None,
        fence: int = 0,
    ) -> None:
        """A new marker, where the caller has seen that there is none and bumps the group."""
        values = markers.to_values(
            unit, position=position, phase=phase, epoch=metadata_rows.epoch_of(unit)
        )
        script.named("add_marker", {"group": self.quoted(name)}, **values, fence=("INT64", fence))

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        """Add the marker unless it is there; True when this call added it."""
        name = self.ensure(unit)

        def make() -> Script | None:
            rows = {row["unit"]: row for row in self._session.rows(name)}
            script = Script()
            if unit.table is None or unit.kind is UnitKind.TABLE:
                if rows[unit.id]["phase"] != UNREGISTERED:
                    return None
                place = markers.place_of(position)
                group = _group(name, list(rows.values()), unit.id)
                self.bump(script, group, phase=("STRING", phase.value), **place)
            else:
                if unit.id in rows:
                    return None
                first = WorkUnit.of_table(unit.schema, unit.table).id
                group = _group(name, list(rows.values()), first)
                self.bump(script, group)
                self.add(script, name, unit, phase=phase, position=position)
            return script

        return self._session.patiently(make)


def _group(name: str, rows: Sequence[dict[str, Any]], unit: str) -> Group:
    return Group(name, known(rows), {row["unit"]: row for row in rows}, unit)


def known(rows: Sequence[Mapping[str, Any]]) -> dict[str, Marker]:
    """The markers of these rows, by their units' ids."""
    return {row["unit"]: markers.from_row(row) for row in rows if row["phase"] != UNREGISTERED}
