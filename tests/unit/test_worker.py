"""One worker process with a ledger, a source and a destination in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from memory_shop import ORDERS, STREAM, Shop

from warp.errors import (
    FenceBehind,
    LedgerUnavailable,
    PositionLost,
    SourceRefused,
    SourceUnavailable,
)
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import FENCE_REJECTIONS, SYNC_STATUS, Meters
from warp.model import (
    Aside,
    Chunk,
    Marker,
    Operation,
    Phase,
    QuarantinedRow,
    SetAside,
    UnitKind,
    WorkUnit,
)
from warp.own_process import wait_until
from warp.retry import Backoff
from warp.right_of_way import RightOfWay
from warp.testing.memory import (
    MemoryDestination,
    MemorySource,
)
from workers.hold import Held
from workers.worker import Pace, Worker

PACE = Pace(
    ttl=1.0, claim_every=0.02, quantum=0.1, drain_limit=5.0, backoff=Backoff(2, 2.0, 0.02, 0.05)
)


@contextmanager
def working(
    shop: Shop, ledger: MemoryLeaseStore, *, slots: int = 4, meters: Meters | None = None
) -> Iterator[Worker]:
    worker = Worker(ledger, shop, meters or Meters(), slots=slots, pace=PACE)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.drain()
        thread.join(timeout=10)
        assert not thread.is_alive()


def eventually(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, 10.0)


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.start(STREAM)
    shop.start(WorkUnit.stream("other"))
    return shop


@pytest.fixture
def ledger() -> MemoryLeaseStore:
    return MemoryLeaseStore(lease_ttl=PACE.ttl)


def state_of(ledger: MemoryLeaseStore, unit: WorkUnit) -> str:
    return next((e.state for e in ledger.units() if e.unit.id == unit.id), "absent")


def test_a_claimed_stream_carries_rows_until_drained_and_is_handed_back(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    ledger.ensure([STREAM])
    with working(shop, ledger):
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        assert state_of(ledger, STREAM) == "leased"
    assert state_of(ledger, STREAM) == "due"
    (run,) = shop.warehouse.runs.values()
    assert (run["status"], run["rows"]) == ("stopped", 1)


def test_a_finished_chunk_leaves_the_ledger(shop: Shop, ledger: MemoryLeaseStore) -> None:
    shop.database.put(ORDERS, id=1, name="a")
    chunk = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
    ledger.ensure([chunk])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, chunk) == "absent")
    assert shop.phase(chunk) is Phase.DONE
    assert shop.names() == {"a"}


def test_streams_and_chunks_of_a_worker_know_of_each_other(
    shop: Shop, ledger: MemoryLeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stream tells of its batches is what chunks take their turns by."""
    told: list[RightOfWay] = []
    asked: list[RightOfWay] = []
    monkeypatch.setattr(RightOfWay, "delivered", lambda way, rows, seconds: told.append(way))
    next_turn = RightOfWay.next_turn

    def noted(way: RightOfWay) -> float:
        asked.append(way)
        return next_turn(way)

    monkeypatch.setattr(RightOfWay, "next_turn", noted)
    shop.database.put(ORDERS, id=1, name="a")
    chunk = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
    ledger.ensure([STREAM, chunk])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, chunk) == "absent")
        shop.database.put(ORDERS, id=2, name="b")
        eventually(lambda: shop.names() == {"a", "b"})
    assert asked
    assert told
    assert len({id(way) for way in (*asked, *told)}) == 1


def test_a_poll_is_done_until_it_is_offered_again(shop: Shop, ledger: MemoryLeaseStore) -> None:
    shop.database.put(ORDERS, id=1, name="a")
    poll = WorkUnit.poll("shop", ORDERS)
    ledger.ensure([poll])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, poll) == "absent")
    assert shop.phase(poll) is Phase.IDLE
    assert shop.names() == {"a"}


