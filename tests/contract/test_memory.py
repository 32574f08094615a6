"""The in-memory connectors keep the contracts they are the reference for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from warp.model import Operation, Position, TableId, TableSettings
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


def test_a_transaction_larger_than_a_batch_ends_where_the_one_before_it_does() -> None:
    database = MemoryDatabase()
    database.create(SCHEMA)
    database.put(ORDERS, id=0, name="before")
    with database.transaction():
        for id in range(5):
            database.put(ORDERS, id=id, name="within")
    database.put(ORDERS, id=9, name="after")

    def small(table: TableId) -> TableSettings | None:
        settings = select(table)
        return replace(settings, write_batch_size=2) if settings is not None else None

    source = MemorySource(MemorySourceOptions(database=database), small)
    batches = source.get_changes(Position("0"), selection=small, idle=0.0)
    found = [(len(batch), batch.end.token) for batch in itertools.islice(batches, 4)]
    assert found == [(2, "1"), (2, "1"), (2, "2"), (1, "3")]


def test_operations_are_the_letters_of_the_glossary() -> None:
    assert bytes(sorted(Operation)).decode() == "cdrtu"
