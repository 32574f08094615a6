"""The destination's tables: made, widened and re-keyed, each change in one transaction.

The table's marker row is taken FOR UPDATE first, so no writer is in the middle of the old schema;
afterwards a writer's batch of the old version is refused as SchemaMoved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from warp import faults
from warp.destinations.postgresql import backfill, room
from warp.destinations.postgresql.carriers import KINDS, TYPES
from warp.destinations.postgresql.session import Session, fitting, literal, name, text
from warp.destinations.sql import ddl as shared
from warp.destinations.sql import markers
from warp.destinations.sql.ddl import unit_of
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
)

_COMMA: Final = text(", ")
LOCK_PATIENCE: Final = b"SET LOCAL lock_timeout = '100ms'"
LOCK_PAUSE: Final = 0.25  # seconds between two tries, about
LOCK_TRIES: Final = 12
_RESERVED: Final = ("_cw_version", "_cw_deleted")
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
    there = server_types(session, settings)
    if not there:
        shared.must_be_there(settings, phase)
        return None
    kept = tuple(
        _refreshed(c, there[fitting(c.name)])
        for c in shared.columns_of(session, columns)
        if fitting(c.name) in there
    )
    shared.must_have_its_key(settings, key, kept)
    full = not room.has_room(kept, used=columns_ever(session, settings))
    return TableSchema(settings.table, kept, tuple(key), version, full)


def current(session: Session, settings: TableSettings) -> TableSchema | None:
    """As `registered`, after finishing what configuration or a killed process left to do."""
    schema = registered(session, settings)
    if schema is None:
        return None
    soft = settings.soft_delete_column
    shared.must_leave_ours(settings, schema.names(), _ours(settings))
    if soft is not None and fitting(soft) not in server_types(session, settings):
        # The table was made before deletes were configured to be soft.
        for definition in _meta_columns(settings):
            session.run(adding(settings, definition))
    backfill.finish(session, settings, schema)
    return schema


def _ours(settings: TableSettings) -> tuple[str | None, ...]:
    return (*_RESERVED, settings.soft_delete_column)


def apply(session: Session, settings: TableSettings, change: SchemaChange) -> None:
    """Make one change, or find it made."""
    shared.insist(
        lambda: _apply_once(session, settings, change),
        settings,
        is_of_a_lock=lambda error: isinstance(error, LockNotAvailable),
        tries=LOCK_TRIES,
        pause=LOCK_PAUSE,
        who="pg_stat_activity",
    )
    backfill.finish(session, settings, registered(session, settings))


def _apply_once(session: Session, settings: TableSettings, change: SchemaChange) -> None:
    unit = unit_of(settings)
    with session.transaction(f"{change.change} on {settings.destination}", patient=True):
        session.named("add_marker", **markers.to_parameters(session, unit, phase=Phase.PLANNED))
        row = session.named("read_marker", unit=unit.id).fetchone()
        if row is None:
            raise AssertionError("the marker was just added")
        version = markers.from_row(session, row).schema_version + 1
        have = registered(session, settings)
        if change.change != Change.CREATE_TABLE:
            # Whoever reads the table queues behind an ALTER that waits: it must not wait long.
            session.run(LOCK_PATIENCE)
        schema = _MAKERS[change.change](session, settings, have, change)
        faults.hit("after_alter")
        if schema is not None:
            schema = replace(schema, version=version)
            shared.register(session, settings, schema, change, fitting)
        faults.hit("after_register")
    faults.hit("after_change")


# -- the changes; each returns the schema that came to be, or None where it was there already


def _create(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    wanted = change.schema
    if wanted is None:
        raise AssertionError("CREATE_TABLE carries a schema")
    if have is not None:
        return _correct(session, settings, have, wanted) if have.is_guess else None
    place = settings.destination
    shared.must_leave_ours(settings, wanted.names(), _ours(settings))
    there = server_types(session, settings)
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
    for statement in creating(settings, wanted):
        session.run(statement)
    session.run(
        text("comment on table {} is {}").format(
            _table(settings), literal(f"kept equal to {settings.table} by cartridge-warp")
        )
    )
    for column in wanted.columns:
        _comment(session, settings, column)
    return wanted


def creating(settings: TableSettings, wanted: TableSchema) -> list[sql.Composed]:
    """The statements that make a table, but for its comments."""
    parts: list[sql.Composable] = [definition(column) for column in wanted.columns]
    parts += _meta_columns(settings)
    if wanted.key:
        parts.append(text("primary key ({})").format(_COMMA.join(map(name, wanted.key))))
    table = text("create table {} ({})").format(_table(settings), _COMMA.join(parts))
    return [table, *_indexing_tombstones(settings, wanted.key)]


def _correct(
    session: Session, settings: TableSettings, have: TableSchema, wanted: TableSchema
) -> TableSchema | None:
    """Columns for the first documents of a table that was made without having seen one."""
    row = session.run(text("select exists (select from {})").format(_table(settings))).fetchone()
    if row is None or row[0]:
        return None  # it has rows of its own by now: they stay as they are
    there = server_types(session, settings)
    if _was_adopted(session, settings):
        return _adopt(session, settings, wanted, there)
    for column in wanted.columns:
        if fitting(column.name) not in there:
            session.run(adding(settings, definition(column)))
        elif (old := have.column(column.name)) and TYPES[old.kind] != TYPES[column.kind]:
            session.run(
                text("alter table {table} alter column {column} type {type} using null").format(
                    table=_table(settings),
                    column=name(column.name),
                    type=text(TYPES[column.kind]),
                )
            )
        _comment(session, settings, column)
    return wanted


def _was_adopted(session: Session, settings: TableSettings) -> bool:
    """Did somebody else make this table?  Only there our version has a default."""
    place = settings.destination
    row = session.named(
        "has_default",
        namespace=fitting(place.namespace),
        table=fitting(place.name),
        column="_cw_version",
    ).fetchone()
    return row is not None and bool(row[0])


def _adopt(
    session: Session, settings: TableSettings, wanted: TableSchema, there: dict[str, ServerType]
) -> TableSchema:
    """A table somebody else made: its types stand, and what we need is added to it."""
    key = key_there(session, settings, wanted)
    used = columns_ever(session, settings)
    schema, statements = adopting(settings, wanted, key, there, used)
    for statement in statements:
        session.run(statement)
    return schema


def key_there(session: Session, settings: TableSettings, wanted: TableSchema) -> tuple[str, ...]:
    """The key of a table that somebody else made, if it can be written to."""
    place = settings.destination
    key = tuple(
        row[0]
        for row in session.named(
            "table_key", namespace=fitting(place.namespace), table=fitting(place.name)
        )
    )
    shared.must_have_key(settings, wanted, key)
    blocking = [
        row[0]
        for row in session.named(
            "needed_columns", namespace=fitting(place.namespace), table=fitting(place.name)
        )
        if row[0] not in (*key, *_ours(settings))
    ]
    shared.may_be_null(settings, blocking, "ALTER TABLE … ALTER COLUMN … DROP NOT NULL")
    return key


def adopting(
    settings: TableSettings,
    wanted: TableSchema,
    key: tuple[str, ...],
    there: Mapping[str, ServerType],
    used: int,
) -> tuple[TableSchema, list[sql.Composed]]:
    """What such a table becomes, and the statements for it."""
    columns: list[Column] = []
    statements: list[sql.Composed] = []
    for column in wanted.columns:
        if fitting(column.name) not in there:
            if column.role is Role.FIELD and not room.has_room(columns, column.kind, used=used):
                continue  # its values stay in `_extra`
            statements.append(adding(settings, definition(column)))
            columns.append(column)
            used += 1
        elif (kept := as_there(column, there[fitting(column.name)])) is not None:
            columns.append(kept)
    statements += [adding(settings, one) for one in _meta_columns(settings, adopted=True)]
    statements += _indexing_tombstones(settings, key)
    return TableSchema(settings.table, tuple(columns), key), statements


def _widen(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    have, column = shared.of_existing(settings, have, change)
    if have.column(column.name) is not None:
        return None
    has_extra = any(c.role is not Role.FIELD for c in have.columns)
    if has_extra and column.name in _ours(settings):
        return None  # the field stays in `_extra`
    shared.must_leave_ours(settings, [column.name], _ours(settings))
    if not room.has_room(have.columns, column.kind, used=columns_ever(session, settings)):
        if has_extra:
            return None  # the field stays in `_extra`
        raise DestinationRefused(
            f"expected room for column {column.name!r}, found a row of {len(have.columns)} "
            "columns that would not fit a page of 8 kB, or 1,600 columns with the dropped ones; "
            "leave columns out at the source, or make the table anew",
            place=str(settings.destination),
        )
    session.run(adding(settings, definition(column)))
    there = server_types(session, settings)
    made = as_there(column, there[fitting(column.name)])
    if made is None:
        raise DestinationRefused(
            f"expected {TYPES[column.kind]} or a type of ours, found column {column.name!r} of "
            f"type {there[fitting(column.name)].type}; drop it or change its type",
            place=str(settings.destination),
        )
    _comment(session, settings, made)
    return replace(have, columns=(*have.columns, made))


def _retype(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    """Change a column to a kind that holds every value it has, or mark it as one that stays."""
    have, wanted = shared.of_existing(settings, have, change)
    old = have.column(wanted.name)
    if old is None or old.fixed or shared.holds_all_of(old, wanted):
        return None
    why_not = too_large(session, settings, old, wanted)
    if why_not is None:
        session.run(b"savepoint retype")
        try:
            session.run(retyping(settings, old, wanted))
            session.run(b"release savepoint retype")
        except _CANNOT as error:
            session.run(b"rollback to savepoint retype")
            why_not = f"the server refused: {error.diag.message_primary}"
    made = wanted
    if why_not is not None:
        made = replace(old, fixed=True)
        shared.log_kept(session, settings, old, TYPES[wanted.kind], why_not)
    return replace(have, columns=shared.with_column(have, made))


def retyping(settings: TableSettings, old: Column, wanted: Column) -> sql.Composed:
    return text("alter table {} alter column {} type {} using {}").format(
        _table(settings), name(old.name), text(TYPES[wanted.kind]), cast_to(old, wanted)
    )


def too_large(session: Session, settings: TableSettings, old: Column, wanted: Column) -> str | None:
    if old.kind == wanted.kind:  # only a limit goes, which is no rewrite
        return None
    place = settings.destination
    row = session.named(
        "table_bytes", namespace=fitting(place.namespace), table=fitting(place.name)
    ).fetchone()
    how = f"ALTER TABLE … ALTER COLUMN {old.name} TYPE {TYPES[wanted.kind]} at a quiet hour"
    return shared.too_large(row[0] if row else 0, settings, how)


# A view or rule that uses it, no owner's right, an index or default that cannot follow.
_CANNOT: Final = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.DependentObjectsStillExist,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.CannotCoerce,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidTableDefinition,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.DataError,
)


def cast_to(old: Column, wanted: Column) -> sql.Composed:
    """The values of the column as the wider kind has them: never rounded, never moved by a zone."""
    cell = name(old.name)
    type_ = text(TYPES[wanted.kind])
    if old.kind in (Kind.FLOAT32, Kind.FLOAT64) and wanted.kind == Kind.DECIMAL:
        # A cast keeps 6 or 15 digits; the text is the shortest that names the number.
        return text("{}::text::{}").format(cell, type_)
    if old.kind == Kind.DATE and wanted.kind == Kind.TIMESTAMP:
        return text("{}::timestamp at time zone 'UTC'").format(cell)
    return text("{}::{}").format(cell, type_)


def _tag_key(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    have, wanted = shared.of_existing(settings, have, change)
    old = shared.key_column(settings, have, wanted)
    if old.kind == wanted.kind:
        return None
    if wanted.kind != Kind.TAGGED or old.kind not in _TAGS:
        raise shared.no_such_key(settings, wanted.kind, old.kind)
    tagged, long = _tagged(old)
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
    session.run(tagging(settings, old))
    return replace(have, columns=shared.with_column(have, replace(old, kind=Kind.TAGGED)))


def tagging(settings: TableSettings, old: Column) -> sql.Composed:
    """A key column of one type of ids becomes one for ids of any type."""
    tagged, long = _tagged(old)
    return text(
        "alter table {table} alter column {key} type text using case when {long}"
        " then 'sha256:' || encode(sha256(convert_to({tagged}, 'UTF8')), 'hex')"
        " else {tagged} end"
    ).format(table=_table(settings), key=name(old.name), long=long, tagged=tagged)


def _tagged(old: Column) -> tuple[sql.Composed, sql.Composed]:
    """The text of a key with its type, and whether it is too long to be one."""
    tagged = text(_TAGS[old.kind]).format(key=name(old.name))
    return tagged, text("pg_catalog.octet_length({}) > {}").format(
        tagged, sql.Literal(_LONGEST_TAGGED)
    )


_MAKERS: Final[
    dict[
        Change,
        Callable[[Session, TableSettings, TableSchema | None, SchemaChange], TableSchema | None],
    ]
] = {
    Change.CREATE_TABLE: _create,
    Change.ADD_COLUMN: _widen,
    Change.RETYPE_KEY: _tag_key,
    Change.WIDEN_COLUMN: _retype,
    Change.TEXT_COLUMN: _retype,
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


@dataclass(frozen=True, slots=True)
class ServerType:
    """A column's type as the server has it, with its limits."""

    type: str
    limit: int | None
    scale: int | None


