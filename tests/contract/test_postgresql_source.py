"""PostgreSQL keeps the contract of sources, with a role that may do no more than it must."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgresql_shop import Shop

from warp.sources.postgresql import PostgresSource
from warp.testing.contracts import SourceContract, select


class TestPostgresSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, pg_database: str) -> Iterator[None]:
        with Shop(pg_database) as shop:
            self.shop = shop
            shop.run("create table shop.orders (id bigint primary key, name text)")
            self.made: list[PostgresSource] = []
            yield
            for source in self.made:
                source.close()

    def make(self) -> PostgresSource:
        self.made.append(self.shop.source(select))
        return self.made[-1]

    def put(self, id: int, name: str) -> None:
        self.shop.run(
            "insert into shop.orders values (%s, %s) "
            "on conflict (id) do update set name = excluded.name",
            (id, name),
        )

    def delete(self, id: int) -> None:
        self.shop.run("delete from shop.orders where id = %s", (id,))
