"""What a schema change would do, told without doing it: the statements, and the table after them.

The same pieces compose them as for the change itself (`ddl`); nothing here locks or writes.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from warp.destinations.postgresql import ddl, room
from warp.destinations.postgresql.session import Session, fitting, name, text
from warp.destinations.sql import ddl as shared
from warp.model import Change, Column, Foreseen, Role, SchemaChange, TableSchema, TableSettings


def foresee(
    session: Session, settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> Foreseen:
    """`have` is the table as it would be by then, which may not be there yet."""
    if change.change is Change.CREATE_TABLE:
        if change.schema is None:
            raise AssertionError("CREATE_TABLE carries a schema")
        if have is not None and not have.is_guess:
            return Foreseen(have)
        return _created(session, settings, change.schema)
    column = change.column
    if have is None or column is None:
        raise AssertionError(f"{change.change} is of a column of a table")
    if change.change is Change.ADD_COLUMN:
        return _added(session, settings, have, column)
    old = have.column(column.name)
    if old is None or old.fixed or shared.holds_all_of(old, column):
        return Foreseen(have)
    if change.change is Change.RETYPE_KEY:
        return _told([ddl.tagging(settings, old)], _with(have, column))
    if ddl.too_large(session, settings, old, column) is not None:
        return Foreseen(_with(have, replace(old, fixed=True)))
    return _told([ddl.retyping(settings, old, column)], _with(have, column))


def _created(session: Session, settings: TableSettings, wanted: TableSchema) -> Foreseen:
    place = settings.destination
    there = ddl.server_types(session, settings)
    if there:
        key = ddl.key_there(session, settings, wanted)
        used = ddl.columns_ever(session, settings)
        schema, statements = ddl.adopting(settings, wanted, key, there, used)
        return _told(statements, schema)
    found = session.run(
        b"select 1 from pg_catalog.pg_namespace where nspname = %s", [fitting(place.namespace)]
    ).fetchone()
    made = [text("create schema if not exists {}").format(name(place.namespace))]
    wanted = room.fitted(wanted)
    statements = ([] if found else made) + ddl.creating(settings, wanted)
    return _told(statements, wanted)


def _added(
    session: Session, settings: TableSettings, have: TableSchema, column: Column
) -> Foreseen:
    if have.column(column.name) is not None:
        return Foreseen(have)
    used = ddl.columns_ever(session, settings)
    if not room.has_room(have.columns, column.kind, used=used) and any(
        c.role is not Role.FIELD for c in have.columns
    ):
        return Foreseen(have)  # the field stays in `_extra`
    statement = ddl.adding(settings, ddl.definition(column))
    return _told([statement], replace(have, columns=(*have.columns, column)))


def _with(have: TableSchema, column: Column) -> TableSchema:
    return replace(have, columns=shared.with_column(have, column))


def _told(statements: list[sql.Composed], schema: TableSchema) -> Foreseen:
    return Foreseen(schema, tuple(statement.as_string(None) for statement in statements))
