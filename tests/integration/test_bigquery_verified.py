"""A BigQuery as the source of a comparison: at the very moment that its last run has delivered.

Nothing is at rest here: what the source holds now, a run has not brought yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from bigquery_world import World, world_at
from fix_servers import BigQueryServer
from in_process import settings_of
from polled_copy import COLUMNS, SIXTY, PolledCopy, polled_copy
from test_bigquery_source_rows import TYPES
from test_verify_command import Terminal
from verified_copy import FAULTS, ORDERS, SCHEMA, plant

from commands.cli import Flags
from warp import startup
from warp.bracket import Bracket
from warp.destinations.postgresql.comparing import PostgresComparing
from warp.digest.seams import Delivered, Pass
from warp.model import Capture, Cover, Position, Privacy, TableId
from warp.own_process import wait_until
from warp.sources.bigquery import BigQuerySource
from warp.sources.bigquery.capture import CaptureSide

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.timeout(300)]

MINE = "select id, name, share from shop.orders order by id"


@pytest.fixture
def world(bigquery_server: BigQueryServer) -> Iterator[World]:
    with world_at(bigquery_server) as world:
        yield world


@pytest.fixture
def orders(world: World) -> TableId:
    world.sql(f"CREATE TABLE {{d}}.orders ({COLUMNS})")
    world.sql(SIXTY)
    return world.id("orders")


@pytest.fixture
def copy(world: World, orders: TableId, pg_warehouse: str) -> Iterator[PolledCopy]:
    with polled_copy(world, pg_warehouse) as copy:
        copy.bring(orders)
        copy.poll(orders)
        yield copy


def found(told: Pass) -> tuple[int, int, int]:
    return told.differences, told.aside, told.unsettled


def as_it_is_now(source: BigQuerySource, table: TableId, position: Position) -> Delivered:
    """The broken twin: what there is now is taken for what has been delivered."""
    return Delivered(source.server.now(), True)


def test_planted_faults_are_found_and_mended_and_no_other_row_is_written(
    copy: PolledCopy, world: World, orders: TableId
) -> None:
    first = copy.verify(orders)
    assert (first.rows, first.units, found(first)) == (60, 3, (0, 0, 0))
    others = "select id, _cw_version from shop.orders where id not in (7, 20, 33, 1000) order by 1"
    before, untouched = copy.run(MINE), copy.run(others)
    plant(copy)
    # Not delivered yet, and so no difference; nor is it what a correction writes.
    world.sql("UPDATE {d}.orders SET name = 'not yet' WHERE id IN (1, 7, 20)")
    second = copy.verify(orders)
    assert copy.differences(orders) == FAULTS
    assert second.digest == first.digest  # of what should be there
    copy.mend(orders)
    assert copy.run(others) == untouched
    assert set(copy.run(MINE)) ^ set(before) == set()
    assert found(copy.verify(orders)) == (0, 0, 0)
    copy.poll(orders)
    assert copy.run("select id from shop.orders where name = 'not yet' order by id") == [
        (1,),
        (7,),
        (20,),
    ]


def changed_after_the_run(world: World) -> None:
    world.sql("UPDATE {d}.orders SET name = 'changed' WHERE id = 1")
    world.sql("DELETE FROM {d}.orders WHERE id = 2")
    world.sql("INSERT INTO {d}.orders (id, name) VALUES (61, 'new')")


def test_what_no_run_has_brought_yet_is_no_difference(
    copy: PolledCopy, world: World, orders: TableId, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_after_the_run(world)
    assert found(copy.verify(orders)) == (0, 0, 0)
    monkeypatch.setattr(BigQuerySource, "delivered", as_it_is_now)
    copy.verify(orders)
    assert copy.differences(orders) == {
        '{"id": 1}': "differs",
        '{"id": 2}': "extra",
        '{"id": 61}': "missing",
    }


def before_each_sum(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Between the reading of the source and that of the destination."""
    real = PostgresComparing.total

    def total(comparing: PostgresComparing, *given: Any) -> Any:
        happens()
        return real(comparing, *given)

    monkeypatch.setattr(PostgresComparing, "total", total)


