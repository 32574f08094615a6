"""Chunks of real tables: which keys they hold, at which version, and equal to the log."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgresql_shop import Shop, everything, follow, hanging, read, seen
from psycopg import sql

from warp import native
from warp.errors import SourceRefused, SourceUnavailable, WarpError
from warp.model import Capture, Invalid, Kind, TableChanges, TableId, TableSettings
from warp.own_process import wait_until
from warp.sources.postgresql import rows, snapshot, visibility
from warp.sources.postgresql.values import Types

ORDERS = TableId("shop", "orders")


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id int primary key, name text)")
    return shop


# -- which rows


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ('name text collate "C"', "chr(33 + n) || '\\' || n"),
        ("name text", "case when n % 2 = 0 then 'a' else 'B' end || n"),
        ("a int, b bytea", "n % 7, ('\\x' || lpad(to_hex(n), 4, '0'))::bytea"),
        (
            "f float8",
            "case n when 1 then 'NaN' when 2 then '-Infinity' else (n / 7.0)::text end::float8",
        ),
        ("c char(7)", "('k' || n)"),
        (
            "t timestamptz",
            "timestamptz '0044-03-15 12:00:00.000001+00 BC' + n * interval '31 years'",
        ),
        ("u uuid", "md5(n::text)::uuid"),
        ("i interval, j numeric(20,5)", "n * interval '1 hour 1 second', n / 3.0"),
    ],
)
def test_chunks_hold_every_key_once(shop: Shop, key: str, values: str) -> None:
    names = ", ".join(part.split()[0] for part in key.split(", "))
    shop.run(f'create table shop."k %s" ({key}, primary key ({names}))')
    shop.run(f'insert into shop."k %s" select {values} from generate_series(1, 90) n')
    table = TableId("shop", "k %s")
    source = shop.source()
    chunks = source.chunks(table, 20)
    assert len(chunks) == 5
    rows = read(source, table, 20)
    assert len(rows) == 90
    keys = {json.dumps(row[2], default=str) for row in rows}
    assert len(keys) == 90
    # What was read can be looked up again by its key.
    [part] = next(iter(source.get_full_snapshot(chunks[2]))).changes
    assert sorted(map(repr, source.look_up(part).rows())) == sorted(map(repr, part.rows()))


def test_a_large_table_is_cut_by_a_sample(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("insert into shop.orders select n, repeat('x', 200) from generate_series(1, 5000) n")
    monkeypatch.setattr(snapshot, "_WALKED_BYTES", 100_000)
    source = shop.source()
    assert 2 <= len(source.chunks(ORDERS, 500)) <= 30
    assert sorted(row[2]["id"] for row in read(source, ORDERS, 500)) == list(range(1, 5001))


def test_both_halves_read_the_same_rows(shop: Shop) -> None:
    shop.run("alter table shop.orders add at timestamptz, add parts int[], add name2 text")
    shop.run(
        "insert into shop.orders select n, case when n % 3 > 0 then E'a\\t\\n\\\\' || n end, "
        "case n when 7 then 'infinity' else to_timestamp(n / 7.0) end, array[n, null] "
        "from generate_series(1, 90) n"
    )
    source = shop.source()
    with native.switched(False):
        in_python = read(source, ORDERS, 40)
    compiled = read(source, ORDERS, 40)  # later, and perhaps at a later version
    assert [row for _, _, row in compiled] == [row for _, _, row in in_python]
    assert len(in_python) == 90


@pytest.mark.parametrize("compiled", [True, False])
def test_a_copy_that_fails_on_its_way_is_an_error(shop: Shop, *, compiled: bool) -> None:
    source = shop.source()
    connection = source.server.connect()
    statement = sql.SQL("select 1 / (3000 - n) from generate_series(1, 4000) n")
    found: list[int] = []

    def read_all() -> None:
        codecs = [Types().codec(23)]
        for [column] in rows.read(
            source.server, connection, statement, codecs, lambda: 1_000, place="x"
        ):
            found.extend(column)

    with native.switched(compiled), pytest.raises(WarpError, match="division by zero"):
        read_all()
    assert 0 < len(found) < 3000
    # Nothing of it is left behind on the connection.
    assert connection.execute("select 1").fetchall() == [(1,)]
    source.server.give_back(connection)


def test_a_table_without_a_key_is_one_chunk_for_a_poll(shop: Shop) -> None:
    shop.run("create table shop.keyless (n int)")
    shop.run("insert into shop.keyless select generate_series(1, 5)")
    keyless = TableId("shop", "keyless")

    def polled(table: TableId) -> TableSettings | None:
        return TableSettings(table, table, "shop", capture=Capture.TIMESTAMP)

    source = shop.source(polled)
    assert source.tables() == [keyless, ORDERS]
    assert [row[2]["n"] for row in read(source, keyless, 2)] == [1, 2, 3, 4, 5]
    assert shop.run("select 1 from pg_publication where pubname = %s", (shop.publication,)) == []


def test_rows_of_a_child_are_not_those_of_its_parent(shop: Shop) -> None:
    shop.run("create table shop.special () inherits (shop.orders)")
    shop.run("alter table shop.special add primary key (id)")
    shop.run("insert into shop.special values (2, 'child')")
    shop.run("insert into shop.orders values (1, 'parent')")
    source = shop.source()
    source.position()
    assert [row[2]["id"] for row in read(source, ORDERS)] == [1]
    assert [row[2]["id"] for row in read(source, TableId("shop", "special"))] == [2]


def test_a_table_that_is_gone_or_has_another_key_is_refused(shop: Shop) -> None:
    source = shop.source()
    shop.run("insert into shop.orders select generate_series(1, 30)")
    chunk = source.chunks(ORDERS, 10)[1]
    shop.run("update shop.orders set name = 'x'")
    shop.run("alter table shop.orders drop constraint orders_pkey, add primary key (id, name)")
    with pytest.raises(SourceRefused, match=r"a bound of 2 key columns .*cartridge-warp resync"):
        next(source.get_full_snapshot(chunk))
    shop.run("drop table shop.orders")
    with pytest.raises(SourceRefused, match="found it gone"):
        next(source.get_full_snapshot(chunk))
    assert source.get_schema([ORDERS]) == {}


def test_columns_changed_while_a_chunk_is_read_do_not_change_its_rows(shop: Shop) -> None:
    shop.run("insert into shop.orders select n, 'a' from generate_series(1, 200) n")
    source = shop.source()
    [chunk] = source.chunks(ORDERS, 1000)
    batches = source.get_full_snapshot(chunk)
    rows = seen(next(batches))  # 50 of them
    changed = threading.Thread(
        target=shop.run, args=("alter table shop.orders add column more int default 3",)
    )
    changed.start()
    for batch in batches:
        rows += seen(batch)
    changed.join()
    assert [row[2] for row in rows] == [{"id": n, "name": "a"} for n in range(1, 201)]


def test_a_closed_connector_never_looks_like_the_end_of_the_rows(shop: Shop) -> None:
    shop.run("insert into shop.orders select n, repeat('x', 1000) from generate_series(1, 5000) n")
    source = shop.source()
    [chunk] = source.chunks(ORDERS, 10_000)
    batches = source.get_full_snapshot(chunk)
    next(batches)
    source.close()
    with pytest.raises(SourceUnavailable, match="was closed"):
        list(batches)


# -- the version


def raced(shop: Shop) -> tuple[str, int, int]:
    """(name in the chunk, the chunk's version, the version of the change in the log)."""
    shop.run("insert into shop.orders values (1, 'old')")
    source = shop.source()
    start = source.position()
    chunks = source.chunks(ORDERS, 100)
    found: list[Any] = []
    with hanging(shop, "update shop.orders set name = 'new'"):
        # It is streamed, and so can be applied, while no query sees it.
        [(change, _)] = follow(shop.source(), start, 1)
        assert change[2] == {"id": 1, "name": "new"}
        assert shop.run("select name from shop.orders") == [("old",)]
        reader = threading.Thread(
            target=lambda: found.extend(
                row for batch in source.get_full_snapshot(chunks[0]) for row in seen(batch)
            )
        )
        reader.start()
        reader.join(0.5)
    reader.join(20)
    [(_, version, cells)] = found
    return cells["name"], version, change[1]


def test_a_chunk_does_not_overrule_what_was_streamed_before_it_was_visible(shop: Shop) -> None:
    name, version, changed = raced(shop)
    assert name == "new" or version <= changed


def test_without_waiting_the_old_row_would_overrule_the_new_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: the chunk's version is the log's end, and its snapshot is opened at once."""
    monkeypatch.setattr(visibility, "wait_for_writers", lambda *args: None)
    name, version, changed = raced(shop)
    assert name == "old"
    assert version > changed


def test_a_looked_up_row_is_not_older_than_the_update_that_asked(shop: Shop) -> None:
    shop.run("alter table shop.orders add column large text")
    shop.run("alter table shop.orders alter column large set storage external")
    shop.run("insert into shop.orders values (1, 'old', %s)", ("x" * 5000,))
    source = shop.source()
    start = source.position()
    found: list[TableChanges] = []
    with hanging(shop, "update shop.orders set name = 'new'"):
        batch = next(
            b for b in source.get_changes(start, selection=everything, idle=0.05) if len(b)
        )
        looks = threading.Thread(target=lambda: found.append(source.look_up(batch.changes[0])))
        looks.start()
        looks.join(0.3)
        assert not found
    looks.join(20)
    assert [row[:2] for row in found[0].rows()] == [(1, "new")]
    assert found[0].versions[0] > batch.changes[0].versions[0]


def test_a_session_that_is_idle_in_a_transaction_holds_no_chunk_up(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'old')")
    source = shop.source(snapshot_wait="500ms")
    start = source.position()
    with shop.another() as other:
        other.execute("update shop.orders set name = 'new'")
        [(_, version, cells)] = read(source, ORDERS)
        assert cells["name"] == "old"
        other.commit()
    [(change, _)] = follow(source, start, 1)
    assert change[1] >= version


def test_one_that_may_have_written_before_the_table_was_published_is_waited_for(
    shop: Shop,
) -> None:
    source = shop.source(snapshot_wait="300ms")
    source.position()
    with shop.another() as other:
        other.execute("create table shop.late (id int primary key)")
        other.commit()
        other.execute("insert into shop.late values (1)")  # the log will never tell of it
        shop.admin.execute("reset role")
        # Without the lock that we take.
        shop.run(f'alter publication "{shop.publication}" add table only shop.late')
        with pytest.raises(SourceUnavailable, match=r"\(idle in transaction\)"):
            read(source, TableId("shop", "late"))
        other.commit()
    assert [row[2]["id"] for row in read(source, TableId("shop", "late"))] == [1]


def test_a_role_that_may_not_see_what_others_do_waits_for_them_all(shop: Shop) -> None:
    shop.admin.execute("reset role")
    shop.run(f"revoke pg_read_all_stats from {shop.reader}")
    shop.run(f"revoke {shop.owner} from {shop.reader}")
    shop.run(f"grant usage on schema shop to {shop.reader}")
    shop.run(f"grant select on shop.orders to {shop.reader}")
    try:
        source = shop.source(snapshot_wait="300ms")
        with shop.another() as other:
            other.execute("insert into shop.orders values (1)")
            with pytest.raises(SourceUnavailable, match=r"pid \d+ \(unknown\)"):
                read(source, ORDERS)
            other.rollback()
        assert read(source, ORDERS) == []
    finally:
        shop.run(f"grant pg_read_all_stats, {shop.owner} to {shop.reader}")


def test_one_that_is_at_work_is_waited_for_and_named(shop: Shop) -> None:
    source = shop.source(snapshot_wait="300ms")
    with shop.another() as other:
        pid = other.info.backend_pid

        def work() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                other.execute(
                    "with w as (insert into shop.orders values (1) returning 1) "
                    "select pg_sleep(30) from w"
                )

        works = threading.Thread(target=work)
        works.start()
        assert wait_until(
            lambda: (
                shop.run(
                    "select 1 from pg_locks where pid = %s and mode = 'RowExclusiveLock'", (pid,)
                )
                != []
            ),
            10,
        )
        with pytest.raises(SourceUnavailable, match=rf"pid {pid} \(active\)"):
            read(source, ORDERS)
        other.cancel_safe()
        works.join()
        other.rollback()


# -- equal to the log

EARLIEST = datetime(1, 1, 2)  # noqa: DTZ001 - hypothesis adds the zone
TYPES: dict[str, st.SearchStrategy[str | None]] = {
    "bool": st.sampled_from(["t", "f"]),
    "int2": st.integers(-(2**15), 2**15 - 1).map(str),
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "float4": st.floats(width=32).map(str),
    "float8": st.floats().map(str),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=7).map(str)
    | st.sampled_from(["1.10", "-0.000", "NaN", "-Infinity", "1e-300", "1e300"]),
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    "varchar(300)": st.sampled_from(["\\N", "\t\n\r\b\f\v\\", "a\\tb", "", "NULL", "ü→😀"]),
    "char(5)": st.text("ab ", max_size=5),
    "bytea": st.binary().map(lambda b: "\\x" + b.hex()),
    "uuid": st.uuids().map(str),
    "date": st.dates().map(str) | st.sampled_from(["infinity", "0044-03-15 BC", "12345-01-01"]),
    "time": st.times().map(str) | st.just("24:00:00"),
    "timetz": st.sampled_from(["01:02:03.5+02", "23:59:59.999999-15:59"]),
    "timestamp": st.datetimes().map(str)
    | st.sampled_from(["-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"]),
    "timestamptz": st.datetimes(timezones=st.just(UTC), min_value=EARLIEST).map(str)
    | st.sampled_from(["infinity", "0001-01-01 00:00:00.1+00 BC", "20000-02-29 12:00:00+14"]),
    "interval": st.sampled_from(["1 year -2 days 03:04:05.678", "-00:00:00.1", "0"]),
    "json": st.sampled_from(['{"b": 1, "a": [1.0, "\\u0000"], "b": 2}', "null", '"\\\\"', " 1 "]),
    "jsonb": st.sampled_from(['{"b": 1, "a": [1.50, "\\t\\n"]}', "null", '"\\\\"', "1e400"]),
    "inet": st.sampled_from(["::1", "10.0.0.0/8"]),
    "bit(3)": st.sampled_from(["101", "000"]),
    "int4[]": st.sampled_from(["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={5,6}"]),
    "text[]": st.sampled_from(['{"a,b","NULL",NULL,"\\"\\\\",""}', "{x}", '{"{","}"," "}']),
    "float8[]": st.sampled_from(["{1.5,NaN,-Infinity,1e300}"]),
    "bool[]": st.just("{t,f}"),
    "jsonb[]": st.just('{"{\\"a\\": [1]}","2"}'),
    "timestamptz[]": st.just('{"2024-01-01 00:00:00+00",infinity}'),
    "int4range": st.sampled_from(["[1,5)", "empty"]),
    "shop.mood": st.sampled_from(["so so", 'glad "!"']),
    "shop.small": st.integers(1, 9).map(str),
    "shop.pair": st.sampled_from(['(1,"a,b")', "(,)"]),
    "shop.mood[]": st.just('{"so so"}'),
}


def test_a_row_is_the_same_from_the_log_and_from_a_snapshot(shop: Shop) -> None:
    shop.run("create type shop.mood as enum ('so so', 'glad \"!\"')")
    shop.run("create domain shop.small as int check (value < 10)")
    shop.run("create type shop.pair as (n int, t text)")
    columns = ", ".join(f'"c {n} ""%s\\\\" {type_}' for n, type_ in enumerate(TYPES))
    shop.run(f"create table shop.every (id serial primary key, {columns})")
    table = TableId("shop", "every")
    source = shop.source()
    batches = source.get_changes(source.position(), selection=everything, idle=0.05)
    next(batches)
    marks = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Placeholder(), sql.SQL(t)) for t in TYPES
    )
    insert = sql.SQL("insert into shop.every values (default, {})").format(marks).as_string()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*(each | st.none() for each in TYPES.values())))
    def put(row: tuple[str | None, ...]) -> None:
        shop.admin.execute(insert.encode(), row)

    put()
    ((count,),) = shop.run("select count(*) from shop.every")
    streamed: list[Any] = []
    schema = None
    for batch in batches:
        for part in batch.changes:
            schema = part.schema
            streamed += part.rows()
        if len(streamed) >= count:
            break
    [chunk] = source.chunks(table, 10_000)
    held: list[Any] = []
    for batch in source.get_full_snapshot(chunk):
        [part] = batch.changes
        assert part.schema == schema == source.get_schema([table])[table]
        held += part.rows()
    by_id = {row[0]: row for row in held}
    for row in streamed:
        assert repr(by_id[row[0]]) == repr(row)  # by its text: NaN is not equal to itself
    assert len(by_id) == len(streamed) == count
    assert schema is not None
    for place, column in enumerate(schema.columns):
        carriers = {type(row[place]) for row in streamed} - {type(None), Invalid}
        assert carriers <= {CARRIERS[column.kind]}, column
    source.close()


CARRIERS: dict[Kind, type] = {
    Kind.BOOL: bool,
    Kind.INT32: int,
    Kind.INT64: int,
    Kind.FLOAT32: float,
    Kind.FLOAT64: float,
    Kind.DECIMAL: Decimal,
    Kind.DATE: date,
    Kind.TEXT: str,
    Kind.BYTES: bytes,
    Kind.UUID: bytes,
    Kind.TIME: int,
    Kind.DATETIME: int,
    Kind.TIMESTAMP: int,
    Kind.JSON: bytes,
    Kind.JSON_TEXT: bytes,
}
