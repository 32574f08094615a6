"""The statements of a schema change on MySQL, told without running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from warp.destinations.mysql import columns, ddl, retyping, room
from warp.destinations.mysql.carriers import MOST_DIGITS, MOST_SCALE, TEXTS, key_bytes
from warp.destinations.mysql.session import Session
from warp.destinations.sql import foreseen
from warp.destinations.sql.ddl import no_such_key
from warp.destinations.sql.foreseen import kept, with_column
from warp.model import Column, Foreseen, Kind, Role, TableSchema


class Foreseeing(foreseen.Foreseeing[Session]):
    def _created(self, wanted: TableSchema) -> Foreseen:
        session, settings = self._session, self._settings
        if there := columns.there(session, settings):
            schema, statements = ddl.adopting(session, settings, wanted, there)
            return _told(statements, schema)
        wanted = ddl.placed(room.fitted(wanted))
        made = [ddl.making_database(session, settings), ddl.creating(session, settings, wanted)]
        return _told([statement for statement in made if statement], _as_made(wanted))

    def _added(self, have: TableSchema, column: Column) -> Foreseen:
        if any(c.source == column.source for c in have.columns):
            return Foreseen(have)
        taken = [*have.names(), *(name for name, _ in columns.of_ours(self._settings))]
        [column] = columns.placed([column], taken)
        if not room.has_room(have.columns, column.kind) and any(
            c.role is not Role.FIELD for c in have.columns
        ):
            return Foreseen(have)  # the field stays in `_extra`
        wanted = replace(have, columns=(*have.columns, column))
        statement = ddl.adding(self._session, self._settings, wanted, column)
        return _told([statement], _as_made(wanted))

    def _rekeyed(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen:
        if why_not := self._why_not_copied(have, old, wanted):
            raise no_such_key(self._settings, wanted.kind, old.kind, why_not)
        return self._told(have, old, replace(old, kind=wanted.kind))

    def _retyped(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen:
        why_not = ddl.why_not_retyped(self._session, self._settings, have, old, wanted)
        if why_not or self._why_not_copied(have, old, wanted):
            return kept(have, old)
        return self._told(have, old, wanted)

    def _why_not_copied(self, have: TableSchema, old: Column, wanted: Column) -> str | None:
        if retyping.by_server(old.kind, wanted.kind):
            return None
        return retyping.why_not_copied(have, old, wanted)

    def _told(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen:
        statements = retyping.statements(self._session, self._settings, have, old, wanted)
        return _told(statements, _as_made(with_column(have, wanted)))


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
