"""Rows of a snapshot by COPY straight into their table."""

from __future__ import annotations

from array import array

import psycopg
from psycopg import sql

from warp.destinations.postgresql import copying
from warp.destinations.postgresql.careful import is_of_a_value
from warp.destinations.postgresql.carriers import TYPES
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing, composed
from warp.destinations.postgresql.session import Session, fitting, text
from warp.destinations.sql import straight
from warp.destinations.sql.straight import left_out
from warp.staged import Staged


class Straight(straight.Straight[Session, Landing]):
    FAILURES = (psycopg.Error, OverflowError, UnicodeError)

    def _copy(self, part: Staged, landing: Landing, order: array[int] | None) -> None:
        schema = part.schema
        [statement] = copy_in(landing, without=left_out(part))
        copying.copy(
            self._session,
            statement,
            [part.columns[place] for place in _places(landing, left_out(part))],
            rows=len(part),
            # A table without a key shows its rows when all of them are there: see `keyless`.
            constants=[
                ("int8", part.versions[0]),
                ("bool", not schema.key),
                *[("bool", False)] * (landing.soft is not None),
            ],
            order=order,
        )

    def _was_right(self, part: Staged, landing: Landing) -> bool:
        columns = [landing.schema.columns[place] for place in _places(landing, left_out(part))]
        ours = ["_cw_deleted", *([landing.soft] if landing.soft is not None else [])]
        row = self._session.named(
            "straight_was_right",
            namespace=fitting(landing.place.namespace),
            table=fitting(landing.place.name),
            columns=[*(fitting(c.name) for c in columns), "_cw_version", *map(fitting, ours)],
            types=[*(TYPES[c.kind] for c in columns), "bigint", *["boolean"] * len(ours)],
            key=sorted(map(fitting, landing.schema.key)),
        ).fetchone()
        return row is not None and bool(row[0])

    def _leaves_it_to_the_merge(self, error: BaseException) -> bool:
        return is_of_a_value(error) or isinstance(
            error, psycopg.ProgrammingError | psycopg.NotSupportedError
        )


@composed
def copy_in(landing: Landing, *, without: frozenset[int]) -> list[sql.Composed]:
    """Without parameters, so percent signs in names stay as they are."""
    columns: list[sql.Composable] = [
        sql.Identifier(fitting(landing.schema.columns[place].name))
        for place in _places(landing, without)
    ]
    columns += [VERSION, DELETED]
    if landing.soft is not None:
        columns.append(sql.Identifier(fitting(landing.soft)))
    return [
        text("copy {} ({}) from stdin (format binary)").format(
            sql.Identifier(fitting(landing.place.namespace), fitting(landing.place.name)),
            text(", ").join(columns),
        )
    ]


def _places(landing: Landing, without: frozenset[int]) -> list[int]:
    return [place for place in range(len(landing.schema.columns)) if place not in without]
