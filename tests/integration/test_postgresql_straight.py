"""A chunk's rows go straight into their table where nothing is in the way, and never wrong.

Guarantees 5 and 8: beside a stream in another session, a late or repeated chunk changes nothing
that is newer.  Each guard has a twin without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from postgresql_world import (
    CREATE,
    DELETE,
    ORDERS,
    READ,
    SCHEMA,
    TRUNCATE,
    UPDATE,
    Event,
    Unit,
    World,
)

from warp import faults
from warp.compact import Compacted
from warp.destinations.postgresql import session
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.staging import Staging
from warp.destinations.postgresql.straight import Straight
from warp.destinations.sql.straight import key_order, may
from warp.errors import DestinationUnavailable, SchemaMoved
from warp.model import ABSENT, UNCHANGED, Chunk, Column, Kind, Phase, TableId, TableSchema, WorkUnit
from warp.own_process import wait_until
from warp.staged import stage


@pytest.fixture
def world(pg_database: str) -> Iterator[World]:
    world = World(pg_database)
    yield world
    world.close()


def begun(world: World, schema: TableSchema = SCHEMA) -> Unit:
    """A stream beside a snapshot of one chunk."""
    stream = world.unit()
    stream.create(schema)
    plan = stream.destination.metadata().plan_snapshot
    assert plan("shop", schema.table, [Chunk(schema.table, 0)], version=0)
    return stream


def chunk_of(world: World, epoch: int = 0, table: TableId = ORDERS) -> Unit:
    return world.unit(WorkUnit.of_chunk("shop", Chunk(table, 0), epoch))


def read(unit: Unit, version: int, *keys: int, phase: Phase = Phase.SNAPSHOT) -> None:
    rows: list[Event] = [(READ, version, key, f"read {key}") for key in keys]
    unit.write(f"{version} {keys}", *rows, phase=phase)


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each merge got."""
    rows: list[int] = []
    merge = Staging.merge

    def noted(self: Staging, part: Any, landing: Any, state: Any) -> None:
        rows.append(len(part))
        merge(self, part, landing, state)

    monkeypatch.setattr(Staging, "merge", noted)
    return rows


def breaks(scenario: Callable[..., None], *arguments: Any) -> None:
    """The twin's guarantee does not hold: its test must fail."""
    with pytest.raises(AssertionError):
        scenario(*arguments)


def without_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: what the COPY refuses is taken for landed."""
    lands = Straight.lands

    def deaf(self: Straight, part: Any, landing: Any, state: Any) -> bool:
        return lands(self, part, landing, state) or may(part, landing, state)

    monkeypatch.setattr(Straight, "lands", deaf)


def without_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: nobody looks at the table's columns and index after the COPY."""
    monkeypatch.setattr(Straight, "_was_right", lambda *_: True)


# -- when it is tried


def test_rows_of_a_chunk_go_straight_into_a_table_without_their_keys(
    world: World, merged: list[int]
) -> None:
    begun(world).write("1", (CREATE, 9, 100, "streamed"))
    merged.clear()
    unit = chunk_of(world)
    read(unit, 5, 3, 1, 2)
    read(unit, 5, 4, phase=Phase.DONE)
    assert merged == []
    assert world.ask("select id, name, _extra, _cw_version, _cw_deleted from shop.orders") == [
        (100, "streamed", None, 9, False),
        (1, "read 1", None, 5, False),
        (2, "read 2", None, 5, False),
        (3, "read 3", None, 5, False),
        (4, "read 4", None, 5, False),
    ]


def test_a_chunk_read_again_stops_trying_after_two_refusals(
    world: World, merged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = begun(world)
    read(chunk_of(world), 5, 1, 2, 3, 4, 5)
    tried: list[int] = []
    copy = Straight._copy

    def noted(self: Straight, part: Any, landing: Any, order: Any) -> None:
        tried.append(len(part))
        copy(self, part, landing, order)

    monkeypatch.setattr(Straight, "_copy", noted)
    again = chunk_of(world)
    for key in range(1, 6):
        read(again, 6, key)
    assert (len(tried), len(merged)) == (2, 5)
    assert world.ask("select count(*), min(_cw_version) from shop.orders") == [(5, 6)]
    stream.write("anew", reload=[ORDERS])
    metadata = stream.destination.metadata()
    assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=7)
    anew = chunk_of(world, epoch=1)
    for key in range(1, 6):  # a table that is read anew: its rows are there
        read(anew, 8, key)
    assert (len(tried), len(merged)) == (3, 10)


# -- beside a stream


def a_late_chunk_changes_nothing_newer(world: World) -> None:
    stream = begun(world)
    stream.write("1", (CREATE, 10, 2, "newer"), (DELETE, 10, 3), (CREATE, 4, 5, "older"))
    for _ in range(2):  # the second is the chunk once more, after a crash
        read(chunk_of(world), 5, 1, 2, 3, 4, 5)
        assert world.rows() == [(1, "read 1"), (2, "newer"), (4, "read 4"), (5, "read 5")]


