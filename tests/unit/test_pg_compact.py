"""Compaction leaves a destination as applying every change in turn would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp import native
from warp.compact import Compacted, compact
from warp.model import (
    ABSENT,
    UNCHANGED,
    Cells,
    Column,
    Kind,
    Operation,
    TableChanges,
    TableId,
    TableSchema,
)
from warp.native import Packed

TABLE = TableId("shop", "orders")
SCHEMA = TableSchema(
    TABLE, (Column("id", Kind.INT64), Column("a", Kind.TEXT), Column("b", Kind.TEXT)), ("id",)
)
READ, CREATE, UPDATE = Operation.READ, Operation.CREATE, Operation.UPDATE
DELETE, TRUNCATE = Operation.DELETE, Operation.TRUNCATE

Event = tuple[Operation, int, Any, Any, Any]  # operation, version, id, a, b
Stored = dict[int, tuple[int, Any, Any, bool]]  # id -> version, a, b, is a tombstone


def changes(events: Sequence[Event], schema: TableSchema = SCHEMA) -> TableChanges:
    return TableChanges(
        TABLE,
        bytearray(e[0] for e in events),
        [e[1] for e in events],
        schema,
        [[e[2 + i] for e in events] for i in range(3)],
    )


def rows(result: Compacted) -> list[Event]:
    return [
        (Operation(code), version, *cells)
        for code, version, cells in zip(
            result.operations, result.versions, zip(*result.columns, strict=True), strict=True
        )
    ]


def apply(stored: Stored, events: Sequence[Event]) -> None:
    """What the guards of a destination do with changes, one after the other."""
    for operation, version, key, a, b in events:
        if operation == TRUNCATE:
            for k in [k for k, row in stored.items() if row[0] <= version]:
                del stored[k]
            continue
        old = stored.get(key)
        if old is not None and (old[0] >= version if operation == READ else old[0] > version):
            continue
        if operation == DELETE:
            stored[key] = (version, None, None, True)
            continue
        kept = old[1:3] if old is not None and not old[3] else (None, None)
        new = [k if cell is UNCHANGED else cell for cell, k in zip((a, b), kept, strict=True)]
        stored[key] = (version, new[0], new[1], False)


def test_the_last_change_of_a_key_wins() -> None:
    result = compact(
        changes([(CREATE, 1, 1, "a", "b"), (CREATE, 2, 2, "x", "y"), (UPDATE, 3, 1, "c", "d")])
    )
    assert rows(result) == [(CREATE, 2, 2, "x", "y"), (UPDATE, 3, 1, "c", "d")]


def test_changes_without_a_repeated_key_are_passed_on_uncopied() -> None:
    part = changes([(CREATE, 1, 1, "a", "b"), (CREATE, 2, 2, "x", "y")])
    assert compact(part).columns is part.columns


def test_an_unchanged_cell_is_filled_from_the_earlier_change_without_touching_the_batch() -> None:
    part = changes([(CREATE, 1, 1, "a", "b"), (UPDATE, 2, 1, UNCHANGED, "c")])
    assert rows(compact(part)) == [(UPDATE, 2, 1, "a", "c")]
    assert part.columns[1] == ["a", UNCHANGED]


def test_an_unchanged_cell_after_a_delete_stays_unchanged() -> None:
    result = compact(changes([(DELETE, 1, 1, ABSENT, ABSENT), (UPDATE, 2, 1, UNCHANGED, "c")]))
    assert rows(result) == [(UPDATE, 2, 1, UNCHANGED, "c")]


def test_a_late_read_never_overrules_a_change_of_its_own_version() -> None:
    assert rows(compact(changes([(UPDATE, 5, 1, "new", "n"), (READ, 5, 1, "old", "o")]))) == [
        (UPDATE, 5, 1, "new", "n")
    ]


def test_what_came_before_the_last_truncate_is_left_out() -> None:
    result = compact(
        changes(
            [
                (CREATE, 1, 1, "a", "b"),
                (TRUNCATE, 2, ABSENT, ABSENT, ABSENT),
                (CREATE, 3, 2, "c", "d"),
                (TRUNCATE, 4, ABSENT, ABSENT, ABSENT),
                (CREATE, 5, 3, "e", "f"),
            ]
        )
    )
    assert result.truncated_at == 4
    assert rows(result) == [(CREATE, 5, 3, "e", "f")]


def test_nan_is_one_key() -> None:
    schema = TableSchema(TABLE, (Column("id", Kind.FLOAT64), *SCHEMA.columns[1:]), ("id",))
    result = compact(
        changes([(CREATE, 1, float("nan"), "a", ""), (UPDATE, 2, float("nan"), "b", "")], schema)
    )
    assert [row[3] for row in rows(result)] == ["b"]


def test_every_part_of_a_key_counts() -> None:
    schema = TableSchema(TABLE, SCHEMA.columns, ("id", "a"))
    result = compact(
        changes(
            [(CREATE, 1, 1, "x", "1"), (CREATE, 2, 1, "y", "2"), (UPDATE, 3, 1, "x", "3")], schema
        )
    )
    assert [row[2:] for row in rows(result)] == [(1, "y", "2"), (1, "x", "3")]


def test_changes_without_a_schema_are_refused() -> None:
    with pytest.raises(ValueError, match="shaped"):
        compact(TableChanges(TABLE, bytearray(b"c"), [1]))


cells = st.one_of(st.none(), st.sampled_from("abc"), st.just(UNCHANGED))
steps = st.tuples(
    st.sampled_from([CREATE, UPDATE, UPDATE, DELETE, READ, TRUNCATE]),
    st.integers(0, 1),  # versions repeat: a transaction has one
    st.integers(1, 4),
    cells,
    cells,
)


def _events(drawn: Sequence[tuple[Operation, int, int, Any, Any]]) -> list[Event]:
    events: list[Event] = []
    version = 5
    gone: set[int] = set()
    for operation, step, key, a, b in drawn:
        version += step
        # A read and a create carry the whole row; and so does what first follows a delete, since
        # no source updates a row that it has deleted.
        if operation in (READ, CREATE) or key in gone:
            a, b = (None if cell is UNCHANGED else cell for cell in (a, b))
        if operation is DELETE:
            gone.add(key)
        elif operation is not READ:  # which may be older than the delete
            gone.discard(key)
        events.append((operation, version, key, a, b))
    return events


@given(st.lists(steps, max_size=14), st.dictionaries(st.integers(1, 4), st.integers(0, 4)))
def test_compacted_changes_leave_what_single_ones_do(
    drawn: list[tuple[Operation, int, int, Any, Any]], before: dict[int, int]
) -> None:
    events = _events(drawn)
    start: Stored = {key: (version, "old", "old", False) for key, version in before.items()}
    one_by_one, at_once = dict(start), dict(start)
    apply(one_by_one, events)
    result = compact(changes(events))
    if result.truncated_at is not None:
        apply(at_once, [(TRUNCATE, result.truncated_at, ABSENT, ABSENT, ABSENT)])
    apply(at_once, rows(result))
    assert len({e[2] for e in rows(result)}) == len(result)
    # A tombstone that a filled-in row overrules is the one thing an order of writes can hide.
    assert {k: v for k, v in at_once.items() if not v[3]} == {
        k: v for k, v in one_by_one.items() if not v[3]
    }


@given(st.lists(steps, max_size=14))
def test_packed_columns_are_compacted_as_lists_are(
    drawn: list[tuple[Operation, int, int, Any, Any]],
) -> None:
    part = changes(_events(drawn))
    if native.missing.startswith("switched off"):
        return
    columns: list[Cells] = []
    for column, cells in zip(SCHEMA.columns, part.columns, strict=True):
        made = Packed.of(column.kind, cells)
        assert made is not None
        columns.append(made)
    packed = replace(part, columns=columns)
    assert rows(compact(packed)) == rows(compact(part))
    assert compact(packed).truncated_at == compact(part).truncated_at
