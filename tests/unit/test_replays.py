"""Rows that come out of quarantine: when they come too late, and what they are written as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp import pipeline, replays
from warp.compact import Compacted
from warp.evolve import evolve
from warp.model import (
    ABSENT,
    UNCHANGED,
    Aside,
    ChangeBatch,
    Chunk,
    Column,
    Handling,
    Kind,
    Lease,
    Operation,
    Phase,
    Policy,
    Position,
    QuarantinedRow,
    Replay,
    SetAside,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
    schema_of,
)
from warp.replays import Standing, overruled
from warp.staged import stage
from warp.testing.contracts import ORDERS, SCHEMA, STREAM, Unit, aside, select
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
    MemoryWarehouse,
)

CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
READ = Operation.READ
HAVE = replace(SCHEMA, version=1)


def may(
    operation: Operation, version: int, standing: Standing, *, cell: bool = False, emptied: int = -1
) -> bool:
    return not overruled(operation, version, standing, cell=cell, truncated_at=emptied)


# ---------------------------------------------------------------- too late


@pytest.mark.parametrize(
    ("operation", "standing", "lands"),
    [
        (CREATE, Standing(), True),
        (CREATE, Standing(4), True),
        (UPDATE, Standing(5), True),  # changes of one transaction share a version
        (READ, Standing(5), False),
        (READ, Standing(4), True),
        (CREATE, Standing(6), False),
        (DELETE, Standing(6), False),
        (DELETE, Standing(5), True),
        (DELETE, Standing(None, deleted_at=9), True),  # nothing to delete, and no harm
        (CREATE, Standing(5, gone=True), True),  # by one transaction, which made it anew
        (READ, Standing(5, gone=True), False),
        (CREATE, Standing(4, gone=True), True),  # deleted before, created again
        (CREATE, Standing(deleted_at=6), False),
        (CREATE, Standing(deleted_at=5), True),
        (READ, Standing(deleted_at=5), False),
        (CREATE, Standing(deleted_at=4), True),
    ],
)
def test_a_row_of_version_5_lands_unless_something_newer_is_there(
    operation: Operation, standing: Standing, lands: bool
) -> None:
    assert may(operation, 5, standing) is lands


@pytest.mark.parametrize(
    ("standing", "lands"),
    [
        (Standing(5), True),
        (Standing(5, gone=True), False),
        (Standing(4), False),
        (Standing(6), False),
        (Standing(), False),
    ],
)
def test_a_cell_lands_on_the_row_it_was_part_of_and_no_other(
    standing: Standing, lands: bool
) -> None:
    assert may(UPDATE, 5, standing, cell=True) is lands


@given(
    st.sampled_from([CREATE, UPDATE, READ, DELETE]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
    st.integers(-1, 9),
    st.integers(-1, 9),
)
def test_nothing_lands_on_anything_newer_whatever_else_there_is(
    operation: Operation, version: int, have: int, gone: bool, deleted: int, emptied: int
) -> None:
    standing = Standing(have, gone, deleted)
    if may(operation, version, standing, emptied=emptied):
        assert have <= version
        assert emptied < version
        assert operation is DELETE or deleted < version + (operation is not READ)


# ---------------------------------------------------------------- what it is written as


def set_aside(id: int, row: QuarantinedRow) -> SetAside:
    return SetAside(id, "shop", STREAM.id, row)


def shaped(rows: list[SetAside], have: TableSchema) -> tuple[Replay, list[Any], list[Any]]:
    """What the rows become: the replay, the rows of the batch, and what is set aside anew."""
    loaded = replays.load(rows, have)
    plan = evolve(loaded.batch, {ORDERS: have}, select)
    assert plan.ddl == []
    replay = replays.gather(plan, loaded)
    return replay, [row for part in plan.batch.changes for row in part.rows()], plan.quarantined


def test_a_row_takes_the_shape_its_table_has_today() -> None:
    today = TableSchema(
        ORDERS,
        (
            Column("id", Kind.DECIMAL),
            Column("name", Kind.TEXT, source="Name"),
            Column("since", Kind.DATE),
        ),
        ("id",),
        version=3,
    )
    replay, rows, _ = shaped([set_aside(4, aside(CREATE, 5, 7, "a"))], today)
    assert replay.ids == [4]
    assert rows == [(Decimal(7), "a", UNCHANGED)]


def test_a_row_that_has_no_form_even_now_waits_with_its_new_reason() -> None:
    rows = [set_aside(4, aside(CREATE, 5, 7, "a")), set_aside(5, aside(CREATE, 5, 8, "b"))]
    loaded = replays.load(rows, HAVE)
    plan = evolve(loaded.batch, {ORDERS: HAVE}, select)
    # What `evolve` says of a row it can make nothing of.
    bad = plan.batch.changes[0]
    plan.batch.changes[0] = TableChanges(ORDERS, bytearray(), [], HAVE, [[] for _ in bad.columns])
    plan.quarantined.append(aside(CREATE, 5, 7, "a", reason="no exact form"))
    replay = replays.gather(plan, loaded)
    assert (replay.ids, replay.refused) == ([5], {4: "no exact form"})
    assert [list(part.rows()) for part in plan.batch.changes] == [[(8, "b")]]
    assert plan.quarantined == []  # it stays the row of the quarantine that it is


def test_a_cell_that_has_no_form_even_now_waits_and_is_not_set_aside_twice() -> None:
    cell = aside(UPDATE, 5, 7, "a", column="name")
    loaded = replays.load([set_aside(4, cell)], HAVE)
    plan = evolve(loaded.batch, {ORDERS: HAVE}, select)
    plan.batch.changes[0].columns = [plan.batch.changes[0].columns[0], [UNCHANGED]]
    plan.quarantined.append(replace(cell, reason="an object, not text"))
    replay = replays.gather(plan, loaded)
    assert (replay.ids, replay.refused) == ([], {4: "an object, not text"})
    assert (plan.batch.changes, plan.quarantined) == ([], [])


def test_a_cell_that_does_not_fit_when_its_row_lands_is_set_aside_by_itself() -> None:
    loaded = replays.load([set_aside(4, aside(CREATE, 5, 7, "a"))], HAVE)
    plan = evolve(loaded.batch, {ORDERS: HAVE}, select)
    plan.batch.changes[0].columns = [plan.batch.changes[0].columns[0], [UNCHANGED]]
    plan.quarantined.append(aside(CREATE, 5, 7, "a", column="name"))
    assert replays.gather(plan, loaded).ids == [4]
    assert [row.column for row in plan.quarantined] == ["name"]


def test_of_two_rows_of_one_key_the_later_waits_for_the_next_batch() -> None:
    rows = [set_aside(n, aside(UPDATE, n, 7, f"v{n}")) for n in (4, 5, 6)]
    replay, written, _ = shaped(rows, HAVE)
    assert (replay.ids, written, replay.refused) == ([4], [(7, "v4")], {})


def test_a_cell_says_nothing_about_the_other_columns() -> None:
    wide = replace(HAVE, columns=(*HAVE.columns, Column("n", Kind.INT64)))
    cell = aside(UPDATE, 5, 7, "a", column="name")
    _, rows, _ = shaped([set_aside(4, cell)], wide)
    assert rows == [(7, "a", UNCHANGED)]


def test_a_row_is_set_aside_under_the_key_that_the_destination_has() -> None:
    """Of other kinds and in another order at the source: whoever looks for what waits of a key has
    the destination's, and compares texts."""
    source = TableSchema(
        ORDERS,
        (Column("b", Kind.INT64), Column("a", Kind.UUID), Column("v", Kind.JSON)),
        ("a", "b"),
    )
    have = TableSchema(
        ORDERS,
        (Column("v", Kind.INT64, fixed=True), Column("a", Kind.TEXT), Column("b", Kind.DECIMAL)),
        ("a", "b"),
        version=1,
    )
    part = TableChanges(
        ORDERS, bytearray([CREATE]), [5], source, [[7], [bytes(range(16))], [b'{"x": 1}']]
    )
    stopped = Policy(drastic=Handling.QUARANTINE)

    def selecting(table: TableId) -> TableSettings | None:
        found = select(table)
        return found and replace(found, policy=stopped)

    plan = evolve(ChangeBatch([part], Position("here")), {ORDERS: have}, selecting)
    [row] = plan.quarantined
    written: list[list[Any]] = [[None], ["00010203-0405-0607-0809-0a0b0c0d0e0f"], [Decimal(7)]]
    assert row.key == stage(have, Compacted(bytes([CREATE]), [5], written)).key_of(0)
    # And it is still whole: it lands where its column holds such a value.
    wider = replace(have, columns=(Column("v", Kind.JSON), *have.columns[1:]))
    loaded = replays.load([set_aside(1, row)], wider)
    assert loaded.unreadable == {}
    again = evolve(loaded.batch, {ORDERS: wider}, selecting)
    [landing] = [list(part.rows()) for part in again.batch.changes]
    assert landing == [(b'{"x": 1}', "00010203-0405-0607-0809-0a0b0c0d0e0f", Decimal(7))]


