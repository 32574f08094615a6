"""The statements of a schema change on PostgreSQL, told without running them."""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from warp.destinations.postgresql import ddl, room
from warp.destinations.postgresql.session import Session, fitting, name, text
from warp.destinations.sql import foreseen
from warp.destinations.sql.foreseen import kept, with_column
from warp.model import Column, Foreseen, Role, TableSchema


class Foreseeing(foreseen.Foreseeing[Session]):
    def _created(self, wanted: TableSchema) -> Foreseen:
        session, settings = self._session, self._settings
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

    def _added(self, have: TableSchema, column: Column) -> Foreseen:
        if have.column(column.name) is not None:
            return Foreseen(have)
        used = ddl.columns_ever(self._session, self._settings)
        if not room.has_room(have.columns, column.kind, used=used) and any(
            c.role is not Role.FIELD for c in have.columns
        ):
            return Foreseen(have)  # the field stays in `_extra`
        statement = ddl.adding(self._settings, ddl.definition(column))
        return _told([statement], replace(have, columns=(*have.columns, column)))

    def _rekeyed(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen:
        return _told([ddl.tagging(self._settings, old)], with_column(have, wanted))

    def _retyped(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen:
        if ddl.too_large(self._session, self._settings, old, wanted) is not None:
            return kept(have, old)
        return _told([ddl.retyping(self._settings, old, wanted)], with_column(have, wanted))


def _told(statements: list[sql.Composed], schema: TableSchema) -> Foreseen:
    return Foreseen(schema, tuple(statement.as_string(None) for statement in statements))
