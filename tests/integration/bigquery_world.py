"""A dataset of the emulator, and sources that read it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fix_servers import BigQueryServer

from warp.model import (
    Capture,
    ChangeBatch,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSelection,
    TableSettings,
)
from warp.sources.bigquery import BigQuerySource, BigQuerySourceOptions
from warp.testing.bigquery import client_of

Event = tuple[Operation, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Every table of one dataset, or the one that is named."""

    namespace: str
    settings: dict[str, Any] = field(default_factory=dict)
    only: str = ""

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace or self.only not in ("", table.name):
            return None
        return TableSettings(table, table, "shop", **{"capture": Capture.HASH, **self.settings})


class World:
    """One dataset of a running emulator."""

    def __init__(self, server: BigQueryServer, dataset: str = "") -> None:
        self.server = server
        self.dataset = dataset or f"t_{secrets.token_hex(6)}"
        self.client = client_of(server.url, server.project)
        self.client.create_dataset(self.dataset, exists_ok=True)
        self.sources: list[BigQuerySource] = []

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """`{d}` stands for the dataset."""
        found = self.client.query_and_wait(statement.replace("{d}", self.dataset))
        return [row.values() for row in found]

    def id(self, table: str) -> TableId:
        return TableId(self.dataset, table)

    def options(self, **more: Any) -> BigQuerySourceOptions:
        said = {
            "connection_string": f"bigquery://{self.server.project}/{self.dataset}",
            "emulator_host": self.server.url,
            "emulator_grpc": self.server.grpc,
            **more,
        }
        return BigQuerySourceOptions.model_validate(said)

    def source(self, selection: TableSelection | None = None, **options: Any) -> BigQuerySource:
        chosen = selection or Selection(self.dataset)
        self.sources.append(BigQuerySource(self.options(**options), chosen))
        return self.sources[-1]

    def close(self) -> None:
        for source in self.sources:
            source.close()
        self.client.delete_dataset(self.dataset, delete_contents=True, not_found_ok=True)
        self.client.close()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def world_at(server: BigQueryServer, dataset: str = "") -> Iterator[World]:
    with contextlib.closing(World(server, dataset)) as world:
        yield world


def rows_of(parts: list[TableChanges]) -> list[Event]:
    return [
        (Operation(operation), row)
        for part in parts
        for operation, row in zip(part.operations, part.rows(), strict=True)
    ]


def events_of(batches: list[ChangeBatch]) -> list[Event]:
    return [event for batch in batches for event in rows_of(batch.changes)]


def run(
    source: BigQuerySource, table: TableId, position: Position | None
) -> tuple[list[Event], Position]:
    """One whole run, and where the next one goes on."""
    batches = list(source.poll(table, position, fire_time=1_000.0))
    return events_of(batches), batches[-1].end
