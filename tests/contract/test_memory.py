"""The in-memory connectors keep the contracts they are the reference for."""

from __future__ import annotations

from typing import Any

import pytest

from warp.model import Operation, TableId
from warp.testing.contracts import ORDERS, SCHEMA, DestinationContract, SourceContract, select
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDeltas,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)


class TestMemoryDestination(DestinationContract):
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        self.warehouse = MemoryWarehouse()

    def make(self) -> MemoryDestination:
        return MemoryDestination(MemoryDestinationOptions(warehouse=self.warehouse), select)

    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        return {(row["id"], row["name"]) for row in self.warehouse.rows(table)}


class TestMemorySource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        self.database = MemoryDatabase()
        self.database.create(SCHEMA)

    def make(self) -> MemorySource:
        return MemorySource(MemorySourceOptions(database=self.database), select)

    def put(self, id: int, name: str) -> None:
        self.database.put(ORDERS, id=id, name=name)

    def delete(self, id: int) -> None:
        self.database.delete(ORDERS, id=id)


class TestMemoryDeltas(TestMemorySource):
    def make(self) -> MemorySource:
        return MemoryDeltas(MemorySourceOptions(database=self.database), select)


def test_operations_are_the_letters_of_the_glossary() -> None:
    assert bytes(sorted(Operation)).decode() == "cdrtu"
