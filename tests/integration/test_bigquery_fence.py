"""Guarantees 1, 2 and 7 at BigQuery: whoever was superseded writes nothing, and an outcome that
nobody told is found out."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from bigquery_writer import unit_of
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer

from warp import sql
from warp.destinations.bigquery import BigQueryDestination, transaction, verdicts
from warp.destinations.bigquery import script as script_module
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.verdicts import Verdict
from warp.errors import DestinationRefused, DestinationUnavailable, FenceBehind
from warp.model import (
    ABSENT,
    Change,
    ChangeBatch,
    Lease,
    Operation,
    Phase,
    Position,
    SchemaChange,
    TableChanges,
    TableId,
    WorkUnit,
)
from warp.testing.contracts import ORDERS, SCHEMA, Unit, aside, select

pytestmark = pytest.mark.xdist_group("bigquery")

CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE


@pytest.fixture(scope="module")
def shared(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        warehouse.destination(select).metadata().prepare()
        yield warehouse


@pytest.fixture
def warehouse(shared: Warehouse) -> Iterator[Warehouse]:
    yield shared
    shared.empty()


def breaks(scenario: Callable[[Warehouse], None], warehouse: Warehouse) -> None:
    """The twin's guarantee does not hold: its test must fail."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        scenario(warehouse)


def edited(monkeypatch: pytest.MonkeyPatch, name: str, guard: str) -> None:
    """The broken twin: this statement without the words that guard it."""

    def load(dialect: str, wanted: str) -> str:
        text = sql.load(dialect, wanted)
        assert wanted != name or guard in text
        return text.replace(guard, "") if wanted == name else text

    monkeypatch.setattr(script_module, "load", load)


# -- guarantee 2


def an_old_owner_writes_neither_rows_nor_marker(warehouse: Warehouse) -> None:
    old = unit_of(warehouse)
    old.write("1", (CREATE, 1, 1, "a"))
    new = Unit(warehouse.destination(select))
    with pytest.raises(FenceBehind) as caught:
        old.write("2", (CREATE, 2, 2, "b"), quarantined=[aside(CREATE, 5, 7, "x")])
    assert caught.value.found == new.lease.fence
    assert {row["name"] for row in warehouse.rows(ORDERS)} == {"a"}
    assert warehouse.metadata("quarantine") == []


@pytest.mark.soak
@pytest.mark.holds(guarantee=2, source="none", destination="bigquery", fault="superseded")
def test_an_old_owner_writes_neither_rows_nor_marker(warehouse: Warehouse) -> None:
    an_old_owner_writes_neither_rows_nor_marker(warehouse)


@pytest.mark.soak
def test_without_the_fence_in_each_write_an_old_owner_writes(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "advance_marker", " AND fence = {fence}")
    breaks(an_old_owner_writes_neither_rows_nor_marker, warehouse)


def a_batch_is_written_on_top_of_the_one_it_follows_only(warehouse: Warehouse) -> None:
    unit = unit_of(warehouse)
    before = unit.marker
    unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside(CREATE, 5, 7, "x")])
    unit.marker = before  # as if nobody had told us that it was committed
    with pytest.raises(FenceBehind):
        unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside(CREATE, 5, 7, "x")])
    assert len(warehouse.metadata("quarantine")) == 1


@pytest.mark.soak
def test_a_batch_is_written_on_top_of_the_one_it_follows_only(warehouse: Warehouse) -> None:
    a_batch_is_written_on_top_of_the_one_it_follows_only(warehouse)


@pytest.mark.soak
def test_without_the_batch_number_a_batch_is_written_twice(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "advance_marker", " AND batch = {batch} - 1")
    breaks(a_batch_is_written_on_top_of_the_one_it_follows_only, warehouse)


def a_worker_that_is_overtaken_while_it_adopts_does_not_adopt(warehouse: Warehouse) -> None:
    first = unit_of(warehouse)
    slow = Lease(first.lease.unit, "slow", first.lease.fence + 1)
    newer = Lease(first.lease.unit, "newer", first.lease.fence + 2)
    transact = Session.transact
    overtaken = False

    def overtake(session: Session, script: Script, job_id: str = "") -> None:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            warehouse.destination(select).open(newer)
        transact(session, script, job_id)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "transact", overtake)
        with pytest.raises(FenceBehind) as caught:
            warehouse.destination(select).open(slow)
    assert caught.value.found == newer.fence


