"""Pages: where one ends the next begins, ties included."""

from __future__ import annotations

import sqlite3
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warp.capture import pages
from warp.capture.places import Place, Reading, Strategy, parse, version_of
from warp.model import Column, Invalid, Kind, TableId, TableSchema

TABLE = TableId("main", "t")
SCHEMA = TableSchema(
    TABLE,
    (Column("at", Kind.INT64), Column("b", Kind.TEXT), Column("a", Kind.INT64)),
    ("a", "b"),
)


class Sqlite:
    """A dialect that the standard library can run."""

    def name(self, *parts: str) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts)

    def literal(self, kind: Kind, text: str) -> str:
        return text if kind is Kind.INT64 else "'" + text.replace("'", "''") + "'"

    def selected(self, table: TableId, column: str) -> str:
        return self.name(column)

    def ordered(self, table: TableId, column: str) -> str:
        return self.name(column)


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["x", "y'", "Z"]), st.integers(0, 9)),
    unique_by=lambda row: (row[1], row[2]),
    max_size=30,
)


@given(ROWS, st.integers(1, 5), st.booleans())
def test_pages_hold_every_row_within_the_values_once(
    rows: list[tuple[Any, ...]], size: int, timed: bool
) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("create table t (at integer, b text, a integer)")
    database.executemany("insert into t values (?, ?, ?)", rows)
    order = pages.Order(SCHEMA, SCHEMA.columns[0] if timed else None)
    between = pages.Between("1", "2") if timed else None
    found: list[tuple[Any, ...]] = []
    after = None
    while True:
        statement = pages.page(Sqlite(), order, between=between, after=after, rows=size)
        part = database.execute(statement).fetchall()
        found += part
        if len(part) < size:
            break
        after = order.last(list(zip(*part, strict=True)))
    database.close()
    assert len(found) == len(set(found))
    assert set(found) == {row for row in rows if not timed or 1 <= row[0] <= 2}


def test_a_page_of_a_table_without_a_key_is_the_whole_table() -> None:
    keyless = TableSchema(TABLE, SCHEMA.columns, ())
    statement = pages.page(Sqlite(), pages.Order(keyless), rows=5)
    assert statement == 'select "at", "b", "a" from "main"."t"'


def test_the_place_of_a_value_that_could_not_be_read_is_its_text() -> None:
    order = pages.Order(TableSchema(TABLE, (Column("day", Kind.DATE),), ("day",)))
    assert order.last([[Invalid("0000-00-00")]]) == ["0000-00-00"]


def test_another_way_of_polling_begins_anew_and_never_at_a_lower_version() -> None:
    reading = Reading(after=("[5]",))
    place = Place(Strategy.DIGESTS, version=1 << 40, reading=reading).position(7.0)
    assert parse(place, Strategy.DIGESTS) == Place(
        Strategy.DIGESTS, version=1 << 40, reading=reading
    )
    assert parse(place, Strategy.WHOLE) is None
    timed = Place(Strategy.TIMESTAMP, "updated_at", upto=5, version=12).position(7.0)
    assert (version_of(place), version_of(timed), version_of(None)) == (1 << 40, 12, 0)
