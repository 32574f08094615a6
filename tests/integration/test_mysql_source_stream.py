"""The log of a real server as change batches: what comes, in which order, and what ends it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mysql_world import Selection, World, follow, read, seen, world_at

from warp import native
from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.model import (
    ABSENT,
    UNCHANGED,
    Capture,
    ChangeBatch,
    Invalid,
    Operation,
    Position,
    TableChanges,
)
from warp.own_process import wait_until
from warp.sources.mysql import MysqlSource
from warp.sources.mysql.dump import Dump
from warp.sources.mysql.position import Place
from warp.testing.servers import MariaDb

CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
TRUNCATE, READ = Operation.TRUNCATE, Operation.READ
END = "the_end"  # a table whose row says that everything before it has come


@pytest.fixture
def world(mariadb: Any) -> Iterator[World]:
    with world_at(mariadb.url) as made:
        yield made


class Followed:
    """All that a stream says between two places of a script."""

    def __init__(self, batches: list[ChangeBatch], database: str) -> None:
        self.batches = batches
        self.reload = [t.name for batch in batches for t in batch.reload]
        self.changes = [
            (table.name, operation, cells)
            for batch in batches
            for table, operation, cells in seen(batch)
            if table.name != END
        ]

    @property
    def short(self) -> list[tuple[str, str, Any]]:
        """(table, operation, value of the first column)."""
        return [(t, chr(op), next(iter(cells.values()), None)) for t, op, cells in self.changes]


def run(world: World, *statements: str, **settings: Any) -> Followed:
    """What the log says of these statements, which another session than the stream's makes."""
    source = world.source(Selection(world.database, settings=settings))
    start = source.position()
    world.script(*statements)
    return until_end(world, source, start)


def until_end(world: World, source: MysqlSource, start: Position) -> Followed:
    world.script(
        f"CREATE TABLE IF NOT EXISTS {END} (id int PRIMARY KEY)",
        f"REPLACE INTO {END} VALUES (1)",
    )
    world.sql(f"DELETE FROM {END}")
    batches = []
    for batch in source.get_changes(start, selection=source._selection, idle=0.05):
        batches.append(batch)
        if any(p.table.name == END and DELETE in p.operations for p in batch.changes):
            return Followed(batches, world.database)
    raise AssertionError("the stream ended")


# -- what comes


