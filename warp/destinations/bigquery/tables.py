"""A destination table as its first marker row describes it: columns, names, types, what is to do.
Pure: statements are composed here and run elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from warp.destinations.bigquery import names
from warp.destinations.bigquery.merge import DELETED, VERSION
from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.options import Layout
from warp.destinations.bigquery.spelling import CLUSTERABLE, PARTITIONABLE, Spelled
from warp.errors import DestinationRefused
from warp.model import Column, Kind, Role, TableId, TableSchema

LONGEST_TAGGED: Final = 2000  # bytes; sources hash what is longer


@dataclass(frozen=True, slots=True)
class Table:
    """What the registry knows of one table."""

    schema: TableSchema
    spelled: tuple[Spelled, ...]
    place: TableId  # at the destination, by its names there
    adopted: bool = False  # somebody else made it: never made anew
    # Statements that bring the table to this version, and the id of the job they run as.  While
    # there are any nobody writes: see `warp.destinations.bigquery.ddl`.
    todo: tuple[str, ...] = ()
    job: str = ""

    def column(self, name: str) -> Spelled | None:
        return next((one for one in self.spelled if one.column.name == name), None)

    @property
    def key(self) -> list[Spelled]:
        return [one for name in self.schema.key for one in self.spelled if one.column.name == name]

    @property
    def in_key(self) -> list[Spelled]:
        """The key's columns as the table has them one after the other."""
        return [one for one in self.spelled if one.column.name in self.schema.key]

    @property
    def taken(self) -> set[str]:
        return {one.name.lower() for one in self.spelled}

    def having(self, spelled: Sequence[Spelled], todo: Sequence[str] = ()) -> Table:
        """The next version."""
        columns = tuple(one.column for one in spelled)
        schema = replace(self.schema, columns=columns, version=self.schema.version + 1)
        return replace(self, schema=schema, spelled=tuple(spelled), todo=tuple(todo))

    def text(self) -> str:
        return json.dumps(
            {
                "columns": [_written(one) for one in self.spelled],
                "key": list(self.schema.key),
                "place": [self.place.namespace, self.place.name],
                "adopted": self.adopted,
                "todo": list(self.todo),
                "job": self.job,
            }
        )


def read(table: TableId, version: int, text: str) -> Table:
    spec = json.loads(text)
    spelled = tuple(map(_read, spec["columns"]))
    schema = TableSchema(table, tuple(one.column for one in spelled), tuple(spec["key"]), version)
    return Table(
        schema,
        spelled,
        TableId(*spec["place"]),
        spec["adopted"],
        tuple(spec["todo"]),
        spec["job"],
    )


def _written(one: Spelled) -> dict[str, Any]:
    column = one.column
    return {
        "name": column.name,
        "kind": column.kind.value,
        "source": column.source,
        "role": column.role.value,
        "comment": column.comment,
        "limit": column.limit,
        "scale": column.scale,
        "fixed": column.fixed,
        "as": one.name,
        "type": one.type,
    }


def _read(stored: Mapping[str, Any]) -> Spelled:
    column = Column(
        stored["name"],
        Kind(stored["kind"]),
        stored["source"],
        Role(stored["role"]),
        stored["comment"],
        stored["limit"],
        stored["scale"],
        stored["fixed"],
    )
    return Spelled(column, stored["as"], stored["type"])


# -- statements


def create(table: Table, project: str, layout: Layout, soft: str | None) -> str:
    """CREATE TABLE, which does nothing where the table is."""
    head = f"CREATE TABLE IF NOT EXISTS {_place(project, table)}"
    return f"{head} {_body(table, layout, soft)}"


def make_anew(
    table: Table,
    project: str,
    layout: Layout,
    soft: str | None,
    casts: Mapping[str, str],
    aside: str,
) -> tuple[str, str]:
    """The same table with other types; `casts` are by the column's name there.

    By way of another table, `aside`: until the last statement is done nothing has changed, so all
    of it can be done again.
    """
    cells = [
        f"{casts.get(one.name, quoted(one.name))} AS {quoted(one.name)}" for one in table.spelled
    ]
    cells += [VERSION, DELETED]
    if soft is not None:
        cells.append(quoted(soft))
    place = _place(project, table)
    return (
        f"CREATE OR REPLACE TABLE {aside} AS SELECT {', '.join(cells)} FROM {place}",
        f"CREATE OR REPLACE TABLE {place} {_body(table, layout, soft)} AS SELECT * FROM {aside}",
    )


def replace_empty(table: Table, project: str, layout: Layout, soft: str | None) -> str:
    return f"CREATE OR REPLACE TABLE {_place(project, table)} {_body(table, layout, soft)}"


def add_columns(table: Table, project: str, *columns: tuple[str, str, str]) -> str:
    """By name, type and description; in one statement, since a table is changed five times in ten
    seconds at most."""
    added = [
        f"ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}"
        + (f" OPTIONS (description = {literal(said)})" if said else "")
        for name, type_, said in columns
    ]
    return f"ALTER TABLE {_place(project, table)} {', '.join(added)}"


def retype(table: Table, project: str, name: str, type_: str) -> str:
    return f"ALTER TABLE {_place(project, table)} ALTER COLUMN {quoted(name)} SET DATA TYPE {type_}"


def description(one: Spelled, table: TableId) -> str:
    said = one.column.comment or f"{table}: {one.column.source}"
    return said.replace("\0", "\ufffd")[:1000]


def _place(project: str, table: Table) -> str:
    return quoted(project, table.place.namespace, table.place.name)


