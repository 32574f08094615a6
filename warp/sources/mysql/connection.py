"""Connections to MySQL and MariaDB: login, TLS, session settings, and which of the two it is.

The driver never connects again by itself: what it would resume, and where, is the marker's to say.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import pymysql
from pydantic import Field

from warp.capture import names
from warp.errors import SourceRefused
from warp.mysql_family import Driver, FamilyOptions, Login, Server, tls_arguments
from warp.options import PositiveDuration, Text
from warp.sources.mysql.errors import translated

# Other sessions' settings must not change what we read: zero dates compare as they are, CHAR is
# not padded, instants are UTC, and a destination that takes its time does not end our reads.
SESSION: Final[Mapping[str, str]] = {
    "time_zone": "'+00:00'",
    "sql_mode": "'ALLOW_INVALID_DATES'",
    "sql_select_limit": "18446744073709551615",
    "net_read_timeout": "3600",
    "net_write_timeout": "3600",
    "wait_timeout": "28800",
    "lock_wait_timeout": "10",
}


class MysqlOptions(FamilyOptions):
    """The `source:` block of type `mysql`, for MariaDB too."""

    capture_schema: Text = Field(
        names.SCHEMA,
        description="database for the queues of tables with `strategy: trigger`, made where it is "
        "not there",
    )
    connect_timeout: PositiveDuration = Field(4.0, description="how long one connection may take")
    read_timeout: PositiveDuration = Field(
        120.0, description="how long one answer may take; a large table needs its time"
    )


def log_status(server: Server) -> str:
    """The statement that says where the binary log ends; MySQL renamed it in 8.2."""
    if not server.is_mariadb and server.version >= (8, 2, 0):
        return "SHOW BINARY LOG STATUS"
    return "SHOW MASTER STATUS"


CLOCK: Final = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


def session(server: Server) -> list[str]:
    """What each connection says first."""
    limit = "max_statement_time" if server.is_mariadb else "max_execution_time"
    settings = {**SESSION, limit: "0"}
    return [
        "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items()),
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",  # else no view is kept
    ]


class Connection:
    """One authenticated connection, opened at once; any failure is an error of ours."""

    def __init__(self, options: MysqlOptions, *, raw: bool = False) -> None:
        """With `raw` every cell comes as the bytes the server sent."""
        login = self.login = Login.parse(options, SourceRefused)
        self._asked = threading.Lock()
        more: dict[str, Any] = {}
        if raw:
            # An empty mapping of decoders; the encoders are what `execute` quotes values with.
            more = {"use_unicode": False, "conv": dict(pymysql.converters.encoders)}
        with translated(f"connect to {login.place}"):
            self.driver = Driver(
                host=login.host,
                port=login.port,
                user=login.user,
                password=login.password,
                unix_socket=login.unix_socket,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=max(1, round(options.connect_timeout)),
                read_timeout=options.connect_timeout,
                write_timeout=options.read_timeout,
                program_name="cartridge-warp",
                **tls_arguments(options, SourceRefused),
                **more,
            )
        # A server that says nothing at all is told within the time of a connection.
        self.driver._read_timeout = options.read_timeout  # type: ignore[attr-defined]
        said: Any = self.driver.get_server_info()  # type: ignore[no-untyped-call]
        self.server = Server.of(str(said), SourceRefused)
        for statement in session(self.server):
            self.execute(statement)

    def __repr__(self) -> str:
        return f"<Connection to {self.login.place}>"

    def execute(self, statement: str, arguments: Sequence[Any] | None = None) -> None:
        self.rows(statement, arguments)

    def rows(self, statement: str, arguments: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with (
            self._asked,  # the stream's thread asks about tables while the writer's does
            translated(f"run {statement.split(None, 1)[0]} at {self.login.place}"),
            self.driver.cursor() as cursor,
        ):
            cursor.execute(statement, arguments)
            return list(cursor.fetchall())

    def variables(self, *names: str) -> dict[str, str]:
        """Global settings by name; those this server has not got are left out."""
        listed = ", ".join(self.driver.escape(name) for name in names)
        found = self.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})")
        return {str(name): str(value) for name, value in found}

    def end(self) -> None:
        """From any thread: whoever waits for an answer gets an error."""
        end_socket(getattr(self.driver, "_sock", None))

    def close(self) -> None:
        with suppress(pymysql.err.Error, OSError):
            self.driver.close()


def end_socket(open_socket: socket.socket | None) -> None:
    """Wake whoever reads from it.  An SSLSocket's own `shutdown` would pull its state away from
    under the reader, so the one of the plain socket below it is called."""
    if open_socket is not None:
        with suppress(OSError):
            socket.socket.shutdown(open_socket, socket.SHUT_RDWR)
