"""Tables without a key, as `warp.destinations.sql.keyless` says."""

from __future__ import annotations

from psycopg import sql

from warp.destinations.postgresql import ddl
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing
from warp.destinations.postgresql.session import Session, name, text
from warp.destinations.sql import keyless
from warp.destinations.sql.ddl import unit_of
from warp.model import TableId, TableSettings

_COMMA = text(", ")


def append(landing: Landing, *, one_version: bool) -> sql.Composed:
    """The staged rows, hidden.  A cell that was left out is NULL: there is no row to keep it."""
    schema = landing.schema
    into = [name(column.name) for column in schema.columns]
    values: list[sql.Composable] = [landing.cell(place) for place in range(len(schema.columns))]
    if landing.soft is not None:
        into.append(name(landing.soft))
        values.append(text("false"))
    version = text("%(version)s::bigint") if one_version else text("s.v")
    return text("insert into {} ({}) select {} from {} as s").format(
        landing.table,
        _COMMA.join([*into, VERSION, DELETED]),
        _COMMA.join([*values, version, text("true")]),
        landing.staged,
    )


class Keyless(keyless.Keyless[Session]):
    def is_keyless(self, settings: TableSettings) -> bool:
        unit = unit_of(settings).id
        row = self._session.named("registered_schema", unit=unit).fetchone()
        return (
            row is not None and not row[2] and ddl.registered(self._session, settings) is not None
        )

    def forget(self, settings: TableSettings) -> None:
        table = _table(settings.destination)
        self._session.run(text("delete from {} where {}").format(table, DELETED))

    def reveal(self, place: TableId) -> None:
        self._session.run(text("delete from {} where not {}").format(_table(place), DELETED))
        self._session.run(
            text("update {} set {} = false where {}").format(_table(place), DELETED, DELETED)
        )

    def _hides_rows(self, settings: TableSettings) -> bool:
        row = self._session.run(
            text("select exists (select from {} where {})").format(
                _table(settings.destination), DELETED
            )
        ).fetchone()
        return row is not None and bool(row[0])


def _table(place: TableId) -> sql.Identifier:
    return name(place.namespace, place.name)
