"""Connections to MySQL and MariaDB: login, TLS, session settings, and which of the two it is.

The driver never connects again by itself: what it would resume, and where, is the marker's to say.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pydantic import Field

from warp.capture import names
from warp.errors import SourceRefused
from warp.options import ConnectorOptions, PositiveDuration, Text
from warp.sources.mysql.errors import translated

DEFAULT_PORT: Final = 3306

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


class Tls(StrEnum):
    PREFERRED = "preferred"
    REQUIRED = "required"
    VERIFY = "verify"
    OFF = "off"


class Flavour(StrEnum):
    MYSQL = "mysql"
    MARIADB = "mariadb"


class MysqlOptions(ConnectorOptions):
    """The `source:` block of type `mysql`, for MariaDB too."""

    tls: Tls = Field(
        Tls.PREFERRED,
        description="`preferred` where the server offers it, `required`, `verify` (required, and "
        "the certificate must be of the host and signed by `tls_ca` or the system), or `off`",
    )
    tls_ca: Path | None = Field(None, description="PEM file of the authority to trust")
    tls_cert: Path | None = Field(None, description="PEM file of our own certificate")
    tls_key: Path | None = Field(None, description="PEM file of our own key")
    capture_schema: Text = Field(
        names.SCHEMA,
        description="database for the queues of tables with `strategy: trigger`, made where it is "
        "not there",
    )
    connect_timeout: PositiveDuration = Field(4.0, description="how long one connection may take")
    read_timeout: PositiveDuration = Field(
        120.0, description="how long one answer may take; a large table needs its time"
    )


@dataclass(frozen=True, slots=True)
class Login:
    """What a connection string says.  Holds a secret."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None
    unix_socket: str | None = None

    @staticmethod
    def parse(options: MysqlOptions) -> Login:
        try:
            parts = urlsplit(options.url)
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise SourceRefused(
                f"expected a connection string mysql://user:password@host:3306/database, found one "
                f"that cannot be read ({_without_value(error)})"
            ) from None
        parameters = dict(parse_qsl(parts.query))
        unix_socket = parameters.pop("unix_socket", None)
        if parameters:
            raise SourceRefused(
                f"expected no parameter but unix_socket in the connection string, found "
                f"{', '.join(sorted(parameters))}; TLS is set by `tls`, `tls_ca`, `tls_cert` and "
                "`tls_key` beside it"
            )
        path = unquote(parts.path.lstrip("/"))
        return Login(
            host=parts.hostname or "127.0.0.1",
            port=port,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=options.database or path or None,
            unix_socket=unix_socket,
        )

    @property
    def place(self) -> str:
        return self.unix_socket or f"{self.host}:{self.port}"


def _without_value(error: ValueError) -> str:
    """urlsplit repeats the port that it cannot read, which may be a piece of a password."""
    return re.sub(r"'.*'", "'…'", str(error))


@dataclass(frozen=True, slots=True)
class Server:
    """Which server answered."""

    flavour: Flavour
    version: tuple[int, int, int]
    said: str  # the version as the server says it

    @property
    def is_mariadb(self) -> bool:
        return self.flavour is Flavour.MARIADB

    @staticmethod
    def of(said: str) -> Server:
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", said.removeprefix("5.5.5-"))
        if found is None:
            raise SourceRefused(f"a version of MySQL or MariaDB was expected, found {said!r}")
        flavour = Flavour.MARIADB if "mariadb" in said.lower() else Flavour.MYSQL
        return Server(flavour, (int(found[1]), int(found[2]), int(found[3])), said)


def log_status(server: Server) -> str:
    """The statement that says where the binary log ends; MySQL renamed it in 8.2."""
    if not server.is_mariadb and server.version >= (8, 2, 0):
        return "SHOW BINARY LOG STATUS"
    return "SHOW MASTER STATUS"


def identifier(*names: str) -> str:
    """Names as SQL: `a`.`b`, with every backtick doubled."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def session(server: Server) -> list[str]:
    """What each connection says first."""
    limit = "max_statement_time" if server.is_mariadb else "max_execution_time"
    settings = {**SESSION, limit: "0"}
    return [
        "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items()),
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",  # else no view is kept
    ]


def unverified() -> ssl.SSLContext:
    """TLS with whoever answers; without the system's certificates, which take long to load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


if TYPE_CHECKING:
    _Base = pymysql.Connection[Any]
else:
    _Base = pymysql.Connection  # not to be subscripted


class _Driver(_Base):
    def _create_ssl_ctx(self, given: Any) -> ssl.SSLContext:
        """The driver's own loads the system's certificates, a tenth of a second, for nothing."""
        return given if isinstance(given, ssl.SSLContext) else unverified()


def tls_arguments(options: MysqlOptions) -> dict[str, Any]:
    """What the driver needs to know about TLS."""
    if options.tls is Tls.OFF:
        return {"ssl_disabled": True}
    named = {"tls_ca": options.tls_ca, "tls_cert": options.tls_cert, "tls_key": options.tls_key}
    if options.tls is Tls.PREFERRED and not any(named.values()):
        return {}
    try:
        context = unverified()
        if options.tls is Tls.VERIFY:
            context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert is not None:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f"{name} {path}" for name, path in named.items() if path)
        raise SourceRefused(f"expected readable PEM files, found: {error} ({files})") from error
    return {"ssl": context}


class Connection:
    """One authenticated connection, opened at once; any failure is an error of ours."""

    def __init__(self, options: MysqlOptions, *, raw: bool = False) -> None:
        """With `raw` every cell comes as the bytes the server sent."""
        login = self.login = Login.parse(options)
        self._asked = threading.Lock()
        more: dict[str, Any] = {}
        if raw:
            # An empty mapping of decoders; the encoders are what `execute` quotes values with.
            more = {"use_unicode": False, "conv": dict(pymysql.converters.encoders)}
        with translated(f"connect to {login.place}"):
            self.driver = _Driver(
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
                **tls_arguments(options),
                **more,
            )
        # A server that says nothing at all is told within the time of a connection.
        self.driver._read_timeout = options.read_timeout  # type: ignore[attr-defined]
        said: Any = self.driver.get_server_info()  # type: ignore[no-untyped-call]
        self.server = Server.of(str(said))
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
