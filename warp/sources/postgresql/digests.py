"""Rows of a table summed up by the server itself, where its types have our forms in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from psycopg import sql
from psycopg.postgres import types as pg_types

from warp.digest import servers
from warp.digest.canonical import HASH_BYTES
from warp.digest.comparing import Key
from warp.digest.seams import Compared
from warp.digest.sums import Sums
from warp.model import Chunk, Column
from warp.sources.postgresql.catalog import Shape, Table
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.snapshot import key_of, within

# A char(n) loses its spaces where it is cast to text, and a json keeps the order of its names.
_EXACT: Final = frozenset(
    pg_types[name].oid
    for name in (
        *("bool", "int2", "int4", "int8", "float4", "float8", "numeric", "text", "varchar"),
        *("bytea", "uuid", "date", "time", "timestamp", "timestamptz", "jsonb"),
    )
)


class ServerSums:
    """As `warp.digest.seams.Summing`: of one chunk."""

    def __init__(
        self, server: Server, table: Table, shape: Shape, chunk: Chunk, compared: Compared
    ) -> None:
        self._server = server
        self._table = table
        self._compared = compared
        conditions = within(chunk, key_of(table, shape)) if table.key else []
        if shape.row_filter is not None:
            conditions.append(sql.SQL("({})").format(sql.SQL(shape.row_filter)))
        self._where = sql.SQL(" AND ").join([sql.SQL("true"), *conditions])

    @staticmethod
    def can(shape: Shape, compared: Compared) -> bool:
        types = {column.name: column.type_oid for column in shape.columns}
        return all(types.get(column.source) in _EXACT for column in compared.columns)

    def total(self) -> Sums:
        hash_ = servers.postgresql_hash(_text(self._compared.columns))
        statement = sql.SQL("SELECT {} FROM (SELECT {} AS h FROM {} WHERE {} OFFSET 0) AS r")
        [row] = self._ask(
            statement.format(
                sql.SQL(servers.postgresql_sums("r.h")), sql.SQL(hash_), self._from, self._where
            )
        )
        return Sums.told(*row)

    def leaves(self) -> dict[int, Sums]:
        statement = sql.SQL(
            "SELECT r.leaf, {} FROM (SELECT {} AS leaf, {} AS h FROM {} WHERE {} OFFSET 0) AS r"
            " GROUP BY r.leaf"
        ).format(
            sql.SQL(servers.postgresql_sums("r.h")),
            sql.SQL(self._leaf),
            sql.SQL(servers.postgresql_hash(_text(self._compared.columns))),
            self._from,
            self._where,
        )
        return {leaf: Sums.told(*row) for leaf, *row in self._ask(statement)}

    def rows(self, leaves: Sequence[int]) -> list[tuple[Key, bytes]]:
        key = [sql.SQL(servers.postgresql_form(c.kind, _quoted(c))) for c in self._compared.key]
        statement = sql.SQL("SELECT {}, {} FROM {} WHERE {} AND {} = ANY ({})").format(
            sql.SQL(", ").join(key),
            sql.SQL(servers.postgresql_hash(_text(self._compared.columns))),
            self._from,
            self._where,
            sql.SQL(self._leaf),
            sql.Literal(list(leaves)),
        )
        return [(tuple(k), bytes(h)[:HASH_BYTES]) for *k, h in self._ask(statement)]

    @property
    def _leaf(self) -> str:
        return servers.postgresql_leaf(servers.postgresql_hash(_text(self._compared.key)))

    @property
    def _from(self) -> sql.Composed:
        return sql.SQL("{}{} AS t").format(
            sql.SQL("" if self._table.partitioned else "ONLY "),
            sql.Identifier(self._table.id.namespace, self._table.id.name),
        )

    def _ask(self, statement: sql.Composed) -> list[Any]:
        connection = self._server.connect()  # without a limit: a large range takes its time
        try:
            with self._server.meaning(f"sum up rows of {self._table.id}"):
                return connection.execute(statement).fetchall()
        finally:
            self._server.give_back(connection)


def _quoted(column: Column) -> str:
    return sql.Identifier("t", column.source).as_string(None)


def _text(columns: Sequence[Column]) -> str:
    return servers.postgresql_text([(c.kind, _quoted(c)) for c in columns])
