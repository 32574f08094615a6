"""What a table of MySQL has of keys whose rows come out of quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp.destinations.mysql import merge
from warp.destinations.mysql.errors import is_of_a_value
from warp.destinations.mysql.loading import Into, Loader, into
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.session import Session
from warp.destinations.sql import quarantine
from warp.model import Kind


class Standings(quarantine.Standings[Session, Landing]):
    def __init__(self, session: Session, loader: Loader) -> None:
        super().__init__(session)
        self._loader = loader

    def _stage(self, landing: Landing, keys: Sequence[Sequence[Any]]) -> None:
        schema = landing.schema
        places = [Into(f"c{n}", schema.columns[n]) for n in landing.places(schema.key)]
        self._empty(landing)
        self._loader.load(
            landing.staged,
            [*places, into("v", Kind.INT64)],
            [*map(list, keys), list(range(len(keys[0])))],
            rows=len(keys[0]),
        )

    def _present(self, landing: Landing) -> Sequence[Sequence[Any]]:
        [statement] = merge.present(landing)
        return self._session.run(statement).fetchall()

    def _deleted(self, landing: Landing, oldest: int) -> Sequence[Sequence[Any]]:
        [statement] = merge.deleted(landing)
        return self._session.run(statement, {"oldest": oldest}).fetchall()

    def _empty(self, landing: Landing) -> None:
        self._session.run(merge.empty_staging(landing))

    def _cannot_be_asked(self, error: BaseException) -> bool:
        return is_of_a_value(error)
