"""What rows become in a real PostgreSQL: values, guards, tombstones, audit, quarantine."""

from __future__ import annotations

import datetime as dt
import json
import struct
import threading
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgresql_world import (
    CREATE,
    DELETE,
    META,
    ORDERS,
    READ,
    SCHEMA,
    TABLE,
    TRUNCATE,
    UPDATE,
    Event,
    Unit,
    World,
    aside,
)

from warp.errors import DestinationRefused
from warp.model import (
    ABSENT,
    UNCHANGED,
    ChangeBatch,
    Chunk,
    Column,
    Kind,
    Phase,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    WorkUnit,
)


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


# -- values

# What a timestamptz holds, in microseconds since 1970.
FIRST, LAST = -210_866_803_200_000_000, 9_224_318_016_000_000_000 - 1
plain_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
any_json = st.dictionaries(
    st.text(max_size=4), st.text() | st.floats(allow_nan=False, allow_infinity=False), max_size=4
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=8,
)
CARRIERS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT32: st.floats(width=32),
    Kind.FLOAT64: st.floats(width=64),
    Kind.DECIMAL: st.decimals(places=None).filter(lambda d: not d.is_snan())
    | st.sampled_from([Decimal("1E+6000"), Decimal("-1E-6000"), Decimal("1.10")]),
    Kind.TEXT: plain_text,
    Kind.BYTES: st.binary(),
    Kind.UUID: st.binary(min_size=16, max_size=16),
    Kind.DATE: st.dates(),
    Kind.TIME: st.integers(0, 86_400_000_000 - 1),
    Kind.DATETIME: st.integers(FIRST, LAST) | st.sampled_from([FIRST, -1, 0, LAST]),
    Kind.TIMESTAMP: st.integers(FIRST, LAST) | st.sampled_from([FIRST, -1, 0, LAST]),
    Kind.JSON: json_values.map(lambda v: json.dumps(v).encode()),
    Kind.JSON_TEXT: any_json.map(lambda v: json.dumps(v).encode()),
    Kind.OBJECTID: st.binary(min_size=12, max_size=12).map(bytes.hex),
    Kind.TAGGED: json_values.map(json.dumps),
}
EVERY = TableId("shop", "every")
EVERY_SCHEMA = TableSchema(
    EVERY,
    (Column("id", Kind.INT64), *(Column(kind.value, kind) for kind in Kind)),
    ("id",),
)


def read_back(world: World) -> list[list[Any]]:
    """The cells of `every` as carriers, through the server's text forms."""
    asked = ", ".join(
        {
            Kind.TIMESTAMP: 'timestamptz_send("timestamp")',  # the server's own microseconds
            Kind.TIME: 'time_send("time")',
            Kind.DATETIME: 'timestamp_send("datetime")',
            Kind.FLOAT32: '"float32"::text',
            Kind.FLOAT64: '"float64"::text',
            Kind.DECIMAL: '"decimal"::text',
            Kind.JSON: '"json"::text',
            Kind.JSON_TEXT: '"json_text"::text',
        }.get(kind, f'"{kind.value}"')
        for kind in Kind
    )
    return [list(row) for row in world.ask(f"select {asked} from shop.every order by id")]


def same(kind: Kind, sent: Any, found: Any) -> bool:
    if sent is None or found is None:
        return sent is found
    if kind is Kind.FLOAT32:
        return struct.pack("f", float(found)) == struct.pack("f", sent) or sent != sent
    if kind is Kind.FLOAT64:
        return repr(float(found)) == repr(sent)
    if kind is Kind.DECIMAL:
        read = Decimal(found)
        return bool(read.is_nan() and sent.is_nan()) or bool(read == sent)
    if kind is Kind.JSON:
        return bool(json.loads(found) == json.loads(sent))
    if kind is Kind.JSON_TEXT:
        return bool(found.encode() == sent)
    if kind is Kind.TIME:
        return bool(int.from_bytes(found) == sent)
    if kind in (Kind.TIMESTAMP, Kind.DATETIME):
        return bool(int.from_bytes(found, signed=True) + 946_684_800_000_000 == sent)
    if kind is Kind.UUID:
        return bool(found == uuid.UUID(bytes=sent))
    return bool(sent == found)


ONE_ROW = st.tuples(*(st.none() | CARRIERS[kind] for kind in Kind))


