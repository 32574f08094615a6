"""The compiled reader of PostgreSQL's texts gives exactly what its twin in Python gives."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warp import native
from warp.errors import WarpError
from warp.model import UNCHANGED, Kind, TableChanges, TableId
from warp.native import Packed
from warp.sources.postgresql.pgoutput import (
    DELETE,
    INSERT,
    PADDING,
    TRUNCATE,
    UPDATE,
    Decoder,
    Reading,
    RelationMessage,
)
from warp.sources.postgresql.rows import carriers
from warp.sources.postgresql.values import Codec, Types, column, settled

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="asked to test the plain Python half"
)

MONTHS = r"(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
DAY = rf"([0-2]\d{{3}}|9999)-{MONTHS}"
CLOCK = r"([01]\d|2[0-4]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
HEX = "[0-9a-f]"

# What output functions write, and beside it what they might.
PATTERNS: dict[str, tuple[int, str]] = {
    "bool": (16, "[tf]"),
    "int4": (23, r"-?\d{1,10}"),
    "int8": (20, r"-?\d{1,20}"),
    "float4": (700, r"-?\d{1,9}(\.\d{1,9})?(e[+-]\d\d)?|NaN|-?Infinity"),
    "float8": (701, r"-?\d{1,20}(\.\d{1,20})?(e[+-]\d{1,3})?|NaN|-?Infinity"),
    "numeric": (1700, r"-?\d{1,30}(\.\d{1,30})?|NaN|-?Infinity"),
    "text": (25, r"([a-z\\\t\n\r\x08\x0b\x0c]|\xc3\xa4|\xe2\x82\xac|\xf0\x9d\x84\x9e){0,12}"),
    "bytea": (17, rf"\\x({HEX}{HEX}){{0,9}}"),
    "uuid": (2950, rf"{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"),
    "date": (1082, rf"{DAY}( BC)?|-?infinity|\d{{5}}-{MONTHS}"),
    "time": (1083, CLOCK),
    "timestamp": (1114, rf"{DAY} {CLOCK}( BC)?|-?infinity|\d{{5}}-{MONTHS} {CLOCK}"),
    "timestamptz": (1184, rf"{DAY} {CLOCK}\+00( BC)?|-?infinity"),
    "json": (114, r'\{"a": \d\}|null'),
    "jsonb": (3802, r'\{"a": "\\\\u0000"\}|null'),
    "int4[]": (1007, r"\{(\d,)?(NULL|\d)\}|\{\}"),
}
NAMES = sorted(PATTERNS)


@st.composite
def texts(draw: st.DrawFn, name: str) -> bytes:
    """A text of the type; now and then with a byte changed, put in or left out."""
    text = draw(st.from_regex(PATTERNS[name][1].encode("ascii"), fullmatch=True))
    if text and draw(st.integers(0, 7)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        byte = draw(st.sampled_from([b"", b"0", b"-", b".", b" ", b"_", b"\xff", b"9", b"\xc3"]))
        text = text[:at] + byte + text[at + draw(st.integers(0, 1)) :]
    return text


@st.composite
def columns_of_text(draw: st.DrawFn) -> tuple[list[str], list[list[bytes | None]]]:
    """(names of types, rows) of texts."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    row = st.tuples(*(st.none() | texts(name) for name in names)).map(list)
    return names, draw(st.lists(row, min_size=1, max_size=6))


def codecs_of(names: Sequence[str]) -> list[Codec]:
    types = Types()
    return [types.codec(PATTERNS[name][0]) for name in names]


def copied(cell: bytes | None) -> bytes:
    """As COPY writes it."""
    if cell is None:
        return rb"\N"
    for plain, escaped in (b"\\\\", b"\bb", b"\ff", b"\nn", b"\rr", b"\tt", b"\vv"):
        cell = cell.replace(bytes((plain,)), b"\\" + bytes((escaped,)))
    return cell


