"""The statements that carry staged rows into their table.  Pure: composed, never run here.

`d` is the destination's row, `s` the staged one.  The guard and the write are one statement: a READ
lands on older versions only, anything else on versions up to its own, because all changes of one
transaction share a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.spelling import Spelled
from warp.destinations.bigquery.staged import Staged
from warp.model import Operation, TableSchema

VERSION = "_cw_version"
DELETED = "_cw_deleted"
_READ, _DELETE = Operation.READ.value, Operation.DELETE.value


@dataclass(frozen=True, slots=True)
class Landing:
    """A destination table and how it is written to."""

    schema: TableSchema
    spelled: tuple[Spelled, ...]
    table: str  # quoted
    staging: str  # quoted
    soft: str | None  # the column, as it is called there, that marks a deleted row
    unit: str  # that writes
    audit: str  # quoted: the table of deletions

    def places(self) -> list[int]:
        at = {column: place for place, column in enumerate(self.schema.names())}
        return [at[name] for name in self.schema.key]

    @property
    def same_key(self) -> str:
        return " AND ".join(
            f"d.{quoted(self.spelled[place].name)} = {self.spelled[place].landed(f's.c{place}')}"
            for place in self.places()
        )


def land(landing: Landing, part: Staged, *, settled: bool, after: int) -> str:
    """One MERGE for all that can happen to a row; rows of a snapshot up to `after` are gone."""
    key = set(landing.places())
    whens: list[str] = []
    if part.has(Operation.DELETE):
        found = f"WHEN MATCHED AND s.o = {_DELETE} AND d.{VERSION} <= s.v THEN "
        whens.append(found + _removal(landing, settled=settled))
        if not settled:
            names = [quoted(landing.spelled[place].name) for place in landing.places()]
            cells = [_cell(landing, place) for place in landing.places()]
            names += [VERSION, DELETED]
            cells += ["s.v", "TRUE"]
            if landing.soft is not None:
                names.append(quoted(landing.soft))
                cells.append("FALSE")
            whens.append(f"WHEN NOT MATCHED AND s.o = {_DELETE} THEN {_insert(names, cells)}")
    if part.operations.count(_DELETE) < len(part):
        sets = [
            f"{quoted(one.name)} = {_kept(landing, part, place)}"
            for place, one in enumerate(landing.spelled)
            if place not in key
        ]
        names = [quoted(one.name) for one in landing.spelled] + [VERSION, DELETED]
        cells = [_cell(landing, place) for place in range(len(landing.spelled))] + ["s.v", "FALSE"]
        sets += [f"{VERSION} = s.v", f"{DELETED} = FALSE"]
        if landing.soft is not None:
            sets.append(f"{quoted(landing.soft)} = FALSE")
            names.append(quoted(landing.soft))
            cells.append("FALSE")
        newer = f"d.{VERSION} < s.v"
        if part.operations.count(_READ) != len(part):
            newer = f"({newer} OR (s.o <> {_READ} AND d.{VERSION} = s.v))"
        whens.append(
            f"WHEN MATCHED AND s.o <> {_DELETE} AND {newer} THEN UPDATE SET {', '.join(sets)}"
        )
        whens.append(f"WHEN NOT MATCHED AND s.o <> {_DELETE} THEN {_insert(names, cells)}")
    using = landing.staging
    if after >= 0 and part.has(Operation.READ):
        using = f"(SELECT * FROM {using} WHERE o <> {_READ} OR v > {after})"
    return (
        f"MERGE INTO {landing.table} AS d USING {using} AS s ON {landing.same_key}\n"
        + "\n".join(whens)
    )


def _removal(landing: Landing, *, settled: bool) -> str:
    if landing.soft is not None:
        return f"UPDATE SET {quoted(landing.soft)} = TRUE, {VERSION} = s.v"
    if settled:
        return "DELETE"
    # While the table's snapshot is under way a deleted row leaves a tombstone in its place, so
    # that a late chunk does not bring it back.
    key = set(landing.places())
    emptied = [
        f"{quoted(one.name)} = CAST(NULL AS {one.type})"
        for place, one in enumerate(landing.spelled)
        if place not in key
    ]
    return "UPDATE SET " + ", ".join([*emptied, f"{DELETED} = TRUE", f"{VERSION} = s.v"])


def _insert(names: Sequence[str], cells: Sequence[str]) -> str:
    return f"INSERT ({', '.join(names)}) VALUES ({', '.join(cells)})"


def _cell(landing: Landing, place: int) -> str:
    return landing.spelled[place].landed(f"s.c{place}")


def _kept(landing: Landing, part: Staged, place: int) -> str:
    """The cell an update writes: the staged one, or what is there."""
    kept = part.kept.get(place)
    if not kept:
        return _cell(landing, place)
    there = f"d.{quoted(landing.spelled[place].name)}"
    said = len(part) - part.operations.count(_DELETE)
    if len(kept) == said:
        return there
    return f"IF(IFNULL(SUBSTR(s.k, {place + 1}, 1), '0') = '1', {there}, {_cell(landing, place)})"


def audit_deleted(landing: Landing, script: Script, beside: Beside, *, settled: bool) -> None:
    """The last values of rows that the MERGE is about to delete; run before it.

    In a settled table also a tombstone: it holds the place of a row that is to be repaired, which
    shall not come back.
    """
    if landing.soft is not None:
        return
    found = "" if settled else f" AND NOT d.{DELETED}"
    script.add(
        f"{_into_audit(landing)} SELECT {_audited(landing, script, beside, 'delete')}, s.v, s.key,"
        f" {_row(landing)}, 1 FROM {landing.table} AS d JOIN {landing.staging} AS s"
        f" ON {landing.same_key}"
        f" WHERE s.o = {_DELETE} AND d.{VERSION} <= s.v{found}"
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What the audit says of who deleted, and where in the source's log."""

    position: str
    run: str  # SQL