@given(rows=st.lists(ONE_ROW, min_size=1, max_size=5))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_carrier_comes_back_as_it_was_sent(world: World, rows: list[Any]) -> None:
    if not world.made:
        world.settled(EVERY_SCHEMA)
    unit = Unit(world, world.made[0])
    version = unit.marker.batch + 1
    events = [(READ if version == 1 else UPDATE, version, n, *row) for n, row in enumerate(rows)]
    truncate = (TRUNCATE, version, ABSENT)
    unit.write(str(version), truncate, *events, table=EVERY)
    found = read_back(world)
    assert len(found) == len(rows) or version == 1
    for sent, got in zip(rows, found, strict=False):
        for kind, cell, read in zip(Kind, sent, got, strict=True):
            assert same(kind, cell, read), (kind, cell, read)


def test_instants_are_stored_as_instants_whatever_the_time_zone_of_the_session(
    pg_database: str,
) -> None:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database \"{name}\" set timezone = 'Asia/Tokyo'".encode())
    world = World(pg_database)
    schema = TableSchema(ORDERS, (Column("id", Kind.INT64), Column("at", Kind.TIMESTAMP)), ("id",))
    world.settled(schema).write("1", (CREATE, 1, 1, 1_700_000_000_000_001))
    [[found]] = world.ask("select at from shop.orders")
    assert found == dt.datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=dt.UTC)
    world.close()


# -- guards


@pytest.mark.parametrize(
    ("operation", "version", "lands"),
    [
        *((READ, 4, False), (READ, 5, False), (READ, 6, True)),
        *((UPDATE, 4, False), (UPDATE, 5, True), (UPDATE, 6, True)),
    ],
)
def test_a_read_lands_on_older_rows_and_a_change_on_its_own_version_too(
    world: World, operation: Any, version: int, lands: bool
) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 5, 1, "there"))
    unit.write("2", (operation, version, 1, "new"))
    assert world.rows() == [(1, "new" if lands else "there")]


@pytest.mark.parametrize(("version", "goes"), [(4, False), (5, True), (6, True)])
def test_a_delete_never_takes_a_newer_row(world: World, version: int, goes: bool) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 5, 1, "there"))
    unit.write("2", (DELETE, version, 1))
    assert world.rows() == ([] if goes else [(1, "there")])


def test_reads_and_changes_in_one_batch_keep_their_own_guards(world: World) -> None:
    unit = world.settled()
    unit.write("1", *[(CREATE, 5, n, "there") for n in (1, 2, 3)])
    unit.write("2", (READ, 5, 1, "read"), (UPDATE, 5, 2, "changed"), (DELETE, 5, 3))
    assert world.rows() == [(1, "there"), (2, "changed")]


# -- cells that were not sent


def test_rows_keep_different_cells_in_one_batch(world: World) -> None:
    wide = TableSchema(ORDERS, tuple(Column(n, Kind.INT64) for n in ("id", *"abcdefghi")), ("id",))
    unit = world.settled(wide)
    unit.write("1", *[(CREATE, 1, n, *range(9)) for n in (1, 2, 3)])
    u = UNCHANGED
    unit.write(
        "2",
        (UPDATE, 2, 1, *[10 + n if n % 2 else u for n in range(9)]),
        (UPDATE, 2, 2, *[u if n % 2 else 10 + n for n in range(9)]),
        (UPDATE, 2, 3, *range(20, 29)),
        (UPDATE, 2, 4, *[u] * 8, 5),
    )
    assert world.rows(columns="id, a, b, h, i") == [
        (1, 0, 11, 17, 8),
        (2, 10, 1, 7, 18),
        (3, 20, 21, 27, 28),
        (4, None, None, None, 5),
    ]


def test_a_column_dropped_at_the_source_keeps_its_values_and_is_null_in_new_rows(
    world: World,
) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "kept"))
    unit.write("2", (UPDATE, 2, 1, UNCHANGED), (CREATE, 2, 2, UNCHANGED))
    assert world.rows() == [(1, "kept"), (2, None)]


def test_a_batch_that_keeps_cells_is_harmless_when_it_is_older(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 5, 1, "new", b"{}"))
    unit.write("2", (UPDATE, 4, 1, "old", UNCHANGED), (UPDATE, 4, 2, UNCHANGED, b"[]"))
    assert world.rows(columns="id, name, _extra") == [(1, "new", {}), (2, None, [])]


# -- deletes


def test_a_delete_is_audited_with_the_last_values_of_the_destination(world: World) -> None:
    unit = world.settled()
    unit.destination.metadata().begin_run(unit.lease, "a run")
    unit.write("1", (CREATE, 1, 1, "last", b'{"x":1}'))
    unit.write("2", (DELETE, 2, 1), (DELETE, 2, 99))
    [[table, reason, version, key, row, *who]] = world.ask(
        "select source_table, reason, version, key, row, unit, position, run"
        f" from {META}.deletion_audit"
    )
    assert (table, reason, version, key) == ("orders", "delete", 2, {"id": 1})
    assert who == ["stream:shop", "2", "a run"]
    assert (row["name"], row["_extra"]) == ("last", {"x": 1})


