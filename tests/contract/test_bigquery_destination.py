"""BigQuery keeps every promise of a destination, as far as an emulator can show it.

The emulator takes a fifth of a second of CPU for each statement, so the whole contract runs with
`make soak` and `make bigquery-acceptance`, and a few of its cases every time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer

from warp.destinations.bigquery import BigQueryDestination
from warp.model import TableId
from warp.testing.contracts import DestinationContract, select

pytestmark = pytest.mark.xdist_group("bigquery")

EVERY_TIME = {
    "test_applies_creates_updates_and_deletes",
    "test_an_old_owner_writes_neither_rows_nor_marker",
}
# They look at what is there before anybody has prepared anything.
_UNPREPARED = ("was_prepared", "a_look_finds")


@pytest.fixture(scope="module")
def shared(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        warehouse.destination(select).metadata().prepare()
        yield warehouse


class _Contract(DestinationContract):
    __test__: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _fresh(
        self, request: pytest.FixtureRequest, bigquery_server: BigQueryServer, shared: Warehouse
    ) -> Iterator[None]:
        if any(words in request.node.name for words in _UNPREPARED):
            with Warehouse(bigquery_server, secrets.token_hex(4)) as self.warehouse:
                yield
            return
        self.warehouse = shared
        yield
        shared.empty()

    def make(self) -> BigQueryDestination:
        return self.warehouse.destination(select)

    def read(self, table: TableId) -> set[tuple[Any, Any]]:
        return {(row["id"], row["name"]) for row in self.warehouse.rows(table)}


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination="bigquery",
    fault="superseded",
    by="test_an_old_owner_cannot_open",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="bigquery",
    fault="no fault",
    by="test_changes_of_one_version_apply_in_their_order",
)
@pytest.mark.holds(
    guarantee=5,
    source="none",
    destination="bigquery",
    fault="no fault",
    by="test_a_replayed_row_never_overrules_a_newer_one",
)
@pytest.mark.holds(
    guarantee=8,
    source="none",
    destination="bigquery",
    fault="hand-over",
    by="test_a_late_chunk_row_never_replaces_a_newer_one",
)
@pytest.mark.holds(
    guarantee=6,
    source="none",
    destination="bigquery",
    fault="lost position",
    by="test_rows_gone_at_the_source_are_swept_after_a_second_snapshot",
)
@pytest.mark.soak
class TestTheWholeContract(_Contract):
    __test__ = True


@pytest.mark.holds(
    guarantee=2,
    source="none",
    destination="bigquery",
    fault="superseded",
    by="test_an_old_owner_writes_neither_rows_nor_marker",
)
class TestAFewOfIt(_Contract):
    __test__ = True


for name in dir(DestinationContract):
    if name.startswith("test_"):
        setattr(TestTheWholeContract if name in EVERY_TIME else TestAFewOfIt, name, None)
