"""What is loaded into BigQuery: one Parquet file for a table's changes, exactly as they are."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.compact import compact
from warp.destinations.bigquery import names, spelling, staged
from warp.model import (
    ABSENT,
    UNCHANGED,
    Column,
    Kind,
    Operation,
    TableChanges,
    TableId,
    TableSchema,
)

TABLE = TableId("shop", "things")
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE

VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=9, max_value=10**20),
    Kind.TEXT: st.text(),
    Kind.BYTES: st.binary(),
    Kind.DATE: st.dates(),
    Kind.TIME: st.integers(0, 86_399_999_999),
    Kind.TIMESTAMP: st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    Kind.DATETIME: st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _back(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    match kind:
        case Kind.DECIMAL:
            return Decimal(value)
        case Kind.TIMESTAMP:
            return (value - _EPOCH) // dt.timedelta(microseconds=1)
        case Kind.TIME:
            at = dt.timedelta(
                hours=value.hour, minutes=value.minute, seconds=value.second,
                microseconds=value.microsecond,
            )  # fmt: skip
            return at // dt.timedelta(microseconds=1)
    return value


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_every_cell_is_in_the_file_as_it_was(data: st.DataObject) -> None:
    kinds = list(VALUES)
    cells = [data.draw(st.none() | VALUES[kind]) for kind in kinds]
    columns = [Column(f"v_{kind}", kind) for kind in kinds]
    schema = TableSchema(TABLE, (Column("id", Kind.INT64), *columns), ("id",))
    part = TableChanges(TABLE, bytearray([CREATE]), [1], schema, [[1], *([cell] for cell in cells)])
    spelled = [
        spelling.spelled(column, column.name, decimal="BIGNUMERIC", json="JSON")
        for column in schema.columns
    ]
    packed = staged.stage(schema, compact(part))
    if staged.unfit(packed):
        return  # half of a surrogate pair
    file = staged.parquet(packed, spelled, keys=False)
    [row] = pq.read_table(io.BytesIO(file)).to_pylist()
    for place, (kind, cell) in enumerate(zip(kinds, cells, strict=True), start=1):
        assert _back(kind, row[f"c{place}"]) == cell


def test_which_cells_a_row_leaves_alone_is_told_beside_it() -> None:
    columns = (Column("id", Kind.INT64), Column("a", Kind.TEXT), Column("b", Kind.TEXT))
    schema = TableSchema(TABLE, columns, ("id",))
    part = TableChanges(
        TABLE,
        bytearray([UPDATE, UPDATE, DELETE]),
        [1, 2, 3],
        schema,
        [[1, 2, 3], [UNCHANGED, "x", ABSENT], ["y", "z", ABSENT]],
    )
    packed = staged.stage(schema, compact(part))
    spelled = [
        spelling.spelled(column, column.name, decimal="NUMERIC", json="JSON") for column in columns
    ]
    rows = pq.read_table(io.BytesIO(staged.parquet(packed, spelled, keys=True))).to_pylist()
    assert [row["k"] for row in rows] == ["010", None, None]
    assert [row["key"] for row in rows] == ['{"id": 1}', '{"id": 2}', '{"id": 3}']
    assert [(row["o"], row["v"], row["n"]) for row in rows] == [
        (117, 1, 0),
        (117, 2, 1),
        (100, 3, 2),
    ]


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_names_never_become_one(one: str, other: str) -> None:
    first = names.column(one)
    second = names.column(other, {first.lower()})
    assert one == other or first.lower() != second.lower()
    assert names.column(one) == first
