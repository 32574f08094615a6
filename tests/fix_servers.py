"""Servers for tests: shared ones that start once a session, and own ones to break.

Each pytest-xdist worker has its own.  A server of yours is used instead when
CARTRIDGE_WARP_TEST_MONGODB (a replica set), _POSTGRES or _MYSQL (a login that may create
databases) or _REDIS names its URL, or _BIGQUERY that of an emulator.  A server that cannot start
fails the test; nothing is skipped, but tests of BigQuery outside CI where Python 3.13 is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pymongo
import pymysql
import pytest
import redis
from postgresql_shop import Shop
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pymongo.database import Database

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.testing.bigquery import BigQueryEmulator, PythonMissing
from warp.testing.servers import MariaDb, Mongod, Postgres, RedisServer


class Server(Protocol):
    """What a test may rely on, whether we started the server or were given it."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class GivenServer:
    url: str


Own = TypeVar("Own", bound=contextlib.AbstractContextManager[Any])


@pytest.fixture(scope="session")
def mongo() -> Iterator[Server]:
    """A replica set of one member, shared: keep to your own database."""
    yield from _given_or_own("CARTRIDGE_WARP_TEST_MONGODB", Mongod)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Shared: keep to your own database."""
    yield from _given_or_own("CARTRIDGE_WARP_TEST_POSTGRES", Postgres)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """MariaDB, or the MySQL you name; shared: keep to your own database."""
    yield from _given_or_own("CARTRIDGE_WARP_TEST_MYSQL", MariaDb)


class BigQueryServer(Server, Protocol):
    """A BigQuery emulator: REST at `url`, Storage Read and Write at `grpc`."""

    @property
    def grpc(self) -> str: ...
    @property
    def project(self) -> str: ...


@dataclass(frozen=True, slots=True)
class GivenBigQuery:
    url: str  # empty: the real service, by application default credentials
    grpc: str
    project: str


@pytest.fixture(scope="session")
def bigquery_server() -> Iterator[BigQueryServer]:
    """Shared: keep to your own datasets.  Given as `http://host:port?grpc=host:port&project=p`; or
    CARTRIDGE_WARP_BIGQUERY_PROJECT names a real project (`make bigquery-acceptance`)."""
    if project := os.environ.get("CARTRIDGE_WARP_BIGQUERY_PROJECT"):
        yield GivenBigQuery("", "", project)
        return
    given = os.environ.get("CARTRIDGE_WARP_TEST_BIGQUERY")
    if given:
        url, _, query = given.partition("?")
        more = parse_qs(query)
        yield GivenBigQuery(url, more["grpc"][0], more["project"][0])
        return
    try:
        emulator = BigQueryEmulator().start()
    except PythonMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(missing.message)
    with contextlib.closing(emulator):
        yield emulator


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Shared: keep to your own namespace, and never FLUSHALL here."""
    yield from _given_or_own("CARTRIDGE_WARP_TEST_REDIS", RedisServer)


def _given_or_own(variable: str, start: Callable[[], Any]) -> Iterator[Server]:
    given = os.environ.get(variable)
    if given:
        yield GivenServer(given)
        return
    with start() as server:
        yield server


@pytest.fixture
def mongo_database(mongo: Server) -> Iterator[Database[dict[str, Any]]]:
    """A fresh database, dropped afterwards; `mongo.url` is where it lies."""
    client = pymongo.MongoClient[dict[str, Any]](mongo.url, tz_aware=True)
    name = f"t_{secrets.token_hex(6)}"
    try:
        yield client[name]
        client.drop_database(name)
    finally:
        client.close()


@pytest.fixture
def pg_database(postgres: Server) -> Iterator[str]:
    """The URL of a fresh database, dropped afterwards even if somebody is still connected."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def _prepared(postgres: Server) -> Iterator[str]:
    """The URL of a database that holds our metadata and nothing else, to be copied."""
    with fresh_database(postgres) as url:
        options = PostgresOptions.model_validate({"connection_string": url})
        with contextlib.closing(PostgresDestination(options, lambda table: None)) as destination:
            destination.metadata().prepare()
        yield url


@pytest.fixture
def pg_warehouse(postgres: Server, _prepared: str) -> Iterator[str]:
    """A `pg_database` in which our metadata is prepared already, which takes twice as long."""
    with fresh_database(postgres, like=conninfo_to_dict(_prepared)["dbname"]) as url:
        yield url


@contextlib.contextmanager
def fresh_database(server: Server, like: str | int | None = None) -> Iterator[str]:
    name = f"t_{secrets.token_hex(6)}"
    quoted, template = sql.Identifier(name), sql.Identifier(str(like or "template1"))
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(quoted, template))
        yield database_url(server.url, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))


@pytest.fixture
def mariadb_database(mariadb: Server) -> Iterator[str]:
    """The URL of a fresh database, dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    with mysql_client(mariadb.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield database_url(mariadb.url, name)
    # Anew: the test may have ended every connection.
    with mysql_client(mariadb.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")


def mysql_client(url: str, **options: Any) -> pymysql.Connection[pymysql.cursors.Cursor]:
    """A connection to a URL, which commits each statement; `options` are those of PyMySQL."""
    parts = urlsplit(url)
    chosen = {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or "root"),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.lstrip("/")) or None,
        "charset": "utf8mb4",
        "autocommit": True,
        **options,
    }
    return pymysql.connect(**chosen)


@pytest.fixture(scope="session")
def capture_shop(postgres: Server) -> Iterator[Shop]:
    """A database to capture, shared: call `fresh()` first."""
    with fresh_database(postgres) as url, Shop(url) as shop:
        yield shop


def database_url(server_url: str, database: str) -> str:
    """The same login and server, another database."""
    base, _, query = server_url.partition("?")
    scheme, _, rest = base.partition("://")
    host = rest.partition("/")[0]
    if not scheme.startswith(("postgres", "mysql", "mariadb")):  # given as "host=… user=…"
        return make_conninfo(server_url, dbname=database)
    return f"{scheme}://{host}/{database}" + (f"?{query}" if query else "")


@pytest.fixture
def redis_namespace(redis_server: Server) -> Iterator[str]:
    """A fresh ledger namespace, whose keys are removed afterwards."""
    name = f"t{secrets.token_hex(6)}"
    yield name
    with redis.Redis.from_url(redis_server.url) as client:
        for key in client.scan_iter(f"*{name}*", count=1000):
            client.delete(key)


@pytest.fixture
def start_server() -> Iterator[Callable[[Own], Own]]:
    """Start a server of your own to kill, pause or wipe: `start_server(Postgres())`.

    Everything started so is closed when the test ends.
    """
    with contextlib.ExitStack() as started:
        yield started.enter_context
