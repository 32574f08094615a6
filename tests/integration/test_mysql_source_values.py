"""What a snapshot reads of a row equals what the log says of it, whatever its columns are."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mysql_world import World, follow, read, world_at

from warp import native
from warp.model import Invalid

ROWS = 40  # of random values; each column also has its own extremes

Draw = Callable[[random.Random], Any]


def _text(alphabet: str, longest: int) -> Draw:
    return lambda luck: "".join(luck.choices(alphabet, k=luck.randint(0, longest)))


def _bytes(longest: int) -> Draw:
    return lambda luck: luck.randbytes(luck.randint(0, longest))


def _int(low: int, high: int) -> Draw:
    return lambda luck: luck.choice([low, high, 0, luck.randint(low, high)])


def _date(luck: random.Random) -> str:
    year, month, day = luck.randint(0, 9999), luck.randint(0, 12), luck.randint(0, 31)
    return luck.choice(["0000-00-00", "9999-12-31", f"{year:04}-{month:02}-{day:02}"])


def _clock(luck: random.Random) -> str:
    return (
        f"{luck.randint(0, 23):02}:{luck.randint(0, 59):02}:{luck.randint(0, 59):02}"
        f".{luck.randint(0, 999_999):06}"
    )


def _datetime(luck: random.Random) -> str:
    return f"{_date(luck)} {_clock(luck)}"


def _timestamp(luck: random.Random) -> str:
    day = f"{luck.randint(1971, 2037)}-{luck.randint(1, 12):02}-{luck.randint(1, 28):02}"
    return luck.choice(["0000-00-00 00:00:00", f"{day} {_clock(luck)}"])


def _time(luck: random.Random) -> str:
    return (
        f"{luck.choice(['', '-'])}{luck.randint(0, 838)}:{luck.randint(0, 59)}:"
        f"{luck.randint(0, 58)}.{luck.randint(0, 999_999):06}"
    )


def _single(luck: random.Random) -> float:
    [value] = struct.unpack("<f", luck.randbytes(4))
    return value if -3e38 < value < 3e38 else luck.choice([1.1, 0.1, -0.0, 1e-45, 16_777_217.0])


def _double(luck: random.Random) -> float:
    [value] = struct.unpack("<d", luck.randbytes(8))
    return value if -1e300 < value < 1e300 else luck.choice([0.1, 1 / 3, 5e-324, -0.0, 2.0**53])


LATIN = "abcXYZ 019_%'\"\\`;ÄÖüßé€\t\n"
WORLD = LATIN + "中文日本語ЖЯαω😀\x01"

COLUMNS: dict[str, Draw] = {
    "tinyint": _int(-128, 127),
    "tinyint(1)": _int(0, 1),
    "tinyint unsigned": _int(0, 255),
    "smallint": _int(-(2**15), 2**15 - 1),
    "mediumint": _int(-(2**23), 2**23 - 1),
    "mediumint unsigned zerofill": _int(0, 2**24 - 1),
    "int": _int(-(2**31), 2**31 - 1),
    "int unsigned": _int(0, 2**32 - 1),
    "bigint": _int(-(2**63), 2**63 - 1),
    "bigint unsigned": _int(0, 2**64 - 1),
    "float": _single,
    "double": _double,
    "decimal(65,30)": lambda luck: (
        f"{luck.choice('+-')}{luck.getrandbits(110)}.{luck.getrandbits(90)}"
    ),
    "decimal(5,0)": _int(-99_999, 99_999),
    "decimal(9,9)": lambda luck: f"0.{luck.getrandbits(28):09}",
    "bit(1)": _int(0, 1),
    "bit(12)": _int(0, 4095),
    "bit(64)": _int(0, 2**64 - 1),
    "year": lambda luck: luck.choice([0, 1901, 2155, luck.randint(1901, 2155)]),
    "date": _date,
    "time": _time,
    "time(3)": _time,
    "time(6)": _time,
    "datetime": _datetime,
    "datetime(6)": _datetime,
    "datetime(1)": _datetime,
    "timestamp NULL": _timestamp,
    "timestamp(6) NULL": _timestamp,
    "char(20)": _text(WORLD, 20),
    "char(200)": _text(WORLD, 200),
    "varchar(300)": _text(WORLD, 300),
    "text": _text(WORLD, 500),
    "longtext": _text(WORLD, 50),
    "varchar(40) CHARACTER SET latin1": _text(LATIN, 40),
    "varchar(40) CHARACTER SET utf16": _text(WORLD, 40),
    "varchar(40) CHARACTER SET utf32": _text(WORLD, 40),
    "varchar(40) CHARACTER SET ucs2": _text(LATIN + "中Ж", 40),
    "varchar(40) CHARACTER SET utf16le": _text(WORLD, 40),
    "varchar(40) CHARACTER SET cp1251": _text("abc ЖЯё€№", 40),
    "varchar(40) CHARACTER SET gbk": _text("abc 中文", 40),
    "varchar(40) CHARACTER SET sjis": _text("abc 日本語ｱ", 40),
    "varchar(40) CHARACTER SET utf8mb3": _text(LATIN + "中Ж", 40),
    "text CHARACTER SET latin1": _text(LATIN, 40),
    "enum('a','b,c','d''e','ü')": lambda luck: luck.choice(["a", "b,c", "d'e", "ü", ""]),
    "set('x','y','z ü')": lambda luck: luck.choice(["", "x", "x,y", "y,z ü", "x,y,z ü"]),
    "binary(8)": _bytes(8),
    "varbinary(300)": _bytes(300),
    "blob": _bytes(500),
    "json": lambda luck: luck.choice(
        ['{"b": [1, 2.5, null, "ü😀"], "a": {}}', "[]", "null", '"x"', "-17", '{"d": 1e300}', "0.1"]
    ),
    "int GENERATED ALWAYS AS (id * 2) VIRTUAL": lambda luck: None,
    "int GENERATED ALWAYS AS (id * 3) STORED": lambda luck: None,
}
OF_MARIADB: dict[str, Draw] = {
    "uuid": lambda luck: luck.choice(
        ["00000000-0000-0000-0000-000000000000", "12345678-1234-1234-1234-123456780000"]
    ),
    "inet6": lambda luck: luck.choice(["::", "::1", "fe80::", "2001:db8::1", "::ffff:1.2.3.4"]),
    "inet4": lambda luck: luck.choice(["0.0.0.0", "1.2.3.0", "255.255.255.255"]),
    "varchar(300) COMPRESSED": _text(WORLD, 300),
    "blob COMPRESSED": _bytes(500),
    "int INVISIBLE": _int(-5, 5),
}


@pytest.fixture
def world(mariadb: Any) -> Iterator[World]:
    with world_at(mariadb.url) as made:
        yield made


@pytest.mark.holds(guarantee=4, source="mariadb", destination="pretended", fault="no fault")
def test_a_snapshot_reads_what_the_log_says_by_either_half(world: World) -> None:
    luck = random.Random(seed := random.randrange(1 << 32))
    columns = COLUMNS | (OF_MARIADB if world.is_mariadb else {})
    names = [f"c{n} {kind.partition(' ')[0]}" for n, kind in enumerate(columns)]
    listed = ", ".join(f"`{n}` {kind}" for n, kind in zip(names, columns, strict=True))
    world.sql(f"CREATE TABLE t (id int PRIMARY KEY, {listed})")
    world.sql("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
    world.sql("SET SESSION time_zone = '+05:30'")  # of the application; ours is UTC
    source = world.source()
    start = source.position()
    drawn = [
        (name, draw)
        for name, (kind, draw) in zip(names, columns.items(), strict=True)
        if "GENERATED" not in kind
    ]
    into = ", ".join(f"`{name}`" for name, _ in drawn).replace("%", "%%")
    marks = ", ".join(["%s"] * len(drawn))
    for id in range(ROWS):
        cells = [None if luck.random() < 0.1 else draw(luck) for _, draw in drawn]
        world.sql(f"INSERT IGNORE INTO t (id, {into}) VALUES ({id}, {marks})", cells)
    said = {row["id"]: row for _, _, row in follow(source, start, ROWS)}
    kinds = dict(zip(names, columns, strict=True))
    for compiled in (True, False):
        with native.switched(compiled):
            shown = {row["id"]: row for row in read(world.source(), world.table("t"))}
        assert said.keys() == shown.keys() == set(range(ROWS))
        for id, row in shown.items():
            for name, cell in row.items():
                told = said[id][name]
                where = f"seed {seed}, row {id}, {kinds.get(name)}, compiled: {compiled}"
                assert type(cell) is type(told), where
                assert repr(cell) == repr(told), where
    [schema] = source.get_schema([world.table("t")]).values()
    batches = source.get_changes(start, selection=source._selection, idle=9)
    batch = next(b for b in batches if len(b))
    logged = batch.changes[0].schema
    assert logged is not None
    assert logged.key == schema.key
    for here, there in zip(logged.columns, schema.columns, strict=True):
        assert here == there, kinds.get(here.name)
    assert any(isinstance(cell, Invalid) for row in shown.values() for cell in row.values())
