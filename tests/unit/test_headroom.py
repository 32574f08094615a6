"""How much of its log a source still keeps behind a stream, told before it is too late."""

from __future__ import annotations

import dataclasses
import json

import pytest
from memory_shop import ORDERS, STREAM, Shop
from rich.table import Table
from structlog.testing import capture_logs
from test_reconciler import fleet_of

from commands import doctor
from coordinator import reconciler
from coordinator.status import StatusReader
from dashboards import plain
from warp import headroom, metrics
from warp.config import load
from warp.headroom import State, state_of
from warp.model import Headroom, Phase, Position
from warp.sources.mongodb import look as mongodb
from warp.sources.postgresql.slots import SlotState
from warp.sources.postgresql.slots import headroom as of_slot

DAY = 86_400.0
SLOT = SlotState("pgoutput", "shop", None, "extended", "", 100, 750, 250)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Headroom("", 1.0), State.OK),
        (Headroom("", 0.26, seconds=DAY), State.OK),
        (Headroom("", 0.24, seconds=DAY), State.LOW),
        (Headroom("", 1.0, seconds=3000.0), State.LOW),
        (Headroom("", 0.0, lost=True), State.LOST),
        (Headroom("it may not be read"), State.UNKNOWN),
    ],
)
def test_little_of_it_or_little_time_is_low(found: Headroom, state: State) -> None:
    assert state_of(found) is state


def test_a_full_oplog_forgets_as_much_time_as_it_gains() -> None:
    found = mongodb.headroom(1_000.0, (400.0, 1_600.0), 1.0, megabytes=990)
    assert (found.seconds, found.ratio, found.window, found.lost) == (600.0, 0.5, 1_200.0, False)
    assert "replSetResizeOplog" in found.mend


def test_an_oplog_with_room_forgets_nothing_until_it_is_full() -> None:
    found = mongodb.headroom(400.0, (400.0, 1_600.0), 0.01)
    assert found.seconds == pytest.approx(118_800.0)
    assert state_of(found) is State.OK
    assert state_of(mongodb.headroom(400.0, (400.0, 400.0), 0.0)) is State.OK  # just begun


def test_an_oplog_that_begins_after_the_marker_has_lost_it() -> None:
    found = mongodb.headroom(399.0, (400.0, 1_600.0), 1.0)
    assert state_of(found) is State.LOST
    assert found.told == "the oplog begins 1 s after the marker"


def test_an_oplog_that_may_not_be_read_tells_nothing() -> None:
    assert state_of(mongodb.headroom(1.0, None, None)) is State.UNKNOWN


def test_a_slot_tells_bytes() -> None:
    found = of_slot("warp", SLOT, 100)
    assert (found.bytes, found.ratio, found.retained, found.seconds) == (750, 0.75, 250, None)
    unlimited = of_slot("warp", dataclasses.replace(SLOT, safe_bytes=None), 100)
    assert (unlimited.bytes, unlimited.ratio, unlimited.retained) == (None, 1.0, 250)


def test_a_slot_that_is_dropped_for_idleness_tells_seconds() -> None:
    idle = dataclasses.replace(SLOT, idle_for=DAY - 600, idle_at_most=DAY)
    found = of_slot("warp", idle, 100)
    assert found.seconds == pytest.approx(600)
    assert state_of(found) is State.LOW
    assert of_slot("warp", dataclasses.replace(idle, active_pid=7), 100).seconds is None


def test_a_slot_that_is_gone_lost_or_moved_on_has_lost_the_marker() -> None:
    for state in (
        None,
        dataclasses.replace(SLOT, wal_status="lost", reason="wal_removed"),
        dataclasses.replace(SLOT, confirmed=101),
    ):
        assert state_of(of_slot("warp", state, 100)) is State.LOST
    # A marker read before the stream went on is the older of the two, and nothing is lost.
    running = dataclasses.replace(SLOT, confirmed=101, active_pid=7)
    assert state_of(of_slot("warp", running, 100)) is State.OK


