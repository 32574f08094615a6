"""Chunks of a MySQL or MariaDB table cover every key, in the server's own order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mysql_world import Selection, World, read, seen, world_at

from warp import native
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import ChangeBatch, Chunk
from warp.mysql_family import identifier
from warp.sources.mysql import MysqlSource, snapshot

HOSTILE = "a`b\"c'd %s \\ ü 中 -- /*"  # no further: names are utf8mb3


@pytest.fixture
def world(mariadb: Any) -> Iterator[World]:
    with world_at(mariadb.url) as made:
        yield made


@pytest.fixture(params=["compiled", "plain"])
def half(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.switched(request.param == "compiled"):
        yield str(request.param)


def keys(world: World, table: str, rows: int, *names: str) -> tuple[list[Any], int]:
    """(the key of every row that the chunks hold, how many chunks there are)."""
    source = world.source()
    chunks = source.chunks(world.table(table), rows)
    found = [
        tuple(row[name] for name in names)
        for chunk in chunks
        for batch in source.get_full_snapshot(chunk)
        for _, _, row in seen(batch)
    ]
    return found, len(chunks)


def test_every_row_is_in_one_chunk_by_either_half(world: World, half: str) -> None:
    world.sql("CREATE TABLE t (id bigint PRIMARY KEY, v text)")
    with world.root.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, 'v')", [[n * 7 - 300] for n in range(1, 96)])
    found, chunks = keys(world, "t", 10, "id")
    assert sorted(found) == [(n * 7 - 300,) for n in range(1, 96)]
    assert chunks == 10


def test_a_key_that_ignores_case_and_accents_is_cut_by_the_server(world: World) -> None:
    world.sql(
        "CREATE TABLE t (k varchar(20) COLLATE utf8mb4_general_ci, n int, PRIMARY KEY (k, n))"
    )
    words = ["a", "B", "c", "Ä", "z", "Z z", "", " ", "é", "E", "ß", "ss", "0", "_", "😀"]
    rows = {(w, n) for w in words for n in (-1, 0, 7)}
    for row in sorted(rows):
        world.sql("INSERT IGNORE INTO t VALUES (%s, %s)", row)
    expected = sorted(world.sql("SELECT k, n FROM t"))
    for size in (1, 2, 5):
        found, chunks = keys(world, "t", size, "k", "n")
        assert sorted(found) == expected
        assert chunks >= len(expected) // size


KEYS: dict[str, list[Any]] = {
    "varchar(10) CHARACTER SET latin1": ["a", "é", "Z", "€"],
    "varchar(10) CHARACTER SET gbk": ["中", "文", "a"],
    "varbinary(10)": [b"\x00", b"\xff'\\", b"a"],
    "binary(3)": [b"\x00", b"a", b"\xff\xff"],
    "enum('z','a','m')": ["z", "a", "m"],
    "bit(12)": [0, 1, 4095],
    "float": [1.1, -0.3, 1e30],
    "double": [0.1, -1e300, 1 / 3],
    "decimal(30,10)": ["1.0000000001", "-99999999999999999999", "0"],
    "bigint unsigned": [0, 1, 2**64 - 1],
    "datetime(6)": ["2024-01-01 00:00:00.000001", "1000-01-01", "9999-12-31 23:59:59.999999"],
    "timestamp(3) DEFAULT '2024-01-01'": ["2024-01-01 00:00:00.001", "2001-01-01", "2037-01-01"],
    "date": ["2024-02-29", "1000-01-01", "9999-12-31"],
    "time(2)": ["-838:59:59", "00:00:00.25", "838:59:59"],
    "year": [1901, 2155, 2000],
}
KEYS_OF_MARIADB: dict[str, list[Any]] = {
    "uuid": ["00000000-0000-0000-0000-000000000001", "f0000000-0000-1000-8000-000000000000"],
    "inet6": ["::1", "fe80::1", "2001:db8::"],
}


def test_keys_of_every_type_are_cut_and_found_again(world: World) -> None:
    kinds = KEYS | (KEYS_OF_MARIADB if world.is_mariadb else {})
    for number, (kind, values) in enumerate(kinds.items()):
        world.sql(f"CREATE TABLE t{number} (k {kind}, v int, PRIMARY KEY (k))")
        for value in values:
            world.sql(f"INSERT INTO t{number} VALUES (%s, 1)", [value])
        found, chunks = keys(world, f"t{number}", 1, "k")
        assert len(set(found)) == len(values), kind
        assert len(found) == len(values), kind
        assert chunks == len(values), kind


def test_names_with_every_sign_are_quoted(mariadb: Any) -> None:
    with world_at(mariadb.url, HOSTILE) as world:
        table, column = identifier("t " + HOSTILE), identifier("k " + HOSTILE)
        world.sql(f"CREATE TABLE {table} ({column} varchar(40) PRIMARY KEY, `1` int)")
        world.root.begin()
        with world.root.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES ({world.root.escape(HOSTILE)}, 1)")
            cursor.execute(f"INSERT INTO {table} VALUES ('x', 2)")
        world.root.commit()
        rows = read(world.source(), world.table("t " + HOSTILE), rows=1)
        assert sorted(row["k " + HOSTILE] for row in rows) == sorted([HOSTILE, "x"])


def test_an_old_bound_is_refused_when_the_key_has_changed(world: World) -> None:
    world.sql("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL)")
    old = Chunk(world.table("t"), 1, '["5"]', '["1); DROP TABLE t; --"]')
    with pytest.raises(SourceRefused, match="cartridge-warp resync"):
        list(world.source().get_full_snapshot(old))
    world.sql("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (a, b)")
    with pytest.raises(SourceRefused, match="key has changed"):
        list(world.source().get_full_snapshot(Chunk(world.table("t"), 1, '["5"]')))


def test_a_table_that_is_gone_has_one_chunk_without_rows(world: World) -> None:
    source = world.source()
    [chunk] = source.chunks(world.table("gone"), 10)
    assert [len(batch) for batch in source.get_full_snapshot(chunk)] == [0]


def test_a_view_and_a_sequence_are_left_out(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    world.sql("CREATE VIEW v AS SELECT * FROM t")
    if world.is_mariadb:
        world.sql("CREATE SEQUENCE s")
    source = world.source()
    assert source.tables() == [world.table("t")]
    assert source.get_schema([world.table("v")]) == {}


def test_all_databases_but_the_systems_own_are_asked_where_none_is_named(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.source(Selection(None, frozenset({"t"})))
    assert world.table("t") in source.tables()
    assert not {"mysql", "information_schema"} & set(source.namespaces())


def test_large_rows_come_in_smaller_batches(world: World, half: str) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v longblob)")
    for n in range(8):
        world.sql("INSERT INTO t VALUES (%s, REPEAT('x', 2000000))", [n])
    source = world.source()
    [chunk] = source.chunks(world.table("t"), 100)
    sizes = [len(batch) for batch in source.get_full_snapshot(chunk)]
    assert sum(sizes) == 8
    assert max(sizes) <= 4


def half_read(world: World) -> tuple[MysqlSource, Iterator[ChangeBatch]]:
    """A chunk of twelve rows of which three have been read."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    world.sql(f"INSERT INTO t VALUES {', '.join(f'({n})' for n in range(12))}")
    source = world.source(Selection(world.database, settings={"full_load_batch_size": 3}))
    [chunk] = source.chunks(world.table("t"), 100)
    batches = source.get_full_snapshot(chunk)
    assert len(next(batches)) == 3
    return source, batches


