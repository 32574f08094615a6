"""The statements that read a table page by page, in the order of some columns.  Pure.

A page goes on after the last row of the one before, ties included: rows are ordered by the key
last, and compared whole.  Each comparison is written out, because MySQL uses no index for
`(a, b) > (x, y)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warp.capture.side import Dialect
from warp.kinds import as_text
from warp.model import Column, Invalid, TableSchema


@dataclass(frozen=True, slots=True)
class Between:
    """Values of a column of times, both ends included, as texts; None: from the beginning."""

    low: str | None
    high: str


@dataclass(frozen=True, slots=True)
class Order:
    """The columns that pages follow: a column of times or none, then the key."""

    schema: TableSchema
    times: Column | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        key = [c for c in self.schema.columns if c.name in self.schema.key]
        key.sort(key=lambda column: self.schema.key.index(column.name))
        if self.times is None:
            return tuple(key)
        return (self.times, *(c for c in key if c.name != self.times.name))

    def last(self, columns: Sequence[Sequence[object]]) -> list[str]:
        """Where the next page goes on: the place of the last row, as texts."""
        at = {column.name: place for place, column in enumerate(self.schema.columns)}
        return [_as_text(column, columns[at[column.name]][-1]) for column in self.columns]


def page(
    dialect: Dialect,
    order: Order,
    *,
    between: Between | None = None,
    after: Sequence[str] | None = None,
    rows: int | None = None,
) -> str:
    """Rows whose times lie `between`, after a place that `Order.last` told."""
    table = order.schema.table
    conditions: list[str] = []
    if order.times is not None and between is not None:
        times, kind = dialect.name(order.times.source), order.times.kind
        if after is None and between.low is not None:
            conditions.append(f"{times} >= {dialect.literal(kind, between.low)}")
        conditions.append(f"{times} <= {dialect.literal(kind, between.high)}")
    if after is not None:
        conditions.append(_beyond(dialect, order, after))
    listed = ", ".join(dialect.selected(table, c.source) for c in order.schema.columns)
    statement = f"select {listed} from {dialect.name(table.namespace, table.name)}"
    if conditions:
        statement += f" where {' and '.join(conditions)}"
    if order.columns and rows is not None:
        ordered = (dialect.ordered(table, column.source) for column in order.columns)
        statement += f" order by {', '.join(ordered)} limit {int(rows)}"
    return statement


def of_keys(dialect: Dialect, schema: TableSchema, keys: Sequence[tuple[object, ...]]) -> str:
    """The rows of these keys, each in the order of `schema.key`."""
    table = schema.table
    order = Order(schema)
    listed = ", ".join(dialect.selected(table, c.source) for c in schema.columns)
    names = ", ".join(dialect.name(c.source) for c in order.columns)
    values = ", ".join(
        "({})".format(
            ", ".join(
                dialect.literal(column.kind, _as_text(column, cell))
                for column, cell in zip(order.columns, key, strict=True)
            )
        )
        for key in keys
    )
    place = dialect.name(table.namespace, table.name)
    return f"select {listed} from {place} where ({names}) in ({values})"


def greatest(dialect: Dialect, schema: TableSchema, column: Column) -> str:
    name = dialect.name(column.source)
    return f"select max({name}) from {dialect.name(schema.table.namespace, schema.table.name)}"


def _beyond(dialect: Dialect, order: Order, after: Sequence[str]) -> str:
    """`a >= x and (a > x or a = x and (b > y or b = y and c > z))`: the first part finds the
    index."""
    table = order.schema.table
    compared = [
        (dialect.ordered(table, column.source), dialect.literal(column.kind, text))
        for column, text in zip(order.columns, after, strict=True)
    ]
    name, value = compared[-1]
    condition = f"{name} > {value}"
    for name, value in reversed(compared[:-1]):
        condition = f"({name} > {value} or {name} = {value} and {condition})"
    first, value = compared[0]
    return condition if len(compared) == 1 else f"{first} >= {value} and {condition}"


def _as_text(column: Column, cell: object) -> str:
    return cell.text if isinstance(cell, Invalid) else as_text(column.kind, cell)
