"""BigQuery as a source, on an emulator: what rows become, what a run finds, what is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from bigquery_world import Selection, World, events_of, rows_of, run, world_at
from fix_servers import BigQueryServer

from warp.capture.places import Place, Strategy
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import ABSENT, Capture, Kind, Operation, Position, Verdict
from warp.sources.bigquery import BigQuerySource, comparison, reading
from warp.sources.bigquery import snapshot as cutting
from warp.sources.bigquery.catalog import Table
from warp.sources.bigquery.server import Server

READ, UPDATE, DELETE, TRUNCATE = (
    Operation.READ,
    Operation.UPDATE,
    Operation.DELETE,
    Operation.TRUNCATE,
)
GONE = (ABSENT, ABSENT)
PLAIN = "(id INT64 NOT NULL, name STRING, PRIMARY KEY (id) NOT ENFORCED)"


@pytest.fixture(scope="module")
def world(bigquery_server: BigQueryServer) -> Iterator[World]:
    with world_at(bigquery_server) as world:
        yield world


def named(world: World, table: str, *names: str, columns: str = PLAIN) -> None:
    """A new table with these names under the ids 1, 2, …"""
    world.sql(f"CREATE OR REPLACE TABLE {{d}}.{table} {columns}")
    if names:
        rows = ", ".join(f"({id}, '{name}')" for id, name in enumerate(names, 1))
        world.sql(f"INSERT INTO {{d}}.{table} (id, name) VALUES {rows}")


def snapshot(source: BigQuerySource, world: World, table: str, rows: int = 100) -> list[Any]:
    chunks = source.chunks(world.id(table), rows)
    return [e for chunk in chunks for e in events_of(list(source.get_full_snapshot(chunk)))]


TYPES = (
    ("id", "INT64", "1", Kind.INT64, 1),
    ("flag", "BOOL", "TRUE", Kind.BOOL, True),
    ("real", "FLOAT64", "0.1", Kind.FLOAT64, 0.1),
    ("price", "NUMERIC", "NUMERIC '12.50'", Kind.DECIMAL, Decimal("12.5")),
    ("large", "BIGNUMERIC", "BIGNUMERIC '0.123456789012'", Kind.DECIMAL, Decimal("0.123456789012")),
    ("word", "STRING", "'grün'", Kind.TEXT, "grün"),
    ("raw", "BYTES", "FROM_HEX('00ff')", Kind.BYTES, b"\0\xff"),
    ("day", "DATE", "DATE '2024-05-17'", Kind.DATE, dt.date(2024, 5, 17)),
    ("clock", "TIME", "TIME '12:00:00.000001'", Kind.TIME, 43_200_000_001),
    (
        "wall",
        "DATETIME",
        "DATETIME '2024-05-17 12:00:00.000001'",
        Kind.DATETIME,
        1_715_947_200_000_001,
    ),
    (
        "instant",
        "TIMESTAMP",
        "TIMESTAMP '2024-05-17 12:00:00.000001+00'",
        Kind.TIMESTAMP,
        1_715_947_200_000_001,
    ),
    ("doc", "JSON", """JSON '{"a": [1, null]}'""", Kind.JSON, b'{"a":[1,null]}'),
    ("tags", "ARRAY<STRING>", "['x', 'y']", Kind.JSON, b'["x","y"]'),
    (
        "place",
        "STRUCT<lat FLOAT64, at TIMESTAMP>",
        "STRUCT(1.5 AS lat, TIMESTAMP '2024-05-17 12:00:00+00' AS at)",
        Kind.JSON,
        b'{"lat":1.5,"at":"2024-05-17T12:00:00Z"}',
    ),
)


@pytest.mark.parametrize("storage_api", [True, False])
def test_each_type_arrives_as_its_kind_however_it_is_read(world: World, storage_api: bool) -> None:
    declared = ", ".join(f"{name} {type_}" for name, type_, *_ in TYPES)
    world.sql(f"CREATE OR REPLACE TABLE {{d}}.types ({declared}, PRIMARY KEY (id) NOT ENFORCED)")
    world.sql(f"INSERT INTO {{d}}.types VALUES ({', '.join(value for _, _, value, *_ in TYPES)})")
    world.sql("INSERT INTO {d}.types (id) VALUES (2)")
    source = world.source(storage_api=storage_api)
    schema = source.get_schema([world.id("types")])[world.id("types")]
    assert [c.kind for c in schema.columns] == [kind for *_, kind, _ in TYPES]
    (_, full), (_, empty) = sorted(snapshot(source, world, "types"), key=lambda event: event[1][0])
    assert list(full) == [cell for *_, cell in TYPES]
    assert list(empty) == [2, *(b"[]" if name == "tags" else None for name, *_ in TYPES[1:])]


@pytest.mark.holds(guarantee=4, source="bigquery", destination="pretended", fault="no fault")
def test_a_comparison_delivers_what_differs_and_nothing_else(world: World) -> None:
    named(world, "compared", "a", "b", "c", "d")
    source = world.source()
    table = world.id("compared")
    first, position = run(source, table, None)
    assert len(first) == 5  # four rows, and an end to all others
    world.sql("UPDATE {d}.compared SET name = 'B' WHERE id = 2")
    world.sql("DELETE FROM {d}.compared WHERE id = 3")
    world.sql("INSERT INTO {d}.compared VALUES (5, NULL)")
    found, position = run(source, table, position)
    assert sorted(found, key=lambda event: event[1][0]) == [
        (UPDATE, (2, "B")),
        (DELETE, (3, ABSENT)),
        (UPDATE, (5, None)),
    ]
    assert run(source, table, position)[0] == []


def came_and_went(world: World, table: str) -> list[Any]:
    """The first run after a chunk saw a row that was there for a moment."""
    named(world, table, "a")
    source = world.source()
    start = source.poll_start(world.id(table), fire_time=1.0)
    world.sql(f"INSERT INTO {{d}}.{table} VALUES (2, 'brief')")
    assert len(snapshot(source, world, table)) == 2
    world.sql(f"DELETE FROM {{d}}.{table} WHERE id = 2")
    return run(source, world.id(table), start)[0]


def test_a_row_that_only_a_chunk_saw_goes_with_the_first_run(world: World) -> None:
    assert (TRUNCATE, GONE) in came_and_went(world, "brief")


def test_a_first_run_by_difference_leaves_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: from the snapshot's beginning to the run nothing is different."""

    def begun(server: Server, table: Table, *, fire_time: float) -> Position:
        now = server.now()
        place = Place(Strategy.WHOLE, table.signature, upto=now, version=now)
        return place.position(fire_time)

    monkeypatch.setattr(comparison, "start", begun)
    assert came_and_went(world, "left") == []