def test_a_key_that_has_no_form_at_the_destination_is_kept_as_its_source_has_it() -> None:
    source = TableSchema(ORDERS, (Column("id", Kind.TEXT),), ("id",))
    have = TableSchema(ORDERS, (Column("id", Kind.INT64, fixed=True),), ("id",), version=1)
    part = TableChanges(ORDERS, bytearray([CREATE]), [5], source, [["seven"]])
    [row] = evolve(ChangeBatch([part], Position("here")), {ORDERS: have}, select).quarantined
    assert (row.key, row.kinds) == ('{"id": "seven"}', {"id": "text"})


def test_a_cell_that_was_left_out_of_its_row_can_be_read_again() -> None:
    source = TableSchema(ORDERS, (Column("id", Kind.INT32), Column("name", Kind.JSON)), ("id",))
    have = replace(HAVE, columns=(HAVE.columns[0], Column("name", Kind.INT64, fixed=True)))
    part = TableChanges(ORDERS, bytearray([UPDATE]), [5], source, [[7], [b'{"x": 1}']])
    [cell] = evolve(ChangeBatch([part], Position("here")), {ORDERS: have}, select).quarantined
    assert cell.column == "name"
    wider = replace(HAVE, columns=(HAVE.columns[0], Column("name", Kind.JSON)))
    _, rows, _ = shaped([set_aside(1, cell)], wider)
    assert rows == [(7, b'{"x": 1}')]


