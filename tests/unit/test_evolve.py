"""What evolve decides, and the lattice it decides by."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.errors import WarpError
from warp.evolve import Growth, evolve
from warp.kinds import converter, join
from warp.model import (
    ABSENT,
    UNCHANGED,
    Change,
    ChangeBatch,
    Column,
    Handling,
    Invalid,
    Kind,
    Operation,
    Policy,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
)

T = TableId("shop", "orders")
ID, NAME = Column("id", Kind.INT64), Column("name", Kind.TEXT)
HAVE = TableSchema(T, (ID, NAME), ("id",), version=3)


def select(table: TableId) -> TableSettings | None:
    return TableSettings(table, table, "shop") if table == T else None


def batch_of(*columns: tuple[Column, list[object]]) -> ChangeBatch:
    schema = TableSchema(T, tuple(c for c, _ in columns), ("id",))
    cells = [list(values) for _, values in columns]
    part = TableChanges(
        T, bytearray([Operation.CREATE] * len(cells[0])), [1] * len(cells[0]), schema, cells
    )
    return ChangeBatch([part], Position("9"))


def test_an_unknown_table_is_created_first() -> None:
    plan = evolve(batch_of((ID, [1]), (NAME, ["a"])), {}, select)
    assert [c.change for c in plan.ddl] == [Change.CREATE_TABLE]
    assert plan.batch.changes == []


def test_a_known_schema_lets_the_columns_through_untouched() -> None:
    batch = batch_of((ID, [1]), (NAME, ["a"]))
    plan = evolve(batch, {T: HAVE}, select)
    [part] = plan.batch.changes
    assert part.schema is HAVE
    assert part.columns[0] is batch.changes[0].columns[0]
    assert not plan.ddl
    assert not plan.quarantined


def test_a_new_column_is_added_on_the_version_it_was_decided_on() -> None:
    plan = evolve(
        batch_of((ID, [1]), (NAME, ["a"]), (Column("x", Kind.BOOL), [True])), {T: HAVE}, select
    )
    assert [(c.change, c.base) for c in plan.ddl] == [(Change.ADD_COLUMN, 3)]


def test_a_column_dropped_at_the_source_is_left_as_it_is() -> None:
    plan = evolve(batch_of((ID, [1, 2])), {T: HAVE}, select)
    assert plan.batch.changes[0].columns[1] == [UNCHANGED, UNCHANGED]


def test_an_exact_conversion_is_made_and_marks_pass_through() -> None:
    have = TableSchema(T, (ID, Column("n", Kind.DECIMAL)), ("id",), version=1)
    batch = batch_of((ID, [1, 2, 3, 4]), (Column("n", Kind.INT64), [7, None, ABSENT, UNCHANGED]))
    plan = evolve(batch, {T: have}, select)
    assert plan.batch.changes[0].columns[1] == [Decimal(7), None, ABSENT, UNCHANGED]


def test_a_row_without_an_exact_conversion_is_set_aside_whole() -> None:
    have = TableSchema(T, (ID, Column("n", Kind.FLOAT64)), ("id",), version=1)
    batch = batch_of((ID, [1, 2]), (Column("n", Kind.INT64), [2**53 + 1, 5]))
    keep = TableSettings(T, T, "shop", policy=Policy(wider=Handling.QUARANTINE))
    plan = evolve(batch, {T: have}, lambda table: keep)
    assert plan.batch.changes[0].columns == [[2], [5.0]]
    assert len(plan.batch.changes[0].operations) == len(plan.batch.changes[0].versions) == 1
    [row] = plan.quarantined
    assert (row.key, row.operation, row.position) == ('{"id": 1}', Operation.CREATE, Position("9"))
    assert row.row == '{"id": 1, "n": 9007199254740993}'


BAD: Any = Invalid("not a number")
AMOUNT = Column("amount", Kind.INT64)
WHOLE = TableSettings(T, T, "shop", policy=Policy(invalid=Handling.QUARANTINE))


@pytest.mark.parametrize(
    ("changes", "overtaken"),
    [
        ("cd", [True]),  # made, and deleted: it must not come back
        ("dc", [False]),  # deleted, and made anew: it must not be lost
        ("cdc", [True, False]),
        ("c|d", [True]),  # in two parts, as where its columns have changed between
        ("d|c", [False]),
        ("cud", [True, True]),
    ],
)
def test_what_its_own_batch_deletes_later_is_set_aside_for_good(
    changes: str, overtaken: list[bool]
) -> None:
    """All are of one version, as the changes of a transaction are: only their order tells."""
    have = TableSchema(T, (ID, AMOUNT), ("id",), version=1)
    schema = TableSchema(T, (ID, AMOUNT), ("id",))
    parts = [
        TableChanges(
            *(T, bytearray(some.encode()), [5] * len(some), schema),
            [[7] * len(some), [ABSENT if one == "d" else BAD for one in some]],
        )
        for some in changes.split("|")
    ]
    plan = evolve(ChangeBatch(parts, Position("9")), {T: have}, lambda table: WHOLE)
    assert [row.overtaken for row in plan.quarantined] == overtaken


def test_a_row_of_another_key_is_overtaken_by_no_delete() -> None:
    have = TableSchema(T, (ID, AMOUNT), ("id",), version=1)
    schema = TableSchema(T, (ID, AMOUNT), ("id",))
    part = TableChanges(T, bytearray(b"cd"), [5, 5], schema, [[7, 8], [BAD, ABSENT]])
    plan = evolve(ChangeBatch([part], Position("9")), {T: have}, lambda table: WHOLE)
    assert [row.overtaken for row in plan.quarantined] == [False]


def test_changes_of_a_table_nobody_selected_are_a_fault_not_a_skip() -> None:
    other = TableChanges(TableId("x", "y"), bytearray(), [], HAVE, [[], []])
    with pytest.raises(WarpError, match="not selected"):
        evolve(ChangeBatch([other], Position("1")), {}, select)


# -- the lattice

KINDS = list(Kind)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(KINDS, KINDS)))
def test_joining_is_symmetric_and_settles(a: Kind, b: Kind) -> None:
    both = join(a, b)
    assert both == join(b, a)
    assert join(both, a) == both
    assert join(both, b) == both


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_int_converts_exactly_or_not_at_all(value: int) -> None:
    for kind in (Kind.DECIMAL, Kind.FLOAT64):
        convert = converter(Kind.INT64, kind)
        assert convert is not None
        try:
            assert convert(value) == value
        except ValueError:
            assert kind == Kind.FLOAT64
            assert abs(value) > 2**53


@given(st.floats(allow_nan=False))
def test_a_double_as_a_decimal_is_the_same_number(value: float) -> None:
    convert = converter(Kind.FLOAT64, Kind.DECIMAL)
    assert convert is not None
    assert float(convert(value)) == value


@given(st.dates())
def test_a_date_as_a_timestamp_is_its_midnight(value: dt.date) -> None:
    convert = converter(Kind.DATE, Kind.TIMESTAMP)
    assert convert is not None
    midnight = dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    assert convert(value) == round(
        (midnight - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1)
    )


# -- growth


def test_a_field_waits_for_its_time_and_takes_the_union_of_its_kinds() -> None:
    growth = Growth()
    growth.observe(T, {"n": Column("n", Kind.INT64)}, now=100.0)
    growth.observe(T, {"n": Column("n", Kind.FLOAT64)}, now=103.0)
    assert growth.due({T: HAVE}, select, now=104.9) == []
    [change] = growth.due({T: HAVE}, select, now=105.0)
    assert change.column == Column("n", Kind.FLOAT64)
    assert growth.due({T: HAVE}, select, now=200.0) == []


def test_growth_stops_at_the_widest_table_configured() -> None:
    growth = Growth()
    growth.observe(T, {f"f{i}": Column(f"f{i}", Kind.TEXT) for i in range(400)}, now=0.0)
    assert len(growth.due({T: HAVE}, select, now=10.0)) == 300 - 2


def test_a_full_table_is_asked_for_no_column() -> None:
    growth = Growth()
    growth.observe(T, {"n": Column("n", Kind.INT64)}, now=0.0)
    assert growth.due({T: replace(HAVE, full=True)}, select, now=10.0) == []
