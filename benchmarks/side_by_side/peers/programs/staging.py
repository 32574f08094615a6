"""What stands behind a peer that only reads: COPY to a staging table, upsert, delete; one
transaction.  Runs in the peer's environment."""

from collections.abc import Sequence
from typing import Any

import psycopg

DDL = (
    "id bigint {key}, customer text, qty integer, amount numeric(12,2), weight double precision,"
    " created_at timestamptz, paid boolean, extra jsonb"
)
COLUMNS = ("customer", "qty", "amount", "weight", "created_at", "paid", "extra")


class Staging:
    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, options="-c timezone=UTC")
        self._connection.execute(
            f"create table if not exists landed.orders ({DDL.format(key='primary key')});"
            f" create temporary table staged ({DDL.format(key='')}) on commit delete rows"
        )
        again = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
        self._upsert = (
            "insert into landed.orders select * from staged on conflict (id) do update set " + again
        ).encode()

    def apply(self, rows: Sequence[tuple[Any, ...]], gone: Sequence[int]) -> None:
        """The rows as they are now; no id twice."""
        with self._connection.transaction():
            if rows:
                with self._connection.cursor().copy("copy staged from stdin") as copy:
                    for row in rows:
                        copy.write_row(row)
                self._connection.execute(self._upsert)
            if gone:
                self._connection.execute("delete from landed.orders where id = any(%s)", (gone,))
