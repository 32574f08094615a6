"""What stands between a source and its readers: keys, ranges, rules that name nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from warp.digest.seams import Compared, Delivered
from warp.errors import SourceRefused
from warp.interfaces import SourceTraits
from warp.model import (
    UNCHANGED,
    ChangeBatch,
    Chunk,
    Column,
    Cover,
    KeySpan,
    Kind,
    MissingColumn,
    Position,
    Privacy,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    Verdict,
)
from warp.privacy import source as between
from warp.privacy.covering import Covering
from warp.privacy.source import CoveredSource
from warp.testing.memory import MemoryDatabase, MemorySource, MemorySourceOptions

PEOPLE, PLAIN = TableId("crm", "people"), TableId("crm", "plain")
KEY = b"a key of the tests"
SECRET = "hedwig@geheim.example"


class Partial(MemorySource):
    """Its updates carry what changed."""

    traits = SourceTraits(full_rows=False, key_in_positions="mail")


@pytest.fixture
def database() -> MemoryDatabase:
    database = MemoryDatabase()
    columns = (Column("mail", Kind.TEXT), Column("n", Kind.INT64), Column("name", Kind.TEXT))
    for table in (PEOPLE, PLAIN):
        database.create(TableSchema(table, columns, ("mail",)))
        for n in range(5):
            database.put(table, mail=f"{n}{SECRET}", n=n, name=f"Hedwig {n}")
    return database


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    between._told.clear()
    yield
    between._told.clear()


def covered(
    database: MemoryDatabase,
    *rules: tuple[str, Cover],
    own: bool = True,
    missing: MissingColumn | None = None,
    kind: type[MemorySource] = Partial,
) -> CoveredSource:
    paths = frozenset(path for path, _ in rules)
    privacy = Privacy(rules, paths if own else frozenset(), missing, KEY)

    def select(table: TableId) -> TableSettings | None:
        return TableSettings(table, table, "crm", privacy=privacy if table == PEOPLE else None)

    inner = kind(MemorySourceOptions(database=database), select)
    return CoveredSource(inner, select, paths=paths, key=KEY)


def rows_of(batch: ChangeBatch) -> list[tuple[Any, ...]]:
    return [row for part in batch.changes for row in part.rows()]


def read(source: CoveredSource, table: TableId = PEOPLE) -> list[tuple[Any, ...]]:
    return [row for batch in source.get_full_snapshot(Chunk(table, 0)) for row in rows_of(batch)]


def test_rows_come_covered_and_those_of_other_tables_as_they_are(database: MemoryDatabase) -> None:
    source = covered(database, ("mail", Cover.HASH), ("name", Cover.DROP))
    hashed = [Covering(KEY).text(Cover.HASH, f"{n}{SECRET}") for n in range(5)]
    assert sorted(read(source)) == sorted(zip(hashed, range(5), strict=True))
    assert (f"0{SECRET}", 0, "Hedwig 0") in read(source, PLAIN)


def test_a_delete_finds_the_row_that_a_create_has_written(database: MemoryDatabase) -> None:
    source = covered(database, ("mail", Cover.TOKENISE))
    known = {row[0] for row in read(source)}
    database.delete(PEOPLE, mail=f"3{SECRET}")
    changes = source.get_changes(Position("10"), selection=source._selection, idle=0.01)
    [[deleted, *_]] = rows_of(next(iter(changes)))
    assert deleted in known


def test_a_part_of_a_row_is_looked_up_by_the_key_that_the_source_has(
    database: MemoryDatabase,
) -> None:
    """The stream hands on a hash, and the source knows nothing of hashes."""
    source = covered(database, ("mail", Cover.HASH))
    at = source.position()
    assert "sealed" in at.token
    database.patch(PEOPLE, mail=f"2{SECRET}", n=22)
    batch = next(iter(source.get_changes(at, selection=source._selection, idle=0.01)))
    [part] = batch.changes
    assert UNCHANGED in next(iter(part.rows()))
    asked: list[Any] = []
    inner = source._inner.look_up

    def look_up(rows: TableChanges) -> TableChanges:
        asked.append(rows.columns)
        return inner(rows)  # type: ignore[no-any-return]

    source._inner.look_up = look_up
    found = source.look_up(part)
    assert asked == [[[f"2{SECRET}"]]]
    hashed = Covering(KEY).text(Cover.HASH, f"2{SECRET}")
    assert list(found.rows()) == [(hashed, 22, "Hedwig 2")]


def test_a_key_that_nobody_handed_on_is_found_by_reading_the_table(
    database: MemoryDatabase,
) -> None:
    """A comparison asks by what stands at the destination."""
    source = covered(database, ("mail", Cover.HASH))
    hashed = [Covering(KEY).text(Cover.HASH, f"{n}{SECRET}") for n in (1, 4)]
    schema = TableSchema(PEOPLE, (Column("mail", Kind.TEXT),), ("mail",))
    asked = TableChanges(PEOPLE, bytearray(b"rrr"), [0] * 3, schema, [[*hashed, "f" * 64]])
    assert sorted(row[1] for row in source.look_up(asked).rows()) == [1, 4]
    nobody = TableChanges(PEOPLE, bytearray(b"r"), [0], schema, [["f" * 64]])
    assert len(source.look_up(nobody)) == 0


def test_a_table_with_a_covered_key_is_cut_into_no_ranges(database: MemoryDatabase) -> None:
    """Bounds lie in markers and in Redis, as they are: those of a plain table show keys."""
    source = covered(database, ("mail", Cover.HASH))
    assert [(c.lower, c.upper, c.rows) for c in source.chunks(PEOPLE, 2)] == [(None, None, 6)]
    assert any(SECRET in str(chunk.lower) for chunk in source.chunks(PLAIN, 2))
    with pytest.raises(SourceRefused, match="a privacy rule covers"):
        source.chunks_within(PEOPLE, KeySpan(("mail",)), 2)


def test_no_server_sums_up_what_is_covered(database: MemoryDatabase) -> None:
    source = covered(database, ("name", Cover.MASK))
    assert (
        source.summing(Chunk(PEOPLE, 0), Compared(source.get_schema([PEOPLE])[PEOPLE], (), ()))
        is None
    )


def test_rows_as_they_were_are_covered_as_those_of_now(database: MemoryDatabase) -> None:
    asked: list[Any] = []

    class Remembering(Partial):
        traits = replace(Partial.traits, remembers=True)

        def delivered(self, table: TableId, position: Position) -> Delivered:
            return Delivered(int(position.token), exact=True)

        def rows_at(self, chunk: Chunk, at: int) -> Iterator[ChangeBatch]:
            asked.append(at)
            return self.get_full_snapshot(chunk)

        def look_up_at(self, rows: TableChanges, at: int) -> TableChanges:
            raise AssertionError("nobody can ask for a hash")

    source = covered(database, ("mail", Cover.HASH), ("name", Cover.DROP), kind=Remembering)
    place = Position("7")
    assert source.delivered(PEOPLE, place) == Delivered(7, exact=True)
    assert source.delivered(PEOPLE, source._sealed(place, True)) == Delivered(7, exact=True)
    hashed = [Covering(KEY).text(Cover.HASH, f"{n}{SECRET}") for n in range(5)]
    found = [row for b in source.rows_at(Chunk(PEOPLE, 0), 7) for row in rows_of(b)]
    assert sorted(found) == sorted(zip(hashed, range(5), strict=True))
    schema = TableSchema(PEOPLE, (Column("mail", Kind.TEXT),), ("mail",))
    one = TableChanges(PEOPLE, bytearray(b"r"), [0], schema, [[hashed[3]]])
    assert list(source.look_up_at(one, 6).rows()) == [(hashed[3], 3)]
    assert asked == [7, 6]


def test_a_way_to_rows_that_is_not_covered_is_closed(database: MemoryDatabase) -> None:
    class Reading(Partial):
        traits = SourceTraits(full_rows=False, reads_keys=True)

        def changes_of(self, *_: object) -> None:
            raise AssertionError("nobody may get here")

    source = covered(database, ("name", Cover.HASH), kind=Reading)
    assert not source.traits.reads_keys
    with pytest.raises(AttributeError, match="changes_of"):
        source.changes_of(None, [])


@pytest.mark.parametrize("cover", [Cover.MASK, Cover.DROP])
def test_a_key_is_neither_masked_nor_dropped(database: MemoryDatabase, cover: Cover) -> None:
    source = covered(database, ("mail", cover))
    with pytest.raises(
        SourceRefused, match="expected `hash` or `tokenise` for a column of the key"
    ):
        read(source)
    with pytest.raises(SourceRefused, match="make different rows one"):
        source.check()


@pytest.mark.parametrize(
    ("own", "missing", "stops"),
    [
        (True, None, True),
        (False, None, False),
        (True, MissingColumn.WARN, False),
        (False, MissingColumn.STOP, True),
    ],
)
def test_a_rule_that_names_nothing_stops_the_unit_or_is_told_once(
    database: MemoryDatabase, own: bool, missing: MissingColumn | None, stops: bool
) -> None:
    """A renamed column would else be carried as it is."""
    source = covered(database, ("email", Cover.HASH), own=own, missing=missing)
    verdicts = {d.verdict for d in source.diagnose()}
    assert verdicts == {Verdict.FAILED if stops else Verdict.WARNING}
    with capture_logs() as told:
        if stops:
            with pytest.raises(SourceRefused, match="expected 'email', for which there is a"):
                read(source)
        else:
            read(source)
            read(source)
    assert [line["rule"] for line in told] == ([] if stops else ["email"])


@pytest.mark.parametrize("own", [True, False])
def test_a_rule_into_a_text_whose_fields_nobody_reads_stops_the_unit(
    database: MemoryDatabase, own: bool
) -> None:
    """MariaDB's JSON is text: passed on with a warning, what the rule is for would leave."""
    source = covered(
        database, ("name.last", Cover.MASK), own=own, missing=MissingColumn.WARN, kind=MemorySource
    )
    [told] = [d for d in source.diagnose() if d.code == "privacy-rules"]
    assert told.verdict is Verdict.FAILED
    assert told.mend == "cover the column as a whole, or say `name.last: keep` for this table"
    with pytest.raises(SourceRefused, match=r"'name' of kind text.*`name.last: keep`"):
        read(source)
    whole = ("name.last", Cover.MASK), ("name", Cover.MASK)
    source = covered(database, *whole, own=own, missing=MissingColumn.WARN)
    assert {row[2] for row in read(source)} == {"****** *"}


