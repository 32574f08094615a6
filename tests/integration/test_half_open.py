"""Connections whose other end has vanished while something in between goes on acknowledging.

A sidecar or a load balancer takes what we send, so that the kernel notices nothing.  Each of these
must be given up within a bounded time, and the unit's lease with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from fix_servers import Server
from mysql_world import world_at
from postgresql_shop import Shop, everything
from postgresql_world import CREATE, World
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from pymongo.database import Database
from wires import State, Wire

import warp.leases.redis as ledgers
from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.errors import DestinationUnavailable, LedgerUnavailable, SourceUnavailable
from warp.leases.redis import RedisLeaseStore
from warp.model import TableId, TableSettings, WorkUnit
from warp.postgresql_answers import AnsweredConnection
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.mysql import dump
from warp.sources.postgresql import replication, rows

STREAM = WorkUnit.stream("shop")


@contextmanager
def wire_to(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to the server at a URL, and the URL by way of it."""
    named = "://" not in url or url.startswith("postgres")
    port = conninfo_to_dict(url)["port"] if named else urlsplit(url).port
    with Wire("half open", int(str(port))) as wire:
        yield wire, wire.through(url)


def given_up(act: Callable[[], object]) -> threading.Thread:
    """Begin something in a thread, which ends when that does."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


# -- PostgreSQL as the destination


@pytest.fixture
def warehouse(pg_warehouse: str) -> Iterator[tuple[World, Wire]]:
    with wire_to(pg_warehouse) as (wire, url):
        world = World(pg_warehouse)
        world.options["connection_string"] = url
        world.options["statement_timeout"] = 0.3
        yield world, wire
        wire.mend()
        world.close()


@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="lost connection")
def test_a_write_that_nobody_answers_is_given_up(warehouse: tuple[World, Wire]) -> None:
    world, wire = warehouse
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    wire.become(State.HELD)
    with pytest.raises(DestinationUnavailable, match=r"did not answer within 0\.45 s"):
        unit.write("2", (CREATE, 2, 2, "b"))
    wire.mend()
    # Whether it landed is read from the marker, and then the same batch is written again.
    unit.write("2", (CREATE, 2, 2, "b"))
    assert world.rows() == [(1, "a"), (2, "b")]


def test_the_driver_as_it_comes_would_wait_for_ever(
    warehouse: tuple[World, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(AnsweredConnection, "wait", Connection.wait)
    world, wire = warehouse
    unit = world.settled()
    wire.become(State.HELD)
    writing = given_up(lambda: unit.write("1", (CREATE, 1, 1, "a")))
    writing.join(1.5)  # more than three times as long as above
    assert writing.is_alive()
    wire.mend()
    writing.join(10)


# -- PostgreSQL as the source


@contextmanager
def followed(shop: Shop) -> Iterator[tuple[Wire, Iterator[Any]]]:
    """A stream over a wire that has come to rest."""
    with wire_to(shop.reading_url) as (wire, url):
        source = shop.source(connection_string=url)
        changes = source.get_changes(source.position(), selection=everything, idle=0.05)
        next(changes)
        try:
            yield wire, changes
        finally:
            wire.mend()
            source.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_SPEAK_AFTER", 0.1)
    monkeypatch.setattr(replication, "_SILENT", 0.5)


@pytest.mark.usefixtures("impatient")
def test_a_log_behind_which_nobody_is_any_more_is_given_up(capture_shop: Shop) -> None:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id bigint primary key)")
    with followed(shop) as (wire, changes):
        for _ in range(20):  # a quiet one is not: its server says that it is there
            next(changes)
        wire.become(State.HELD)
        with pytest.raises(SourceUnavailable, match=r"not answered for 0\.5 s"):
            list(changes)


@pytest.mark.usefixtures("impatient")
def test_a_log_that_is_not_asked_whether_it_is_there_looks_quiet_for_ever(
    capture_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(replication, "_SILENT", float("inf"))
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id bigint primary key)")
    with followed(shop) as (wire, changes):
        wire.become(State.HELD)
        for _ in range(30):
            assert not next(changes).changes


def test_a_snapshot_that_comes_to_nothing_is_given_up(
    capture_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_SILENT", 0.3)
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id bigint primary key, note text)")
    shop.run("insert into shop.orders select n, repeat('x', 1000) from generate_series(1, 9000) n")
    with wire_to(shop.reading_url) as (wire, url):
        source = shop.source(connection_string=url)
        [chunk] = source.chunks(TableId("shop", "orders"), 100_000)
        batches = source.get_full_snapshot(chunk)
        next(batches)
        wire.become(State.HELD)
        with pytest.raises(SourceUnavailable, match=r"nothing for 0\.3 s"):
            list(batches)
        wire.mend()
        source.close()


# -- MariaDB, both ways


def test_a_binary_log_behind_which_nobody_is_any_more_is_given_up(
    mariadb: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "HEARTBEAT_SECONDS", 0.2)
    with world_at(mariadb.url) as world, wire_to(world.connection_string) as (wire, url):
        source = world.source(connection_string=url)
        changes = source.get_changes(source.position(), selection=source._selection, idle=0.05)
        for _ in range(20):
            next(changes)
        wire.become(State.HELD)
        with pytest.raises(SourceUnavailable, match="nothing for too long"):
            list(changes)
        wire.mend()


def test_a_write_to_mariadb_that_nobody_answers_is_given_up(
    mariadb: Server, mariadb_database: str
) -> None:
    with wire_to(mariadb_database) as (wire, url):
        options = {"connection_string": url, "statement_timeout": 1.0}
        given = MysqlWriterOptions.model_validate(options)
        destination = MysqlDestination(given, lambda table: TableSettings(table, table, "shop"))
        destination.metadata().prepared()
        wire.become(State.HELD)
        with pytest.raises(DestinationUnavailable):
            destination.metadata().markers()
        wire.mend()
        destination.close()


# -- MongoDB


def test_a_change_stream_that_nobody_answers_is_given_up(
    mongo: Server, mongo_database: Database[Any]
) -> None:
    name = mongo_database.name
    with wire_to(mongo.url) as (wire, url):
        options = {"connection_string": f"{url}&directConnection=true", "socket_timeout": 1.0}
        source = MongoSource(
            MongoOptions.model_validate(options),
            lambda table: TableSettings(table, table, name) if table.namespace == name else None,
        )
        changes = source.get_changes(source.position(), selection=source._selection, idle=0.05)
        for _ in range(3):
            next(changes)
        wire.become(State.HELD)
        with pytest.raises(SourceUnavailable):
            list(changes)
        wire.mend()
        source.close()


# -- Redis


def test_a_ledger_that_answers_nothing_is_unavailable_and_its_bell_is_heard_again(
    redis_server: Server, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_SILENT", 0.2)
    near = RedisLeaseStore(redis_server.url, redis_namespace)
    with wire_to(redis_server.url) as (wire, url):
        far = RedisLeaseStore(url, redis_namespace, lease_ttl=1.5)
        far.ensure([STREAM])
        far.wait(0.01)
        wire.become(State.HELD)
        with pytest.raises(LedgerUnavailable, match="Timeout"):
            far.renew("one", [], ttl=1.5, slots=1)
        for _ in range(3):
            far.wait(0.1)  # the line on which nobody rings is given up
        wire.mend()
        rung = _rings_until_heard(near, far)
        assert rung < 100  # 10 s of the 60 that it would have waited
        far.close()
    near.close()


def _rings_until_heard(near: RedisLeaseStore, far: RedisLeaseStore) -> int:
    listening = given_up(lambda: far.wait(60.0))
    rung = 0
    while listening.is_alive():  # it may not have subscribed before the first time
        near.withdraw([STREAM.id])
        near.ensure([STREAM])
        listening.join(0.1)
        rung += 1
    return rung
