"""What a PostgreSQL table has of keys whose rows come out of quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from warp.destinations.postgresql import copying, merge
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing
from warp.destinations.postgresql.session import Session, literal, name, text
from warp.destinations.sql import quarantine

_COMMA = text(", ")


class Standings(quarantine.Standings[Session, Landing]):
    def _stage(self, landing: Landing, keys: Sequence[Sequence[Any]]) -> None:
        places = landing.places(landing.schema.key)
        kinds = [landing.schema.columns[place].kind for place in places]
        columns = [f"c{place}" for place in places] + ["v"]
        statement = text("copy {} ({}) from stdin (format binary)").format(
            landing.staged, _COMMA.join(map(sql.Identifier, columns))
        )
        copying.copy(
            self._session,
            statement.as_bytes(None),
            list(zip(kinds, keys, strict=True)),
            rows=len(keys[0]),
            beside=[("int8", range(len(keys[0])))],
        )

    def _present(self, landing: Landing) -> Sequence[Sequence[Any]]:
        gone: sql.Composable = text("d.{}").format(DELETED)
        if landing.soft is not None:
            gone = text("d.{} or coalesce(d.{}, false)").format(DELETED, name(landing.soft))
        statement = text("select s.v, d.{}, {} from {} as s join {} as d on {}").format(
            VERSION, gone, landing.staged, landing.table, landing.same_key
        )
        return self._session.run(statement).fetchall()

    def _deleted(self, landing: Landing, oldest: int) -> Sequence[Sequence[Any]]:
        """Deletions of these keys in the audit, as it writes a key."""
        key = landing.schema.key
        built = _COMMA.join(
            text("{}, {}").format(literal(column), landing.cell(place))
            for column, place in zip(key, landing.places(key), strict=True)
        )
        statement = text(
            "select s.v, max(a.version) from {} as s join {} as a"
            " on a.source_namespace = {} and a.source_table = {} and a.version >= %(oldest)s"
            " and a.key = jsonb_build_object({}) group by s.v"
        ).format(
            landing.staged,
            name(landing.meta, "deletion_audit"),
            literal(landing.schema.table.namespace),
            literal(landing.schema.table.name),
            built,
        )
        return self._session.run(statement, {"oldest": oldest}).fetchall()

    def _empty(self, landing: Landing) -> None:
        self._session.run_all(merge.empty_staging(landing))

    def _cannot_be_asked(self, error: BaseException) -> bool:
        return isinstance(error, psycopg.DataError | OverflowError | UnicodeError)
