"""Rows in a MariaDB: exactly the values sent, in the rows they belong to and in no others."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fix_servers import Server, mysql_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mysql_destination_world import (
    CREATE,
    DELETE,
    ORDERS,
    READ,
    SCHEMA,
    TRUNCATE,
    UPDATE,
    Unit,
    World,
)

from warp.destinations.mysql import ddl, loading, merge
from warp.destinations.mysql.loading import Loader
from warp.destinations.mysql.straight import Straight
from warp.errors import DestinationRefused, SchemaBusy
from warp.model import (
    UNCHANGED,
    Aside,
    Change,
    Choice,
    Chunk,
    Column,
    Kind,
    Phase,
    Role,
    TableSchema,
    Verdict,
    WorkUnit,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
# Years 1 to 9999, in microseconds.
INSTANTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "NULL",
        r"\N",
        "\\",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "'",
        '"',
        "%s",
        "%%",
        " ",
        "a ",
        "",
        "😀",
        "\x1a",
    ]
)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    Kind.INT64: INT64,
    Kind.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Kind.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Kind.DECIMAL: st.decimals(
        min_value=-(10**34), max_value=10**34, places=30, allow_nan=False
    ).map(lambda d: d.normalize() + 0)
    | st.integers(-(10**35) + 1, 10**35 - 1).map(Decimal),
    Kind.TEXT: TEXT,
    Kind.BYTES: st.binary(max_size=20),
    Kind.UUID: st.binary(min_size=16, max_size=16),
    Kind.DATE: st.dates(),
    Kind.TIME: st.integers(0, 86_399_999_999),
    Kind.DATETIME: INSTANTS,
    Kind.TIMESTAMP: INSTANTS,
    Kind.JSON: TEXT.map(lambda t: json.dumps({t: 1.10}, ensure_ascii=False).encode()),
    Kind.JSON_TEXT: TEXT.map(str.encode),
    Kind.OBJECTID: st.binary(min_size=12, max_size=12).map(bytes.hex),
    Kind.TAGGED: TEXT,
}
ROWS = st.tuples(*(st.none() | of for of in VALUES.values()))
READ_AS = {
    Kind.FLOAT32: "{} * 1e0",
    Kind.TIME: "timestampdiff(microsecond, '1970-01-01', timestamp('1970-01-01', {}))",
    Kind.DATETIME: "timestampdiff(microsecond, '1970-01-01', {})",
    Kind.TIMESTAMP: "timestampdiff(microsecond, '1970-01-01', {})",
    Kind.DATE: "cast({} as char)",
    Kind.BOOL: "{} = 1",
}
WIDE = TableSchema(
    ORDERS, (Column("id", Kind.INT64), *(Column(f"v_{kind}", kind) for kind in VALUES)), ("id",)
)


@pytest.fixture
def world(mariadb: Server) -> Iterator[World]:
    world = World(mariadb.url)
    yield world
    world.close()


@pytest.fixture(scope="module")
def wide(mariadb: Server) -> Iterator[Unit]:
    """A stream to a table with a column of each kind."""
    world = World(mariadb.url)
    yield world.settled(WIDE)
    world.close()


def carriers(unit: Unit, id: int) -> list[Any]:
    """The cells of a row, read by another connection."""
    cells = ", ".join(READ_AS.get(c.kind, "{}").format(f"`{c.name}`") for c in WIDE.columns[1:])
    [row] = unit.world.ask(f"select {cells} from {unit.world.shop}.orders where id = %s", [id])
    found: list[Any] = []
    for column, cell in zip(WIDE.columns[1:], row, strict=True):
        match column.kind:
            case _ if cell is None:
                found.append(None)
            case Kind.DATE:
                found.append(dt.date.fromisoformat(cell))
            case Kind.JSON | Kind.JSON_TEXT:
                found.append(cell.encode())
            case Kind.BOOL:
                found.append(bool(cell))
            case _:
                found.append(cell)
    return found


@pytest.mark.parametrize("how", ["load", "insert"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(*(st.none() | of for of in VALUES.values())), min_size=1, max_size=4)
)
@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="no fault")
def test_every_value_arrives_as_it_was_sent(
    wide: Unit, how: str, rows: list[tuple[Any, ...]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if how == "insert":
            patch.setattr(Loader, "_load_locally", lambda *given: False)
        version = wide.marker.batch + 1
        wide.write(str(version), *((UPDATE, version, n, *row) for n, row in enumerate(rows)))
    for n, row in enumerate(rows):
        assert carriers(wide, n) == list(row)  # of MariaDB -0.0 is 0


def row_of_wide(id: int, **cells: Any) -> tuple[Any, ...]:
    names = WIDE.names()
    return (UPDATE, 10**9 + id, 100 + id, *(cells.get(name) for name in names[1:]))


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="refused rows")
def test_a_row_that_cannot_be_sent_is_set_aside_and_the_rest_lands(wide: Unit) -> None:
    written = wide.write(
        "x",
        row_of_wide(0, v_text="good"),
        row_of_wide(1, v_text="\ud800"),
        row_of_wide(2, v_text="good too"),
    )
    assert dict(written.quarantined) == {ORDERS: 1}
    found = wide.world.rows("id, v_text")
    assert [r for r in found if 100 <= r[0] < 110] == [(100, "good"), (102, "good too")]
    [aside] = wide.destination.metadata().quarantine(Choice(whole=True))
    assert aside.row.key == '{"id": 101}'
    assert '"v_text": "\\ud800"' in aside.row.row


def test_a_value_that_no_column_could_hold_is_null_and_its_text_in_the_error_log(
    wide: Unit,
) -> None:
    bad = {
        "v_float64": math.nan,
        "v_float32": -math.inf,
        "v_decimal": Decimal("NaN"),
        "v_timestamp": 10**18,
    }
    written = wide.write(
        "y",
        *(
            row_of_wide(20 + n, **{name: value, "v_int64": 1})
            for n, (name, value) in enumerate(bad.items())
        ),
    )
    assert not written.quarantined
    found = wide.world.rows(f"id, v_int64, {', '.join(bad)}")
    assert [r[1:] for r in found if r[0] >= 120] == [(1, None, None, None, None)] * 4
    lines = wide.destination.metadata().errors(Choice(code="CELL-nulled"))
    assert {(line.column, line.key) for line in lines} == {
        (name, f'{{"id": {120 + n}}}') for n, name in enumerate(bad)
    }
    assert any(line.message.endswith(": NaN") for line in lines)


# -- keys


def test_keys_that_differ_in_case_accents_or_trailing_spaces_are_different_rows(
    world: World,
) -> None:
    schema = TableSchema(ORDERS, (Column("k", Kind.TEXT), Column("n", Kind.INT64)), ("k",))
    unit = world.settled(schema)
    keys = ["a", "A", "a ", "á", "a\0", "", " ", "ß", "ss", "%s"]
    unit.write("1", *((CREATE, 1, key, n) for n, key in enumerate(keys)))
    unit.write("2", *((UPDATE, 2, key, n + 100) for n, key in enumerate(keys)))
    assert dict(world.rows("k, n")) == {key: n + 100 for n, key in enumerate(keys)}
    unit.write("3", (DELETE, 3, "a"))
    assert {k for (k,) in world.rows("k")} == set(keys) - {"a"}


def test_a_key_longer_than_the_index_takes_is_set_aside(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("k", Kind.TEXT), Column("n", Kind.INT64)), ("k",))
    unit = world.settled(schema)
    assert unit.schema().columns[0].limit == 768
    written = unit.write("1", (CREATE, 1, "k" * 768, 1), (CREATE, 1, "k" * 769, 2))
    assert dict(written.quarantined) == {ORDERS: 1}
    assert world.rows("n") == [(1,)]


# -- a second unique key


def unique(world: World, column: str = "name") -> Unit:
    unit = world.settled()
    where = f"{world.shop}.orders"
    collation = unit.destination._session.collation
    world.ask(f"alter table {where} modify {column} varchar(50) collate {collation} null")
    world.ask(f"create unique index second on {where} ({column})")
    return unit


def a_unique_value_never_redirects_a_write(world: World) -> None:
    unit = unique(world)
    unit.write("1", (CREATE, 1, 1, "x"), (CREATE, 1, 2, "y"))
    written = unit.write("2", (CREATE, 2, 3, "x"), (UPDATE, 2, 2, "z"), (CREATE, 2, 4, "w"))
    assert world.rows() == [(1, "x"), (2, "z"), (4, "w")]
    assert dict(written.quarantined) == {ORDERS: 1}
    assert world.of_meta("`key`, code", "quarantine") == [('{"id": 3}', "MYSQL 1062")]


def test_a_unique_value_never_redirects_a_write(world: World) -> None:
    a_unique_value_never_redirects_a_write(world)


def test_with_on_duplicate_key_update_alone_a_row_takes_the_place_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert = merge.upsert

    def shorter(landing: merge.Landing, **how: Any) -> list[str]:
        _, insert = upsert(landing, **how)
        insert = insert.replace("d.`_cw_version` is null", "true")
        sets = ("`name`", "`_extra`", "`_cw_version`")
        return [
            f"{insert} on duplicate key update " + ", ".join(f"{c} = values({c})" for c in sets)
        ]

    monkeypatch.setattr(merge, "upsert", shorter)
    with pytest.raises(AssertionError):
        a_unique_value_never_redirects_a_write(world)


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="refused rows")
def test_rows_that_swap_a_unique_value_or_hand_it_on_land(world: World) -> None:
    unit = unique(world)
    unit.write("1", *((CREATE, 1, n, f"v{n}") for n in range(1, 6)))
    unit.write(
        "2",
        (UPDATE, 2, 1, "v2"),  # 1 and 2 swap
        (UPDATE, 2, 2, "v1"),
        (UPDATE, 2, 3, "v4"),  # 3 takes what 4 hands on, and 4 what 5 does
        (UPDATE, 2, 4, "v5"),
        (DELETE, 2, 5),
    )
    assert world.rows() == [(1, "v2"), (2, "v1"), (3, "v4"), (4, "v5")]
    assert world.of_meta("count(*)", "quarantine") == [(0,)]


# -- many rows, few of them bad


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="refused rows")
def test_exactly_the_refused_rows_of_a_batch_are_set_aside(world: World) -> None:
    unit = world.settled()
    world.ask(f"alter table {world.shop}.orders add constraint short check (name <> 'bad')")
    bad = {3, 50, 51, 99}
    written = unit.write("1", *((CREATE, 1, n, "bad" if n in bad else "ok") for n in range(100)))
    assert {n for n, _ in world.rows()} == set(range(100)) - bad
    assert dict(written.counts) == {(ORDERS, CREATE): 96}
    found = unit.destination.metadata().quarantine(Choice())
    assert [a.row.key for a in found] == [f'{{"id": {n}}}' for n in sorted(bad)]
    assert {a.row.code for a in found} <= {"MYSQL 4025", "MYSQL 3819"}  # MariaDB, MySQL
    # Mended, they land out of quarantine.
    world.ask(f"alter table {world.shop}.orders drop constraint short")
    metadata = unit.destination.metadata()
    assert metadata.replay("shop", ORDERS, [a.id for a in found]) == 4
    assert metadata.quarantine(Choice(states=(Aside.REPLAYING,)))


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="refused rows")
def test_without_a_dead_letter_queue_a_refused_row_stops_its_unit(world: World) -> None:
    world.table["dead_letter_queue"] = False
    unit = world.settled()
    world.ask(f"alter table {world.shop}.orders add constraint short check (name <> 'bad')")
    with pytest.raises(DestinationRefused, match="dead_letter_queue"):
        unit.write("1", (CREATE, 1, 1, "bad"), (CREATE, 1, 2, "ok"))
    assert world.rows() == []


def test_values_that_the_server_would_cut_or_round_are_never_stored_so(world: World) -> None:
    unit = world.settled()
    world.ask(f"alter table {world.shop}.orders modify name varchar(3) null")
    schema = unit.schema()
    assert schema.columns[1].limit == 3
    for rows in (1, 3):  # straight, by LOAD DATA, whose errors are warnings; and merged
        chunk = world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, rows), 0))
        chunk.write("s", *((READ, rows, rows * 10 + n, "abcd" if n else "abc") for n in range(2)))
    assert world.rows() == [(10, "abc"), (30, "abc")]
    assert world.of_meta("count(*)", "quarantine") == [(2,)]


# -- deletes


def test_a_delete_is_kept_in_the_audit_with_the_last_values(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "it's 100%"), (CREATE, 1, 2, "b"))
    unit.write("2", (DELETE, 2, 1))
    [(key, row, position)] = world.of_meta("`key`, `row`, position", "deletion_audit")
    assert (key, position) == ('{"id": 1}', "2")
    assert "it's 100%" in row
    unit.write("3", (TRUNCATE, 9, None))
    assert world.of_meta("reason, `rows`", "deletion_audit", "order by id")[1:] == [("truncate", 1)]
    assert world.rows() == []


def test_soft_deletes_keep_the_row_and_a_new_one_of_its_key_lives(world: World) -> None:
    world.table["soft_delete_column"] = "gone"
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    unit.write("2", (DELETE, 2, 1))
    assert world.rows("id, name, gone") == [(1, "a", 1), (2, "b", 0)]
    unit.write("3", (CREATE, 3, 1, "again"), (TRUNCATE, 2, None))
    assert world.rows("id, name, gone") == [(1, "again", 0), (2, "b", 1)]


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="no fault")
def test_a_partial_row_keeps_what_it_does_not_say(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a", b'{"x": 1}'), (CREATE, 1, 2, "b", b"{}"))
    unit.write(
        "2", (UPDATE, 2, 1, UNCHANGED, b'{"x": 2}'), (UPDATE, 2, 2, "c", UNCHANGED), (CREATE, 2, 3)
    )
    assert world.rows("id, name, _extra") == [(1, "a", '{"x": 2}'), (2, "c", "{}"), (3, None, None)]


@pytest.mark.holds(guarantee=5, source="none", destination="mariadb", fault="no fault")
def test_two_writers_of_one_key_leave_the_newer_row_whoever_comes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk looks, a stream inserts the same key, the chunk inserts: it looks again."""
    stream = world.unit()
    stream.create()
    stream.destination.metadata().plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=1)
    chunk = world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0))
    run_all = chunk.destination._session.run_all

    def between(statements: list[str], parameters: Any = None) -> None:
        update, insert = statements
        run_all([update], parameters)
        if stream.marker.batch == 0:
            stream.write("5", (CREATE, 5, 1, "newer"))
        run_all([insert], parameters)

    monkeypatch.setattr(Straight, "lands", lambda *given: False)
    monkeypatch.setattr(chunk.destination._session, "run_all", between)
    chunk.write("s", (READ, 2, 1, "older"), (READ, 2, 2, "other"))
    assert world.rows() == [(1, "newer"), (2, "other")]


