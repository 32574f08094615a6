"""PostgreSQL keeps every promise of a destination."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.model import TableId
from warp.testing.contracts import DestinationContract, select


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination="postgresql",
    fault="superseded",
    by="test_an_old_owner_cannot_open",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="postgresql",
    fault="no fault",
    by="test_changes_of_one_version_apply_in_their_order",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="postgresql",
    fault="no fault",
    by="test_a_replayed_row_never_overrules_a_newer_one",
)
@pytest.mark.holds(
    guarantee=8,
    source="none",
    destination="postgresql",
    fault="hand-over",
    by="test_a_late_chunk_row_never_replaces_a_newer_one",
)
@pytest.mark.holds(
    guarantee=6,
    source="none",
    destination="postgresql",
    fault="lost position",
    by="test_rows_gone_at_the_source_are_swept_after_a_second_snapshot",
)
class TestPostgresDestination(DestinationContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, pg_database: str) -> Iterator[None]:
        self.url = pg_database
        self.made: list[PostgresDestination] = []
        yield
        for destination in self.made:
            destination.close()

    def make(self) -> PostgresDestination:
        options = PostgresOptions.model_validate({"connection_string": self.url})
        self.made.append(PostgresDestination(options, select))
        return self.made[-1]

    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("select to_regclass('shop.orders')").fetchone()
            if found is None or found[0] is None:
                return set()
            rows = connection.execute("select id, name from shop.orders where not _cw_deleted")
            return set(rows.fetchall())
