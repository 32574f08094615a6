"""The destination's tables: made, widened and re-keyed.

No DDL of this server is part of a transaction, and each ends the one it is run in.  So a
transaction holds the table's marker row, which keeps writers of the old schema and other makers
away, while a second connection makes the change; then the first one registers it.  Each step looks
at what is there and does what is missing, so a process killed between two of them leaves nothing
that its successor does not finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import pymysql

from warp import faults
from warp.destinations.mysql import backfill, columns, retyping, room
from warp.destinations.mysql.carriers import MOST_DIGITS, ServerColumn
from warp.destinations.mysql.errors import DUPLICATE, LOCK_WAIT, ROW_TOO_LARGE, code_of
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
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
    WorkUnit,
)

LOCK_PATIENCE: Final = "SET SESSION lock_wait_timeout = 1"  # seconds; less there is not
LOCK_PAUSE: Final = 0.5  # seconds between two tries, about
LOCK_TRIES: Final = 6
_RESERVED: Final = ("_cw_version", "_cw_deleted")
_TEXTS: Final = frozenset({Kind.TEXT, Kind.TAGGED, Kind.OBJECTID})


def registered(session: Session, settings: TableSettings) -> TableSchema | None:
    """The table as it was last registered, without columns that somebody has dropped since.

    None where it was never made, or was dropped and is to be read anew.
    """
    unit = unit_of(settings)
    row = session.named("registered_schema", unit=unit.id).fetchone()
    if row is None:
        return None
    version, stored, named, phase = row
    there = columns.there(session, settings)
    if not there:
        shared.must_be_there(settings, phase)
        return None
    kept = tuple(
        columns.refreshed(c, there[c.name])
        for c in shared.columns_of(session, stored)
        if c.name in there
    )
    key = tuple(session.of_json(named))
    shared.must_have_its_key(settings, key, kept)
    full = not room.has_room(kept)
    return TableSchema(settings.table, kept, key, version, full)


def current(session: Session, settings: TableSettings) -> TableSchema | None:
    """As `registered`, after finishing what configuration or a killed process left to do."""
    schema = registered(session, settings)
    if schema is None:
        return None
    if settings.soft_delete_column is not None:
        _must_leave_ours(settings, schema)
        # The table may have been made before deletes were configured to be soft.
        session.run_all(adding_ours(settings, columns.there(session, settings)))
    backfill.finish(session, settings, schema)
    return schema


def apply(session: Session, settings: TableSettings, change: SchemaChange) -> None:
    """Make one change, or find it made."""
    shared.insist(
        lambda: _apply_once(session, settings, change),
        settings,
        is_of_a_lock=lambda error: code_of(error) == LOCK_WAIT,
        tries=LOCK_TRIES,
        pause=LOCK_PAUSE,
        who="SHOW PROCESSLIST",
    )
    backfill.finish(session, settings, registered(session, settings))


def _apply_once(session: Session, settings: TableSettings, change: SchemaChange) -> None:
    unit = unit_of(settings)
    add_marker(session, unit, phase=Phase.PLANNED)
    doing = f"{change.change} on {settings.destination}"
    with session.transaction(doing, patient=True), session.beside() as making:
        row = session.named("read_marker", unit=unit.id).fetchone()
        if row is None:
            raise AssertionError("the marker was just added")
        version = markers.from_row(session, row).schema_version + 1
        have = registered(session, settings)
        with making.patience():
            making.run(LOCK_PATIENCE)
            schema = _MAKERS[change.change](making, settings, have, change)
        faults.hit("after_alter")
        if schema is not None:
            schema = replace(schema, version=version)
            shared.register(session, settings, schema, change, fitting)
        faults.hit("after_register")
    faults.hit("after_change")


def add_marker(session: Session, unit: WorkUnit, **given: Any) -> bool:
    """A unit's first marker; False where it has one.  Asked for first: an insert would wait for a
    predecessor that was paused in its transaction."""
    if session.named("peek_fence", unit=unit.id).fetchone() is not None:
        return False
    try:
        session.named("add_marker", **markers.to_parameters(session, unit, **given))
    except pymysql.err.IntegrityError as error:
        if code_of(error) != DUPLICATE:
            raise
        return False
    return True


# -- the changes; each returns the schema that came to be, or None where it was there already


def _create(
    making: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    wanted = change.schema
    if wanted is None:
        raise AssertionError("CREATE_TABLE carries a schema")
    if have is not None:
        return _correct(making, settings, have, wanted) if have.is_guess else None
    place = settings.destination
    _must_leave_ours(settings, wanted)
    there = columns.there(making, settings)
    if there:
        return _adopt(making, settings, wanted, there)
    if database := making_database(making, settings):
        making.run(database)
    wanted = placed(room.fitted(wanted))
    try:
        making.run(creating(making, settings, wanted))
    except pymysql.err.Error as error:
        if code_of(error) not in ROW_TOO_LARGE:
            raise
        raise DestinationRefused(
            f"expected columns that one row of InnoDB holds, found {len(wanted.columns)}; leave "
            "columns out at the source, or set max_columns",
            place=str(place),
        ) from error
    return wanted


def _must_leave_ours(settings: TableSettings, schema: TableSchema) -> None:
    ours = [name for name, _ in columns.of_ours(settings)]
    shared.must_leave_ours(settings, schema.names(), ours, alike=str.lower)


def making_database(session: Session, settings: TableSettings) -> str:
    """The statement that makes the table's database; empty where it is there."""
    space = fitting(settings.destination.namespace)
    if session.named("look_at_schema", schema=space).fetchone() is not None:
        return ""
    return (
        f"create database if not exists {quoted(space)}"
        f" default character set utf8mb4 collate {session.collation}"
    )


