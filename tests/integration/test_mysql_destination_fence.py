"""Guarantees 1, 2 and 7 on a real MariaDB, each with a twin in which its guard is removed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pymysql
import pytest
from fix_servers import Server
from mysql_destination_world import (
    CREATE,
    DELETE,
    ORDERS,
    STREAM,
    UPDATE,
    World,
    aside,
)
from mysql_destination_writer import BATCHES

from warp import faults, sql
from warp.destinations.mysql import session
from warp.destinations.mysql.connector import MysqlDestination
from warp.destinations.mysql.transaction import Transactions
from warp.errors import DestinationUnavailable, FenceBehind, SchemaMoved
from warp.model import Change, ChangeBatch, Chunk, Column, Kind, Position, SchemaChange, WorkUnit
from warp.own_process import Running, wait_until

POINTS = (
    "before_marker",
    "after_marker",
    "after_table_lock",
    "in_load",
    "after_copy",
    "after_deletes",
    "after_merge",
    "after_quarantine",
    "before_commit",
    "after_commit",
)


@pytest.fixture
def world(mariadb: Server) -> Iterator[World]:
    world = World(mariadb.url)
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
    assert world.of_meta("count(*)", "quarantine") == [(0,)]
    assert world.unit().marker.position == Position("1", 1_000.5)


@pytest.mark.holds(guarantee=2, source="none", destination="mariadb", fault="superseded")
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


@pytest.mark.holds(guarantee=2, source="none", destination="mariadb", fault="superseded")
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
    assert world.of_meta("count(*)", "quarantine") == [(1,)]


def test_a_batch_is_written_on_top_of_the_one_it_follows_only(world: World) -> None:
    a_batch_is_written_on_top_of_the_one_it_follows_only(world)


def test_without_the_batch_number_a_batch_is_written_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "advance_marker", "and batch = %(batch)s - 1", "")
    breaks(a_batch_is_written_on_top_of_the_one_it_follows_only, world)


@pytest.mark.holds(guarantee=2, source="none", destination="mariadb", fault="superseded")
def test_a_chunk_of_an_earlier_epoch_writes_nothing(world: World) -> None:
    stream = world.unit()
    stream.create()
    chunk = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
    stream.destination.metadata().plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=1)
    stream.write("1", reload=[ORDERS])
    late = world.unit(chunk)  # its marker is gone, so it is a stranger's
    with pytest.raises(FenceBehind):
        late.write("s", (CREATE, 1, 1, "old"))
    assert world.rows() == []


# -- guarantee 1


def a_failure_anywhere_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, points: tuple[str, ...]
) -> None:
    class Struck(Exception):
        pass

    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    for point in points:

        def hit(name: str, point: str = point) -> None:
            if name == point:
                raise Struck

        with monkeypatch.context() as patch:
            patch.setattr(faults, "hit", hit)
            with pytest.raises(Struck):
                unit.write("2", (UPDATE, 2, 1, "z"), (DELETE, 2, 2), quarantined=[aside()])
        assert world.rows() == [(1, "a"), (2, "b")], point
        assert world.of_meta("count(*)", "quarantine") == [(0,)], point
        assert world.of_meta("count(*)", "deletion_audit") == [(0,)], point
    unit.write("2", (UPDATE, 2, 1, "z"), (DELETE, 2, 2), quarantined=[aside()])
    assert world.rows() == [(1, "z")]
    for table in ("quarantine", "deletion_audit"):
        assert world.of_meta("count(*)", table) == [(1,)]


@pytest.mark.holds(guarantee=1, source="none", destination="mariadb", fault="error")
def test_a_failure_anywhere_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_failure_anywhere_leaves_nothing_behind(world, monkeypatch, POINTS[:-1])


def test_with_the_marker_in_a_transaction_of_its_own_a_failure_leaves_it_moved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Transactions._advance

    def alone(self: Transactions, marker: Any) -> None:
        advance(self, marker)
        self._session.run("COMMIT")
        self._session.run("BEGIN")

    monkeypatch.setattr(Transactions, "_advance", alone)
    with pytest.raises(FenceBehind):  # the batch was lost: nobody may write it any more
        a_failure_anywhere_leaves_nothing_behind(world, monkeypatch, ("after_merge",))


def test_a_statement_that_commits_by_itself_would_be_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of temporary staging tables: a plain one ends the transaction it is made in."""
    lock = Transactions._lock_tables

    def making_a_table(self: Transactions, *given: Any) -> Any:
        self._session.run(f"create table if not exists `{world.shop}`.plain (n int)")
        return lock(self, *given)

    monkeypatch.setattr(Transactions, "_lock_tables", making_a_table)
    with pytest.raises((AssertionError, FenceBehind)):
        a_failure_anywhere_leaves_nothing_behind(world, monkeypatch, ("after_merge",))


# -- guarantee 7


