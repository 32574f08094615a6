"""One connection: its settings, its named statements, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import pymysql
from pydantic import Field
from pymysql.constants import CLIENT, COMMAND
from pymysql.cursors import SSCursor
from pymysql.protocol import OKPacketWrapper

from warp.destinations.mysql.errors import (
    ADVICE,
    NO_LOCAL_FILES,
    code_of,
    is_login,
    is_of_a_right,
    is_of_tls,
    is_transient,
    said_by,
)
from warp.destinations.mysql.names import fitting, quoted
from warp.errors import DestinationRefused, DestinationUnavailable, WarpError
from warp.mysql_family import Driver, FamilyOptions, Login, Server, lacks_room, tls_arguments
from warp.options import PositiveDuration, Text, redact
from warp.sql import load

DEFAULT_SCHEMA: Final = "cartridge_warp_metadata"
PACKET: Final = 1 << 20  # bytes sent at once of what LOAD DATA reads
_ENDLESS: Final = 31_536_000  # seconds; the largest that every server takes

Parameters = Mapping[str, Any]


class MysqlWriterOptions(FamilyOptions):
    """The `destination:` block of type `mysql`, for MariaDB too."""

    database: Text | None = Field(
        None, description="not used: `schema` names the database of the tables"
    )
    metadata_schema: Text = Field(
        DEFAULT_SCHEMA, description="database of the markers and the other bookkeeping"
    )
    connect_timeout: PositiveDuration = Field(
        4.0, description="how long to wait for the server to accept a connection"
    )
    lock_timeout: PositiveDuration = Field(
        5.0, description="how long a statement waits for a lock before it is tried again"
    )
    idle_transaction_timeout: PositiveDuration = Field(
        10.0,
        description="when MariaDB ends the transaction of a paused worker; the lease's ttl. MySQL "
        "has no such setting: there the successor ends it",
    )
    statement_timeout: PositiveDuration = Field(
        60.0, description="longest single statement of a write"
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement came to."""

    rows: Sequence[tuple[Any, ...]]
    rowcount: int  # found by an UPDATE, changed or not
    warnings: int

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> Sequence[tuple[Any, ...]]:
        return self.rows


def storable(value: str) -> str:
    """Text as a column of utf8mb4 takes it: without half of a surrogate pair."""
    return value.encode("utf-8", "replace").decode()


