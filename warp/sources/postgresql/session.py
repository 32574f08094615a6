"""Connections to the source, each set so that text means the same on all of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from warp.errors import SourceUnavailable
from warp.postgresql_answers import AnsweredConnection, patience
from warp.sources.postgresql.errors import Explainer
from warp.sources.postgresql.options import PostgresSourceOptions
from warp.sql import load

Parameters = Mapping[str, Any] | Sequence[Any]

SETTINGS: Final = {
    # What an output function writes depends on these, in a walsender too.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "pg_catalog",
}
LOCKS_BRIEFLY: Final = 0.2
"""Seconds for a lock on a table of the application: whoever writes next waits behind us."""


class Server:
    """Makes connections to one database, and keeps one for short questions.

    The kept one may be asked from the thread that reads and from the one that writes at once.
    """

    def __init__(self, options: PostgresSourceOptions) -> None:
        self.options = options
        known = conninfo_to_dict(options.url)
        self.host = str(known.get("host") or known.get("hostaddr") or "")  # empty: a socket
        host = self.host or "the local socket"
        self.database = str(options.database or known.get("dbname") or known.get("user") or "")
        self._given_options = str(known.get("options") or "")
        place = f"{host}:{known.get('port') or 5432}/{self.database}"
        self.explainer = Explainer(place, str(known.get("password") or ""))
        self.meaning = self.explainer.meaning
        self.closed = threading.Event()
        self._asking = threading.RLock()
        self._kept: Connection[TupleRow] | None = None
        self._lent: set[Connection[TupleRow]] = set()

    def conninfo(self, *, replication: bool = False, settings: Mapping[str, str] = {}) -> str:
        """With settings given at the start, since a replication connection takes no SET."""
        options = self.options
        chosen = {**SETTINGS, **settings}
        words = [f"-c {name}={_escaped(value)}" for name, value in chosen.items()]
        parameters: dict[str, Any] = {
            "connect_timeout": max(2, round(options.connect_timeout)),
            "application_name": options.application_name,
            "client_encoding": "UTF8",
            "options": " ".join([self._given_options, *words]).strip(),
            "keepalives": 1,
            "keepalives_idle": options.keepalive_idle,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            # Unacknowledged data for this long is a lost connection, not a slow one.
            "tcp_user_timeout": 10_000,
        }
        if options.database:
            parameters["dbname"] = options.database
        if replication:
            parameters["replication"] = "database"
        return make_conninfo(options.url, **parameters)

    def connect(
        self, *, statement_timeout: float = 0.0, lock_timeout: float = LOCKS_BRIEFLY
    ) -> Connection[TupleRow]:
        """A connection of the caller's own, ended when this server is closed."""
        self.still_open()
        settings = {
            "statement_timeout": str(round(statement_timeout * 1000)),
            "lock_timeout": str(round(lock_timeout * 1000)),
            "default_transaction_isolation": "read committed",
            # A commit that waits for a standby, such as ours of a publication, would hang.
            "synchronous_commit": "local",
            "idle_in_transaction_session_timeout": "0",
            # A policy that would hide rows is an error then, and not fewer rows (guarantee 4).
            "row_security": "off",
            "jit": "off",
        }
        with self.meaning("connect"):
            made = AnsweredConnection.connect(self.conninfo(settings=settings), autocommit=True)
        made.answers_within = patience(statement_timeout)
        self._lent.add(made)
        return made

    def give_back(self, connection: Connection[TupleRow]) -> None:
        self._lent.discard(connection)
        with suppress(psycopg.Error):
            connection.close()

    def ask(
        self, query: str | sql.Composable, parameters: Parameters = (), *, doing: str
    ) -> list[TupleRow]:
        """The rows of one short statement, in its own transaction.

        `query` is the name of a file in warp/sql/postgresql_source, or composed.
        """
        statement = sql.SQL(load("postgresql_source", query)) if isinstance(query, str) else query
        with self._asking, self.meaning(doing):
            for attempt in (1, 2):
                connection = self._connection()
                try:
                    # Without parameters a percent sign in a name is no placeholder.
                    cursor = connection.execute(statement.as_bytes(None), parameters or None)
                    return cursor.fetchall() if cursor.description else []
                except psycopg.OperationalError:
                    # One that was cut while nobody asked it anything is simply made again.
                    if not connection.closed or attempt == 2 or self.closed.is_set():
                        raise
        raise AssertionError("either answered or raised")

    def _connection(self) -> Connection[TupleRow]:
        if self._kept is None or self._kept.closed:
            if self._kept is not None:
                self.give_back(self._kept)
            self._kept = self.connect(statement_timeout=self.options.statement_timeout)
        return self._kept

    @property
    def version(self) -> int:
        """Of the server, as 180006 for 18.6."""
        with self._asking, self.meaning("connect"):
            return self._connection().info.server_version

    def still_open(self, place: str = "") -> None:
        """To end a read without an error would look like the end of its rows (guarantee 8)."""
        if self.closed.is_set():
            raise SourceUnavailable("the connector was closed", place=place)

    def close(self) -> None:
        """From any thread: what runs on a connection is cancelled, and its reader ends."""
        self.closed.set()
        for connection in list(self._lent):
            if connection is not self._kept:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=2.0)
        if self._kept is not None and self._asking.acquire(timeout=2.0):
            try:
                if self._kept is not None:  # nobody else has closed it meanwhile
                    self.give_back(self._kept)
                    self._kept = None
            finally:
                self._asking.release()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