@pytest.mark.soak
def test_a_worker_that_is_overtaken_while_it_adopts_does_not_adopt(warehouse: Warehouse) -> None:
    a_worker_that_is_overtaken_while_it_adopts_does_not_adopt(warehouse)


@pytest.mark.soak
def test_without_the_fence_in_the_adoption_the_slower_one_adopts(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "adopt_marker", " AND fence < {fence}")
    breaks(a_worker_that_is_overtaken_while_it_adopts_does_not_adopt, warehouse)


# -- guarantee 1


def a_failure_anywhere_leaves_nothing_behind(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, begin: str = "BEGIN TRANSACTION"
) -> None:
    unit = unit_of(warehouse)
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    change = ((UPDATE, 2, 1, "z"), (DELETE, 2, 2, ABSENT))
    for place in itertools.count(1):
        struck = Struck(place, begin)
        with monkeypatch.context() as patched:
            patched.setattr(Script, "transaction", struck.transaction())
            with pytest.raises(DestinationRefused, match="struck"):
                unit.write("2", *change, quarantined=[aside(CREATE, 5, 7, "x")])
        if struck.was_last:
            break
    assert {(row["id"], row["name"]) for row in warehouse.rows(ORDERS)} == {(1, "a"), (2, "b")}
    assert [warehouse.metadata(table) for table in ("quarantine", "deletion_audit")] == [[], []]
    [marker] = [m for m in unit.destination.metadata().markers() if m.unit == unit.lease.unit]
    assert (marker.batch, marker.position) == (1, Position("1", 1_000.0))


@dataclass(slots=True)
class Struck:
    """A script that fails after so many of its statements."""

    place: int
    begin: str
    was_last: bool = False

    def transaction(self) -> Callable[[Script], str]:
        def text(script: Script) -> str:
            before, after = script.statements[: self.place], script.statements[self.place :]
            self.was_last = not after
            strike = "ASSERT FALSE AS 'struck'"
            return ";\n".join([self.begin, *before, strike, *after, "COMMIT TRANSACTION"]) + ";"

        return text