def test_a_key_of_several_columns_is_compared_whole(world: World) -> None:
    world.sql(
        "CREATE OR REPLACE TABLE {d}.pairs (a STRING, b INT64, v STRING, "
        "PRIMARY KEY (b, a) NOT ENFORCED)"
    )
    world.sql("INSERT INTO {d}.pairs VALUES ('x', 1, 'v'), ('x', 2, 'v'), ('y', 1, 'v')")
    source = world.source()
    _, position = run(source, world.id("pairs"), None)
    world.sql("DELETE FROM {d}.pairs WHERE a = 'x' AND b = 1")
    found, _ = run(source, world.id("pairs"), position)
    assert found == [(DELETE, ("x", 1, ABSENT))]


@pytest.mark.holds(guarantee=4, source="bigquery", destination="pretended", fault="drift")
def test_after_a_change_of_columns_all_is_read_again(world: World) -> None:
    named(world, "altered", "a", "b")
    source = world.source()
    _, position = run(source, world.id("altered"), None)
    world.sql("ALTER TABLE {d}.altered ADD COLUMN more STRING")
    found, position = run(source, world.id("altered"), position)
    assert [operation for operation, _ in found] == [UPDATE, UPDATE, TRUNCATE]
    assert run(source, world.id("altered"), position)[0] == []


