"""What is decided about rows that wait, without a server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.compact import Compacted
from warp.destinations.postgresql.careful import Refusal
from warp.destinations.postgresql.constraints import Reference, wanted_text
from warp.destinations.postgresql.deferral import (
    circles,
    key_of,
    quarantined,
    refers_to,
    together,
    waiting_of,
)
from warp.model import ABSENT, UNCHANGED, Column, Kind, Operation, TableId, TableSchema
from warp.staged import PARTIAL, stage

ORDERS, CUSTOMERS = TableId("shop", "orders"), TableId("shop", "customers")
SCHEMA = TableSchema(
    ORDERS,
    (Column("id", Kind.INT64), Column("customer", Kind.INT64), Column("name", Kind.TEXT)),
    ("id",),
)
OF_CUSTOMER = Reference("of_customer", ORDERS, ("customer",), CUSTOMERS, ("id",), False)
REFUSAL = Refusal(0, "23503", "SQLSTATE 23503", "no customer", True, "of_customer", OF_CUSTOMER)

graphs = st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=3), max_size=8)


def reachable(edges: dict[int, list[int]], start: int) -> set[int]:
    found: set[int] = set()
    for _ in range(len(edges) + 8):
        found |= {to for one in (start, *found) if one in edges for to in edges[one]}
    return found


@given(graphs)
def test_a_row_is_in_a_circle_if_it_can_be_reached_from_itself(
    edges: dict[int, list[int]],
) -> None:
    found = circles(edges)
    members = {one for circle in found for one in circle}
    assert {start for start in edges if start in reachable(edges, start)} <= members


@given(graphs)
def test_all_that_a_circle_refers_to_lies_in_it(edges: dict[int, list[int]]) -> None:
    for circle in circles(edges):
        assert {to for one in circle for to in edges.get(one, ())} <= set(circle)


def test_rows_that_refer_on_to_a_missing_one_are_no_circle() -> None:
    assert circles({1: [2], 2: [3]}) == []
    assert circles({1: [2], 2: [1], 3: [1]}) == [[1, 2]]
    assert circles({}) == []


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Kind.DECIMAL, Decimal("1.10"), Decimal("1.1")),
        (Kind.DECIMAL, Decimal("100"), Decimal("1E+2")),
        (Kind.DECIMAL, Decimal("-0"), Decimal("0.00")),
        (Kind.FLOAT64, -0.0, 0.0),
    ],
)
def test_one_key_has_one_text_however_its_number_is_written(
    kind: Kind, one: Any, other: Any
) -> None:
    schema = TableSchema(ORDERS, (Column("id", kind),), ("id",))
    assert key_of(schema, [one]) == key_of(schema, [other])
    assert key_of(schema, [one]) != key_of(schema, [one + 1])


@given(st.integers(), st.text(), st.permutations(["a", "b"]))
def test_parent_and_child_write_a_reference_alike(
    number: int, words: str, order: list[str]
) -> None:
    cells = {"a": number, "b": words}
    kinds = {"a": Kind.INT64, "b": Kind.TEXT}
    texts = {
        wanted_text(names, [kinds[n] for n in names], [cells[n] for n in names])
        for names in (["a", "b"], order)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("cell", [None, UNCHANGED, ABSENT])
def test_a_row_without_a_value_there_refers_to_nothing(cell: Any) -> None:
    assert wanted_text(["id"], [Kind.INT64], [cell]) is None


def test_a_refused_row_keeps_what_it_says_and_no_more() -> None:
    operations = bytes([Operation.UPDATE, Operation.CREATE, Operation.DELETE])
    columns: list[list[Any]] = [[1, 2, 3], [7, 8, ABSENT], [UNCHANGED, "b", ABSENT]]
    part = stage(SCHEMA, Compacted(operations, [5, 6, 7], columns))
    assert part.operations[0] == PARTIAL
    rows = [waiting_of(part, Refusal(n, "23503", "SQLSTATE 23503", "why")) for n in range(3)]
    assert [row.operation for row in rows] == [*map(Operation, operations)]
    assert [row.partial for row in rows] == [True, False, False]
    assert [refers_to(row, OF_CUSTOMER) for row in rows] == ['{"id": 7}', '{"id": 8}', None]
    kept = quarantined(rows[0], "in vain")
    assert (kept.row, kept.partial, kept.version) == ('{"id": 1, "customer": 7}', True, 5)
    again = together(SCHEMA, rows)
    assert (again.operations, again.carriers) == (part.operations, part.carriers)


def test_rows_of_a_part_are_taken_with_all_that_belongs_to_them() -> None:
    operations = bytes([Operation.UPDATE, Operation.CREATE, Operation.DELETE])
    columns: list[list[Any]] = [[1, 2, 3], [7, 8, ABSENT], [UNCHANGED, "b", ABSENT]]
    part = stage(SCHEMA, Compacted(operations, [5, 6, 7], columns))
    some = part.only([2, 0])
    assert some.operations == bytes([Operation.DELETE, PARTIAL])
    assert (some.versions, some.kept) == ([7, 5], [None, b"\x04"])
    assert some.carriers == [[3, 1], [ABSENT, 7], [ABSENT, UNCHANGED]]
