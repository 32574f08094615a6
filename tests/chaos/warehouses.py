"""Where a fleet writes to: a place of its own on a server, and the audit of what happens there.

The judges ask the same of both servers: `{meta}` and `{audit}` in their queries stand for the
schemas of our metadata and of the audit, and names that are words of SQL are in double quotes.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg
import pymysql
from least_rights import PASSWORD, make_postgresql_writer, mysql_writer
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pymysql.converters import escape_string

from warp.assembly import Plugged
from warp.config import load
from warp.model import Change, SchemaChange
from warp.testing.servers import MariaDb, Postgres

METADATA: Final = "cartridge_warp_metadata"
Asked = list[tuple[Any, ...]]


class Warehouse(ABC):
    """Neither knows nor asks what is written to it."""

    meta: str
    audit: str
    server: Postgres | MariaDb

    def __init__(self) -> None:
        self.name = ""
        self._asked: Any = None

    @abstractmethod
    def create(self, name: str, namespaces: Sequence[str], *, audited: bool) -> None:
        """The place, and a login that may do no more in it than it must."""

    @abstractmethod
    def drop(self) -> None: ...

    @abstractmethod
    def block(self) -> dict[str, Any]:
        """The `destination:` of who writes to it."""

    @abstractmethod
    def connect(self) -> Any:
        """A connection of an administrator, which commits each statement and closes with its
        `with` block."""

    @abstractmethod
    def watch(self, configuration: Path, tables: Sequence[str]) -> None:
        """From before its first row each of these tables, in the only schema, is audited."""

    @abstractmethod
    def _is_missing(self, error: Exception) -> bool:
        """Is the table not there yet?"""

    @abstractmethod
    def _is_away(self, error: Exception) -> bool:
        """Is it the server?"""

    def text(self, query: str) -> str:
        return query.replace("{meta}", self.meta).replace("{audit}", self.audit)

    def read(self, query: str, *parameters: Any) -> Asked:
        """One query, with a connection of its own."""
        with self.connect() as connection:
            return self._rows(connection, query, parameters)

    def ask(self, query: str, *parameters: Any) -> Asked:
        """As `read`; nothing while the server is away or the table is not there yet."""
        # One connection for all: whoever waits asks twenty times a second.
        try:
            if self._asked is None:
                self._asked = self.connect()
            return self._rows(self._asked, query, parameters)
        except (psycopg.Error, pymysql.err.Error, OSError) as error:
            if self._is_missing(error):
                return []
            if not self._is_away(error):
                raise
            self.forget()
            return []

    def _rows(self, connection: Any, query: str, parameters: Sequence[Any]) -> Asked:
        cursor = connection.cursor()
        # Without parameters a percent sign is one.
        cursor.execute(self.text(query), parameters or None)
        return list(cursor.fetchall())

    def forget(self) -> None:
        """Close the connection of those who ask."""
        if self._asked is not None:
            with contextlib.suppress(psycopg.Error, pymysql.err.Error, OSError):
                self._asked.close()
            self._asked = None

    def named(self, connection: Any, table: str) -> Iterator[dict[str, Any]]:
        """The rows of a table of ours that are not deleted, as a document's fields."""
        cursor = connection.cursor()
        cursor.execute(f'select * from "{self.name}"."{table}" where not _cw_deleted')
        names = [column[0] for column in cursor.description]
        for cells in cursor.fetchall():
            yield {name: self.plain(name, cell) for name, cell in zip(names, cells, strict=True)}

    def plain(self, _name: str, cell: Any) -> Any:
        """The value of a cell of a document's field."""
        return cell


class PostgresWarehouse(Warehouse):
    """A database of its own.  Its triggers come by themselves, with each table that is made."""

    meta = METADATA
    audit = "audit"
    server: Postgres

    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self.server = server

    def create(self, name: str, namespaces: Sequence[str], *, audited: bool) -> None:
        self.name = name
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with self.connect() as connection:
            make_postgresql_writer(connection, name, namespaces)
            if audited:
                connection.execute(_file("audit_postgresql.sql"))

    def drop(self) -> None:
        self.forget()
        name = sql.Identifier(self.name)
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))
            connection.execute(sql.SQL("drop role {}").format(name))

    def block(self) -> dict[str, Any]:
        return {"type": "postgresql", "connection_string": make_conninfo(self.url, user=self.name)}

    @property
    def url(self) -> str:
        return self.server.database_url(self.name)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.url, autocommit=True, options="-c timezone=UTC", connect_timeout=5
        )

    def watch(self, configuration: Path, tables: Sequence[str]) -> None:
        """An event trigger does it."""

    def _is_missing(self, error: Exception) -> bool:
        return isinstance(error, psycopg.errors.UndefinedTable)

    def _is_away(self, error: Exception) -> bool:
        return isinstance(error, psycopg.OperationalError)


