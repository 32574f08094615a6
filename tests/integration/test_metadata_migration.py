"""Metadata that an earlier version left is moved forward to what a new installation has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from fix_servers import Server
from postgresql_world import META, World

from warp.config import load
from warp.errors import DestinationRefused
from warp.model import Choice, Phase, UnitKind
from warp.sql import migrations
from warp.testing.servers import postgres_program
from workers.cli import check_both_ends

DUMPS: Final = sorted((Path(__file__).parents[1] / "cases" / "metadata").glob("0*.sql"))

each_dump = pytest.mark.parametrize("dump", DUMPS, ids=lambda path: path.stem)


@pytest.fixture
def world(pg_database: str) -> Iterator[World]:
    world = World(pg_database)
    yield world
    world.close()


def shape(url: str) -> list[str]:
    """The metadata schema as pg_dump writes it, without rows."""
    dump = [str(postgres_program("pg_dump")), "--schema-only", "--no-owner", "--schema", META]
    said = subprocess.run([*dump, url], check=True, capture_output=True, text=True).stdout
    # A random word against psql's own commands in a dump.
    return [line for line in said.splitlines() if not line.startswith(("--", "\\"))]


def restore(world: World, dump: Path) -> None:
    world.looking.execute(dump.read_text().encode())


@pytest.fixture(scope="module")
def fresh(postgres: Server, _prepared: str) -> list[str]:
    return shape(_prepared)


@each_dump
def test_it_becomes_what_a_new_installation_has(world: World, dump: Path, fresh: list[str]) -> None:
    restore(world, dump)
    world.destination().metadata().prepare()
    assert shape(world.url) == fresh
    assert world.ask(f"select max(version), count(*) from {META}.schema_version") == [
        (len(migrations("postgresql")), len(migrations("postgresql")))
    ]


@each_dump
def test_what_it_holds_is_still_there_and_understood(world: World, dump: Path) -> None:
    restore(world, dump)
    store = world.destination().metadata()
    store.prepare()
    found = {marker.unit.id: marker for marker in store.markers()}
    stream, poll = found["stream:shop"], found["poll:shop:shop.prices"]
    assert (stream.fence, stream.batch, stream.phase) == (1764000000000001, 42, Phase.STREAMING)
    assert stream.position is not None
    assert (stream.position.token, stream.position.committed_at) == ("p-42", 1764000000.25)
    assert (poll.unit.kind, poll.phase, poll.rows) == (UnitKind.POLL, Phase.IDLE, 70)
    assert [(id, name) for id, name, _ in store.open_errands()] == [("e1", "resync")]
    # Which schema a quarantined row is of, early versions did not say.
    rows = world.ask(f"select unit, schema_name, state from {META}.quarantine order by id")
    assert rows == [
        ("stream:shop", "shop", "waiting"),
        ("chunk:a:b:a.b:0:3", "a:b", "waiting"),
    ]
    assert [line.code for line in store.errors(Choice())] == ["WARP-510"]


@each_dump
def test_a_version_that_is_older_than_the_metadata_refuses_it(
    world: World, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a roll-back to the version before the one that moved it forward."""
    restore(world, dump)
    world.destination().metadata().prepare()
    older = migrations("postgresql")[:-1]
    monkeypatch.setattr("warp.destinations.postgresql.metadata.migrations", lambda dialect: older)
    with pytest.raises(DestinationRefused, match=f"version {len(older)} or older") as refused:
        world.destination().metadata().prepare()
    assert f"version {len(older) + 1}" in str(refused.value)
    assert "upgrade" in str(refused.value)


def test_a_worker_older_than_the_metadata_does_not_start(world: World) -> None:
    world.prepared()
    world.looking.execute(f"insert into {META}.schema_version values (99, 'future')".encode())
    flags = {"source": "mongodb://127.0.0.1:1/shop", "destination": world.url, "schema": ("shop",)}
    with pytest.raises(DestinationRefused, match="version 99"):
        check_both_ends(load(None, {}, flags))


def test_a_worker_that_is_there_before_the_coordinator_moves_the_metadata_forward(
    world: World,
) -> None:
    restore(world, DUMPS[0])
    flags = {"source": "mongodb://127.0.0.1:1/shop", "destination": world.url, "schema": ("shop",)}
    options = {"CARTRIDGE_WARP_SOURCE__SERVER_SELECTION_TIMEOUT": "10ms"}
    check_both_ends(load(None, options, flags))  # that the source is away is no reason
    assert world.ask(f"select max(version) from {META}.schema_version") == [
        (len(migrations("postgresql")),)
    ]
