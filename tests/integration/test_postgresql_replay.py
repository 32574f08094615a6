"""Rows come out of quarantine once, and never over anything newer, on a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import programs
import pytest
from postgresql_replayer import REPLAY, Counting, replay
from postgresql_world import (
    CREATE,
    DELETE,
    META,
    ORDERS,
    READ,
    SCHEMA,
    STREAM,
    TABLE,
    UPDATE,
    Unit,
    World,
)
from test_postgresql_fence import POINTS, edited

from warp import faults, replays, stored
from warp.destinations.postgresql import metadata as bookkeeping
from warp.destinations.postgresql import staging
from warp.model import (
    ABSENT,
    Aside,
    Change,
    Choice,
    Chunk,
    Column,
    Kind,
    Phase,
    QuarantinedRow,
    SchemaChange,
    SetAside,
    TableId,
    TableSchema,
    WorkUnit,
)
from warp.own_process import wait_until


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def refuse(world: World, table: str = "shop.orders", column: str = "name") -> None:
    world.looking.execute(
        f"alter table {table} add constraint no_bad check ({column} not like 'bad%')"
    )


def mend(world: World, table: str = "shop.orders") -> None:
    world.looking.execute(f"alter table {table} drop constraint no_bad")


def watch(world: World) -> None:
    """Every change of a row, with the transaction that made it."""
    world.looking.execute(
        "create table public.history (id bigint, change text, transaction bigint);"
        "create function public.watch() returns trigger language plpgsql as $$ begin"
        " insert into public.history values"
        " (coalesce(new.id, old.id), tg_op, pg_catalog.txid_current()); return null; end $$;"
        "create trigger watch after insert or update or delete on shop.orders"
        " for each row execute function public.watch()"
    )


def with_bad_rows(world: World, *ids: int) -> Unit:
    """A stream whose table refused these rows, at versions of ten times their id."""
    unit = world.settled()
    refuse(world)
    unit.write("1", *((CREATE, 10 * id, id, f"bad {id}") for id in ids), (CREATE, 1, 0, "fine"))
    return unit


def aside(world: World) -> list[SetAside]:
    return world.prepared().metadata().quarantine(Choice())


def states(world: World) -> list[tuple[Aside, int]]:
    return [(row.state, row.tries) for row in aside(world)]


def mark(world: World, table: TableId = ORDERS) -> None:
    metadata = world.prepared().metadata()
    ids = [row.id for row in metadata.quarantine(Choice()) if row.row.table == table]
    assert metadata.replay("shop", table, ids) > 0


# ---------------------------------------------------------------- once


@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_rows_that_a_constraint_refused_land_when_it_is_gone(world: World) -> None:
    with_bad_rows(world, 7, 8)
    mark(world)
    mend(world)
    watch(world)
    assert replay(world)
    assert world.rows() == [(0, "fine"), (7, "bad 7"), (8, "bad 8")]
    assert states(world) == [(Aside.REPLAYED, 1)] * 2
    versions = world.ask("select id, _cw_version from shop.orders where id > 0 order by 1")
    assert versions == [(7, 70), (8, 80)]
    assert world.ask(f"select phase, rows from {META}.sync_markers where unit = %s", [REPLAY.id])[
        0
    ] == ("idle", 2)
    assert replay(world)
    assert world.ask("select id, change from public.history order by 1") == [
        (7, "INSERT"),
        (8, "INSERT"),
    ]


def start(world: World, fault: str = "", broken: str = "") -> int:
    environment = dict(os.environ)
    if fault:
        environment[faults.VARIABLE] = fault
    return programs.run("postgresql_replayer", world.url, broken, env=environment).returncode


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.holds(guarantee=1, source="none", destination="postgresql", fault="kill -9")
def test_a_replay_killed_at_any_statement_lands_each_row_once(world: World, point: str) -> None:
    with_bad_rows(world, *range(1, 6))
    mark(world)
    mend(world)
    watch(world)
    nth = 1 + POINTS.index(point) % 3
    assert start(world, f"{point}:kill:{nth}") == -signal.SIGKILL
    assert start(world) == 0
    assert world.rows() == [(0, "fine"), *((n, f"bad {n}") for n in range(1, 6))]
    assert world.ask("select id, change from public.history order by 1") == [
        (n, "INSERT") for n in range(1, 6)
    ]
    assert states(world) == [(Aside.REPLAYED, 1)] * 5


def test_with_the_state_in_a_transaction_of_its_own_a_row_lands_twice(world: World) -> None:
    """The broken twin of the test before."""
    with_bad_rows(world, 1, 2)
    mark(world)
    mend(world)
    watch(world)
    assert start(world, "after_commit:kill:1", broken="settles late") == -signal.SIGKILL
    assert start(world) == 0
    changes = [change for _, change in world.ask("select id, change from public.history")]
    assert sorted(changes) == ["INSERT", "INSERT", "UPDATE", "UPDATE"]


def test_large_rows_come_a_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 9."""
    monkeypatch.setattr(bookkeeping, "REPLAYED_BYTES", 1000)
    unit = world.settled()
    refuse(world)
    unit.write("1", *((CREATE, n, n, "bad" + "x" * (2000 if n == 3 else 450)) for n in range(1, 7)))
    mark(world)
    mend(world)
    seen = []
    metadata = world.prepared().metadata()
    while rows := metadata.to_replay("shop", ORDERS, 200):
        seen.append([row.row.version for row in rows])
        metadata.discard([row.id for row in rows])
    assert seen == [[1, 2, 3], [4, 5, 6]]


