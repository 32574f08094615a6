"""Guarantees 1, 2 and 7 on a real PostgreSQL, each with a twin in which its guard is removed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
from postgresql_world import (
    CREATE,
    DELETE,
    META,
    ORDERS,
    STREAM,
    UPDATE,
    World,
    aside,
)
from postgresql_writer import BATCHES

from warp import faults, sql
from warp.destinations.postgresql import session
from warp.destinations.postgresql.transaction import Transactions
from warp.errors import DestinationUnavailable, FenceBehind, SchemaMoved
from warp.model import Change, ChangeBatch, Chunk, Column, Kind, Position, SchemaChange, WorkUnit
from warp.own_process import Running, wait_until

POINTS = (
    "before_marker",
    "after_marker",
    "after_table_lock",
    "in_copy",
    "after_copy",
    "after_merge",
    "after_deletes",
    "after_quarantine",
    "before_commit",
    "after_commit",
)


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def edited(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """The broken twin: this statement without the words that guard it."""

    def load(dialect: str, wanted: str) -> str:
        text = sql.load(dialect, wanted)
        if wanted != name:
            return text
        assert old in text
        return text.replace(old, new)

    monkeypatch.setattr(session, "load", load)


def breaks(scenario: Callable[[World], None], world: World) -> None:
    """The twin's guarantee does not hold: its test must fail."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        scenario(world)


# -- guarantee 2


def an_old_owner_writes_neither_rows_nor_marker(world: World) -> None:
    old = world.settled()
    old.write("1", (CREATE, 1, 1, "a"))
    new = world.unit()
    with pytest.raises(FenceBehind) as caught:
        old.write("2", (CREATE, 2, 2, "b"), quarantined=[aside()])
    assert caught.value.found == new.lease.fence
    with pytest.raises(FenceBehind):
        old.destination.update_marker(old.marker.advanced(ChangeBatch([], Position("3"))))
    assert world.rows() == [(1, "a")]
    assert world.ask(f"select count(*) from {META}.quarantine") == [(0,)]
    assert world.unit().marker.position == Position("1", 1_000.5)


@pytest.mark.holds(guarantee=2, source="none", destination="postgresql", fault="superseded")
def test_an_old_owner_writes_neither_rows_nor_marker(world: World) -> None:
    an_old_owner_writes_neither_rows_nor_marker(world)


def test_without_the_fence_in_each_write_an_old_owner_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "advance_marker", "and fence = %(fence)s", "")
    breaks(an_old_owner_writes_neither_rows_nor_marker, world)


def a_superseded_worker_cannot_adopt_again(world: World) -> None:
    old = world.settled()
    world.unit()
    with pytest.raises(FenceBehind):
        world.destination().open(old.lease)
    with pytest.raises(FenceBehind):
        old.write("1", (CREATE, 1, 1, "a"))


@pytest.mark.holds(guarantee=2, source="none", destination="postgresql", fault="superseded")
def test_a_superseded_worker_cannot_adopt_again(world: World) -> None:
    a_superseded_worker_cannot_adopt_again(world)


def test_without_the_fence_in_the_adoption_a_superseded_worker_adopts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "adopt_marker", "and fence < %(fence)s", "")
    breaks(a_superseded_worker_cannot_adopt_again, world)


def a_batch_is_written_on_top_of_the_one_it_follows_only(world: World) -> None:
    unit = world.settled()
    before = unit.marker
    unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside()])
    unit.marker = before  # as if nobody had told us that it was committed
    with pytest.raises(FenceBehind):
        unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside()])
    assert world.ask(f"select count(*) from {META}.quarantine") == [(1,)]


def test_a_batch_is_written_on_top_of_the_one_it_follows_only(world: World) -> None:
    a_batch_is_written_on_top_of_the_one_it_follows_only(world)


def test_without_the_batch_number_a_batch_is_written_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "advance_marker", "and batch = %(batch)s - 1", "")
    breaks(a_batch_is_written_on_top_of_the_one_it_follows_only, world)


def a_chunk_of_an_earlier_epoch_writes_nothing(world: World) -> None:
    stream = world.unit()
    stream.create()
    chunk = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
    stream.destination.metadata().plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=1)
    stream.write("1", reload=[ORDERS])
    late = world.unit(chunk)  # its marker is gone, so it is a stranger's
    with pytest.raises(FenceBehind):
        late.write("s", (CREATE, 1, 1, "old"))
    assert world.rows() == []