def creating(session: Session, settings: TableSettings, wanted: TableSchema) -> str:
    """The statement that makes a table."""
    parts = [columns.definition(session, settings, wanted, c.name) for c in wanted.columns]
    parts += [text for _, text in columns.of_ours(settings)]
    if wanted.key:
        parts.append(f"primary key ({', '.join(map(quoted, wanted.key))})")
    said = columns.comment(f"kept equal to {settings.table} by cartridge-warp"[:2048])
    return (
        f"create table if not exists {table(settings)} ({', '.join(parts)}) engine = InnoDB"
        f" row_format = dynamic default character set utf8mb4 collate {session.collation}"
        f" comment {said}"
    )


def placed(schema: TableSchema) -> TableSchema:
    placed = columns.placed(schema.columns, _RESERVED)
    names = dict(zip(schema.names(), (c.name for c in placed), strict=True))
    return replace(schema, columns=placed, key=tuple(names[name] for name in schema.key))


def _correct(
    making: Session, settings: TableSettings, have: TableSchema, wanted: TableSchema
) -> TableSchema | None:
    """Columns for the first documents of a table that was made without having seen one."""
    if making.run(f"select 1 from {table(settings)} limit 1").fetchall():
        return None  # it has rows of its own by now: they stay as they are
    _must_leave_ours(settings, wanted)
    there = columns.there(making, settings)
    if there["_cw_version"].has_default:  # somebody else made it
        return _adopt(making, settings, wanted, there)
    wanted = placed(room.fitted(wanted))
    for column in wanted.columns:
        if columns.in_any_case(there, column.name) is None:
            making.run(adding(making, settings, wanted, column))
        elif (old := have.column(column.name)) is None or old.kind != column.kind:
            text = columns.definition(making, settings, wanted, column.name)
            making.run(f"alter table {table(settings)} modify column {text}")
    return wanted


def _adopt(
    making: Session,
    settings: TableSettings,
    wanted: TableSchema,
    there: Mapping[str, ServerColumn],
) -> TableSchema:
    schema, statements = adopting(making, settings, wanted, there)
    for statement in statements:
        making.run(statement)
    return schema


def adopting(
    making: Session,
    settings: TableSettings,
    wanted: TableSchema,
    there: Mapping[str, ServerColumn],
) -> tuple[TableSchema, list[str]]:
    """A table somebody else made: its types stand, and what we need is added to it.

    What it becomes, and the statements for it.
    """
    wanted = placed(wanted)
    place = settings.destination
    where = {"namespace": fitting(place.namespace), "table": fitting(place.name)}
    kind, engine = making.named("table_kind", **where).fetchone() or ("", "")
    if kind != "BASE TABLE" or engine != "InnoDB":
        raise DestinationRefused(
            f"expected a table of InnoDB, whose writes are part of a transaction, found "
            f"{engine or str(kind).lower()}; run ALTER TABLE … ENGINE = InnoDB",
            place=str(place),
        )
    found = making.named("table_key", **where).fetchall()
    key = tuple(name for name, _ in found)
    shared.must_have_key(settings, wanted, key, whole=all(whole for _, whole in found))
    for name in key:
        if there[name].collation not in (None, making.collation):
            raise DestinationRefused(
                f"expected the key column {name!r} to compare by its bytes, found collation "
                f"{there[name].collation}, to which keys that differ are the same; run ALTER "
                f"TABLE … MODIFY {name} … CHARACTER SET utf8mb4 COLLATE {making.collation}",
                place=str(place),
            )
    ours = {name.lower() for name, _ in columns.of_ours(settings)}
    blocking = [
        name
        for name, column in there.items()
        if not (column.nullable or column.has_default or column.generated)
        and "auto_increment" not in column.extra.lower()
        and name not in key
        and name.lower() not in ours
    ]
    shared.may_be_null(settings, blocking, "ALTER TABLE … MODIFY … NULL")
    kept: list[Column] = []
    statements: list[str] = []
    for column in wanted.columns:
        at = columns.in_any_case(there, column.name)
        if at is None:
            if column.role is Role.FIELD and not room.has_room(kept, column.kind):
                continue  # its values stay in `_extra`
            statements.append(adding(making, settings, wanted, column))
            kept.append(column)
        elif (as_there := columns.as_there(column, at)) is not None:
            kept.append(as_there)
        else:
            raise DestinationRefused(
                f"expected a column {column.name!r} of type {column.kind}, or of another that can "
                f"be written exactly, found {at.spelled}; change its type, or drop the column",
                place=str(place),
            )
    statements += adding_ours(settings, there, adopted=True)
    return TableSchema(settings.table, tuple(kept), key), statements


