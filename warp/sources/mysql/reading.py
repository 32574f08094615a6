"""Large results, streamed: every cell the bytes that the server sent, by either of two drivers.

PyMySQL is always there.  mysqlclient (the extra `mysql-fast`) is used where it can be imported: by
CPU it reads raw rows several times as fast.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import ModuleType
from typing import Any, Final, Protocol

import pymysql

from warp.sources.mysql.connection import (
    Connection,
    Login,
    MysqlOptions,
    Server,
    Tls,
    end_socket,
    session,
)
from warp.sources.mysql.errors import code_of, text_of, translate, translated

_NO_TLS: Final = 2026  # the server offers none
Row = tuple[bytes | None, ...]


class Reader(Protocol):
    """One connection whose results are not held in memory."""

    server: Server

    def one(self, statement: str) -> Row:
        """The only row of a small result; an empty tuple where there is none."""
        ...

    def stream(self, statement: str) -> Iterator[Row]:
        """The rows of a result, one by one: a row may be as large as its server allows."""
        ...

    def end(self) -> None:
        """From any thread: a read that waits ends with an error."""
        ...

    def close(self) -> None: ...


def open_reader(options: MysqlOptions) -> Reader:
    fast = fast_driver()
    # The C driver was seen to take any certificate (3.4.11, ssl_mode VERIFY_IDENTITY).
    if fast is None or options.tls is Tls.VERIFY:
        return PlainReader(options)
    return FastReader(fast, options)


def fast_driver() -> ModuleType | None:
    """mysqlclient's C module, where it is installed."""
    try:
        from MySQLdb import _mysql
    except ImportError:
        return None
    return _mysql  # type: ignore[no-any-return]  # it has no types


class PlainReader:
    """By PyMySQL."""

    def __init__(self, options: MysqlOptions) -> None:
        self._connection = Connection(options, raw=True)
        self.server = self._connection.server

    def one(self, statement: str) -> Row:
        return next(iter(self._connection.rows(statement)), ())

    def stream(self, statement: str) -> Iterator[Row]:
        with translated(f"read from {self._connection.login.place}"):
            cursor = self._connection.driver.cursor(pymysql.cursors.SSCursor)
            try:
                cursor.execute(statement)
                while (row := cursor.fetchone()) is not None:
                    yield row
            finally:
                # Left early, the driver would read all the rest, even of a closed connection.
                if (result := getattr(cursor, "_result", None)) is not None:
                    result.unbuffered_active = False

    def end(self) -> None:
        self._connection.end()

    def close(self) -> None:
        # The socket first, so that no unread rows are waited for.
        self._connection.end()
        self._connection.close()


class FastReader:
    """By mysqlclient."""

    def __init__(self, driver: ModuleType, options: MysqlOptions) -> None:
        self._driver = driver
        login = Login.parse(options)
        self._place = login.place
        self._connection = self._connect(login, options)
        self.server = Server.of(self._connection.get_server_info())
        for statement in session(self.server):
            self.one(statement)

    def _connect(self, login: Login, options: MysqlOptions) -> Any:
        arguments = self._arguments(login, options)
        with self._translated(f"connect to {login.place}"):
            if options.tls is Tls.OFF:
                return self._driver.connect(**arguments, ssl_mode="DISABLED")
            # Its PREFERRED was seen to use no TLS where the server has it.
            try:
                return self._driver.connect(**arguments, ssl_mode="REQUIRED")
            except self._driver.MySQLError as error:
                if options.tls is Tls.REQUIRED or code_of(error) != _NO_TLS:
                    raise
            return self._driver.connect(**arguments, ssl_mode="DISABLED")

    @staticmethod
    def _arguments(login: Login, options: MysqlOptions) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "host": login.host,
            "port": login.port,
            "user": login.user,
            "password": login.password,
            "charset": "utf8mb4",
            "connect_timeout": max(1, round(options.connect_timeout)),
            "read_timeout": max(1, round(options.read_timeout)),
            "conv": {},
        }
        if login.unix_socket:
            arguments["unix_socket"] = login.unix_socket
        files = {"ca": options.tls_ca, "cert": options.tls_cert, "key": options.tls_key}
        if any(files.values()):
            arguments["ssl"] = {name: str(path) for name, path in files.items() if path}
        return arguments

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._driver.MySQLError as error:
            raise translate(code_of(error), text_of(error), doing) from error

    def one(self, statement: str) -> Row:
        with self._translated(f"run {statement.split(None, 1)[0]} at {self._place}"):
            self._connection.query(statement.encode())
            result = self._connection.store_result()
            rows = result.fetch_row(1) if result is not None else ()
        return tuple(rows[0]) if rows else ()

    def stream(self, statement: str) -> Iterator[Row]:
        with self._translated(f"read from {self._place}"):
            self._connection.query(statement.encode())
            fetch = self._connection.use_result().fetch_row
            while rows := fetch(1):
                yield rows[0]

    def end(self) -> None:
        with suppress(OSError, self._driver.MySQLError):
            copy = socket.socket(fileno=os.dup(self._connection.fileno()))
            with closing(copy):
                end_socket(copy)

    def close(self) -> None:
        self.end()
        with suppress(self._driver.MySQLError):
            self._connection.close()
