"""A table of PostgreSQL as any client reads it, for a second opinion on its digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from warp.destinations.postgresql.session import Session, fitting
from warp.digest import witness

_FETCHED: Final = 2_000


def recount(
    session: Session,
    place: tuple[str, str],
    columns: Sequence[tuple[str, str]],
    soft_delete_column: str | None,
) -> tuple[int, str]:
    """(rows, digest) of a table now; `columns` are names and kinds."""
    selected = sql.SQL(", ").join(
        sql.SQL(_SELECTED.get(kind, "{}")).format(sql.Identifier("t", fitting(name)))
        for name, kind in columns
    )
    conditions: list[sql.Composable] = [sql.SQL("not t._cw_deleted")]
    if soft_delete_column is not None:
        flag = sql.Identifier("t", fitting(soft_delete_column))
        conditions.append(sql.SQL("{} is not true").format(flag))
    query = sql.SQL("select {} from {} as t where {}").format(
        selected,
        sql.Identifier(*map(fitting, place)),
        sql.SQL(" and ").join(conditions),
    )
    with session.meaning(f"reading {'.'.join(place)}"):
        connection: psycopg.Connection[Any] = session.connect()
        with connection.transaction(), connection.cursor("witness") as cursor:
            cursor.itersize = _FETCHED
            cursor.execute(query)
            return witness.count(cursor, [kind for _, kind in columns])


# What the driver would not give as it is: years beyond Python's, and numbers inside of JSON.
_SELECTED: Final = {
    "date": "({} - date '2000-01-01')",
    "time": "(extract(epoch from {}) * 1000000)::bigint",
    "datetime": "((extract(epoch from {})::numeric - 946684800) * 1000000)::bigint",
    "timestamp": "((extract(epoch from {})::numeric - 946684800) * 1000000)::bigint",
    "json": "{}::text",
    "json_text": "{}::text",
}
