"""A row is counted when its transaction is durable, and a transaction that fails counts nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import prometheus_client  # noqa: F401  imported before any server sets the variable: in memory
import pytest
from test_pipeline import Held, destination_of, source_of

from warp import pipeline
from warp.errors import DestinationUnavailable
from warp.metrics import RECORDS_PROCESSED, Meters
from warp.model import ChangeBatch, Lease, Marker, Operation, Phase, Written
from warp.testing.contracts import ORDERS, SCHEMA, STREAM, select
from warp.testing.memory import MemoryDatabase, MemoryDestination, MemoryWarehouse


class Fleet:
    """Workers one after the other, each with its own meters."""

    def __init__(self) -> None:
        self.database, self.warehouse = MemoryDatabase(), MemoryWarehouse()
        self.database.create(SCHEMA)
        self.fence = 0

    def follow(self, until_rows: int) -> float:
        """How many rows a worker counts that follows the stream until so many are there."""
        self.fence += 1
        meters, lease = Meters("shop"), Lease(STREAM, f"worker-{self.fence}", self.fence)
        destination = destination_of(self.warehouse)
        marker = destination.open(lease)
        hold = Held(lease, until=lambda: self.arrived >= until_rows)
        meter = meters.meter(STREAM, select)
        ends = (source_of(self.database), destination, marker, hold)
        with contextlib.suppress(DestinationUnavailable):
            pipeline.stream(*ends, selection=select, meter=meter, idle=0.01)
        labels = (ORDERS.namespace, STREAM.schema, ORDERS.name, "create")
        names = ("database", "schema", "table", "operation")
        shown = meters.registry.get_sample_value(
            RECORDS_PROCESSED, dict(zip(names, labels, strict=True))
        )
        return shown or 0.0

    @property
    def arrived(self) -> int:
        return sum(1 for _ in self.warehouse.rows(ORDERS))


def breaks_before_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: MemoryDestination, batch: ChangeBatch, *_: Any, **__: Any) -> Written:
        raise DestinationUnavailable("the server went away with the transaction")

    monkeypatch.setattr(MemoryDestination, "write_batch", write)


def test_a_transaction_that_is_rolled_back_counts_nothing_and_its_rows_count_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.follow(until_rows=0)
    for id in range(7):
        fleet.database.put(ORDERS, id=id, name="x")

    with monkeypatch.context() as broken:
        breaks_before_its_commit(broken)
        assert fleet.follow(until_rows=7) == 0
    assert fleet.arrived == 0

    assert fleet.follow(until_rows=7) == fleet.arrived == 7


def test_counting_before_the_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: the count moved in front of the write."""
    write = pipeline.Delivery.write

    def early(self: pipeline.Delivery, marker: Marker, batch: ChangeBatch, phase: Phase) -> Marker:
        counts = {(ORDERS, Operation.CREATE): len(batch)}
        self._meter.committed(batch, Written(counts, seconds=0.0))
        return write(self, marker, batch, phase)

    monkeypatch.setattr(pipeline.Delivery, "write", early)
    with pytest.raises(AssertionError):
        test_a_transaction_that_is_rolled_back_counts_nothing_and_its_rows_count_once(monkeypatch)