def by_both(lines: list[bytes], codecs: list[Codec]) -> tuple[list[list[Any]], list[list[Any]]]:
    frames = native.postgresql.Frames.of(lines)
    taken = native.postgresql.columns_of(frames, [codec.compiled for codec in codecs])
    ours = [list(settled(codec, one)) for codec, one in zip(codecs, taken, strict=True)]
    return ours, [list(column) for column in carriers(lines, codecs)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(columns_of_text())
def test_lines_of_copy_are_read_as_in_python(
    case: tuple[list[str], list[list[bytes | None]]],
) -> None:
    names, rows = case
    lines = [b"\t".join(map(copied, row)) + b"\n" for row in rows]
    ours, reference = by_both(lines, codecs_of(names))
    assert repr(ours) == repr(reference)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("int4", [b"2147483647", b"2147483648", b"-2147483648", b"-0", b"+1", b"1_0", b" 1"]),
        ("int8", [b"9223372036854775807", b"-9223372036854775808", b"9" * 18, b"1" * 30]),
        ("float8", [b"1.7976931348623157e+308", b"1e400", b"5e-324", b"-0", b"1e23", b"0.1"]),
        ("float8", [b"9007199254740993", b"123456789012345678", b"0." + b"0" * 40 + b"1", b"inf"]),
        ("float4", [b"3.4028235e+38", b"1e39", b"1e-45", b"0.1", b"16777217", b"nan"]),
        ("date", [b"0001-01-01", b"9999-12-31", b"1900-02-29", b"2000-02-29", b"2024-W01-1"]),
        ("date", [b"0000-01-01", b"20240101", b"2024-13-01", b"2024-04-31", b"2024-00-01"]),
        ("timestamp", [b"0001-01-01 00:00:00", b"1969-12-31 23:59:59.999999"]),
        ("timestamp", [b"2024-01-01 00:00:00.5", b"10000-01-01 00:00:00", b"2024-01-01 24:00:00"]),
        ("timestamptz", [b"2024-01-01 00:00:00+02", b"2024-01-01 00:00:00.123456+00"]),
        ("time", [b"24:00:00", b"23:59:59.999999", b"00:00:00.1", b"12:00"]),
        ("bytea", [b"\\x", b"\\x0", b"\\xgg", b"xx00", b"\\xABcd"]),
        ("uuid", [b"0" * 32, b"0" * 8 + b"-0000-0000-0000-" + b"0" * 12, b"-" * 36]),
        (
            "text",
            [b"\xed\xa0\x80", b"\xc0\x80", b"a\x00b", b"\xf4\x90\x80\x80", "\u00fcn".encode()],
        ),
        ("numeric", [b"1e5", b".5", b"5.", b"-", b"-NaN", b"0.00", b"-Infinity", b"1.2.3"]),
    ],
)
def test_texts_at_the_edge_are_read_as_in_python(name: str, cells: list[bytes]) -> None:
    for some in (cells, *([cell] for cell in cells)):
        lines = [copied(cell) + b"\n" for cell in some]
        ours, reference = by_both(lines, codecs_of([name]))
        assert repr(ours) == repr(reference)


def test_what_can_be_read_is_packed_and_what_cannot_is_spliced_in() -> None:
    lines = [b"1\t2024-01-01\n", b"2\t2024-01-02\n"]
    frames = native.postgresql.Frames.of(lines)
    codecs = codecs_of(["int8", "date"])
    taken = native.postgresql.columns_of(frames, [codec.compiled for codec in codecs])
    assert all(isinstance(cells, Packed) and not odd for cells, odd in taken)
    taken = native.postgresql.columns_of(
        native.postgresql.Frames.of([lines[0], b"x\tinfinity\n"]), [c.compiled for c in codecs]
    )
    assert [odd for _, odd in taken] == [{1: b"x"}, {1: b"infinity"}]


@pytest.mark.parametrize("line", [b"1", b"", b"1\n", b"1\t2\t3\n"])
def test_a_line_of_another_form_is_an_error(line: bytes) -> None:
    with pytest.raises(WarpError, match="a line"):
        native.postgresql.columns_of(native.postgresql.Frames.of([line]), [None, None])


# -- binary COPY

MICROSECONDS = st.integers(-210_866_803_200_000_000, 9_000_000_000_000_000_000)
BINARY: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float4": st.floats(width=32),
    "float8": st.floats(),
    "numeric": st.from_regex(
        rb"-?[1-9][0-9]{0,12}(\.[0-9]{1,12})?|-?0\.0{0,9}[1-9]|0(\.0{1,5})?|NaN",
        fullmatch=True,
    ).map(lambda text: Decimal(text.decode())),
    "text": st.text("a\x7f\u00fc\u20ac\U0001d11e", max_size=9),
    "bytea": st.binary(max_size=9),
    "uuid": st.binary(min_size=16, max_size=16),
    "date": st.dates(),
    "time": st.integers(0, 86_400_000_000 - 1),
    "timestamp": MICROSECONDS,
    "timestamptz": MICROSECONDS,
    "json": st.sampled_from([b"null", b'{"a": 1}']),
    "jsonb": st.sampled_from([b"null", b'{"a": 1}']),
}


