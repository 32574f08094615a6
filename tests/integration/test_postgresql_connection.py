"""What a server that is down, full, read-only or strange is called, and how soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from postgresql_world import CREATE, STREAM, World
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import ValidationError

from warp.destinations.postgresql import PostgresOptions
from warp.errors import DestinationRefused, DestinationUnavailable, WarpError
from warp.model import Position
from warp.testing.servers import Postgres

SECRET = "s3cr%t 'pässword'"


@pytest.fixture
def world(pg_database: str) -> Iterator[World]:
    world = World(pg_database)
    yield world
    world.close()


def refused(world: World, url: str) -> WarpError:
    """What `check` says of this URL, within ten seconds and without the password."""
    started = time.monotonic()
    destination = world.destination(connection_string=url)
    with pytest.raises(WarpError) as caught:
        destination.check()
    assert time.monotonic() - started < 10
    for secret in (SECRET, "s3cr"):
        assert secret not in f"{caught.value!s}{caught.value!r}{destination._session.options!r}"
    return caught.value


def with_(url: str, **changes: Any) -> str:
    return make_conninfo(**(conninfo_to_dict(url) | changes))


def test_a_server_that_is_down_is_unavailable(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = with_(world.url, port=listener.getsockname()[1], password=SECRET)
        assert isinstance(refused(world, url), DestinationUnavailable)


def test_a_server_that_never_answers_is_unavailable(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = with_(world.url, port=listener.getsockname()[1], password=SECRET)
        error = refused(world, url)
    assert isinstance(error, DestinationUnavailable)


@pytest.mark.holds(guarantee=10, source="none", destination="postgresql", fault="planted passwords")
def test_a_wrong_password_is_refused_at_once(
    world: World, start_server: Callable[[Postgres], Postgres]
) -> None:
    server = start_server(Postgres(password="right"))
    error = refused(world, with_(server.url, password=SECRET))
    assert isinstance(error, DestinationRefused)
    assert "check the user and the password" in str(error)
    world.destination(connection_string=server.url).check()


def test_an_unknown_database_or_user_is_refused(world: World) -> None:
    error = refused(world, with_(world.url, dbname="nowhere", password=SECRET))
    assert isinstance(error, DestinationRefused)
    assert "create the database" in str(error)
    assert isinstance(refused(world, with_(world.url, user="nobody at all")), DestinationRefused)


def test_the_database_option_overrides_the_url(world: World) -> None:
    with pytest.raises(DestinationRefused, match="nowhere"):
        world.destination(database="nowhere").check()


@pytest.fixture
def guest(world: World) -> Iterator[str]:
    """A user without any right on the database."""
    [[database]] = world.ask("select current_database()")
    name = f"guest_{database}"
    for statement in (
        f"create user {name}",
        f'revoke all on database "{database}" from public',
        f'grant connect on database "{database}" to {name}',
    ):
        world.looking.execute(statement.encode())
    yield with_(world.url, user=name)
    world.close()
    with psycopg.connect(with_(world.url, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f'revoke all on database "{database}" from {name}'.encode())
        connection.execute(f"drop user {name}".encode())


def test_a_missing_right_is_named_with_the_statement_that_gives_it(
    world: World, guest: str
) -> None:
    assert "GRANT CREATE ON DATABASE" in str(refused(world, guest))
    with pytest.raises(DestinationRefused, match="permission denied"):
        world.destination(connection_string=guest).metadata().prepare()


def test_metadata_that_nobody_prepared_is_said_so(world: World) -> None:
    with pytest.raises(DestinationRefused, match="prepares the metadata"):
        world.destination().metadata().markers()


def test_a_database_of_another_encoding_is_refused(world: World) -> None:
    name = "latin_" + world.url.rpartition("/")[2]
    world.looking.execute(
        f"create database {name} encoding 'LATIN1' locale 'C' template template0".encode()
    )
    try:
        error = refused(world, with_(world.url, dbname=name))
        assert "UTF8" in str(error)
    finally:
        for destination in world.made:
            destination.close()
        world.looking.execute(f"drop database {name}".encode())


def test_a_read_only_database_is_refused(world: World) -> None:
    world.prepared()
    [[database]] = world.ask("select current_database()")
    world.looking.execute(
        f'alter database "{database}" set default_transaction_read_only = on'.encode()
    )
    with pytest.raises(DestinationRefused, match="primary"):
        world.destination().metadata().resync("x", None, position=Position("1"))


def test_a_connection_the_server_ended_is_made_again(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    world.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'cartridge-warp' and datname = current_database()"
    )
    with pytest.raises(DestinationUnavailable):
        unit.write("2", (CREATE, 2, 2, "b"))
    unit.write("2", (CREATE, 2, 2, "b"))
    assert world.rows() == [(1, "a"), (2, "b")]


def test_a_restarted_server_is_found_again(
    world: World, start_server: Callable[[Postgres], Postgres]
) -> None:
    server = start_server(Postgres())
    own = World(server.url)
    unit = own.settled()
    own.looking.close()
    server.kill9()
    with pytest.raises(DestinationUnavailable):
        unit.write("1", (CREATE, 1, 1, "a"))
    server.start()
    unit.write("1", (CREATE, 1, 1, "a"))
    assert unit.destination.metadata().markers()[0].unit == STREAM
    own.close()


@pytest.mark.parametrize(
    "given",
    [
        {"connection_string": f"postgresql://u:{SECRET}@h:port/d?x"},
        {"connection_string": f"host=h passwort {SECRET}"},
        {"connection_string": "postgresql://h/d", "metadata_schema": ""},
        {"connection_string": "postgresql://h/d", "unknown": 1},
        {"connection_string": "postgresql://h/d", "lock_timeout": 0},
    ],
)
def test_a_mistake_in_the_options_is_told_without_the_secret(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        PostgresOptions.model_validate(given)
    assert SECRET not in str(caught.value)