def test_a_connection_that_is_killed_ends_the_chunk_with_an_error(world: World, half: str) -> None:
    _, batches = half_read(world)
    for id, user in world.sql("SELECT id, user FROM information_schema.processlist"):
        if user == world.login:
            world.sql(f"KILL {id}")
    with pytest.raises(SourceUnavailable):
        list(batches)


def test_a_column_that_goes_while_a_chunk_is_read_has_the_chunk_read_again(world: World) -> None:
    source, batches = half_read(world)
    world.sql("ALTER TABLE t ADD COLUMN more int, RENAME COLUMN id TO nr")
    with pytest.raises(SourceUnavailable, match="changed or dropped"):
        list(batches)
    rows = read(source, world.table("t"))
    assert [row["nr"] for row in rows] == list(range(12))
    assert {row["more"] for row in rows} == {None}


def test_closing_the_source_ends_a_chunk_with_an_error(world: World, half: str) -> None:
    source, batches = half_read(world)
    source.close()
    with pytest.raises(SourceUnavailable):
        list(batches)


def test_a_view_holds_everything_up_to_the_place_it_tells(world: World) -> None:
    # Also where the last event of the log is none of a transaction of InnoDB.
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.source()
    for statement in (
        "FLUSH BINARY LOGS",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE m (id int PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO m VALUES (1)",
        "DROP TABLE m",
        "FLUSH TABLES",
    ):
        world.sql(statement)
        before = source.position()
        [batch] = source.get_full_snapshot(Chunk(world.table("t"), 0))
        assert source.reached(batch.end, before), statement


def test_a_chunk_that_waits_to_be_written_keeps_nobody_from_altering_its_table(
    world: World, half: str
) -> None:
    # Seen: an ALTER TABLE that waits for a reader has everybody else wait behind it.
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v longtext)")
    for n in range(4):
        world.sql("INSERT INTO t VALUES (%s, REPEAT('x', 3000000))", [n])
    source = world.source()
    batches = source.get_full_snapshot(Chunk(world.table("t"), 0))
    first = next(batches)
    world.script("SET SESSION lock_wait_timeout = 5", "ALTER TABLE t MODIFY v longblob")
    world.sql("UPDATE t SET v = 'later'")
    later = list(batches)
    assert [row["v"] for batch in later for _, _, row in seen(batch)] == ["later"] * 2
    versions = [version for batch in later for part in batch.changes for version in part.versions]
    if world.has_gtids:
        assert first.changes[0].versions[0] < min(versions)
        assert set(versions) == {source.version()}
    else:  # the version of a chunk's first page is of all its pages
        assert set(versions) == set(first.changes[0].versions)


def test_a_chunk_reads_no_row_outside_of_it(world: World) -> None:
    world.sql("CREATE TABLE t (a int, b varchar(9) CHARACTER SET latin1, PRIMARY KEY (a, b))")
    with world.root.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s)", [(a, f"k{b:02}") for a in range(5) for b in range(60)]
        )
    world.sql("ANALYZE TABLE t")
    source = world.source()
    table = source.described(world.table("t"))
    assert table is not None
    for chunk in source.chunks(table.id, 25):
        world.sql("FLUSH STATUS")
        world.sql(
            f"SELECT * FROM {identifier(table.id.name)} FORCE INDEX (PRIMARY)"
            f"{snapshot.within(table, chunk.lower, chunk.upper)} ORDER BY a, b LIMIT 1000"
        )
        read_rows = sum(int(n) for _, n in world.sql("SHOW SESSION STATUS LIKE 'Handler_read_%'"))
        assert read_rows <= 25 + 10