def test_a_replay_lands_what_was_marked_and_leaves_the_ledger(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    unit = WorkUnit.of_replay("shop", ORDERS)
    kinds = {"id": "int64", "name": "text"}
    row = QuarantinedRow(
        *(ORDERS, '{"id": 1}', Operation.CREATE, '{"id": 1, "name": "late"}', "too long", "22001"),
        version=1,
        kinds=kinds,
    )
    shop.warehouse.aside.append(SetAside(1, "shop", STREAM.id, row))
    assert shop.bookkeeping().metadata().replay("shop", ORDERS, [1]) == 1
    ledger.ensure([unit])
    meters = Meters()
    with working(shop, ledger, meters=meters):
        eventually(lambda: state_of(ledger, unit) == "absent")
    assert shop.names() == {"late"}
    assert shop.phase(unit) is Phase.IDLE
    assert [aside.state for aside in shop.warehouse.aside] == [Aside.REPLAYED]
    (run,) = shop.warehouse.runs.values()
    assert (run["status"], run["rows"]) == ("done", 1)


def test_rows_marked_while_their_unit_ends_are_landed_too(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    unit = WorkUnit.of_replay("shop", ORDERS)
    marked = False

    def made(destination: MemoryDestination) -> None:
        update = destination.update_marker

        def late(marker: Marker) -> None:
            nonlocal marked
            if not marked:
                marked = True
                kinds = {"id": "int64", "name": "text"}
                row = QuarantinedRow(
                    *(ORDERS, '{"id": 1}', Operation.CREATE, '{"id": 1}', "bad", "22001"),
                    version=1,
                    kinds=kinds,
                )
                shop.warehouse.aside.append(SetAside(1, "shop", STREAM.id, row))
                destination.metadata().replay("shop", ORDERS, [1])
            update(marker)

        destination.update_marker = late  # type: ignore[method-assign]

    shop.destination_made = made
    ledger.ensure([unit])
    with working(shop, ledger):
        eventually(lambda: [a.state for a in shop.warehouse.aside] == [Aside.REPLAYED])
        eventually(lambda: state_of(ledger, unit) == "absent")


def test_a_source_that_is_away_for_a_while_costs_neither_lease_nor_restart(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    away = True
    tries = 0

    def made(source: MemorySource, schema: str) -> None:
        nonlocal tries
        tries += 1
        if away:
            raise SourceUnavailable("no route to host")

    shop.source_made = made
    ledger.ensure([STREAM])
    with working(shop, ledger):
        eventually(lambda: tries >= 5)
        fence = next(e.fence for e in ledger.units())
        away = False
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        assert next(e.fence for e in ledger.units()) == fence
    waits = [e for e in shop.warehouse.errors if e["action"] == "waits and tries again"]
    assert len(waits) == 1  # told once per change of state, not once per try
    assert tries < 100  # never a hot loop


@pytest.mark.holds(guarantee=6, source="none", destination="pretended", fault="lost position")
def test_a_lost_position_stops_the_unit_for_a_person_and_no_other(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    def made(source: MemorySource, schema: str) -> None:
        if schema == "shop":

            def lost(*_: object, **__: object) -> Iterator[Any]:
                raise PositionLost("the log is gone")
                yield

            source.get_changes = lost  # type: ignore[method-assign]

    shop.source_made = made
    ledger.ensure([STREAM, WorkUnit.stream("other")])
    meters = Meters()
    with working(shop, ledger, meters=meters):
        eventually(lambda: state_of(ledger, STREAM) == "dead")
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        assert meters.gauge(SYNC_STATUS, ("", "shop", "*"))._value.get() == -1
    assert shop.phase(STREAM) is Phase.FAILED
    assert shop.warehouse.errors[0]["code"] == PositionLost.code


def test_a_refused_login_stops_the_unit_for_a_person(shop: Shop, ledger: MemoryLeaseStore) -> None:
    def made(source: MemorySource, schema: str) -> None:
        raise SourceRefused("wrong password")

    shop.source_made = made
    ledger.ensure([STREAM])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, STREAM) == "dead")
    assert shop.phase(STREAM) is Phase.FAILED


def test_a_unit_that_breaks_is_tried_again_and_the_others_run_on(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    broke = threading.Event()

    def made(source: MemorySource, schema: str) -> None:
        if schema == "shop":
            broke.set()
            raise ZeroDivisionError("a bug")

    shop.source_made = made
    ledger.ensure([STREAM, WorkUnit.stream("other")])
    with working(shop, ledger):
        assert broke.wait(10)
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        eventually(lambda: state_of(ledger, STREAM) == "later")
    assert shop.warehouse.errors[0]["class"] == "ZeroDivisionError"
    assert shop.phase(STREAM) is Phase.STREAMING


def test_a_fence_behind_the_destinations_is_raised_above_it(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    far_ahead = 2**52
    marker = shop.warehouse.markers[STREAM.id]
    shop.warehouse.markers[STREAM.id] = Marker(
        STREAM, fence=far_ahead, position=marker.position, phase=Phase.STREAMING
    )
    ledger.ensure([STREAM])
    with working(shop, ledger):
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
    assert shop.warehouse.markers[STREAM.id].fence > far_ahead


def test_a_refused_write_is_no_failure_and_the_unit_is_claimed_again(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    refused = 0

    def made(destination: MemoryDestination) -> None:
        nonlocal refused
        write = destination.write_batch

        def once(*arguments: Any, **named: Any) -> Any:
            nonlocal refused
            refused += 1
            if refused == 1:
                raise FenceBehind("a newer owner", found=1)
            return write(*arguments, **named)

        destination.write_batch = once  # type: ignore[method-assign]

    shop.destination_made = made
    ledger.ensure([STREAM])
    meters = Meters()
    with working(shop, ledger, meters=meters):
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        assert meters.counter(FENCE_REJECTIONS, ("shop",))._value.get() == 1
    assert shop.warehouse.errors == []


def test_a_wiped_ledger_ends_the_unit_and_it_goes_on_once_offered_again(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    ledger.ensure([STREAM])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, STREAM) == "leased")
        ledger.wipe()
        ledger.ensure([STREAM])
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})


def test_a_stopped_unit_that_is_still_in_the_ledger_is_put_down(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    shop.warehouse.markers[STREAM.id] = Marker(STREAM, phase=Phase.PAUSED)
    ledger.ensure([STREAM])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, STREAM) == "absent")
    assert shop.warehouse.runs == {}


def test_a_unit_paused_while_it_runs_stops(shop: Shop, ledger: MemoryLeaseStore) -> None:
    ledger.ensure([STREAM])
    with working(shop, ledger):
        shop.database.put(ORDERS, id=1, name="a")
        eventually(lambda: shop.names() == {"a"})
        shop.bookkeeping().metadata().mark(STREAM.id, Phase.PAUSED)
        shop.database.put(ORDERS, id=2, name="b")
        eventually(lambda: state_of(ledger, STREAM) == "absent")
    assert shop.phase(STREAM) is Phase.PAUSED
    assert shop.names() == {"a"}


def test_a_schema_configured_elsewhere_only_is_left_to_others(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    elsewhere = WorkUnit.stream("elsewhere")
    ledger.ensure([elsewhere])
    with working(shop, ledger):
        eventually(lambda: state_of(ledger, elsewhere) == "later")
    assert shop.warehouse.errors == []


def test_no_more_units_are_claimed_than_there_are_slots(
    shop: Shop, ledger: MemoryLeaseStore
) -> None:
    units = [WorkUnit(f"stream:other:{n}", UnitKind.STREAM, "other") for n in range(3)]
    for unit in units:
        shop.start(unit)
    ledger.ensure(units)
    with working(shop, ledger, slots=2) as worker:
        eventually(lambda: len(worker.holds) == 2)
        # All three get their turn, because the ledger asks for one back after its quantum.
        owned: set[str] = set()

        def all_served() -> bool:
            owned.update(e.unit.id for e in ledger.units() if e.state == "leased")
            return len(owned) == 3

        eventually(all_served)
        assert len(worker.holds) <= 2


def statuses(shop: Shop) -> set[str]:
    return {str(run["status"]) for run in list(shop.warehouse.runs.values())}


class Deaf(MemoryLeaseStore):
    """Hands out a lease, and then is never reached again."""

    def renew(self, worker: str, leases: Any, *, ttl: float, slots: int, memory: int = 0) -> Any:
        raise LedgerUnavailable("gone")


def test_a_worker_cut_off_from_the_ledger_writes_nothing_after_its_deadline(shop: Shop) -> None:
    deaf = Deaf(lease_ttl=PACE.ttl)
    deaf.ensure([STREAM])
    with working(shop, deaf) as worker:
        eventually(lambda: len(worker.holds) == 1)
        # Not that it holds nothing: it may have claimed the unit again before anybody looks.
        eventually(lambda: "lost" in statuses(shop))


def test_without_the_deadline_a_worker_cut_off_from_the_ledger_would_write_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test before, with the guarded line removed."""
    monkeypatch.setattr(Held, "check", lambda self: None)
    deaf = Deaf(lease_ttl=PACE.ttl)
    deaf.ensure([STREAM])
    with working(shop, deaf) as worker:
        eventually(lambda: len(worker.holds) == 1)
        (held,) = worker.holds.all()
        eventually(lambda: not held.alive())
        shop.database.put(ORDERS, id=1, name="too late")
        eventually(lambda: shop.names() == {"too late"})
