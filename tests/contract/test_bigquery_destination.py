"""BigQuery keeps every promise of a destination, as far as an emulator can show it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer

from warp.destinations.bigquery import BigQueryDestination
from warp.model import TableId
from warp.testing.contracts import DestinationContract, select

pytestmark = pytest.mark.xdist_group("bigquery")


class TestBigQueryDestination(DestinationContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, bigquery_server: BigQueryServer) -> Iterator[None]:
        with Warehouse(bigquery_server, secrets.token_hex(4)) as self.warehouse:
            yield

    def make(self) -> BigQueryDestination:
        return self.warehouse.destination(select)

    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        return {(row["id"], row["name"]) for row in self.warehouse.rows(table)}
