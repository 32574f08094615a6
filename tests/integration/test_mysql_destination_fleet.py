"""MongoDB and PostgreSQL kept equal in a MariaDB by processes that are killed meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from fix_servers import Server, mysql_client
from postgresql_shop import Shop
from processes import Fleet, eventually
from pymongo.database import Database


class Warehouse:
    """Two databases of their own, and the `destination:` block that names them."""

    def __init__(self, url: str) -> None:
        name = secrets.token_hex(4)
        self.shop, self.meta = f"shop_{name}", f"meta_{name}"
        self.looking = mysql_client(url)
        self.block = {
            "type": "mysql",
            "connection_string": url,
            "schema": self.shop,
            "metadata_schema": self.meta,
        }

    def ask(self, query: str) -> list[Any]:
        try:
            with self.looking.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        except (pymysql.err.ProgrammingError, pymysql.err.OperationalError) as error:
            if error.args[0] in (1049, 1054, 1146):  # not there yet
                return []
            raise

    def rows(self, columns: str) -> list[Any]:
        return self.ask(
            f"select {columns} from {self.shop}.orders where not _cw_deleted order by 1"
        )

    def phases(self) -> list[Any]:
        return self.ask(f"select distinct phase from {self.meta}.sync_markers where kind = 'table'")

    def close(self) -> None:
        for database in (self.shop, self.meta):
            self.ask(f"drop database if exists {database}")
        self.looking.close()


@pytest.fixture
def warehouse(mariadb: Server) -> Iterator[Warehouse]:
    warehouse = Warehouse(mariadb.url)
    yield warehouse
    warehouse.close()


def kill_one_after_the_other(fleet: Fleet, warehouse: Warehouse, change: Any, equal: Any) -> None:
    """Three workers, each killed while rows are on their way, and one that ends the work."""
    fleet.coordinator()
    for turn in range(3):
        worker = fleet.worker()
        eventually(lambda: warehouse.rows("1"), "the first rows")
        change(turn)
        worker.kill9()
    fleet.worker()
    eventually(equal, "both sides to be equal")
    eventually(lambda: warehouse.phases() == [("streaming",)], "the table to be settled")
    assert equal()


@pytest.mark.holds(guarantee=(4, 7), source="mongodb", destination="mariadb", fault="kill -9")
def test_mongodb_is_kept_equal_through_kills(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    redis_server: Server,
    warehouse: Warehouse,
) -> None:
    orders = mongo_database["orders"]
    orders.insert_many([{"_id": n, "n": n, "name": f"it's {n}\n"} for n in range(1_000)])
    more = {"destination": warehouse.block}
    fleet = Fleet(tmp_path, mongo.url, mongo_database.name, "", redis_server.url, **more)

    def change(turn: int) -> None:
        orders.insert_many([{"_id": 10_000 * turn + n, "n": n} for n in range(2_000, 2_200)])
        orders.update_many({"n": {"$mod": [7, turn]}}, {"$inc": {"n": 1_000}, "$set": {"t": turn}})
        orders.delete_many({"n": {"$mod": [11, turn]}})

    def equal() -> bool:
        here = [(d["_id"], d["n"], d.get("name"), d.get("t")) for d in orders.find().sort("_id")]
        return here == warehouse.rows("_id, n, name, t")

    try:
        kill_one_after_the_other(fleet, warehouse, change, equal)
    finally:
        fleet.close()


@pytest.mark.holds(guarantee=(4, 7), source="postgresql", destination="mariadb", fault="kill -9")
def test_postgresql_is_kept_equal_through_kills(
    tmp_path: Path,
    mongo: Server,
    capture_shop: Shop,
    redis_server: Server,
    warehouse: Warehouse,
) -> None:
    shop = capture_shop.fresh()
    shop.run(
        "create table shop.orders (id int primary key, n numeric(12, 2), name text, at timestamptz)"
    )
    shop.run(
        "insert into shop.orders select n, n / 7.0, 'it''s ' || n, now()"
        " from generate_series(1, 900) n"
    )
    source = {
        "type": "postgresql",
        "connection_string": shop.reading_url,
        "slot": shop.slot,
        "publication": shop.publication,
    }
    more = {"destination": warehouse.block, "source": source, "schemas": [{"name": "shop"}]}
    fleet = Fleet(tmp_path, mongo.url, "shop", "", redis_server.url, **more)

    def change(turn: int) -> None:
        shop.run(
            "insert into shop.orders select n, 1.10, null, now()"
            f" from generate_series({10_000 * turn + 2_000}, {10_000 * turn + 2_200}) n"
        )
        shop.run(f"update shop.orders set n = n + 1, name = name || '!' where id % 7 = {turn}")
        shop.run(f"delete from shop.orders where id % 11 = {turn}")

    def equal() -> bool:
        here = shop.run("select id, n, name, at at time zone 'UTC' from shop.orders order by id")
        return here == warehouse.rows("id, n, name, at")

    try:
        kill_one_after_the_other(fleet, warehouse, change, equal)
    finally:
        fleet.close()