def _body(table: Table, layout: Layout, soft: str | None) -> str:
    lines = [
        f"{quoted(one.name)} {one.type}"
        f" OPTIONS (description = {literal(description(one, table.schema.table))})"
        for one in table.spelled
    ]
    lines += [f"{VERSION} INT64", f"{DELETED} BOOL"]
    if soft is not None:
        lines.append(f"{quoted(soft)} BOOL")
    # More than sixteen columns are no key to BigQuery; ours works by MERGE alone.
    if table.key and len(table.key) <= 16 and all(one.type in CLUSTERABLE for one in table.key):
        key = ", ".join(quoted(one.name) for one in table.key)
        lines.append(f"PRIMARY KEY ({key}) NOT ENFORCED")
    parts = [f"({', '.join(lines)})"]
    if partition := _partition(table, layout):
        parts.append(f"PARTITION BY {partition}")
    if cluster := _cluster(table, layout):
        parts.append(f"CLUSTER BY {', '.join(map(quoted, cluster))}")
    said = literal(f"kept equal to {table.schema.table} by cartridge-warp")
    parts.append(f"OPTIONS (description = {said})")
    return "\n".join(parts)


def _partition(table: Table, layout: Layout) -> str:
    if layout.partition_by is None:
        return ""
    one = _named(table, layout.partition_by)
    if one is None:
        return ""  # a collection nobody has seen a document of: it is made again with the first
    if one.type not in PARTITIONABLE:
        raise DestinationRefused(
            f"expected a column of dates or times to partition by, found {layout.partition_by!r} "
            f"of type {one.type}; correct `layout`",
            place=str(table.place),
        )
    if one.type == "DATE":
        if layout.granularity == "DAY":
            return quoted(one.name)
        return f"DATE_TRUNC({quoted(one.name)}, {layout.granularity})"
    return f"{one.type}_TRUNC({quoted(one.name)}, {layout.granularity})"


def _cluster(table: Table, layout: Layout) -> list[str]:
    if layout.cluster_by is None:
        return [one.name for one in table.key if one.type in CLUSTERABLE][:4]
    found = [_named(table, name) for name in layout.cluster_by]
    return [one.name for one in found if one is not None and one.type in CLUSTERABLE]


def _named(table: Table, name: str) -> Spelled | None:
    return table.column(name) or next((one for one in table.spelled if one.name == name), None)


# -- values of an old type as those of a new one: never rounded, never moved by a zone


def cast(old: Spelled, new: Spelled) -> str | None:
    """None where there is no exact way."""
    cell, have, want = quoted(old.name), old.column.kind, new.column.kind
    if want is Kind.TAGGED:
        tag = _TAGS.get(have)
        return tag and tag.format(x=cell)
    if want is Kind.TEXT:
        text = _TEXTS.get(have)
        return text and text.format(x=cell)
    if (old.type, new.type) == ("FLOAT64", "BIGNUMERIC"):
        return f"CAST(CAST({cell} AS STRING) AS BIGNUMERIC)"
    if (old.type, new.type) in _CASTS:
        return f"CAST({cell} AS {new.type})"
    if have is Kind.UUID and want is Kind.BYTES:
        return f"FROM_HEX(REPLACE({cell}, '-', ''))"
    return None


_CASTS: Final = frozenset(
    {
        *(("INT64", "NUMERIC"), ("INT64", "BIGNUMERIC"), ("INT64", "FLOAT64")),
        *(("NUMERIC", "BIGNUMERIC"), ("DATE", "DATETIME"), ("DATE", "TIMESTAMP")),
    }
)
_TEXTS: Final[dict[Kind, str]] = {
    Kind.BOOL: "CAST({x} AS STRING)",
    Kind.INT32: "CAST({x} AS STRING)",
    Kind.INT64: "CAST({x} AS STRING)",
    Kind.FLOAT32: "REGEXP_REPLACE(CAST({x} AS STRING), r'\\.0$', '')",
    Kind.FLOAT64: "REGEXP_REPLACE(CAST({x} AS STRING), r'\\.0$', '')",
    Kind.DECIMAL: "CAST({x} AS STRING)",
    Kind.UUID: "{x}",
    Kind.DATE: "CAST({x} AS STRING)",
    Kind.TIME: "CAST({x} AS STRING)",
    Kind.DATETIME: "FORMAT_DATETIME('%F %H:%M:%E*S', {x})",
    Kind.TIMESTAMP: "CONCAT(FORMAT_TIMESTAMP('%F %H:%M:%E*S', {x}, 'UTC'), '+00')",
    Kind.BYTES: "CONCAT('\\\\x', TO_HEX({x}))",
    Kind.JSON: "TO_JSON_STRING({x})",
    Kind.JSON_TEXT: "{x}",
    Kind.OBJECTID: "{x}",
    Kind.TAGGED: "{x}",
}
# As a source writes a tagged key of this kind, byte for byte: a row that was written under its old
# key must be found under the new one.
_TAGS: Final[dict[Kind, str]] = {
    Kind.TEXT: "TO_JSON_STRING({x})",
    Kind.INT32: "CAST({x} AS STRING)",
    Kind.INT64: "CAST({x} AS STRING)",
    Kind.OBJECTID: """CONCAT('{{"$oid":"', {x}, '"}}')""",
    Kind.UUID: (
        """CONCAT('{{"$binary":{{"base64":"', TO_BASE64(FROM_HEX(REPLACE({x}, '-', ''))),"""
        """ '","subType":"04"}}}}')"""
    ),
    Kind.BYTES: """CONCAT('{{"$binary":{{"base64":"', TO_BASE64({x}), '","subType":"00"}}}}')""",
    Kind.TIMESTAMP: (
        """CONCAT('{{"$date":{{"$numberLong":"', CAST(UNIX_MILLIS({x}) AS STRING), '"}}}}')"""
    ),
}


def soft_name(soft: str | None) -> str | None:
    """The soft delete column as it is called here."""
    return None if soft is None else names.column(soft)
