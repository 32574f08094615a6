"""The eventful day of a small fleet: lived through once, for all tests that look at it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from eventful import SECRETS, Day, fleet_with_secrets, live_through
from fix_servers import Server, fresh_database
from pymongo.errors import OperationFailure

from dashboards.__main__ import RULES
from warp.testing.prometheus import Prometheus
from warp.testing.servers import RedisServer


@pytest.fixture(scope="session")
def eventful(
    tmp_path_factory: pytest.TempPathFactory, mongo: Server, postgres: Server
) -> Iterator[Day]:
    name = f"t_{secrets.token_hex(6)}"
    directory: Path = tmp_path_factory.mktemp("eventful")
    client = pymongo.MongoClient[dict[str, Any]](mongo.url)
    try:
        _make_reader(client)
        with (
            fresh_database(postgres) as pg_url,
            RedisServer(password=SECRETS["redis"]) as redis,
            Prometheus(rules=[RULES]) as prometheus,
            fleet_with_secrets(directory, mongo.url, name, pg_url, redis.url) as (fleet, variables),
        ):
            day = Day(fleet, prometheus, variables, began=time.time())
            live_through(day)
            yield day
        client.drop_database(name)
    finally:
        client.close()


def _make_reader(client: pymongo.MongoClient[dict[str, Any]]) -> None:
    """A server without access control lets nobody in who gives a wrong password, all the same."""
    try:
        client.admin.command("createUser", "reader", pwd=SECRETS["mongodb"], roles=["root"])
    except OperationFailure as error:
        if error.code != 51003:  # there already
            raise
