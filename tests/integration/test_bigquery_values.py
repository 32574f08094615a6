"""Every kind of value arrives at BigQuery as it was; what has no form there is set aside whole."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer
from test_bigquery_schema import Writer

from warp.model import ABSENT, UNCHANGED, Change, Choice, Column, Kind, Operation, Phase

pytestmark = pytest.mark.xdist_group("bigquery")

MICROSECONDS = 1_700_000_000_123_456
WHEN = dt.datetime(2023, 11, 14, 22, 13, 20, 123456)  # noqa: DTZ001  a wall clock's

# kind, what is written, what a reader finds
VALUES: list[tuple[Kind, Any, Any]] = [
    (Kind.BOOL, True, True),
    (Kind.INT32, -(2**31), -(2**31)),
    (Kind.INT64, 2**63 - 1, 2**63 - 1),
    (Kind.FLOAT32, 0.5, 0.5),
    (Kind.FLOAT64, 0.1, 0.1),
    (
        Kind.DECIMAL,
        Decimal("-12345678901234567.1234567890"),
        Decimal("-12345678901234567.123456789"),
    ),
    (Kind.TEXT, 'é 😀 "\\\n', 'é 😀 "\\\n'),
    (Kind.BYTES, b"\x00\xff", b"\x00\xff"),
    (Kind.UUID, bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
    (Kind.DATE, dt.date(1, 1, 1), dt.date(1, 1, 1)),
    (Kind.TIME, 86_399_999_999, dt.time(23, 59, 59, 999999)),
    (Kind.DATETIME, MICROSECONDS, WHEN),
    (Kind.TIMESTAMP, MICROSECONDS, WHEN.replace(tzinfo=dt.UTC)),
    (Kind.JSON, b'{"a": [1, "x", null]}', {"a": [1, "x", None]}),
    (Kind.JSON_TEXT, b'{"b":1, "a":2}', '{"b":1, "a":2}'),
    (Kind.OBJECTID, "0123456789abcdef01234567", "0123456789abcdef01234567"),
    (Kind.TAGGED, '{"$oid":"1"}', '{"$oid":"1"}'),
]


def parsed(value: Any) -> Any:
    """Of a JSON column; some versions of the client parse it themselves."""
    return json.loads(value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def warehouse(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        yield warehouse


@pytest.mark.holds(guarantee=4, source="none", destination="bigquery", fault="no fault")
def test_every_kind_arrives_as_it_was(warehouse: Warehouse) -> None:
    writer = Writer(warehouse)
    columns = [Column(f"v_{kind}", kind) for kind, _, _ in VALUES]
    writer.make(Column("id", Kind.INT64), *columns)
    nothing = [None, ABSENT] * len(VALUES)
    writer.write(
        [1, *(value for _, value, _ in VALUES)],
        [2, *nothing[: len(VALUES)]],
    )
    found = {row["id"]: row for row in writer.rows()}
    for kind, _, expected in VALUES:
        value = found[1][f"v_{kind}"]
        assert (parsed(value) if kind is Kind.JSON else value) == expected, kind
        assert found[2][f"v_{kind}"] is None, kind


def test_json_stays_where_an_update_leaves_it_out_and_goes_with_its_row(
    warehouse: Warehouse,
) -> None:
    """Beside a snapshot, where a deleted row leaves a tombstone of NULLs."""
    writer = Writer(warehouse, Phase.SNAPSHOT)
    writer.make(Column("id", Kind.INT64), Column("tags", Kind.JSON), Column("n", Kind.INT64))
    writer.write([1, b'["a"]', 1], [2, b'["b"]', 1], [3, b'["c"]', 1])
    update = Operation.UPDATE
    writer.write([1, UNCHANGED, 2], [2, b'{"x": 1}', 2], operation=update, version=2)
    writer.write([3, ABSENT, ABSENT], operation=Operation.DELETE, version=2)
    found = {row["id"]: (parsed(row["tags"]), row["n"]) for row in writer.rows()}
    assert found == {1: (["a"], 2), 2: ({"x": 1}, 2)}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Kind.TEXT, "a'b\"\\"),
        (Kind.BYTES, b"\x00k"),
        (Kind.UUID, bytes(range(16))),
        (Kind.DECIMAL, Decimal("1.10")),
        (Kind.DATE, dt.date(2024, 2, 29)),
        (Kind.TIMESTAMP, MICROSECONDS),
        (Kind.DATETIME, MICROSECONDS),
        (Kind.JSON, b'{"a": 1}'),  # of PostgreSQL: a STRING here, since JSON cannot be compared
    ],
)
def test_a_row_is_found_again_by_a_key_of_any_kind(
    warehouse: Warehouse, kind: Kind, key: Any
) -> None:
    writer = Writer(warehouse)
    writer.make(Column("id", kind), Column("n", Kind.INT64))
    writer.write([key, 1])
    writer.write([key, 2], version=2)
    assert [row["n"] for row in writer.rows()] == [2]
    writer.write([key, ABSENT], operation=Operation.DELETE, version=3)
    assert writer.rows() == []


@pytest.mark.soak
@pytest.mark.holds(guarantee=4, source="none", destination="bigquery", fault="refused rows")
def test_a_row_with_a_value_that_bigquery_has_no_form_for_is_set_aside_and_the_rest_lands(
    warehouse: Warehouse,
) -> None:
    writer = Writer(warehouse)
    writer.make(Column("id", Kind.INT64), Column("at", Kind.TIMESTAMP), Column("t", Kind.TEXT))
    writer.write([1, 0, "fine"], [2, 10**18, "far"], [3, 0, "half \ud800"])
    assert [row["id"] for row in writer.rows()] == [1]
    assert writer.written.counts == {(writer.id, Operation.CREATE): 1}
    found = writer.destination.metadata().quarantine(Choice(table=writer.id.name, whole=True))
    assert [(a.row.key, a.row.version) for a in found] == [('{"id": 2}', 1), ('{"id": 3}', 1)]
    assert "years 1 to 9999" in found[0].row.reason
    assert "surrogate" in found[1].row.reason


@pytest.mark.soak
def test_a_decimal_column_says_its_limits_and_cannot_be_widened(warehouse: Warehouse) -> None:
    writer = Writer(warehouse)
    writer.make(Column("id", Kind.INT64), Column("n", Kind.DECIMAL))
    writer.change(Change.WIDEN_COLUMN, column=Column("n", Kind.DECIMAL), base=1)
    schema = writer.destination.get_schema(writer.id)
    assert schema is not None
    column = schema.column("n")
    assert column is not None
    assert (column.limit, column.scale, column.fixed) == (76, 38, True)
