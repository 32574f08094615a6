"""PostgreSQL keeps the contract of sources, with a role that may do no more than it must."""

from __future__ import annotations

import pytest
from postgresql_shop import Shop

from warp.sources.postgresql import PostgresSource
from warp.testing.contracts import SourceContract, select


class TestPostgresSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, capture_shop: Shop) -> None:
        self.shop = capture_shop.fresh()
        self.shop.run("create table shop.orders (id bigint primary key, name text)")

    def make(self) -> PostgresSource:
        return self.shop.source(select)

    def put(self, id: int, name: str) -> None:
        self.shop.run(
            "insert into shop.orders values (%s, %s) "
            "on conflict (id) do update set name = excluded.name",
            (id, name),
        )

    def delete(self, id: int) -> None:
        self.shop.run("delete from shop.orders where id = %s", (id,))