def test_what_a_partial_row_does_not_say_is_kept_and_a_whole_row_does_not_have_it() -> None:
    partial = aside(UPDATE, 5, 7, UNCHANGED, partial=True)
    whole = aside(CREATE, 5, 8, ABSENT)
    _, rows, _ = shaped([set_aside(4, partial), set_aside(5, whole)], HAVE)
    assert rows == [(7, UNCHANGED), (8, ABSENT)]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (aside(CREATE, 5, 7, "a", kinds={}), "did not keep the kinds"),
        (aside(CREATE, 5, 7, "a", kinds={"id": "int64"}), "'name'"),
        (aside(CREATE, 5, 7, "a", kinds={"id": "int64", "name": "colour"}), "colour"),
        (replace(aside(CREATE, 5, 7, "a"), row="[]"), "JSON object"),
        (aside(UPDATE, 5, 7, UNCHANGED, column="name"), "cell of column 'name'"),
    ],
)
def test_a_row_that_cannot_be_read_exactly_is_refused_in_words(
    row: QuarantinedRow, why: str
) -> None:
    loaded = replays.load([set_aside(4, row)], HAVE)
    assert loaded.rows == []
    assert why in loaded.unreadable[4]


@given(st.text(max_size=20), st.sampled_from(["stream", "poll", "chunk", "replay"]))
def test_the_schema_of_a_unit_is_read_from_its_id_whatever_its_name(name: str, kind: str) -> None:
    table = TableId("a:b", "c.d:1")
    unit = {
        "stream": WorkUnit.stream(name),
        "poll": WorkUnit.poll(name, table),
        "replay": WorkUnit.of_replay(name, table),
        "chunk": WorkUnit.of_chunk(name, Chunk(table, 3), 12),
    }[kind]
    assert schema_of(unit.id, table) == name