@pytest.mark.holds(guarantee=6, source="bigquery", destination="pretended", fault="lost position")
def test_where_the_time_travel_does_not_reach_all_is_read_again(world: World) -> None:
    named(world, "late", "a", "b")
    _, position = run(world.source(), world.id("late"), None)
    world.sql("DELETE FROM {d}.late WHERE id = 1")
    found, _ = run(world.source(time_travel="1h"), world.id("late"), position)
    assert found == [(UPDATE, (2, "b")), (TRUNCATE, GONE)]


@pytest.mark.holds(guarantee=5, source="bigquery", destination="pretended", fault="drop and rename")
def test_a_table_that_was_made_again_is_read_whole(world: World) -> None:
    named(world, "replaced", "a", "b")
    _, position = run(world.source(), world.id("replaced"), None)
    named(world, "replaced", "z")
    found, _ = run(world.source(), world.id("replaced"), position)
    assert found == [(UPDATE, (1, "z")), (TRUNCATE, GONE)]


def test_a_table_without_a_key_is_read_whole_each_time(world: World) -> None:
    named(world, "keyless", "a", "a", columns="(id INT64, name STRING)")
    source = world.source()
    assert [len(source.chunks(world.id("keyless"), 1))] == [1]
    for _ in range(2):
        found, _ = run(source, world.id("keyless"), None)
        assert sorted(found, key=str) == [(READ, (1, "a")), (READ, (2, "a")), (TRUNCATE, GONE)]


def test_a_key_may_be_named_where_none_is_declared(world: World) -> None:
    named(world, "named", "a", columns="(id INT64, name STRING)")
    source = world.source(keys={"named": ["id"]})
    assert source.get_schema([world.id("named")])[world.id("named")].key == ("id",)


