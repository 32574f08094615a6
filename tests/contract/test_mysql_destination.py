"""MariaDB (and MySQL, where it is named) keeps every promise of a destination."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from fix_servers import Server, mysql_client

from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.model import TableId
from warp.testing.contracts import DestinationContract, select


class TestMysqlDestination(DestinationContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, mariadb: Server) -> Iterator[None]:
        self.url = mariadb.url
        self.metadata = f"m_{secrets.token_hex(6)}"
        self.made: list[MysqlDestination] = []
        yield
        for destination in self.made:
            destination.close()
        with mysql_client(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS shop")
            cursor.execute(f"DROP DATABASE IF EXISTS {self.metadata}")

    def make(self) -> MysqlDestination:
        options = {"connection_string": self.url, "metadata_schema": self.metadata}
        self.made.append(MysqlDestination(MysqlWriterOptions.model_validate(options), select))
        return self.made[-1]

    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        with mysql_client(self.url) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("SELECT id, name FROM shop.orders WHERE NOT _cw_deleted")
            except pymysql.err.ProgrammingError:
                return set()
            return set(cursor.fetchall())