def test_without_the_index_of_the_key_a_chunk_read_twice_is_there_once(world: World) -> None:
    stream = world.unit()
    stream.create()
    stream.destination.metadata().plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=1)
    world.ask(f"alter table {world.shop}.orders drop primary key")
    for _ in range(2):
        chunk = world.unit(WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0))
        chunk.write("s", (READ, 2, 1, "a"), (READ, 2, 2, "b"))
    assert world.rows() == [(1, "a"), (2, "b")]


# -- tables


def test_names_that_the_server_does_not_take_are_made_fit(world: World) -> None:
    sources = ["Name", "name", "a`b'c\"d%s%%", "x" * 90, "tail ", "😀", "select"]
    schema = TableSchema(
        ORDERS,
        (Column("id", Kind.INT64), *(Column(source, Kind.TEXT) for source in sources)),
        ("id",),
    )
    unit = world.settled(schema)
    unit.write("1", (CREATE, 1, 1, *sources))
    unit.write("2", (UPDATE, 2, 1, *sources), (CREATE, 2, 2, *sources), (DELETE, 2, 2))
    have = unit.schema()
    assert [c.source for c in have.columns[1:]] == sources
    columns = ", ".join("`" + c.name.replace("`", "``") + "`" for c in have.columns[1:])
    assert world.rows(columns) == [tuple(sources)]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_column_that_is_new_at_the_source_and_differs_in_case_from_another_gets_its_own(
    world: World, by_hand: bool
) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.settled(TableSchema(ORDERS, SCHEMA.columns[:2], ("id",)))
    unit.write("1", (CREATE, 1, 1, "a"))
    if by_hand:  # the server takes it for the column that is to come
        world.ask(f"alter table {world.shop}.orders add column COLOUR varchar(20)")
    for source in ("NAME", "IS_DELETED", "colour"):
        unit.change(Change.ADD_COLUMN, Column(source, Kind.TEXT))
    have = unit.schema()
    assert [c.source for c in have.columns] == ["id", "name", "NAME", "IS_DELETED", "colour"]
    assert have.names()[-1] == ("COLOUR" if by_hand else "colour")
    unit.write("2", (CREATE, 2, 2, "b", "B", "no", "red"))
    names = ", ".join(f"`{name}`" for name in (*have.names(), "is_deleted"))
    assert world.rows(names) == [
        (1, "a", None, None, None, 0),
        (2, "b", "B", "no", "red", 0),
    ]