@contextlib.contextmanager
def writer(world: World, fence: int, fault: str = "") -> Iterator[Running]:
    environment = os.environ | {faults.VARIABLE: fault}
    process = programs.start(
        "mysql_destination_writer", world.url, world.name, str(fence), env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(world: World) -> None:
    """A successor writes what is left."""
    with writer(world, 2_000_000) as successor:
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
    assert world.ask(f"select id from {world.shop}.orders where _extra is not null order by 1") == [
        (n,) for n in sorted(kept)
    ]
    assert world.of_meta("`key`", "quarantine", "order by id") == [
        (str(n + 1),) for n in range(BATCHES)
    ]
    found = world.of_meta("json_value(`key`, '$.id') + 0", "deletion_audit", "order by 1")
    assert [int(n) for (n,) in found] == sorted(gone)


# Where each is left by an error is above; a killed process is the same to the server.
@pytest.mark.parametrize("point", ["after_marker", "in_load", "before_commit", "after_commit"])
@pytest.mark.holds(guarantee=(1, 7), source="none", destination="mariadb", fault="kill -9")
def test_a_process_killed_anywhere_in_a_write_loses_and_repeats_nothing(
    world: World, point: str
) -> None:
    world.unit()
    with writer(world, 1_000_000, f"{point}:kill:2") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    with pytest.raises((AssertionError, pymysql.err.ProgrammingError)):
        complete(world)
    finish(world)


@pytest.mark.parametrize("point", ["after_marker", "before_commit"])
@pytest.mark.holds(guarantee=2, source="none", destination="mariadb", fault="SIGSTOP")
def test_a_writer_paused_inside_its_transaction_does_not_hold_up_its_successor(
    world: World, point: str
) -> None:
    world.unit()
    with writer(world, 1_000_000, f"{point}:stop:3") as paused:
        assert wait_until(lambda: _stopped(paused.pid), 60)
        finish(world)
        os.kill(paused.pid, signal.SIGCONT)
        assert paused.wait(60) != 0  # its connection is gone
        complete(world)


def test_without_the_end_of_the_paused_connection_its_successor_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MysqlDestination, "_end_superseded", lambda self, lease: None)
    paused = world.settled()
    paused.destination._session.run("BEGIN")
    paused.destination._transactions._advance(
        paused.marker.advanced(ChangeBatch([], Position("1")))
    )
    world.options["lock_timeout"] = "1s"
    with pytest.raises(DestinationUnavailable, match="1205"):
        world.unit()
    monkeypatch.undo()
    assert world.unit().marker.position is None
    with pytest.raises(DestinationUnavailable):  # the first to notice that its connection is gone
        paused.write("1")


def _stopped(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


class LostAtCommit:
    """Makes the connection of one destination break at its next COMMIT."""

    def __init__(self, destination: Any, *, after: bool, unreachable: bool = False) -> None:
        self.session = destination._session
        self.after = after
        self.run = self.session.run
        self.connecting = self.session._connect
        self.session.run = self
        self.unreachable = unreachable

    def __call__(self, statement: str, *arguments: Any) -> Any:
        if statement != "COMMIT":
            return self.run(statement, *arguments)
        self.session.run = self.run
        if self.after:
            self.run(statement)
        self.session.close()
        if self.unreachable:
            self.session._connect = self.refuse
        raise pymysql.err.OperationalError(2013, "Lost connection to server during query")

    def refuse(self) -> Any:
        self.session._connect = self.connecting
        raise DestinationUnavailable("connection refused")


@pytest.mark.holds(guarantee=7, source="none", destination="mariadb", fault="lost connection")
def test_a_commit_that_happened_is_found_out_when_nobody_reported_it(world: World) -> None:
    unit = world.settled()
    LostAtCommit(unit.destination, after=True)
    unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside()])
    unit.write("2", (CREATE, 2, 2, "b"))
    assert world.rows() == [(1, "a"), (2, "b")]
    assert world.of_meta("count(*)", "quarantine") == [(1,)]


@pytest.mark.holds(guarantee=7, source="none", destination="mariadb", fault="lost connection")
def test_a_commit_that_did_not_happen_is_tried_again_by_the_caller(world: World) -> None:
    unit = world.settled()
    LostAtCommit(unit.destination, after=False)
    with pytest.raises(DestinationUnavailable, match="did not happen"):
        unit.write("1", (CREATE, 1, 1, "a"))
    assert world.rows() == []
    unit.write("1", (CREATE, 1, 1, "a"))
    assert world.rows() == [(1, "a")]


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.holds(guarantee=7, source="none", destination="mariadb", fault="lost connection")
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
    assert world.of_meta("count(*)", "quarantine") == [(1,)]


# -- beside DDL


def test_a_batch_of_an_older_schema_is_refused(world: World) -> None:
    unit = world.settled()
    batch = unit.batch("1", (CREATE, 1, 1, "a"))
    add = SchemaChange(ORDERS, Change.ADD_COLUMN, column=Column("colour", Kind.TEXT), base=1)
    world.destination().apply_schema_changes([add])
    with pytest.raises(SchemaMoved):
        unit.deliver(batch)
    assert world.of_meta("position", "sync_markers", f"where unit = '{STREAM.id}'") == [(None,)]


@pytest.mark.parametrize("point", ["after_alter", "after_register"])
@pytest.mark.holds(guarantee=7, source="none", destination="mariadb", fault="error")
def test_a_schema_change_cut_short_anywhere_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Struck(Exception):
        pass

    def hit(name: str) -> None:
        if name == point:
            raise Struck

    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a", b'{"colour": "red", "n": 1.10}'))
    colour = Column("colour", Kind.TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(faults, "hit", hit)
        with pytest.raises(Struck):
            unit.change(Change.ADD_COLUMN, colour)
    assert unit.schema().version == 1
    schema = unit.change(Change.ADD_COLUMN, colour)
    assert schema.version == 2
    assert world.rows("id, colour, _extra") == [(1, "red", '{"n": 1.10}')]
