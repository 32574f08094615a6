"""The destinations that the model's steps are taken at: how each is made, looked at and cut off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import mysql_destination_world
import postgresql_world
import psycopg
import pymysql
from fix_servers import Server
from lease_model import Stored

import warp.destinations.mysql.session
import warp.destinations.mysql.transaction
import warp.destinations.postgresql.session
import warp.destinations.postgresql.transaction
from warp.model import TableSchema, WorkUnit

STREAM = WorkUnit.stream("shop")

Rows = tuple[tuple[int, int], ...]
"""(number of the batch that brought the row, fence of who wrote it)."""


class Place(Protocol):
    """A destination with the table `shop.orders` and the unit `stream:shop`."""

    session_module: ClassVar[Any]  # it looks statements up by `load`
    transactions: ClassVar[Any]  # `was_committed` is asked for unknown outcomes
    commit: ClassVar[object]
    schema: TableSchema

    def connector(self) -> Any:
        """What one worker writes through."""
        ...

    def empty(self) -> None: ...
    def stored(self) -> tuple[Stored, Rows]: ...
    def lost_connection(self) -> Exception: ...


class InPostgres:
    session_module: ClassVar[Any] = warp.destinations.postgresql.session
    transactions: ClassVar[Any] = warp.destinations.postgresql.transaction.Transactions
    commit: ClassVar[object] = b"COMMIT"

    def __init__(self, world: postgresql_world.World) -> None:
        self._world = world
        self.schema = world.settled().schema()
        self._markers = f"{postgresql_world.META}.sync_markers"

    def connector(self) -> Any:
        return self._world.destination()

    def empty(self) -> None:
        for statement in (
            f"delete from {self._markers} where unit = '{STREAM.id}'",
            f"update {self._markers} set phase = 'streaming'",
            "truncate shop.orders",
        ):
            self._world.looking.execute(statement.encode())

    def stored(self) -> tuple[Stored, Rows]:
        [(marker, rows)] = self._world.ask(
            "select (select json_build_array(fence, batch, position, epoch)"
            f" from {self._markers} where unit = %s),"
            " (select json_agg(array[id, name::bigint] order by id)"
            " from shop.orders where not _cw_deleted)",
            [STREAM.id],
        )
        return _stored(marker), tuple((id, by) for id, by in rows or ())

    def lost_connection(self) -> Exception:
        return psycopg.OperationalError("the connection is gone")


class InMariaDb:
    session_module: ClassVar[Any] = warp.destinations.mysql.session
    transactions: ClassVar[Any] = warp.destinations.mysql.transaction.Transactions
    commit: ClassVar[object] = "COMMIT"

    def __init__(self, world: mysql_destination_world.World) -> None:
        self._world = world
        self.schema = world.settled().schema()

    def connector(self) -> Any:
        return self._world.destination()

    def empty(self) -> None:
        markers = f"{self._world.meta}.sync_markers"
        self._world.ask(f"delete from {markers} where unit = '{STREAM.id}'")
        self._world.ask(f"update {markers} set phase = 'streaming'")
        self._world.ask(f"delete from {self._world.shop}.orders")

    def stored(self) -> tuple[Stored, Rows]:
        columns = "fence, batch, position, epoch"
        found = self._world.of_meta(columns, "sync_markers", f"where unit = '{STREAM.id}'")
        rows = self._world.rows()
        return _stored(found[0] if found else None), tuple((id, int(by)) for id, by in rows)

    def lost_connection(self) -> Exception:
        return pymysql.err.OperationalError(2013, "Lost connection to server during query")


def _stored(marker: Any) -> Stored:
    if marker is None:
        return Stored()
    fence, batch, position, epoch = marker
    return Stored(fence, batch, int(position or 0), epoch)


@contextmanager
def in_postgres(url: str) -> Iterator[InPostgres]:
    world = postgresql_world.World(url)
    try:
        yield InPostgres(world)
    finally:
        world.close()


@contextmanager
def in_mariadb(server: Server) -> Iterator[InMariaDb]:
    world = mysql_destination_world.World(server.url)
    try:
        yield InMariaDb(world)
    finally:
        world.close()