def test_deletes_cannot_be_made_soft_by_a_column_of_the_source(world: World) -> None:
    columns = (Column("id", Kind.INT64), Column("GONE", Kind.TEXT))
    world.settled(TableSchema(ORDERS, columns, ("id",)))
    world.table["soft_delete_column"] = "gone"
    with pytest.raises(DestinationRefused, match=r"'GONE'.*choose another soft_delete_column"):
        world.destination().get_schema(ORDERS)


def test_a_table_of_somebody_else_is_adopted_with_its_types(world: World) -> None:
    world.unit()
    world.ask(
        f"create table {world.shop}.orders"
        " (id int primary key, name varchar(20), price decimal(6,2))"
    )
    world.ask(f"insert into {world.shop}.orders values (1, 'old', 1.10)")
    schema = TableSchema(
        ORDERS,
        (Column("id", Kind.INT64), Column("name", Kind.TEXT), Column("price", Kind.DECIMAL)),
        ("id",),
    )
    unit = world.settled(schema)
    have = unit.schema()
    assert [(c.kind, c.limit, c.scale) for c in have.columns] == [
        (Kind.INT32, None, None),
        (Kind.TEXT, 20, None),
        (Kind.DECIMAL, 6, 2),
    ]
    unit.write("1", (UPDATE, 1, 1, "new", Decimal("2.20")), (CREATE, 1, 2, "b", None))
    assert world.rows("id, name, price") == [(1, "new", Decimal("2.20")), (2, "b", None)]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("id varchar(20) collate utf8mb4_general_ci primary key", "compare by its bytes"),
        ("id int, name text", "primary key"),
        ("id int primary key, name text not null", "may be NULL"),
        ("id int primary key) engine = MyISAM comment = (''", "InnoDB"),
        ("id int primary key, name point", "written exactly"),
    ],
)
def test_a_table_that_would_lose_something_is_not_adopted(
    world: World, made: str, why: str
) -> None:
    world.unit()
    made = made.replace(" comment = (''", "")
    end = "" if made.endswith("MyISAM") else ")"
    world.ask(f"create table {world.shop}.orders ({made}{end}")
    with pytest.raises(DestinationRefused, match=why):
        world.settled()


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="drift")
def test_a_column_is_widened_in_place_and_keeps_every_value(world: World) -> None:
    kinds = [Kind.INT32, Kind.FLOAT32, Kind.BOOL, Kind.DATE, Kind.UUID, Kind.TIMESTAMP]
    names = [f"v_{kind}" for kind in kinds]
    columns = [Column(name, kind) for name, kind in zip(names, kinds, strict=True)]
    unit = world.settled(TableSchema(ORDERS, (Column("id", Kind.INT64), *columns), ("id",)))
    unit.write("1", (CREATE, 1, 1, 7, 0.5, True, dt.date(2024, 2, 29), bytes(range(16)), 1_500_000))
    unit.write("2", (CREATE, 2, 2, *[None] * 6))
    wanted = [Kind.DECIMAL, Kind.FLOAT64, Kind.TEXT, Kind.TIMESTAMP, Kind.TEXT, Kind.TEXT]
    for name, kind in zip(names, wanted, strict=True):
        change = Change.TEXT_COLUMN if kind is Kind.TEXT else Change.WIDEN_COLUMN
        unit.change(change, Column(name, kind))
    assert [c.kind for c in unit.schema().columns[1:]] == wanted
    found = world.rows(", ".join(["id", *names]))
    assert found[0] == (
        1,
        Decimal(7),
        0.5,
        "true",
        dt.datetime(2024, 2, 29),  # noqa: DTZ001
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "1970-01-01 00:00:01.5+00",
    )
    assert found[1] == (2, *[None] * 6)