def test_a_soft_delete_keeps_the_values_until_the_row_returns(world: World) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    unit.write("2", (DELETE, 2, 1))
    columns = "id, name, is_deleted"
    assert world.rows(columns=columns) == [(1, "a", True), (2, "b", False)]
    unit.write("3", (CREATE, 3, 1, "again"))
    assert world.rows(columns=columns) == [(1, "again", False), (2, "b", False)]


def test_a_soft_delete_survives_a_second_snapshot(world: World) -> None:
    """What was deleted before is not at the source, so the snapshot does not find it: it stays."""
    world.table["soft_delete_column"] = "is_deleted"
    stream, chunk = planned(world)
    chunk.write("s", (READ, 1, 1, "a"), (READ, 1, 2, "b"), phase=Phase.DONE)
    metadata = stream.destination.metadata()
    assert metadata.settle("shop", ORDERS)
    stream.write("1", (DELETE, 2, 1))
    metadata.resync("shop", ORDERS, position=Position("1"))
    _, again = planned(world, version=5)
    again.write("s", (READ, 5, 2, "b"), phase=Phase.DONE)
    assert metadata.settle("shop", ORDERS)
    assert world.rows(columns="id, name, is_deleted") == [(1, "a", True), (2, "b", False)]


def test_a_truncate_marks_rows_where_deletes_are_soft(world: World) -> None:
    world.table["soft_delete_column"] = "is_deleted"
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"))
    unit.write("2", (TRUNCATE, 2, ABSENT), (CREATE, 3, 2, "b"))
    assert world.rows(columns="id, is_deleted") == [(1, True), (2, False)]


def test_a_truncate_is_one_line_of_the_audit(world: World) -> None:
    unit = world.settled()
    unit.write("1", *[(CREATE, 1, n, "a") for n in range(5)], (CREATE, 9, 9, "newer"))
    unit.write("2", (TRUNCATE, 5, ABSENT))
    assert world.rows() == [(9, "newer")]
    assert world.ask(f"select reason, rows, row from {META}.deletion_audit") == [
        ("truncate", 5, None)
    ]


# -- beside a snapshot


def planned(world: World, version: int = 0) -> tuple[Unit, Unit]:
    """A stream, and the one chunk of its table, not yet read."""
    stream = world.unit()
    stream.create()
    chunk = Chunk(ORDERS, 0)
    metadata = stream.destination.metadata()
    [state] = [m for m in metadata.markers() if m.unit.id == TABLE.id]
    assert metadata.plan_snapshot("shop", ORDERS, [chunk], version=version)
    return stream, world.unit(WorkUnit.of_chunk("shop", chunk, state.epoch))


def test_a_tombstone_stands_until_the_table_settles_and_is_audited_once(world: World) -> None:
    stream, chunk = planned(world)
    stream.write("1", (CREATE, 8, 1, "seen"))
    stream.write("2", (DELETE, 9, 1), (DELETE, 9, 2))
    assert world.ask("select id, name, _cw_deleted from shop.orders order by id") == [
        (1, None, True),
        (2, None, True),
    ]
    chunk.write("s", (READ, 5, 1, "old"), (READ, 5, 2, "old"), phase=Phase.DONE)
    assert stream.destination.metadata().settle("shop", ORDERS)
    assert world.ask("select id from shop.orders") == []
    assert world.ask(f"select row ->> 'name' from {META}.deletion_audit") == [("seen",)]


def test_a_soft_delete_beside_a_snapshot_keeps_late_chunks_out(world: World) -> None:
    world.table["soft_delete_column"] = "gone"
    stream, chunk = planned(world)
    stream.write("1", (CREATE, 8, 1, "seen"))
    stream.write("2", (DELETE, 9, 1), (DELETE, 9, 2))
    chunk.write("s", (READ, 5, 1, "old"), (READ, 5, 2, "old"), phase=Phase.DONE)
    stream.destination.metadata().settle("shop", ORDERS)
    assert world.rows(columns="id, name, gone") == [] or world.rows(columns="id, name, gone") == [
        (1, "seen", True)
    ]


