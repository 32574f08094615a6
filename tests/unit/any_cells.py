"""Carriers of every kind, as hypothesis draws them."""

from __future__ import annotations

import datetime as dt
import json
import struct
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from warp.model import Kind

_US: Final = 1_000_000
# Without NUL, which no carrier of text holds, and without halves of surrogate pairs.
TEXT: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
_JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.dumps(value).encode())


def _single(value: float) -> float:
    (stored,) = struct.unpack("<f", struct.pack("<f", value))
    return float(stored)


CELLS: Final[Mapping[Kind, st.SearchStrategy[Any]]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT32: st.floats(width=32).map(_single),
    Kind.FLOAT64: st.floats(),
    Kind.DECIMAL: st.decimals(allow_infinity=False, allow_nan=False, places=6).map(
        lambda v: v if abs(v) < 10**20 else v.__class__(7)
    ),
    Kind.TEXT: TEXT,
    Kind.BYTES: st.binary(max_size=12),
    Kind.UUID: st.binary(min_size=16, max_size=16),
    Kind.DATE: st.dates(dt.date(1000, 1, 1), dt.date(9999, 12, 31)),
    Kind.TIME: st.integers(0, 86_400 * _US - 1),
    Kind.DATETIME: st.integers(-30_000_000_000 * _US, 250_000_000_000 * _US),
    Kind.TIMESTAMP: st.integers(-30_000_000_000 * _US, 250_000_000_000 * _US),
    Kind.JSON: _JSON.filter(lambda text: b"\\u0000" not in text),
    Kind.JSON_TEXT: _JSON.filter(lambda text: b"\\u0000" not in text),
    Kind.OBJECTID: st.binary(min_size=12, max_size=12).map(bytes.hex),
    Kind.TAGGED: TEXT,
}

ANY_CELL: Final = st.sampled_from(Kind).flatmap(lambda kind: st.tuples(st.just(kind), CELLS[kind]))


def rows_of(kinds: list[Kind], rows: int) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Rows of these kinds, NULLs among them."""
    row = st.tuples(*(st.none() | CELLS[kind] for kind in kinds))
    return st.lists(row, min_size=rows, max_size=rows)