def test_it_is_short_in_a_column() -> None:
    def shown(**found: float) -> str:
        return headroom.short(Headroom("", **found))  # type: ignore[arg-type]

    assert shown(ratio=1.0) == "100%"
    assert shown(ratio=0.5, seconds=7 * DAY) == "7 d"
    assert shown(ratio=0.5, seconds=90.0) == "90 s"
    assert shown(ratio=0.5, bytes=1_500_000) == "2 MB"
    assert shown(ratio=0.0, lost=True) == "lost"
    assert shown() == "unknown"


def _started() -> Shop:
    shop = Shop()
    shop.start(STREAM)
    return shop


def _stop_and_forget(shop: Shop) -> None:
    """The stream stands still while the source goes on and forgets what it has said."""
    shop.database.put(ORDERS, id=1, name="unseen")
    shop.database.forget()
    shop.database.put(ORDERS, id=2, name="seen")


def test_the_coordinator_shows_it_and_says_once_that_a_place_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler, "HEADROOM_EVERY", 0.0)
    shop = _started()
    fleet = fleet_of(shop, "shop")

    def shown(name: str) -> float | None:
        labels = {"database": "shop", "schema": "shop"}
        return fleet.meters.registry.get_sample_value(name, labels)

    with capture_logs() as lines:
        fleet.rounds()
        assert (shown(metrics.HEADROOM_RATIO), shown(metrics.RETENTION)) == (1.0, 60.0)
        assert shown(metrics.HEADROOM_BYTES) is None
        _stop_and_forget(shop)
        fleet.rounds()
    assert shown(metrics.HEADROOM_RATIO) == 0.0
    assert [line["unit"] for line in lines if line["event"] == "place_in_log_lost"] == [STREAM.id]
    fleet.leadership.give_up()
    fleet.reconciler._watch.rest()
    gone = shown(metrics.HEADROOM_RATIO)
    assert gone is None or gone != gone
    fleet.reconciler.close()


def test_status_has_it_of_streams() -> None:
    shop = _started()
    fleet = fleet_of(shop, "shop")
    fleet.rounds()
    _stop_and_forget(shop)
    reader = StatusReader(shop, fleet.ledger, ["shop"])
    told = reader.read()
    found = {unit["id"]: unit["headroom"] for unit in told["units"]}
    assert found[STREAM.id]["state"] == "lost"
    assert {v for id, v in found.items() if id != STREAM.id} == {None}
    shown = plain.of_fleet(reader.look()).renderables[0]
    assert isinstance(shown, Table)
    assert "log left" in [str(column.header) for column in shown.columns]
    reader.close()
    fleet.reconciler.close()


def test_doctor_finds_a_stream_whose_place_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    shop = _started()
    flags = {
        "source": "mongodb://localhost/shop",
        "destination": "postgresql://localhost/warehouse",
        "schema": ("shop",),
    }
    settings = load(None, {}, flags)
    assert doctor.run(settings, as_json=True, assembly=shop) == 0  # nothing has begun yet
    shop.warehouse.prepared = True
    assert doctor.run(settings, as_json=True, assembly=shop) == 0
    _stop_and_forget(shop)
    capsys.readouterr()
    assert doctor.run(settings, as_json=True, assembly=shop) == 1
    [found] = [
        f for f in json.loads(capsys.readouterr().out)["findings"] if f["code"] == headroom.CODE
    ]
    assert (found["verdict"], found["subject"], found["where"]) == ("failed", STREAM.id, "source")
    assert found["mend"] == "cartridge-warp resync shop"


def test_a_stream_that_has_failed_is_asked_about_all_the_same() -> None:
    shop = _started()
    marker = shop.warehouse.markers[STREAM.id]
    shop.warehouse.markers[STREAM.id] = dataclasses.replace(marker, phase=Phase.FAILED)
    _stop_and_forget(shop)
    source = shop.source("shop")
    found = headroom.ask(source, marker.position or Position("0"))
    assert found is not None
    assert found.lost
