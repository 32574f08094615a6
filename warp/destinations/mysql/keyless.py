"""Tables without a key, as `warp.destinations.sql.keyless` says."""

from __future__ import annotations

from warp.destinations.mysql import ddl
from warp.destinations.mysql.merge import DELETED, VERSION, Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.destinations.sql import keyless
from warp.model import TableId, TableSettings


def append(landing: Landing, *, one_version: bool) -> str:
    """The staged rows, hidden.  A cell that was left out is NULL: there is no row to keep it."""
    schema = landing.schema
    into = [quoted(column.name) for column in schema.columns]
    values = [f"s.c{place}" for place in range(len(schema.columns))]
    if landing.soft is not None:
        into.append(quoted(landing.soft))
        values.append("false")
    version = "%(version)s" if one_version else "s.v"
    return (
        f"insert into {landing.table} ({', '.join([*into, VERSION, DELETED])})"
        f" select {', '.join([*values, version, 'true'])} from {landing.staged} as s"
    )


class Keyless(keyless.Keyless[Session]):
    def is_keyless(self, settings: TableSettings) -> bool:
        schema = ddl.registered(self._session, settings)
        return schema is not None and not schema.key

    def forget(self, settings: TableSettings) -> None:
        self._session.run(f"delete from {_table(settings.destination)} where {DELETED}")

    def reveal(self, place: TableId) -> None:
        self._session.run(f"delete from {_table(place)} where not {DELETED}")
        self._session.run(f"update {_table(place)} set {DELETED} = false where {DELETED}")

    def _hides_rows(self, settings: TableSettings) -> bool:
        found = self._session.run(
            f"select 1 from {_table(settings.destination)} where {DELETED} limit 1"
        )
        return found.fetchone() is not None


def _table(place: TableId) -> str:
    return quoted(fitting(place.namespace), fitting(place.name))
