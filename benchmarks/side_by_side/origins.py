"""The three sources: how each is filled and changed, read by its plain driver, and named to others.

What the floor reads of them, without looking into it, is in `floors`.
"""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
import psycopg
from bson import Decimal128
from psycopg import sql
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymysql.cursors import SSCursor

from benchmarks.side_by_side.figures import Shape
from benchmarks.side_by_side.sameness import DDL
from benchmarks.side_by_side.shop import (
    COLUMNS,
    TABLE,
    Change,
    Order,
    in_pieces,
    order,
    orders,
    written,
)
from warp.testing.servers import MariaDb, Mongod, Postgres

AT_ONCE = 1_000  # changes of one transaction where they come in batches
Document = dict[str, Any]


class Origin(ABC):
    """A running server with databases of orders."""

    name: ClassVar[str]
    key: ClassVar[str] = "id"  # how the source calls the key
    namespace: ClassVar[str]  # what holds the table, in words of the configuration; "" the database

    @property
    @abstractmethod
    def server(self) -> Mongod | MariaDb | Postgres: ...

    @abstractmethod
    def create(self, database: str, rows: int) -> None:
        """A database with so many orders."""

    @abstractmethod
    def change(self, database: str, some: Sequence[Change], shape: Shape) -> None: ...

    @abstractmethod
    def orders(self, database: str) -> Iterator[Order]: ...

    @abstractmethod
    def drop(self, database: str) -> None: ...

    @abstractmethod
    def block(self, database: str) -> dict[str, Any]:
        """`source:` of our configuration."""

    @property
    def version(self) -> str:
        return self.server.version

    def schema(self, database: str) -> str:
        return self.namespace or database


@dataclass(frozen=True, slots=True)
class MongoOrigin(Origin):
    name: ClassVar[str] = "MongoDB"
    key: ClassVar[str] = "_id"
    namespace: ClassVar[str] = ""
    mongod: Mongod

    @property
    def server(self) -> Mongod:
        return self.mongod

    def create(self, database: str, rows: int) -> None:
        with self.mongod.client() as client:
            made = map(_document, orders(rows))
            while some := list(itertools.islice(made, 5_000)):
                client[database][TABLE].insert_many(some, ordered=False)

    def change(self, database: str, some: Sequence[Change], shape: Shape) -> None:
        with self.mongod.client() as client:
            collection = client[database][TABLE]
            for piece in in_pieces(some, AT_ONCE):
                writes = [_write(change) for change in piece]
                if shape == "singles":  # each write a transaction of its own, in order
                    collection.bulk_write(writes)
                    continue
                with client.start_session() as session, session.start_transaction():
                    collection.bulk_write(writes, session=session)

    def orders(self, database: str) -> Iterator[Order]:
        with self.mongod.client() as client:
            for found in client[database][TABLE].find({}, batch_size=10_000):
                yield Order(
                    found["_id"],
                    found["customer"],
                    found["qty"],
                    found["amount"].to_decimal(),
                    found["weight"],
                    found["created_at"].replace(tzinfo=UTC),
                    found["paid"],
                    found["extra"],
                )

    def drop(self, database: str) -> None:
        with self.mongod.client() as client:
            client.drop_database(database)

    def block(self, database: str) -> dict[str, Any]:
        return {"type": "mongodb", "connection_string": self.mongod.url, "database": database}


def _document(made: Order) -> Document:
    cells = made._asdict()
    return {"_id": cells.pop("id"), **cells, "amount": Decimal128(made.amount)}


def _write(change: Change) -> InsertOne[Document] | UpdateOne | DeleteOne:
    if change.what == "delete":
        return DeleteOne({"_id": change.id})
    made = _document(order(change.id, 1))
    if change.what == "insert":
        return InsertOne(made)
    key = made.pop("_id")
    return UpdateOne({"_id": key}, {"$set": made})


_MARIADB_DDL = (
    "id bigint primary key, customer varchar(120), qty int, amount decimal(12,2), weight double,"
    " created_at datetime(3), paid tinyint(1), extra json"
)
_MARKS = "(" + ", ".join(["%s"] * len(COLUMNS)) + ")"
_INSERT = f"insert into {TABLE} values {_MARKS}"
_UPDATE = f"update {TABLE} set {', '.join(f'{name} = %s' for name in COLUMNS[1:])} where id = %s"