def adding(session: Session, settings: TableSettings, schema: TableSchema, column: Column) -> str:
    text = columns.definition(session, settings, schema, column.name)
    return f"alter table {table(settings)} add column {text}"


def adding_ours(
    settings: TableSettings, there: Iterable[str], *, adopted: bool = False
) -> list[str]:
    """The statements for those of our own columns that the table has not got."""
    have = {name.lower() for name in there}
    return [
        f"alter table {table(settings)} add column {text}"
        for name, text in columns.of_ours(settings, adopted=adopted)
        if name.lower() not in have
    ]


def _add(
    making: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    have, column = shared.of_existing(settings, have, change)
    if any(c.source == column.source for c in have.columns):
        return None
    taken = [*have.names(), *(name for name, _ in columns.of_ours(settings))]
    [column] = columns.placed([column], taken)
    at = columns.in_any_case(columns.there(making, settings), column.name)
    if at is None:
        wanted = replace(have, columns=(*have.columns, column))
        has_room = room.has_room(have.columns, column.kind)
        try:
            if has_room:
                making.run(adding(making, settings, wanted, column))
        except pymysql.err.Error as error:
            if code_of(error) not in ROW_TOO_LARGE:
                raise
            has_room = False
        if not has_room:
            if any(c.role is not Role.FIELD for c in have.columns):
                return None  # the field stays in `_extra`
            raise DestinationRefused(
                f"expected room for column {column.name!r}, found a row of {len(have.columns)} "
                "columns, with which it would not fit into half a page; leave columns out at the "
                "source, or make the table anew",
                place=str(settings.destination),
            )
        at = columns.there(making, settings)[column.name]
    made = columns.as_there(column, at)
    if made is None:
        raise DestinationRefused(
            f"expected {column.kind} or a type of ours, found column {at.name!r} of type "
            f"{at.spelled}; drop it or change its type",
            place=str(settings.destination),
        )
    return replace(have, columns=(*have.columns, made))


def _retype(
    making: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    """Change a column to a kind that holds every value it has, or mark it as one that stays."""
    have, wanted = shared.of_existing(settings, have, change)
    old = have.column(wanted.name)
    if old is None or old.fixed or shared.holds_all_of(old, wanted):
        return None
    why_not = why_not_retyped(making, settings, have, old, wanted)
    if why_not is None:
        why_not = retyping.retype(making, settings, have, old, wanted)
    made = replace(wanted, limit=None, scale=None)
    if why_not is not None:
        made = replace(old, fixed=True)
        shared.log_kept(making, settings, old, wanted.kind, why_not)
    return replace(have, columns=shared.with_column(have, made))


def why_not_retyped(
    session: Session, settings: TableSettings, have: TableSchema, old: Column, wanted: Column
) -> str | None:
    """Why a column is not even tried to be changed."""
    if why_not := _too_large(session, settings, old, wanted):
        return why_not
    if old.kind == wanted.kind and old.limit == MOST_DIGITS:
        return "no DECIMAL of this server has more than 65 digits, or 30 after the point"
    if old.name in have.key and wanted.kind in _TEXTS and old.kind == Kind.TEXT:
        return "an index takes no longer text"
    return None


def _too_large(
    session: Session, settings: TableSettings, old: Column, wanted: Column
) -> str | None:
    place = settings.destination
    row = session.named(
        "table_bytes", namespace=fitting(place.namespace), table=fitting(place.name)
    ).fetchone()
    how = f"ALTER TABLE … MODIFY {old.name} … at a quiet hour, so that it holds {wanted.kind}"
    return shared.too_large(int(row[0]) if row else 0, settings, how)


def _tag_key(
    making: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> TableSchema | None:
    have, wanted = shared.of_existing(settings, have, change)
    old = shared.key_column(settings, have, wanted)
    if old.kind == wanted.kind:
        return None
    if why_not := retyping.retype(making, settings, have, old, wanted):
        raise shared.no_such_key(settings, wanted.kind, old.kind, why_not)
    return replace(have, columns=shared.with_column(have, replace(old, kind=wanted.kind)))


_MAKERS: Final[
    dict[
        Change,
        Callable[[Session, TableSettings, TableSchema | None, SchemaChange], TableSchema | None],
    ]
] = {
    Change.CREATE_TABLE: _create,
    Change.ADD_COLUMN: _add,
    Change.RETYPE_KEY: _tag_key,
    Change.WIDEN_COLUMN: _retype,
    Change.TEXT_COLUMN: _retype,
}


# -- pieces


def table(settings: TableSettings) -> str:
    place = settings.destination
    return quoted(fitting(place.namespace), fitting(place.name))
