"""BSON of every kind, made of bytes: what drivers write, and what only a raw insert can."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from bson import Decimal128
from hypothesis import strategies as st

from warp.sources.elements import elements

Cell = tuple[int, bytes]  # type, bytes of the value

MARKERS = [
    "$oid",
    "$symbol",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$code",
    "$scope",
    "$timestamp",
    "$regularExpression",
    "$dbPointer",
    "$date",
    "$minKey",
    "$maxKey",
    "$undefined",
    "$bson",
    "$document",
    "$ref",
    "$id",
    "$db",
]


def document(fields: Iterable[tuple[str | bytes, Cell]]) -> bytes:
    body = b"".join(
        bytes((code,)) + (name if isinstance(name, bytes) else name.encode()) + b"\0" + value
        for name, (code, value) in fields
    )
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def text_of(content: bytes) -> bytes:
    return struct.pack("<i", len(content) + 1) + content + b"\0"


def array(cells: Iterable[Cell]) -> bytes:
    return document((str(n), cell) for n, cell in enumerate(cells))


def _binary(subtype: int, content: bytes) -> bytes:
    if subtype == 2:
        content = struct.pack("<i", len(content)) + content
    return struct.pack("<i", len(content)) + bytes((subtype,)) + content


def _code_with_scope(code: bytes, scope: bytes) -> bytes:
    body = text_of(code) + scope
    return struct.pack("<i", len(body) + 4) + body


plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
without_nul = plain.map(lambda text: text.replace("\0", ""))
names = st.one_of(
    st.sampled_from(["a", "b", "A", "", "$x", "a.b", "_id", "é" * 40, "n" * 300, *MARKERS]),
    without_nul,
)
strings = plain.map(str.encode) | st.sampled_from(
    [b"a\0b", b"caf\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\\u0000", b"1e17,", b"null -0.0"]
)
longs = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**31) - 3, 2**31 + 3)
doubles = st.floats() | st.sampled_from(
    [0.0, -0.0, 5.0, 1e15, 1e16, 1e17, -1e22, 1e300, 5e-324, 1.7976931348623157e308, 2.0**53]
)
decimals = st.one_of(
    st.decimals(places=3, min_value=-(10**9), max_value=10**9).map(lambda d: Decimal128(d).bid),
    st.sampled_from(["1E+6144", "1E-6176", "-0", "0E-6176", "NaN", "-Infinity", "1.10"]).map(
        lambda text: Decimal128(text).bid
    ),
    st.binary(min_size=16, max_size=16),
)
subtypes = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 128, 255])


def _of(code: int, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[Cell]:
    return values.map(lambda value: (code, value))


scalars: st.SearchStrategy[Cell] = st.one_of(
    _of(0x01, doubles.map(lambda v: struct.pack("<d", v)) | st.binary(min_size=8, max_size=8)),
    _of(0x02, strings.map(text_of)),
    _of(0x05, st.builds(_binary, subtypes, st.binary(max_size=17))),
    _of(0x06, st.just(b"")),
    _of(0x07, st.binary(min_size=12, max_size=12)),
    _of(0x08, st.sampled_from([b"\0", b"\1"])),
    _of(0x09, longs.map(lambda v: struct.pack("<q", v))),
    _of(0x0A, st.just(b"")),
    _of(
        0x0B,
        st.builds(
            lambda pattern, options: pattern.encode() + b"\0" + options.encode() + b"\0",
            without_nul,
            st.sampled_from(["", "i", "im", "mi", "imsux", "z"]),
        ),
    ),
    _of(
        0x0C,
        st.builds(lambda a, b: text_of(a) + b, strings, st.binary(min_size=12, max_size=12)),
    ),
    _of(0x0D, strings.map(text_of)),
    _of(0x0E, strings.map(text_of)),
    _of(0x10, st.integers(-(2**31), 2**31 - 1).map(lambda v: struct.pack("<i", v))),
    _of(0x11, st.binary(min_size=8, max_size=8)),
    _of(0x12, longs.map(lambda v: struct.pack("<q", v))),
    _of(0x13, decimals),
    st.just((0x7F, b"")),
    st.just((0xFF, b"")),
)


def _nested(inner: st.SearchStrategy[Cell]) -> st.SearchStrategy[Cell]:
    fields = st.lists(st.tuples(names, inner), max_size=3).map(document)
    return st.one_of(
        _of(0x03, fields),
        _of(0x04, st.lists(inner, max_size=3).map(array)),
        _of(0x0F, st.builds(_code_with_scope, strings, fields)),
        # An object of one field or two is what may look like a form of ours.
        _of(0x03, st.tuples(st.sampled_from(MARKERS), inner).map(lambda f: document([f]))),
    )


values = st.recursive(scalars, _nested, max_leaves=8)
documents = st.lists(st.tuples(names, values), max_size=6).map(document)


def meaning(value: bytes) -> Any:
    """A document as far as jsonb keeps it: the last of each name, in no order, NUL as U+2400."""
    return {name: _meaning_of(code, cell) for code, name, cell in elements(value)}


def _meaning_of(code: int, value: bytes) -> Any:
    if code == 0x03:
        return code, meaning(value)
    if code == 0x04:
        return code, [_meaning_of(c, cell) for c, _, cell in elements(value)]
    if code in (0x02, 0x0D, 0x0E):
        return code, visible(value[4:-1])
    if code == 0x0C:
        return code, visible(value[4:-13]), value[-12:]
    if code == 0x0F:
        end = 8 + struct.unpack_from("<i", value, 4)[0]
        return code, visible(value[8 : end - 1]), meaning(value[end:])
    return code, value


def visible(content: bytes) -> bytes:
    try:
        return content.decode().replace("\0", "\u2400").encode()
    except UnicodeDecodeError:
        return content
