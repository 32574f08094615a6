"""A BigQuery that is compared: which moment its runs have delivered, and how keys are asked for."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal
from typing import Any, cast

import pytest
from pretended_bigquery import HOUR, NOW, ORDERS, Answer, Pretended, orders, source_of

from warp.assembly import Assembly
from warp.capture.places import Place, Strategy
from warp.digest.seams import BoundsOf, Delivered, KeyRange
from warp.errors import ConfigError, PositionLost, SourceRefused, SourceUnavailable
from warp.leases.memory import MemoryLeaseStore
from warp.model import Capture, Chunk, Column, Kind, Operation, Position, TableChanges, TableSchema
from warp.sources.bigquery import BigQuerySource, compared
from warp.sources.bigquery.catalog import Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.snapshot import bound
from warp.testing.memory import MemoryDestination, MemoryDestinationOptions, MemoryWarehouse
from workers.errands import Desk, recover

AT = NOW - HOUR
TIMED = orders(
    schema={
        "fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "updated_at", "type": "TIMESTAMP"},
        ]
    }
)


def signature(source: BigQuerySource) -> str:
    found = source.catalog.table(ORDERS)
    assert found is not None
    return found.signature


def delivered(
    strategy: Strategy, capture: Capture, *, table: Any = None, **said: Any
) -> Delivered | None:
    source = source_of(Pretended({"orders": table or orders()}), capture)
    told: dict[str, Any] = {"about": signature(source), "upto": AT} | said
    place = Place(strategy, version=AT, **told).position(1.0)
    return source.delivered(ORDERS, place)


def test_a_comparison_has_delivered_the_very_moment_that_it_read() -> None:
    assert delivered(Strategy.WHOLE, Capture.HASH) == Delivered(AT, exact=True)


@pytest.mark.parametrize(
    "said",
    [
        {"upto": None},  # no run has ended yet
        {"about": "another key or other columns"},
        {"upto": NOW - 168 * HOUR + HOUR},  # BigQuery forgets it before it is read
    ],
)
def test_where_the_moment_is_unknown_or_out_of_reach_there_is_none(said: dict[str, Any]) -> None:
    assert delivered(Strategy.WHOLE, Capture.HASH, **said) is None


def test_a_table_that_was_made_again_is_not_shown_as_it_was_before() -> None:
    again = orders(creationTime=str((AT + 1_000_000) // 1000))
    assert delivered(Strategy.WHOLE, Capture.HASH, table=again) is None


def test_the_place_of_another_strategy_says_nothing() -> None:
    assert delivered(Strategy.TIMESTAMP, Capture.HASH) is None
    assert delivered(Strategy.WHOLE, Capture.LOG) is None


def test_a_history_has_delivered_what_came_before_its_span_ends_and_perhaps_more() -> None:
    assert delivered(Strategy.HISTORY, Capture.LOG) == Delivered(AT - 1, exact=False)


def test_a_run_by_times_has_delivered_what_its_next_one_begins_at_and_perhaps_more() -> None:
    found = delivered(Strategy.TIMESTAMP, Capture.TIMESTAMP, table=TIMED, about="updated_at")
    assert found == Delivered(AT, exact=False)
    assert delivered(Strategy.TIMESTAMP, Capture.TIMESTAMP, table=TIMED, about="at") is None


# ---------------------------------------------------------------- keys


def asking(**columns: list[Any]) -> TableChanges:
    """For the rows of these keys; each value says its kind."""
    kinds = {
        int: Kind.INT64,
        str: Kind.TEXT,
        float: Kind.FLOAT64,
        Decimal: Kind.DECIMAL,
        dt.date: Kind.DATE,
    }
    named = tuple(Column(name, kinds[type(cells[0])]) for name, cells in columns.items())
    count = len(next(iter(columns.values())))
    return TableChanges(
        ORDERS,
        bytearray((Operation.READ,)) * count,
        [0] * count,
        TableSchema(ORDERS, named, tuple(columns)),
        list(columns.values()),
    )


def keyed(**types: str) -> dict[str, Any]:
    return orders(
        schema={"fields": [{"name": name, "type": type_} for name, type_ in types.items()]},
        tableConstraints={"primaryKey": {"columns": list(types)}},
    )


def asked_of(table: dict[str, Any], **columns: list[Any]) -> list[str]:
    service = Pretended({"orders": table}, answers=[Answer("IN|IS_NAN", [("id", "INTEGER")])])
    source_of(service).look_up_at(asking(**columns), AT)
    return [asked.statement for asked in service.asked()]


def test_rows_are_looked_up_as_they_were_by_literals_of_their_types() -> None:
    table = keyed(a="INTEGER", b="STRING", c="FLOAT", d="NUMERIC")
    [statement] = asked_of(
        table,
        a=[1, 2],
        b=["it's `\\", "ü"],
        c=[0.5, math.nan],
        d=[Decimal("1.50"), Decimal(2)],
    )
    assert "FOR SYSTEM_TIME AS OF TIMESTAMP '2025-10-09 07:53:20" in statement
    assert re.search(r"`a` IN \((1, 2|2, 1)\)", statement)
    assert r"'it\'s \`\\'" in statement
    assert "(`c` IN (CAST('0.5' AS FLOAT64)) OR IS_NAN(`c`))" in statement
    assert "BIGNUMERIC '1.50'" in statement


def test_a_key_that_the_column_cannot_hold_is_of_no_row_and_not_asked_for() -> None:
    """Only somebody else can have put it at the destination; BigQuery would refuse the query."""
    wild = [Decimal("NaN"), Decimal("Infinity"), Decimal("1e38"), Decimal("1e-39")]
    assert asked_of(keyed(d="BIGNUMERIC"), d=wild) == []
    [statement] = asked_of(keyed(d="BIGNUMERIC"), d=[*wild, Decimal(5)])
    assert "WHERE (`d` IN (BIGNUMERIC '5'))" in statement


@pytest.mark.parametrize(
    ("type", "kind", "cell", "fits"),
    [
        ("TIMESTAMP", Kind.TIMESTAMP, 253_402_300_799_999_999, True),
        ("TIMESTAMP", Kind.TIMESTAMP, 253_402_300_800_000_000, False),  # the year 10000
        ("TIMESTAMP", Kind.TIMESTAMP, -62_135_596_800_000_000, True),
        ("TIMESTAMP", Kind.TIMESTAMP, -62_135_596_800_000_001, False),
        ("DATETIME", Kind.DATETIME, 2**63 - 1, False),
        ("DATE", Kind.DATE, dt.date(1, 1, 1), True),
        ("STRING", Kind.TEXT, None, False),
    ],
)
def test_times_that_bigquery_has_not_got_are_of_no_row(
    type: str, kind: Kind, cell: Any, fits: bool
) -> None:
    column = Declared("k", type)
    assert column.kind is kind
    assert compared._fits(column, cell) is fits


def test_many_long_keys_are_asked_for_in_several_queries() -> None:
    keys = [str(n) * 10_000 for n in range(10, 70)]
    statements = asked_of(keyed(id="STRING"), id=keys)
    assert 1 < len(statements) < 10
    assert all(len(statement) < 300_000 for statement in statements)
    found = sum(statement.count("'") // 2 for statement in statements) - len(statements)
    assert found == len(keys)


def test_a_moment_that_went_out_of_reach_is_no_lost_place() -> None:
    """PositionLost would stop the unit for good."""
    gone = (400, "invalidQuery", "Invalid time travel timestamp 1 for table p:shop.orders")
    service = Pretended({"orders": orders()}, answers=[Answer("SYSTEM_TIME", error=gone)])
    source = source_of(service)
    with pytest.raises(SourceUnavailable, match="after the next run"):
        source.look_up_at(asking(id=[1]), AT)
    with pytest.raises(SourceUnavailable, match="after the next run"):
        list(source.rows_at(Chunk(ORDERS, 0), AT))
    with pytest.raises(PositionLost):  # the twin: as the client tells it
        source.server.ask("SELECT 1 FOR SYSTEM_TIME AS OF x", doing="look")


# ---------------------------------------------------------------- ranges


def table_of(*key: tuple[str, str]) -> Table:
    columns = tuple(Declared(name, type_) for name, type_ in key)
    return Table(ORDERS, columns, tuple(name for name, _ in key), rows=5, bytes=50)


def test_a_range_of_a_key_that_every_server_sorts_alike_has_its_bounds() -> None:
    day = Declared("day", "DATE")
    lower, upper = (bound(day, dt.date(2024, 5, n)) for n in (1, 2))
    found = compared.bounds(table_of(("day", "DATE")), Chunk(ORDERS, 1, lower, upper))
    expected = KeyRange((dt.date(2024, 5, 1),), (dt.date(2024, 5, 2),))
    assert found == BoundsOf((Kind.DATE,), expected)
    last = compared.bounds(table_of(("day", "DATE")), Chunk(ORDERS, 2, upper, None))
    assert last == BoundsOf((Kind.DATE,), KeyRange((dt.date(2024, 5, 2),)))


@pytest.mark.parametrize(
    ("table", "lower"),
    [
        (table_of(("name", "STRING")), bound(Declared("name", "STRING"), "m")),
        (table_of(("a", "INT64"), ("b", "INT64")), bound(Declared("a", "INT64"), 5)),
        (table_of(("id", "NUMERIC")), bound(Declared("id", "INT64"), 5)),  # changed since
        (table_of(("id", "INT64")), '{"at": 5, "stream": "projects/p"}'),
        (table_of(), None),
    ],
)
def test_any_other_range_has_none_and_the_table_is_compared_as_one(
    table: Table, lower: str | None
) -> None:
    assert compared.bounds(table, Chunk(ORDERS, 0, lower)) is None


def test_a_chunk_of_a_key_that_changed_says_to_read_the_table_anew() -> None:
    service = Pretended({"orders": orders()})
    chunk = Chunk(ORDERS, 0, bound(Declared("id", "NUMERIC"), Decimal(5)))
    with pytest.raises(SourceRefused, match="cartridge-warp resync"):
        list(source_of(service).get_full_snapshot(chunk))


def test_a_position_is_of_the_poll_and_of_nothing_else() -> None:
    with pytest.raises(SourceRefused, match="the position of a polled table"):
        source_of(Pretended({"orders": orders()})).delivered(ORDERS, Position("0/16B3748"))


# ---------------------------------------------------------------- what means nothing here


class Polled:
    """The assembly of one schema, which has no stream."""

    def knows(self, schema: str) -> bool:
        return True

    def sharing(self) -> tuple[str, ...]:
        return ()

    def source(self, schema: str) -> BigQuerySource:
        return source_of(Pretended({"orders": orders()}))


def test_where_there_is_no_stream_there_is_none_to_recover() -> None:
    metadata = MemoryDestination(
        MemoryDestinationOptions(warehouse=MemoryWarehouse()), lambda table: None
    ).metadata()
    desk = Desk(metadata, MemoryLeaseStore(), cast("Assembly", Polled()))
    with pytest.raises(ConfigError, match="cartridge-warp resync shop TABLE"):
        recover(desk, schema="shop")