class MariaDbWarehouse(Warehouse):
    """Three databases of its own.

    No trigger of this server tells that a table was made.  So the tables are made before the fleet
    runs, by the code that it would make them with.
    """

    server: MariaDb
    _missing: ClassVar[frozenset[int]] = frozenset(
        {1049, 1054, 1146}
    )  # no such database, column, table

    def __init__(self, server: MariaDb) -> None:
        super().__init__()
        self.server = server

    def create(self, name: str, namespaces: Sequence[str], *, audited: bool) -> None:
        """Its audit begins with `watch`."""
        [namespace] = namespaces
        self.name = name
        self.meta, self.audit = f"{name}_meta", f"{name}_audit"
        with contextlib.closing(self.server.client()) as connection:
            for statement in mysql_writer(name, self.meta, namespace):
                connection.cursor().execute(statement)

    def drop(self) -> None:
        self.forget()
        with contextlib.closing(self.server.client()) as connection:
            for database in (self.name, self.meta, self.audit):
                connection.cursor().execute(f"drop database if exists {database}")
            connection.cursor().execute(f"drop user {self.name}")

    def block(self) -> dict[str, Any]:
        url = f"mysql://{self.name}:{PASSWORD}@127.0.0.1:{self.server.port}/"
        return {"type": "mysql", "connection_string": url, "metadata_schema": self.meta}

    def connect(self) -> pymysql.Connection[Any]:
        return self.server.client(
            connect_timeout=5,
            read_timeout=60,
            init_command="set sql_mode = 'STRICT_ALL_TABLES,ANSI_QUOTES', time_zone = '+00:00'",
        )

    def watch(self, configuration: Path, tables: Sequence[str]) -> None:
        self._make_tables(configuration, tables)
        with self.connect() as connection:
            cursor = connection.cursor()
            for statement in _file("audit_mariadb.sql").split(";\n\n"):
                cursor.execute(self.text(statement))
            for table in tables:
                cursor.execute(
                    "select column_name from information_schema.key_column_usage"
                    " where table_schema = %s and table_name = %s order by ordinal_position",
                    (self.name, table),
                )
                key = [str(name) for (name,) in cursor.fetchall()]
                cursor.execute(f'select * from "{self.name}"."{table}" limit 1')
                if cursor.fetchall():
                    raise AssertionError(f"expected {table} to be watched from its first row")
                columns = {column[0] for column in cursor.description}
                for statement in self._triggers(table, key, "stamp" in columns):
                    cursor.execute(statement)

    def _make_tables(self, configuration: Path, tables: Sequence[str]) -> None:
        assembly = Plugged(load(configuration))
        with (
            contextlib.closing(assembly.source(self.name)) as source,
            contextlib.closing(assembly.destination(self.name)) as destination,
        ):
            destination.metadata().prepare()
            there = source.get_schema([t for t in source.tables() if t.name in tables])
            if len(there) != len(tables):
                raise AssertionError(f"expected the tables {tables}, found {sorted(there)}")
            destination.apply_schema_changes(
                [SchemaChange(t, Change.CREATE_TABLE, schema=s) for t, s in there.items()]
            )

    def _triggers(self, table: str, key: Sequence[str], stamped: bool) -> Iterator[str]:
        where = f'"{self.name}"."{table}"'
        said = f"'{escape_string(table)}'"
        now = f"nextval({self.audit}.n), unix_timestamp(sysdate(6)), {said}"
        content = "json_array(new.stamp, new.total, new.name)" if stamped else "null"
        for event in ("insert", "update"):
            new = ", ".join(f'new."{name}"' for name in key)
            yield (
                f'create trigger "{self.name}"."{table}_{event}" after {event} on {where}'
                f' for each row insert into {self.audit}.rows (n, at, source, "key", version,'
                f" deleted, content) values ({now}, concat_ws('/', {new}), new._cw_version,"
                f" new._cw_deleted, {content})"
            )
        old = ", ".join(f'old."{name}"' for name in key)
        yield (
            f'create trigger "{self.name}"."{table}_delete" after delete on {where} for each row'
            f' insert into {self.audit}.deletions (n, at, source, "key")'
            f" values ({now}, concat_ws('/', {old}))"
        )

    def _is_missing(self, error: Exception) -> bool:
        return isinstance(error, pymysql.err.Error) and error.args[0] in self._missing

    def _is_away(self, error: Exception) -> bool:
        return isinstance(
            error, pymysql.err.OperationalError | pymysql.err.InterfaceError | OSError
        )

    def plain(self, name: str, cell: Any) -> Any:
        """JSON is text here, and times have no zone."""
        if isinstance(cell, datetime):
            return cell.replace(tzinfo=UTC)
        if isinstance(cell, str) and name not in ("_id", "name"):
            return json.loads(cell)
        return cell


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text()
