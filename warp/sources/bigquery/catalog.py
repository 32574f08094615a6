"""What is there: datasets, tables and their columns, asked over REST, which bills nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.api_core import exceptions as api
from google.cloud import bigquery

from warp.model import Column, TableId, TableSchema
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.server import RETRY, Server

# Held for seven days unless a dataset says less.
_TIME_TRAVEL: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Table:
    """One table as it is now."""

    id: TableId
    columns: tuple[Declared, ...]
    key: tuple[str, ...]
    rows: int  # what streams in is counted later
    bytes: int
    clustered: tuple[str, ...] = ()
    partitioned: str = ""  # the column; `_PARTITIONTIME` where it is none of the table
    needs_filter: bool = False
    created: float = 0.0  # Unix seconds

    def column(self, name: str) -> Declared | None:
        return next((c for c in self.columns if c.name == name), None)

    def proposal(self) -> TableSchema:
        columns = tuple(Column(c.name, c.kind) for c in self.columns)
        return TableSchema(self.id, columns, self.key)

    @property
    def signature(self) -> str:
        """Another one after a change of columns or key: rows from before do not compare."""
        told = ";".join([*(f"{c.name} {c.told}" for c in self.columns), *self.key])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def prunes_by(self, column: str) -> bool:
        """Does a condition on this column keep BigQuery from reading all of the table?"""
        return column == self.partitioned or self.clustered[:1] == (column,)


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    location: str
    time_travel: float  # seconds


class Catalog:
    """Asked anew each time; it keeps nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = server.options.keys

    def namespaces(self) -> list[str]:
        with self._server.meaning("list the datasets"):
            found = self._server.client.list_datasets(retry=RETRY, timeout=self._timeout)
            return sorted(dataset.dataset_id for dataset in found)

    def tables(self, dataset: str) -> tuple[list[TableId], dict[TableId, str]]:
        """Tables proper, and what else is there with its type: views, external tables."""
        tables: list[TableId] = []
        others: dict[TableId, str] = {}
        with self._server.meaning(f"list the tables of {dataset}"):
            reference = bigquery.DatasetReference(self._server.project, dataset)
            for item in self._server.client.list_tables(
                reference, retry=RETRY, timeout=self._timeout
            ):
                id = TableId(dataset, item.table_id)
                if item.table_type == "TABLE":
                    tables.append(id)
                else:
                    others[id] = str(item.table_type).lower().replace("_", " ")
        return sorted(tables), others

    def table(self, id: TableId) -> Table | None:
        """None where it is gone."""
        with self._server.meaning(f"look at {id}"):
            try:
                found = self._server.client.get_table(
                    self.reference(id), retry=RETRY, timeout=self._timeout
                )
            except api.NotFound:
                return None
        return self._described(id, found)

    def find(self, tables: Sequence[TableId]) -> dict[TableId, Table]:
        described = ((id, self.table(id)) for id in tables)
        return {id: table for id, table in described if table is not None}

    def dataset(self, name: str) -> Dataset:
        with self._server.meaning(f"look at the dataset {name}"):
            found = self._server.client.get_dataset(
                bigquery.DatasetReference(self._server.project, name),
                retry=RETRY,
                timeout=self._timeout,
            )
        hours = found.max_time_travel_hours
        return Dataset(name, found.location or "", float(hours) * 3600 if hours else _TIME_TRAVEL)

    def time_travel(self, dataset: str) -> float:
        """For how many seconds back the tables of a dataset may be read."""
        return self._server.options.time_travel or self.dataset(dataset).time_travel

    def reference(self, id: TableId) -> bigquery.TableReference:
        return bigquery.TableReference(
            bigquery.DatasetReference(self._server.project, id.namespace), id.name
        )

    @property
    def _timeout(self) -> float:
        return self._server.options.request_timeout

    def _described(self, id: TableId, found: bigquery.Table) -> Table:
        columns = tuple(Declared.of(field) for field in found.schema)
        by_time, by_range = found.time_partitioning, found.range_partitioning
        partitioned = ""
        if by_time is not None:
            partitioned = by_time.field or "_PARTITIONTIME"
        elif by_range is not None:
            partitioned = by_range.field or ""
        return Table(
            id,
            columns,
            key_of(id, found, self._keys),
            rows=int(found.num_rows or 0),
            bytes=int(found.num_bytes or 0),
            clustered=tuple(found.clustering_fields or ()),
            partitioned=partitioned,
            needs_filter=bool(found.require_partition_filter),
            created=found.created.timestamp() if found.created else 0.0,
        )


def key_of(
    id: TableId, found: bigquery.Table, named: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """What the configuration names, else the declared primary key, which BigQuery does not
    enforce."""
    configured = named.get(str(id), named.get(id.name))
    if configured is not None:
        return tuple(configured)
    declared = found.table_constraints
    if declared is None or declared.primary_key is None:
        return ()
    return tuple(declared.primary_key.columns)
