"""BigQuery keeps the contract of polled sources, on an emulator: by comparison and by times.

`strategy: log` cannot be shown here, since no emulator knows CHANGES() and APPENDS(); see
tests/unit/test_bigquery_history.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from bigquery_world import World, world_at
from fix_servers import BigQueryServer

from warp.model import Capture, TableId, TableSettings
from warp.sources.bigquery import BigQuerySource
from warp.testing.contracts import ORDERS, PollContract, RowsContract, select


@pytest.fixture(scope="module")
def shop(bigquery_server: BigQueryServer) -> Iterator[World]:
    with world_at(bigquery_server, ORDERS.namespace) as world:
        yield world


class _Orders:
    """The table, and how a test writes to it."""

    capture: Capture

    @pytest.fixture(autouse=True)
    def _fresh(self, shop: World) -> None:
        self.world = shop
        self.waiting: dict[int, str] = {}
        shop.sql(
            "CREATE OR REPLACE TABLE {d}.orders (id INT64 NOT NULL, name STRING, "
            "updated_at TIMESTAMP, PRIMARY KEY (id) NOT ENFORCED)"
        )

    def select(self, table: TableId) -> TableSettings | None:
        found = select(table)
        return None if found is None else replace(found, capture=self.capture)

    def make(self) -> BigQuerySource:
        self._write()
        return self.world.source(self.select)

    # A hundred statements would take longer than all the rest: written when somebody reads.

    def put(self, id: int, name: str) -> None:
        self.waiting[id] = name

    def delete(self, id: int) -> None:
        self._write()
        self.world.sql(f"DELETE FROM {{d}}.orders WHERE id = {id}")

    def _write(self) -> None:
        if self.waiting:
            ids = ", ".join(map(str, self.waiting))
            rows = ", ".join(
                f"({id}, '{name}', CURRENT_TIMESTAMP())" for id, name in self.waiting.items()
            )
            self.world.sql(f"DELETE FROM {{d}}.orders WHERE id IN ({ids})")
            self.world.sql(f"INSERT INTO {{d}}.orders VALUES {rows}")
            self.waiting.clear()


class TestRows(_Orders, RowsContract):
    capture = Capture.HASH


class TestByComparison(_Orders, PollContract):
    capture = Capture.HASH
    sees_deletes = True


@pytest.mark.soak  # ten CPU-seconds of the emulator; a fleet polls by times in every test run
class TestByTimes(_Orders, PollContract):
    capture = Capture.TIMESTAMP
    sees_deletes = False
