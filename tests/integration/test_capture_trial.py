"""Random histories of several transactions at once, polled at random moments: both sides equal."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from capture_world import Polling, database_of_postgresql, emptied, postgresql
from fix_servers import Server

from warp.errors import LeaseLost
from warp.model import Capture, TableId, TableSettings

ORDERS = TableId("public", "orders")
STEPS = 90


@pytest.fixture(scope="module")
def database(postgres: Server) -> Iterator[str]:
    with database_of_postgresql(postgres.url) as url:
        yield url


class Application:
    """A session that works in transactions; what would have to wait for another is given up."""

    def __init__(self, url: str, luck: random.Random) -> None:
        self.connection = psycopg.connect(url, options="-c lock_timeout=5ms")
        self.luck = luck

    def step(self, *, deletes: bool) -> None:
        choices = ["insert", "update", "commit", "rollback"] + ["delete", "move"] * deletes
        choices += ["truncate"] * (deletes and self.luck.random() < 0.1)
        id, name = self.luck.randint(1, 30), f"n{self.luck.random()}"
        try:
            match self.luck.choice(choices):
                case "insert":
                    self.run("insert into orders values (%s, %s) on conflict do nothing", id, name)
                case "update":
                    self.run("update orders set name = %s, at = now() where id = %s", name, id)
                case "delete":
                    self.run("delete from orders where id = %s", id)
                case "move":
                    self.run(
                        "update orders set id = %s where id = %s"
                        " and not exists (select from orders where id = %s)",
                        *(id, self.luck.randint(1, 30), id),
                    )
                case "truncate":
                    self.run("truncate orders")
                case "commit":
                    self.connection.commit()
                case _:
                    self.connection.rollback()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation):
            self.connection.rollback()

    def run(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values)


POLLED = pytest.mark.parametrize("capture", [Capture.TIMESTAMP, Capture.TRIGGER])


@POLLED
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.holds(guarantee=4, source="postgresql", destination="pretended", fault="late commit")
def test_whatever_commits_when_both_sides_are_equal_in_the_end(
    database: str, capture: Capture, seed: int
) -> None:
    trial(database, capture, seed)


@pytest.mark.soak
@POLLED
@pytest.mark.parametrize("seed", range(2, 100))
def test_of_many_histories_both_sides_are_equal_in_the_end(
    database: str, capture: Capture, seed: int
) -> None:
    trial(database, capture, seed)


def trial(database: str, capture: Capture, seed: int) -> None:
    luck = random.Random(seed)
    url = emptied(database)
    settings = TableSettings(
        ORDERS,
        ORDERS,
        "shop",
        capture=capture,
        write_batch_size=luck.randint(2, 9),
        overlap=0.0,
        timestamp_column="at",
    )
    with psycopg.connect(url, autocommit=True) as admin, contextlib.ExitStack() as sessions:
        admin.execute(
            "create table orders (id integer primary key, name text,"
            " at timestamptz not null default now())"
        )
        polling = Polling(functools.partial(postgresql, url), settings)
        polling.run()
        applications = [Application(url, luck) for _ in range(4)]
        for application in applications:
            sessions.enter_context(application.connection)
        for _ in range(STEPS):
            if luck.random() < 0.2:
                lost = luck.random() < 0.2
                with contextlib.suppress(LeaseLost):
                    polling.run(batches=luck.choice([None, 1, 2]), lost=lost)
            luck.choice(applications).step(deletes=capture is Capture.TRIGGER)
        for application in applications:
            application.connection.commit()
        while not polling.run():
            pass
        polling.run()
        live: dict[int, str] = dict(admin.execute("select id, name from orders").fetchall())
        assert polling.values("name") == live