def test_a_late_chunk_changes_nothing_newer(world: World) -> None:
    a_late_chunk_changes_nothing_newer(world)


def test_without_the_merge_a_refused_chunk_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fallback(monkeypatch)
    breaks(a_late_chunk_changes_nothing_newer, world)


def test_rows_read_before_a_truncation_do_not_come_back(world: World) -> None:
    stream = begun(world)
    stream.write("1", (TRUNCATE, 7, ABSENT))
    read(chunk_of(world), 5, 1, 2)
    assert world.rows() == []


@contextmanager
def paused_before_commit(work: Callable[[], None]) -> Iterator[threading.Event]:
    """Runs it in a thread, up to its COMMIT: that comes when the event is set."""
    reached, go = threading.Event(), threading.Event()
    kept = faults.hit
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the top of a thread
            failures.append(error)
            reached.set()

    thread = threading.Thread(target=guarded)

    def hit(point: str) -> None:
        if point == "before_commit" and threading.current_thread() is thread:
            reached.set()
            assert go.wait(60)

    faults.hit = hit
    try:
        thread.start()
        assert reached.wait(60)
        yield go
    finally:
        go.set()
        thread.join(60)
        faults.hit = kept
    if failures:
        raise failures[0]


def waits_for_a_lock(world: World) -> bool:
    return wait_until(
        lambda: bool(
            world.ask(
                "select from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
        ),
        60,
    )


def a_chunk_waits_for_an_open_transaction(world: World) -> None:
    """The stream's rows are not committed when the chunk copies the same keys."""
    stream = begun(world)
    world.options["lock_timeout"] = "60s"
    unit = chunk_of(world)

    def follow() -> None:
        stream.write("1", (CREATE, 10, 2, "newer"), (DELETE, 10, 3))

    copying = threading.Thread(target=read, args=(unit, 5, 1, 2, 3, 4))
    with paused_before_commit(follow) as go:
        copying.start()
        assert waits_for_a_lock(world)
        go.set()
    copying.join(60)
    assert world.rows() == [(1, "read 1"), (2, "newer"), (4, "read 4")]


@pytest.mark.holds(guarantee=5, source="none", destination="postgresql", fault="no fault")
def test_a_chunk_waits_for_an_open_transaction_of_the_stream_and_gives_way(world: World) -> None:
    a_chunk_waits_for_an_open_transaction(world)


def test_without_the_merge_a_chunk_that_waited_in_vain_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fallback(monkeypatch)
    breaks(a_chunk_waits_for_an_open_transaction, world)


def test_a_stream_waits_for_an_open_chunk_and_changes_its_rows(world: World) -> None:
    world.options["lock_timeout"] = "60s"
    stream = begun(world)
    unit = chunk_of(world)
    changes: list[Event] = [(UPDATE, 10, 2, "newer"), (DELETE, 10, 3), (CREATE, 4, 1, "older")]
    following = threading.Thread(target=stream.write, args=("1", *changes))
    with paused_before_commit(lambda: read(unit, 5, 1, 2, 3)) as go:
        following.start()
        assert waits_for_a_lock(world)
        go.set()
    following.join(60)
    assert world.rows() == [(1, "read 1"), (2, "newer")]


def test_a_deadlock_with_another_writer_is_told_as_to_be_tried_again(world: World) -> None:
    begun(world)
    world.options["lock_timeout"] = "60s"
    unit = chunk_of(world)
    refused: list[DestinationUnavailable] = []

    def work() -> None:
        try:
            read(unit, 5, 1, 2)
        except DestinationUnavailable as error:
            refused.append(error)

    insert = "insert into shop.orders (id, name, _cw_version) values (%s, 'other', 1)"
    with psycopg.connect(world.url) as other:
        other.execute("set deadlock_timeout = '60s'")  # so that the chunk is the one to give way
        other.execute(insert, [2])
        copying = threading.Thread(target=work)
        copying.start()
        assert waits_for_a_lock(world)  # holds row 1 and wants row 2
        other.execute(insert, [1])
    copying.join(60)
    [error] = refused
    assert "deadlock" in str(error)
    read(unit, 5, 1, 2)
    assert world.rows() == [(1, "read 1"), (2, "read 2")]


def test_rows_are_copied_in_the_order_in_which_a_merge_locks_them() -> None:
    schema = TableSchema(ORDERS, (Column("a", Kind.TEXT), Column("n", Kind.INT64)), ("a", "n"))
    landing = Landing(schema, ORDERS, "cw_1", None, "meta")
    keys: list[list[Any]] = [["b", "Z", "\u00e4", "b"], [2, 1, 0, 1]]
    order = key_order(stage(schema, Compacted(b"rrrr", [1] * 4, keys)), landing)
    assert order is not None
    there = list(zip(*keys, strict=True))
    assert [there[row] for row in order] == [("Z", 1), ("b", 1), ("b", 2), ("\u00e4", 0)]
    for odd in (Kind.INT64, Kind.DECIMAL):  # a key that is NULL, one that is not compared
        lone = TableSchema(ORDERS, (Column("a", odd),), ("a",))
        part = stage(lone, Compacted(b"rr", [1, 1], [[2, None]]))
        assert key_order(part, replace(landing, schema=lone)) is None


# -- tables that somebody else has altered


def a_key_without_its_index_takes_no_row_twice(world: World) -> None:
    begun(world)
    world.looking.execute("alter table shop.orders drop constraint orders_pkey")
    unit = chunk_of(world)
    for _ in range(2):
        with pytest.raises(SchemaMoved):
            read(unit, 5, 1, 2)
    assert world.rows() == []


def test_a_key_without_its_index_takes_no_row_twice(world: World) -> None:
    a_key_without_its_index_takes_no_row_twice(world)


def test_without_the_look_at_the_index_a_row_lands_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_look(monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        a_key_without_its_index_takes_no_row_twice(world)


def a_column_of_another_type_gets_the_same_value(world: World) -> None:
    schema = replace(SCHEMA, columns=(*SCHEMA.columns, Column("n", Kind.INT64)))
    begun(world, schema)
    unit = chunk_of(world)
    batch = unit.batch("1", (READ, 5, 1, "a", None, 42))
    world.looking.execute("alter table shop.orders alter n type double precision")
    unit.deliver(batch, phase=Phase.SNAPSHOT)
    assert world.rows(columns="id, n") == [(1, 42.0)]


def test_a_column_of_another_type_gets_the_same_value(world: World) -> None:
    a_column_of_another_type_gets_the_same_value(world)


def test_without_the_look_at_the_columns_a_number_becomes_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_look(monkeypatch)
    breaks(a_column_of_another_type_gets_the_same_value, world)


def test_what_copy_cannot_do_is_merged(world: World, merged: list[int]) -> None:
    """A narrower number; a second unique column; a column that the server computes."""
    begun(world)
    world.looking.execute(
        "alter table shop.orders alter id type smallint, add unique (name),"
        " add column twice int generated always as (id * 2) stored"
    )
    read(chunk_of(world), 5, 1, 2)
    assert world.rows(columns="id, name, twice") == [(1, "read 1", 2), (2, "read 2", 4)]
    assert merged == [2]


HOSTILE = TableSchema(
    TableId('shop "100%"', "%s orders; --"),
    (
        Column('id "%(x)s"', Kind.TEXT),
        Column("{} it's", Kind.JSON),
        Column("ü" * 40, Kind.TIMESTAMP),
        Column("never", Kind.TEXT),
    ),
    ('id "%(x)s"', "ü" * 40),
)


def test_hostile_names_and_defaults_are_kept(world: World, merged: list[int]) -> None:
    world.table = {"soft_delete_column": 'gone "%"'}
    stream = begun(world, HOSTILE)
    table = session.name(HOSTILE.table.namespace, HOSTILE.table.name).as_string(None)
    world.looking.execute(f"alter table {table} alter never set default 'own'".replace("%%", "%"))
    unit = chunk_of(world, table=HOSTILE.table)
    rows = [(READ, 5, f"{n}%", b'{"a": 1}', n, UNCHANGED) for n in range(2)]
    unit.write("1", *rows, table=HOSTILE.table, phase=Phase.SNAPSHOT)
    assert merged == []
    stream.write("2", (DELETE, 6, "0%", ABSENT, 0), table=HOSTILE.table)
    found = world.looking.execute(f"select * from {table} order by 1".replace("%%", "%")).fetchall()
    assert [(row[0], row[1], row[3:]) for row in found] == [
        ("0%", {"a": 1}, ("own", 6, False, True)),
        ("1%", {"a": 1}, ("own", 5, False, False)),
    ]


def test_a_table_without_a_key_is_copied_and_shown_when_it_is_whole(
    world: World, merged: list[int]
) -> None:
    begun(world, replace(SCHEMA, key=()))
    unit = chunk_of(world)
    read(unit, 5, 1, 1)
    assert world.rows() == []
    read(unit, 5, 2, phase=Phase.DONE)
    assert world.rows() == [(1, "read 1"), (1, "read 1"), (2, "read 2")]
    assert merged == []


def test_a_value_that_the_table_refuses_is_set_aside_and_the_rest_lands(world: World) -> None:
    begun(world)
    world.looking.execute("alter table shop.orders add check (name <> 'read 2')")
    read(chunk_of(world), 5, 1, 2, 3)
    assert world.rows() == [(1, "read 1"), (3, "read 3")]
    assert world.ask("select key from cartridge_warp_metadata.quarantine") == [('{"id": 2}',)]