class Session:
    """A connection that is made when first needed and again after it was lost.

    `renewed` is called with each new connection: whoever keeps something on the server's side,
    such as temporary tables, forgets it then.
    """

    def __init__(self, options: MysqlWriterOptions) -> None:
        self.options = options
        self.renewed: list[Callable[[], None]] = []
        self.login = Login.parse(options, DestinationRefused)
        self.place = self.login.place
        self.meta = fitting(options.metadata_schema)
        self._driver: Driver | None = None
        self._server: Server | None = None
        self._statements: dict[str, str] = {}

    # -- statements

    @property
    def server(self) -> Server:
        if self._server is None:
            self.connect()
        if self._server is None:
            raise AssertionError("a connection knows its server")
        return self._server

    @property
    def collation(self) -> str:
        """Bytes compare as they are, and trailing spaces count."""
        return "utf8mb4_nopad_bin" if self.server.is_mariadb else "utf8mb4_0900_bin"

    def statement(self, name: str) -> str:
        """A named statement of warp/sql/mysql_destination, for this metadata database."""
        found = self._statements.get(name)
        if found is None:
            found = self._statements[name] = self.compose(load("mysql_destination", name))
        return found

    def compose(self, template: str) -> str:
        text = template.replace("{meta}", quoted(self.meta))
        return text.replace("{collation}", self.collation) if "{collation}" in text else text

    # -- the connection

    def connect(self) -> Driver:
        """The connection; a new one where there is none that is known to work."""
        if self._driver is None or not self._driver.open:
            self._driver = self._connect()
            for forget in self.renewed:
                forget()
        return self._driver

    @property
    def lost(self) -> bool:
        return self._driver is None or not self._driver.open

    def run(self, statement: str, parameters: Parameters | None = None) -> Answer:
        """One statement, in the open transaction or, without one, in its own.

        Every percent sign in it is doubled or stands for a parameter.  A list stands for the
        values of an IN; an empty one for none.
        """
        driver = self.connect()
        values = {name: self._escaped(value) for name, value in (parameters or {}).items()}
        return _ask(driver, statement % values)

    def pages(
        self, statement: str, parameters: Parameters | None = None, *, rows: int = 2_000
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows of a large answer, so many at a time (guarantee 9).

        Nothing else can be asked of the connection until the last has come.
        """
        driver = self.connect()
        values = {name: self._escaped(value) for name, value in (parameters or {}).items()}
        with closing(SSCursor(driver)) as cursor:
            cursor.execute(statement % values)
            while page := cursor.fetchmany(rows):
                yield page

    def run_all(self, statements: Iterable[str], parameters: Parameters | None = None) -> None:
        for statement in statements:
            self.run(statement, parameters)

    def named(self, name: str, /, **parameters: Any) -> Answer:
        return self.run(self.statement(name), parameters)

    def each(self, name: str, rows: Sequence[Parameters]) -> None:
        for row in rows:
            self.run(self.statement(name), row)

    def begin(self) -> None:
        self.run("BEGIN")

    def commit(self) -> None:
        self.run("COMMIT")

    def savepoint(self, name: str) -> None:
        self.run(f"SAVEPOINT {name}")

    def release(self, name: str) -> None:
        self.run(f"RELEASE SAVEPOINT {name}")

    def back_to(self, name: str) -> None:
        self.run(f"ROLLBACK TO SAVEPOINT {name}")

    def storable(self, text: str) -> str:
        return storable(text)

    def to_json(self, value: Any) -> str:
        return json.dumps(value)

    def of_json(self, stored: Any) -> Any:
        return json.loads(stored)

    def _escaped(self, value: Any) -> str:
        driver = self.connect()
        if isinstance(value, list | tuple):
            return "(" + (", ".join(map(driver.escape, value)) or "NULL") + ")"
        return str(driver.escape(value))

    def load_local(self, statement: str, lines: bytes) -> Answer | None:
        """LOAD DATA LOCAL of these lines; None, with nothing done, where the server has it off.

        The file that the server asks for is never looked at: it gets the lines, and a connection
        without this call sends it nothing at all, whatever it asks for.
        """
        driver: Any = self.connect()
        try:
            driver._execute_command(COMMAND.COM_QUERY, statement.encode())
            packet = driver._read_packet()
        except pymysql.err.Error as error:
            if code_of(error) in NO_LOCAL_FILES:
                return None
            raise
        view = memoryview(lines)
        for start in range(0, len(view), PACKET):
            driver.write_packet(bytes(view[start : start + PACKET]))
        driver.write_packet(b"")
        packet = OKPacketWrapper(driver._read_packet())
        return Answer((), packet.affected_rows, packet.warning_count)

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
        with self.meaning(doing), self.patience(patient), self.block():
            yield

    @contextmanager
    def patience(self, wanted: bool = True) -> Iterator[None]:
        """Statements inside may take as long as they need."""
        if not wanted:
            yield
            return
        driver: Any = self.connect()
        self.run(_set(dict.fromkeys(self._time_limits(), 0)))
        before, driver._read_timeout = driver._read_timeout, None
        try:
            yield
        finally:
            driver._read_timeout = before
            if not self.lost:
                self.run(_set(self._time_limits()))

    def rollback(self) -> None:
        """Leave the transaction; a connection that cannot is thrown away."""
        if self._driver is None:
            return
        try:
            _ask(self._driver, "ROLLBACK")
        except (pymysql.err.Error, OSError):
            self.close()

    def close(self) -> None:
        if self._driver is not None:
            with suppress(pymysql.err.Error, OSError):
                self._driver.close()
            self._driver = None

    @contextmanager
    def beside(self) -> Iterator[Session]:
        """A second connection, for what ends the transaction of the one it is done on: DDL."""
        second = Session(self.options)
        try:
            yield second
        finally:
            second.close()

    def _connect(self) -> Driver:
        options = self.options
        with self.meaning("connecting"):
            driver = Driver(
                host=self.login.host,
                port=self.login.port,
                user=self.login.user,
                password=self.login.password,
                unix_socket=self.login.unix_socket,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=max(1, round(options.connect_timeout)),
                read_timeout=options.connect_timeout,
                write_timeout=options.statement_timeout,
                # The flag alone, not the driver's own way of answering with any file of ours.
                client_flag=CLIENT.FOUND_ROWS | CLIENT.LOCAL_FILES,
                program_name="cartridge-warp",
                **tls_arguments(options, DestinationRefused),
            )
            try:
                said: Any = driver.get_server_info()  # type: ignore[no-untyped-call]
                self._server = Server.of(str(said), DestinationRefused)
                for statement in self._settings():
                    _ask(driver, statement)
            except BaseException:
                driver.close()
                raise
        # A server that says nothing at all is told within the time of a connection.
        driver._read_timeout = 1.5 * options.statement_timeout  # type: ignore[attr-defined]
        return driver

    def _settings(self) -> Iterator[str]:
        """What our statements rely on, whatever the server's own settings are."""
        lock = max(1, round(self.options.lock_timeout))
        settings: dict[str, str | int] = {
            # Without strict mode values are cut, rounded and replaced with a warning only.
            "sql_mode": "'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'",
            "time_zone": "'+00:00'",
            "innodb_lock_wait_timeout": lock,
            "lock_wait_timeout": lock,
            "wait_timeout": 28_800,
            "net_read_timeout": 3_600,  # a large batch over a slow network
            "net_write_timeout": 3_600,
            # Rows come in the order of the source's log, or of its chunks, not of their references;
            # and what a foreign key would cascade, the source's log says itself.
            "foreign_key_checks": 0,
            "unique_checks": 1,
            "sql_safe_updates": 0,
            "sql_select_limit": "18446744073709551615",
            "group_concat_max_len": 1 << 24,  # the digests of all units of a pass
            **self._time_limits(),
        }
        yield _set(settings)
        # No gaps are locked, and each statement sees what was committed before it.
        yield "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"
        yield f"SET NAMES utf8mb4 COLLATE {self.collation}"

    def _time_limits(self) -> dict[str, int]:
        """What ends a statement, or a transaction in which nothing is done."""
        longest = max(1, round(self.options.statement_timeout))
        if not self.server.is_mariadb:
            return {"max_execution_time": 1000 * longest}
        idle = max(1, round(self.options.idle_transaction_timeout))
        return {"max_statement_time": longest, "idle_transaction_timeout": idle}

    # -- errors

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Raise what the server or the driver said as what the caller should do about it."""
        try:
            yield
        except pymysql.err.Error as error:
            raise self.explain(error, doing) from error
        except OSError as error:
            self.close()
            raise DestinationUnavailable(
                f"{doing}: {error}; {_UNREACHABLE}", place=self.place
            ) from error
        except RuntimeError as error:
            # PyMySQL's own: a password that only the package `cryptography` can send without TLS.
            if "cryptography" not in str(error):
                raise
            raise DestinationRefused(
                f"{doing}: the package cryptography was expected for this login without TLS; run "
                "`pip install 'pymysql[rsa]'`, or set `tls: required`",
                place=self.place,
            ) from error

    def explain(self, error: pymysql.err.Error, doing: str) -> WarpError:
        code, said = code_of(error), redact(said_by(error).strip())
        if self.login.password:
            said = said.replace(self.login.password, "***")
        told = f"{doing}: {said} ({code})"
        if is_of_tls(code, said):
            what = "correct `tls` and `tls_ca`, or the server's certificate"
        elif is_login(code):
            what = "check user, password, TLS and from which hosts the user may connect"
        elif is_of_a_right(code):
            what = "docs/destinations/mysql.md has the GRANT statements"
        elif code in ADVICE:
            what = ADVICE[code]
        elif is_transient(code) or lacks_room(code, said):
            return DestinationUnavailable(f"{told}; it is tried again", place=self.place)
        elif code == 0 or isinstance(error, pymysql.err.InterfaceError):
            self.close()
            return DestinationUnavailable(f"{told}; {_UNREACHABLE}", place=self.place)
        else:
            return DestinationRefused(told, place=self.place)
        return DestinationRefused(f"{told}; {what}", place=self.place)


_UNREACHABLE: Final = "start the server or correct the destination's connection string"


def _set(settings: Mapping[str, str | int]) -> str:
    return "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())


def _ask(driver: Any, statement: str) -> Answer:
    try:
        # The driver would send half of a surrogate pair as a byte of its own.
        driver.query(statement.encode())
    except RuntimeError as error:
        driver._force_close()
        raise DestinationRefused(
            "expected the server to answer a statement, found that it asks for a file of this "
            f"machine ({error}); it gets none: is it the server you think it is?",
            place=f"{driver.host}:{driver.port}",
        ) from error
    result = driver._result
    return Answer(result.rows or (), result.affected_rows, result.warning_count)