# ---------------------------------------------------------------- the whole path, in memory


class Free:
    """A hold that stops when it is told to."""

    def __init__(self, lease: Lease, until: Callable[[], bool] = lambda: False) -> None:
        self.lease, self.stopping = lease, until

    def check(self) -> None: ...

    def wait(self, seconds: float) -> None: ...


@pytest.fixture
def warehouse() -> MemoryWarehouse:
    return MemoryWarehouse()


def destination_of(warehouse: MemoryWarehouse) -> MemoryDestination:
    return MemoryDestination(MemoryDestinationOptions(warehouse=warehouse), select)


def with_rows(warehouse: MemoryWarehouse, *rows: QuarantinedRow) -> list[int]:
    stream = Unit(destination_of(warehouse))
    stream.write("1", (CREATE, 1, 0, "there"), quarantined=rows)
    return [row.id for row in warehouse.aside]


def replayed(warehouse: MemoryWarehouse, until: Callable[[], bool] = lambda: False) -> bool:
    destination = destination_of(warehouse)
    unit = WorkUnit.of_replay("shop", ORDERS)
    lease = Lease(unit, "w", warehouse.markers[unit.id].fence + 1)
    marker = destination.open(lease)
    database = MemoryDatabase()
    database.create(SCHEMA)
    return pipeline.replay(
        MemorySource(MemorySourceOptions(database=database), select),
        destination,
        marker,
        Free(lease, until),
        selection=select,
        meter=pipeline.NoMeter(),
    )


def names(warehouse: MemoryWarehouse) -> dict[int, Any]:
    return {row["id"]: row["name"] for row in warehouse.rows(ORDERS)}


def states(warehouse: MemoryWarehouse) -> list[Aside]:
    return [row.state for row in warehouse.aside]


def test_marked_rows_land_in_the_order_of_their_versions_and_the_unit_rests(
    warehouse: MemoryWarehouse,
) -> None:
    late, early = aside(UPDATE, 9, 7, "late"), aside(CREATE, 5, 7, "early")
    ids = with_rows(warehouse, late, early, aside(CREATE, 5, 8, "not marked"))
    destination_of(warehouse).metadata().replay("shop", ORDERS, ids[:2])
    assert replayed(warehouse)
    assert names(warehouse) == {0: "there", 7: "late"}
    assert states(warehouse) == [Aside.REPLAYED, Aside.REPLAYED, Aside.WAITING]
    assert warehouse.markers[WorkUnit.of_replay("shop", ORDERS).id].phase is Phase.IDLE


def test_a_second_replay_does_nothing(warehouse: MemoryWarehouse) -> None:
    ids = with_rows(warehouse, aside(CREATE, 5, 7, "late"))
    metadata = destination_of(warehouse).metadata()
    metadata.replay("shop", ORDERS, ids)
    assert replayed(warehouse)
    warehouse.tables[ORDERS].clear()  # would show a second landing
    assert metadata.replay("shop", ORDERS, ids) == 0
    assert replayed(warehouse)
    assert names(warehouse) == {}


def test_a_replay_asked_to_stop_goes_on_where_it_was(
    warehouse: MemoryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "REPLAYED_AT_ONCE", 2)
    ids = with_rows(warehouse, *(aside(CREATE, 5, n, f"n{n}") for n in range(1, 6)))
    destination_of(warehouse).metadata().replay("shop", ORDERS, ids)
    assert not replayed(warehouse, until=lambda: True)
    assert len(names(warehouse)) == 3
    assert replayed(warehouse)
    assert len(names(warehouse)) == 6


def test_a_table_that_is_gone_is_made_again_for_its_rows(warehouse: MemoryWarehouse) -> None:
    ids = with_rows(warehouse, aside(CREATE, 5, 7, "late"))
    del warehouse.tables[ORDERS], warehouse.schemas[ORDERS]
    destination_of(warehouse).metadata().replay("shop", ORDERS, ids)
    assert replayed(warehouse)
    assert names(warehouse) == {7: "late"}
