"""Named SQL: every file says why it is there, and names never leave their quotes."""

from __future__ import annotations

from importlib.resources import files

import pytest

from warp.compact import Compacted
from warp.destinations.postgresql import carriers, merge
from warp.destinations.postgresql.session import fitting, name
from warp.model import ABSENT, UNCHANGED, Column, Kind, Operation, TableId, TableSchema
from warp.sql import load, migrations
from warp.staged import PARTIAL, Staged, stage

DIRECTORY = files("warp.sql").joinpath("postgresql")
NAMES = sorted(f.name[:-4] for f in DIRECTORY.iterdir() if f.name.endswith(".sql"))


@pytest.mark.parametrize("name_", NAMES)
def test_a_statement_opens_with_its_reason_and_is_one_statement(name_: str) -> None:
    assert DIRECTORY.joinpath(f"{name_}.sql").read_text().startswith("-- ")
    text = load("postgresql", name_)
    assert "--" not in text
    assert ";" not in text


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [step.version for step in migrations("postgresql")] == list(
        range(1, len(migrations("postgresql")) + 1)
    )


@pytest.mark.parametrize(
    "hostile", ['a"; drop table x; --', "%s", "100%", "{}", "it's", "back\\slash", "ünï", "select"]
)
def test_a_name_is_one_quoted_word_with_its_percent_signs_doubled(hostile: str) -> None:
    quoted = name(hostile).as_string(None)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "").count('"') == 0
    assert quoted[1:-1].replace('""', '"').replace("%%", "%") == hostile


def test_a_long_name_is_cut_between_characters_and_keeps_apart() -> None:
    one, other = fitting("ü" * 40 + "a"), fitting("ü" * 40 + "b")
    assert one != other
    assert len(one.encode()) <= 63
    assert fitting("ü" * 31) == "ü" * 31


SCHEMA = TableSchema(
    TableId("s", "t"),
    (Column("id", Kind.INT64), Column("a", Kind.TEXT), Column("at", Kind.TIMESTAMP)),
    ("id",),
)


def staged(operations: bytes, *columns: list[object]) -> Staged:
    compacted = Compacted(operations, list(range(len(operations))), [*columns])
    return stage(SCHEMA, compacted)


def test_a_row_that_keeps_cells_is_marked_with_a_bitmap_of_them() -> None:
    part = staged(b"uud", [1, 2, 3], ["x", UNCHANGED, ABSENT], [0, 0, ABSENT])
    assert part.operations == bytes([Operation.UPDATE, PARTIAL, Operation.DELETE])
    assert part.kept == [None, bytes([0b10]), None]
    assert part.left_out == frozenset()


def test_a_column_that_no_row_says_anything_about_is_left_out() -> None:
    part = staged(b"ucd", [1, 2, 3], [UNCHANGED, UNCHANGED, ABSENT], [0, 0, ABSENT])
    assert part.left_out == {1}
    assert part.kept is None
    assert part.operations == b"ucd"


def test_an_instant_is_counted_from_the_servers_epoch() -> None:
    part = staged(b"cc", [1, 2], ["", ""], [946_684_800_000_000, None])
    assert [carriers.dumped(*column) for column in part.columns][2] == [0, None]


def test_a_read_lands_on_older_rows_only_and_a_change_on_its_own_version_too() -> None:
    landing = merge.Landing(SCHEMA, SCHEMA.table, "cw_1", None, "meta")
    guard = {
        reads: merge.upsert(
            landing, operations=None, reads=reads, one_version=True, left_out=frozenset()
        )[0]
        for reads in (True, False)
    }
    assert guard[True].endswith(b'where d."_cw_version" < excluded."_cw_version"')
    assert guard[False].endswith(b'where d."_cw_version" <= excluded."_cw_version"')
