"""The coordinator's rounds, with everything in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from memory_shop import ORDERS, STREAM, Shop

from coordinator.leader import Leadership
from coordinator.reconciler import Reconciler
from coordinator.status import StatusReader
from coordinator.watch import Watch
from warp.config import LostPosition, Settings, load
from warp.errors import (
    DestinationUnavailable,
    PositionLost,
    SourceRefused,
    SourceUnavailable,
)
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import ERRORS, LEDGER_WIPES, QUEUE_SIZE, SYNC_STATUS, Meters
from warp.model import Marker, Phase, UnitKind, WorkUnit
from warp.own_process import wait_until
from warp.retry import Backoff
from warp.testing.memory import MemoryDestination, MemorySource
from workers.worker import Pace, Worker


@dataclass
class Fleet:
    """A coordinator that the test drives round by round, and a worker where it wants one."""

    shop: Shop
    settings: Settings
    ledger: MemoryLeaseStore = field(default_factory=lambda: MemoryLeaseStore(lease_ttl=1.0))
    meters: Meters = field(default_factory=Meters)

    def __post_init__(self) -> None:
        self.leadership = Leadership(MemoryLeaseStore(lease_ttl=5.0), "c1")
        self.leadership.step()
        watch = Watch(self.meters, database="shop")
        self.reconciler = Reconciler(self.settings, self.shop, self.ledger, self.leadership, watch)

    def rounds(self, count: int = 3) -> None:
        for _ in range(count):
            self.reconciler.round()

    def offered(self) -> set[str]:
        return {entry.unit.id for entry in self.ledger.units()}

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        pace = Pace(ttl=1.0, claim_every=0.02, backoff=Backoff(2, 2.0, 0.02, 0.05))
        worker = Worker(self.ledger, self.shop, self.meters, slots=4, pace=pace)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield worker
        finally:
            worker.drain()
            thread.join(timeout=10)

    def until(self, condition: Callable[[], bool]) -> None:
        def after_a_round() -> bool:
            self.reconciler.round()
            return condition()

        assert wait_until(after_a_round, 10.0)


def settings_of(*schemas: str) -> Settings:
    flags = {
        "source": "mongodb://localhost/shop",
        "destination": "postgresql://localhost/warehouse",
        "schema": schemas,
    }
    return load(None, {}, flags)


def fleet_of(shop: Shop, *schemas: str) -> Fleet:
    return Fleet(shop, settings_of(*schemas))


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def fleet(shop: Shop) -> Iterator[Fleet]:
    fleet = fleet_of(shop, "shop")
    yield fleet
    fleet.reconciler.close()


def test_a_shop_nobody_has_seen_arrives_whole(fleet: Fleet, shop: Shop) -> None:
    for number in range(50):
        shop.database.put(ORDERS, id=number, name=str(number))
    with fleet.worker():
        fleet.until(lambda: shop.phase(WorkUnit.of_table("shop", ORDERS)) is Phase.STREAMING)
        assert len(shop.names()) == 50
        shop.database.put(ORDERS, id=50, name="late")
        fleet.until(lambda: "late" in shop.names())


def test_the_streams_start_is_stored_before_any_chunk_is_cut(fleet: Fleet, shop: Shop) -> None:
    stored: list[bool] = []

    def made(source: MemorySource, schema: str) -> None:
        cut = source.chunks

        def chunks(*arguments: Any) -> Any:
            marker = shop.warehouse.markers.get(STREAM.id)
            stored.append(marker is not None and marker.position is not None)
            return cut(*arguments)

        source.chunks = chunks  # type: ignore[method-assign, assignment]

    shop.source_made = made
    fleet.rounds()
    assert stored == [True]


def test_rounds_without_news_change_nothing(fleet: Fleet, shop: Shop) -> None:
    fleet.rounds(5)
    before = dict(shop.warehouse.markers)
    offered = fleet.ledger.units()
    fleet.rounds(5)
    assert shop.warehouse.markers == before
    assert fleet.ledger.units() == offered


def test_two_coordinators_at_once_do_no_harm(fleet: Fleet, shop: Shop) -> None:
    other = fleet_of(shop, "shop")
    other.ledger = fleet.ledger
    other.__post_init__()
    for _ in range(3):
        fleet.reconciler.round()
        other.reconciler.round()
    other.reconciler.close()
    assert fleet.offered() == {"stream:shop", "chunk:shop:shop.orders:0:0"}


def test_a_wiped_ledger_is_filled_again(fleet: Fleet) -> None:
    fleet.rounds()
    before = fleet.offered()
    assert before
    assert isinstance(fleet.ledger, MemoryLeaseStore)
    fleet.ledger.wipe()
    fleet.reconciler.round()
    assert fleet.offered() == before
    assert fleet.meters.counter(LEDGER_WIPES, ())._value.get() == 1


def test_a_schema_whose_source_is_away_keeps_no_other_waiting(shop: Shop) -> None:
    def made(source: MemorySource, schema: str) -> None:
        if schema == "other":
            raise SourceUnavailable("no route to host")

    shop.source_made = made
    fleet = fleet_of(shop, "other", "shop")
    fleet.rounds()
    assert fleet.offered() == {"stream:shop", "chunk:shop:shop.orders:0:0"}
    labels = ("", "other", "*", "source_unavailable")
    assert fleet.meters.counter(ERRORS, labels)._value.get() == 1
    fleet.reconciler.close()


def test_a_schema_with_a_bug_is_tried_again_and_keeps_no_other_waiting(shop: Shop) -> None:
    broken = True

    def made(source: MemorySource, schema: str) -> None:
        if schema == "other" and broken:
            raise ZeroDivisionError

    shop.source_made = made
    fleet = fleet_of(shop, "other", "shop")
    fleet.rounds()
    assert "stream:shop" in fleet.offered()
    broken = False
    fleet.until(lambda: "stream:other" in fleet.offered())
    fleet.reconciler.close()


def test_a_leader_that_cannot_do_its_duties_makes_room(fleet: Fleet, shop: Shop) -> None:
    def made(destination: MemoryDestination) -> None:
        raise DestinationUnavailable("no route to host")

    shop.destination_made = made
    for _ in range(3):
        assert fleet.leadership.leading
        fleet.reconciler._guarded_round()
    assert not fleet.leadership.leading


def test_a_unit_that_failed_is_not_offered_until_a_person_brings_it_back(
    fleet: Fleet, shop: Shop
) -> None:
    fleet.rounds()
    shop.warehouse.markers[STREAM.id] = Marker(
        STREAM, position=shop.warehouse.markers[STREAM.id].position, phase=Phase.FAILED
    )
    fleet.reconciler.round()
    assert "stream:shop" not in fleet.offered()
    assert fleet.meters.gauge(SYNC_STATUS, ("shop", "shop", "*"))._value.get() == -1
    shop.bookkeeping().metadata().mark(STREAM.id, Phase.STREAMING)
    fleet.reconciler.round()
    assert "stream:shop" in fleet.offered()


def test_a_unit_nobody_can_run_is_given_up_for_a_person_to_see(fleet: Fleet, shop: Shop) -> None:
    fleet.rounds()
    for lease in fleet.ledger.claim("w", 9, ttl=1.0, slots=9):
        if lease.unit.kind is UnitKind.CHUNK:
            fleet.ledger.release(lease, dead=True)
    fleet.reconciler.round()
    assert shop.phase(WorkUnit.of_chunk("shop", chunk(shop), 0)) is Phase.FAILED
    assert shop.warehouse.errors[-1]["class"] == "GivenUp"


def chunk(shop: Shop) -> Any:
    return next(m.unit.chunk for m in shop.warehouse.markers.values() if m.unit.chunk)


def test_the_queue_is_shown_table_by_table(fleet: Fleet) -> None:
    fleet.rounds(4)  # a round shows what the one before it offered
    assert fleet.meters.gauge(QUEUE_SIZE, ("shop", "shop", "*"))._value.get() == 1
    assert fleet.meters.gauge(QUEUE_SIZE, ("shop", "shop", "orders"))._value.get() == 1


def test_status_says_caught_up_only_when_everything_has_arrived(fleet: Fleet, shop: Shop) -> None:
    reader = StatusReader(shop, fleet.ledger, ["shop"])
    shop.database.put(ORDERS, id=1, name="a")
    fleet.rounds()
    assert not reader.read()["caught_up"]
    with fleet.worker():
        fleet.until(lambda: bool(reader.read()["caught_up"]))
        status = reader.read()
        (stream,) = [u for u in status["units"] if u["kind"] == "stream"]
        assert (stream["phase"], stream["state"]) == ("streaming", "leased")
        assert stream["owner"]
        assert stream["lag_seconds"] == 0
    shop.database.put(ORDERS, id=2, name="b")
    assert not reader.read()["caught_up"]
    reader.close()


def lost(shop: Shop, *, code: str = PositionLost.code) -> None:
    """What a worker leaves behind that found a stream's place gone."""
    shop.start(STREAM)
    metadata = shop.bookkeeping().metadata()
    metadata.log_error(code=code, error_class="E", message="m", unit=STREAM.id)
    metadata.mark(STREAM.id, Phase.FAILED)


@pytest.mark.parametrize(
    ("chosen", "code", "asked"),
    [
        ("resync", PositionLost.code, [("resync", {"schema": "shop"})]),
        ("recover", PositionLost.code, [("recover", {"schema": "shop"})]),
        ("stop", PositionLost.code, []),
        ("resync", SourceRefused.code, []),
    ],
)
def test_a_lost_place_is_mended_by_itself_where_that_is_configured(
    shop: Shop, fleet: Fleet, chosen: str, code: str, asked: list[Any]
) -> None:
    wish = replace(fleet.settings.errors, on_lost_position=LostPosition(chosen))
    fleet.settings = replace(fleet.settings, errors=wish)
    fleet.reconciler.close()
    fleet.__post_init__()
    lost(shop, code=code)
    fleet.rounds(3)
    assert [(n, a) for _, n, a in shop.bookkeeping().metadata().open_errands()] == asked
