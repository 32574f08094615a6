"""A fleet of real processes against real servers, for tests to disturb."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import programs
import psutil
import psycopg
import pymongo
import yaml
from psycopg import sql

from warp.leases.redis import RedisLeaseStore
from warp.own_process import wait_until

PATIENCE = 60.0  # seconds for what takes two; this machine may be busy


def eventually(condition: Callable[[], Any], what: str, limit: float = PATIENCE) -> None:
    # Most conditions ask a server: more often, and asking would be what this machine does.
    assert wait_until(lambda: bool(condition()), limit, pause=0.1), (
        f"waited {limit:.0f} s for {what}"
    )


@dataclass
class Command:
    """A command of ours in a session of its own, with what it said on stderr."""

    arguments: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log.touch()
        self.process = programs.start(
            *self.arguments, env={**os.environ, **self.environment}, stderr=self.log
        )

    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def owns(self, worker: str) -> bool:
        pid = int(worker.split(":")[1])
        return any(member.pid == pid for member in self.family())

    def kill9(self) -> None:
        """With all its children, as a machine that goes dark."""
        for member in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


class Fleet:
    """One source database, one warehouse, one ledger, and the processes between them."""

    def __init__(
        self,
        directory: Path,
        mongo_url: str,
        database: str,
        pg_url: str,
        redis_url: str,
        **more: Any,
    ) -> None:
        self.directory = directory
        self.database_name = database
        self.pg_url = pg_url
        self.redis_url = redis_url
        self.namespace = f"t{secrets.token_hex(6)}"
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo_url)
        self.source = self.client[database]
        self.config = directory / "config.yaml"
        self.settings: dict[str, Any] = {
            "source": {"type": "mongodb", "connection_string": mongo_url, "database": database},
            "destination": {"type": "postgresql", "connection_string": pg_url},
            "schemas": [{"name": database}],
            "coordination": {
                "redis_url": redis_url,
                "namespace": self.namespace,
                "lease_ttl": "2s",
                "reconcile_every": "1s",
                "slots": 4,
            },
            "error_handling": {"initial_delay": "200ms", "max_delay": "1s"},
            "monitoring": {"logging": {"format": "json"}},
            **more,
        }
        self.ledger = RedisLeaseStore(redis_url, self.namespace, lease_ttl=2.0)
        self.commands: list[Command] = []

    def start(self, *arguments: str, **environment: str) -> Command:
        # Whole at any moment: the command started before may be reading it.
        written = self.config.with_suffix(".new")
        written.write_text(yaml.safe_dump(self.settings))
        written.replace(self.config)
        number = len(self.commands)
        log = self.directory / f"{number}.log"
        command = Command([*arguments, "--config", str(self.config)], log, environment)
        self.commands.append(command)
        return command

    def coordinator(self, **environment: str) -> Command:
        return self.start("coordinator.cli", **environment)

    def worker(self, *, processes: int = 1, **environment: str) -> Command:
        return self.start("workers.cli", "--processes", str(processes), **environment)

    def close(self) -> None:
        for command in self.commands:
            command.kill9()
        self.ledger.close()
        self.client.close()

    # What is to be seen

    def owner(self, unit: str | None = None) -> str:
        """Who holds a unit, the stream where none is named; empty where nobody does."""
        unit = unit or f"stream:{self.database_name}"
        return next((e.owner for e in self.ledger.units() if e.unit.id == unit), "")

    def rows(self, table: str, schema: str | None = None) -> dict[Any, Any]:
        """_id -> n, as a reader of the warehouse sees them; empty while there is no such table."""
        query = sql.SQL("select _id, n from {} where not _cw_deleted").format(
            sql.Identifier(schema or self.database_name, table)
        )
        try:
            with psycopg.connect(self.pg_url) as connection:
                return dict(connection.execute(query).fetchall())
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.InvalidSchemaName,
            psycopg.errors.UndefinedColumn,  # of a collection that is empty so far
        ):
            return {}

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.pg_url) as connection:
            return connection.execute(query).fetchall()

    def insert(self, table: str, first: int, last: int) -> None:
        self.source[table].insert_many([{"_id": n, "n": n} for n in range(first, last)])

    def arrives(self, table: str, id: int, limit: float = PATIENCE) -> None:
        eventually(lambda: id in self.rows(table), f"row {id} of {table}", limit)

    def until_running(self, table: str = "orders") -> None:
        """Snapshot done, stream followed: a row written now arrives."""
        self.insert(table, 1_000_000, 1_000_001)
        self.arrives(table, 1_000_000)
        eventually(
            lambda: (
                self.asked(
                    "select distinct phase from cartridge_warp_metadata.sync_markers "
                    "where kind = 'table'"
                )
                == [("streaming",)]
            ),
            "every table to be settled",
        )


@contextlib.contextmanager
def fleet_between(
    directory: Path, mongo_url: str, database: str, pg_url: str, redis_url: str, **more: Any
) -> Iterator[Fleet]:
    fleet = Fleet(directory, mongo_url, database, pg_url, redis_url, **more)
    try:
        yield fleet
    finally:
        fleet.close()
