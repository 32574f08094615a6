"""Rows read by their key, page by page, and written back with other values in some columns.

For what the server cannot convert exactly by itself: a boolean that becomes text, a key that takes
types it could not hold, values that waited in `_extra`.  Each page is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from warp.destinations.mysql import merge, reading
from warp.destinations.mysql.loading import Into, Loader, rows_of
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.model import Column, TableSchema, TableSettings

PAGE: Final = 2_000  # rows


class Rewriting:
    """One table's rows, over a connection on which no transaction is open."""

    def __init__(self, session: Session, settings: TableSettings, schema: TableSchema) -> None:
        self._session = session
        self._loader = Loader(session)
        self._schema = schema
        place = settings.destination
        self._table = quoted(fitting(place.namespace), fitting(place.name))
        self._place = place
        self._key = [c for name in schema.key if (c := schema.column(name)) is not None]

    def pages(
        self, column: Column, condition: str, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[list[tuple[Any, ...]], list[Any]]]:
        """Keys and the column's carriers, in the order of the key."""
        read = [*self._key, column]
        cells = reading.selected(read)
        order = ", ".join(f"d.{quoted(c.name)}" for c in self._key)
        after = "true"
        while True:
            rows = self._session.run(
                f"select {cells} from {self._table} as d where {condition} and {after}"
                f" order by {order} limit {PAGE}",
                parameters,
            ).fetchall()
            if not rows:
                return
            columns = reading.carriers(read, rows)
            keys = list(zip(*columns[:-1], strict=True))
            yield keys, columns[-1]
            if len(rows) < PAGE:
                return
            after = self._after(keys[-1])

    def _after(self, key: Sequence[Any]) -> str:
        """Rows behind this key, so written that the index finds them."""
        names = [f"d.{quoted(c.name)}" for c in self._key]
        values = [
            next(iter(rows_of([Into("", c)], [[cell]], 1))).replace("%", "%%")
            for c, cell in zip(self._key, key, strict=True)
        ]
        return merge.beyond(names, values, ">")

    def write(
        self,
        keys: Sequence[tuple[Any, ...]],
        columns: Sequence[tuple[Column, Sequence[Any]]],
        sets: Mapping[str, int],
        condition: str = "true",
    ) -> None:
        """Set columns of these rows; `sets` names for each which of `columns` it takes.

        In the condition `d` is the row, and `s.cN` cell N of its key and then of `columns`.
        """
        if not keys:
            return
        first = len(self._key)
        schema = TableSchema(
            self._schema.table,
            (*self._key, *(column for column, _ in columns)),
            self._schema.key,
        )
        landing = Landing(
            schema,
            self._place,
            "cw_again",
            None,
            self._session.meta,
            collation=self._session.collation,
        )
        self._session.run(merge.drop_staging(landing))
        self._session.run(merge.staging_table(landing))
        self._loader.load(
            landing.staged,
            [Into(f"c{n}", column) for n, column in enumerate(schema.columns)],
            [*map(list, zip(*keys, strict=True)), *(list(cells) for _, cells in columns)],
            rows=len(keys),
        )
        assigned = ", ".join(f"d.{quoted(n)} = s.c{first + of}" for n, of in sets.items())
        self._session.run(
            f"update {landing.staged} as s straight_join {self._table} as d"
            f" on {landing.same_key} set {assigned} where {condition}"
        )
        self._session.run(merge.drop_staging(landing))