def server_types(session: Session, settings: TableSettings) -> dict[str, ServerType]:
    """By column; empty where there is no such table."""
    place = settings.destination
    rows = session.named(
        "table_columns", namespace=fitting(place.namespace), table=fitting(place.name)
    )
    return {column: ServerType(*type_) for column, *type_ in rows.fetchall()}


def columns_ever(session: Session, settings: TableSettings) -> int:
    """How many columns the table has and has had: PostgreSQL counts the dropped ones too."""
    place = settings.destination
    row = session.named(
        "columns_ever", namespace=fitting(place.namespace), table=fitting(place.name)
    ).fetchone()
    return int(row[0]) if row else 0


def as_there(column: Column, there: ServerType) -> Column | None:
    """The column with the kind of the type it has; None where we cannot write that type."""
    kind = KINDS.get(there.type)
    if kind is None:
        return None
    column = replace(column, limit=there.limit, scale=there.scale)
    if kind == column.kind or (kind == Kind.TEXT and column.kind in _TEXTS):
        return column
    return replace(column, kind=kind, fixed=False)


def _refreshed(column: Column, there: ServerType) -> Column:
    """A registered column as it is now: somebody may have changed its type by hand since."""
    return as_there(column, there) or column


def _table(settings: TableSettings) -> sql.Identifier:
    return name(settings.destination.namespace, settings.destination.name)


def definition(column: Column) -> sql.Composed:
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


def adding(settings: TableSettings, definition: sql.Composable) -> sql.Composed:
    return text("alter table {} add column if not exists {}").format(_table(settings), definition)


def _indexing_tombstones(settings: TableSettings, key: Sequence[str]) -> list[sql.Composed]:
    if not key:
        return []  # what is hidden there is half of the table
    return [
        text("create index on {} ({}) where _cw_deleted").format(
            _table(settings), _COMMA.join(map(name, key))
        )
    ]


def _comment(session: Session, settings: TableSettings, column: Column) -> None:
    said = column.comment or f"{settings.table}: {column.source}"
    session.run(
        text("comment on column {} is {}").format(
            name(settings.destination.namespace, settings.destination.name, column.name),
            literal(said.replace("\0", "\ufffd")),
        )
    )