def test_a_large_result_is_read_by_the_storage_api(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_SMALL_RESULT", 2)
    named(world, "many", *"abcdefg")
    source = world.source()
    _, position = run(source, world.id("many"), None)
    world.sql("UPDATE {d}.many SET name = UPPER(name) WHERE TRUE")
    batches = list(source.poll(world.id("many"), position, fire_time=1.0))
    assert sorted(row for _, row in events_of(batches)) == list(enumerate("ABCDEFG", 1))
    assert any('"stream"' in batch.end.token for batch in batches)


def test_a_chunk_shows_one_moment_whatever_happens_while_it_is_read(world: World) -> None:
    named(world, "moment", *"abcdefgh")
    selection = Selection(world.dataset, {"full_load_batch_size": 3})
    source = world.source(selection, storage_api=False)
    [chunk] = source.chunks(world.id("moment"), 100)
    batches = source.get_full_snapshot(chunk)
    found = rows_of(next(batches).changes)
    world.sql("UPDATE {d}.moment SET name = 'late' WHERE TRUE")
    found += events_of(list(batches))
    assert sorted(row for _, row in found) == list(enumerate("abcdefgh", 1))


@pytest.mark.parametrize("storage_api", [True, False])
def test_a_table_is_shown_as_it_was_however_it_is_read(world: World, storage_api: bool) -> None:
    named(world, "before", *"abc")
    source = world.source(storage_api=storage_api)
    at = source.version()
    world.sql("UPDATE {d}.before SET name = 'late' WHERE id < 3")
    world.sql("DELETE FROM {d}.before WHERE id = 3")
    [chunk] = source.chunks(world.id("before"), 100)
    found = events_of(list(source.rows_at(chunk, at)))
    assert sorted(found) == [(READ, row) for row in enumerate("abc", 1)]
    now = events_of(list(source.get_full_snapshot(chunk)))
    assert sorted(now) == [(READ, (1, "late")), (READ, (2, "late"))]


@pytest.mark.parametrize(
    ("type", "key", "storage_api"),
    [
        ("STRING", "CONCAT('k\\'', CAST(n AS STRING), 'ü')", False),
        ("BYTES", "CAST(CONCAT('k', CAST(n AS STRING)) AS BYTES)", True),
        ("TIMESTAMP", "TIMESTAMP_ADD(TIMESTAMP '2024-01-01 00:00:00+00', INTERVAL n HOUR)", True),
        ("NUMERIC", "CAST(n AS NUMERIC) / 8", True),
    ],
)
def test_the_chunks_of_any_key_hold_every_row_once(
    world: World, type: str, key: str, storage_api: bool
) -> None:
    world.sql(
        f"CREATE OR REPLACE TABLE {{d}}.ranged (k {type}, n INT64, PRIMARY KEY (k) NOT ENFORCED)"
    )
    world.sql(f"INSERT INTO {{d}}.ranged SELECT {key}, n FROM UNNEST(GENERATE_ARRAY(1, 30)) AS n")
    world.sql("INSERT INTO {d}.ranged VALUES (NULL, 31)")  # a declared key is not enforced
    source = world.source(storage_api=storage_api)
    assert len(source.chunks(world.id("ranged"), 10)) > 2
    found = snapshot(source, world, "ranged", 10)
    assert sorted(row[1] for _, row in found) == list(range(1, 32))


def test_where_ranges_would_scan_too_much_the_chunks_are_streams_of_one_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(world, "scanned", *"abcdefgh")
    monkeypatch.setattr(cutting, "affordable", lambda server, table: 1)
    source = world.source()
    chunks = source.chunks(world.id("scanned"), 1)
    assert all("/streams/" in str(chunk.lower) for chunk in chunks)
    found = [e for chunk in chunks for e in events_of(list(source.get_full_snapshot(chunk)))]
    assert sorted(row for _, row in found) == list(enumerate("abcdefgh", 1))
    gone = replace(chunks[0], lower=str(chunks[0].lower).replace("/streams/", "/streams/9"))
    with pytest.raises(SourceRefused, match="keeps for six hours"):
        list(source.get_full_snapshot(gone))


def test_a_view_is_left_out(world: World) -> None:
    named(world, "seen", "a")
    world.sql("CREATE OR REPLACE VIEW {d}.view AS SELECT id FROM {d}.seen")
    tables = world.source().tables()
    assert world.id("seen") in tables
    assert world.id("view") not in tables


def test_a_table_that_was_dropped_yields_no_rows_and_no_error(world: World) -> None:
    named(world, "dropped", "a")
    source = world.source()
    _, position = run(source, world.id("dropped"), None)
    [chunk] = source.chunks(world.id("dropped"), 10)
    world.sql("DROP TABLE {d}.dropped")
    assert run(source, world.id("dropped"), position)[0] == []
    assert events_of(list(source.get_full_snapshot(chunk))) == []


def test_doctor_finds_nothing_wrong_with_what_works(world: World) -> None:
    world.sql(
        "CREATE OR REPLACE TABLE {d}.sound (id INT64, updated_at TIMESTAMP, "
        "PRIMARY KEY (id) NOT ENFORCED)"
    )
    source = world.source(Selection(world.dataset, {"capture": Capture.TIMESTAMP}, "sound"))
    found = source.diagnose()
    assert {one.code for one in found} > {"bigquery-may-read", "bigquery-may-stream"}
    assert not [one for one in found if one.verdict is Verdict.FAILED]


def test_doctor_refuses_a_history_that_is_not_kept(world: World) -> None:
    named(world, "unsound", "a")
    source = world.source(Selection(world.dataset, {"capture": Capture.LOG}, "unsound"))
    with pytest.raises(SourceRefused, match="enable_change_history"):
        source.check()


def test_a_read_that_scans_more_than_the_cap_is_refused_before_it_is_billed(world: World) -> None:
    named(world, "capped", *"abcdefgh")
    source = world.source(maximum_bytes_billed=1)
    [chunk] = source.chunks(world.id("capped"), 100)
    with pytest.raises(SourceRefused, match="raise maximum_bytes_billed"):
        list(source.get_full_snapshot(chunk))


def test_a_project_that_does_not_answer_is_waited_for(world: World) -> None:
    source = world.source(emulator_host="127.0.0.1:1", connect_timeout=1)
    with pytest.raises(SourceUnavailable, match="a BigQuery that answers was expected"):
        source.tables()


def test_a_dataset_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(SourceRefused, match="nowhere"):
        world.source(Selection("nowhere")).tables()