def truncate(landing: Landing, script: Script, beside: Beside, version: int) -> None:
    """Every row up to a version goes; the audit keeps one line with their number."""
    older = f"d.{VERSION} <= {version}"
    if landing.soft is not None:
        soft = quoted(landing.soft)
        script.add(f"DELETE FROM {landing.table} AS d WHERE {older} AND d.{DELETED}")
        script.add(
            f"UPDATE {landing.table} AS d SET {soft} = TRUE, {VERSION} = {version}"
            f" WHERE {older} AND NOT IFNULL(d.{soft}, FALSE)"
        )
        return
    script.add(
        f"{_into_audit(landing)} SELECT {_audited(landing, script, beside, 'truncate')}, {version},"
        f" NULL, NULL, COUNT(*) FROM {landing.table} AS d WHERE {older} AND NOT d.{DELETED}"
        " HAVING COUNT(*) > 0"
    )
    script.add(f"DELETE FROM {landing.table} AS d WHERE {older}")


def purge(table: str) -> str:
    """Tombstones, once no chunk can come any more; without a key, rows of a run cut short."""
    return f"DELETE FROM {table} AS d WHERE d.{DELETED}"


def sweep(landing: Landing, script: Script, beside: Beside, below: int) -> None:
    """Rows that a snapshot did not find again."""
    older = f"d.{VERSION} < {below}"
    if landing.soft is not None:
        soft = quoted(landing.soft)
        script.add(
            f"UPDATE {landing.table} AS d SET {soft} = TRUE"
            f" WHERE {older} AND NOT IFNULL(d.{soft}, FALSE)"
        )
        return
    key = ", ".join(
        f"{literal(name)}, d.{quoted(landing.spelled[place].name)}"
        for name, place in zip(landing.schema.key, landing.places(), strict=True)
    )
    script.add(
        f"{_into_audit(landing)} SELECT {_audited(landing, script, beside, 'sweep')}, d.{VERSION},"
        f" TO_JSON_STRING(JSON_OBJECT({key})), {_row(landing)}, 1"
        f" FROM {landing.table} AS d WHERE {older}"
    )
    script.add(f"DELETE FROM {landing.table} AS d WHERE {older}")


def count_as_older(landing: Landing, newest: int) -> str:
    """Rows of the version `newest` or later, as if they were of the one before it."""
    return f"UPDATE {landing.table} AS d SET {VERSION} = {newest - 1} WHERE d.{VERSION} >= {newest}"


def append(landing: Landing) -> str:
    """Rows of a table without a key, hidden until their run is whole."""
    names = [quoted(one.name) for one in landing.spelled] + [VERSION, DELETED]
    cells = [_cell(landing, place) for place in range(len(landing.spelled))] + ["s.v", "TRUE"]
    if landing.soft is not None:
        names.append(quoted(landing.soft))
        cells.append("FALSE")
    return (
        f"INSERT INTO {landing.table} ({', '.join(names)})"
        f" SELECT {', '.join(cells)} FROM {landing.staging} AS s"
    )


def reveal(table: str) -> list[str]:
    """A whole run of a table without a key takes the place of the last one."""
    return [
        f"DELETE FROM {table} AS d WHERE NOT d.{DELETED}",
        f"UPDATE {table} AS d SET {DELETED} = FALSE WHERE d.{DELETED}",
    ]


def standings(landing: Landing) -> str:
    """What the table has of each staged key."""
    gone = f"d.{DELETED}"
    if landing.soft is not None:
        gone += f" OR IFNULL(d.{quoted(landing.soft)}, FALSE)"
    return (
        f"SELECT s.n AS n, d.{VERSION} AS version, {gone} AS gone, d.{DELETED} AS dead"
        f" FROM {landing.staging} AS s JOIN {landing.table} AS d ON {landing.same_key}"
    )


def deletions(landing: Landing, script: Script) -> str:
    """The highest version at which the audit has a deletion of each staged key."""
    table = landing.schema.table
    return (
        f"SELECT s.n AS n, MAX(a.version) AS version FROM {landing.staging} AS s"
        f" JOIN {landing.audit} AS a ON a.key = s.key"
        f" WHERE a.source_namespace = {script.bind(table.namespace)}"
        f" AND a.source_table = {script.bind(table.name)} GROUP BY s.n"
    )


def _into_audit(landing: Landing) -> str:
    return (
        f"INSERT INTO {landing.audit} (noted_at, unit, position, run, source_namespace,"
        " source_table, reason, version, key, row, row_count)"
    )


def _audited(landing: Landing, script: Script, beside: Beside, reason: str) -> str:
    table = landing.schema.table
    who = [script.bind(landing.unit), script.bind(beside.position), beside.run]
    what = [script.bind(value) for value in (table.namespace, table.name, reason)]
    return ", ".join(["CURRENT_TIMESTAMP()", *who, *what])


def _row(landing: Landing) -> str:
    cells = ", ".join(f"d.{quoted(one.name)} AS {quoted(one.name)}" for one in landing.spelled)
    return f"TO_JSON_STRING(STRUCT({cells}, d.{VERSION} AS {VERSION}))"
