"""Rows of a MySQL result: the compiled half takes a cell as `columns` reads it, or leaves it."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp import native
from warp.cells import listed
from warp.model import Cells
from warp.sources.mysql import errors, reading
from warp.sources.mysql.columns import Declared
from warp.sources.mysql.reading import Row, of_rows

pytestmark = pytest.mark.skipif(not native.active(), reason="asked to test the plain Python half")

AN_ERROR = "an error"
Draw = Callable[[Random], str | bytes]


def digits(luck: Random, most: int = 22) -> str:
    size = luck.randint(1, most)
    return luck.choice(["", "-"]) + str(luck.randrange(10**size)).zfill(luck.choice([1, size]))


def real(luck: Random) -> str:
    [value] = struct.unpack("<d", luck.randbytes(8))
    short = f"{digits(luck, 20)}.{luck.randrange(10**8)}{luck.choice(['', 'e5', 'e-7', 'e300'])}"
    return luck.choice([repr(value), short, digits(luck)])


def day(luck: Random) -> str:
    year, month, of_month = luck.randint(0, 9999), luck.randint(0, 13), luck.randint(0, 32)
    odd = ["0000-00-00", "2024-02-30", "1900-02-29", "2000-02-29", "9999-12-31", "0001-01-01"]
    return luck.choice([*odd, f"{year:04}-{month:02}-{of_month:02}"])


def clock(luck: Random) -> str:
    fraction = luck.choice(["", f".{luck.randrange(10**6)}"])
    return f"{luck.randint(0, 24):02}:{luck.randint(0, 60):02}:{luck.randint(0, 60):02}{fraction}"


def text(luck: Random) -> bytes:
    letters = "aZ ß€\u07ff\u0800\uffff😀\U0010ffff\ud800"
    return "".join(luck.choices(letters, k=luck.randint(0, 12))).encode("utf-8", "surrogatepass")


LIKELY: dict[str, Draw] = {
    **dict.fromkeys(
        ["tinyint(4)", "int(11)", "int(10) unsigned", "bigint(20)", "bigint(20) unsigned", "year"],
        digits,
    ),
    **dict.fromkeys(["float", "double"], real),
    "decimal(65,30)": lambda luck: f"{digits(luck, 40)}.{digits(luck, 30).lstrip('-')}",
    "bit(1)": lambda luck: luck.choice([b"\0", b"\1"]),
    "bit(12)": lambda luck: luck.randbytes(2),
    "bit(64)": lambda luck: luck.randbytes(8),
    "date": day,
    "time": lambda luck: luck.choice(["", "-"]) + clock(luck),
    **dict.fromkeys(["datetime(6)", "timestamp"], lambda luck: f"{day(luck)} {clock(luck)}"),
    "varchar(20)": text,
    "enum('a')": lambda luck: "a",
    "blob": lambda luck: luck.randbytes(luck.randint(0, 300)),
    "json": lambda luck: '{"a": "\\u0000"}',
    "uuid": lambda luck: str(uuid.UUID(bytes=luck.randbytes(16))),
}


def column(column_type: str) -> Declared:
    return Declared("c", column_type.split("(")[0].split(" ")[0], column_type)


def cell(luck: Random, draw: Draw) -> bytes | None:
    if luck.random() < 0.1:
        return None
    found = draw(luck)
    likely = found.encode() if isinstance(found, str) else found
    if luck.random() < 0.8:
        return likely
    at = luck.randint(0, len(likely))
    return likely[:at] + luck.randbytes(luck.randint(0, 2)) + likely[at + luck.randint(0, 2) :]


def table(luck: Random) -> tuple[list[Declared], list[Row]]:
    names = luck.choices(sorted(LIKELY), k=luck.randint(1, 6))
    rows = [
        (*(cell(luck, LIKELY[name]) for name in names), luck.choice([None, b"", b"123"]))
        for _ in range(luck.randint(0, 20))
    ]
    return [column(name) for name in names], rows


def told(cell: bytes | None) -> bytes:
    if cell is None:
        return b"\xfb"
    if len(cell) < 251:
        return bytes((len(cell),)) + cell
    return b"\xfc" + struct.pack("<H", len(cell)) + cell


def packets(rows: Sequence[Row], end: bytes = b"\xfe\0\0\2\0") -> bytes:
    bodies = [*(b"".join(map(told, row)) for row in rows), end]
    return b"".join(
        struct.pack("<I", len(body))[:3] + bytes((number & 0xFF,)) + body
        for number, body in enumerate(bodies)
    )


def read_natively(
    columns: list[Declared], wire: bytes, pieces: int, rows: int = 3
) -> tuple[list[Cells], list[Row]]:
    parsed = native.mysql_rows.Rows(
        [(one.kind, one.reading) for one in columns], 1, rows, 1 << 20, 0
    )
    pages: list[list[Cells]] = []
    last: list[Row] = []
    start, end = 0, min(pieces, len(wire))
    while True:
        start = parsed.feed(wire, start, end)
        if parsed.full or parsed.ended:
            page = reading._page(parsed, columns)
            pages.append(list(page.columns))
            last.append(page.last)
            if not page.more:
                break
        elif end == len(wire):
            raise EOFError
        else:
            end = min(len(wire), end + pieces)
    return [[cell for page in pages for cell in page[n]] for n in range(len(columns))], last


def outcome(columns: list[Declared], rows: Sequence[Row]) -> str:
    """What the reference makes of them, to the last bit, or that it raises."""
    try:
        return repr([list(cells) for cells in of_rows(rows, columns).columns])
    except (ValueError, ArithmeticError):
        return AN_ERROR


def check_rows(seed: int) -> None:
    luck = Random(seed)
    columns, rows = table(luck)
    try:
        cells, last = read_natively(columns, packets(rows), luck.randint(1, 400))
        found = repr([listed(column) for column in cells])
    except (ValueError, ArithmeticError):
        found = AN_ERROR
    else:
        ends = [rows[min(n + 3, len(rows)) - 1][-1:] for n in range(0, len(rows), 3)]
        assert last[: len(ends)] == ends
    assert found == outcome(columns, rows)


def check_damage(seed: int) -> None:
    luck = Random(seed)
    columns, rows = table(luck)
    wire = bytearray(packets(rows))
    for _ in range(luck.randint(1, 4)):
        wire[luck.randrange(len(wire))] = luck.choice(
            [0, 251, 252, 253, 254, 255, luck.randrange(256)]
        )
    with suppress(ValueError, ArithmeticError, EOFError):
        read_natively(columns, bytes(wire[: luck.randint(0, len(wire))]), 1 << 20)


@settings(deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_cell_is_read_as_the_reference_reads_it(seed: int) -> None:
    check_rows(seed)


@settings(deadline=None)
@given(st.integers(0, 1 << 64))
def test_damaged_packets_are_an_error_or_other_rows_and_nothing_worse(seed: int) -> None:
    check_damage(seed)


@pytest.mark.soak
def test_a_hundred_thousand_tables_are_read_as_the_reference_reads_them() -> None:
    for seed in range(100_000):
        check_rows(seed)
        check_damage(seed)


def test_a_row_of_several_packets_is_one_row() -> None:
    big = bytes(2 * 0xFFFFFF - 20)
    body = b"\xfe" + struct.pack("<Q", len(big)) + big + b"\0"
    assert 0xFFFFFF < len(body) <= 2 * 0xFFFFFF
    first, rest = body[:0xFFFFFF], body[0xFFFFFF:]
    wire = b"\xff\xff\xff\0" + first + struct.pack("<I", len(rest))[:3] + b"\1" + rest
    wire += b"\5\0\0\2\xfe\0\0\2\0"
    [[cell]], [last, _] = read_natively([column("blob")], wire, 5 << 20)
    assert cell == big
    assert last == (b"",)


def test_what_the_server_refuses_amid_a_result_is_handed_on() -> None:
    parsed = native.mysql_rows.Rows([], 1, 10, 1 << 20, 0)
    wire = packets([(b"1",)], b"\xff\x29\x05#70100Query execution was interrupted")
    assert parsed.feed(wire, 0, len(wire)) == len(wire)
    assert parsed.ended
    assert parsed.rows == 1
    assert parsed.refused is not None
    with pytest.raises(Exception, match="was interrupted") as refused:
        raise errors.refused(parsed.refused, "read")
    assert "1321" in str(refused.value)


def test_a_packet_out_of_order_is_an_error() -> None:
    parsed: Any = native.mysql_rows.Rows([], 1, 10, 1 << 20, 7)
    wire = packets([(b"1",)])
    with pytest.raises(ValueError, match="packet 0 came where 7 was expected"):
        parsed.feed(wire, 0, len(wire))
