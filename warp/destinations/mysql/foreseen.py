"""What a schema change would do, told without doing it: the statements, and the table after them.

The same pieces compose them as for the change itself (`ddl`); nothing here locks or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from warp.destinations.mysql import columns, ddl, retyping, room
from warp.destinations.mysql.carriers import MOST_DIGITS, MOST_SCALE, TEXTS, key_bytes
from warp.destinations.mysql.session import Session
from warp.destinations.sql import ddl as shared
from warp.model import (
    Change,
    Column,
    Foreseen,
    Kind,
    Role,
    SchemaChange,
    TableSchema,
    TableSettings,
)


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
    have, column = shared.of_existing(settings, have, change)
    if change.change is Change.ADD_COLUMN:
        return _added(session, settings, have, column)
    old = have.column(column.name)
    if old is None or old.fixed or shared.holds_all_of(old, column):
        return Foreseen(have)
    rekeys = change.change is Change.RETYPE_KEY
    why_not = None if rekeys else ddl.why_not_retyped(session, settings, have, old, column)
    if why_not is None and not retyping.by_server(old.kind, column.kind):
        why_not = retyping.why_not_copied(have, old, column)
    if why_not is not None and rekeys:
        raise shared.no_such_key(settings, column.kind, old.kind, why_not)
    if why_not is not None:
        return Foreseen(_with(have, replace(old, fixed=True)))
    made = replace(old, kind=column.kind) if rekeys else column
    statements = retyping.statements(session, settings, have, old, column)
    return _told(statements, _as_made(_with(have, made)))


def _created(session: Session, settings: TableSettings, wanted: TableSchema) -> Foreseen:
    if there := columns.there(session, settings):
        schema, statements = ddl.adopting(session, settings, wanted, there)
        return _told(statements, schema)
    wanted = ddl.placed(room.fitted(wanted))
    made = [ddl.making_database(session, settings), ddl.creating(session, settings, wanted)]
    return _told([statement for statement in made if statement], _as_made(wanted))


def _added(
    session: Session, settings: TableSettings, have: TableSchema, column: Column
) -> Foreseen:
    if any(c.source == column.source for c in have.columns):
        return Foreseen(have)
    taken = [*have.names(), *(name for name, _ in columns.of_ours(settings))]
    [column] = columns.placed([column], taken)
    if not room.has_room(have.columns, column.kind) and any(
        c.role is not Role.FIELD for c in have.columns
    ):
        return Foreseen(have)  # the field stays in `_extra`
    wanted = replace(have, columns=(*have.columns, column))
    return _told([ddl.adding(session, settings, wanted, column)], _as_made(wanted))


def _with(have: TableSchema, column: Column) -> TableSchema:
    return replace(have, columns=shared.with_column(have, column))


def _as_made(schema: TableSchema) -> TableSchema:
    """With the limits that columns of ours have here."""
    key = key_bytes(schema)

    def made(column: Column) -> Column:
        if column.kind is Kind.DECIMAL and column.limit is None:
            return replace(column, limit=MOST_DIGITS, scale=MOST_SCALE)
        if column.kind in TEXTS and column.name in schema.key:
            return replace(column, limit=key // 4)
        return column

    return replace(schema, columns=tuple(map(made, schema.columns)))


def _told(statements: Sequence[str], schema: TableSchema) -> Foreseen:
    # A percent sign is doubled only for parameters.
    return Foreseen(schema, tuple(one.replace("%%", "%") for one in statements))
