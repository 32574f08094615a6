"""The decoder of pgoutput: recorded messages, and messages made of everything the protocol has."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp import native
from warp.errors import WarpError
from warp.model import ABSENT, UNCHANGED, Kind, Operation, TableId
from warp.sources.postgresql.pgoutput import (
    DELETE,
    INSERT,
    PADDING,
    TRUNCATE,
    UPDATE,
    Commit,
    Decoder,
    Reading,
    Relation,
    RelationMessage,
    tuple_reader,
)
from warp.sources.postgresql.values import TEXT, Types

TABLE = TableId("shop", "orders")


@pytest.fixture(params=[True, False], ids=["compiled", "in Python"], scope="module", autouse=True)
def half(request: pytest.FixtureRequest) -> Iterator[None]:
    with native.switched(request.param):
        yield


# As PostgreSQL 18.6 sent them, of a transaction on
#   create table shop.orders (id int primary key, name text, large text, mood shop.mood)
# that inserts a row with 3,000 x, sets `name` to NULL, changes the key, deletes and truncates.
LARGE = b"x" * 3_000
RELATION = (
    "520000400573686f70006f7264657273006400040169640000000017ffffffff006e616d65000000001"
    "9ffffffff006c617267650000000019ffffffff006d6f6f640000004002ffffffff"
)
RECORDED = [
    "49000040054e00047400000001317400000003c3bc6e7400000bb8" + LARGE.hex() + "74000000026f6b",
    "55000040054e0004740000000131" + "6e" + "75" + "74000000026f6b",
    "55000040054b00047400000001316e6e6e4e00047400000001326e74000000016c74000000026f6b",
    "44000040054b00047400000001326e6e6e",
    "54000000010000004005",
]
COMMIT = "430000000000016f779000000000016f790000030421b5bfc030"


def relation(
    columns: Sequence[str] = ("id", "name", "large"), identity: str = "d", key: Sequence[int] = (0,)
) -> RelationMessage:
    return RelationMessage(
        7, TABLE, identity, tuple(columns), (25,) * len(columns), (-1,) * len(columns), tuple(key)
    )


def decoder(message: RelationMessage, key: Sequence[str] = ("id",)) -> Decoder:
    made = Decoder(lambda m: Reading((TEXT,) * len(m.columns), tuple(key)))
    made.relation(message)
    made.version = 100
    return made


def encoded(cells: Sequence[Any]) -> bytes:
    """A TupleData, as the server writes it."""
    parts = [struct.pack(">H", len(cells))]
    for cell in cells:
        if cell is None:
            parts.append(b"n")
        elif cell is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(cell)) + cell)
    return b"".join(parts)


def row(kind: int, *tuples: tuple[str, Sequence[Any]]) -> bytes:
    body = b"".join(tag.encode() + encoded(cells) for tag, cells in tuples)
    return bytes((kind,)) + struct.pack(">I", 7) + body + PADDING


def decoded(made: Decoder) -> list[tuple[Any, ...]]:
    return [
        (Operation(operation).name, version, *cells)
        for part in made.take()
        for operation, version, cells in zip(
            part.operations, part.versions, part.rows(), strict=True
        )
    ]


def test_recorded_messages_are_read() -> None:
    message = RelationMessage.read(bytes.fromhex(RELATION), 1)
    assert message.table == TABLE
    assert message.columns == ("id", "name", "large", "mood")
    assert message.types == (23, 25, 25, 0x4002)
    assert (message.identity, message.identifying) == ("d", (0,))
    types = Types()
    reading = Reading(tuple(map(types.codec, message.types)), ("id",))
    made = Decoder(lambda message: reading)
    made.relation(message)
    made.version = 5
    for text in RECORDED:
        recorded = bytes.fromhex(text) + PADDING
        made.row(recorded[0], recorded, 1)
    assert decoded(made) == [
        ("CREATE", 5, 1, "ün", LARGE.decode(), "ok"),
        ("UPDATE", 5, 1, None, UNCHANGED, "ok"),
        ("DELETE", 5, 1, ABSENT, ABSENT, ABSENT),
        ("CREATE", 5, 2, None, "l", "ok"),
        ("DELETE", 5, 2, ABSENT, ABSENT, ABSENT),
        ("TRUNCATE", 5, ABSENT, ABSENT, ABSENT, ABSENT),
    ]
    commit = Commit.read(bytes.fromhex(COMMIT), 1)
    assert (commit.lsn, commit.end) == (0x16F7790, 0x16F7900)
    assert datetime.fromtimestamp(commit.at, UTC).year == 2026


def test_an_update_without_old_row_keeps_what_was_not_sent() -> None:
    made = decoder(relation())
    message = row(UPDATE, ("N", (b"1", b"b", UNCHANGED)))
    made.row(message[0], message, 1)
    assert decoded(made) == [("UPDATE", 100, "1", "b", UNCHANGED)]


def test_an_old_key_that_is_the_same_is_no_change_of_key() -> None:
    # Sent where the key itself is stored out of line.
    made = decoder(relation())
    message = row(UPDATE, ("K", (b"1", None, None)), ("N", (UNCHANGED, b"b", UNCHANGED)))
    made.row(message[0], message, 1)
    assert decoded(made) == [("UPDATE", 100, "1", "b", UNCHANGED)]


def test_a_truncate_names_several_relations_and_unknown_ones_are_passed_over() -> None:
    made = decoder(relation())
    message = b"T" + struct.pack(">IBII", 2, 0, 99, 7) + PADDING
    made.row(TRUNCATE, message, 1)
    assert decoded(made) == [("TRUNCATE", 100, ABSENT, ABSENT, ABSENT)]


def test_rows_of_a_relation_that_is_not_selected_are_passed_over() -> None:
    made = Decoder(lambda message: None)
    made.relation(relation())
    message = row(INSERT, ("N", (b"1", b"b", b"c")))
    made.row(INSERT, message, 1)
    assert made.rows == 0
    assert made.take() == []


def test_rows_of_a_relation_never_described_are_an_error() -> None:
    made = Decoder(lambda message: None)
    message = row(INSERT, ("N", (b"1",)))
    with pytest.raises(WarpError, match="a relation was expected before its rows"):
        made.row(INSERT, message, 1)


def test_a_tuple_of_another_width_or_with_an_unknown_sort_of_cell_is_an_error() -> None:
    made = decoder(relation())
    message = row(INSERT, ("N", (b"1",)))
    with pytest.raises(WarpError, match="as many cells as columns"):
        made.row(INSERT, message, 1)
    binary = row(INSERT, ("N", (b"1", b"2", b"3"))).replace(b"t\0\0\0\x013", b"b\0\0\0\x013")
    with pytest.raises(WarpError, match="found 'b'"):
        made.row(INSERT, binary, 1)


def test_another_shape_asks_for_the_rows_before_it() -> None:
    made = decoder(relation())
    more = relation(("id", "name", "large", "more"))
    assert not made.reshapes(more)
    message = row(INSERT, ("N", (b"1", b"b", b"c")))
    made.row(INSERT, message, 1)
    assert made.reshapes(more)
    assert not made.reshapes(relation())
    assert len(decoded(made)) == 1
    made.relation(more)
    message = row(INSERT, ("N", (b"1", b"b", b"c", b"d")))
    made.row(INSERT, message, 1)
    assert decoded(made) == [("CREATE", 100, "1", "b", "c", "d")]


def test_columns_take_the_kinds_of_their_types() -> None:
    types = Types()
    message = RelationMessage(7, TABLE, "d", ("id", "big", "at"), (23, 1700, 1184), (-1,) * 3, (0,))
    reading = Reading(tuple(map(types.codec, message.types)), ("id",))
    schema = Relation(message, reading).schema
    assert schema is not None
    assert [c.kind for c in schema.columns] == [Kind.INT32, Kind.DECIMAL, Kind.TIMESTAMP]


cells = st.none() | st.just(UNCHANGED) | st.binary(max_size=300)


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40), st.binary(max_size=3))
def test_a_tuple_is_read_as_it_was_written(row_: list[Any], before: bytes) -> None:
    message = before + encoded(row_) + PADDING
    found: list[Any] = []
    end = tuple_reader(len(row_))(message, len(before), found.extend)
    assert found == row_
    assert end == len(message) - len(PADDING)


key_or_not = st.sampled_from([b"1", b"2"])
value = st.sampled_from([b"", b"x", None])
large = st.sampled_from([b"y" * 300, None, UNCHANGED])


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], dict[str, tuple[Any, ...]], str]:
    """(messages, the rows afterwards by key, identity) of changes to a table of two rows' keys."""
    identity = draw(st.sampled_from(["d", "f"]))
    rows: dict[str, tuple[Any, ...]] = {}
    messages = []
    for _ in range(draw(st.integers(1, 12))):
        key = draw(key_or_not)
        name, big = draw(value), draw(large)
        text = key.decode()
        if text not in rows:
            big = None if big is UNCHANGED else big
            rows[text] = (key, name, big)
            messages.append(row(INSERT, ("N", rows[text])))
        elif draw(st.booleans()):
            old = rows.pop(text)
            whole = ("O", old) if identity == "f" else ("K", (key, None, None))
            messages.append(row(DELETE, whole))
        else:
            old = rows.pop(text)
            other = b"2" if key == b"1" else b"1"
            moved = other.decode() not in rows and draw(st.booleans())
            new_key = other if moved else key
            if big is UNCHANGED and old[2] is None:
                big = None
            if big is UNCHANGED and moved and identity == "d":
                big = old[2]  # else it would have to be looked up
            rows[new_key.decode()] = (new_key, name, old[2] if big is UNCHANGED else big)
            tuples: list[tuple[str, Sequence[Any]]] = [("N", (new_key, name, big))]
            if identity == "f":
                tuples.insert(0, ("O", old))
            elif moved:
                tuples.insert(0, ("K", (key, None, None)))
            messages.append(row(UPDATE, *tuples))
    return messages, rows, identity


@settings(max_examples=80, deadline=None)
@given(histories())
def test_any_history_leaves_the_rows_it_should(
    history: tuple[list[bytes], dict[str, tuple[Any, ...]], str],
) -> None:
    messages, expected, identity = history
    made = decoder(relation(identity=identity))
    for message in messages:
        made.row(message[0], message, 1)
    have: dict[str, tuple[Any, ...]] = {}
    for operation, _, key, name, big in decoded(made):
        if operation == "DELETE":
            del have[key]
        elif operation == "CREATE":
            assert key not in have
            have[key] = (key, name, big)
        else:
            have[key] = (key, name, have[key][2] if big is UNCHANGED else big)
    as_text = {
        key: tuple(None if cell is None else cell.decode() for cell in row_)
        for key, row_ in expected.items()
    }
    assert have == as_text