# ---------------------------------------------------------------- refused again


def test_a_row_that_is_refused_again_waits_and_the_others_land(world: World) -> None:
    with_bad_rows(world, 7, 8, 9)
    mend(world)
    world.looking.execute("alter table shop.orders add constraint no_8 check (name <> 'bad 8')")
    for _ in range(2):
        mark(world)
        assert replay(world)
    assert world.rows() == [(0, "fine"), (7, "bad 7"), (9, "bad 9")]
    assert states(world) == [(Aside.REPLAYED, 1), (Aside.WAITING, 2), (Aside.REPLAYED, 1)]
    assert "no_8" in aside(world)[1].last_error
    assert "no_bad" in aside(world)[1].row.reason


def test_only_rows_that_landed_are_counted(world: World) -> None:
    unit = with_bad_rows(world, 7, 8, 9)
    mend(world)
    world.looking.execute("alter table shop.orders add constraint no_8 check (name <> 'bad 8')")
    unit.write("2", (UPDATE, 95, 9, "newer"))
    # A column that the rows know nothing of, so that they keep what is in it.
    colour = Column("colour", Kind.TEXT)
    add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=colour, base=unit.schema().version)
    unit.destination.apply_schema_changes([add])
    mark(world)
    counting = Counting()
    assert replay(world, meter=counting)
    assert counting.counts == {CREATE: 1}
    became = [state for state, _ in states(world)]
    assert became == [Aside.REPLAYED, Aside.WAITING, Aside.SUPERSEDED]


def test_a_row_refused_again_waits_also_where_nothing_is_set_aside_any_more(world: World) -> None:
    with_bad_rows(world, 7)
    world.table["dead_letter_queue"] = False
    mark(world)
    assert replay(world)
    assert states(world) == [(Aside.WAITING, 1)]


def test_a_key_that_no_column_can_hold_stops_nothing(world: World) -> None:
    text = TableSchema(ORDERS, (Column("id", Kind.TEXT), Column("name", Kind.TEXT)), ("id",))
    unit = world.settled(text)
    rows = [
        QuarantinedRow(
            ORDERS,
            stored.dump(text.columns, [key, ABSENT]),
            CREATE,
            stored.dump(text.columns, [key, "x"]),
            "invalid byte",
            "SQLSTATE 22021",
            version=5,
            kinds=stored.kinds_of(text.columns),
        )
        for key in ("a\0b", "c\ud800", "fine")
    ]
    unit.write("1", quarantined=rows)
    mark(world)
    assert replay(world)
    assert [state for state, _ in states(world)] == [Aside.WAITING, Aside.WAITING, Aside.REPLAYED]
    assert world.rows() == [("fine", "x")]