def in_binary(kinds: Sequence[Kind], rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """As the server writes them, by what writes them to it."""
    columns = [Packed.of(kind, [row[i] for row in rows]) for i, kind in enumerate(kinds)]
    packed = [column for column in columns if column is not None]
    assert len(packed) == len(kinds)
    lines = [native.packed.copy_rows(packed, i, i + 1) for i in range(len(rows))]
    lines[0] = native.packed.COPY_HEAD + lines[0]
    return [*lines, native.packed.COPY_END]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_rows_of_binary_copy_are_read_as_they_were_written(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(BINARY)), min_size=1, max_size=4))
    row = st.tuples(*(st.none() | BINARY[name] for name in names))
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    codecs = codecs_of(names)
    assert all(codec.binary for codec in codecs)
    kinds = [codec.kind for codec in codecs]
    frames = native.postgresql.Frames.of(in_binary(kinds, rows))
    taken = native.postgresql.binary_columns_of(frames, kinds)
    found = [list(settled(codec, one)) for codec, one in zip(codecs, taken, strict=True)]
    assert repr(list(zip(*found, strict=True))) == repr(rows)


def bare(*cells: bytes) -> bytes:
    return struct.pack(">H", len(cells)) + b"".join(struct.pack(">I", len(c)) + c for c in cells)


@pytest.mark.parametrize(
    ("name", "cell", "text"),
    [
        ("date", struct.pack(">i", 2**31 - 1), b"infinity"),
        ("date", struct.pack(">i", -(2**31)), b"-infinity"),
        ("date", struct.pack(">i", -746_390), b"0045-06-15 BC"),
        ("date", struct.pack(">i", -730_120), b"0001-12-31 BC"),
        ("date", struct.pack(">i", -730_119), b"0001-01-01"),
        ("date", struct.pack(">i", 2_921_939), b"9999-12-31"),
        ("date", struct.pack(">i", 2_921_940), b"10000-01-01"),
        ("time", struct.pack(">q", 86_400_000_000), b"24:00:00"),
        ("timestamp", struct.pack(">q", 2**63 - 1), b"infinity"),
        ("timestamptz", struct.pack(">q", -(2**63)), b"-infinity"),
        ("timestamptz", struct.pack(">q", 0), b"2000-01-01 00:00:00+00"),
        ("numeric", struct.pack(">HhHH2H", 2, 5, 0x4000, 2, 1, 20), b"-10020" + b"0" * 16 + b".00"),
        ("numeric", struct.pack(">HhHHH", 1, -3, 0, 12, 1), b"0.000000000001"),
        ("numeric", struct.pack(">HhHH", 0, 0, 0xD000, 0), b"Infinity"),
        ("numeric", struct.pack(">HhHH", 0, 0, 0xF000, 32), b"-Infinity"),
        ("int4", struct.pack(">h", -2), b"-2"),
        ("int8", struct.pack(">I", 4_000_000_000), b"4000000000"),
        ("text", b"\xff", b"\xff"),
    ],
)
def test_a_binary_value_is_what_its_text_is(name: str, cell: bytes, text: bytes) -> None:
    [codec] = codecs_of([name])
    frames = native.postgresql.Frames.of([bare(cell)])
    [taken] = native.postgresql.binary_columns_of(frames, [codec.kind])
    assert repr(list(settled(codec, taken))) == repr(column(codec, [text]))


@pytest.mark.parametrize("name", sorted(set(BINARY) - {"text", "bytea", "json"}))
def test_a_binary_value_of_another_length_is_an_error(name: str) -> None:
    [codec] = codecs_of([name])
    for wrong in (bare(b""), bare(b"12345678901234567"), bare(b"\0" * 8)[:-1], b"\0", b""):
        with pytest.raises(WarpError, match="expected"):
            native.postgresql.binary_columns_of(native.postgresql.Frames.of([wrong]), [codec.kind])


# -- the log

TABLE = TableId("shop", "orders")


def tuple_of(cells: Sequence[Any]) -> bytes:
    parts = [struct.pack(">H", len(cells))]
    for cell in cells:
        if cell is None or cell is UNCHANGED:
            parts.append(b"n" if cell is None else b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(cell)) + cell)
    return b"".join(parts)


