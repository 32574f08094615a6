"""One connection: its settings, its named statements, and what its errors mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

import psycopg
from psycopg import Cursor, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.postgres import types as pg_types
from psycopg.types.json import Jsonb
from psycopg.types.string import BytesBinaryDumper
from pydantic import Field

from warp.errors import DestinationRefused, DestinationUnavailable, WarpError
from warp.options import (
    ConnectorOptions,
    Count,
    Duration,
    PositiveDuration,
    Text,
    redact,
)
from warp.postgresql_answers import AnsweredConnection, patience
from warp.postgresql_url import PostgresUrl
from warp.sql import load

DEFAULT_SCHEMA: Final = "cartridge_warp_metadata"
MINIMUM_VERSION: Final = 130000
_NAME_BYTES: Final = 63  # longer names are cut by the server without a word

Parameters = Mapping[str, Any] | Sequence[Any]


class PostgresOptions(ConnectorOptions):
    """The `destination:` block of type postgresql."""

    connection_string: PostgresUrl = Field(
        description="postgresql://user:password@host:5432/database; libpq keywords work too"
    )
    metadata_schema: Text = Field(
        default=DEFAULT_SCHEMA, description="schema of the markers and the other bookkeeping"
    )
    connect_timeout: PositiveDuration = Field(
        default=5.0, description="how long to wait for the server to accept a connection"
    )
    lock_timeout: PositiveDuration = Field(
        default=5.0, description="how long a statement waits for a lock before it is tried again"
    )
    idle_in_transaction_session_timeout: PositiveDuration = Field(
        default=10.0,
        description="when the server ends the transaction of a paused worker; the lease's ttl",
    )
    statement_timeout: Duration = Field(
        default=60.0, description="longest single statement of a write; 0 for none"
    )
    application_name: Text = Field(
        default="cartridge-warp", description="what pg_stat_activity shows"
    )
    keepalive_idle: Count = Field(
        default=5, description="seconds of silence before the connection is probed"
    )


def fitting(name: str) -> str:
    """The name, or where it is longer than the server keeps, its beginning and a hash of it all."""
    raw = name.encode()
    if len(raw) <= _NAME_BYTES:
        return name
    mark = "_" + hashlib.sha256(raw).hexdigest()[:8]
    return raw[: _NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark


def name(*parts: str) -> sql.Identifier:
    """A quoted name, for a statement that is run with parameters (be it none).

    The driver looks for placeholders in the whole text, quoted names included, so a percent sign
    in a name is doubled here; `Session.run` always passes parameters.
    """
    return sql.Identifier(*(fitting(part).replace("%", "%%") for part in parts))


def text(statement: str) -> sql.SQL:
    """A piece of SQL that this package composed itself."""
    return sql.SQL(statement)


def literal(value: str | int | bool | None) -> sql.Composable:
    """A quoted value, for a statement that is run with parameters (see `name`)."""
    return sql.Literal(value.replace("%", "%%") if isinstance(value, str) else value)


def storable(value: str) -> str:
    """Text as a text column takes it: without NUL, without half of a surrogate pair."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Session:
    """A connection that is made when first needed and again after it was lost.

    `renewed` is called with each new connection: whoever keeps something on the server's side,
    such as temporary tables, forgets it then.  `undone` is called when a transaction was left:
    what it made is gone.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self.options = options
        self.renewed: list[Callable[[], None]] = []
        self.undone: list[Callable[[], None]] = []
        self._connection: AnsweredConnection | None = None
        self._statements: dict[str, bytes] = {}
        known = conninfo_to_dict(options.url)
        host = known.get("host") or known.get("hostaddr") or "the local socket"
        database = options.database or known.get("dbname") or ""
        self.place = f"{host}:{known.get('port') or 5432}/{database}"
        self._password = str(known.get("password") or "")

    # -- statements

    def statement(self, name_: str) -> bytes:
        """A named statement of warp/sql/postgresql, for this metadata schema."""
        found = self._statements.get(name_)
        if found is None:
            found = self.compose(load("postgresql", name_))
            self._statements[name_] = found
        return found

    def compose(self, template: str) -> bytes:
        composed = text(template).format(meta=name(self.options.metadata_schema))
        return composed.as_bytes(None)

    # -- the connection

    def connect(self) -> AnsweredConnection:
        """The connection; a new one where there is none that is known to work."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            for forget in self.renewed:
                forget()
        return self._connection

    @property
    def lost(self) -> bool:
        return self._connection is None or self._connection.closed

    def run(
        self, statement: bytes | sql.Composable, parameters: Parameters = (), **options: Any
    ) -> Cursor[Any]:
        """One statement, in the open transaction or, without one, in its own."""
        query = statement if isinstance(statement, bytes) else statement.as_bytes(None)
        return self.connect().execute(query, parameters, **options)

    def run_all(self, statements: Iterable[bytes], parameters: Parameters = ()) -> None:
        for statement in statements:
            self.run(statement, parameters)

    def named(self, name: str, /, **parameters: Any) -> Cursor[Any]:
        return self.run(self.statement(name), parameters)

    def each(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.connect().cursor() as cursor:
            cursor.executemany(self.statement(name), rows)

    def begin(self) -> None:
        self.run(b"BEGIN", prepare=False)

    def commit(self) -> None:
        self.run(b"COMMIT", prepare=False)

    def savepoint(self, name: str) -> None:
        self.run(b"SAVEPOINT " + name.encode())

    def release(self, name: str) -> None:
        self.run(b"RELEASE SAVEPOINT " + name.encode())

    def back_to(self, name: str) -> None:
        self.run(b"ROLLBACK TO SAVEPOINT " + name.encode())

    def storable(self, text: str) -> str:
        return storable(text)

    def to_json(self, value: Any) -> Jsonb:
        return Jsonb(value)

    def of_json(self, stored: Any) -> Any:
        return stored  # the driver has read it

    @contextmanager
    def block(self) -> Iterator[None]:
        """BEGIN … COMMIT, or ROLLBACK where anything is raised."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    @contextmanager
    def transaction(self, doing: str, *, patient: bool = False) -> Iterator[None]:
        """A block whose errors are explained; `patient` lifts the statement timeout."""
        with self.meaning(doing), self.unhurried() if patient else nullcontext(), self.block():
            if patient:
                self.run(b"SET LOCAL statement_timeout = 0")
            yield

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Wait for answers as long as they take; the server's own limit is for the caller to lift.

        A unit that waits for one that never comes shows no progress, and loses its lease by that.
        """
        connection = self.connect()
        before, connection.answers_within = connection.answers_within, None
        try:
            yield
        finally:
            connection.answers_within = before

    def rollback(self) -> None:
        """Leave the transaction; a connection that cannot is thrown away."""
        for forget in self.undone:
            forget()
        if self._connection is None:
            return
        try:
            self._connection.execute(b"ROLLBACK")
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _connect(self) -> AnsweredConnection:
        options = self.options
        parameters: dict[str, Any] = {
            "connect_timeout": max(2, round(options.connect_timeout)),
            "application_name": options.application_name,
            "client_encoding": "UTF8",
            "keepalives": 1,
            "keepalives_idle": options.keepalive_idle,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            # Unacknowledged data for this long is a lost connection, not a slow one.
            "tcp_user_timeout": 10_000,
        }
        if options.database:
            parameters["dbname"] = options.database
        with self.meaning("connecting"):
            url = make_conninfo(options.url, **parameters)
            connection = AnsweredConnection.connect(url, autocommit=True)
            connection.answers_within = max(2.0, options.connect_timeout)
            try:
                self._settle_in(connection)
            except BaseException:
                connection.close()
                raise
        connection.answers_within = patience(options.statement_timeout)
        return connection

    def _settle_in(self, connection: AnsweredConnection) -> None:
        # The driver's own choice for bytea is a dumper in Python; this one is in C.
        connection.adapters.register_dumper(bytes, BytesBinaryDumper)
        settings = {
            "TimeZone": "UTC",
            "lock_timeout": _milliseconds(self.options.lock_timeout),
            "statement_timeout": _milliseconds(self.options.statement_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(
                self.options.idle_in_transaction_session_timeout
            ),
            "default_transaction_isolation": "read committed",
            "search_path": "",
            "standard_conforming_strings": "on",
            "extra_float_digits": "1",
            "jit": "off",
            # A plan made while a table was empty must not outlive that.
            "plan_cache_mode": "force_custom_plan",
        }
        connection.execute(
            "select " + ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings)),
            [part for setting in settings.items() for part in setting],
        )
        # A commit that was reported must survive the server; a stricter choice is left alone.
        connection.execute(
            "select pg_catalog.set_config('synchronous_commit', 'on', false)"
            " where pg_catalog.current_setting('synchronous_commit') in ('off', 'local')"
        )

    # -- errors

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Raise what the server or the driver said as what the caller should do about it."""
        try:
            yield
        except psycopg.Error as error:
            raise self.explain(error, doing) from error

    def explain(self, error: psycopg.Error, doing: str) -> WarpError:
        said = redact(str(error).strip())
        if self._password:
            said = said.replace(self._password, "***")
        found = _condition(error)
        place = self.place
        if found in _REFUSED:
            return DestinationRefused(f"{doing}: {said}; {_REFUSED[found]}", place=place)
        if found[:2] in _REFUSED:
            return DestinationRefused(f"{doing}: {said}; {_REFUSED[found[:2]]}", place=place)
        if found in _WAITING or found[:2] in _WAITING or self._is_lost(error):
            what = _ADVICE.get(found[:2], "it is tried again") if found else _UNREACHABLE
            return DestinationUnavailable(f"{doing}: {said}; {what}", place=place)
        return DestinationRefused(f"{doing}: {said} (SQLSTATE {found or 'unknown'})", place=place)

    def _is_lost(self, error: psycopg.Error) -> bool:
        return error.sqlstate is None and isinstance(
            error, psycopg.OperationalError | psycopg.InterfaceError
        )


_UNREACHABLE: Final = "start the server or correct the destination's connection string"
_ADVICE: Final = {
    "53": "free connections, memory or disk at the server; it is tried again",
    "55": "another session holds the lock; it is tried again",
    "57": "the server is stopping or was told to end this session; it is tried again",
}
_REFUSED: Final = {
    "TLS": "correct sslmode and sslrootcert in the connection string, or the server's certificate",
    "28": "check the user and the password in the connection string",
    "3D": "create the database or name another in the connection string",
    "3F": "create the schema or let cartridge-warp prepare its metadata",
    "42501": "grant the right to the user of the connection string",
    "25006": "the server takes no writes: connect to the primary",
    "42P01": "run any cartridge-warp command that prepares the metadata, such as `validate`",
}
"""SQLSTATE or its class -> what a person does; TLS where libpq would not go on with the server."""

_WAITING: Final = frozenset(
    # 08 connection, 53 out of something, 57 shutting down or cancelled, 58 the server's disk
    {"08", "53", "57", "58", "40001", "40P01", "55P03", "55006", "25P03", "25P02"}
)

# A refused login carries no SQLSTATE in libpq: only the server's words.
_WORDS: Final = (
    (re.compile(r"password authentication failed|no password supplied"), "28P01"),
    (re.compile(r"role \".*\" does not exist|pg_hba\.conf|authentication failed"), "28000"),
    (re.compile(r"database \".*\" does not exist"), "3D000"),
    (re.compile(r"permission denied for database"), "42501"),
    (re.compile(r"is not permitted to log in"), "28000"),
    (re.compile(r"does not support SSL|certificate"), "TLS"),
    (re.compile(r"invalid (connection option|port number|sslmode)"), "28000"),
)


def _condition(error: psycopg.Error) -> str:
    if error.sqlstate:
        return error.sqlstate
    words = str(error)
    return next((state for pattern, state in _WORDS if pattern.search(words)), "")


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


OIDS: Final = {
    known: pg_types[known].oid
    for known in (
        *("bool", "int2", "int4", "int8", "float4", "float8", "numeric"),
        *("text", "bytea", "date"),
    )
}
