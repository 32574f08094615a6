"""What the coordinator shows of tables and streams that no worker measures."""

from __future__ import annotations

from coordinator.watch import SILENT_AFTER, Readings, Watch, readings
from warp import metrics
from warp.metrics import Meters, Status
from warp.model import LeasedUnit, Marker, Phase, Position, TableId, WorkUnit

NOW = 1_700_000_000.0
ORDERS = TableId("shop", "orders")
STREAM = WorkUnit.stream("web")
TABLE_LABELS, STREAM_LABELS = ("shop", "web", "orders"), ("shop", "web", "*")
TABLE = Marker(WorkUnit.of_table("web", ORDERS), phase=Phase.STREAMING)
HELD = [LeasedUnit(STREAM, "leased", owner="w1")]
DUE = [LeasedUnit(STREAM, "due")]


def stream(*, committed_at: float = NOW, updated_at: float = NOW) -> Marker:
    position = Position("p", committed_at)
    return Marker(STREAM, position=position, phase=Phase.STREAMING, updated_at=updated_at)


def seen(ledger: list[LeasedUnit], *markers: Marker, reached: bool) -> Readings:
    return readings(markers, ledger, database="shop", reached={"web": reached}, now=NOW)


def test_a_table_at_rest_has_a_lag_of_zero_while_its_stream_stands_at_the_logs_end() -> None:
    assert seen(HELD, stream(), TABLE, reached=True).lag == {TABLE_LABELS: 0.0}


def test_what_a_worker_measures_the_coordinator_does_not_guess() -> None:
    assert seen(HELD, stream(committed_at=NOW - 60), TABLE, reached=False).lag == {}


def test_the_lag_of_a_stream_that_nobody_holds_grows_with_the_clock() -> None:
    found = seen(DUE, stream(committed_at=NOW - 60, updated_at=NOW - 60), TABLE, reached=False)

    assert found.lag == {STREAM_LABELS: 60.0}
    assert found.status == {STREAM_LABELS: Status.INACTIVE, TABLE_LABELS: Status.INACTIVE}


def test_a_stream_that_is_held_and_stands_still_is_shown_as_late() -> None:
    silent = NOW - SILENT_AFTER - 1

    found = seen(HELD, stream(committed_at=silent, updated_at=silent), reached=False)

    assert found.lag == {STREAM_LABELS: SILENT_AFTER + 1}


def test_a_table_that_is_polled_is_nobodys_before_its_time() -> None:
    poll = Marker(WorkUnit.poll("web", ORDERS), phase=Phase.IDLE)
    later = [LeasedUnit(poll.unit, "later")]

    found = seen(later, poll, TABLE, reached=True)

    assert found.lag == {}
    assert found.status == {TABLE_LABELS: Status.INACTIVE}
    assert found.queue == {TABLE_LABELS: 0.0}


def test_takeovers_are_shown_from_zero_so_that_the_first_is_an_increase() -> None:
    meters = Meters("shop")
    watch = Watch(meters, database="shop")

    def taken() -> float | None:
        return meters.registry.get_sample_value(metrics.TAKEOVERS, {"schema": "web"})

    watch.observe([], HELD, reached={}, now=NOW)
    assert taken() == 0
    watch.observe([], [LeasedUnit(STREAM, "leased", owner="w2", tries=1)], reached={}, now=NOW)
    assert taken() == 1
    watch.observe([], [LeasedUnit(STREAM, "leased", owner="w3", tries=1)], reached={}, now=NOW)
    assert taken() == 1  # handed over


def test_a_stream_of_several_schemas_is_a_series_of_its_own() -> None:
    shared = WorkUnit.stream("*")
    marker = Marker(shared, position=Position("p", NOW - 9), phase=Phase.STREAMING)

    found = readings(
        [marker, TABLE],
        [LeasedUnit(shared, "leased", owner="w1")],
        database="shop",
        reached={"*": True, "web": True},
        now=NOW,
    )

    assert found.status["shop", "*", "*"] is Status.ACTIVE
    assert found.lag[TABLE_LABELS] == 0.0
