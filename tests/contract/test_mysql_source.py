"""MariaDB (and MySQL, where it is named) keeps the contract of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mysql_world import World, world_at

from warp.sources.mysql import MysqlSource
from warp.testing.contracts import ORDERS, SourceContract, select


class TestMysqlSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, mariadb: Any) -> Iterator[None]:
        with world_at(mariadb.url, ORDERS.namespace) as world:
            self.world: World = world
            world.sql("CREATE TABLE orders (id int PRIMARY KEY, name text)")
            yield

    def make(self) -> MysqlSource:
        return self.world.source(select)

    def put(self, id: int, name: str) -> None:
        self.world.sql("REPLACE INTO orders VALUES (%s, %s)", [id, name])

    def delete(self, id: int) -> None:
        self.world.sql("DELETE FROM orders WHERE id = %s", [id])
