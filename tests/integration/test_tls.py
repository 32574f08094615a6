"""Every server is reached by TLS with an authority of our own, and no other is taken for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from fix_servers import Server
from private_ca import Certificates, make_certificates

from warp import plugins
from warp.errors import LedgerUnavailable, WarpError
from warp.interfaces import DestinationConnector, SourceConnector
from warp.leases.redis import RedisLeaseStore
from warp.model import Verdict
from warp.own_process import free_port, wait_until
from warp.testing.servers import MariaDb, Mongod, Postgres, RedisServer

TRUSTED, FOREIGN = "trusted", "foreign"
Asked = Callable[[dict[str, Any]], str]
"""Connects as a block of the configuration says, and tells how TLS is at work."""


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Servers that speak TLS, and whom to trust."""

    mongo: Mongod
    postgres: Postgres
    mariadb: MariaDb
    redis_port: int
    ca: dict[str, Path]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    made = make_certificates(tmp_path_factory.mktemp(TRUSTED))
    other = make_certificates(tmp_path_factory.mktemp(FOREIGN))
    # The tests' own connections come without.
    mongo = Mongod(
        arguments=("--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(made.both)),
        oplog_megabytes=16,
    )
    files = {"ssl_cert": made.certificate, "ssl_key": made.key, "ssl_ca": made.ca}
    mariadb = MariaDb(settings={name: str(file) for name, file in files.items()})
    redis = RedisServer(
        "redis7",  # the others are built without
        settings={
            "tls-port": str(port := free_port()),
            "tls-cert-file": str(made.certificate),
            "tls-key-file": str(made.key),
            "tls-ca-cert-file": str(made.ca),
            "tls-auth-clients": "no",
        },
    )
    postgres = Postgres(flavour="debian15")  # the packaged one is built without
    servers = (mongo, postgres, mariadb, redis)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        with ThreadPoolExecutor(len(servers)) as pool:
            list(pool.map(lambda server: server.start(), servers))
        switch_on(postgres, made)
        ca = {TRUSTED: made.ca, FOREIGN: other.ca}
        yield Encrypted(mongo, postgres, mariadb, port, ca)


def switch_on(postgres: Postgres, made: Certificates) -> None:
    """Once it runs: the key must lie where the server's own user can read it, and nobody else."""
    for file, name in ((made.certificate, "server.crt"), (made.key, "server.key")):
        there = postgres.directory / "data" / name
        shutil.copy(file, there)
        there.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(there, "nobody")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("alter system set ssl = on")
        connection.execute("select pg_reload_conf()")
    assert wait_until(lambda: _speaks_tls(postgres.url), 10.0)


def _speaks_tls(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, sslmode="require"):
        return True
    return False


# -- who connects, and how each says what it trusts


def source(block: dict[str, Any]) -> SourceConnector:
    connector: Any = plugins.source(block.pop("type"))
    made: SourceConnector = connector(connector.Options.model_validate(block), lambda table: None)
    return made


def destination(block: dict[str, Any]) -> DestinationConnector:
    connector: Any = plugins.destination(block.pop("type"))
    made: DestinationConnector = connector(
        connector.Options.model_validate(block), lambda table: None
    )
    return made


def of_source(block: dict[str, Any]) -> str:
    with contextlib.closing(source(block)) as opened:
        return opened.position().token


def of_destination(block: dict[str, Any]) -> str:
    with contextlib.closing(destination(block)) as opened:
        return str(opened.metadata().prepared())


def ledger(block: dict[str, Any]) -> RedisLeaseStore:
    return RedisLeaseStore(block["url"], "tls", lease_ttl=5.0)


def of_ledger(block: dict[str, Any]) -> str:
    with contextlib.closing(ledger(block)) as opened:
        return opened.incarnation()


def mongodb(address: str, ca: Path) -> dict[str, Any]:
    return {
        "type": "mongodb",
        "connection_string": f"mongodb://{address}/?replicaSet=rs0&tls=true&tlsCAFile={ca}",
        "server_selection_timeout": "1s",
    }


def postgresql(address: str, ca: Path) -> dict[str, Any]:
    query = f"sslmode=verify-full&sslrootcert={ca}"
    url = f"postgresql://postgres@{address}/postgres?{query}"
    return {"type": "postgresql", "connection_string": url}


def mysql(address: str, ca: Path) -> dict[str, Any]:
    url = f"mysql://root@{address}/mysql"
    return {"type": "mysql", "connection_string": url, "tls": "verify", "tls_ca": str(ca)}


def redis_(address: str, ca: Path) -> dict[str, Any]:
    return {"url": f"rediss://{address}/0?ssl_ca_certs={ca}"}


@dataclass(frozen=True, slots=True)
class Way:
    """One of our connections to a server."""

    block: Callable[[str, Path], dict[str, Any]]
    asked: Asked
    port: Callable[[Encrypted], int]
    plain: str  # the fixture of a server without TLS
    refused: str  # the code of the error where the server is not the one we trust
    mend: str


WAYS = {
    "MongoDB as a source": Way(
        mongodb, of_source, lambda e: e.mongo.port, "mongo", "WARP-510", "correct tls and tlsCAFile"
    ),
    "PostgreSQL as a source": Way(
        postgresql, of_source, lambda e: e.postgres.port, "postgres", "WARP-510", "sslrootcert"
    ),
    "PostgreSQL as a destination": Way(
        postgresql, of_destination, lambda e: e.postgres.port, "postgres", "WARP-520", "sslrootcert"
    ),
    "MariaDB as a source": Way(
        mysql, of_source, lambda e: e.mariadb.port, "mariadb", "WARP-510", "`tls` and `tls_ca`"
    ),
    "MariaDB as a destination": Way(
        mysql, of_destination, lambda e: e.mariadb.port, "mariadb", "WARP-520", "`tls` and `tls_ca`"
    ),
    "Redis": Way(
        redis_, of_ledger, lambda e: e.redis_port, "redis_server", "WARP-230", "ssl_ca_certs"
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def test_a_server_with_a_certificate_of_our_authority_is_reached(
    encrypted: Encrypted, way: Way
) -> None:
    assert way.asked(way.block(f"127.0.0.1:{way.port(encrypted)}", encrypted.ca[TRUSTED]))


@pytest.mark.parametrize(
    ("host", "ca"),
    [("127.0.0.1", FOREIGN), ("localhost", TRUSTED)],
    ids=["another authority", "another name"],
)
def test_a_server_that_is_not_the_one_we_trust_is_refused_in_one_line(
    encrypted: Encrypted, way: Way, host: str, ca: str
) -> None:
    with pytest.raises(WarpError) as refused:
        way.asked(way.block(f"{host}:{way.port(encrypted)}", encrypted.ca[ca]))
    told = str(refused.value)
    assert told.startswith(way.refused)
    assert "certificate" in told
    assert way.mend in told
    assert "\n" not in told


def test_a_server_without_tls_is_refused_and_never_spoken_to_in_clear(
    encrypted: Encrypted, way: Way, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(way.plain)
    address = server.url.partition("://")[2].rpartition("@")[2].partition("/")[0]
    with pytest.raises(WarpError) as refused:
        way.asked(way.block(address, encrypted.ca[TRUSTED]))
    expected = (way.refused, "WARP-210")  # mongod hangs up at a handshake, as one that is away does
    assert str(refused.value).startswith(expected)


def test_redis_is_waited_for_until_it_has_another_certificate(encrypted: Encrypted) -> None:
    """A certificate that has run out must not stop a stream for good."""
    with pytest.raises(LedgerUnavailable, match="tried again later"):
        of_ledger(redis_(f"localhost:{encrypted.redis_port}", encrypted.ca[TRUSTED]))


def test_doctor_says_that_it_goes_by_tls(encrypted: Encrypted, way: Way) -> None:
    makers: dict[Asked, Callable[[dict[str, Any]], Any]] = {
        of_source: source,
        of_destination: destination,
        of_ledger: ledger,
    }
    block = way.block(f"127.0.0.1:{way.port(encrypted)}", encrypted.ca[TRUSTED])
    with contextlib.closing(makers[way.asked](block)) as opened:
        [said] = [one for one in opened.diagnose() if one.code.endswith("-encryption")]
    assert (said.verdict, said.found) == (Verdict.OK, "TLS")


def test_what_is_sent_is_encrypted(encrypted: Encrypted) -> None:
    """As the servers see it: they would talk in clear to whoever asks."""
    trusted = encrypted.ca[TRUSTED]
    address = f"127.0.0.1:{encrypted.postgres.port}"
    with contextlib.closing(destination(postgresql(address, trusted))) as opened:
        opened.metadata().prepared()
        with psycopg.connect(encrypted.postgres.url) as connection:
            seen = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid)"
            [[ours]] = connection.execute(
                f"{seen} where application_name like 'cartridge-warp%'".encode()
            ).fetchall()
    assert ours is True
    with contextlib.closing(encrypted.mariadb.client()) as admin, admin.cursor() as cursor:
        before = _finished(cursor)
        of_source(mysql(f"127.0.0.1:{encrypted.mariadb.port}", trusted))
        assert _finished(cursor) > before


def _finished(cursor: pymysql.cursors.Cursor) -> int:
    cursor.execute("show global status like 'Ssl_finished_accepts'")
    [(_, count)] = cursor.fetchall()
    return int(count)