def test_a_key_becomes_tagged_so_that_one_and_its_text_are_two_rows(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("_id", Kind.TEXT), Column("n", Kind.INT64)), ("_id",))
    unit = world.settled(schema)
    unit.write("1", (CREATE, 1, 'say "hi"/\n', 1), (CREATE, 1, "é", 2))
    unit.change(Change.RETYPE_KEY, Column("_id", Kind.TAGGED))
    unit.write("2", (UPDATE, 2, '"é"', 3), (CREATE, 2, "1", 4), (CREATE, 2, '"1"', 5))
    assert dict(world.rows("_id, n")) == {'"say \\"hi\\"/\\n"': 1, '"é"': 3, "1": 4, '"1"': 5}


@pytest.mark.holds(guarantee=4, source="none", destination="mariadb", fault="drift")
def test_values_that_waited_in_extra_move_into_their_new_column(world: World) -> None:
    unit = world.settled()
    unit.write(
        "1",
        (CREATE, 1, 1, "a", b'{"n": 5, "big": 1.10000000000000000001}'),
        (CREATE, 1, 2, "b", b'{"n": "five"}'),
        (CREATE, 1, 3, "c", b'{"n": null}'),
        (CREATE, 1, 4, "d", b'{"m": {"n": 1}}'),
    )
    unit.change(Change.ADD_COLUMN, Column("n", Kind.INT64))
    assert world.rows("id, n, _extra") == [
        (1, 5, '{"big": 1.10000000000000000001}'),
        (2, None, '{"n": "five"}'),
        (3, None, None),
        (4, None, '{"m": {"n": 1}}'),
    ]


