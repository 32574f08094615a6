"""One log, one follower: schemas of a source that is dear to follow twice share a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from memory_shop import ORDERS, Shop
from test_reconciler import Fleet, fleet_of

from coordinator.planner import Ensure, Follow, MarkersOf, SchemaView, StartStream, by_schema, plan
from coordinator.status import StatusReader
from warp.errors import PositionLost
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import RECORDS_PROCESSED, SYNC_STATUS
from warp.model import (
    SHARED,
    ChangeBatch,
    Column,
    Kind,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    SnapshotMode,
    TableId,
    TableSchema,
    TableSettings,
    UnitKind,
    WorkUnit,
)
from warp.retry import Backoff
from warp.streams import Followed, Together, left_behind, stream_of
from warp.testing.memory import MemoryMetadata, MemoryOneLog, MemorySource
from workers import worker as workers_worker
from workers.errands import Desk, pause, resume, resync
from workers.worker import Outcome, Pace, Turn, Worker

USERS = TableId("crm", "users")
STREAM = WorkUnit.stream(SHARED)
BOTH = {"shop": (ORDERS,), "crm": (USERS,)}


def users_too(shop: Shop) -> Shop:
    columns = (Column("id", Kind.INT64), Column("name", Kind.TEXT))
    shop.database.create(TableSchema(USERS, columns, ("id",)))
    return shop


@pytest.fixture
def shop() -> Shop:
    return users_too(Shop(schemas=("shop", "crm"), source_class=MemoryOneLog, tables=BOTH))


@pytest.fixture
def fleet(shop: Shop) -> Iterator[Fleet]:
    fleet = fleet_of(shop, "shop", "crm")
    yield fleet
    fleet.reconciler.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_worker, "NOT_FOR_US", Outcome("stopped", delay=0.2))


def narrowed(shop: Shop, *schemas: str) -> Shop:
    """The same database and warehouse under an older or narrower configuration."""
    tables = {name: BOTH[name] for name in schemas}
    return replace_shop(shop, schemas=schemas, tables=tables)


def replace_shop(shop: Shop, **changes: Any) -> Shop:
    other = Shop(source_class=shop.source_class, **changes)
    other.database, other.warehouse = shop.database, shop.warehouse
    return other


@contextmanager
def working(shop: Shop, fleet: Fleet) -> Iterator[None]:
    """A worker with the configuration of this shop, at the ledger of the fleet."""
    pace = Pace(ttl=1.0, claim_every=0.01, backoff=Backoff(2, 2.0, 0.02, 0.05))
    worker = Worker(fleet.ledger, shop, fleet.meters, slots=4, pace=pace)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.drain()
        thread.join(timeout=10)


def names(shop: Shop, table: TableId) -> set[Any]:
    return {row["name"] for row in shop.warehouse.rows(table)}


def settled(shop: Shop, *tables: tuple[str, TableId]) -> bool:
    return all(
        shop.phase(WorkUnit.of_table(schema, table)) is Phase.STREAMING for schema, table in tables
    )


ALL = (("shop", ORDERS), ("crm", USERS))


# ---------------------------------------------------------------- running


def test_schemas_of_one_log_share_one_stream_that_carries_all_their_tables(
    fleet: Fleet, shop: Shop
) -> None:
    shop.database.put(ORDERS, id=1, name="first order")
    shop.database.put(USERS, id=1, name="first user")
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL))
        shop.database.put(ORDERS, id=2, name="order")
        shop.database.put(USERS, id=2, name="user")
        fleet.until(lambda: "user" in names(shop, USERS) and "order" in names(shop, ORDERS))
    streams = [m.unit for m in shop.warehouse.markers.values() if m.unit.kind is UnitKind.STREAM]
    assert streams == [STREAM]
    assert {m.unit.schema for m in shop.warehouse.markers.values()} == {SHARED, "shop", "crm"}
    labels = [("shop", "shop", "orders", "create"), ("crm", "crm", "users", "create")]
    assert [fleet.meters.counter(RECORDS_PROCESSED, of)._value.get() for of in labels] == [1, 1]


def test_a_source_that_is_cheap_to_follow_twice_has_a_stream_for_each_schema(shop: Shop) -> None:
    shop.source_class = MemorySource
    fleet = fleet_of(shop, "shop", "crm")
    fleet.rounds()
    assert {"stream:shop", "stream:crm"} <= fleet.offered()
    fleet.reconciler.close()


def test_no_table_is_cut_into_chunks_before_the_shared_stream_has_its_start(
    fleet: Fleet, shop: Shop
) -> None:
    stored: list[bool] = []

    def made(source: MemorySource, schema: str) -> None:
        cut = source.chunks

        def chunks(*arguments: Any) -> Any:
            stored.append(shop.warehouse.markers[STREAM.id].position is not None)
            return cut(*arguments)

        source.chunks = chunks  # type: ignore[method-assign, assignment]

    shop.source_made = made
    fleet.rounds()
    assert stored == [True, True]


def test_a_serial_snapshot_of_one_schema_keeps_the_shared_stream_waiting(
    fleet: Fleet, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = shop.selection

    def serial(schema: str) -> Any:
        def settings(table: TableId) -> TableSettings | None:
            found = chosen(schema)(table)
            late = found is not None and table == USERS
            return replace(found, snapshot=SnapshotMode.SERIAL) if found and late else found

        return settings

    monkeypatch.setattr(shop, "selection", serial)
    fleet.rounds(4)
    assert STREAM.id not in fleet.offered()
    with fleet.worker():
        fleet.until(lambda: STREAM.id in fleet.offered())
    assert settled(shop, ("crm", USERS))


def test_the_status_shows_the_shared_stream_with_all_its_tables(fleet: Fleet, shop: Shop) -> None:
    reader = StatusReader(shop, fleet.ledger, ["shop", "crm"])
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL) and bool(reader.read()["caught_up"]))
        (stream,) = [u for u in reader.read()["units"] if u["kind"] == "stream"]
        assert (stream["id"], stream["schema"], stream["state"]) == (STREAM.id, SHARED, "leased")
        assert stream["tables"] == ["crm.users", "shop.orders"]
        assert stream["lag_seconds"] == 0
        fleet.reconciler.round()
        labels = ("crm", "crm", "users")
        assert fleet.meters.gauge(SYNC_STATUS, labels)._value.get() == 1
    shop.database.put(USERS, id=2, name="b")
    assert not reader.read()["caught_up"]
    reader.close()


def test_a_row_set_aside_by_the_shared_stream_is_of_its_tables_schema(shop: Shop) -> None:
    destination = shop.destination(SHARED)
    row = QuarantinedRow(USERS, '{"id": 1}', Operation.CREATE, "{}", "too long", "22001")
    marker = destination.open(Lease(STREAM, "w", 1))
    batch = ChangeBatch([], Position("1"))
    destination.write_batch(batch, marker.advanced(batch), quarantined=[row])
    assert [(a.schema, a.unit) for a in shop.warehouse.aside] == [("crm", STREAM.id)]


# ---------------------------------------------------------------- another configuration


def added_while_an_old_worker_streams(shop: Shop) -> tuple[Shop, Fleet]:
    """`crm` was added; a coordinator knows of it, and only a worker that does not is at work."""
    old = narrowed(shop, "shop")
    before = fleet_of(old, "shop")
    fleet = fleet_of(shop, "shop", "crm")
    fleet.ledger = before.ledger
    fleet.__post_init__()
    with working(old, before):
        before.until(lambda: settled(shop, ("shop", ORDERS)))
        before.reconciler.close()
        fleet.until(lambda: any("crm" in id for id in fleet.offered()))
        # From here on a chunk may be read, and later changes must come by the stream.
        shop.database.put(USERS, id=9, name="while the old worker streams")
        shop.database.put(ORDERS, id=9, name="beside it")
        passed = shop.database.version

        def is_past() -> bool:
            position = shop.warehouse.markers[STREAM.id].position
            return position is not None and int(position.token) >= passed

        fleet.until(lambda: is_past() or is_held_back(fleet))
        assert not is_past(), "the stream has passed by a change of the table"
    return old, fleet


def is_held_back(fleet: Fleet) -> bool:
    """Was the stream given back by a worker that must not run it?"""
    return any(e.unit == STREAM and e.state == "later" for e in fleet.ledger.units())


def test_a_schema_that_was_added_loses_no_change_to_a_worker_that_does_not_know_it(
    shop: Shop,
) -> None:
    """Guarantee 4."""
    old, fleet = added_while_an_old_worker_streams(shop)
    with working(shop, fleet), working(old, fleet):
        fleet.until(lambda: settled(shop, *ALL))
        shop.database.put(USERS, id=10, name="later")
        fleet.until(lambda: "later" in names(shop, USERS))
    assert names(shop, USERS) == {"while the old worker streams", "later"}
    assert names(shop, ORDERS) == {"beside it"}
    fleet.reconciler.close()


def test_a_worker_that_asks_not_what_the_stream_carries_would_lose_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin."""
    monkeypatch.setattr(Turn, "_is_for_us", lambda turn, marker: True)
    with pytest.raises(AssertionError, match="passed by a change"):
        added_while_an_old_worker_streams(shop)


