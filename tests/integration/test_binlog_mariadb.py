"""The decoder on a real MariaDB: what comes out of the log is what SELECT says."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
from binlog_reader import events_from, log_ends_at, steps_from
from fix_servers import Server, mysql_client
from recorded_logs import Replica, differences
from shown import column_types, select_rows, selected_rows

from warp.errors import SourceRefused
from warp.model import UNCHANGED, Operation, TableId
from warp.sources.mysql.binlog import charsets
from warp.sources.mysql.binlog.gtid import MariaGtid, MariaPosition
from warp.sources.mysql.binlog.rows import Wanted
from warp.sources.mysql.binlog.transactions import (
    Began,
    Ended,
    Noted,
    Place,
    Rows,
    Step,
    Transactions,
)

Cursor = pymysql.cursors.Cursor


class Log:
    """What a database's log says from here on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = urlsplit(url).path.lstrip("/")
        with mysql_client(url) as connection:
            self.start = log_ends_at(connection)

    def steps(self, *, wanted: Callable[[TableId], Wanted | None] | None = None) -> list[Step]:
        with mysql_client(self.url) as connection:
            types = column_types(connection, self.database)
        ask = wanted or (lambda table: self._wanted(table, types))
        with mysql_client(self.url) as connection:
            return list(steps_from(connection, self.start, Transactions(ask, self.start)))

    def events(self) -> list[bytes]:
        with mysql_client(self.url) as connection:
            return list(events_from(connection, self.start))

    def _wanted(self, table: TableId, types: Mapping[str, Mapping[str, str]]) -> Wanted | None:
        if table.namespace != self.database:
            return None
        return Wanted(types=tuple(types.get(table.name, {}).items()))

    def differences(self) -> list[str]:
        replica = Replica()
        for step in self.steps():
            replica.apply(step)
        with mysql_client(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            return differences(replica, self.database, selected_rows(connection, self.database))


@contextmanager
def session(url: str, **variables: str) -> Iterator[Cursor]:
    with mysql_client(url) as connection, connection.cursor() as cursor:
        for name, value in variables.items():
            cursor.execute(f"SET SESSION {name} = %s", (value,))
        cursor.execute("SET time_zone = '+00:00'")
        yield cursor


def rows_of(steps: list[Step]) -> list[Rows]:
    return [step for step in steps if isinstance(step, Rows)]


# -- every type, at random

CHANCE = random.Random(20)


def text(limit: int, letters: str = string.printable + "äöüßéñ") -> str:
    return "".join(CHANCE.choice(letters) for _ in range(CHANCE.randint(0, limit)))


def whole(low: int, high: int) -> Callable[[], int]:
    return lambda: CHANCE.choice(
        [low, high, 0, CHANCE.randint(low, high), CHANCE.randint(-9, 9) % high]
    )


def moment(digits: int, first_year: int = 1000, last_year: int = 9999) -> Callable[[], str]:
    def make() -> str:
        if CHANCE.random() < 0.1:
            return "0000-00-00 00:00:00"
        year = CHANCE.randint(first_year, last_year)
        month, day = CHANCE.randint(1, 12), CHANCE.randint(1, 31)
        clock = f"{CHANCE.randint(0, 23)}:{CHANCE.randint(0, 59)}:{CHANCE.randint(0, 59)}"
        if first_year == 1971:  # a TIMESTAMP takes no day that does not exist
            day = min(day, 28)
        return f"{year}-{month}-{day} {clock}{fraction(digits)}"

    return make


def fraction(digits: int) -> str:
    return f".{CHANCE.randrange(10**digits):0{digits}}" if digits else ""


def span(digits: int) -> Callable[[], str]:
    return lambda: (
        f"{CHANCE.choice(['', '-'])}{CHANCE.choice([0, 1, CHANCE.randint(0, 837)])}:"
        f"{CHANCE.randint(0, 59)}:{CHANCE.randint(0, 59)}{fraction(digits)}"
    )


def decimal(digits: int, scale: int) -> Callable[[], str]:
    def make() -> str:
        figures = "".join(CHANCE.choice("0123456789") for _ in range(CHANCE.randint(1, digits)))
        figures = figures.rjust(scale + 1, "0")[-digits - 1 if scale == digits else -digits :]
        cut = len(figures) - scale
        return f"{CHANCE.choice(['', '-'])}{figures[:cut] or '0'}.{figures[cut:] or '0'}"

    return make


def raw(limit: int) -> Callable[[], bytes]:
    return lambda: CHANCE.randbytes(CHANCE.randint(0, limit)) + CHANCE.choice([b"", b"\0\0"])


def address(parts: int, form: str, between: str) -> Callable[[], str]:
    return lambda: between.join(
        format(CHANCE.choice([0, 0, 1, CHANCE.randrange(256 if form == "d" else 65536)]), form)
        for _ in range(parts)
    )


def uuid() -> str:
    """Of any version and variant: MariaDB keeps some of them in another order."""
    x = CHANCE.randbytes(16).hex()
    version, variant = CHANCE.choice("1467"), CHANCE.choice("8f0")
    return f"{x[:8]}-{x[8:12]}-{version}{x[13:16]}-{variant}{x[17:20]}-{x[20:]}"


def some(*values: str) -> Callable[[], str]:
    return lambda: ",".join(value for value in values if CHANCE.random() < 0.5)


TYPES: list[tuple[str, Callable[[], Any]]] = [
    # Before every number: it takes a place among those that are signed or not.
    ("YEAR", lambda: CHANCE.choice([0, 1901, 2155, CHANCE.randint(1901, 2155)])),
    ("TINYINT", whole(-128, 127)),
    ("TINYINT UNSIGNED", whole(0, 255)),
    ("SMALLINT", whole(-32768, 32767)),
    ("MEDIUMINT", whole(-(1 << 23), (1 << 23) - 1)),
    ("MEDIUMINT UNSIGNED", whole(0, (1 << 24) - 1)),
    ("INT", whole(-(1 << 31), (1 << 31) - 1)),
    ("INT UNSIGNED", whole(0, (1 << 32) - 1)),
    ("BIGINT", whole(-(1 << 63), (1 << 63) - 1)),
    ("BIGINT UNSIGNED", whole(0, (1 << 64) - 1)),
    ("FLOAT", lambda: CHANCE.uniform(-1, 1) * 10.0 ** CHANCE.randint(-30, 30)),
    ("DOUBLE", lambda: CHANCE.uniform(-1, 1) * 10.0 ** CHANCE.randint(-300, 300)),
    ("DECIMAL(5,0)", decimal(5, 0)),
    ("DECIMAL(9,4)", decimal(9, 4)),
    ("DECIMAL(10,10)", decimal(10, 10)),
    ("DECIMAL(38,19)", decimal(38, 19)),
    ("DECIMAL(65,30)", decimal(65, 30)),
    ("BIT(1)", whole(0, 1)),
    ("BIT(13)", whole(0, (1 << 13) - 1)),
    ("BIT(64)", whole(0, (1 << 64) - 1)),
    ("DATE", lambda: moment(0)().split()[0]),
    *[(f"DATETIME({digits})", moment(digits)) for digits in range(7)],
    *[(f"TIMESTAMP({digits}) NULL", moment(digits, 1971, 2037)) for digits in range(7)],
    *[(f"TIME({digits})", span(digits)) for digits in range(7)],
    ("CHAR(7)", lambda: text(7)),
    ("CHAR(255)", lambda: text(255)),
    ("VARCHAR(20) CHARACTER SET latin1", lambda: text(20)),
    ("VARCHAR(300)", lambda: text(300, "ab😀中é")),
    ("VARCHAR(20) CHARACTER SET utf16", lambda: text(20, "ab😀中é")),
    ("TINYTEXT CHARACTER SET ucs2", lambda: text(20, "ab中é")),
    ("TEXT", lambda: text(100)),
    ("LONGTEXT CHARACTER SET utf32", lambda: text(20, "ab😀中é")),
    ("VARCHAR(100) COMPRESSED", lambda: text(4) * 25),
    ("LONGTEXT COMPRESSED CHARACTER SET cp1251", lambda: text(30, "Привет ") * 20),
    ("BLOB COMPRESSED", lambda: raw(3)() * 50),
    ("BINARY(9)", lambda: raw(7)()),
    ("VARBINARY(300)", lambda: raw(290)()),
    ("BLOB", lambda: raw(30)()),
    ("ENUM('a','b,c','it''s','ü')", lambda: CHANCE.choice(["a", "b,c", "it's", "ü"])),
    ("SET('a','b','c''d','ü')", some("a", "b", "c'd", "ü")),
    ("JSON", lambda: CHANCE.choice(['{"a": [1, 2.50, null]}', '"ü"', "null", "[]"])),
    ("UUID", uuid),
    ("INET4", address(4, "d", ".")),
    ("INET6", address(8, "x", ":")),
]


def test_random_rows_of_every_type_come_as_select_shows_them(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(TYPES))
    marks = ", ".join(["%s"] * (len(TYPES) + 1))
    with session(mariadb_database, sql_mode="ALLOW_INVALID_DATES") as cursor:
        cursor.execute(
            f"CREATE TABLE every (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4 "
            "ROW_FORMAT=DYNAMIC"
        )
        for number in range(60):
            share = CHANCE.choice([0, 0, 0.2, 1])
            cells = [None if CHANCE.random() < share else make() for _, make in TYPES]
            cursor.execute(f"INSERT INTO every VALUES ({marks})", [number, *cells])
        cursor.execute("UPDATE every SET c0 = 1 WHERE id % 3 = 0")
        cursor.execute("UPDATE every SET id = id + 1000 WHERE id % 4 = 0")
        cursor.execute("DELETE FROM every WHERE id % 7 = 0")
    assert log.differences() == []


def test_text_of_every_character_set_is_read_as_the_server_reads_it(mariadb: Server) -> None:
    """Every character of one byte, and a part of those of two."""
    with session(mariadb.url) as cursor:
        cursor.execute(
            "SELECT character_set_name, maxlen FROM information_schema.character_sets "
            "WHERE character_set_name <> 'binary' AND maxlen < 4"
        )
        sets = [(str(name), int(size)) for name, size in cursor.fetchall()]
        assert len(sets) > 30
        for name, size in sets:
            raws = [bytes((code,)) for code in range(256 if size == 1 else 128)]
            if size > 1:
                pairs = range(0x8140, 0xFEFF, 47)
                raws += [pair.to_bytes(2, "big") for pair in pairs if pair & 0xFF > 0x40]
            if name == "ucs2":
                raws = [raw for raw in raws if len(raw) == 2 and not 0xD8 <= raw[0] <= 0xDF]
            cells = ", ".join(
                f"HEX(CONVERT(CONVERT(X'{raw.hex()}' USING {name}) USING utf32))" for raw in raws
            )
            cursor.execute(f"SELECT {cells}")
            decode = charsets.decoder(name)
            assert decode is not None, name
            for raw, shown_as in zip(raws, cursor.fetchone() or (), strict=True):
                if shown_as is None:  # no character of this set
                    continue
                expected = bytes.fromhex(shown_as).decode("utf-32-be")
                if size == 1 or not set(expected) & {"?", "\ufffd"}:
                    assert decode(raw) == expected, (name, raw)


# -- what only MariaDB writes


@pytest.fixture
def compressing(mariadb: Server) -> Iterator[None]:
    with session(mariadb.url) as cursor:
        cursor.execute("SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10")
        yield
        cursor.execute("SET GLOBAL log_bin_compress = OFF")


def test_a_compressed_log_is_read_as_any_other(mariadb_database: str, compressing: None) -> None:
    log = Log(mariadb_database)
    with session(log.url) as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT) /* " + "x" * 500 + " */")
        cursor.execute("INSERT INTO t VALUES (1, REPEAT('a', 1000)), (2, REPEAT('b', 1000))")
        cursor.execute("UPDATE t SET v = REPEAT('c', 2000) WHERE id = 2")
        cursor.execute("DELETE FROM t WHERE id = 1")
    assert {event[4] for event in log.events()} >= {165, 166, 167, 168}
    steps = log.steps()
    assert [step.operation for step in rows_of(steps)] == [
        *(Operation.CREATE, Operation.UPDATE, Operation.DELETE),
    ]
    assert any(isinstance(step, Noted) for step in steps)
    assert log.differences() == []


