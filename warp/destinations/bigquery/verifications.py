"""What was compared with the source and what was found, in the metadata dataset.

Lines that are only added: a unit is planned, then checked; a difference is found, then decided
about, and the last decision counts.  The line that ends a unit comes after those of its
differences, so that a unit that was cut short begins anew and says the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from warp import metadata_rows, stored
from warp.destinations.bigquery import books, markers, quarantine, verdicts
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.groups import Groups
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.metadata import places, storable
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session
from warp.digest.canonical import of_form
from warp.digest.comparing import Difference, Sort
from warp.digest.seams import Compared, Kept, Pass, Verified
from warp.digest.sums import Sums, total
from warp.errors import DestinationRefused
from warp.model import Aside, Chunk, Phase, Position, QuarantinedRow, TableId, WorkUnit
from warp.sql import load

MOST_UNITS: Final = 2_000  # of a pass: their markers are one statement, which has a megabyte
_LINES: Final = 300  # of one statement, which may bind ten thousand values


class BigQueryVerifications:
    """As `warp.digest.seams.Verifications`."""

    def __init__(
        self,
        session: Session,
        groups: Groups,
        numbers: Numbers,
        count_as_older: Callable[[Script, WorkUnit, int], None],
    ) -> None:
        self._session = session
        self._groups = groups
        self._numbers = numbers
        self._count_as_older = count_as_older

    # -- passes

    def plan(
        self, schema: str, chunks: Sequence[Chunk], *, number: int, repairs: bool = False
    ) -> bool:
        table = chunks[0].table
        if len(chunks) > MOST_UNITS:
            raise DestinationRefused(
                f"expected at most {MOST_UNITS} key ranges to be compared, found {len(chunks)}; "
                "raise chunk_rows of this table",
                place=str(table),
            )
        units = [WorkUnit.of_verification(schema, chunk, number) for chunk in chunks]
        name = self._groups.ensure(units[0])
        first = WorkUnit.of_table(schema, table).id
        where = _where(schema, table)
        planned = False

        def make() -> Script | None:
            nonlocal planned
            # Its first row excludes another planner.
            rows = {row["unit"]: row for row in self._session.rows(name)}
            group = Group(name, {}, rows, first)
            last = self._query("last_pass", **where)[0]["last"]
            if last is not None and last >= number:
                planned = planned and last == number  # by an earlier try, whose end nobody told
                return None
            planned = True
            script = Script()
            self._groups.bump(script, group)
            there = {"group": self._groups.quoted(name), **self._places()}
            script.named("abandon_verify_runs", there)
            script.add(f"DELETE FROM {there['group']} WHERE kind = 'verify'")
            _insert(script, there["group"], [_marker(unit) for unit in units])
            _insert(script, there["verifications"], [_planned(u, number, repairs) for u in units])
            return script

        with self._session.meaning(f"planning the verification of {table}"):
            return self._session.patiently(make) or planned

    def conclude(self, unit: WorkUnit, compared: Compared, verified: Verified) -> bool:
        table = unit.table
        if table is None:
            raise AssertionError("a unit of a verification has a table")
        where = _where(unit.schema, table)
        number = metadata_rows.epoch_of(unit)
        with self._session.meaning(f"noting what {unit.id} found"):
            mine = [u for u in self._units(where, number) if u["unit"] == unit.id]
            if not mine or self._groups.marker(unit) is None:  # a later pass has taken its place
                return False
            repairs = bool(mine[0]["repairs"])
            lines = [self._line(unit, number, compared, d) for d in verified.differences]
            for start in range(0, max(1, len(lines)), _LINES):
                keys = [line["key"][1] for line in lines[start : start + _LINES]]
                self._run("forget_differences", unit=unit.id, keys=_texts(keys), **where)
            for start in range(0, len(lines), _LINES):
                script = Script()
                _insert(script, self._places()["differences"], lines[start : start + _LINES])
                self._session.run(script)
            self._run(
                "add_checked",
                unit=unit.id,
                number=number,
                repairs=repairs,
                rows=verified.rows,
                digest=str(verified.digest),
                looks=verified.looks,
                aside=verified.aside,
                unsettled=verified.unsettled,
                **where,
                **markers.place_of(verified.position),
            )
            # Looked at after the line is there: of two that end a pass together one sees both.
            if all(u["checked"] for u in self._units(where, number)):
                self._run("close_differences", number=number, **where)
        return bool(repairs and lines)

    def passes(self, schema: str | None = None, table: TableId | None = None) -> list[Pass]:
        script = Script()
        asked = {
            "schema_name": schema,
            "source_namespace": table.namespace if table else None,
            "source_table": table.name if table else None,
        }
        conditions = [
            f"{column} = {script.bind(value)}"
            for column, value in asked.items()
            if value is not None
        ]
        there = self._places() | {"conditions": " AND ".join(["TRUE", *conditions])}
        script.named("read_passes", there)
        with self._session.meaning("reading the verifications"):
            return [_pass(row) for row in self._session.query(script)]

    def _units(self, where: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
        return self._query("planned_units", number=number, **where)

    # -- differences

    def open_differences(
        self, schema: str, table: TableId, *, after: int, limit: int, unit: str = ""
    ) -> list[Kept]:
        script = Script()
        script.add(
            script.text(
                "read_differences",
                self._places(),
                after=after,
                unit=unit,
                **_where(schema, table),
            )
            + f"\nLIMIT {int(limit)}"
        )
        with self._session.meaning(f"reading the differences of {table}"):
            return [
                Kept(
                    row["id"],
                    row["key"],
                    json.loads(row["kinds"]),
                    Sort(row["sort"]),
                    tuple(json.loads(row["column_names"])),
                    row["version"],
                    row["noted_at"].timestamp(),
                    row["state"],
                )
                for row in self._session.query(script)
            ]

    def decide(self, ids: Sequence[int], state: str) -> None:
        if not ids:
            return
        with self._session.meaning("deciding about differences"):
            self._run("decide_differences", ids=("ARRAY<INT64>", list(ids)), state=state)

    def _line(
        self, unit: WorkUnit, number: int, compared: Compared, found: Difference
    ) -> dict[str, Any]:
        cells = [of_form(c.kind, text) for c, text in zip(compared.key, found.key, strict=True)]
        return {
            "id": ("INT64", self._numbers.draw()),
            **_of(unit),
            "pass": ("INT64", number),
            "key": ("STRING", storable(stored.dump(compared.key, cells))),
            "kinds": ("STRING", json.dumps(stored.kinds_of(compared.key))),
            "sort": ("STRING", found.sort.value),
            "column_names": ("STRING", json.dumps(list(found.columns))),
            "version": ("INT64", found.version),
        }

    # -- rows that wait in the quarantine

    def set_aside(self, schema: str, table: TableId, keys: Sequence[str]) -> set[str]:
        with self._session.meaning(f"looking for rows of {table} that wait"):
            return {row["key"] for row in self._aside(schema, table, keys)}

    def waiting(self, schema: str, table: TableId, keys: Sequence[str]) -> dict[str, str]:
        with self._session.meaning(f"looking for rows of {table} that wait"):
            return {
                row["key"]: row["row_text"]
                for row in self._aside(schema, table, keys)
                if row["state"] == Aside.WAITING.value
            }

    def _aside(self, schema: str, table: TableId, keys: Sequence[str]) -> list[Mapping[str, Any]]:
        if not keys:
            return []
        return self._query("known_aside", keys=_texts(keys), **_where(schema, table))

    def correct(
        self, schema: str, table: TableId, rows: Sequence[QuarantinedRow], ids: Sequence[int]
    ) -> int:
        unit = WorkUnit.of_replay(schema, table)
        numbered = {self._numbers.draw(): row for row in rows}
        sent = False

        def make() -> Script | None:
            nonlocal sent
            there = self._places()
            if sent:  # an earlier try, whose end nobody told
                first = min(numbered)
                asked = Script()
                asked.add(
                    f"SELECT 1 AS one FROM {there['quarantine']} WHERE id = {asked.bind(first)}"
                )
                if self._session.query(asked):
                    return None
            sent = True
            group = self._groups.of_table(schema, table)
            script = Script()
            self._groups.bump(script, group, aside=f"aside + {len(numbered)}")
            if unit.id in group.rows:
                place = {"group": self._groups.quoted(group.name)}
                script.named("mark_replay", place, unit=unit.id)
            else:
                self._groups.add(script, group.name, unit, phase=Phase.PLANNED, fence=1)
            lines = [_aside_line(id, unit, row) for id, row in numbered.items()]
            _insert(script, there["quarantine"], lines)
            state = (Aside.REPLAYING.value, "")
            quarantine.decide(script, there, dict.fromkeys(numbered, state))
            wanted = ("ARRAY<INT64>", list(ids))
            script.named("decide_differences", there, ids=wanted, state="repairing")
            return script

        if numbered:
            with self._session.meaning(f"handing on corrections of {table}"):
                self._session.patiently(make)
        return len(rows)

    # -- a stream that has lost its place

    def start_anew(self, stream: WorkUnit, position: Position) -> None:
        with self._session.meaning(f"moving {stream.id}"):
            self._move(stream, "resync_stream", markers.place_of(position))

    def begin_history(self, stream: WorkUnit, schema: str, newest: int) -> None:
        with self._session.meaning(f"beginning another history of {schema}"):
            self._move(stream, "shut_out", {})
            # A transaction for each table: one may change a hundred at most.  Done again after a
            # fault half-way, it finds nothing that is left.
            for group in self._groups.of_schema(schema):
                self._counted_as_older(schema, markers.table_of(group.row), newest)

    def _counted_as_older(self, schema: str, table: TableId, newest: int) -> None:
        def make() -> Script:
            script = Script()
            now = self._groups.of_table(schema, table)
            self._groups.bump(script, now, truncated_at=f"LEAST(truncated_at, {newest - 1})")
            self._count_as_older(script, WorkUnit.of_table(schema, table), newest)
            for statement in ("count_quarantine_as_older", "count_audit_as_older"):
                script.named(
                    statement,
                    self._places(),
                    namespace=table.namespace,
                    table=table.name,
                    newest=newest,
                )
            return script

        self._session.patiently(make)

    def _move(self, stream: WorkUnit, statement: str, values: Mapping[str, Any]) -> None:
        """The fence grows with the epoch: the running stream is shut out at once."""
        seen = -1

        def make() -> Script | None:
            nonlocal seen
            marker = self._groups.marker(stream)
            if marker is None or (seen >= 0 and marker.epoch > seen):
                return None
            seen = marker.epoch
            script = Script()
            group = {"group": self._groups.quoted(markers.group_of(stream))}
            script.named(statement, group, unit=stream.id, fence=marker.fence, epoch=seen, **values)
            script.require_one(verdicts.TABLE)
            return script

        self._session.patiently(make)

    # -- statements

    def _query(self, statement: str, **values: Any) -> list[Mapping[str, Any]]:
        script = Script()
        script.named(statement, self._places(), **values)
        return self._session.query(script)

    def _run(self, statement: str, **values: Any) -> None:
        script = Script()
        script.named(statement, self._places(), **values)
        self._session.run(script)

    def _places(self) -> dict[str, str]:
        there = places(self._session) | {
            name: self._session.meta(name)
            for name in (books.VERIFICATIONS, books.DIFFERENCES, books.DIFFERENCE_DECISIONS)
        }
        undecided = load("bigquery", "undecided_differences").strip().format(**there)
        return there | {"undecided": f"({undecided})"}


def _insert(script: Script, table: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Lines of the same columns; each cell is SQL, or a value with its type."""
    if not lines:
        return
    columns = [*lines[0]]
    rows = ", ".join(
        f"({', '.join(_cell(script, line[column]) for column in columns)})" for line in lines
    )
    script.add(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {rows}")


def _cell(script: Script, value: Any) -> str:
    return value if isinstance(value, str) else script.bind(value[1], value[0])


_NOW: Final = "CURRENT_TIMESTAMP()"


def _of(unit: WorkUnit) -> dict[str, Any]:
    table = unit.table
    return {
        "noted_at": _NOW,
        "unit": ("STRING", unit.id),
        "schema_name": ("STRING", unit.schema),
        "source_namespace": ("STRING", table.namespace if table else None),
        "source_table": ("STRING", table.name if table else None),
    }


def _marker(unit: WorkUnit) -> dict[str, Any]:
    """As warp/sql/bigquery/add_marker.sql, for many."""
    values = markers.to_values(unit, phase=Phase.PLANNED, epoch=metadata_rows.epoch_of(unit))
    renamed = {"schema": "schema_name", "namespace": "source_namespace", "table": "source_table"}
    return {
        **{renamed.get(name, name): value for name, value in values.items()},
        "fence": "0",
        "owner": "''",
        "batch": "0",
        "row_count": "0",
        "updated_at": _NOW,
        "schema_version": "0",
        "truncated_at": "-1",
        "sweep_below": "-1",
        "writes": "0",
        "aside": "0",
    }


def _planned(unit: WorkUnit, number: int, repairs: bool) -> dict[str, Any]:
    return {
        **_of(unit),
        "pass": ("INT64", number),
        "repairs": "TRUE" if repairs else "FALSE",
        "checked": "FALSE",
    }


def _aside_line(id: int, unit: WorkUnit, row: QuarantinedRow) -> dict[str, Any]:
    return {
        "id": ("INT64", id),
        **_of(unit),
        "key": ("STRING", storable(row.key)),
        "operation": ("STRING", chr(row.operation)),
        "row": ("STRING", storable(row.row)),
        "reason": ("STRING", storable(row.reason)),
        "code": ("STRING", row.code),
        "version": ("INT64", row.version),
        "kinds": ("STRING", json.dumps(dict(row.kinds))),
        "partial": "TRUE" if row.partial else "FALSE",
        "column_name": ("STRING", storable(row.column)),
        **markers.place_of(row.position),
    }


def _where(schema: str, table: TableId) -> dict[str, Any]:
    return {"schema": schema, "namespace": table.namespace, "table": table.name}


def _texts(values: Sequence[str]) -> tuple[str, list[str]]:
    return "ARRAY<STRING>", list(values)


def _pass(row: Mapping[str, Any]) -> Pass:
    return Pass(
        row["schema_name"],
        TableId(row["source_namespace"], row["source_table"]),
        row["pass"],
        row["units"],
        row["done"],
        row["row_count"],
        row["differences"],
        row["aside"],
        row["unsettled"],
        row["planned_at"].timestamp(),
        None if row["oldest"] is None else row["oldest"].timestamp(),
        None if row["newest"] is None else row["newest"].timestamp(),
        total(map(Sums.read, row["digests"].split(",") if row["digests"] else ())),
    )