def change(kind: int, oid: int, *tuples: tuple[bytes, Sequence[Any]]) -> bytes:
    return bytes((kind,)) + struct.pack(">I", oid) + b"".join(t + tuple_of(c) for t, c in tuples)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    """(types of the columns, messages) of a few transactions on one relation."""
    names = ["int4", *draw(st.lists(st.sampled_from(NAMES), max_size=3))]
    cells = [texts(name) | st.none() | st.just(UNCHANGED) for name in names]
    row = st.tuples(st.sampled_from([b"1", b"2", UNCHANGED]), *cells[1:])
    messages: list[bytes] = []
    for number in range(draw(st.integers(1, 3))):
        messages.append(b"B" + struct.pack(">QqI", 100 + number, 5, 7))
        for _ in range(draw(st.integers(0, 4))):
            sort = draw(st.sampled_from(["insert", "update", "key", "full", "delete", "truncate"]))
            new, old = (b"N", draw(row)), draw(row)
            if sort == "truncate":
                messages.append(b"T" + struct.pack(">IBI", 1, 0, 7))
            elif sort == "delete":
                messages.append(change(DELETE, 7, (draw(st.sampled_from([b"K", b"O"])), old)))
            else:
                before = {"key": [(b"K", old)], "full": [(b"O", old)]}.get(sort, [])
                kind = INSERT if sort == "insert" else UPDATE
                messages.append(change(kind, 7, *before, new))
        messages.append(b"C" + struct.pack(">BQQq", 0, 100 + number, 200 + number, 9))
    return names, messages


def decoder(names: Sequence[str]) -> Decoder:
    made = Decoder(lambda message: Reading(tuple(codecs_of(names)), ("c0",)))
    columns = tuple(f"c{place}" for place in range(len(names)))
    width = len(names)
    made.relation(RelationMessage(7, TABLE, "d", columns, (25,) * width, (-1,) * width, (0,)))
    return made


def frame(message: bytes) -> bytes:
    return b"w" + bytes(24) + message


def told(made: Decoder, message: bytes) -> None:
    """As the twin takes messages, one by one."""
    if message[:1] == b"B":
        made.begin(message, 1)
    elif message[:1] != b"C":
        made.row(message[0], message + PADDING, 1)


def gathered(made: Decoder, messages: Sequence[bytes], *, most: int = 1 << 60) -> list[Any]:
    """By the compiled half, whole frames at a time."""
    frames = native.postgresql.Frames.of([frame(message) for message in messages])
    found: list[Any] = []
    at = 0
    while at < len(frames):
        at = made.gather(frames, at, enough=most, most=most, most_bytes=1 << 60)
        if made.rows >= most:
            found += shown(made.take())
        elif at < len(frames):
            made.row(frames[at][25], frames[at], 26)
            at += 1
    return found + shown(made.take())


def shown(parts: list[TableChanges]) -> list[Any]:
    return [
        (operation, version, *map(repr, row))
        for part in parts
        for operation, version, row in zip(part.operations, part.versions, part.rows(), strict=True)
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs(), st.sampled_from([1, 2, 1 << 60]))
def test_the_log_is_read_as_in_python(case: tuple[list[str], list[bytes]], most: int) -> None:
    names, messages = case
    with native.switched(False):
        twin = decoder(names)
        for message in messages:
            told(twin, message)
        reference = shown(twin.take())
    assert gathered(decoder(names), messages, most=most) == reference
    one_by_one = decoder(names)
    for message in messages:
        told(one_by_one, message)
    assert shown(one_by_one.take()) == reference


def test_where_a_transaction_ends_is_told_and_a_full_batch_stops_there() -> None:
    made = decoder(["int4"])
    log = made.compiled
    assert log is not None
    begin = b"B" + struct.pack(">QqI", 7, 0, 1)
    commit = b"C" + struct.pack(">BQQq", 0, 7, 8, 9)
    messages = [frame(m) for m in (begin, change(INSERT, 7, (b"N", [b"1"])), commit, begin)]
    keepalive = b"k" + struct.pack(">QqB", 1, 2, 0)
    frames = native.postgresql.Frames.of([*messages, keepalive, messages[0]])
    assert made.gather(frames, 0, enough=1, most=9, most_bytes=1 << 30) == 3
    assert (log.committed, log.within, log.end, log.at, made.rows) == (True, False, 8, 9, 1)
    assert made.gather(frames, 3, enough=1, most=9, most_bytes=1 << 30) == 4  # the keepalive
    assert (log.committed, log.within, made.version) == (False, True, 7)
    of_another = native.postgresql.Frames.of([frame(change(INSERT, 8, (b"N", [b"1"])))])
    assert made.gather(of_another, 0, enough=1, most=9, most_bytes=1 << 30) == 0


