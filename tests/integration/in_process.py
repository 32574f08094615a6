"""A coordinator and a worker in the test's own process, between real servers."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import pymysql
import yaml
from fix_servers import mysql_client
from postgresql_shop import Shop
from psycopg import sql
from pymongo.database import Database

from coordinator.leader import Leadership
from coordinator.reconciler import Reconciler
from coordinator.watch import Watch
from warp.assembly import Plugged
from warp.config import Settings, load
from warp.interfaces import MetadataStore
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import Meters
from warp.model import Marker, Phase, UnitKind
from warp.mysql_family import identifier
from warp.own_process import wait_until
from warp.retry import Backoff
from workers.errands import Desk
from workers.worker import Pace, Worker


def settings_of(tmp_path: Any, tree: Mapping[str, Any]) -> Settings:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(dict(tree)))
    return load(path, {}, {})


@dataclass
class Live:
    """A fleet that the test drives round by round."""

    settings: Settings
    assembly: Plugged
    ledger: MemoryLeaseStore
    reconciler: Reconciler
    metadata: MetadataStore

    @property
    def desk(self) -> Desk:
        return Desk(self.metadata, self.ledger, self.assembly)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def after_a_round() -> bool:
            self.reconciler.round()
            return condition()

        assert wait_until(after_a_round, 30.0), f"{what}: {self.metadata.markers()}"

    def table(self, name: str) -> Marker:
        [found] = [
            m
            for m in self.metadata.markers((UnitKind.TABLE,))
            if m.unit.table is not None and m.unit.table.name == name
        ]
        return found

    def until_complete(self, name: str, epoch: int = 0) -> None:
        def complete() -> bool:
            found = [m for m in self.metadata.markers((UnitKind.TABLE,)) if m.unit.table]
            return any(
                m.unit.table is not None
                and (m.unit.table.name, m.phase, m.epoch) == (name, Phase.STREAMING, epoch)
                for m in found
            )

        self.until(complete, f"{name} to be complete")


@contextlib.contextmanager
def live(settings: Settings) -> Iterator[Live]:
    assembly = Plugged(settings)
    ledger = MemoryLeaseStore(lease_ttl=2.0)
    meters = Meters()
    leadership = Leadership(MemoryLeaseStore(lease_ttl=60.0), "c1")
    leadership.step()
    pace = Pace(ttl=2.0, claim_every=0.02, backoff=Backoff(3, 2.0, 0.05, 0.2))
    with contextlib.closing(assembly.bookkeeping()) as books:
        books.metadata().prepare()
        watch = Watch(meters, database="shop")
        reconciler = Reconciler(settings, assembly, ledger, leadership, watch)
        worker = Worker(ledger, assembly, meters, slots=4, pace=pace)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield Live(settings, assembly, ledger, reconciler, books.metadata())
        finally:
            worker.drain()
            thread.join(20)
            reconciler.close()


# -- one small table at each source, and the same at the destination


@dataclass
class Side:
    """A table `orders` of ids and texts at a source."""

    namespace: str
    tree: dict[str, Any]
    key: str
    put: Callable[[int, str], object]
    delete: Callable[[int], object]
    rows: Callable[[], dict[int, str]]


def of_mongodb(url: str, database: Database[dict[str, Any]]) -> Side:
    orders = database["orders"]
    source = {"type": "mongodb", "connection_string": url, "database": database.name}
    return Side(
        database.name,
        source,
        "_id",
        lambda id, v: orders.replace_one({"_id": id}, {"v": v}, upsert=True),
        lambda id: orders.delete_one({"_id": id}),
        lambda: {row["_id"]: row["v"] for row in orders.find()},
    )


@contextlib.contextmanager
def of_mysql(url: str, database_url: str) -> Iterator[Side]:
    name = database_url.rpartition("/")[2]
    connection: pymysql.Connection[Any] = mysql_client(database_url)

    def run(statement: str, *values: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    run("CREATE TABLE orders (id bigint PRIMARY KEY, v text)")
    with connection:
        yield Side(
            name,
            {"type": "mysql", "connection_string": url, "database": name},
            "id",
            lambda id, v: run("REPLACE INTO orders VALUES (%s, %s)", id, v),
            lambda id: run("DELETE FROM orders WHERE id = %s", id),
            lambda: dict(run("SELECT id, v FROM orders")),
        )


def of_postgresql(shop: Shop) -> Side:
    shop.run("create table shop.orders (id bigint primary key, v text)")
    upsert = "insert into shop.orders values (%s, %s) on conflict (id) do update set v = excluded.v"
    return Side(
        "shop",
        {
            "type": "postgresql",
            "connection_string": shop.reading_url,
            "slot": shop.slot,
            "publication": shop.publication,
        },
        "id",
        lambda id, v: shop.run(upsert, (id, v)),
        lambda id: shop.run("delete from shop.orders where id = %s", (id,)),
        lambda: dict(shop.run("select id, v from shop.orders")),
    )


class There:
    """The same table at the destination."""

    def __init__(self, url: str, side: Side) -> None:
        self.url = url
        self.table = sql.Identifier(side.namespace, "orders")
        self.key = sql.Identifier(side.key)

    def run(self, statement: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            composed = sql.SQL(statement).format(table=self.table, key=self.key)
            cursor = connection.execute(composed, values or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[int, str]:
        found = self.run("select {key}, v from {table} where not _cw_deleted")
        return {int(id): v for id, v in found}

    def swept(self) -> list[Any]:
        """The keys of rows that a sweep has removed."""
        query = "select key from cartridge_warp_metadata.deletion_audit where reason = 'sweep'"
        return [key for (key,) in self.run(query)]


class ThereInMysql(There):
    """In a MySQL or MariaDB."""

    def __init__(self, url: str, side: Side, metadata: str) -> None:
        self.url = url
        self.names = {"table": identifier(side.namespace, "orders"), "key": identifier(side.key)}
        self.metadata = identifier(metadata)

    def run(self, statement: str, *values: Any) -> list[Any]:
        with mysql_client(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(**self.names), values or None)
            return list(cursor.fetchall())

    def swept(self) -> list[Any]:
        query = f"select `key` from {self.metadata}.deletion_audit where reason = 'sweep'"
        return [json.loads(key) for (key,) in self.run(query)]