def test_settling_waits_for_a_writer_and_shuts_the_next_one_out(world: World) -> None:
    stream, chunk = planned(world)
    chunk.write("s", (READ, 5, 1, "old"), phase=Phase.DONE)
    settler = world.destination()
    settled = threading.Event()

    def settle() -> None:
        assert settler.metadata().settle("shop", ORDERS)
        settled.set()

    with psycopg.connect(world.url) as writer:  # a writer in the middle of its transaction
        writer.execute(
            f"select 1 from {META}.sync_markers where unit = %s for share".encode(), [TABLE.id]
        )
        thread = threading.Thread(target=settle)
        thread.start()
        while not world.ask(
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'for update'"
        ):
            assert not settled.is_set()
    thread.join()
    assert settled.is_set()
    stream.write("9", (DELETE, 9, 1))
    assert world.ask("select id from shop.orders") == []  # no tombstone: the table is settled


def test_a_late_chunk_never_brings_back_what_a_truncate_took(world: World) -> None:
    stream, chunk = planned(world)
    stream.write("1", (CREATE, 6, 1, "a"), (TRUNCATE, 9, ABSENT), (CREATE, 10, 3, "c"))
    chunk.write("s", (READ, 9, 1, "old"), (READ, 9, 2, "old"))
    assert world.rows() == [(3, "c")]
    chunk.write("s", (READ, 11, 2, "after it"))
    assert world.rows() == [(2, "after it"), (3, "c")]


def test_a_second_snapshot_sweeps_what_it_does_not_find_and_audits_it(world: World) -> None:
    stream, chunk = planned(world)
    chunk.write("s", (READ, 5, 1, "a"), (READ, 5, 2, "gone"), phase=Phase.DONE)
    metadata = stream.destination.metadata()
    metadata.settle("shop", ORDERS)
    stream.write("9", (CREATE, 30, 3, "newer"), reload=[ORDERS])
    stream, chunk = planned(world, version=20)
    chunk.write("s", (READ, 21, 1, "a"), phase=Phase.DONE)
    assert metadata.settle("shop", ORDERS)
    assert world.rows() == [(1, "a"), (3, "newer")]
    assert world.ask(f"select reason, row ->> 'name' from {META}.deletion_audit") == [
        ("sweep", "gone")
    ]


def test_a_sweep_marks_rows_where_deletes_are_soft(world: World) -> None:
    world.table["soft_delete_column"] = "gone"
    stream, chunk = planned(world)
    chunk.write("s", (READ, 5, 1, "a"), (READ, 5, 2, "b"), phase=Phase.DONE)
    stream.destination.metadata().settle("shop", ORDERS)
    stream.write("9", reload=[ORDERS])
    _, chunk = planned(world, version=20)
    chunk.write("s", (READ, 21, 1, "a"), phase=Phase.DONE)
    stream.destination.metadata().settle("shop", ORDERS)
    assert world.rows(columns="id, gone") == [(1, False), (2, True)]


# -- rows that cannot be stored


@pytest.mark.holds(guarantee=4, source="none", destination="postgresql", fault="refused rows")
def test_the_bad_rows_of_a_batch_are_set_aside_and_the_rest_lands(world: World) -> None:
    unit = world.settled()
    bad = {7: "with \0 in it", 61: "half \ud800 a pair"}
    events: list[Event] = [(CREATE, 1, n, bad.get(n, "good")) for n in range(100)]
    events += [(CREATE, 1, 2**70, "an id too large"), (CREATE, 1, None, "no id")]
    unit.write("1", *events)
    assert len(world.rows()) == 98
    found = world.ask(f"select key, row, operation, code, position from {META}.quarantine")
    assert len(found) == 4
    kept = {json.loads(key)["id"]: json.loads(row)["name"] for key, row, *_ in found}
    assert kept == bad | {2**70: "an id too large", None: "no id"}
    assert {row[2:] for row in found if row[3].startswith("SQLSTATE 23")} == {
        ("c", "SQLSTATE 23502", "1")
    }


def test_a_key_too_long_for_its_index_is_set_aside(world: World) -> None:
    schema = TableSchema(ORDERS, (Column("id", Kind.TEXT),), ("id",))
    unit = world.settled(schema)
    long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(9_000))
    unit.write("1", (CREATE, 1, "short"), (CREATE, 1, long))
    assert world.rows(columns="id") == [("short",)]
    assert world.ask(f"select code from {META}.quarantine") == [("SQLSTATE 54000",)]


def test_without_a_dead_letter_queue_a_bad_row_stops_the_unit_and_nothing_lands(
    world: World,
) -> None:
    world.table["dead_letter_queue"] = False
    unit = world.settled()
    with pytest.raises(DestinationRefused, match="dead_letter_queue"):
        unit.write("1", (CREATE, 1, 1, "good"), (CREATE, 1, 2, "bad \0"))
    assert world.rows() == []
    assert unit.destination.open(unit.lease.refenced(unit.lease.fence + 1)).batch == 0


