"""A warehouse of a test's own in a shared BigQuery: datasets with a mark in their names."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any, Self

import requests
from fix_servers import BigQueryServer
from google.api_core.exceptions import NotFound

from warp.bigquery_client import Access
from warp.destinations.bigquery import BigQueryDestination, BigQueryDestinationOptions, books
from warp.destinations.bigquery.session import ONCE
from warp.errors import DestinationRefused
from warp.model import TableId, TableSelection, TableSettings
from warp.testing.bigquery import PLAIN

EMPTIED = {books.QUARANTINE, books.DECISIONS, books.AUDIT, books.RUNS, books.ERRORS, books.ERRANDS}


class Warehouse:
    """Datasets `shop_MARK`, `meta_MARK`, `stage_MARK`; all that end so are dropped at the end.

    On our emulator they keep no history, unless a test asks for it, which is quick; and there two
    transactions meet where both change one row.  With history they meet where both change or delete
    rows of one table, which is nearer to BigQuery.
    """

    def __init__(
        self, server: BigQueryServer, mark: str, *, history: bool = False, **options: Any
    ) -> None:
        self.mark = mark
        self.server = server
        self.project = server.project
        if server.url and not history:
            self.project = PLAIN.format(server.project)
        self.more = options
        chosen = BigQueryDestinationOptions.model_validate(self.options)
        self.client = Access(chosen, DestinationRefused).client()
        self._made: list[BigQueryDestination] = []

    @property
    def options(self) -> dict[str, Any]:
        real: dict[str, Any] = {
            "location": os.environ.get("CARTRIDGE_WARP_BIGQUERY_LOCATION") or None
        }
        return {
            "connection_string": f"bigquery://{self.project}",
            **({"emulator_host": self.server.url} if self.server.url else real),
            "metadata_schema": f"meta_{self.mark}",
            "staging_dataset": f"stage_{self.mark}",
            **self.more,
        }

    def place(self, table: TableId) -> TableId:
        return TableId(f"{table.namespace}_{self.mark}", table.name)

    def destination(self, selection: TableSelection) -> BigQueryDestination:
        def here(table: TableId) -> TableSettings | None:
            settings = selection(table)
            return settings and replace(settings, destination=self.place(settings.destination))

        options = BigQueryDestinationOptions.model_validate(self.options)
        self._made.append(BigQueryDestination(options, here))
        return self._made[-1]

    def query(self, statement: str) -> list[dict[str, Any]]:
        try:
            return self._query(statement)
        except requests.exceptions.ConnectionError:
            # The emulator ends a connection that was idle for five seconds, perhaps just now.
            return self._query(statement)

    def _query(self, statement: str) -> list[dict[str, Any]]:
        found = self.client.query_and_wait(statement, retry=ONCE, job_retry=ONCE)
        return [dict(row.items()) for row in found]

    def rows(self, table: TableId) -> list[dict[str, Any]]:
        """The rows a reader takes for live."""
        place = self.place(table)
        try:
            return self.query(
                f"SELECT * FROM `{place.namespace}`.`{place.name}` WHERE NOT _cw_deleted"
            )
        except NotFound:
            return []

    def metadata(self, table: str) -> list[dict[str, Any]]:
        return self.query(f"SELECT * FROM `meta_{self.mark}`.`{table}`")

    def empty(self) -> None:
        """As if nobody had ever written here, but the metadata's tables are there: making them
        takes the emulator three seconds.  What was staged is nobody's any more."""
        meta = f"meta_{self.mark}"
        statements = [f"TRUNCATE TABLE `{meta}`.`{t}`" for t in books.TABLES if t in EMPTIED]
        for dataset in (meta, f"shop_{self.mark}"):
            with contextlib.suppress(NotFound):
                for table in list(self.client.list_tables(dataset, retry=ONCE)):
                    if dataset != meta or table.table_id.startswith("markers_"):
                        statements.append(f"DROP TABLE `{dataset}`.`{table.table_id}`")
        self.query(";\n".join(statements))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for destination in self._made:
            destination.close()
        for dataset in list(self.client.list_datasets(retry=ONCE)):
            if dataset.dataset_id.endswith(f"_{self.mark}"):
                with contextlib.suppress(NotFound):
                    self.client.delete_dataset(dataset.reference, delete_contents=True, retry=ONCE)
        self.client.close()  # type: ignore[no-untyped-call]