def test_a_table_is_as_wide_as_a_row_of_the_server_takes(world: World) -> None:
    fields = tuple(Column(f"f{n}", Kind.TEXT) for n in range(400))
    key = Column("_id", Kind.TEXT, comment="types: string")
    extra = Column("_extra", Kind.JSON, role=Role.EXTRA)
    unit = world.settled(TableSchema(ORDERS, (key, *fields, extra), ("_id",)))
    have = unit.schema()
    assert have.full
    assert len(have.columns) > 150
    unit.write("1", (CREATE, 1, "k" * 768, *["v" * 2000] * (len(have.columns) - 2), b"{}"))
    assert world.rows("length(f0)") == [(2000,)]


def test_a_table_without_a_key_shows_a_read_when_it_is_whole(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("name", Kind.TEXT),), ())
    stream = world.unit()
    stream.create(schema)
    stream.destination.metadata().plan_snapshot("shop", ORDERS, [Chunk(ORDERS, 0)], version=1)
    chunk = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)
    cut_short = world.unit(chunk)
    cut_short.write("s", (READ, 2, "x"), phase=Phase.SNAPSHOT)
    reader = world.unit(chunk)
    reader.write("s", (READ, 3, "a"), (READ, 3, "a"), phase=Phase.SNAPSHOT)
    assert world.rows("name") == []
    reader.write("s", (READ, 3, "b"), phase=Phase.DONE)
    assert world.rows("name") == [("a",), ("a",), ("b",)]


