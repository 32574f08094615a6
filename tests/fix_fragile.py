"""Servers to kill and wipe, one set for all chaos tests: they run in one pytest-xdist worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from failing_servers import PostgresWithSmallDisk, RedisWithOwnClock
from fleet import Servers, servers
from sql_fleet import MariaDbOrigin, PostgresOrigin

from warp.testing.servers import MariaDb, Mongod, Postgres


@pytest.fixture(scope="session")
def fragile() -> Iterator[Servers]:
    """Leave them running when you are done: kill them, wipe them, start them again.

    MongoDB is a set of one member; where the primary goes, ask for more of your own.
    """
    with servers(members=1) as ours:
        yield ours


@pytest.fixture(scope="session")
def fragile_sql() -> Iterator[Servers]:
    """The same for tests whose source is a SQL server: MongoDB is not started."""
    with PostgresWithSmallDisk() as postgres, RedisWithOwnClock() as redis:
        yield Servers(Mongod(), postgres, redis)


@pytest.fixture(scope="session")
def postgres_origin() -> Iterator[PostgresOrigin]:
    """A PostgreSQL of its own to follow, beside the one of the destination."""
    with Postgres() as server:
        yield PostgresOrigin(server)


@pytest.fixture(scope="session")
def mariadb_origin() -> Iterator[MariaDbOrigin]:
    with MariaDb() as server:
        yield MariaDbOrigin(server)
