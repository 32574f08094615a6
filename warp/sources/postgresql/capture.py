"""What `warp.capture` asks of PostgreSQL: polled tables are read on one connection of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from warp.capture import postgresql
from warp.capture.side import Clock
from warp.model import Cells, TableId, TableSchema
from warp.sources.postgresql import rows as reading
from warp.sources.postgresql.catalog import Catalog
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.values import Codec


class CaptureSide:
    """As `warp.capture.side.SqlSide`."""

    page_rows = 1  # a page is found by an index

    def __init__(self, server: Server, catalog: Catalog, *, schema: str) -> None:
        self._server = server
        self._catalog = catalog
        self.dialect = postgresql.PostgresDialect()
        self.triggers = postgresql.PostgresTriggers(self.ask, self.act, schema=schema)
        self._codecs: dict[tuple[TableId, tuple[str, ...]], list[Codec]] = {}

    def schema(self, table: TableId) -> TableSchema | None:
        found = self._catalog.find([table]).get(table)
        if found is None:
            return None
        return self._catalog.schema(found, self._catalog.shapes([found.oid])[found.oid])

    def version(self) -> int:
        # Where the log is written, not where it is flushed: what commits without waiting for that
        # (`synchronous_commit = off`) is seen before.
        [(lsn,)] = self.ask(
            "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()"
            " else pg_current_wal_insert_lsn() end - '0/0'"
        )
        return int(lsn)

    def clock(self) -> Clock:
        return postgresql.clock(self.ask)

    def select(
        self, statement: str, schema: TableSchema, *, rows: int
    ) -> Iterator[Sequence[Cells]]:
        codecs = self._codecs_of(statement, schema)
        query = sql.SQL(statement)
        place = str(schema.table)
        return reading.read(
            self._server, self._connection, query, codecs, lambda: rows, place=place
        )

    def leads_index(self, table: TableId, column: str) -> bool:
        return postgresql.leads_index(self.ask, table, column)

    def ask(self, statement: str) -> list[TupleRow]:
        with self._server.meaning(statement.split(None, 1)[0]):
            return self._connection.execute(sql.SQL(statement)).fetchall()

    def act(self, *statements: str) -> None:
        connection = self._connection
        doing = statements[-1].split("(")[0]
        with self._server.meaning(doing), connection.transaction():
            for statement in statements:
                connection.execute(sql.SQL(statement))

    def close(self) -> None:
        if "_connection" in self.__dict__:
            self._server.give_back(self._connection)

    @cached_property
    def _connection(self) -> Connection[TupleRow]:
        return self._server.connect()

    def _codecs_of(self, statement: str, schema: TableSchema) -> list[Codec]:
        """By the types of the result; asked once for each table and its columns."""
        about = (schema.table, schema.names())
        if about not in self._codecs:
            with self._server.meaning(f"read {schema.table}"):
                cursor = self._connection.execute(
                    sql.SQL(f"select * from ({statement}) as r limit 0")
                )
            oids = [column.type_code for column in cursor.description or ()]
            self._catalog.learn(oids)
            self._codecs[about] = [self._catalog.types.codec(oid) for oid in oids]
        return self._codecs[about]
