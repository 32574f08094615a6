"""The metadata schema: made once, moved forward, and true whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from postgresql_world import CREATE, META, ORDERS, READ, STREAM, TABLE, Unit, World

from warp.destinations.postgresql import PostgresDestination, PostgresOptions, metadata
from warp.errors import DestinationRefused, FenceBehind
from warp.model import Chunk, Lease, Phase, Position, TableId, UnitKind, WorkUnit
from warp.sql import Migration, migrations

CHUNKS = [Chunk(ORDERS, 0, None, "m", 10), Chunk(ORDERS, 1, "m", None, 20)]


@pytest.fixture
def world(pg_database: str) -> Iterator[World]:
    world = World(pg_database)
    yield world
    world.close()


# -- the schema itself


def test_many_processes_prepare_it_at_once(world: World) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(6)

    def race() -> None:
        destination = world.destination()
        try:
            start.wait()
            destination.metadata().prepare()
        except BaseException as error:  # noqa: BLE001 - the top of a thread
            failures.append(error)

    racers = [threading.Thread(target=race) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert failures == []
    assert world.ask(f"select count(*) from {META}.schema_version") == [
        (len(migrations("postgresql")),)
    ]


def test_the_tables_the_plan_names_are_there(world: World) -> None:
    world.prepared()
    found = {
        row[0]
        for row in world.ask(
            "select table_name from information_schema.tables where table_schema = %s", [META]
        )
    }
    assert found >= {"sync_markers", "schema_registry", "sync_runs", "error_log"}
    assert found >= {"quarantine", "deletion_audit", "errands", "schema_version"}


def test_metadata_of_a_newer_version_is_refused_naming_both(world: World) -> None:
    world.prepared()
    world.looking.execute(f"insert into {META}.schema_version values (99, 'future')".encode())
    with pytest.raises(DestinationRefused, match="version 99") as caught:
        world.destination().metadata().prepare()
    assert f"version {len(migrations('postgresql'))} " in str(caught.value)


def test_metadata_of_an_older_version_is_moved_forward_with_what_it_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    have = migrations("postgresql")
    more = Migration(len(have) + 1, "notes", "alter table {meta}.sync_markers add column note text")
    monkeypatch.setattr(metadata, "migrations", lambda dialect: (*have, more))
    for _ in range(2):
        world.destination().metadata().prepare()
    assert world.ask(f"select position, note from {META}.sync_markers where kind = 'stream'") == [
        ("1", None)
    ]


def test_a_migration_that_fails_leaves_the_version_before_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = migrations("postgresql")
    wrong = Migration(len(have) + 1, "wrong", "create table {meta}.half (id int); select nothing")
    monkeypatch.setattr(metadata, "migrations", lambda dialect: (*have, wrong))
    with pytest.raises(DestinationRefused):
        world.destination().metadata().prepare()
    assert world.ask("select count(*) from pg_namespace where nspname = %s", [META]) == [(0,)]


def test_the_schema_may_have_another_name(world: World) -> None:
    world.options["metadata_schema"] = 'odd "name" 100%'
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    assert world.ask('select position from "odd ""name"" 100%%".sync_markers where batch > 0') == [
        ("1",)
    ]


# -- markers


def test_a_marker_tells_its_unit_back(world: World) -> None:
    store = world.prepared().metadata()
    dotted = TableId("my.schema", "a.b:c")
    units = [
        STREAM,
        WorkUnit.poll("shop", dotted),
        WorkUnit.of_table("shop", dotted),
        WorkUnit.of_chunk("shop", Chunk(dotted, 3, '{"a":1}', None, 7), 2),
    ]
    for unit in units:
        store.register(unit, position=None, phase=Phase.PLANNED)
    found = {marker.unit.id: marker for marker in store.markers()}
    assert [found[unit.id].unit for unit in units] == units
    assert found[units[3].id].epoch == 2
    assert [m.unit for m in store.markers([UnitKind.POLL])] == [units[1]]


def test_a_position_comes_back_exactly_and_reads_as_a_time(world: World) -> None:
    store = world.prepared().metadata()
    position = Position("0/16B3748 ü", 1_700_000_000.123_456_7)
    store.register(STREAM, position=position, phase=Phase.STREAMING)
    assert store.markers()[0].position == position
    [[at]] = world.ask(f"select position_at::date::text from {META}.sync_markers")
    assert at == "2023-11-14"
    store.register(WorkUnit.stream("x"), position=Position("unknown time"), phase=Phase.PLANNED)
    assert world.ask(f"select position_at from {META}.sync_markers where unit = 'stream:x'") == [
        (None,)
    ]


def test_a_phase_is_set_without_touching_the_position(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    store = unit.destination.metadata()
    store.mark(STREAM.id, Phase.PAUSED)
    [marker] = store.markers([UnitKind.STREAM])
    assert (marker.phase, marker.position) == (Phase.PAUSED, Position("1", 1_000.5))


# -- snapshots


def test_two_planners_store_one_plan(world: World) -> None:
    stores = [world.prepared().metadata() for _ in range(2)]
    assert [s.plan_snapshot("shop", ORDERS, CHUNKS, version=9) for s in stores] == [True, False]
    chunks = stores[0].markers([UnitKind.CHUNK])
    assert [m.unit.chunk for m in chunks] == CHUNKS
    assert {m.phase for m in chunks} == {Phase.PLANNED}


def test_a_table_without_rows_settles_too(world: World) -> None:
    store = world.prepared().metadata()
    store.plan_snapshot("shop", ORDERS, CHUNKS[:1], version=0)
    chunk = world.unit(WorkUnit.of_chunk("shop", CHUNKS[0], 0))
    assert not store.settle("shop", ORDERS)
    chunk.write("s", phase=Phase.DONE)
    assert store.settle("shop", ORDERS)
    assert not store.settle("shop", TableId("shop", "unknown"))


def test_a_plan_without_chunks_settles_at_once(world: World) -> None:
    store = world.prepared().metadata()
    assert store.plan_snapshot("shop", ORDERS, [], version=0)
    assert store.settle("shop", ORDERS)


def test_a_table_is_not_settled_by_whoever_does_not_know_where_it_lies(world: World) -> None:
    store = world.prepared().metadata()
    store.plan_snapshot("shop", ORDERS, [], version=0)
    stranger = PostgresDestination(
        PostgresOptions.model_validate({"connection_string": world.url}), lambda table: None
    )
    with pytest.raises(DestinationRefused, match="destination of its schema"):
        stranger.metadata().settle("shop", ORDERS)
    stranger.close()


def test_a_reload_forgets_the_chunks_and_shuts_their_readers_out(world: World) -> None:
    stream = world.unit()
    stream.create()
    store = stream.destination.metadata()
    store.plan_snapshot("shop", ORDERS, CHUNKS, version=0)
    reader = world.unit(WorkUnit.of_chunk("shop", CHUNKS[0], 0))
    stream.write("5", reload=[ORDERS, TableId("shop", "never seen")])
    assert store.markers([UnitKind.CHUNK]) == []
    tables = store.markers([UnitKind.TABLE])
    assert [(m.phase, m.epoch) for m in tables] == [(Phase.PLANNED, 1), (Phase.PLANNED, 1)]
    with pytest.raises(FenceBehind):
        reader.write("s", (READ, 1, 1, "old"))
    assert world.rows() == []


# -- resync


def resyncable(world: World) -> tuple[Unit, list[WorkUnit]]:
    stream = world.settled()
    store = stream.destination.metadata()
    other = WorkUnit.of_table("shop", TableId("shop", "other"))
    polls = [WorkUnit.poll("shop", t) for t in (ORDERS, TableId("shop", "other"))]
    store.register(other, position=None, phase=Phase.STREAMING)
    for poll in polls:
        store.register(poll, position=Position("p"), phase=Phase.IDLE)
    store.register(WorkUnit.stream("elsewhere"), position=Position("e"), phase=Phase.STREAMING)
    stream.write("7", (CREATE, 1, 1, "a"))
    return stream, polls


def test_a_resync_of_a_schema_moves_its_stream_and_plans_its_tables_anew(world: World) -> None:
    stream, polls = resyncable(world)
    store = stream.destination.metadata()
    assert store.resync("shop", None, position=Position("50")) == [STREAM, *polls]
    found = {m.unit.id: m for m in store.markers()}
    assert found[STREAM.id].position == Position("50")
    assert found[STREAM.id].epoch == 1
    assert found[TABLE.id].phase == Phase.PLANNED
    assert [found[p.id].position for p in polls] == [None, None]
    assert found["stream:elsewhere"].position == Position("e")
    with pytest.raises(FenceBehind):
        stream.write("8", (CREATE, 2, 2, "b"))


def test_a_resync_of_one_table_keeps_the_streams_place_for_the_others(world: World) -> None:
    stream, polls = resyncable(world)
    store = stream.destination.metadata()
    assert store.resync("shop", ORDERS, position=Position("50")) == [STREAM, polls[0]]
    found = {m.unit.id: m for m in store.markers()}
    assert found[STREAM.id].position == Position("7", 1_000.5)
    assert (found[TABLE.id].phase, found["table:shop:shop.other"].phase) == (
        Phase.PLANNED,
        Phase.STREAMING,
    )
    assert [found[p.id].position for p in polls] == [None, Position("p")]
    with pytest.raises(FenceBehind):  # it would treat deletes as before
        stream.write("8", (CREATE, 2, 2, "b"))


# -- runs, errors, errands


def test_a_run_that_never_ended_is_abandoned_by_the_next(world: World) -> None:
    store = world.prepared().metadata()
    store.begin_run(Lease(STREAM, "one", 1), "r1")
    store.begin_run(Lease(WorkUnit.stream("x"), "one", 1), "other")
    store.begin_run(Lease(STREAM, "two", 2), "r2")
    store.end_run("r2", status="done", rows=5)
    store.end_run("r1", status="done", rows=1)  # back from a pause: it stays abandoned
    store.begin_run(Lease(STREAM, "three", 3), "r3")
    store.end_run("r3", status="failed", rows=0, error="no \0 room")
    assert world.ask(
        f"select run, worker, status, rows, error, ended_at is null from {META}.sync_runs"
        " order by run"
    ) == [
        ("other", "one", "running", 0, "", True),
        ("r1", "one", "abandoned", 0, "", False),
        ("r2", "two", "done", 5, "", False),
        ("r3", "three", "failed", 0, "no \ufffd room", False),
    ]


def test_a_run_of_a_chunk_that_is_gone_is_abandoned_with_it(world: World) -> None:
    """Nobody opens that chunk again, so no successor would (seen in a storm of faults)."""
    store = world.prepared().metadata()
    store.plan_snapshot("shop", ORDERS, CHUNKS[:1], version=0)
    store.begin_run(Lease(WorkUnit.of_chunk("shop", CHUNKS[0], 0), "killed", 1), "of a chunk")
    store.begin_run(Lease(STREAM, "one", 1), "of the stream")
    store.resync("shop", ORDERS, position=Position("1"))
    assert world.ask(f"select run, status from {META}.sync_runs order by run") == [
        ("of a chunk", "abandoned"),
        ("of the stream", "running"),
    ]


def test_no_two_runs_of_a_slot_come_to_their_end(world: World) -> None:
    """Should a worker ever not ask: the database itself refuses the second one, whole."""
    poll = WorkUnit.poll("shop", ORDERS)
    unit = world.unit(poll)
    store = unit.destination.metadata()
    for run in ("first", "second"):
        store.begin_run(unit.lease, run, slot=1_800_000_000.0)
        if run == "second":
            with pytest.raises(DestinationRefused, match="sync_runs_slot"):
                unit.write(run, phase=Phase.IDLE)
        else:
            unit.write(run, phase=Phase.IDLE)
    assert world.ask(f"select run, status, slot from {META}.sync_runs order by run") == [
        ("first", "done", datetime(2027, 1, 15, 8, tzinfo=UTC)),
        ("second", "running", datetime(2027, 1, 15, 8, tzinfo=UTC)),
    ]
    [marker] = store.markers([UnitKind.POLL])
    assert marker.position == Position("first", 1_000.5)


def test_an_error_is_one_line_with_what_was_done_about_it(world: World) -> None:
    store = world.prepared().metadata()
    store.log_error(
        code="WARP-1",
        error_class="Odd",
        message="a \0 and half a \ud800 pair, 100%s",
        unit=STREAM.id,
        table=ORDERS,
        column="name",
        key='{"id": 1}',
        position=Position("7"),
        action="kept in _extra",
    )
    assert world.ask(
        f"select code, message, source_table, column_name, key, position, action from"
        f" {META}.error_log"
    ) == [
        (
            "WARP-1",
            "a \ufffd and half a ? pair, 100%s",
            "orders",
            "name",
            '{"id": 1}',
            "7",
            "kept in _extra",
        )
    ]


def test_errands_are_kept_in_their_order_until_they_end(world: World) -> None:
    store = world.prepared().metadata()
    for number in range(3):
        store.add_errand(f"e{number}", "verify", {"table": "100% \u0001", "n": number})
    store.end_errand("e1", status="done", result="equal")
    assert [(e[0], e[2]["n"]) for e in store.open_errands()] == [("e0", 0), ("e2", 2)]