@pytest.mark.holds(guarantee=2, source="none", destination="postgresql", fault="superseded")
def test_a_chunk_of_an_earlier_epoch_writes_nothing(world: World) -> None:
    a_chunk_of_an_earlier_epoch_writes_nothing(world)


# -- guarantee 1


def a_failure_anywhere_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Struck(Exception):
        pass

    def hit(name: str) -> None:
        if name == point:
            raise Struck

    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    with monkeypatch.context() as patch:
        patch.setattr(faults, "hit", hit)
        with pytest.raises(Struck):
            unit.write("2", (UPDATE, 2, 1, "z"), (DELETE, 2, 2), quarantined=[aside()])
    assert world.rows() == [(1, "a"), (2, "b")]
    assert world.ask(f"select count(*) from {META}.quarantine") == [(0,)]
    assert world.ask(f"select count(*) from {META}.deletion_audit") == [(0,)]
    unit.write("2", (UPDATE, 2, 1, "z"), (DELETE, 2, 2), quarantined=[aside()])
    assert world.rows() == [(1, "z")]
    for table in ("quarantine", "deletion_audit"):
        assert world.ask(f"select count(*) from {META}.{table}") == [(1,)]


@pytest.mark.parametrize("point", POINTS[:-1])
@pytest.mark.holds(guarantee=1, source="none", destination="postgresql", fault="error")
def test_a_failure_anywhere_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    a_failure_anywhere_leaves_nothing_behind(world, monkeypatch, point)


def test_with_the_marker_in_a_transaction_of_its_own_a_failure_leaves_it_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Transactions._advance

    def alone(self: Transactions, marker: Any) -> None:
        advance(self, marker)
        self._session.run(b"COMMIT")
        self._session.run(b"BEGIN")

    monkeypatch.setattr(Transactions, "_advance", alone)
    with pytest.raises(FenceBehind):  # the batch was lost: nobody may write it any more
        a_failure_anywhere_leaves_nothing_behind(world, monkeypatch, "after_merge")


# -- guarantee 7


@contextlib.contextmanager
def writer(url: str, fence: int, fault: str = "") -> Iterator[Running]:
    environment = os.environ | {faults.VARIABLE: fault}
    process = programs.start("postgresql_writer", url, str(fence), env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(world: World) -> None:
    """A successor writes what is left."""
    with writer(world.url, 200) as successor:
        assert successor.wait(60) == 0
    complete(world)


def complete(world: World) -> None:
    """What five batches leave behind, whoever wrote them and however often they died."""
    gone = {n * 10 + 3 for n in range(1, BATCHES)}
    changed = {n * 10 + 1 for n in range(1, BATCHES)}
    assert world.rows() == [
        (n, "changed" if n in changed else f"row {n}")
        for n in range(10, 10 * BATCHES + 10)
        if n not in gone
    ]
    kept = {n * 10 + 2 for n in range(1, BATCHES)}
    assert world.ask("select id from shop.orders where _extra is not null order by 1") == [
        (n,) for n in sorted(kept)
    ]
    assert world.ask(f"select key from {META}.quarantine order by id") == [
        (str(n + 1),) for n in range(BATCHES)
    ]
    assert world.ask(f"select (key ->> 'id')::int from {META}.deletion_audit order by id") == [
        (n,) for n in sorted(gone)
    ]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.holds(guarantee=(1, 7), source="none", destination="postgresql", fault="kill -9")
def test_a_process_killed_anywhere_in_a_write_loses_and_repeats_nothing(
    world: World, point: str
) -> None:
    with writer(world.url, 100, f"{point}:kill:2") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    with pytest.raises(AssertionError):
        complete(world)
    finish(world)


def backends_in_transaction(world: World) -> int:
    [[count]] = world.ask(
        "select count(*) from pg_stat_activity where application_name = 'cartridge-warp'"
        " and datname = current_database() and xact_start is not null"
    )
    return int(count)


@pytest.mark.parametrize("point", ["after_marker", "in_copy", "before_commit"])
@pytest.mark.holds(guarantee=2, source="none", destination="postgresql", fault="SIGSTOP")
def test_a_writer_paused_inside_its_transaction_does_not_hold_up_its_successor(
    world: World, point: str
) -> None:
    with writer(world.url, 100, f"{point}:stop:3") as paused:
        assert wait_until(lambda: _stopped(paused.pid), 60)
        assert backends_in_transaction(world) == 1
        finish(world)
        os.kill(paused.pid, signal.SIGCONT)
        assert paused.wait(60) != 0  # its connection is gone
        complete(world)


def _stopped(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


@pytest.mark.holds(guarantee=2, source="none", destination="postgresql", fault="SIGSTOP")
def test_the_server_ends_the_transaction_of_a_paused_writer_by_itself(world: World) -> None:
    world.options["idle_in_transaction_session_timeout"] = "2s"
    unit = world.settled()
    unit.destination._session.run(b"BEGIN")
    unit.destination._transactions._advance(unit.marker.advanced(ChangeBatch([], Position("1"))))
    assert backends_in_transaction(world) == 1
    assert wait_until(lambda: backends_in_transaction(world) == 0, 30)
    with pytest.raises(DestinationUnavailable):
        unit.write("1", (CREATE, 1, 1, "a"))  # the first to notice that the connection is gone
    unit.write("1", (CREATE, 1, 1, "a"))
    assert world.rows() == [(1, "a")]


class LostAtCommit:
    """Makes the connection of one destination break at its next COMMIT."""

    def __init__(self, destination: Any, *, after: bool, unreachable: bool = False) -> None:
        self.session = destination._session
        self.after = after
        self.run = self.session.run
        self.connecting = self.session._connect
        self.session.run = self
        self.unreachable = unreachable

    def __call__(self, statement: Any, *arguments: Any, **options: Any) -> Any:
        if statement != b"COMMIT":
            return self.run(statement, *arguments, **options)
        self.session.run = self.run
        if self.after:
            self.run(statement)
        self.session.close()
        if self.unreachable:
            self.session._connect = self.refuse
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def refuse(self) -> Any:
        self.session._connect = self.connecting
        raise DestinationUnavailable("connection refused")


@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="lost connection")
def test_a_commit_that_happened_is_found_out_when_nobody_reported_it(world: World) -> None:
    unit = world.settled()
    LostAtCommit(unit.destination, after=True)
    unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside()])
    unit.write("2", (CREATE, 2, 2, "b"))
    assert world.rows() == [(1, "a"), (2, "b")]
    assert world.ask(f"select count(*) from {META}.quarantine") == [(1,)]