@pytest.mark.holds(guarantee=5, source="mariadb", destination="pretended", fault="no fault")
def test_the_rows_of_one_transaction_share_a_version_and_come_in_order(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = run(
        world,
        "BEGIN",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "UPDATE t SET v = 3 WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
        "COMMIT",
        "INSERT INTO t VALUES (3, 3)",
    )
    assert told.short == [("t", "c", 1), ("t", "c", 2), ("t", "u", 1), ("t", "d", 2), ("t", "c", 3)]
    versions = [
        v for b in told.batches for p in b.changes if p.table.name == "t" for v in p.versions
    ]
    assert len(set(versions[:4])) == 1
    assert versions[4] > versions[0]


def test_rows_that_are_ready_wait_for_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A steady trickle, of which each row came before the last one had waited its time, held all
    of them up for a tenth of a second."""
    waits: list[float] = []
    read = Dump.read

    def noted(dump: Dump, wait: float) -> Iterator[bytes]:
        waits.append(wait)
        return read(dump, wait)

    monkeypatch.setattr(Dump, "read", noted)
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    assert run(world, "INSERT INTO t VALUES (1)").short == [("t", "c", 1)]
    assert 0.0 in waits


def test_a_key_that_changes_is_a_delete_and_a_create(world: World) -> None:
    world.script(
        "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )
    told = run(
        world, "UPDATE t SET id = id + 10 ORDER BY id DESC", "UPDATE t SET v = 'c' WHERE id = 11"
    )
    assert told.changes == [
        ("t", DELETE, {"id": 2, "v": ABSENT}),
        ("t", CREATE, {"id": 12, "v": "b"}),
        ("t", DELETE, {"id": 1, "v": ABSENT}),
        ("t", CREATE, {"id": 11, "v": "a"}),
        ("t", UPDATE, {"id": 11, "v": "c"}),
    ]


def test_a_key_that_only_changes_its_case_is_another_key(world: World) -> None:
    world.script("CREATE TABLE t (k varchar(9) PRIMARY KEY)", "INSERT INTO t VALUES ('a')")
    told = run(world, "UPDATE t SET k = 'A'")
    assert told.short == [("t", "d", "a"), ("t", "c", "A")]


def test_what_is_rolled_back_never_comes(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    told = run(
        world,
        *("BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK"),
        *("BEGIN", "INSERT INTO t VALUES (2)", "SAVEPOINT s", "INSERT INTO t VALUES (3)"),
        *("ROLLBACK TO s", "COMMIT"),
    )
    assert told.short == [("t", "c", 2)]


def test_tables_that_are_not_selected_do_not_come_but_move_the_position(world: World) -> None:
    world.script("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int, g geometry)")
    source = world.source(Selection(world.database, frozenset({"t", END})))
    start = source.position()
    world.sql("INSERT INTO other VALUES (1, Point(1, 2))")
    goal = source.position()
    for batch in source.get_changes(start, selection=source._selection, idle=0.05):
        assert len(batch) == 0
        if source.reached(batch.end, goal):
            break


def test_a_table_of_another_database_is_followed_where_no_database_is_named(
    world: World, mariadb: Any
) -> None:
    with world_at(mariadb.url) as other:
        for each in (world, other):
            each.sql("CREATE TABLE t (id int PRIMARY KEY)")
        world.sql(f"GRANT SELECT ON {other.database}.* TO {world.login}")
        source = world.source(Selection(None, frozenset({"t"})))
        start = source.position()
        world.sql("INSERT INTO t VALUES (1)")
        other.sql("INSERT INTO t VALUES (2)")
        found = follow(source, start, 2)
        assert {(table.namespace, row["id"]) for table, _, row in found} == {
            (world.database, 1),
            (other.database, 2),
        }


def test_a_unique_key_without_null_is_a_key_where_there_is_no_primary_one(world: World) -> None:
    world.sql("CREATE TABLE t (a int, b int NOT NULL, c int NOT NULL, UNIQUE (a), UNIQUE (b, c))")
    [schema] = world.source().get_schema([world.table("t")]).values()
    assert schema.key == ("b", "c")
    told = run(world, "INSERT INTO t VALUES (1, 2, 3)", "UPDATE t SET c = 4")
    assert [chr(op) for _, op, _ in told.changes] == ["c", "d", "c"]


def test_a_table_without_a_key_is_refused_with_what_to_do(world: World) -> None:
    world.sql("CREATE TABLE t (a int)")
    source = world.source()
    start = source.position()
    world.sql("INSERT INTO t VALUES (1)")
    with pytest.raises(SourceRefused, match="add a primary key, or list `!t` under `tables`"):
        follow(source, start, 1)


def test_text_with_nul_is_told_as_invalid_and_by_a_snapshot_alike(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = run(world, r"INSERT INTO t VALUES (1, 'a\0b')")
    [(_, _, cells)] = told.changes
    assert cells["v"] == Invalid("a\0b")
    source = world.source()
    [batch] = source.get_full_snapshot(source.chunks(world.table("t"), 10)[0])
    assert seen(batch)[0][2] == cells


def test_a_minimal_image_gives_unchanged_cells_and_the_row_can_be_looked_up(world: World) -> None:
    world.script(
        "CREATE TABLE t (k varchar(9), n int, a int DEFAULT 7, b text, PRIMARY KEY (k, n))",
        "INSERT INTO t VALUES ('x', 1, 1, 'one'), ('y', 2, 2, 'two')",
    )
    told = run(
        world,
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE t SET a = 5 WHERE k = 'x'",
        "INSERT INTO t (k, n, b) VALUES ('z', 3, 'three')",
        "DELETE FROM t WHERE k = 'y'",
        "UPDATE t SET n = 9 WHERE k = 'x'",
        "SET SESSION binlog_row_image = 'FULL'",
    )
    assert told.changes == [
        ("t", UPDATE, {"k": "x", "n": 1, "a": 5, "b": UNCHANGED}),
        ("t", UPDATE, {"k": "z", "n": 3, "a": UNCHANGED, "b": "three"}),
        ("t", DELETE, {"k": "y", "n": 2, "a": ABSENT, "b": ABSENT}),
        ("t", DELETE, {"k": "x", "n": 1, "a": ABSENT, "b": ABSENT}),
        ("t", UPDATE, {"k": "x", "n": 9, "a": UNCHANGED, "b": UNCHANGED}),
    ]
    rows = [part for batch in told.batches for part in batch.changes if part.table.name == "t"]
    source = world.source()
    found = [source.look_up(part) for part in rows]
    assert {row for part in found for row in part.rows()} == {
        ("x", 9, 5, "one"),
        ("z", 3, 7, "three"),
    }
    assert all(set(part.operations) <= {READ} for part in found)
    assert min(v for part in found for v in part.versions) >= max(
        v for part in rows for v in part.versions
    )


def test_a_large_transaction_comes_in_pieces_that_end_before_it(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    told = run(
        world,
        "INSERT INTO t SELECT seq, REPEAT('x', 100) FROM seq_1_to_3000"
        if world.is_mariadb
        else "INSERT INTO t WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s "
        "WHERE n < 3000) SELECT /*+ SET_VAR(cte_max_recursion_depth = 4000) */ n, 'x' FROM s",
        write_batch_size=200,
    )
    sized = [b for b in told.batches if any(p.table.name == "t" for p in b.changes)]
    assert len(sized) > 2
    assert max(len(b) for b in sized) < 1500
    ends = {b.end.token for b in sized[:-1]}
    assert len(ends) == 1
    assert told.batches[-1].end.token not in ends
    assert [cells["id"] for _, _, cells in told.changes] == list(range(1, 3001))


def test_a_transaction_that_is_not_much_larger_than_a_batch_is_kept_whole(world: World) -> None:
    """Its rows come in several events: an event of the log has some eight kilobytes."""
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v varchar(400))")
    rows = ", ".join(f"({n}, REPEAT('x', 400))" for n in range(70))
    told = run(world, f"INSERT INTO t VALUES {rows}", write_batch_size=20)
    sized = [b for b in told.batches if any(p.table.name == "t" for p in b.changes)]
    assert [len(b) for b in sized] == [70]


# -- statements that change rows without events


@pytest.mark.holds(guarantee=5, source="mariadb", destination="pretended", fault="drop and rename")
def test_a_truncated_table_and_a_dropped_one_lose_their_rows(world: World) -> None:
    world.script(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE u (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO u VALUES (1)",
    )
    told = run(
        world,
        f"TRUNCATE TABLE `{world.database}` . t /* all of it */",
        "INSERT INTO t VALUES (2)",
        "DROP TABLE IF EXISTS u",
    )
    assert told.short == [("t", "t", ABSENT), ("t", "c", 2), ("u", "t", None)]


def test_a_temporary_table_of_the_same_name_empties_nothing(world: World) -> None:
    world.script("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    told = run(
        world,
        "CREATE TEMPORARY TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (5)",
        "TRUNCATE t",
        "DROP TEMPORARY TABLE t",
    )
    assert told.changes == []


@pytest.mark.holds(guarantee=5, source="mariadb", destination="pretended", fault="drop and rename")
def test_a_table_renamed_over_another_is_read_anew(world: World) -> None:
    world.script(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE _t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO _t VALUES (2)",
    )
    told = run(world, "RENAME TABLE t TO t_old, _t TO t")
    truncated = [name for name, op, _ in told.changes if op is TRUNCATE]
    assert sorted(truncated) == ["_t", "t", "t_old"]
    assert sorted(told.reload) == ["t", "t_old"]


@pytest.mark.parametrize(
    ("statement", "reload"),
    [
        ("ALTER TABLE t ADD COLUMN w int", []),
        ("ALTER TABLE t ADD INDEX (v), COMMENT 'not null default'", []),
        ("ALTER TABLE t ADD COLUMN w int NOT NULL DEFAULT 7", ["t"]),
        ("ALTER TABLE t MODIFY v varchar(3) NOT NULL", ["t"]),
        ("ALTER TABLE t CHANGE v w text", ["t"]),
        ("ALTER TABLE t RENAME TO u", ["u"]),
    ],
)
def test_an_altered_table_is_read_anew_only_where_its_rows_have_changed(
    world: World, statement: str, reload: list[str]
) -> None:
    world.script(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(20))", "INSERT INTO t VALUES (1, 'a')"
    )
    assert run(world, statement).reload == reload


def test_rows_before_and_after_an_alter_have_the_columns_of_their_time(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    told = run(
        world,
        "INSERT INTO t VALUES (1, 1)",
        "ALTER TABLE t ADD COLUMN w text FIRST, DROP COLUMN v",
        "INSERT INTO t VALUES ('x', 2)",
    )
    assert [cells for _, _, cells in told.changes] == [{"id": 1, "v": 1}, {"w": "x", "id": 2}]


def test_the_tables_of_a_dropped_database_lose_their_rows(world: World) -> None:
    world.script("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    source = world.source()
    start = source.position()
    stream = source.get_changes(start, selection=source._selection, idle=0.05)
    next(stream)
    world.script(f"DROP DATABASE {world.database}", f"CREATE DATABASE {world.database}")
    assert next(b for b in stream if len(b)).changes[0].operations == bytearray(b"t")


def test_a_versioned_table_is_followed_as_it_is_now(world: World) -> None:
    if not world.is_mariadb:
        return  # MySQL has none
    world.script(
        "CREATE TABLE t (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING",
        "CREATE SEQUENCE s",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
    )
    told = run(
        world, "UPDATE t SET v = 9 WHERE id = 1", "DELETE FROM t WHERE id = 2", "DO NEXTVAL(s)"
    )
    assert told.short == [("t", "u", 1), ("t", "d", 2)]
    assert told.changes[0][2] == {"id": 1, "v": 9}
    source = world.source()
    [batch] = source.get_full_snapshot(source.chunks(world.table("t"), 9)[0])
    assert [cells for _, _, cells in seen(batch)] == [{"id": 1, "v": 9}]


# -- XA


def test_rows_of_a_prepared_xa_transaction_wait_for_its_commit(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.source()
    start = source.position()
    other, xid = world.another(), world.database
    with other.cursor() as cursor:
        for statement in (
            f"XA START '{xid}'",
            "INSERT INTO t VALUES (1)",
            f"XA END '{xid}'",
            f"XA PREPARE '{xid}'",
        ):
            cursor.execute(statement)
        world.sql("INSERT INTO t VALUES (2)")
        stream = source.get_changes(start, selection=source._selection, idle=0.05)
        first = next(b for b in stream if len(b))
        assert [cells["id"] for _, _, cells in seen(first)] == [2]
        assert not source.reached(first.end, source.position())  # it must see the first again
        again = world.source()
        assert [r["id"] for _, _, r in follow(again, first.end, 1)] == [2]
        cursor.execute(f"XA COMMIT '{xid}'")
        second = next(b for b in stream if len(b))
        assert [cells["id"] for _, _, cells in seen(second)] == [1]
        assert source.reached(second.end, source.position())
    other.close()
    assert [r["id"] for _, _, r in follow(world.source(), start, 2)] == [2, 1]


# -- what ends it


def test_a_statement_instead_of_rows_stops_with_the_setting_to_change(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.source()
    start = source.position()
    world.script("SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO t VALUES (1)")
    with pytest.raises(SourceRefused, match="binlog_format"):
        follow(source, start, 1)


def test_a_killed_dump_thread_ends_the_stream_with_an_error_and_nothing_is_lost(
    world: World,
) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    source = world.source()
    start = source.position()
    stream = source.get_changes(start, selection=source._selection, idle=0.05)
    world.sql("INSERT INTO t VALUES (1)")
    first = next(b for b in stream if len(b))
    for id, user, command in world.sql(
        "SELECT id, user, command FROM information_schema.processlist"
    ):
        if user == world.login and command.startswith("Binlog Dump"):
            world.sql(f"KILL {id}")
    world.sql("INSERT INTO t VALUES (2)")
    with pytest.raises(SourceUnavailable):
        list(itertools.islice(stream, 100))
    assert [r["id"] for _, _, r in follow(world.source(), first.end, 1)] == [2]


def test_two_followers_do_not_end_each_other(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY)")
    sources = [world.source(), world.source()]
    start = sources[0].position()
    streams = [s.get_changes(start, selection=s._selection, idle=0.05) for s in sources]
    for stream in streams:
        next(stream)
    world.sql("INSERT INTO t VALUES (1)")
    for stream in streams:
        assert len(next(batch for batch in stream if len(batch))) == 1


def test_closing_from_another_thread_ends_a_stream_that_waits(world: World) -> None:
    source = world.source()
    stream = source.get_changes(source.position(), selection=source._selection, idle=30)
    next(stream)
    timer = threading.Timer(0.1, source.close)
    timer.start()
    began = time.monotonic()
    assert sum(map(len, stream)) == 0
    assert time.monotonic() - began < 5
    timer.join()


def test_an_idle_stream_says_so_in_time(world: World) -> None:
    source = world.source()
    stream = source.get_changes(source.position(), selection=source._selection, idle=0.1)
    next(stream)
    began = time.monotonic()
    for _ in range(3):
        assert len(next(stream)) == 0
    assert 0.2 < time.monotonic() - began < 5


@pytest.mark.holds(guarantee=6, source="mariadb", destination="pretended", fault="lost position")
def test_a_position_of_the_future_or_of_another_flavour_is_lost(world: World) -> None:
    source = world.source()
    now = Place.parse(source.position().token)
    if world.is_mariadb:
        future = Place.of_mariadb(f"0-1-{now.version + 1000}").position()
        foreign = Place.of_mysql("00000000-0000-0000-0000-000000000001:1-5").position()
    else:
        future = Place.of_mysql("00000000-0000-0000-0000-000000000001:1-5").position()
        foreign = Place.of_mariadb("0-1-5").position()
    for position in (future, foreign):
        with pytest.raises(PositionLost, match="cartridge-warp resync"):
            follow(world.source(), position, 1)


Start = Callable[[MariaDb], MariaDb]


@pytest.mark.holds(guarantee=6, source="mariadb", destination="pretended", fault="lost position")
def test_a_purged_log_is_a_lost_position(start_server: Start) -> None:
    server = start_server(MariaDb())
    with world_at(server.url) as world:
        source = world.source()
        start = source.position()
        world.script(
            "CREATE TABLE t (id int PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
            "FLUSH BINARY LOGS",
            "INSERT INTO t VALUES (2)",
            "FLUSH BINARY LOGS",
        )
        [*_, (last, *_)] = world.sql("SHOW BINARY LOGS")
        world.sql("SET GLOBAL expire_logs_days = 2")
        early = source.headroom(start)
        assert "file 1 of" in early.told
        assert early.seconds is not None
        assert 2 * 86_400 - 60 < early.seconds <= 2 * 86_400

        def purged() -> bool:
            # A file is kept until the server has noted that no recovery needs it.
            world.sql(f"PURGE BINARY LOGS TO '{last}'")
            return bool(world.sql("SHOW BINARY LOGS")[0][0] == last)

        assert wait_until(purged, 20)
        with pytest.raises(PositionLost, match="binlog_expire_logs_seconds"):
            follow(source, start, 1)
        assert source.headroom(start).lost
        now = source.headroom(source.position())
        assert now.window is not None
        assert now.window < 3600
        assert (now.lost, now.ratio) == (False, 1.0)


@pytest.mark.holds(guarantee=7, source="mariadb", destination="pretended", fault="server crash")
def test_a_restarted_server_ends_the_stream_and_is_followed_again(start_server: Start) -> None:
    server = start_server(MariaDb())
    with world_at(server.url) as world:
        world.sql("CREATE TABLE t (id int PRIMARY KEY)")
        source = world.source()
        stream = source.get_changes(source.position(), selection=source._selection, idle=0.05)
        world.sql("INSERT INTO t VALUES (1)")
        first = next(b for b in stream if len(b))
        server.stop()
        with pytest.raises(SourceUnavailable):
            list(stream)
        began = time.monotonic()
        with pytest.raises(SourceUnavailable):
            world.source().position()
        assert time.monotonic() - began < 10
        server.start()
        world.root = world.another()
        world.sql("INSERT INTO t VALUES (2)")
        assert [r["id"] for _, _, r in follow(world.source(), first.end, 1)] == [2]


def test_rows_of_a_table_that_is_gone_by_now_still_come(world: World) -> None:
    told = run(
        world,
        "CREATE TABLE brief (id int PRIMARY KEY)",
        "INSERT INTO brief VALUES (1)",
        "DROP TABLE brief",
    )
    assert told.short == [("brief", "c", 1), ("brief", "t", ABSENT)]


def test_nothing_to_look_up_of_a_table_that_is_gone(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    source = world.source()
    [schema] = source.get_schema([world.table("t")]).values()
    asked = TableChanges(world.table("t"), bytearray(b"u"), [1], schema, [[1], [UNCHANGED]])
    assert len(source.look_up(asked)) == 0
    world.sql("DROP TABLE t")
    assert len(source.look_up(asked)) == 0


def test_a_table_that_is_polled_is_not_followed_and_needs_no_key(world: World) -> None:
    world.script("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    polled = Selection(world.database, frozenset({"t"}), {"capture": Capture.TIMESTAMP})
    source = world.source(polled)
    source.check()
    start = source.position()
    world.sql("INSERT INTO t VALUES (2)")
    goal = source.position()
    for batch in source.get_changes(start, selection=polled, idle=0.05):
        assert len(batch) == 0
        if source.reached(batch.end, goal):
            break
    assert sorted(row["a"] for row in read(source, world.table("t"))) == [1, 2]


def test_small_transactions_are_the_same_to_either_half(world: World) -> None:
    world.sql("CREATE TABLE t (id int PRIMARY KEY, v varchar(30), n decimal(9, 2))")
    world.sql("CREATE TABLE u (id int PRIMARY KEY)")
    source = world.source(Selection(world.database, settings={"write_batch_size": 40}))
    start = source.position()
    for n in range(60):
        world.sql("INSERT INTO t VALUES (%s, %s, %s)", [n, f"ü{n}", n / 7])
        world.sql("UPDATE t SET v = 'moved', n = NULL WHERE id = %s", [n // 2])
        if n % 9 == 0:
            world.sql("UPDATE t SET id = %s WHERE id = %s", [n + 1000, n])
            world.sql("DELETE FROM t WHERE id = %s", [n + 1000])
        if n == 30:
            world.sql("ALTER TABLE t ADD COLUMN more int")
            world.sql("ALTER TABLE t DROP COLUMN more")
        if n % 20 == 0:
            world.sql("INSERT INTO u VALUES (%s)", [n])
    end = source.position()
    found = []
    for compiled in (True, False):
        rows: list[Any] = []
        with native.switched(compiled):
            for batch in source.get_changes(start, selection=source._selection, idle=0.05):
                for part in batch.changes:
                    assert part.schema is not None
                    told = zip(part.operations, part.versions, part.rows(), strict=True)
                    rows += [(str(part.table), *each) for each in told]
                if source.reached(batch.end, end):
                    break
        found.append(sorted(rows, key=lambda row: row[2]))
    assert found[0] == found[1]
    assert len(found[0]) > 100