def test_a_large_batch_comes_in_several_statements_where_it_comes_by_insert(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "_load_locally", lambda *given: False)
    monkeypatch.setattr(loading, "_STATEMENT", 2_000)
    monkeypatch.setattr(loading, "_LINES", 7)
    unit = world.settled()
    unit.write("1", *((CREATE, 1, n, "x" * 100) for n in range(100)))
    assert len(world.rows()) == 100


def test_where_the_server_takes_no_local_data_rows_come_by_insert(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = world.settled()
    before = world.ask("select @@global.local_infile")[0][0]
    world.ask("set global local_infile = 0")
    try:
        unit.write("1", (CREATE, 1, 1, "it's\n\\"))
        assert not unit.destination._staging._loader._locally
    finally:
        world.ask(f"set global local_infile = {before}")
    assert world.rows() == [(1, "it's\n\\")]


# -- the server


def test_a_statement_never_sends_a_file_of_ours(world: World, tmp_path: Path) -> None:
    unit = world.settled()
    secret = tmp_path / "secret"
    secret.write_text("1\tsecret\n")
    asking = f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE {world.shop}.orders (id, name)"
    with pytest.raises(DestinationRefused, match="asks for a file"):
        unit.destination._session.run(asking)
    assert world.rows() == []
    unit.write("1", (CREATE, 1, 1, "a"))  # over a new connection
    assert world.rows() == [(1, "a")]


def test_a_lacking_right_is_told_with_the_grant_that_mends_it(world: World) -> None:
    destination = world.destination()
    assert not [one for one in destination.diagnose() if one.verdict is Verdict.FAILED]
    meta = world.meta.replace("_", r"\_")
    world.ask(f"revoke create temporary tables on `{meta}`.* from {world.user}")
    [lacking] = [one for one in world.destination().diagnose() if one.verdict is Verdict.FAILED]
    assert lacking.code == "mysql-rights"
    with pytest.raises(DestinationRefused, match="CREATE TEMPORARY TABLES"):
        world.destination().check()
    world.ask(lacking.mend)
    world.destination().check()


def test_a_table_in_use_is_changed_later_and_nobody_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "LOCK_TRIES", 1)
    unit = world.settled()
    reader = mysql_client(world.url, autocommit=False)
    with reader, reader.cursor() as cursor:
        cursor.execute(f"select * from {world.shop}.orders")  # the transaction stays open
        with pytest.raises(SchemaBusy):
            unit.change(Change.ADD_COLUMN, Column("colour", Kind.TEXT))
        assert unit.schema().version == 1
        reader.rollback()
    assert unit.change(Change.ADD_COLUMN, Column("colour", Kind.TEXT)).version == 2