# ---------------------------------------------------------------- nothing newer is overruled


def test_a_newer_row_stays_though_its_older_self_is_replayed(world: World) -> None:
    unit = with_bad_rows(world, 7, 8)
    mend(world)
    unit.write("2", (UPDATE, 75, 7, "newer"))
    mark(world)
    replay(world)
    assert world.rows() == [(0, "fine"), (7, "newer"), (8, "bad 8")]
    assert [state for state, _ in states(world)] == [Aside.SUPERSEDED, Aside.REPLAYED]


def deleted_after_it_was_refused(world: World) -> None:
    """A row landed, its next change was refused, and then it was deleted."""
    unit = world.settled()
    unit.write("1", (CREATE, 1, 7, "first"))
    refuse(world)
    unit.write("2", (UPDATE, 70, 7, "bad 7"))
    unit.write("3", (DELETE, 90, 7))
    mend(world)


@pytest.mark.holds(guarantee=5, source="none", destination="postgresql", fault="no fault")
def test_a_deleted_row_is_not_brought_back_even_if_only_the_audit_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "supersede_deleted", lambda *_: None)
    deleted_after_it_was_refused(world)
    mark(world)
    replay(world)
    assert world.rows() == []
    [row] = aside(world)
    assert row.state is Aside.SUPERSEDED
    assert "deleted at version 90" in row.last_error


def test_without_the_look_at_deletions_a_row_would_be_brought_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test before and of the contract's."""
    monkeypatch.setattr(staging, "supersede_deleted", lambda *_: None)
    monkeypatch.setattr(replays, "overruled", lambda *_, **__: "")
    deleted_after_it_was_refused(world)
    mark(world)
    replay(world)
    assert world.rows() == [(7, "bad 7")]


def deleted_while_it_is_replayed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream deletes a row after the replay has looked for that and before it commits."""
    stream = with_bad_rows(world, 7)
    mend(world)
    mark(world)
    waiting = (
        "select 1 from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    deletions = []

    def hit(point: str) -> None:
        if point == "after_merge" and threading.current_thread() is threading.main_thread():
            deletions.append(pool.submit(stream.write, "2", (DELETE, 90, 7)))
            assert wait_until(lambda: bool(world.ask(waiting)), 20)

    monkeypatch.setattr(faults, "hit", hit)
    with ThreadPoolExecutor(1) as pool:
        replay(world)
        [deletion] = deletions
        deletion.result(20)


def test_a_row_deleted_while_it_is_replayed_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_while_it_is_replayed(world, monkeypatch)
    assert world.rows() == [(0, "fine")]


def test_without_the_table_to_itself_a_replay_would_overtake_the_deletion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test before."""
    edited(monkeypatch, "lock_tables_alone", "for update", "for share")
    deleted_while_it_is_replayed(world, monkeypatch)
    assert world.rows() == [(0, "fine"), (7, "bad 7")]


def test_a_softly_deleted_row_is_not_brought_back(world: World) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = with_bad_rows(world, 7, 8)
    unit.write("2", (CREATE, 60, 8, "good"))
    unit.write("3", (DELETE, 90, 8), (DELETE, 75, 7))
    mend(world)
    assert [state for state, _ in states(world)] == [Aside.SUPERSEDED] * 2
    assert world.rows(columns="id, is_deleted") == [(0, False), (8, True)]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Kind.INT64, 2**60),
        (Kind.TEXT, 'it\'s "7" % {}'),
        (Kind.UUID, bytes(range(16))),
        (Kind.TIMESTAMP, 1_700_000_000_123_456),
        (Kind.DATETIME, -5),
        (Kind.TIME, 86_399_999_999),
        (Kind.BYTES, b"\x00\xff"),
        (Kind.TAGGED, '"7"'),
    ],
)
def test_a_tombstone_overrules_what_was_set_aside_before_it_is_purged(
    world: World, kind: Kind, key: Any
) -> None:
    schema = TableSchema(ORDERS, (Column("id", kind), Column("name", Kind.TEXT)), ("id",))
    stream = world.unit()
    stream.create(schema)
    metadata = stream.destination.metadata()
    assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=0)
    refuse(world)
    stream.write("1", (DELETE, 9, key))
    chunk = world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0))
    chunk.write("s", (READ, 5, key, "bad"), phase=Phase.DONE)
    assert [state for state, _ in states(world)] == [Aside.WAITING]
    assert metadata.settle("shop", ORDERS)
    assert [state for state, _ in states(world)] == [Aside.SUPERSEDED]
    assert world.ask("select * from shop.orders") == []