def test_planning_a_table_whose_rules_do_not_fit_stops_nobody(database: MemoryDatabase) -> None:
    """Its own units do, once they have rows; the other tables of the schema must be planned."""
    source = covered(database, ("mail", Cover.MASK), ("email", Cover.HASH))
    assert source.get_schema([PEOPLE])
    assert source.chunks(PEOPLE, 2)
    with pytest.raises(SourceRefused):
        read(source)


def test_rules_that_name_what_is_there_are_told_by_doctor(database: MemoryDatabase) -> None:
    [found] = covered(database, ("mail", Cover.HASH), ("name", Cover.DROP)).diagnose()
    assert (found.verdict, found.found) == (Verdict.OK, "mail: hash, name: drop")


def test_positions_that_hold_no_covered_key_stay_readable(database: MemoryDatabase) -> None:
    assert covered(database, ("name", Cover.MASK)).position().token == "10"


def test_the_stream_goes_on_from_what_it_sealed(database: MemoryDatabase) -> None:
    source = covered(database, ("mail", Cover.HASH))
    before = source.position()
    database.put(PEOPLE, mail="x", n=9, name="y")
    batch = next(iter(source.get_changes(before, selection=source._selection, idle=0.01)))
    assert [row[1] for row in rows_of(batch)] == [9]
    assert source.reached(batch.end, source.position())
    assert not source.reached(before, batch.end)
