"""`error_handling` from end to end on a clock of the test: what waits how long, and what stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from memory_shop import ORDERS, STREAM, Shop

from warp import logs
from warp.config import load
from warp.errors import DestinationUnavailable, LedgerUnavailable, SourceUnavailable
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import Meters
from warp.model import Lease, Phase
from warp.retry import Backoff
from warp.testing.fake_redis import FakeTime
from warp.testing.memory import MemorySource
from workers.cli import pace_of
from workers.hold import Held
from workers.worker import Pace, Turn, Worker

TTL = 10.0


class Delays(MemoryLeaseStore):
    """A ledger that remembers how long each failed unit is to wait."""

    def __init__(self, clock: FakeTime) -> None:
        super().__init__(clock=clock.time)
        self.waits: list[float | None] = []

    def release(
        self, lease: Lease, *, delay: float | None = 0.0, failed: bool = False, dead: bool = False
    ) -> bool:
        if failed:
            self.waits.append(delay)
        return super().release(lease, delay=delay, failed=failed, dead=dead)


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def ledger(clock: FakeTime) -> Delays:
    ledger = Delays(clock)
    ledger.ensure([STREAM])
    return ledger


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.start(STREAM)
    return shop


def breaks(shop: Shop, error: Callable[[], Exception] = lambda: ZeroDivisionError("a bug")) -> None:
    def made(source: MemorySource, schema: str) -> None:
        raise error()

    shop.source_made = made


def worker_of(shop: Shop, ledger: Delays, clock: FakeTime, backoff: Backoff) -> Worker:
    pace = Pace(ttl=TTL, backoff=backoff)
    return Worker(ledger, shop, Meters(), slots=1, pace=pace, id="w", clock=clock.time)


def turn(worker: Worker, ledger: Delays, clock: FakeTime) -> bool:
    """Claim the stream and run it to the end of its turn; False where it is not ready."""
    for lease in ledger.claim("w", 1, ttl=TTL, slots=1):
        held = Held(lease, ttl=TTL, asked_at=clock.time(), clock=clock.time)
        worker.holds.add(held)
        worker._slot(held)
        return True
    return False


def state(ledger: Delays) -> str:
    return ledger.units()[0].state


def test_three_retries_with_factor_two_come_after_one_two_and_four_seconds(
    shop: Shop, ledger: Delays, clock: FakeTime
) -> None:
    breaks(shop)
    worker = worker_of(shop, ledger, clock, Backoff(max_retries=3, factor=2.0, jitter=0.0))
    assert turn(worker, ledger, clock)
    for wait in (1.0, 2.0, 4.0):
        assert state(ledger) == "later"
        clock.pass_time(wait - 0.01)
        assert not turn(worker, ledger, clock), f"ready before {wait} s"
        clock.pass_time(0.02)
        assert turn(worker, ledger, clock), f"not ready after {wait} s"
    assert state(ledger) == "dead"
    assert shop.phase(STREAM) is Phase.FAILED
    clock.pass_time(3600)
    assert not turn(worker, ledger, clock)
    assert [error["action"] for error in shop.warehouse.errors] == [
        "tried again after 1.0 s; failure 1 in a row",
        "tried again after 2.0 s; failure 2 in a row",
        "tried again after 4.0 s; failure 3 in a row",
        "unit stopped until a person acts",
    ]
    assert {run["status"] for run in shop.warehouse.runs.values()} <= {"failed"}


@pytest.mark.parametrize("masks", [True, False])
def test_what_a_bug_says_is_kept_without_the_passwords_of_this_process(
    shop: Shop,
    ledger: Delays,
    clock: FakeTime,
    monkeypatch: pytest.MonkeyPatch,
    masks: bool,
) -> None:
    """Guarantee 10; without the masking, which is the broken twin, they would be in both tables."""
    told = "no answer from mongodb://reader:hunter2-geheim@db/shop to hunter3-geheim"
    known = logs.Redaction(["hunter3-geheim"])
    monkeypatch.setattr(logs, "masked", known.text if masks else str)

    def breaks(*_: object, **__: object) -> None:
        raise ValueError(told)

    monkeypatch.setattr(MemorySource, "get_changes", breaks)
    worker = worker_of(shop, ledger, clock, Backoff(max_retries=0))
    assert turn(worker, ledger, clock)

    (error,) = shop.warehouse.errors
    (run,) = shop.warehouse.runs.values()
    for kept in (error["message"], run["error"]):
        assert "no answer from" in kept
        assert ("geheim" in kept) != masks


def test_each_wait_is_shortened_by_chance_within_its_bounds(
    shop: Shop, ledger: Delays, clock: FakeTime
) -> None:
    breaks(shop)
    met: list[set[float]] = [set(), set(), set()]
    for _ in range(12):
        worker = worker_of(shop, ledger, clock, Backoff(max_retries=3, factor=2.0, jitter=0.5))
        ledger.waits.clear()
        for _ in range(3):
            assert turn(worker, ledger, clock)
            clock.pass_time(5)
        for waits, wait in zip(met, ledger.waits, strict=True):
            assert wait is not None
            waits.add(wait)
        shop.start(STREAM)
        ledger.wipe()
        ledger.ensure([STREAM])
    for waits, longest in zip(met, (1.0, 2.0, 4.0), strict=True):
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(waits) > 9  # units that failed together do not come back together


def test_no_wait_is_longer_than_the_longest_of_the_configuration(
    shop: Shop, ledger: Delays, clock: FakeTime
) -> None:
    breaks(shop)
    backoff = Backoff(max_retries=6, factor=10.0, base=0.5, cap=20.0, jitter=0.0)
    worker = worker_of(shop, ledger, clock, backoff)
    for _ in range(6):
        assert turn(worker, ledger, clock)
        clock.pass_time(20.01)
    assert ledger.waits == [0.5, 5.0, 20.0, 20.0, 20.0, 20.0]


def test_one_row_that_gets_through_forgets_the_failures_before_it(
    shop: Shop, ledger: Delays, clock: FakeTime
) -> None:
    worker = worker_of(shop, ledger, clock, Backoff(max_retries=3, jitter=0.0))
    breaks(shop)
    for wait in (1.0, 2.0):
        assert turn(worker, ledger, clock)
        clock.pass_time(wait + 0.01)
    shop.database.put(ORDERS, id=1, name="a")

    def one_row_then_trouble(source: MemorySource, schema: str) -> None:
        changes = source.get_changes

        def broken(*arguments: Any, **named: Any) -> Any:
            yield next(changes(*arguments, **named))
            raise ZeroDivisionError("a bug")

        source.get_changes = broken  # type: ignore[method-assign]

    shop.source_made = one_row_then_trouble
    assert turn(worker, ledger, clock)
    assert shop.names() == {"a"}
    assert ledger.waits == [1.0, 2.0, 1.0]


class Patient(Held):
    """Waits on the clock of the test, and is handed back after a number of waits."""

    def __init__(self, lease: Lease, clock: FakeTime, most: int) -> None:
        super().__init__(lease, ttl=TTL, asked_at=clock.time(), clock=clock.time)
        self.time = clock
        self.most = most
        self.waited: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.time.pass_time(seconds)
        self.renewed(self.time.time())
        if len(self.waited) == self.most:
            self.ask_back()


@pytest.mark.parametrize("error", [SourceUnavailable, DestinationUnavailable, LedgerUnavailable])
def test_what_waiting_mends_is_tried_for_as_long_as_it_takes(
    shop: Shop, ledger: Delays, clock: FakeTime, error: type[Exception]
) -> None:
    breaks(shop, lambda: error("away"))
    backoff = Backoff(max_retries=3, factor=2.0, base=1.0, cap=60.0, jitter=0.5)
    [lease] = ledger.claim("w", 1, ttl=TTL, slots=1)
    held = Patient(lease, clock, most=50)
    pace, probe = Pace(ttl=TTL, backoff=backoff), Meters()
    failures: dict[str, int] = {}
    turn = Turn(ledger, shop, probe, held, pace, failures, clock.time)
    outcome = turn.play(lambda unit: None)
    assert (outcome.status, outcome.failed, outcome.dead) == ("stopped", False, False)
    assert failures == {}  # it does not count against max_retries
    assert len(held.waited) == 50
    for attempt, wait in enumerate(held.waited):
        longest = min(60.0, 2.0**attempt)
        assert longest / 2 <= wait <= longest
    assert shop.phase(STREAM) is Phase.STREAMING


def test_the_seeds_error_handling_is_what_a_worker_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARTRIDGE_WARP_CONFIG", raising=False)
    settings = load(
        None,
        {},
        {
            "source": "mongodb://localhost:27017/shop",
            "destination": "postgresql://localhost:5432/warehouse",
            "schema": ("shop",),
        },
    )
    backoff = pace_of(settings).backoff
    assert (backoff.max_retries, backoff.factor) == (3, 2.0)
    waits = [backoff.longest(attempt) for attempt in range(3)]
    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [("postgresql://localhost:5432/warehouse", 60.0), ("bigquery://warehouse", 600.0)],
)
def test_a_unit_is_taken_for_stuck_once_no_healthy_write_could_take_so_long(
    destination: str, expected: float
) -> None:
    flags = {"source": "mongodb://localhost:27017/shop", "schema": ("shop",)}
    settings = load(None, {}, {**flags, "destination": destination})
    assert pace_of(settings).stall_after == expected
    said = {"CARTRIDGE_WARP_COORDINATION__STALL_AFTER": "30s"}
    assert pace_of(load(None, said, {**flags, "destination": destination})).stall_after == 30.0