def mutated(message: bytes, chance: random.Random) -> bytes:
    """Damaged as no server would send it."""
    body = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(body)) if body else 0
        sort = chance.randrange(4)
        if sort == 0 and body:
            body[at] = chance.choice(
                (0, 1, 0x74, 0x75, 0x6E, 0x7F, 0x80, 0xFF, chance.randrange(256))
            )
        elif sort == 1:
            del body[at:]
        elif sort == 2:
            body[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 9)))
        else:
            body[at : at + 4] = struct.pack(
                ">I", chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
            )
    return bytes(body)


def survives_damage(trials: int, seed: int) -> int:
    """Reads damaged messages and lines; how many were taken for whole.  Errors are our own."""
    chance = random.Random(seed)
    whole = 0
    cells = [b"1", b"2024-01-01", b"1.5", b"\\x00ff", b"ab\xc3\xa4", None, b"{1}", b"t"]
    names = ["int4", "date", "numeric", "bytea", "text", "json", "int4[]", "bool"]
    row = [*cells[:5], UNCHANGED, *cells[6:]]
    seeds = [
        change(INSERT, 7, (b"N", cells)),
        change(UPDATE, 7, (b"K", [b"2", *[None] * 7]), (b"N", row)),
        change(UPDATE, 7, (b"O", cells), (b"N", row)),
        change(DELETE, 7, (b"K", [b"1", *[None] * 7])),
        b"B" + struct.pack(">QqI", 1, 2, 3),
        b"C" + struct.pack(">BQQq", 0, 1, 2, 3),
    ]
    line = b"\t".join(map(copied, cells)) + b"\n"
    codecs = codecs_of(names)
    binary_names = sorted(set(BINARY) - {"float4", "float8"})
    kinds = [codec.kind for codec in codecs_of(binary_names)]
    of_each = [1, 2, b"x", Decimal("-1234567.80"), "x", b"{}", b"0" * 16]
    by_kind = dict(
        zip(
            (Kind.INT32, Kind.INT64, Kind.BYTES, Kind.DECIMAL, Kind.TEXT, Kind.JSON, Kind.UUID),
            of_each,
            strict=True,
        )
    )
    by_kind |= {Kind.BOOL: True, Kind.DATE: date(2024, 2, 29), Kind.JSON_TEXT: b"{}"}
    binary_row = in_binary(kinds, [[by_kind.get(kind, 5) for kind in kinds]])[0]
    for _ in range(trials):
        made = decoder(names)
        message = mutated(chance.choice(seeds), chance)
        try:
            frames = native.postgresql.Frames.of([frame(message)])
            made.gather(frames, 0, enough=1, most=9, most_bytes=1 << 30)
            whole += len(shown(made.take()))
        except WarpError:
            pass
        try:
            frames = native.postgresql.Frames.of([mutated(binary_row, chance)])
            for cells_, _ in native.postgresql.binary_columns_of(frames, kinds):
                list(cells_)
            whole += 1
        except WarpError:
            pass
        try:
            lines = [mutated(line, chance), line]
            ours, reference = by_both(lines, codecs)
            if lines[0].count(b"\n") == 1:  # else it is two lines to the twin
                assert repr(ours) == repr(reference)
            whole += 1
        except WarpError:
            pass
    return whole


def test_damaged_messages_are_an_error_or_a_value_and_never_a_crash() -> None:
    assert survives_damage(400, seed=1) > 10


@pytest.mark.soak
def test_many_damaged_messages_are_an_error_or_a_value_and_never_a_crash() -> None:
    for seed in range(50):
        survives_damage(10_000, seed)


def test_a_truncated_message_is_an_error_wherever_it_is_cut() -> None:
    message = change(UPDATE, 7, (b"K", [b"1", None]), (b"N", [b"2", b"x"]))
    for length in range(len(message)):
        made = decoder(["int4", "text"])
        frames = native.postgresql.Frames.of([frame(message[:length])])
        if length == 0:
            assert made.gather(frames, 0, enough=1, most=9, most_bytes=1 << 30) == 0
            continue
        with pytest.raises(WarpError, match="cut short"):
            made.gather(frames, 0, enough=1, most=9, most_bytes=1 << 30)
        with pytest.raises(WarpError, match="cut short"):
            made.row(UPDATE, message[:length] + PADDING, 1)


def test_a_truncate_between_rows_keeps_its_place() -> None:
    made = decoder(["int4"])
    made.version = 3
    insert = change(INSERT, 7, (b"N", [b"1"])) + PADDING
    made.row(INSERT, insert, 1)
    made.row(TRUNCATE, b"T" + struct.pack(">IBII", 2, 0, 99, 7) + PADDING, 1)
    made.row(INSERT, insert, 1)
    assert [bytes(part.operations) for part in made.take()] == [b"ctc"]
