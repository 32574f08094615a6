"""MongoDB keeps the contract of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from warp.sources.mongodb import MongoOptions, MongoSource
from warp.testing.contracts import ORDERS, SourceContract, select


class TestMongoSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, mongo: Any) -> Iterator[None]:
        self.url: str = mongo.url
        with MongoClient[dict[str, Any]](self.url) as client:
            client.drop_database(ORDERS.namespace)
            self.orders = client[ORDERS.namespace].create_collection(ORDERS.name)
            yield

    def make(self) -> MongoSource:
        return MongoSource(MongoOptions.model_validate({"connection_string": self.url}), select)

    def put(self, id: int, name: str) -> None:
        self.orders.replace_one({"_id": id}, {"name": name}, upsert=True)

    def delete(self, id: int) -> None:
        self.orders.delete_one({"_id": id})
