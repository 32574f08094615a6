"""Rows of the log: the compiled half takes an event as the reference reads it, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_logs import START, events_of, everything

from warp import native
from warp.cells import listed
from warp.errors import WarpError
from warp.model import Invalid, Kind, Operation, TableSchema
from warp.sources.mysql.binlog.rows import Row
from warp.sources.mysql.binlog.transactions import Transactions, Unread

pytestmark = pytest.mark.skipif(not native.active(), reason="asked to test the plain Python half")

NAMES = [
    *("types", "charsets", "json", "compressed", "tagged", "hidden", "minimal", "definitions"),
]


def steps(name: str) -> Iterator[Unread]:
    machine = Transactions(everything, START, unread=True)
    for event in events_of(name):
        for step in machine.feed(event):
            if isinstance(step, Unread):
                yield step


@cache
def unread(name: str) -> list[Unread]:
    return list(steps(name))


def shown(schema: TableSchema, rows: list[Row]) -> str:
    """Columns as a batch has them: text with NUL is none."""
    columns = [[row[place] for row in rows] for place in range(len(schema.columns))]
    for column, cells in zip(schema.columns, columns, strict=True):
        if column.kind is Kind.TEXT:
            cells[:] = [Invalid(c) if type(c) is str and "\0" in c else c for c in cells]
    return repr(columns)


def filling(step: Unread) -> Any:
    return native.binlog.Filling(column.kind for column in step.table.schema.columns)


def packed(step: Unread) -> str | None:
    """What the compiled half makes of an event, behind rows that are there already."""
    made = filling(step)
    rows, _ = step.table.pack(made, step.operation, step.event, step.place, step.end)
    assert made.rows == max(rows, 0)
    return None if rows < 0 else repr([listed(column) for column in made.columns_made()])


@pytest.mark.parametrize("name", NAMES)
def test_an_event_is_packed_as_the_reference_reads_it(name: str) -> None:
    for step in unread(name):
        rows, found = step.read(), packed(step)
        if found is None:  # only where a key was changed, or a row has no column
            assert rows.moved
        else:
            assert not rows.moved
            assert found == shown(step.table.schema, rows.rows)


def check_damage(step: Unread, luck: Random) -> None:
    """The same event with other bytes among its rows, or fewer of them."""
    event = bytearray(step.event)
    first = step.place + step.table.header_size(update=step.operation is Operation.UPDATE)
    for _ in range(luck.randint(0, 4)):
        place = luck.randrange(first, step.end)
        event[place] = luck.choice([0, 255, 128, 127, luck.randrange(256)])
    end = luck.choice([step.end, luck.randint(first, step.end)])
    changed = Unread(step.table, step.operation, bytes(event), step.place, end)
    found = packed(changed)
    if found is not None:
        rows = changed.read()
        assert not rows.moved
        assert found == shown(step.table.schema, rows.rows)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 1 << 64))
def test_a_damaged_event_is_packed_as_the_reference_reads_it_or_not_at_all(
    name: str, seed: int
) -> None:
    luck = Random(seed)
    for step in luck.choices(unread(name), k=8):
        check_damage(step, luck)


@pytest.mark.soak
def test_a_hundred_thousand_damaged_events_are_packed_as_the_reference_reads_them() -> None:
    luck = Random(1)
    for _ in range(100_000):
        check_damage(luck.choice(unread(luck.choice(NAMES))), luck)


def test_rows_of_the_reference_and_packed_ones_keep_their_order() -> None:
    made: Any = None
    expected: list[Row] = []
    for number, step in enumerate(s for s in unread("types") if s.operation is Operation.CREATE):
        made = made or filling(step)
        rows = step.read().rows
        if number % 2:
            made.add_rows(rows)
        else:
            assert step.table.pack(made, step.operation, step.event, step.place, step.end) == (
                len(rows),
                True,
            )
        expected += rows
    schema = unread("types")[0].table.schema
    assert repr([listed(column) for column in made.columns_made()]) == shown(schema, expected)


def test_an_event_that_fails_amid_its_rows_leaves_none_of_them() -> None:
    step = next(s for s in unread("types") if s.operation is Operation.CREATE)
    made = filling(step)
    step.table.pack(made, step.operation, step.event, step.place, step.end)
    before = made.rows
    cut, _ = step.table.pack(made, step.operation, step.event, step.place, step.end - 1)
    assert cut == -1
    assert made.rows == before
    with pytest.raises(WarpError):
        Unread(step.table, step.operation, step.event, step.place, step.end - 1).read()


def test_most_cells_need_no_help_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare the reference with itself."""
    from warp.sources.mysql.binlog import rows as reference

    asked: list[str] = []
    original = reference._Alone.__call__

    def counted(self: Any, raw: bytes, place: int, end: int) -> list[Row]:
        asked.append(self._found.columns[0].type.name)
        return original(self, raw, place, end)

    monkeypatch.setattr(reference._Alone, "__call__", counted)
    for step in steps("types"):
        packed(step)
    cells = sum(len(s.read().rows) * len(s.table.schema.columns) for s in unread("types"))
    assert len(asked) < cells / 4
