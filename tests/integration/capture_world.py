"""A table that is polled from a real server into memory, one run at a time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from fix_servers import database_url

from warp import pipeline
from warp.errors import LeaseLost
from warp.interfaces import SourceConnector
from warp.model import (
    ChangeBatch,
    Lease,
    Phase,
    Position,
    TableId,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.sources.mysql import MysqlOptions, MysqlSource
from warp.sources.postgresql import PostgresSource, PostgresSourceOptions
from warp.testing.memory import MemoryDestination, MemoryDestinationOptions, MemoryWarehouse

NOW = 1_800_000_000.0


@contextmanager
def database_of_postgresql(server_url: str) -> Iterator[str]:
    """A database for the tests of a module, which is much cheaper than one for each."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        yield database_url(server_url, name)
        connection.execute(f"drop database {name} with (force)")


def emptied(url: str) -> str:
    """The database as it was made."""
    with psycopg.connect(url, autocommit=True) as connection:
        schemas = connection.execute(
            "select quote_ident(nspname) from pg_namespace"
            " where nspname !~ '^pg_' and nspname <> 'information_schema'"
        ).fetchall()
        connection.execute("set client_min_messages = warning")
        for (schema,) in schemas:
            connection.execute(f"drop schema {schema} cascade")
        connection.execute("create schema public")
    return url


def postgresql(url: str, selection: TableSelection) -> PostgresSource:
    options = PostgresSourceOptions.model_validate({"connection_string": url})
    return PostgresSource(options, selection)


def mysql(url: str, selection: TableSelection) -> MysqlSource:
    return MysqlSource(MysqlOptions.model_validate({"connection_string": url}), selection)


class Held:
    """A lease nobody disputes, unless it is lost."""

    def __init__(self, lease: Lease, batches: int | None, *, lost: bool = False) -> None:
        self.lease = lease
        self._batches = batches
        self._lost = lost

    def check(self) -> None:
        if self._lost:
            raise LeaseLost("as the test says")

    def stopping(self) -> bool:
        if self._batches is None:
            return False
        self._batches -= 1
        return self._batches <= 0

    def wait(self, seconds: float) -> None: ...


@dataclass
class Polling:
    """One polled table; each run has a connector of its own, as a worker's has."""

    connect: Callable[[TableSelection], SourceConnector]
    settings: TableSettings
    warehouse: MemoryWarehouse = field(default_factory=MemoryWarehouse)
    fence: int = 0
    seen: list[ChangeBatch] = field(default_factory=list)  # of the last run

    @property
    def table(self) -> TableId:
        return self.settings.table

    @property
    def unit(self) -> WorkUnit:
        return WorkUnit.poll("shop", self.table)

    def select(self, table: TableId) -> TableSettings | None:
        return self.settings if table == self.table else None

    def start(self) -> None:
        """What the coordinator does before it has the table's first rows read."""
        with closing(self.connect(self.select)) as source:
            position = source.poll_start(self.table, fire_time=NOW)
        metadata = self._destination().metadata()
        metadata.register(self.unit, position=position, phase=Phase.IDLE)

    def run(self, *, batches: int | None = None, lost: bool = False) -> bool:
        """One run; where `batches` are given it is asked to stop after so many.

        With `lost` its lease goes when the first batch was read and before it is written.
        """
        self.fence += 1
        destination = self._destination()
        lease = Lease(self.unit, "worker", self.fence)
        marker = destination.open(lease)
        self.seen = []
        with closing(self.connect(self.select)) as source:
            return pipeline.poll(
                _Watched(source, self.seen),  # type: ignore[arg-type]
                destination,
                marker,
                Held(lease, batches, lost=lost),
                selection=self.select,
                meter=pipeline.NoMeter(),
                fire_time=NOW,
            )

    def rows(self) -> list[dict[str, Any]]:
        return self.warehouse.rows(self.table)

    def ids(self) -> set[Any]:
        return {row["id"] for row in self.rows()}

    def values(self, column: str) -> dict[Any, Any]:
        return {row["id"]: row[column] for row in self.rows()}

    @property
    def delivered(self) -> int:
        """Rows of the last run."""
        return sum(map(len, self.seen))

    @property
    def position(self) -> Position | None:
        return self.warehouse.markers[self.unit.id].position

    def _destination(self) -> MemoryDestination:
        options = MemoryDestinationOptions(warehouse=self.warehouse)
        return MemoryDestination(options, self.select)


class _Watched:
    """A source whose batches are kept."""

    def __init__(self, source: SourceConnector, seen: list[ChangeBatch]) -> None:
        self._source = source
        self._seen = seen

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        for batch in self._source.poll(table, position, fire_time=fire_time):
            self._seen.append(batch)
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
