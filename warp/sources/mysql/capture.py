"""What `warp.capture` asks of MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from warp.capture import mysql
from warp.capture.side import Clock
from warp.errors import SourceUnavailable
from warp.model import Cells, Column, TableId, TableSchema
from warp.sources.mysql.columns import Declared
from warp.sources.mysql.connection import Connection
from warp.sources.mysql.reading import Reader
from warp.sources.mysql.schema import Table


class CaptureSide:
    """As `warp.capture.side.SqlSide`: asks on one connection, reads rows on another."""

    page_rows = 1  # a page is found by an index

    def __init__(
        self,
        connection: Callable[[], Connection],
        open_reader: Callable[[], Reader],
        describe: Callable[[TableId], Table | None],
        version: Callable[[], int],
        *,
        schema: str,
    ) -> None:
        self._connection = connection
        self._open_reader = open_reader
        self._describe = describe
        self.version = version
        self.dialect = mysql.MysqlDialect(self._types)
        self._schema = schema
        self._described: dict[TableId, Table] = {}

    @cached_property
    def triggers(self) -> mysql.MysqlTriggers:
        mariadb = self._connection().server.is_mariadb
        return mysql.MysqlTriggers(self.ask, self.act, mariadb=mariadb, schema=self._schema)

    def schema(self, table: TableId) -> TableSchema | None:
        self._described.pop(table, None)
        found = self._describe(table)
        if found is None:
            return None
        self._described[table] = found
        return found.proposal()

    def clock(self) -> Clock:
        return mysql.clock(self.ask)

    def select(
        self, statement: str, schema: TableSchema, *, rows: int
    ) -> Iterator[Sequence[Cells]]:
        table = self._known(schema.table)
        columns = [table.column(column.source) or _unknown(column) for column in schema.columns]
        for page in self._reader.pages(statement, columns, rows):
            if page.rows:
                yield page.columns

    def leads_index(self, table: TableId, column: str) -> bool:
        return mysql.leads_index(self.ask, table, column)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._connection().rows(statement)

    def act(self, *statements: str) -> None:
        for statement in statements:
            self._connection().execute(statement)

    def close(self) -> None:
        if "_reader" in self.__dict__:
            self._reader.close()

    @cached_property
    def _reader(self) -> Reader:
        return self._open_reader()

    def _known(self, table: TableId) -> Table:
        if table not in self._described and self.schema(table) is None:
            raise SourceUnavailable("the table was dropped meanwhile", place=str(table))
        return self._described[table]

    def _types(self, table: TableId) -> Mapping[str, str]:
        return {column.name: column.data_type for column in self._known(table).columns}


def _unknown(column: Column) -> Declared:
    """A column that was dropped meanwhile: its cells as they come."""
    return Declared(column.source, "blob", "blob")
