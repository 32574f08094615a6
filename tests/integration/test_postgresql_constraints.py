"""Rows that the destination's own constraints refuse: set aside, or landed in their time."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import postgresql_family
import programs
import psycopg
import pytest
from postgresql_family import CUSTOMER, CUSTOMERS, ORDER
from postgresql_world import (
    CREATE,
    DELETE,
    META,
    ORDERS,
    READ,
    TRUNCATE,
    UPDATE,
    Event,
    Unit,
    World,
)

from warp import faults
from warp.destinations.postgresql import careful, deferral
from warp.errors import DestinationRefused
from warp.model import (
    ABSENT,
    UNCHANGED,
    ChangeBatch,
    Chunk,
    Phase,
    Position,
    WorkUnit,
)
from warp.own_process import wait_until

POINTS = (
    ("before_marker", 4),
    ("after_marker", 3),
    ("after_table_lock", 4),
    ("in_copy", 9),
    ("after_copy", 2),
    ("after_merge", 9),
    ("after_deletes", 14),
    ("after_quarantine", 2),
    ("before_commit", 3),
    ("after_commit", 4),
)
"""Some of them lie inside the careful landing, where a row of the batch has been refused."""


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def do(world: World, statement: str) -> None:
    world.looking.execute(statement.encode())


def shop(world: World, *, deferrable: str = "") -> Unit:
    """A stream over orders, each of which refers to its customer."""
    unit = world.settled(CUSTOMER)
    table = WorkUnit.of_table("shop", ORDERS)
    unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
    unit.create(ORDER)
    do(
        world,
        "alter table shop.orders add constraint of_customer foreign key (customer)"
        f" references shop.customers (id) {deferrable}",
    )
    return unit


def both(unit: Unit, token: str, orders: list[Event], customers: list[Event]) -> None:
    """A batch that has the children first."""
    batch = unit.batch(token, *orders)
    batch.changes += unit.batch(token, *customers, table=CUSTOMERS).changes
    unit.deliver(batch)


def orders(world: World) -> list[Any]:
    return world.rows(columns="id, customer, name")


def waiting(world: World) -> list[Any]:
    return world.ask(f"select key, operation from {META}.deferred_rows order by id")


def aside(world: World) -> list[Any]:
    return world.ask(f"select key, code from {META}.quarantine order by id")


def look(world: World, unit: Unit) -> None:
    """The unit's own look at what waits, as if it had been waiting for a while."""
    do(world, f"update {META}.deferred_rows set tried_at = tried_at - interval '1h'")
    unit.destination._deferral._looked_at = float("-inf")
    batch = ChangeBatch([], Position("look"))
    after = unit.marker.advanced(batch)
    unit.destination.update_marker(after)
    unit.marker = after


# -- rows that can never land


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is sent to the server, COPY included."""
    sent: list[bytes] = []
    execute = psycopg.Connection.execute

    def counted(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(self, query, *arguments, **options)

    copy = psycopg.Cursor.copy

    def copied(self: Any, statement: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(statement)
        return copy(self, statement, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    monkeypatch.setattr(psycopg.Cursor, "copy", copied)
    return sent


@pytest.mark.parametrize("bad", [(0,), (7, 250, 499), (3, 4, 5, 6, 77, 300, 301, 400)])
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_k_bad_rows_of_n_are_found_in_k_log_n_statements(
    world: World, statements: list[bytes], bad: tuple[int, ...]
) -> None:
    unit = world.settled()
    do(world, "alter table shop.orders add check (name <> 'bad')")
    unit.write("0", (CREATE, 1, 1000, "good"))
    statements.clear()
    unit.write("1", *[(CREATE, 1, n, "bad" if n in bad else "good") for n in range(500)])
    assert len(world.rows()) == 501 - len(bad)
    assert [json.loads(key)["id"] for key, _ in aside(world)] == list(bad)
    each_try = 5  # a savepoint, COPY, the merge, the staging table emptied, the savepoint's end
    tries = 2 * len(bad) * math.ceil(math.log2(500)) + 1
    assert len(statements) <= each_try * tries + 20
    assert len(statements) < 500


def test_a_bad_row_is_kept_with_its_reason_its_values_its_key_and_its_position(
    world: World,
) -> None:
    unit = world.settled()
    do(world, "alter table shop.orders add constraint no_bad check (name <> 'bad')")
    written = unit.write("7", (CREATE, 1, 1, "good"), (UPDATE, 2, 2, "bad"))
    [[key, operation, row, reason, code, position, version]] = world.ask(
        f"select key, operation, row, reason, code, position, version from {META}.quarantine"
    )
    assert (json.loads(key), operation, json.loads(row)) == (
        {"id": 2},
        "u",
        {"id": 2, "name": "bad"},
    )
    assert "no_bad" in reason
    assert (code, position, version) == ("SQLSTATE 23514", "7", 2)
    assert written.counts == {(ORDERS, CREATE): 1}
    assert written.quarantined == {ORDERS: 1}


TRIGGER = """
create function shop.refuse() returns trigger language plpgsql as $$ begin
    if new.name = 'bad' then raise exception 'we do not take %', new.name {using}; end if;
    return new;