@dataclass(frozen=True, slots=True)
class MariaDbOrigin(Origin):
    name: ClassVar[str] = "MariaDB"
    namespace: ClassVar[str] = ""
    mariadb: MariaDb

    @property
    def server(self) -> MariaDb:
        return self.mariadb

    def _connected(self, database: str, **options: Any) -> Any:
        return contextlib.closing(
            self.mariadb.client(
                database=database, init_command="set time_zone = '+00:00'", **options
            )
        )

    def create(self, database: str, rows: int) -> None:
        with contextlib.closing(self.mariadb.client()) as connection:
            connection.cursor().execute(f"create database {database} character set utf8mb4")
        with self._connected(database, autocommit=False) as connection:
            cursor = connection.cursor()
            cursor.execute(f"create table {TABLE} ({_MARIADB_DDL})")
            made = map(_mariadb_row, orders(rows))
            while some := list(itertools.islice(made, 2_000)):
                cursor.executemany(_INSERT, some)
                connection.commit()

    def change(self, database: str, some: Sequence[Change], shape: Shape) -> None:
        batched = shape == "batches"
        with self._connected(database, autocommit=not batched) as connection:
            cursor = connection.cursor()
            if not batched:
                for change in some:
                    self._one(cursor, change)
                return
            again = ", ".join(f"{name} = values({name})" for name in COLUMNS[1:])
            for piece in in_pieces(some, AT_ONCE):
                left, gone = written(piece)
                cursor.executemany(
                    f"{_INSERT} on duplicate key update {again}", list(map(_mariadb_row, left))
                )
                if gone:
                    cursor.execute(f"delete from {TABLE} where id in %s", (gone,))
                connection.commit()

    @staticmethod
    def _one(cursor: Any, change: Change) -> None:
        if change.what == "delete":
            cursor.execute(f"delete from {TABLE} where id = %s", (change.id,))
            return
        cells = _mariadb_row(order(change.id, 1))
        if change.what == "insert":
            cursor.execute(_INSERT, cells)
        else:
            cursor.execute(_UPDATE, cells[1:] + cells[:1])

    def orders(self, database: str) -> Iterator[Order]:
        with self._connected(database, cursorclass=SSCursor) as connection:
            cursor = connection.cursor()
            cursor.execute(f"select * from {TABLE}")
            for id, customer, qty, amount, weight, created, paid, extra in cursor:
                at = created.replace(tzinfo=UTC)
                cells = (id, customer, qty, amount, weight, at, bool(paid), orjson.loads(extra))
                yield Order(*cells)

    def drop(self, database: str) -> None:
        with contextlib.closing(self.mariadb.client()) as connection:
            connection.cursor().execute(f"drop database if exists {database}")

    def block(self, database: str) -> dict[str, Any]:
        return {"type": "mysql", "connection_string": self.mariadb.url, "database": database}


def _mariadb_row(made: Order) -> tuple[Any, ...]:
    at: datetime = made.created_at.replace(tzinfo=None)
    return (*made[:5], at, made.paid, made.json)


@dataclass(frozen=True, slots=True)
class PostgresOrigin(Origin):
    name: ClassVar[str] = "PostgreSQL"
    namespace: ClassVar[str] = "public"
    postgres: Postgres

    @property
    def server(self) -> Postgres:
        return self.postgres

    def _connected(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.postgres.database_url(database), autocommit=True, options="-c timezone=UTC"
        )

    def create(self, database: str, rows: int) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
        with self._connected(database) as connection:
            connection.execute(f"create table {TABLE} ({DDL})".encode())
            with connection.cursor().copy(f"copy {TABLE} from stdin".encode()) as copy:
                for made in orders(rows):
                    copy.write_row((*made[:-1], made.json))
            connection.execute(f"vacuum analyze {TABLE}".encode())

    def change(self, database: str, some: Sequence[Change], shape: Shape) -> None:
        with self._connected(database) as connection:
            if shape == "singles":
                for change in some:
                    self._one(connection, change)
                return
            types = ("bigint", "text", "int", "numeric", "float8", "timestamptz", "bool", "jsonb")
            arrays = ", ".join(f"%s::{type}[]" for type in types)
            again = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
            upsert = (
                f"insert into {TABLE} select * from unnest({arrays})"
                f" on conflict (id) do update set {again}"
            ).encode()
            for piece in in_pieces(some, AT_ONCE):
                left, gone = written(piece)
                with connection.transaction():
                    if left:
                        cells = zip(*((*made[:-1], made.json) for made in left), strict=True)
                        connection.execute(upsert, list(map(list, cells)))
                    connection.execute(f"delete from {TABLE} where id = any(%s)".encode(), (gone,))

    @staticmethod
    def _one(connection: psycopg.Connection[Any], change: Change) -> None:
        if change.what == "delete":
            connection.execute(f"delete from {TABLE} where id = %s".encode(), (change.id,))
            return
        made = order(change.id, 1)
        cells = (*made[:-1], made.json)
        if change.what == "insert":
            connection.execute(_INSERT.encode(), cells)
        else:
            connection.execute(_UPDATE.encode(), cells[1:] + cells[:1])

    def orders(self, database: str) -> Iterator[Order]:
        with self._connected(database) as connection, connection.cursor("orders") as cursor:
            cursor.itersize = 10_000
            with connection.transaction():
                cursor.execute(f"select * from {TABLE}".encode())
                for cells in cursor:
                    yield Order(*cells)

    def drop(self, database: str) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            _drop_slots(connection, database)
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database))
            )

    def tidy(self, database: str) -> None:
        """Remove what a contender left beside the table."""
        with self._connected(database) as connection:
            _drop_slots(connection, database)
            for (name,) in connection.execute("select pubname from pg_publication").fetchall():
                connection.execute(sql.SQL("drop publication {}").format(sql.Identifier(name)))

    def block(self, database: str) -> dict[str, Any]:
        return {
            "type": "postgresql",
            "connection_string": self.postgres.database_url(database),
            "slot": f"ours_{database}",
            "publication": f"ours_{database}",
        }


def _drop_slots(connection: psycopg.Connection[Any], database: str) -> None:
    """A walsender whose client was just ended needs a moment to notice."""
    for _ in range(200):
        connection.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where database = %s and active",
            (database,),
        )
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s",
                (database,),
            )
            return
        connection.execute("select pg_sleep(0.05)")
    raise AssertionError(f"expected the slots of {database} to be free within 10 s")