def test_every_transaction_begins_and_ends_and_its_place_is_one_to_resume_from(
    mariadb_database: str,
) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        cursor.execute("CREATE TABLE old (id INT PRIMARY KEY) ENGINE=MyISAM")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (1, 1)")
        cursor.execute("SAVEPOINT s")
        cursor.execute("INSERT INTO t VALUES (2, 2)")
        cursor.execute("ROLLBACK TO s")
        cursor.execute("INSERT INTO t VALUES (3, 3)")
        cursor.execute("COMMIT")
        cursor.execute("INSERT INTO old VALUES (7)")
        cursor.execute("CREATE TABLE made AS SELECT * FROM t")
        cursor.execute("SET STATEMENT lock_wait_timeout = 9 FOR TRUNCATE TABLE t")
    steps = log.steps()
    ended = [step for step in steps if isinstance(step, Ended)]
    assert len(ended) == len([step for step in steps if isinstance(step, Began)]) == 6
    assert [step.statement.sort for step in steps if isinstance(step, Noted)][-1] == "truncate"
    assert not any(step.doubtful for step in ended)
    position = MariaPosition()
    for end in ended:
        assert isinstance(end.gtid, MariaGtid)
        assert end.gtid not in position
        position = position.add(end.gtid)
    with session(mariadb_database) as cursor:
        cursor.execute("SELECT @@gtid_binlog_pos")
        assert (str(position),) == cursor.fetchone()
    # From an end the rest is the same again.
    for end in ended[1:4]:
        rest = steps[steps.index(end) + 1 :]
        log.start = end.place
        again = [step for step in log.steps() if isinstance(step, Began | Ended)]
        assert again == [step for step in rest if isinstance(step, Began | Ended)]