def test_rows_set_aside_by_evolve_are_stored_with_the_batch(world: World) -> None:
    unit = world.settled()
    unit.write("1", (CREATE, 1, 1, "a"), quarantined=[aside(row='{"name": "\0 \ud800"}')])
    assert world.ask(f"select key, row, reason, code, position, state from {META}.quarantine") == [
        ('{"id": 7}', '{"name": "\ufffd ?"}', "does not fit", "conversion", "1", "waiting")
    ]


# -- shapes of batches


def test_an_empty_batch_moves_the_marker_and_writes_nothing(world: World) -> None:
    unit = world.settled()
    written = unit.write("5")
    assert written.counts == {}
    assert world.ask(f"select position from {META}.sync_markers where kind = 'stream'") == [("5",)]


def test_a_table_that_comes_up_twice_in_a_batch_is_written_in_order(world: World) -> None:
    unit = world.settled()
    one = unit.batch("1", (CREATE, 1, 1, "a"), (CREATE, 1, 2, "b"))
    two = unit.batch("1", (UPDATE, 1, 1, "c"), (DELETE, 1, 2))
    unit.deliver(ChangeBatch([*one.changes, *two.changes], Position("1")))
    assert world.rows() == [(1, "c")]


def test_counts_say_what_was_committed(world: World) -> None:
    unit = world.settled()
    written = unit.write("1", (CREATE, 1, 1, "a"), (UPDATE, 2, 1, "b"), (DELETE, 3, 4))
    assert written.counts == {(ORDERS, CREATE): 1, (ORDERS, UPDATE): 1, (ORDERS, DELETE): 1}


def test_more_tables_than_staging_tables_are_written_in_one_batch(world: World) -> None:
    unit = world.settled()
    changes: list[TableChanges] = []
    for n in range(70):
        table = TableId("shop", f"t{n}")
        unit.create(TableSchema(table, SCHEMA.columns, SCHEMA.key))
        changes += unit.batch("1", (CREATE, 1, n, "a"), table=table).changes
    for token in "12":
        unit.deliver(ChangeBatch(changes, Position(token)))
    assert [len(world.rows(f"shop.t{n}")) for n in (0, 69)] == [1, 1]


HOSTILE = [
    '"; drop table shop.orders; --',
    "it's",
    "%s",
    "%(version)s",
    "100%",
    "{}",
    "{meta}",
    "Grüße 日本 🚚",
    "ü" * 40,
    "x" * 63,
    "a b\tc\nd",
    "back\\slash\\",
    "MiXeD",
    "select",
    "$1",
    "a.b",
    "?",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_any_name_is_only_a_name(world: World, hostile: str) -> None:
    table = TableId(hostile, hostile)
    soft = ("!" + hostile).encode()[:60].decode(errors="ignore")
    world.table["soft_delete_column"] = soft if len(hostile) % 2 else None
    key, other = hostile, (hostile + "'").encode()[-60:].decode(errors="ignore")
    column = Column(other, Kind.JSON, source=hostile, comment=hostile)
    schema = TableSchema(table, (Column(key, Kind.TEXT), column), (key,))
    stream = world.unit()
    stream.create(schema)
    chunk = Chunk(table, 0, hostile, hostile)
    metadata = stream.destination.metadata()
    assert metadata.plan_snapshot("shop", table, [chunk], version=0)
    reader = world.unit(WorkUnit.of_chunk("shop", chunk, 0))
    assert reader.marker.unit.chunk == chunk
    reader.write("s", (READ, 5, hostile, b"1"), (READ, 5, "b", b"2"), table=table, phase=Phase.DONE)
    stream.write("1", (DELETE, 6, "c"), (UPDATE, 6, "d", UNCHANGED), table=table)
    assert metadata.settle("shop", table)
    stream.write(
        hostile,
        (DELETE, 7, "b"),
        (UPDATE, 7, "e", UNCHANGED),
        (UPDATE, 7, hostile, b"3"),
        (TRUNCATE, 3, ABSENT),
        (CREATE, 8, "f", b"\x30"),
        table=table,
    )
    assert stream.schema(table).names() == (key, other)
    assert stream.marker.position == Position(hostile, 1_000.5)
    [[name]] = world.ask(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace"
        f" where relkind = 'r' and nspname not in ('{META}', 'information_schema', 'pg_catalog')"
        " and not pg_is_other_temp_schema(n.oid) and nspname !~ '^pg_'"
    )
    assert world.ask(f"select count(*) from {name} where not _cw_deleted".replace("%", "%%"))
