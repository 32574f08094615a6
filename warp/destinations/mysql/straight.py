"""Rows of a snapshot straight into their table."""

from __future__ import annotations

from array import array

import pymysql

from warp.destinations.mysql.errors import NotAsSent, is_of_a_value
from warp.destinations.mysql.loading import Into, Loader
from warp.destinations.mysql.merge import DELETED, VERSION, Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.destinations.sql import straight
from warp.destinations.sql.straight import left_out
from warp.staged import Staged


class Straight(straight.Straight[Session, Landing]):
    FAILURES = (pymysql.err.Error, NotAsSent, OverflowError, UnicodeError)

    def __init__(self, session: Session, loader: Loader) -> None:
        super().__init__(session)
        self._loader = loader

    def _copy(self, part: Staged, landing: Landing, order: array[int] | None) -> None:
        if order is not None:
            part = part.only(order)
        without = left_out(part)
        chosen = [n for n in range(len(part.schema.columns)) if n not in without]
        # A table without a key shows its rows when all of them are there: see `keyless`.
        constants = [
            (VERSION, str(part.versions[0])),
            (DELETED, "0" if part.schema.key else "1"),
        ]
        if landing.soft is not None:
            constants.append((quoted(fitting(landing.soft)), "0"))
        self._loader.load(
            landing.table,
            [Into(quoted(part.schema.columns[n].name), part.schema.columns[n]) for n in chosen],
            [part.carriers[n] for n in chosen],
            rows=len(part),
            constants=constants,
        )

    def _leaves_it_to_the_merge(self, error: BaseException) -> bool:
        return is_of_a_value(error)