end $$;
create trigger refuses before insert or update on shop.orders
    for each row execute function shop.refuse();
"""


@pytest.mark.parametrize(
    ("using", "code"), [("", "P0001"), ("using errcode = '38001'", "38001")], ids=["P0", "38"]
)
def test_a_row_that_a_trigger_of_the_owner_refuses_is_set_aside(
    world: World, using: str, code: str
) -> None:
    unit = world.settled()
    do(world, TRIGGER.format(using=using))
    unit.write("1", (CREATE, 1, 1, "good"), (CREATE, 1, 2, "bad"), (CREATE, 1, 3, "good"))
    assert [row[0] for row in world.rows()] == [1, 3]
    assert aside(world) == [('{"id": 2}', f"SQLSTATE {code}")]


LATE_TRIGGER = """
create function shop.refuse() returns trigger language plpgsql as $$ begin
    if new.name = 'bad' then raise exception 'too late'; end if;
    return null;
end $$;
create constraint trigger refuses after insert or update on shop.orders
    deferrable initially deferred for each row execute function shop.refuse();
"""


@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_a_check_that_is_put_off_to_the_commit_sets_aside_the_bad_row_only(world: World) -> None:
    unit = world.settled()
    do(world, LATE_TRIGGER)
    unit.write("1", (CREATE, 1, 1, "good"), (CREATE, 1, 2, "bad"), (CREATE, 1, 3, "good"))
    assert [row[0] for row in world.rows()] == [1, 3]
    assert aside(world) == [('{"id": 2}', "SQLSTATE P0001")]


def test_a_foreign_key_that_is_put_off_to_the_commit_makes_its_row_wait(world: World) -> None:
    unit = shop(world, deferrable="deferrable initially deferred")
    unit.write("1", (CREATE, 1, 1, None, "good"), (CREATE, 1, 2, 9, "waits"))
    assert orders(world) == [(1, None, "good")]
    assert waiting(world) == [('{"id": 2}', "c")]


@pytest.mark.parametrize("event", [(CREATE, 1, 2, "bad"), (UPDATE, 1, 2, "bad")])
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_without_a_dead_letter_queue_the_unit_stops_and_names_the_row(
    world: World, event: Event
) -> None:
    world.table["dead_letter_queue"] = False
    unit = world.settled()
    do(world, "alter table shop.orders add check (name <> 'bad')")
    with pytest.raises(DestinationRefused, match=r'shop\.orders \{"id": 2\}'):
        unit.write("1", (CREATE, 1, 1, "good"), event)
    assert world.rows() == aside(world) == []


# -- children without their parent


@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_a_child_waits_for_its_parent_and_lands_with_it(world: World) -> None:
    unit = shop(world)
    written = unit.write("1", (CREATE, 1, 1, 7, "child"), (CREATE, 1, 2, None, "free"))
    assert orders(world) == [(2, None, "free")]
    assert (written.counts, written.deferred) == ({(ORDERS, CREATE): 1}, {ORDERS: 1})
    assert unit.destination.metadata().deferred() == {ORDERS: 1}
    written = unit.write("2", (CREATE, 2, 7, "parent"), table=CUSTOMERS)
    assert orders(world) == [(1, 7, "child"), (2, None, "free")]
    assert written.counts == {(CUSTOMERS, CREATE): 1, (ORDERS, CREATE): 1}
    assert waiting(world) == aside(world) == []


def test_without_the_deferral_a_child_would_be_in_quarantine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful, "OF_A_REFERENCE", frozenset())
    with pytest.raises(AssertionError):
        test_a_child_waits_for_its_parent_and_lands_with_it(world)
    assert aside(world) == [('{"id": 1}', "SQLSTATE 23503")]


def test_a_child_that_comes_before_its_parent_in_one_batch_lands_at_once(world: World) -> None:
    unit = shop(world)
    both(
        unit,
        "1",
        [(CREATE, 1, n, n % 3, "child") for n in range(200)],
        [(CREATE, 1, n, "parent") for n in range(3)],
    )
    assert len(orders(world)) == 200
    assert waiting(world) == aside(world) == []


def test_many_orphans_beside_a_bad_row_are_found_by_a_query_and_not_one_by_one(
    world: World, statements: list[bytes]
) -> None:
    unit = shop(world)
    unit.schema()
    statements.clear()
    events: list[Event] = [(CREATE, 1, n, n, "child") for n in range(200)]
    unit.write("1", *events, (CREATE, 1, 999, None, "bad \0"), (CREATE, 1, 998, None, "good"))
    assert len(waiting(world)) == 200
    assert [row[0] for row in orders(world)] == [998]
    assert len(aside(world)) == 1
    assert len(statements) < 300


def test_what_waits_is_told_in_the_error_log(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "child"), (CREATE, 1, 2, 7, "child"))
    assert world.ask(f"select code, action, cells from {META}.error_log") == [
        ("CELL-deferred", "deferred", 2)
    ]


def test_a_parent_that_another_connection_writes_at_the_same_time_is_found_later(
    world: World,
) -> None:
    """Neither transaction sees the other's row: only the child's own look finds both."""
    child = shop(world)
    parent = world.unit(WorkUnit.poll("shop", CUSTOMERS))
    with psycopg.connect(world.url) as slow:
        slow.execute(b"insert into shop.customers (id, name, _cw_version) values (7, 'x', 1)")
        child.write("1", (CREATE, 1, 1, 7, "child"))
    parent.write("1", (CREATE, 1, 8, "another"), table=CUSTOMERS)
    assert waiting(world) == [('{"id": 1}', "c")]
    look(world, child)
    assert orders(world) == [(1, 7, "child")]
    assert waiting(world) == []


@pytest.mark.parametrize("of", [range(25), [24], [3] * 25])
def test_more_children_than_are_tried_at_once_all_land_with_their_parents(
    world: World, monkeypatch: pytest.MonkeyPatch, of: list[int]
) -> None:
    monkeypatch.setattr(deferral, "_ROWS", 10)
    unit = shop(world)
    unit.write("1", *[(CREATE, 1, n, parent, "child") for n, parent in enumerate(of)])
    assert len(waiting(world)) == len(of)
    unit.write("2", *[(CREATE, 2, n, "parent") for n in range(25)], table=CUSTOMERS)
    assert len(orders(world)) == len(of)
    assert waiting(world) == []


def test_a_quiet_stream_is_told_when_it_is_time_to_look(world: World) -> None:
    unit = shop(world)
    assert not unit.destination.deferred_due("shop")
    unit.write("1", (CREATE, 1, 1, 7, "child"))
    assert wait_until(lambda: unit.destination.deferred_due("shop"), 30)


def test_two_units_that_write_children_and_parents_at_once_leave_nothing_behind(
    world: World,
) -> None:
    child = shop(world)
    parent = world.unit(WorkUnit.poll("shop", CUSTOMERS))

    def children() -> None:
        for n in range(15):
            child.write(str(n), *[(CREATE, n, n * 20 + k, n * 20 + k, "child") for k in range(20)])

    def parents() -> None:
        for n in range(15):
            events = [(CREATE, n, n * 20 + k, "parent") for k in range(20)]
            parent.write(str(n), *events, table=CUSTOMERS)

    threads = [threading.Thread(target=children), threading.Thread(target=parents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look(world, child)
    assert len(orders(world)) == 300
    assert waiting(world) == aside(world) == []


@pytest.mark.holds(guarantee=5, source="none", destination="postgresql", fault="no fault")
def test_a_deferred_row_that_is_deleted_never_comes_back(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "child"))
    unit.write("2", (DELETE, 2, 1))
    assert waiting(world) == []
    unit.write("3", (CREATE, 3, 7, "parent"), table=CUSTOMERS)
    look(world, unit)
    assert orders(world) == []


def test_a_deferred_row_that_is_deleted_in_the_batch_of_its_parent_never_comes_back(
    world: World,
) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "child"))
    both(unit, "2", [(DELETE, 2, 1)], [(CREATE, 2, 7, "parent")])
    look(world, unit)
    assert orders(world) == waiting(world) == []


def test_without_the_removal_of_older_rows_a_delete_would_be_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral, "_is_newer", lambda *_: False)
    with pytest.raises(AssertionError):
        test_a_deferred_row_that_is_deleted_never_comes_back(world)


def test_a_newer_change_takes_the_place_of_one_that_waits(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "old"))
    unit.write("2", (UPDATE, 2, 1, 8, "new"))
    assert waiting(world) == [('{"id": 1}', "u")]
    unit.write("3", (CREATE, 3, 7, "parent"), table=CUSTOMERS)
    assert orders(world) == []
    unit.write("4", (CREATE, 4, 8, "parent"), table=CUSTOMERS)
    assert orders(world) == [(1, 8, "new")]


def test_an_older_change_does_not_take_the_place_of_one_that_waits(world: World) -> None:
    unit = shop(world)
    unit.write("1", (UPDATE, 5, 1, 7, "new"))
    unit.write("2", (READ, 3, 1, 7, "old"))
    unit.write("3", (CREATE, 6, 7, "parent"), table=CUSTOMERS)
    look(world, unit)
    assert orders(world) == [(1, 7, "new")]
    assert waiting(world) == []


def test_a_change_of_some_cells_keeps_what_a_waiting_one_said_of_the_others(world: World) -> None:
    unit = shop(world)
    unit.write("0", (CREATE, 1, 2, None, "there"))
    unit.write("1", (CREATE, 1, 1, 7, "old"), (UPDATE, 2, 2, 7, UNCHANGED))
    unit.write("2", (UPDATE, 3, 1, UNCHANGED, "new"), (UPDATE, 3, 2, UNCHANGED, "renamed"))
    assert orders(world) == [(2, None, "there")]
    unit.write("3", (CREATE, 4, 7, "parent"), table=CUSTOMERS)
    assert orders(world) == [(1, 7, "new"), (2, 7, "renamed")]


def test_a_change_that_needs_no_parent_any_more_lands_at_once(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "old"))
    unit.write("2", (UPDATE, 2, 1, None, UNCHANGED))
    assert orders(world) == [(1, None, "old")]
    assert waiting(world) == []


def test_a_table_that_comes_up_twice_in_a_batch_keeps_the_order_of_what_waits(
    world: World,
) -> None:
    unit = shop(world)
    one = unit.batch("1", (CREATE, 1, 1, 7, "old"), (CREATE, 1, 2, 7, "old"))
    two = unit.batch("1", (UPDATE, 2, 1, UNCHANGED, "new"), (DELETE, 2, 2))
    unit.deliver(ChangeBatch([*one.changes, *two.changes], Position("1")))
    assert waiting(world) == [('{"id": 1}', "u")]
    unit.write("2", (CREATE, 3, 7, "parent"), table=CUSTOMERS)
    assert orders(world) == [(1, 7, "new")]


def test_a_truncation_ends_what_waits(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "child"))
    unit.write("2", (TRUNCATE, 2, ABSENT), (CREATE, 3, 2, 7, "after it"))
    assert waiting(world) == [('{"id": 2}', "c")]


def write_family(world: World, fault: str = "") -> int:
    environment = os.environ | {faults.VARIABLE: fault}
    fence = str(next(World.fences))  # above those of this process, however many tests came before
    return programs.run("postgresql_family", world.url, fence, env=environment).returncode


@pytest.mark.parametrize(("point", "nth"), POINTS)
@pytest.mark.holds(guarantee=(4, 7), source="none", destination="postgresql", fault="kill -9")
def test_a_process_killed_anywhere_neither_loses_nor_repeats_a_row_that_waits(
    world: World, point: str, nth: int
) -> None:
    shop(world)
    assert write_family(world, f"{point}:kill:{nth}") == -signal.SIGKILL
    [[batches]] = world.ask(f"select batch from {META}.sync_markers where kind = 'stream'")
    assert batches < postgresql_family.BATCHES
    assert write_family(world) == 0
    assert orders(world) == postgresql_family.landed()
    kept = [json.loads(key)["id"] for key, _ in waiting(world)]
    assert sorted(kept) == postgresql_family.waiting()
    assert aside(world) == []


# -- circles


def test_a_row_that_refers_to_its_own_table_waits_for_its_parent(world: World) -> None:
    unit = world.settled(ORDER)
    do(world, "alter table shop.orders add foreign key (customer) references shop.orders (id)")
    unit.write("1", (CREATE, 1, 3, 2, "c"), (CREATE, 1, 2, 1, "b"), (CREATE, 1, 9, 9, "itself"))
    assert [row[0] for row in orders(world)] == [9]
    unit.write("2", (CREATE, 2, 1, None, "a"))
    assert [row[0] for row in orders(world)] == [1, 2, 3, 9]
    assert waiting(world) == []


@pytest.mark.parametrize("deferrable", ["", "deferrable"])
@pytest.mark.parametrize("batches", [1, 2])
def test_rows_of_two_tables_that_refer_to_each_other_land_together(
    world: World, deferrable: str, batches: int
) -> None:
    unit = shop(world, deferrable=deferrable)
    do(
        world,
        "alter table shop.customers add foreign key (best) references shop.orders (id)"
        f" {deferrable}",
    )
    events: tuple[list[Event], list[Event]] = ([(CREATE, 1, 1, 7, "o")], [(CREATE, 1, 7, "c", 1)])
    if batches == 1:
        both(unit, "1", *events)
    else:
        unit.write("1", *events[0])
        unit.write("2", *events[1], table=CUSTOMERS)
    assert orders(world) == [(1, 7, "o")]
    assert world.rows("shop.customers", "id, best") == [(7, 1)]
    assert waiting(world) == aside(world) == []


# -- parents whose children are still there


def test_the_delete_of_a_parent_waits_until_its_children_are_gone(world: World) -> None:
    unit = shop(world)
    both(unit, "1", [(CREATE, 1, 1, 7, "child")], [(CREATE, 1, 7, "parent")])
    written = unit.write("2", (DELETE, 2, 7), table=CUSTOMERS)
    assert written.deferred == {CUSTOMERS: 1}
    assert waiting(world) == [('{"id": 7}', "d")]
    assert len(world.rows("shop.customers")) == 1
    do(world, f"update {META}.deferred_rows set tried_at = tried_at - interval '1h'")
    unit.write("3", (DELETE, 3, 1))
    assert world.rows("shop.customers") == waiting(world) == []
    assert world.ask(f"select source_table from {META}.deletion_audit order by id") == [
        ("orders",),
        ("customers",),
    ]


def test_a_parent_that_returns_is_not_taken_by_its_deferred_delete(world: World) -> None:
    unit = shop(world)
    both(unit, "1", [(CREATE, 1, 1, 7, "child")], [(CREATE, 1, 7, "parent")])
    unit.write("2", (DELETE, 2, 7), table=CUSTOMERS)
    unit.write("3", (CREATE, 3, 7, "again"), table=CUSTOMERS)
    unit.write("4", (DELETE, 4, 1))
    look(world, unit)
    assert world.rows("shop.customers") == [(7, "again")]
    assert waiting(world) == []


def test_parent_and_child_deleted_in_one_batch_go_together(world: World) -> None:
    unit = shop(world)
    both(unit, "1", [(CREATE, 1, 1, 7, "child")], [(CREATE, 1, 7, "parent")])
    batch = unit.batch("2", (DELETE, 2, 7), table=CUSTOMERS)
    batch.changes += unit.batch("2", (DELETE, 2, 1)).changes
    unit.deliver(batch)
    assert world.rows("shop.customers") == orders(world) == waiting(world) == []


def test_a_truncated_parent_keeps_the_rows_that_are_still_referred_to(world: World) -> None:
    unit = shop(world)
    both(
        unit,
        "1",
        [(CREATE, 1, 1, 7, "child")],
        [(CREATE, 1, 7, "parent"), (CREATE, 1, 8, "childless")],
    )
    written = unit.write("2", (TRUNCATE, 2, ABSENT), table=CUSTOMERS)
    assert world.rows("shop.customers") == [(7, "parent")]
    assert waiting(world) == [('{"id": 7}', "d")]
    assert written.counts == {(CUSTOMERS, TRUNCATE): 1}
    do(world, f"update {META}.deferred_rows set tried_at = tried_at - interval '1h'")
    unit.write("3", (TRUNCATE, 2, ABSENT))
    assert world.rows("shop.customers") == waiting(world) == []


# -- beside a snapshot


def snapshotted(world: World) -> tuple[Unit, Unit]:
    stream = shop(world)
    metadata = stream.destination.metadata()
    metadata.mark(WorkUnit.of_table("shop", ORDERS).id, Phase.PLANNED)
    assert metadata.plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=0)
    return stream, world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0))


def test_a_row_that_waits_since_a_snapshot_does_not_outlive_its_tombstone(world: World) -> None:
    stream, chunk = snapshotted(world)
    overrule = deferral.Deferral.overrule
    stream.write("1", (DELETE, 9, 1))  # before the chunk's row, or beside it unseen
    chunk.write("s", (READ, 5, 1, 7, "old"), (READ, 5, 2, 7, "old"), phase=Phase.DONE)
    do(
        world,
        f"insert into {META}.deferred_rows (unit, schema_name, source_namespace, source_table,"
        " constraint_name, parent_namespace, parent_table, reason, code, key, operation, row,"
        " kinds, version) select unit, schema_name, source_namespace, source_table,"
        " constraint_name, parent_namespace, parent_table, reason, code, '{\"id\": 1}', 'r',"
        f' \'{{"id": 1, "customer": 7}}\', kinds, version from {META}.deferred_rows',
    )
    assert stream.destination.metadata().settle("shop", ORDERS)
    assert waiting(world) == [('{"id": 2}', "r")]
    stream.write("2", (CREATE, 10, 7, "parent"), table=CUSTOMERS)
    look(world, stream)
    assert [row[0] for row in orders(world)] == [2]
    assert overrule is deferral.Deferral.overrule


def test_a_tombstone_that_is_still_referred_to_does_not_keep_its_table_from_settling(
    world: World,
) -> None:
    stream = shop(world)
    metadata = stream.destination.metadata()
    table = WorkUnit.of_table("shop", CUSTOMERS).id
    metadata.mark(table, Phase.PLANNED)
    assert metadata.plan_snapshot("shop", CUSTOMERS, [Chunk(CUSTOMERS, 0)], version=0)
    chunk = world.unit(WorkUnit.of_chunk("shop", Chunk(CUSTOMERS, 0), 0))
    chunk.write("s", (READ, 1, 7, "parent"), table=CUSTOMERS, phase=Phase.DONE)
    stream.write("1", (CREATE, 2, 1, 7, "child"))
    stream.write("2", (DELETE, 3, 7), table=CUSTOMERS)
    assert metadata.settle("shop", CUSTOMERS)
    assert waiting(world) == [('{"id": 7}', "d")]
    stream.write("3", (DELETE, 4, 1))
    look(world, stream)
    assert world.ask("select id from shop.customers") == waiting(world) == []


# -- what waits in vain


@pytest.mark.parametrize("limit", ["deferred_max_age", "deferred_max_tries"])
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_a_row_that_waits_in_vain_is_quarantined_after_its_time(world: World, limit: str) -> None:
    world.table[limit] = 1
    unit = shop(world)
    unit.write("5", (CREATE, 1, 1, 7, "orphan"))
    do(world, f"update {META}.deferred_rows set at = at - interval '2s', tries = 2")
    look(world, unit)
    assert waiting(world) == []
    [[key, row, reason, code, position]] = world.ask(
        f"select key, row, reason, code, position from {META}.quarantine"
    )
    assert json.loads(row) == {"id": 1, "customer": 7, "name": "orphan"}
    assert (key, code, position) == ('{"id": 1}', "SQLSTATE 23503", "5")
    assert "in vain" in reason
    assert unit.write("6").quarantined == {ORDERS: 1}


def test_without_a_dead_letter_queue_a_row_that_waits_in_vain_stops_the_unit(
    world: World,
) -> None:
    world.table |= {"dead_letter_queue": False, "deferred_max_age": 1.0}
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "orphan"))
    do(world, f"update {META}.deferred_rows set at = at - interval '2s'")
    with pytest.raises(DestinationRefused, match=r'shop\.orders \{"id": 1\}'):
        look(world, unit)
    assert len(waiting(world)) == 1


def test_a_row_whose_column_changed_its_kind_meanwhile_is_quarantined_whole(world: World) -> None:
    unit = shop(world)
    unit.write("1", (CREATE, 1, 1, 7, "child"))
    do(world, f'update {META}.deferred_rows set kinds = kinds || \'{{"customer": "text"}}\'')
    do(world, f"update {META}.deferred_rows set row = replace(row, '7', '\"7\"')")
    look(world, unit)
    assert waiting(world) == []
    assert aside(world) == [('{"id": 1}', "SCHEMA")]


# -- unique values


def unique(world: World, index: str = "create unique index on shop.orders (name)") -> Unit:
    unit = world.settled(ORDER)
    do(world, index)
    return unit


@pytest.mark.holds(guarantee=5, source="none", destination="postgresql", fault="no fault")
def test_duplicate_keys_are_upserts_and_the_last_by_source_order_wins(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 5, 1, "fifth"))
    unit.write("2", (CREATE, 3, 1, "third, and late"), (CREATE, 9, 2, "ninth"))
    unit.write("3", (UPDATE, 4, 1, "fourth, and later"), (CREATE, 8, 2, "eighth"))
    assert world.rows() == [(1, "fifth"), (2, "ninth")]
    assert aside(world) == waiting(world) == []


INDEXES = {
    "column": "create unique index on shop.orders (name)",
    "columns": "create unique index on shop.orders (name, customer)",
    "expression": "create unique index on shop.orders (lower(name))",
    "partial": "create unique index on shop.orders (name) where name like '%%'",
    "constraint": "alter table shop.orders add unique (name)",
    "deferrable": "alter table shop.orders add unique (name) deferrable",
    "exclusion": "alter table shop.orders add exclude using btree (name with =)",
}


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("count", [2, 3, 40])
@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_rows_that_swap_their_unique_values_in_one_batch_land(
    world: World, index: str, count: int
) -> None:
    unit = unique(world, INDEXES[index])
    unit.write("1", *[(CREATE, 1, n, 0, f"v{n}") for n in range(count)])
    unit.write("2", *[(UPDATE, 2, n, 0, f"v{(n + 1) % count}") for n in range(count)])
    assert orders(world) == [(n, 0, f"v{(n + 1) % count}") for n in range(count)]
    assert aside(world) == waiting(world) == []


def test_without_vacating_a_swap_would_not_land(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful._Attempt, "vacate", lambda *_: None)
    with pytest.raises(AssertionError):
        test_rows_that_swap_their_unique_values_in_one_batch_land(world, "column", 2)


def test_a_swap_keeps_columns_and_cells_that_it_does_not_speak_of(world: World) -> None:
    unit = unique(world)
    do(world, "alter table shop.orders add column theirs text")
    unit.write("1", (CREATE, 1, 1, 10, "a"), (CREATE, 1, 2, 20, "b"), (CREATE, 1, 3, 30, "c"))
    do(world, "update shop.orders set theirs = 'kept ' || id")
    unit.write(
        "2", (UPDATE, 2, 1, UNCHANGED, "b"), (UPDATE, 2, 2, 21, "a"), (UPDATE, 2, 3, 31, UNCHANGED)
    )
    assert world.rows(columns="id, customer, name, theirs") == [
        (1, 10, "b", "kept 1"),
        (2, 21, "a", "kept 2"),
        (3, 31, "c", "kept 3"),
    ]
    assert aside(world) == waiting(world) == []


def test_a_column_that_is_never_null_is_swapped_where_its_check_can_be_put_off(
    world: World,
) -> None:
    unit = unique(world, INDEXES["deferrable"])
    do(world, "alter table shop.orders alter column name set not null")
    unit.write("1", (CREATE, 1, 1, 0, "a"), (CREATE, 1, 2, 0, "b"))
    unit.write("2", (UPDATE, 2, 1, 0, "b"), (UPDATE, 2, 2, 0, "a"))
    assert [row[2] for row in orders(world)] == ["b", "a"]
    assert aside(world) == waiting(world) == []


def test_a_unique_value_moves_from_a_deleted_row_to_a_new_one(world: World) -> None:
    unit = unique(world)
    unit.write("1", (CREATE, 1, 1, 0, "a"))
    unit.write("2", (CREATE, 2, 2, 0, "a"), (DELETE, 2, 1))
    assert orders(world) == [(2, 0, "a")]
    assert aside(world) == waiting(world) == []


def test_a_swap_beside_a_row_that_cannot_land_leaves_that_one_as_it_was(world: World) -> None:
    unit = unique(world)
    names = "abcd"
    unit.write("1", *[(CREATE, 1, n, 0, name) for n, name in enumerate(names)])
    unit.write("2", (UPDATE, 2, 0, 0, "b"), (UPDATE, 2, 1, 0, "a"), (UPDATE, 2, 2, 0, "d"))
    assert orders(world) == [(0, 0, "b"), (1, 0, "a"), (2, 0, "c"), (3, 0, "d")]
    assert waiting(world) == [('{"id": 2}', "u")]
    unit.write("3", (UPDATE, 3, 3, 0, "c"))
    assert [row[2] for row in orders(world)] == ["b", "a", "d", "c"]
    assert waiting(world) == aside(world) == []


def test_a_swap_that_is_cut_between_two_batches_lands_with_the_second(world: World) -> None:
    unit = unique(world)
    unit.write("1", (CREATE, 1, 1, 0, "a"), (CREATE, 1, 2, 0, "b"))
    unit.write("2", (UPDATE, 2, 1, 0, "b"))
    assert orders(world) == [(1, 0, "a"), (2, 0, "b")]
    unit.write("3", (UPDATE, 2, 2, 0, "a"))
    assert orders(world) == [(1, 0, "b"), (2, 0, "a")]
    assert waiting(world) == aside(world) == []


def test_a_value_that_two_rows_of_the_source_have_is_quarantined_after_its_time(
    world: World,
) -> None:
    world.table["deferred_max_age"] = 1.0
    unit = unique(world)
    unit.write("1", (CREATE, 1, 1, 0, "same"), (CREATE, 1, 2, 0, "same"))
    assert orders(world) == [(1, 0, "same")]
    do(world, f"update {META}.deferred_rows set at = at - interval '2s'")
    look(world, unit)
    assert waiting(world) == []
    assert aside(world) == [('{"id": 2}', "SQLSTATE 23505")]


def test_a_swap_beside_a_value_that_cannot_be_stored_lands(world: World) -> None:
    unit = unique(world)
    unit.write("1", (CREATE, 1, 1, 0, "a"), (CREATE, 1, 2, 0, "b"))
    unit.write("2", (UPDATE, 2, 1, 0, "b"), (CREATE, 2, 3, 0, "bad \0"), (UPDATE, 2, 2, 0, "a"))
    assert orders(world) == [(1, 0, "b"), (2, 0, "a")]
    assert waiting(world) == []
    assert len(aside(world)) == 1


def test_a_swap_that_a_check_of_the_owner_forbids_waits_and_stops_nobody(world: World) -> None:
    unit = unique(world)
    do(world, "alter table shop.orders add check (_cw_deleted or name is not null)")
    unit.write("1", (CREATE, 1, 1, 0, "a"), (CREATE, 1, 2, 0, "b"))
    unit.write("2", (UPDATE, 2, 1, 0, "b"), (UPDATE, 2, 2, 0, "a"), (CREATE, 2, 3, 0, "c"))
    assert orders(world) == [(1, 0, "a"), (2, 0, "b"), (3, 0, "c")]
    assert waiting(world) == [('{"id": 1}', "u"), ('{"id": 2}', "u")]
    assert aside(world) == []


def test_children_of_a_swapped_row_stay(world: World) -> None:
    unit = shop(world)
    do(world, "alter table shop.orders drop constraint of_customer")
    do(
        world,
        "alter table shop.orders add foreign key (customer) references shop.customers (id)"
        " on delete cascade",
    )
    do(world, "create unique index on shop.customers (name)")
    both(
        unit,
        "1",
        [(CREATE, 1, n, n, "child") for n in (1, 2)],
        [(CREATE, 1, 1, "a"), (CREATE, 1, 2, "b")],
    )
    unit.write("2", (UPDATE, 2, 1, "b"), (UPDATE, 2, 2, "a"), table=CUSTOMERS)
    assert world.rows("shop.customers") == [(1, "b"), (2, "a")]
    assert len(orders(world)) == 2
