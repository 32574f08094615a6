"""A MySQL or MariaDB database with a login that may do what docs/sources/mysql.md says, no more."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pymysql
from fix_servers import mysql_client

from warp.model import ChangeBatch, Operation, Position, TableId, TableSettings
from warp.mysql_family import identifier
from warp.sources.mysql import MysqlOptions, MysqlSource

RIGHTS_OF_MARIADB = ("REPLICATION SLAVE", "BINLOG MONITOR")
RIGHTS_OF_MYSQL = ("REPLICATION SLAVE", "REPLICATION CLIENT")
RIGHT_WITHOUT_GTIDS = "FLUSH_TABLES"


@dataclass(frozen=True, slots=True)
class Selection:
    """Every table of one database, or those named."""

    namespace: str | None
    only: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, table: TableId) -> TableSettings | None:
        if self.namespace is not None and table.namespace != self.namespace:
            return None
        if self.only and table.name not in self.only:
            return None
        return TableSettings(table, table, "shop", **self.settings)


class World:
    """One database of a running server."""

    def __init__(self, url: str, database: str = "") -> None:
        self.url = url
        self.database = database or f"t_{secrets.token_hex(6)}"
        self.root = mysql_client(url)
        self.login = f"w_{secrets.token_hex(4)}"
        self.password = f"p@{secrets.token_hex(8)}/:%"
        self.sql(f"CREATE DATABASE {identifier(self.database)} CHARACTER SET utf8mb4")
        self.root.select_db(self.database)
        [(version,)] = self.sql("SELECT VERSION()")
        self.is_mariadb = "MariaDB" in version
        rights: tuple[str, ...] = RIGHTS_OF_MARIADB if self.is_mariadb else RIGHTS_OF_MYSQL
        self.has_gtids = self.is_mariadb or self.sql("SELECT @@GLOBAL.gtid_mode") == [("ON",)]
        if not self.has_gtids:
            rights = (*rights, RIGHT_WITHOUT_GTIDS)
        secret = self.root.escape(self.password)
        self.sql(f"CREATE USER {self.login} IDENTIFIED BY {secret}")
        self.sql(f"GRANT {', '.join(rights)} ON *.* TO {self.login}")
        # `_` and `%` are wildcards here, so that a database's name is escaped.
        name = re.sub(r"([\\_%])", r"\\\1", self.database)
        self.sql(f"GRANT SELECT ON {identifier(name)}.* TO {self.login}")
        self.sources: list[MysqlSource] = []

    def sql(self, statement: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        with self.root.cursor() as cursor:
            cursor.execute(statement, arguments)
            return list(cursor.fetchall())

    def script(self, *statements: str) -> None:
        for statement in statements:
            self.sql(statement)

    def another(self, **options: Any) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """One more session as root."""
        return mysql_client(self.url, database=self.database, **options)

    @property
    def connection_string(self) -> str:
        parts = urlsplit(self.url)
        secret = "".join(f"%{byte:02X}" for byte in self.password.encode())
        return f"mysql://{self.login}:{secret}@{parts.hostname}:{parts.port or 3306}/"

    def source(self, selection: Any = None, **options: Any) -> MysqlSource:
        given = {"connection_string": self.connection_string, **options}
        made = MysqlSource(
            MysqlOptions.model_validate(given), selection or Selection(self.database)
        )
        self.sources.append(made)
        return made

    def table(self, name: str) -> TableId:
        return TableId(self.database, name)

    def close(self) -> None:
        for source in self.sources:
            source.close()
        with contextlib.suppress(pymysql.err.Error):
            self.root.close()
        with mysql_client(self.url) as root, root.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {identifier(self.database)}")
            cursor.execute(f"DROP USER IF EXISTS {self.login}")


Seen = tuple[str, dict[str, Any]]  # operation, cells by column


def seen(batch: ChangeBatch) -> list[tuple[TableId, Operation, dict[str, Any]]]:
    """The rows of a batch, table by table."""
    found: list[tuple[TableId, Operation, dict[str, Any]]] = []
    for part in batch.changes:
        if part.schema is None:
            raise AssertionError("a relational source says the schema")
        names = part.schema.names()
        if not names:  # a table that is gone and of which nothing is known
            found += [(part.table, Operation(code), {}) for code in part.operations]
            continue
        for code, row in zip(part.operations, part.rows(), strict=True):
            found.append((part.table, Operation(code), dict(zip(names, row, strict=True))))
    return found


def follow(
    source: MysqlSource, position: Position, count: int, selection: Any = None
) -> list[tuple[TableId, Operation, dict[str, Any]]]:
    """The next `count` changes after a position; the caller closes the source."""
    chosen = selection or source._selection
    found: list[tuple[TableId, Operation, dict[str, Any]]] = []
    for batch in source.get_changes(position, selection=chosen, idle=0.05):
        found += seen(batch)
        if len(found) >= count:
            return found
    raise AssertionError(f"the stream ended after {found}")


def read(source: MysqlSource, table: TableId, rows: int = 100_000) -> list[dict[str, Any]]:
    """A whole table by its chunks."""
    return [
        row
        for chunk in source.chunks(table, rows)
        for batch in source.get_full_snapshot(chunk)
        for _, _, row in seen(batch)
    ]


@contextlib.contextmanager
def world_at(url: str, database: str = "") -> Iterator[World]:
    made = World(url, database)
    try:
        yield made
    finally:
        made.close()