def test_without_a_new_fence_the_old_worker_would_not_even_be_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other broken twin: what the stream carries is said, and its worker not shut out."""

    def follow(metadata: MemoryMetadata, stream: WorkUnit, follows: str, **_: Any) -> bool:
        marker = metadata.warehouse.markers[stream.id]
        metadata.warehouse.markers[stream.id] = replace(marker, follows=follows)
        return marker.follows != follows

    monkeypatch.setattr(MemoryMetadata, "follow", follow)
    with pytest.raises(AssertionError, match="passed by a change"):
        added_while_an_old_worker_streams(shop)


def test_a_schema_that_was_left_out_for_a_while_is_read_anew_when_it_comes_back(
    fleet: Fleet, shop: Shop
) -> None:
    """Guarantee 4: the stream went on without it."""
    for id in (1, 2):
        shop.database.put(USERS, id=id, name=f"user {id}")
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL))
    only = narrowed(shop, "shop")
    without = fleet_of(only, "shop")
    without.ledger = fleet.ledger
    without.__post_init__()
    with working(only, without):
        without.until(lambda: shop.phase(WorkUnit.of_table("crm", USERS)) is Phase.PLANNED)
        shop.database.put(USERS, id=3, name="meanwhile")
        shop.database.delete(USERS, id=1)
        shop.database.put(ORDERS, id=1, name="order")
        without.until(lambda: names(shop, ORDERS) == {"order"})
    without.reconciler.close()
    assert names(shop, USERS) == {"user 1", "user 2"}
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL) and "meanwhile" in names(shop, USERS))
    assert names(shop, USERS) == {"user 2", "meanwhile"}


def test_a_table_that_is_not_selected_any_more_keeps_its_rows_and_holds_up_nothing() -> None:
    table = WorkUnit.of_table("shop", ORDERS)
    stream = Marker(WorkUnit.stream("shop"), position=Position("1"), phase=Phase.STREAMING)
    markers = by_schema([stream, Marker(table, phase=Phase.PLANNED)])["shop"]
    view = SchemaView("shop", (), left_out=frozenset([ORDERS]))
    assert plan(view, markers, {}, delay=lambda *_: 0.0, revived={}) == [Ensure((stream.unit,))]


def test_a_stream_that_carries_other_tables_than_configured_is_changed_before_anything_else() -> (
    None
):
    stream = Marker(STREAM, position=Position("1"), phase=Phase.STREAMING, follows="old")
    of = MarkersOf(stream=stream)
    view = SchemaView("shop", (), stream=STREAM, follows="new")
    assert plan(view, of, {}, delay=lambda *_: 0.0, revived={}) == [Follow(STREAM, "new")]
    found = plan(view, MarkersOf(), {}, delay=lambda *_: 0.0, revived={})
    assert found == [StartStream(STREAM, "new")]


def test_only_tables_that_the_stream_carried_are_left_behind() -> None:
    gone, polled, other = (TableId("x", name) for name in ("gone", "polled", "other"))
    markers = [
        Marker(WorkUnit.of_table("shop", ORDERS), phase=Phase.STREAMING),
        Marker(WorkUnit.of_table("shop", gone), phase=Phase.STREAMING),
        Marker(WorkUnit.of_table("left", gone), phase=Phase.SNAPSHOT),
        Marker(WorkUnit.of_table("left", polled), phase=Phase.STREAMING),
        Marker(WorkUnit.poll("left", polled)),
        Marker(WorkUnit.of_table("nightly", other), phase=Phase.STREAMING),
        Marker(WorkUnit.of_table("elsewhere", other), phase=Phase.STREAMING),
        Marker(WorkUnit.stream("elsewhere")),
        Marker(STREAM),
    ]
    shop = Shop(source_class=MemoryOneLog)
    found = left_behind(
        STREAM, markers, polled={"nightly"}, selections={"shop": shop.selection("shop")}
    )
    assert [unit.id for unit in found] == ["table:shop:x.gone", "table:left:x.gone"]
    own = left_behind(
        WorkUnit.stream("shop"), markers, polled=(), selections={"shop": shop.selection("shop")}
    )
    assert [unit.id for unit in own] == ["table:shop:x.gone"]


# ---------------------------------------------------------------- errands


@pytest.fixture
def desk(fleet: Fleet, shop: Shop) -> Desk:
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL))
    return Desk(shop.bookkeeping().metadata(), fleet.ledger, shop)


def test_a_resync_of_one_schema_leaves_the_shared_stream_where_it_is(
    desk: Desk, shop: Shop
) -> None:
    shop.database.put(ORDERS, id=1, name="not delivered yet")
    before = shop.warehouse.markers[STREAM.id]
    resync(desk, schema="crm")
    after = shop.warehouse.markers[STREAM.id]
    assert (after.position, after.phase) == (before.position, Phase.STREAMING)
    assert shop.phase(WorkUnit.of_table("crm", USERS)) is Phase.PLANNED
    assert shop.phase(WorkUnit.of_table("shop", ORDERS)) is Phase.STREAMING


@pytest.mark.holds(guarantee=6, source="none", destination="pretended", fault="lost position")
def test_a_shared_stream_that_lost_its_place_starts_over_with_all_its_schemas(
    desk: Desk, shop: Shop, fleet: Fleet
) -> None:
    """Guarantee 6."""
    shop.database.put(ORDERS, id=1, name="an order lost to the log")
    shop.database.put(USERS, id=1, name="a user lost to the log")
    shop.database.forget()
    with fleet.worker():
        fleet.until(lambda: shop.phase(STREAM) is Phase.FAILED)
    assert PositionLost.code in [line["code"] for line in shop.warehouse.errors]
    told = resync(desk, schema="crm")
    assert "shop, crm start over" in told
    with fleet.worker():
        fleet.until(lambda: settled(shop, *ALL) and len(names(shop, ORDERS)) == 1)
        fleet.until(lambda: names(shop, USERS) == {"a user lost to the log"})


def test_pausing_one_schema_pauses_all_that_share_its_stream_and_says_so(
    desk: Desk, shop: Shop, fleet: Fleet
) -> None:
    told = pause(desk, schema="crm")
    assert told.endswith("of shop, crm: they share one stream")
    assert shop.phase(STREAM) is Phase.PAUSED
    fleet.rounds()
    assert STREAM.id not in fleet.offered()
    told = resume(desk, schema="shop")
    assert told == "1 units resumed, of shop, crm: they share one stream"
    assert shop.phase(STREAM) is Phase.STREAMING


# ---------------------------------------------------------------- selections


def test_selections_together_are_the_selection_of_each() -> None:
    shop = Shop(schemas=("shop", "crm"), source_class=MemoryOneLog, tables=BOTH)
    both = shop.selection(SHARED)
    assert isinstance(both, Together)
    assert [both(t).schema for t in (ORDERS, USERS)] == ["shop", "crm"]  # type: ignore[union-attr]
    assert both(TableId("x", "y")) is None
    assert Followed(both).schemas == both.schemas == ("shop", "crm")
    assert stream_of("crm", both.schemas) == STREAM
    assert stream_of("nightly", both.schemas) == WorkUnit.stream("nightly")


def test_a_store_of_leases_knows_the_shared_stream() -> None:
    ledger = MemoryLeaseStore()
    ledger.ensure([STREAM])
    assert [lease.unit for lease in ledger.claim("w", 1, ttl=1.0, slots=1)] == [STREAM]