@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="lost connection")
def test_a_commit_that_did_not_happen_is_tried_again_by_the_caller(world: World) -> None:
    unit = world.settled()
    LostAtCommit(unit.destination, after=False)
    with pytest.raises(DestinationUnavailable, match="did not happen"):
        unit.write("1", (CREATE, 1, 1, "a"))
    assert world.rows() == []
    unit.write("1", (CREATE, 1, 1, "a"))
    assert world.rows() == [(1, "a")]


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.holds(guarantee=7, source="none", destination="postgresql", fault="lost connection")
def test_an_outcome_that_could_not_be_asked_for_is_asked_for_at_the_next_try(
    world: World, happened: bool
) -> None:
    unit = world.settled()
    batch = unit.batch("1", (CREATE, 1, 1, "a"))
    LostAtCommit(unit.destination, after=happened, unreachable=True)
    with pytest.raises(DestinationUnavailable, match="refused"):
        unit.deliver(batch, quarantined=[aside()])
    unit.deliver(batch, quarantined=[aside()])
    assert world.rows() == [(1, "a")]
    assert world.ask(f"select count(*) from {META}.quarantine") == [(1,)]


def test_another_batch_is_not_taken_for_the_one_whose_outcome_is_unknown(world: World) -> None:
    unit = world.settled()
    LostAtCommit(unit.destination, after=True, unreachable=True)
    with pytest.raises(DestinationUnavailable):
        unit.write("1", (CREATE, 1, 1, "a"))
    with pytest.raises(FenceBehind):  # same position and number, but more rows: nothing is lost
        unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))


# -- beside DDL


def test_a_batch_waits_for_a_schema_change_and_is_then_refused(world: World) -> None:
    unit = world.settled()
    batch = unit.batch("1", (CREATE, 1, 1, "a"))
    add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=Column("colour", Kind.TEXT), base=1)
    world.destination().apply_schema_changes([add])
    with pytest.raises(SchemaMoved):
        unit.deliver(batch)
    assert world.ask(f"select position from {META}.sync_markers where unit = '{STREAM.id}'") == [
        (None,)
    ]