@pytest.mark.soak
@pytest.mark.holds(guarantee=1, source="none", destination="bigquery", fault="error")
def test_a_failure_after_any_statement_leaves_nothing_behind(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_failure_anywhere_leaves_nothing_behind(warehouse, monkeypatch)


@pytest.mark.soak
def test_without_a_transaction_around_it_a_failure_leaves_a_half(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((AssertionError, FenceBehind)):
        a_failure_anywhere_leaves_nothing_behind(warehouse, monkeypatch, begin="SELECT 1")


# -- guarantees 2 and 7, where an answer or a worker is late


def superseded_between_load_and_transaction(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> set[Any]:
    """The rows that are there after a worker paused after its load comes back."""
    old = unit_of(warehouse)
    old.write("1", (CREATE, 1, 1, "a"))
    transact = Session.transact
    paused = True

    def pause(session: Session, script: Script, job_id: str = "") -> None:
        nonlocal paused
        if paused:
            paused = False
            Unit(warehouse.destination(select)).write("2", (CREATE, 2, 2, "of the new owner"))
        transact(session, script, job_id)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "transact", pause)
        old.write("2", (CREATE, 2, 3, "of the old owner"), quarantined=[aside(CREATE, 5, 7, "x")])
    return {row["name"] for row in warehouse.rows(ORDERS)}


@pytest.mark.holds(guarantee=2, source="none", destination="bigquery", fault="superseded")
def test_a_worker_superseded_after_its_load_writes_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FenceBehind) as caught:
        superseded_between_load_and_transaction(warehouse, monkeypatch)
    assert "batch 2" in caught.value.message
    assert {row["name"] for row in warehouse.rows(ORDERS)} == {"a", "of the new owner"}
    assert warehouse.metadata("quarantine") == []


def test_without_the_assertion_it_writes(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: the compare-and-set is made, and nobody looks at what it did."""
    monkeypatch.setattr(Script, "require_one", lambda *_: None)
    assert "of the old owner" in superseded_between_load_and_transaction(warehouse, monkeypatch)


@pytest.mark.soak
@pytest.mark.holds(guarantee=(1, 7), source="none", destination="bigquery", fault="lost connection")
def test_an_outcome_that_nobody_told_is_read_from_the_marker(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = unit_of(warehouse)
    unit.write("1", (CREATE, 1, 1, "a"))
    transact = Session.transact

    def lost(session: Session, script: Script, job_id: str = "") -> None:
        transact(session, script, job_id)
        raise Told(Verdict.UNKNOWN, "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "transact", lost)
        unit.write("2", (CREATE, 2, 2, "b"), (DELETE, 3, 1, ABSENT))
    unit.write("3", (CREATE, 4, 3, "c"))
    assert {row["name"] for row in warehouse.rows(ORDERS)} == {"b", "c"}
    assert len(warehouse.metadata("deletion_audit")) == 1


@pytest.mark.soak
@pytest.mark.holds(guarantee=7, source="none", destination="bigquery", fault="lost connection")
def test_a_transaction_that_never_arrived_is_told_so_and_can_be_written_again(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = unit_of(warehouse)
    unit.write("1", (CREATE, 1, 1, "a"))

    def lost(session: Session, script: Script, job_id: str = "") -> None:
        raise Told(Verdict.UNKNOWN, "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "transact", lost)
        with pytest.raises(DestinationUnavailable, match="not happened"):
            unit.write("2", (CREATE, 2, 2, "b"))
    unit.write("2", (CREATE, 2, 2, "b"))
    assert {row["name"] for row in warehouse.rows(ORDERS)} == {"a", "b"}


@pytest.mark.soak
def test_a_job_that_is_sent_twice_runs_once(warehouse: Warehouse) -> None:
    session = unit_of(warehouse).destination._session  # type: ignore[attr-defined]
    runs = session.meta("sync_runs")
    script = Script([f"INSERT INTO {runs} (run) VALUES ('r')"])
    job = session.new_id()
    for _ in range(2):  # the second answer is that there is such a job: its outcome is asked for
        session.transact(script, job)
    assert len(warehouse.metadata("sync_runs")) == 1


@pytest.mark.soak
def test_writers_of_one_table_wait_for_each_other_and_both_land(warehouse: Warehouse) -> None:
    first = unit_of(warehouse)
    first.write("1", (CREATE, 1, 0, "there"))

    destinations = [warehouse.destination(select) for _ in range(2)]
    units = [
        Unit(destination, WorkUnit.poll("shop", ORDERS) if n else WorkUnit.stream("shop"))
        for n, destination in enumerate(destinations)
    ]
    failed: list[BaseException] = []

    def run(n: int) -> None:
        try:
            for turn in range(3):
                units[n].write(str(turn), (UPDATE, 10 + turn, 100 * n + turn, "x"))
        except BaseException as error:  # noqa: BLE001  told in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {row["id"] for row in warehouse.rows(ORDERS)} == {0, 1, 2, 100, 101, 102}


@pytest.mark.soak
def test_a_batch_of_more_tables_than_a_transaction_may_change_lands_whole(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "TABLES_OF_A_BATCH", 1)
    unit = unit_of(warehouse)
    destination = unit.destination
    assert isinstance(destination, BigQueryDestination)
    parts = []
    for name in ("orders", "others"):
        table = TableId("shop", name)
        schema = replace(SCHEMA, table=table)
        destination.apply_schema_changes([SchemaChange(table, Change.CREATE_TABLE, schema=schema)])
        known = destination.get_schema(table)
        parts.append(TableChanges(table, bytearray([CREATE]), [1], known, [[1], [name]]))
    batch = ChangeBatch(parts, Position("1", 1_000.0))
    destination.write_batch(batch, unit.marker.advanced(batch, phase=Phase.STREAMING))
    for name in ("orders", "others"):
        assert [row["name"] for row in warehouse.rows(TableId("shop", name))] == [name]
    [marker] = [m for m in destination.metadata().markers() if m.unit == unit.lease.unit]
    assert (marker.batch, marker.position) == (1, Position("1", 1_000.0))


@pytest.mark.soak
def test_the_words_of_our_assertions_come_back(warehouse: Warehouse) -> None:
    session = unit_of(warehouse).destination._session  # type: ignore[attr-defined]
    for words in (verdicts.FENCE, verdicts.TABLE, verdicts.WHOLE):
        script = Script()
        script.add("SELECT 1")
        script.add(f"ASSERT FALSE AS '{words}'")
        with pytest.raises(Told) as caught:
            session.transact(script)
        assert words in caught.value.message