def test_rows_that_survive_a_rollback_make_their_tables_doubtful(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
        cursor.execute("CREATE TABLE old (id INT PRIMARY KEY) ENGINE=MyISAM")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (1)")
        cursor.execute("INSERT INTO old SELECT id + 98 FROM t")
        cursor.execute("ROLLBACK")
        cursor.execute("SELECT (SELECT COUNT(*) FROM t), (SELECT COUNT(*) FROM old)")
        assert cursor.fetchone() == (0, 1)
    steps = log.steps()
    replica = Replica()
    for step in steps:
        replica.apply(step)
    doubtful = {table.name for step in steps if isinstance(step, Ended) for table in step.doubtful}
    kept = {name for name in ("t", "old") if replica.rows_of(TableId(log.database, name))}
    # Either the server left the undone rows out, or the tables are named.
    assert kept == {"old"} or doubtful == kept


def test_xa_rows_wait_for_their_commit(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE x (id INT PRIMARY KEY)")
        for number, decision in enumerate(("COMMIT", "ROLLBACK")):
            cursor.execute(f"XA START 'it''s{number}','b',3")
            cursor.execute(f"INSERT INTO x VALUES ({number})")
            cursor.execute(f"XA END 'it''s{number}','b',3")
            cursor.execute(f"XA PREPARE 'it''s{number}','b',3")
            with session(mariadb_database) as other:
                other.execute(f"INSERT INTO x VALUES ({number + 10})")
            cursor.execute(f"XA {decision} 'it''s{number}','b',3")
        cursor.execute("XA START 'one'")
        cursor.execute("INSERT INTO x VALUES (5)")
        cursor.execute("XA END 'one'")
        cursor.execute("XA COMMIT 'one' ONE PHASE")
    steps = log.steps()
    assert [row[0] for step in rows_of(steps) for row in step.rows] == [10, 0, 11, 5]
    held = [step.held for step in steps if isinstance(step, Ended)]
    assert held == [False, True, True, False, True, True, False, False]
    assert log.differences() == []


def test_partial_images_leave_cells_unchanged(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database, binlog_row_image="MINIMAL") as cursor:
        cursor.execute("CREATE TABLE m (id INT PRIMARY KEY, a INT DEFAULT 5, b TEXT)")
        cursor.execute("INSERT INTO m (id) VALUES (1)")
        cursor.execute("UPDATE m SET b = 'x' WHERE id = 1")
        cursor.execute("DELETE FROM m")
    created, updated, deleted = rows_of(log.steps())
    assert created.rows == [(1, UNCHANGED, UNCHANGED)]  # their defaults are not in the log
    assert updated.rows == [(1, UNCHANGED, "x")]
    assert deleted.rows[0][0] == 1


def test_changes_logged_as_statements_stop_with_what_to_do(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database, binlog_format="STATEMENT") as cursor:
        cursor.execute("CREATE TABLE s (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO s VALUES (1)")
    with pytest.raises(SourceRefused, match="binlog_format"):
        log.steps()


def test_a_log_without_names_stops_with_what_to_do(mariadb_database: str, mariadb: Server) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE n (id INT PRIMARY KEY)")
        cursor.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
        try:
            cursor.execute("INSERT INTO n VALUES (1)")
        finally:
            cursor.execute("SET GLOBAL binlog_row_metadata = FULL")
    with pytest.raises(SourceRefused, match="SET GLOBAL binlog_row_metadata = FULL"):
        log.steps()
    assert not rows_of(log.steps(wanted=lambda table: None))


@pytest.fixture
def old_times(mariadb: Server) -> Iterator[None]:
    with session(mariadb.url) as cursor:
        cursor.execute("SET GLOBAL mysql56_temporal_format = OFF")
        yield
        cursor.execute("SET GLOBAL mysql56_temporal_format = ON")


def test_times_of_the_old_form_stop_with_what_to_do(mariadb_database: str, old_times: None) -> None:
    """Their fraction is not in the log: a DATETIME(6) had come as another moment."""
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE o (id INT PRIMARY KEY, d DATETIME(6))")
        cursor.execute("INSERT INTO o VALUES (1, '2024-01-01 10:11:12.5')")
    with pytest.raises(SourceRefused, match="mysql56_temporal_format"):
        log.steps()


def test_versioned_tables_show_the_columns_by_which_history_is_told(mariadb_database: str) -> None:
    """A row of history is one whose end is not the last moment there is: docs of the decoder."""
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE v (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING")
        cursor.execute("INSERT INTO v VALUES (1, 1)")
        cursor.execute("UPDATE v SET a = 2")
        cursor.execute("DELETE FROM v")
    steps = rows_of(log.steps())
    names = steps[0].table.schema.names()
    assert names == ("id", "a", "row_start", "row_end")
    assert steps[0].table.schema.key == ("id", "row_end")
    ends = [row[3] for step in steps for row in step.rows]
    last = max(ends)
    assert [(step.operation.name, step.rows[0][3] == last) for step in steps] == [
        ("CREATE", True),
        ("UPDATE", True),
        ("CREATE", False),  # the row as it was
        ("UPDATE", False),  # a DELETE
    ]


def test_the_decoder_agrees_with_select_after_columns_came_and_went(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE a (id INT PRIMARY KEY, `we``ird %s` VARCHAR(10))")
        cursor.execute("INSERT INTO a VALUES (1, 'one')")
        cursor.execute("ALTER TABLE a ADD COLUMN first_one INT FIRST")
        cursor.execute("INSERT INTO a VALUES (5, 2, 'two')")
        cursor.execute("ALTER TABLE a RENAME COLUMN first_one TO last_one, MODIFY id BIGINT")
        cursor.execute("UPDATE a SET last_one = id + 7")
    assert log.differences() == []
    with mysql_client(mariadb_database) as connection:
        types = column_types(connection, log.database)["a"]
        assert [row["we`ird %s"] for row in select_rows(connection, log.database, "a", types)]


def test_the_place_of_a_reader_is_the_servers(mariadb_database: str) -> None:
    log = Log(mariadb_database)
    machine = Transactions(lambda table: None, log.start)
    with session(mariadb_database) as cursor:
        cursor.execute("CREATE TABLE t (id INT)")
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("DROP TABLE t")
    with mysql_client(mariadb_database) as connection:
        ends_at: Place = log_ends_at(connection)
        assert list(steps_from(connection, log.start, machine))
    assert machine.place == ends_at
