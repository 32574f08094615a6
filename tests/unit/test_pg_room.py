"""A table is given no more columns than fit into a page when all of them are filled."""

from __future__ import annotations

import pytest

from warp.destinations.postgresql.carriers import TYPES
from warp.destinations.postgresql.room import MOST_COLUMNS, fitted, has_room, width
from warp.model import Column, Kind, Role, TableId, TableSchema, TableSettings

TABLE = TableId("shop", "orders")
EXTRA = Column("_extra", Kind.JSON, role=Role.EXTRA)
KEY = Column("_id", Kind.INT64)


def schema(kind: Kind, fields: int, *more: Column) -> TableSchema:
    columns = [Column(f"f{n}", kind) for n in range(fields)]
    return TableSchema(TABLE, (KEY, *columns, *more), ("_id",))


@pytest.mark.parametrize("kind", Kind)
def test_the_default_number_of_columns_fits_whatever_they_are(kind: Kind) -> None:
    wanted = schema(kind, TableSettings(TABLE, TABLE, "shop").max_columns, EXTRA)
    assert fitted(wanted) == wanted


@pytest.mark.parametrize("kind", Kind)
def test_what_fits_leaves_room_in_the_page_and_for_our_own_columns(kind: Kind) -> None:
    columns = fitted(schema(kind, 2_000, EXTRA)).columns
    assert columns[0] == KEY
    assert columns[-1] == EXTRA
    assert sum(width(c.kind) for c in columns) < 8_000
    assert len(columns) < MOST_COLUMNS
    assert not has_room(columns, kind)


def test_a_narrow_column_is_taken_where_a_wide_one_is_not() -> None:
    wide = [Column(f"w{n}", Kind.TEXT) for n in range(400)]
    wanted = TableSchema(TABLE, (KEY, *wide, Column("n", Kind.INT64), EXTRA), ("_id",))
    assert fitted(wanted).names()[-2:] == ("n", "_extra")


def test_nothing_is_left_out_where_its_values_would_have_no_place() -> None:
    wanted = schema(Kind.INT64, 2_000)
    assert fitted(wanted) == wanted


def test_columns_that_were_dropped_count() -> None:
    assert has_room([KEY], used=1_599)
    assert not has_room([KEY], used=1_600)


def test_every_kind_has_a_width() -> None:
    assert {width(kind) for kind in TYPES} == {8, 16, 24}
