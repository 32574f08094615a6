"""A condition on a key: read into two edges, never handed on as text."""

from __future__ import annotations

import json

import pytest

from warp import key_range
from warp.destinations.postgresql import merge
from warp.destinations.postgresql.merge import Landing
from warp.errors import ConfigError
from warp.model import Column, Edge, KeySpan, Kind, TableId, TableSchema

T = TableId("shop", "orders")


def table(**key: Kind) -> TableSchema:
    columns = tuple(Column(name, kind) for name, kind in (key | {"v": Kind.TEXT}).items())
    return TableSchema(T, columns, tuple(key))


ORDERS = table(id=Kind.INT64)
LINES = table(tenant=Kind.INT32, id=Kind.INT64)


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("id >= 100 and id < 200", (("100",), True), (("200",), False)),
        ("id > 007", (("7",), False), None),
        ("id <= -5", None, (("-5",), True)),
        ("id = 5", (("5",), True), (("5",), True)),
        ("id between 1 AND 9", (("1",), True), (("9",), True)),
        ('"id"<3', None, (("3",), False)),
        ("`id`>='3'", (("3",), True), None),
    ],
)
def test_a_range_of_a_key_of_one_column(
    text: str,
    lower: tuple[tuple[str, ...], bool] | None,
    upper: tuple[tuple[str, ...], bool] | None,
) -> None:
    found = key_range.parse(text, ORDERS)
    assert found == KeySpan(("id",), lower and Edge(*lower), upper and Edge(*upper))
    assert key_range.load(json.loads(json.dumps(key_range.dump(found)))) == found


def test_a_range_of_a_key_of_several_columns() -> None:
    found = key_range.parse("tenant = 7 and id >= 3 and id < 9", LINES)
    assert found == KeySpan(
        ("tenant", "id"), Edge(("7", "3"), inclusive=True), Edge(("7", "9"), inclusive=False)
    )
    assert key_range.shown(found) == "(tenant, id) >= (7, 3) and (tenant, id) < (7, 9)"
    half = key_range.parse("id > 3 and tenant = 7", LINES)
    assert half.upper == Edge(("7",), inclusive=True)  # up to the last id of the tenant
    assert half.lower == Edge(("7", "3"), inclusive=False)
    assert key_range.parse("tenant > 7", LINES).used == ("tenant",)


def test_values_are_of_the_columns_kind() -> None:
    assert key_range.parse("d >= '2026-01-31'", table(d=Kind.DATE)).lower == Edge(
        ("2026-01-31",), inclusive=True
    )
    found = key_range.parse("_id < '65F0000000000000000000AB'", table(_id=Kind.OBJECTID))
    assert found.upper == Edge(("65f0000000000000000000ab",), inclusive=False)
    wide = key_range.parse("n = 18446744073709551615", table(n=Kind.DECIMAL))
    assert wide.lower == Edge(("18446744073709551615",), inclusive=True)


@pytest.mark.parametrize(
    ("text", "schema", "complaint"),
    [
        ("", ORDERS, "expected a key column"),
        ("id", ORDERS, "expected a comparison"),
        ("id >= 1 or id < 0", ORDERS, "expected `and` between comparisons, found 'or'"),
        ("id >= 1; drop table orders", ORDERS, "found '; drop table orders'"),
        ("id >= (select 1)", ORDERS, r"found '\(select 1\)'"),
        ("id >= 1 --", ORDERS, "found '--'"),
        ("id >= 1e5", ORDERS, "expected a value"),
        ("id >= 'x'", ORDERS, "expected a value of kind int64 for 'id', found 'x'"),
        ("v >= 'a'", ORDERS, r"expected a column of the key \(id\), found 'v'"),
        ("id >= 1 and id >= 2", ORDERS, "one lower and one upper end"),
        ("id = 1 and id < 5", ORDERS, "beside `=`"),
        ("id > 3", LINES, "a condition on 'id' that narrows no range"),
        ("tenant > 3 and id > 3", LINES, "a condition on 'id' that narrows no range"),
        ("name >= 'a'", table(name=Kind.TEXT), "'name' of kind text"),
        ("u = 'x'", table(u=Kind.UUID), "whose order is the same on every server"),
        ("id = 1", table(), "expected a table with a key"),
        ("id between 1, 2", ORDERS, "found ', 2'"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(
    text: str, schema: TableSchema, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        key_range.parse(text, schema)


def test_a_destination_with_another_order_is_refused() -> None:
    found = key_range.parse("id >= 1", ORDERS)
    key_range.must_agree(found, table(id=Kind.DECIMAL))
    for other in (None, table(id=Kind.TAGGED), table(other=Kind.INT64)):
        with pytest.raises(ConfigError, match="without --where"):
            key_range.must_agree(found, other)


def test_rows_of_a_range_are_compared_with_quoted_names_and_typed_values() -> None:
    columns = (Column('a" b', Kind.INT64), Column("_id", Kind.OBJECTID))
    landing = Landing(TableSchema(T, columns, ('a" b', "_id")), T, "cw_1", None, "meta")
    edge = Edge(("7", "x' or true --"), inclusive=True)
    statement = merge.stale(landing, KeySpan(('a" b', "_id"), edge, None)).as_string(None)
    assert statement == (
        'd."_cw_version" < %(below)s and (d."a"" b", d."_id" collate "C") >= '
        "('7'::bigint, 'x'' or true --'::text collate \"C\")"
    )
