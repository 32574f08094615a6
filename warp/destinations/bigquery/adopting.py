"""A table that somebody else made: its types stand, and what we need is added to it.  Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from warp.destinations.bigquery import spelling, tables
from warp.destinations.bigquery.merge import DELETED, VERSION
from warp.destinations.bigquery.names import quoted
from warp.destinations.bigquery.spelling import KINDS, TEXTS, Spelled
from warp.destinations.bigquery.tables import Table
from warp.errors import DestinationRefused
from warp.model import Kind, TableSettings


def adopt(table: Table, settings: TableSettings, there: Any, project: str) -> Table:
    """A table somebody else made: its types stand, and what we need is added to it."""
    place, wanted = table.place, table.schema
    constraints = there.table_constraints
    primary = constraints.primary_key if constraints is not None else None
    if primary is not None and set(primary.columns) != set(wanted.key):
        raise DestinationRefused(
            f"expected the existing table to have the primary key {list(wanted.key)}, found "
            f"{list(primary.columns)}; change its key, or name another destination table",
            place=str(place),
        )
    fields = {f.name.lower(): f for f in there.schema}
    spelled: list[Spelled] = []
    added: list[tuple[str, str, str]] = []
    for one in table.spelled:
        field = fields.get(one.name.lower())
        if field is None:
            said = tables.description(one, settings.table)
            added.append((one.name, one.type, said))
            spelled.append(one)
        elif (kept := _as_there(one, field)) is not None and not (
            one.column.name in wanted.key and kept.type == "JSON"  # which has no `=`
        ):
            spelled.append(kept)
        elif one.column.name in wanted.key:
            raise DestinationRefused(
                f"expected a key column {one.name} of type {one.type}, found "
                f"{field.field_type}; change it, or name another destination table",
                place=str(place),
            )
    named = {one.name.lower() for one in spelled}
    blocking = [
        f.name for f in there.schema if f.mode == "REQUIRED" and f.name.lower() not in named
    ]
    if blocking:
        raise DestinationRefused(
            f"expected columns that may be NULL, found {blocking} of the existing table "
            "REQUIRED; run ALTER TABLE … ALTER COLUMN … DROP NOT NULL on each",
            place=str(place),
        )
    key = {one.name for one in table.key}
    added += [(VERSION, "INT64", ""), (DELETED, "BOOL", "")]
    soft = tables.soft_name(settings.soft_delete_column)
    if soft is not None:
        added.append((soft, "BOOL", ""))
    todo = [tables.add_columns(table, project, *added)]
    relaxed = [
        f"ALTER COLUMN {quoted(f.name)} DROP NOT NULL"
        for f in there.schema
        if f.mode == "REQUIRED" and f.name not in key
    ]
    if relaxed:
        there_ = quoted(project, place.namespace, place.name)
        todo.append(f"ALTER TABLE {there_} {', '.join(relaxed)}")
    # Rows that were there before us are older than anything a source sends.
    todo.append(
        f"UPDATE {quoted(project, place.namespace, place.name)}"
        f" SET {VERSION} = -1, {DELETED} = FALSE WHERE {VERSION} IS NULL"
    )
    columns = tuple(one.column for one in spelled)
    schema = replace(table.schema, columns=columns)
    return replace(table, schema=schema, spelled=tuple(spelled), adopted=True, todo=tuple(todo))


def _as_there(one: Spelled, field: Any) -> Spelled | None:
    """The column with the kind of the type it has; None where we cannot write that type."""
    kind = KINDS.get(field.field_type)
    if kind is None or field.mode == "REPEATED":
        return None
    made = typed(replace(one, name=field.name), kind, field.field_type)
    column = made.column
    if kind is Kind.TEXT and field.max_length:
        column = replace(column, limit=int(field.max_length))
    if kind is Kind.DECIMAL and field.precision:
        column = replace(column, limit=int(field.precision), scale=int(field.scale or 0))
    return replace(made, column=column)


def typed(one: Spelled, kind: Kind, type_: str) -> Spelled:
    column = one.column
    same = column.kind is kind or (kind is Kind.TEXT and column.kind in TEXTS)
    alike = {column.kind, kind} in ({Kind.INT32, Kind.INT64}, {Kind.FLOAT32, Kind.FLOAT64})
    if not same and not alike:
        column = replace(column, kind=kind, fixed=False)
    long = _long(type_)
    return Spelled(spelling.limited(column, long), one.name, long)


_LONG: Final = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


def _long(type_: str) -> str:
    """REST says a type's legacy name."""
    return _LONG.get(type_, type_)
