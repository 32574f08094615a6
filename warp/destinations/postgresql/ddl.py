"""The destination's tables: made, widened and re-keyed, each change in one transaction.

The table's marker row is taken FOR UPDATE first, so no writer is in the middle of the old schema;
afterwards a writer's batch of the old version is refused as SchemaMoved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from psycopg import sql
from psycopg.types.json import Jsonb

from warp.destinations.postgresql import backfill, markers, room
from warp.destinations.postgresql.carriers import KINDS, TYPES
from warp.destinations.postgresql.session import Session, fitting, literal, name, text
from warp.errors import DestinationRefused
from warp.model import (
    Change,
    Column,
    Kind,
    Phase,
    Role,
    SchemaChange,
    TableSchema,
    TableSettings,
    WorkUnit,
)

_COMMA: Final = text(", ")
_RESERVED: Final = frozenset({"_cw_version", "_cw_deleted"})
_TEXTS: Final = frozenset({Kind.TEXT, Kind.OBJECTID, Kind.TAGGED})
_LONGEST_TAGGED: Final = 2000  # bytes; sources hash what is longer, a btree entry holds 2,700


def registered(session: Session, settings: TableSettings) -> TableSchema | None:
    """The table as it was last registered, without columns that somebody has dropped since.

    None where it was never made, or was dropped and is to be read anew.
    """
    unit = unit_of(settings)
    row = session.named("registered_schema", unit=unit.id).fetchone()
    if row is None:
        return None
    version, columns, key, phase = row
    there = _server_types(session, settings)
    if not there:
        if phase == Phase.PLANNED.value:
            return None
        raise DestinationRefused(
            f"expected the table {settings.destination}, found it dropped; "
            f"run `cartridge-warp resync {settings.table}` to read it anew",
            place=unit.id,
        )
    kept = tuple(c for c in map(_from_json, columns) if fitting(c.name) in there)
    if missing := set(key) - {c.name for c in kept}:
        raise DestinationRefused(
            f"expected the key columns {sorted(missing)} in {settings.destination}, found them "
            f"dropped; drop the table and run `cartridge-warp resync {settings.table}`",
            place=unit.id,
        )
    full = not room.has_room(kept, used=_columns_ever(session, settings))
    return TableSchema(settings.table, kept, tuple(key), version, full)


def current(session: Session, settings: TableSettings) -> TableSchema | None:
    """As `registered`, after finishing what configuration or a killed process left to do."""
    schema = registered(session, settings)
    if schema is None:
        return None
    soft = settings.soft_delete_column
    if soft is not None and fitting(soft) not in _server_types(session, settings):
        # The table was made before deletes were configured to be soft.
        for definition in _meta_columns(settings):
            session.run(_add_column(settings, definition))
    backfill.finish(session, settings, schema)
    return schema


def apply(session: Session, settings: TableSettings, change: SchemaChange) -> None:
    """Make one change, or find it made."""
    unit = unit_of(settings)
    with session.transaction(f"{change.change} on {settings.destination}", patient=True):
        session.named("add_marker", **markers.to_parameters(unit, phase=Phase.PLANNED))
        row = session.named("read_marker", unit=unit.id).fetchone()
        if row is None:
            raise AssertionError("the marker was just added")
        version = markers.from_row(row).schema_version + 1
        have = registered(session, settings)
        schema = _MAKERS[change.change](session, settings, have, change)
        if schema is not None:
            _register(session, settings, replace(schema, version=version), change)
    backfill.finish(session, settings, registered(session, settings))


def unit_of(settings: TableSettings) -> WorkUnit:
    return WorkUnit.of_table(settings.schema, settings.table)


# -- the changes; each returns the schema that came to be, or None where it was there already


def _create(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    wanted = change.schema
    if wanted is None:
        raise AssertionError("CREATE_TABLE carries a schema")
    if have is not None:
        return None
    place = settings.destination
    if not wanted.key:
        raise DestinationRefused(
            f"expected a primary key, found none on {settings.table}; give the table one at the "
            "source or leave it out: without a key no change finds its row",
            place=str(place),
        )
    taken = {*_RESERVED, settings.soft_delete_column} & set(wanted.names())
    if taken:
        raise DestinationRefused(
            f"expected no source column named {sorted(map(str, taken))}, which this table needs "
            "for itself, found one; choose another soft_delete_column or rename the column",
            place=str(place),
        )
    there = _server_types(session, settings)
    if there:
        return _adopt(session, settings, wanted, there)
    found = session.run(
        b"select 1 from pg_catalog.pg_namespace where nspname = %s", [fitting(place.namespace)]
    ).fetchone()
    if found is None:
        # "if not exists" does not see one that another transaction is making: 23505.
        session.run(
            b"select pg_catalog.pg_advisory_xact_lock("
            b"pg_catalog.hashtextextended('cartridge-warp schema ' || %s, 0))",
            [fitting(place.namespace)],
        )
        session.run(text("create schema if not exists {}").format(name(place.namespace)))
    wanted = room.fitted(wanted)
    parts: list[sql.Composable] = [_definition(column) for column in wanted.columns]
    parts += _meta_columns(settings)
    parts.append(text("primary key ({})").format(_COMMA.join(map(name, wanted.key))))
    session.run(text("create table {} ({})").format(_table(settings), _COMMA.join(parts)))
    _index_tombstones(session, settings, wanted.key)
    session.run(
        text("comment on table {} is {}").format(
            _table(settings), literal(f"kept equal to {settings.table} by cartridge-warp")
        )
    )
    for column in wanted.columns:
        _comment(session, settings, column)
    return wanted


def _adopt(
    session: Session, settings: TableSettings, wanted: TableSchema, there: dict[str, str]
) -> TableSchema:
    """A table somebody else made: its types stand, and what we need is added to it."""
    place = settings.destination
    key = tuple(
        row[0]
        for row in session.named(
            "table_key", namespace=fitting(place.namespace), table=fitting(place.name)
        )
    )
    if set(key) != set(wanted.key):
        raise DestinationRefused(
            f"expected the existing table to have the primary key {list(wanted.key)}, found "
            f"{list(key) or 'none'}; change its key, or name another destination table",
            place=str(place),
        )
    blocking = [
        row[0]
        for row in session.named(
            "needed_columns", namespace=fitting(place.namespace), table=fitting(place.name)
        )
        if row[0] not in (*key, *_RESERVED, settings.soft_delete_column)
    ]
    if blocking:
        raise DestinationRefused(
            f"expected columns that may be NULL, found {blocking} of the existing table NOT NULL "
            "without a default; run ALTER TABLE … ALTER COLUMN … DROP NOT NULL on each",
            place=str(place),
        )
    columns: list[Column] = []
    used = _columns_ever(session, settings)
    for column in wanted.columns:
        if fitting(column.name) not in there:
            if column.role is Role.FIELD and not room.has_room(columns, column.kind, used=used):
                continue  # its values stay in `_extra`
            session.run(_add_column(settings, _definition(column)))
            columns.append(column)
            used += 1
        elif (kept := _as_there(column, there[fitting(column.name)])) is not None:
            columns.append(kept)
    for definition in _meta_columns(settings, adopted=True):
        session.run(_add_column(settings, definition))
    _index_tombstones(session, settings, key)
    return TableSchema(settings.table, tuple(columns), key)


def _widen(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    column = change.column
    if column is None:
        raise AssertionError("ADD_COLUMN carries a column")
    if have is None:
        raise _no_table(settings)
    if have.column(column.name) is not None or column.name in (
        *_RESERVED,
        settings.soft_delete_column,
    ):
        return None
    if not room.has_room(have.columns, column.kind, used=_columns_ever(session, settings)):
        if any(c.role is not Role.FIELD for c in have.columns):
            return None  # the field stays in `_extra`
        raise DestinationRefused(
            f"expected room for column {column.name!r}, found a row of {len(have.columns)} "
            "columns that would not fit a page of 8 kB, or 1,600 columns with the dropped ones; "
            "leave columns out at the source, or make the table anew",
            place=str(settings.destination),
        )
    session.run(_add_column(settings, _definition(column)))
    there = _server_types(session, settings)
    made = _as_there(column, there[fitting(column.name)])
    if made is None:
        raise DestinationRefused(
            f"expected {TYPES[column.kind]} or a type of ours, found column {column.name!r} of "
            f"type {there[fitting(column.name)]}; drop it or change its type",
            place=str(settings.destination),
        )
    _comment(session, settings, made)
    return replace(have, columns=(*have.columns, made))


def _tag_key(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    wanted = change.column
    if wanted is None:
        raise AssertionError("RETYPE_KEY carries a column")
    if have is None:
        raise _no_table(settings)
    old = have.column(wanted.name)
    if old is None or old.name not in have.key:
        raise AssertionError(f"{wanted.name} is no key column of {settings.table}")
    if old.kind == wanted.kind:
        return None
    if wanted.kind != Kind.TAGGED or old.kind not in _TAGS:
        raise DestinationRefused(
            f"expected a key that can become {wanted.kind}, found {old.kind}; "
            f"drop the table and run `cartridge-warp resync {settings.table}`",
            place=str(settings.destination),
        )
    key = name(old.name)
    tagged = text(_TAGS[old.kind]).format(key=key)
    long = text("pg_catalog.octet_length({}) > {}").format(tagged, sql.Literal(_LONGEST_TAGGED))
    extra = next((c for c in have.columns if c.role == Role.EXTRA), None)
    if extra is not None:  # a hash is no value: what it stands for goes where values are kept
        session.run(
            text(
                "update {table} set {extra} = coalesce({extra}, '{{}}')"
                " || jsonb_build_object({field}, ({tagged})::jsonb) where {long}"
            ).format(
                table=_table(settings),
                extra=name(extra.name),
                field=literal(old.source),
                tagged=tagged,
                long=long,
            )
        )
    session.run(
        text(
            "alter table {table} alter column {key} type text using case when {long}"
            " then 'sha256:' || encode(sha256(convert_to({tagged}, 'UTF8')), 'hex')"
            " else {tagged} end"
        ).format(table=_table(settings), key=key, long=long, tagged=tagged)
    )
    made = replace(old, kind=Kind.TAGGED)
    return replace(have, columns=tuple(made if c.name == old.name else c for c in have.columns))


_MAKERS: Final[
    dict[
        Change,
        Callable[[Session, TableSettings, TableSchema | None, SchemaChange], TableSchema | None],
    ]
] = {
    Change.CREATE_TABLE: _create,
    Change.ADD_COLUMN: _widen,
    Change.RETYPE_KEY: _tag_key,
}

# The text that a source gives a tagged key of this kind, byte for byte: a row that was written
# under its old key must be found under the new one.
_TAGS: Final = {
    Kind.TEXT: "to_json({key})::text",
    Kind.INT32: "{key}::text",
    Kind.INT64: "{key}::text",
    Kind.OBJECTID: """'{{"$oid":"' || {key} || '"}}'""",
    Kind.UUID: (
        """'{{"$binary":{{"base64":"' || encode(uuid_send({key}), 'base64')"""
        """ || '","subType":"04"}}}}'"""
    ),
    Kind.BYTES: (
        """'{{"$binary":{{"base64":"' || translate(encode({key}, 'base64'), E'\\n', '')"""
        """ || '","subType":"00"}}}}'"""
    ),
    Kind.TIMESTAMP: (
        """'{{"$date":{{"$numberLong":"' || (extract(epoch from {key})::numeric * 1000)::bigint"""
        """ || '"}}}}'"""
    ),
}


# -- pieces


def _register(
    session: Session, settings: TableSettings, schema: TableSchema, change: SchemaChange
) -> None:
    unit = unit_of(settings)
    extra = any(c.role == Role.EXTRA for c in schema.columns)
    unfilled = None
    if change.change == Change.ADD_COLUMN and change.column is not None and extra:
        unfilled = change.column.name
    session.named(
        "register_schema",
        unit=unit.id,
        version=schema.version,
        schema=settings.schema,
        namespace=settings.table.namespace,
        table=settings.table.name,
        destination_namespace=fitting(settings.destination.namespace),
        destination_table=fitting(settings.destination.name),
        columns=Jsonb([_to_json(column) for column in schema.columns]),
        key=Jsonb(list(schema.key)),
        change=change.change.value,
        stream=WorkUnit.stream(settings.schema).id,
        unfilled=unfilled,
    )
    session.named("raise_schema_version", unit=unit.id, version=schema.version)


def _to_json(column: Column) -> dict[str, str]:
    return {
        "name": column.name,
        "kind": column.kind.value,
        "source": column.source,
        "role": column.role.value,
        "comment": column.comment,
    }


def _from_json(stored: dict[str, str]) -> Column:
    return Column(
        stored["name"],
        Kind(stored["kind"]),
        stored["source"],
        Role(stored["role"]),
        stored["comment"],
    )


def _server_types(session: Session, settings: TableSettings) -> dict[str, str]:
    """Column -> type, as the server has them; empty where there is no such table."""
    place = settings.destination
    rows = session.named(
        "table_columns", namespace=fitting(place.namespace), table=fitting(place.name)
    )
    return dict(rows.fetchall())


def _columns_ever(session: Session, settings: TableSettings) -> int:
    """How many columns the table has and has had: PostgreSQL counts the dropped ones too."""
    place = settings.destination
    row = session.named(
        "columns_ever", namespace=fitting(place.namespace), table=fitting(place.name)
    ).fetchone()
    return int(row[0]) if row else 0


def _as_there(column: Column, type_: str) -> Column | None:
    """The column with the kind of the type it has; None where we cannot write that type."""
    kind = KINDS.get(type_)
    if kind is None:
        return None
    if kind == column.kind or (kind == Kind.TEXT and column.kind in _TEXTS):
        return column
    return replace(column, kind=kind)


def _table(settings: TableSettings) -> sql.Identifier:
    return name(settings.destination.namespace, settings.destination.name)


def _definition(column: Column) -> sql.Composed:
    return text("{} {}").format(name(column.name), text(TYPES[column.kind]))


def _meta_columns(settings: TableSettings, *, adopted: bool = False) -> list[sql.Composable]:
    # Rows that were there before us are older than anything a source sends.
    default = " default -1" if adopted else ""
    columns: list[sql.Composable] = [
        text(f"_cw_version bigint not null{default}"),
        text("_cw_deleted boolean not null default false"),
    ]
    if settings.soft_delete_column is not None:
        columns.append(
            text("{} boolean not null default false").format(name(settings.soft_delete_column))
        )
    return columns


def _add_column(settings: TableSettings, definition: sql.Composable) -> sql.Composed:
    return text("alter table {} add column if not exists {}").format(_table(settings), definition)


def _index_tombstones(session: Session, settings: TableSettings, key: Sequence[str]) -> None:
    session.run(
        text("create index on {} ({}) where _cw_deleted").format(
            _table(settings), _COMMA.join(map(name, key))
        )
    )


def _comment(session: Session, settings: TableSettings, column: Column) -> None:
    said = column.comment or f"{settings.table}: {column.source}"
    session.run(
        text("comment on column {} is {}").format(
            name(settings.destination.namespace, settings.destination.name, column.name),
            literal(said.replace("\0", "\ufffd")),
        )
    )


def _no_table(settings: TableSettings) -> DestinationRefused:
    return DestinationRefused(
        f"expected the table {settings.destination}, found none; create it first",
        place=str(settings.table),
    )