def test_a_key_that_took_another_kind_is_compared_by_its_value(world: World) -> None:
    unit = with_bad_rows(world, 7, 8)
    mend(world)
    world.looking.execute("alter table shop.orders alter column id type numeric")
    have = unit.schema()
    decimal = replace(
        have, columns=(replace(have.columns[0], kind=Kind.DECIMAL), *have.columns[1:])
    )
    world.looking.execute(
        f"update {META}.schema_registry"
        " set columns = jsonb_set(columns, '{0,kind}', '\"decimal\"')"
    )
    assert unit.schema() == decimal
    world.looking.execute("insert into shop.orders (id, name, _cw_version) values (7, 'new', 99)")
    mark(world)
    replay(world)
    assert world.rows(columns="id::int, name") == [(0, "fine"), (7, "new"), (8, "bad 8")]


# ---------------------------------------------------------------- names


HOSTILE = TableId('sh"op %s {}', "x'; drop table y; -- %(a)s é")


def test_hostile_names_of_tables_columns_and_keys_are_only_names(world: World) -> None:
    column = "na\"me %s {0} '--"
    key = 'i"d %(v)s'
    schema = TableSchema(HOSTILE, (Column(key, Kind.TEXT), Column(column, Kind.TEXT)), (key,))
    unit = world.settled(schema)
    quoted = '"sh""op %s {}"."x\'; drop table y; -- %(a)s é"'
    refuse(world, quoted, '"na""me %s {0} \'--"')
    hostile_key = "k'\"%s{}\\"
    unit.write("1", (CREATE, 5, hostile_key, "bad"), (CREATE, 5, "other", "bad"), table=HOSTILE)
    unit.write("2", (DELETE, 9, "other"), table=HOSTILE)
    metadata = world.prepared().metadata()
    for name in (HOSTILE.name, str(HOSTILE)):
        assert len(metadata.quarantine(Choice(table=name, schemas=("shop",)))) == 2
    assert [state for state, _ in states(world)] == [Aside.WAITING, Aside.SUPERSEDED]
    mark(world, HOSTILE)
    mend(world, quoted)
    assert replay(world, WorkUnit.of_replay("shop", HOSTILE))
    assert world.ask(f"select * from {quoted.replace('%', '%%')}")[0][:2] == (hostile_key, "bad")
    assert states(world)[0] == (Aside.REPLAYED, 1)


@pytest.mark.parametrize(
    "unit",
    [
        WorkUnit.stream("web:a"),
        WorkUnit.poll("web:a", TableId("a:b", "c.d:1")),
        WorkUnit.of_chunk("web:a", Chunk(TableId("a:b", "c.d:1"), 3), 12),
        WorkUnit.of_replay("web:a", TableId("a:b", "c.d:1")),
    ],
    ids=lambda unit: unit.kind,
)
def test_the_schema_in_a_units_id_is_read_as_it_was_written(world: World, unit: WorkUnit) -> None:
    world.prepared()
    table = unit.table or TableId("a:b", "c.d:1")
    found = world.ask(
        f"select {META}.schema_of(%s, %s, %s)", [unit.id, table.namespace, table.name]
    )
    assert found == [("web:a",)]
    if unit.table is None:
        assert world.ask(f"select {META}.schema_of(%s, null, null)", [unit.id]) == [("web:a",)]


def test_the_units_of_the_tests_are_those_of_the_world() -> None:
    assert (STREAM.schema, TABLE.table, SCHEMA.table) == (REPLAY.schema, REPLAY.table, ORDERS)
