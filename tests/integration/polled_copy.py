"""A BigQuery kept equal in a PostgreSQL by runs of this process, and compared with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bigquery_world import World
from verified_copy import ORDERS, SCHEMA, VerifiedCopy

from warp import pipeline
from warp.interfaces import MetadataStore, SourceConnector
from warp.model import (
    Capture,
    ChangeBatch,
    Phase,
    Privacy,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
)
from warp.pipeline import NoMeter
from warp.privacy.source import CoveredSource

COLUMNS = (
    "id INT64, name STRING, price NUMERIC, at TIMESTAMP, share FLOAT64, doc JSON,"
    " PRIMARY KEY (id) NOT ENFORCED"
)
SIXTY = (
    "INSERT INTO {d}.orders SELECT n, CONCAT('n', CAST(n AS STRING)), CAST(n AS NUMERIC) / 8,"
    " TIMESTAMP_SECONDS(1700000000 + n), n / 7, TO_JSON(STRUCT(n AS bb, n AS a))"
    " FROM UNNEST(GENERATE_ARRAY(1, 60)) AS n"
)


class Delivering:
    """A source whose next run has been read already."""

    def __init__(self, source: SourceConnector, batches: list[ChangeBatch]) -> None:
        self._source = source
        self._batches = batches

    def poll(self, *_: Any, **__: Any) -> Iterator[ChangeBatch]:
        return iter(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@dataclass
class PolledCopy(VerifiedCopy):
    """Whose first rows have come by chunks, and all since by runs."""

    def begin(
        self, source: SourceConnector, metadata: MetadataStore, tables: Sequence[TableId]
    ) -> None:
        for table in tables:
            start = source.poll_start(table, fire_time=time.time())
            metadata.register(WorkUnit.poll(SCHEMA, table), position=start, phase=Phase.IDLE)

    def poll(self, table: TableId, batches: list[ChangeBatch] | None = None) -> None:
        """One run, from beginning to end."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            hand = self.lease(WorkUnit.poll(SCHEMA, table))
            marker = destination.open(hand.lease)
            read = source if batches is None else Delivering(source, batches)
            assert pipeline.poll(
                *(read, destination, marker, hand),  # type: ignore[arg-type]
                selection=self.select,
                meter=NoMeter(),
                fire_time=time.time(),
            )

    def read_run(self, table: TableId) -> list[ChangeBatch]:
        """What the next run would deliver if it began now."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            [marker] = destination.metadata().markers((UnitKind.POLL,))
            return list(source.poll(table, marker.position, fire_time=time.time()))


def selecting(world: World, table: str = "orders", **settings: Any) -> TableSelection:
    """One table of the world, which becomes `shop.TABLE`."""
    meant = world.id(table)

    def select(table: TableId) -> TableSettings | None:
        if table != meant:
            return None
        chosen = {"capture": Capture.HASH, **settings}
        return TableSettings(table, replace(ORDERS, name=table.name), SCHEMA, **chosen)

    return select


@contextmanager
def polled_copy(
    world: World, url: str, table: str = "orders", **settings: Any
) -> Iterator[PolledCopy]:
    select = selecting(world, table, **settings)
    privacy: Privacy | None = settings.get("privacy")

    def source() -> Any:
        made = world.source(select)
        if privacy is None:
            return made
        paths = [path for path, _ in privacy.rules]
        return CoveredSource(made, select, paths=paths, key=privacy.key)

    with closing(PolledCopy(source, select, url)) as copy:
        yield copy