def test_a_run_that_comes_between_is_no_difference(
    copy: PolledCopy, world: World, orders: TableId, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter(range(3))  # one for each range

    def run() -> None:
        number = next(runs)
        world.sql(f"UPDATE {{d}}.orders SET name = 'run {number}' WHERE MOD(id, 9) = 1")
        copy.poll(orders)

    before_each_sum(monkeypatch, run)
    plant(copy)
    copy.verify(orders)
    assert copy.differences(orders) == FAULTS


@pytest.mark.soak
def test_while_rows_are_written_and_runs_come_nothing_but_faults_is_found(
    copy: PolledCopy, world: World, orders: TableId
) -> None:
    over = threading.Event()
    failed: list[BaseException] = []
    rounds = 0

    def write() -> None:
        nonlocal rounds
        try:
            while not over.is_set():
                rounds += 1
                ids = ", ".join(str(id) for id in range(1, 61) if (id * rounds) % 11 == 3)
                world.sql(f"DELETE FROM {{d}}.orders WHERE id = {100 + rounds - 3}")
                world.sql(f"INSERT INTO {{d}}.orders (id) VALUES ({100 + rounds})")
                if ids:
                    world.sql(f"UPDATE {{d}}.orders SET price = {rounds} WHERE id IN ({ids})")
                copy.poll(orders)
        except BaseException as error:  # noqa: BLE001 - raised by whoever compares
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            assert copy.verify(orders).differences == 0
        seen = rounds
        assert wait_until(lambda: rounds > seen + 1 or bool(failed), 120)
        copy.run("insert into shop.orders (id, _cw_version) values (1000, 5)")
        assert copy.verify(orders).differences == 1
    finally:
        over.set()
        writer.join(120)
    assert not failed, failed
    assert set(copy.differences(orders)) == {'{"id": 1000}'}


@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_a_correction_never_outlives_what_a_run_under_way_brings(
    copy: PolledCopy, world: World, orders: TableId, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the version of what was delivered; with that of now, the run would come too late."""
    if twin:
        monkeypatch.setattr(Bracket, "version", lambda bracket: bracket._source.version())
    copy.run("delete from shop.orders where id = 20")
    copy.verify(orders)
    world.sql("UPDATE {d}.orders SET name = 'newer' WHERE id = 20")
    under_way = copy.read_run(orders)
    corrections = copy.look(orders)
    copy.poll(orders, under_way)
    copy.hand_on(orders, corrections)
    copy.replay(orders)
    row = copy.run("select name from shop.orders where id = 20 and not _cw_deleted")
    assert row == ([("n20",)] if twin else [("newer",)])


@pytest.mark.soak
def test_each_type_is_equal_once_it_has_arrived(world: World, pg_warehouse: str) -> None:
    """In columns and a table whose names need their quotes; and a key that is there twice, which
    BigQuery lets be, and of which one row arrives."""
    names = [f"{name} ü{n}" if n else "id" for n, (name, *_) in enumerate(TYPES)]
    declared = ", ".join(f"`{n}` {type_}" for n, (_, type_, *_) in zip(names, TYPES, strict=True))
    name = "select ü-1"
    place = f"{{d}}.`{name}`"
    world.sql(f"CREATE TABLE {place} ({declared}, PRIMARY KEY (id) NOT ENFORCED)")
    world.sql(f"INSERT INTO {place} VALUES ({', '.join(value for _, _, value, *_ in TYPES)})")
    world.sql(f"INSERT INTO {place} (id, `{names[5]}`) VALUES (2, NULL), (3, 'a'), (3, 'b')")
    table = world.id(name)
    with polled_copy(world, pg_warehouse, name) as copy:
        copy.bring(table)
        copy.poll(table)
        assert found(copy.verify(table)) == (0, 0, 0)
        for column in names[1:]:
            copy.run(f'update shop."{name}" set "{column}" = null where id = 1')
        copy.verify(table)
        [kept] = copy.kept(table)
        assert (kept.key, set(kept.columns)) == ('{"id": 1}', set(names[1:]))


@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_a_table_without_a_key_is_compared_as_its_last_run_has_left_it(
    world: World, pg_warehouse: str, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows have no version: without a look at the run that came between, two looks that each
    miss the same row would agree."""
    world.sql("CREATE TABLE {d}.orders (id INT64, name STRING)")
    world.sql("INSERT INTO {d}.orders VALUES (1, 'a'), (1, 'a'), (NULL, NULL)")
    table = world.id("orders")
    with polled_copy(world, pg_warehouse) as copy:
        copy.bring(table)
        copy.poll(table)
        world.sql("INSERT INTO {d}.orders VALUES (2, 'not yet')")
        assert found(copy.verify(table)) == (0, 0, 0)
        copy.run("delete from shop.orders where ctid = (select min(ctid) from shop.orders)")
        assert copy.verify(table).differences == 1
        copy.poll(table)

        def run() -> None:
            world.sql("INSERT INTO {d}.orders VALUES (3, 'again')")
            copy.poll(table)

        before_each_sum(monkeypatch, run)
        monkeypatch.setattr("warp.comparison.LOOKS", 2)
        if twin:
            monkeypatch.setattr(Bracket, "has_moved", lambda bracket: False)
        last = copy.verify(table)
        assert found(last) == ((1, 0, 0) if twin else (0, 0, 1))


@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_of_a_table_polled_by_times_what_may_have_changed_since_its_run_is_set_aside(
    world: World, pg_warehouse: str, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is still open holds the place back, and the run has seen later rows than that."""
    world.sql(
        "CREATE TABLE {d}.orders (id INT64, name STRING, updated_at TIMESTAMP,"
        " PRIMARY KEY (id) NOT ENFORCED)"
    )
    world.sql(
        "INSERT INTO {d}.orders SELECT n, 'first', TIMESTAMP '2024-01-01 00:00:00+00'"
        " FROM UNNEST(GENERATE_ARRAY(1, 5)) AS n"
    )
    table = world.id("orders")
    with polled_copy(world, pg_warehouse, capture=Capture.TIMESTAMP, overlap=0.0) as copy:
        change = "UPDATE {d}.orders SET name = 'late', updated_at = CURRENT_TIMESTAMP()"
        copy.bring(table)
        world.sql(f"{change} WHERE id = 5")
        copy.poll(table)
        clock, began = CaptureSide.clock, world.source().version()
        monkeypatch.setattr(CaptureSide, "clock", lambda side: replace(clock(side), oldest=began))
        world.sql(f"{change} WHERE id IN (1, 2)")
        copy.poll(table)
        world.sql(f"{change} WHERE id = 3")
        copy.run("update shop.orders set name = 'a fault' where id in (1, 4)")
        if twin:
            real = BigQuerySource.delivered

            def too_sure(*given: Any) -> Delivered | None:
                then = real(*given)
                return then and replace(then, exact=True)

            monkeypatch.setattr(BigQuerySource, "delivered", too_sure)
        told = copy.verify(table)
        assert found(told) == ((3, 0, 0) if twin else (1, 2, 0))
        assert '{"id": 4}' in copy.differences(table)


@pytest.mark.soak
def test_values_under_a_rule_are_compared_as_they_are_carried_and_shown_of_neither_side(
    world: World, orders: TableId, pg_warehouse: str
) -> None:
    """The key itself is under one, so a row is looked for among all."""
    rules = (("id", Cover.HASH), ("name", Cover.MASK))
    privacy = Privacy(rules, frozenset({"id", "name"}), key=b"k" * 32)
    with polled_copy(world, pg_warehouse, privacy=privacy, masked=("name",)) as copy:
        copy.bring(orders)
        copy.poll(orders)
        changed_after_the_run(world)
        assert found(copy.verify(orders)) == (0, 0, 0)
        [(id,)] = copy.run("select min(id) from shop.orders")
        copy.run("update shop.orders set share = -1, name = 'a fault' where id = %s", [id])
        copy.verify(orders)
        assert list(copy.differences(orders).values()) == ["differs"]
        [correction] = copy.look(orders)
        shown = {cell.column: cell for cell in correction.cells}
        assert set(shown) == {"name", "share"}
        assert correction.row is not None
        assert '"name": "n' not in correction.row.row
        copy.hand_on(orders, [correction])
        copy.replay(orders)
        assert found(copy.verify(orders)) == (0, 0, 0)


@pytest.mark.soak
def test_a_certificate_of_a_polled_table_tells_when_a_run_has_moved_it_on(
    bigquery_server: BigQueryServer,
    pg_warehouse: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    with world_at(bigquery_server, SCHEMA) as world, polled_copy(world, pg_warehouse) as copy:
        world.sql(f"CREATE OR REPLACE TABLE {{d}}.orders ({COLUMNS})")
        world.sql(SIXTY)
        copy.bring(ORDERS)
        copy.poll(ORDERS)
        tree = {
            "source": {
                "type": "bigquery",
                "connection_string": f"bigquery://{bigquery_server.project}/{SCHEMA}",
                "emulator_host": bigquery_server.url,
                "emulator_grpc": bigquery_server.grpc,
            },
            "destination": {"type": "postgresql", "connection_string": pg_warehouse},
            "schemas": [
                {"name": SCHEMA, "mode": "batch", "change_detection": {"strategy": "hash"}}
            ],
        }
        terminal = Terminal(settings_of(tmp_path, tree), copy, capsys)
        file = tmp_path / "proof.json"
        with click.Context(click.Command("verify"), obj=Flags()):
            code, told = terminal.verify(write=file)
            assert (code, told["tables"][0]["rows"]) == (startup.DONE, 60)
            code, checked = terminal.check(file)
            assert (code, checked["moved_on"]) == (startup.DONE, False)
            world.sql("UPDATE {d}.orders SET name = 'later' WHERE id = 1")
            copy.poll(ORDERS)
            code, checked = terminal.check(file)
            assert (code, checked["moved_on"]) == (startup.DIFFERENT, True)
