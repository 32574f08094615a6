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


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination="mariadb",
    fault="superseded",
    by="test_an_old_owner_cannot_open",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="mariadb",
    fault="no fault",
    by="test_changes_of_one_version_apply_in_their_order",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="mariadb",
    fault="no fault",
    by="test_a_replayed_row_never_overrules_a_newer_one",
)
@pytest.mark.holds(
    guarantee=8,
    source="none",
    destination="mariadb",
    fault="hand-over",
    by="test_a_late_chunk_row_never_replaces_a_newer_one",
)
@pytest.mark.holds(
    guarantee=6,
    source="none",
    destination="mariadb",
    fault="lost position",
    by="test_rows_gone_at_the_source_are_swept_after_a_second_snapshot",
)
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
