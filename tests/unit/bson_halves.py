"""Documents and tables at random, shaped by the compiled half and by the reference.

Kept apart from the tests, so that the same can run for long, and under a sanitizer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from any_bson import document, documents, values
from hypothesis import strategies as st

from warp import native
from warp.model import (
    Column,
    Handling,
    Kind,
    Operation,
    Policy,
    Shaped,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.sources.documents import BsonDocuments
from warp.sources.proposals import DOCUMENT, DOCUMENT_TEXT, EXTRA

TABLE = TableId("shop", "orders")
FIELDS = ["a", "b", "c", "", "é" * 40, "_extra", "$x", "$ref", "a.b"]

# One document: often with a whole key and known fields, sometimes anything.
fields = st.lists(st.tuples(st.sampled_from(FIELDS), values), max_size=5)
rows = st.one_of(
    st.builds(lambda id, rest: document([("_id", id), *rest]), values, fields),
    documents,
)


def _damaged(raw: bytes, at: int, what: bytes, cut: int) -> bytes:
    """Other bytes somewhere inside, and the length that the server's framing would give it."""
    at = 4 + at % max(1, len(raw) - 4)
    changed = raw[:at] + what + raw[at + cut :]
    return struct.pack("<i", len(changed)) + changed[4:] if len(changed) >= 5 else raw


damaged = st.builds(_damaged, rows, st.integers(0, 400), st.binary(max_size=5), st.integers(0, 5))
batches = st.lists(rows, min_size=1, max_size=6)
damaged_batches = st.lists(damaged | rows, min_size=1, max_size=3)

_KINDS = [k for k in Kind if k is not Kind.TAGGED]
_LIMITED = (Kind.TEXT, Kind.DECIMAL, Kind.OBJECTID)


@st.composite
def tables(draw: st.DrawFn) -> tuple[TableSchema, TableSettings]:
    keys = st.sampled_from([Kind.TAGGED, Kind.TAGGED, *_KINDS])
    columns = [Column("_id", draw(keys))]
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=5, unique=True)):
        kind = draw(st.sampled_from(_KINDS))
        limited = kind in _LIMITED and draw(st.booleans())
        limit = draw(st.integers(1, 30)) if limited else None
        scale = draw(st.integers(0, 6)) if limited and kind is Kind.DECIMAL else None
        name = field[:30] or "_empty"
        columns.append(
            Column(
                f"{name}_" if name == "_extra" else name,
                kind,
                source=field,
                limit=limit,
                scale=scale,
                fixed=draw(st.booleans()),
            )
        )
    if columns[-1].source == "":
        columns[-1] = Column("_empty", columns[-1].kind, limit=columns[-1].limit)
    columns += draw(
        st.sampled_from([[EXTRA], [DOCUMENT], [DOCUMENT_TEXT], [DOCUMENT, EXTRA], [EXTRA], []])
    )
    handling = st.none() | st.sampled_from(sorted(Handling))
    policy = Policy(wider=draw(handling), narrower=draw(handling), drastic=draw(handling))
    settings = TableSettings(
        TABLE, TABLE, "shop", policy=policy, dead_letter_queue=draw(st.booleans())
    )
    return TableSchema(TABLE, tuple(columns), ("_id",)), settings


def operations(raw: Sequence[bytes], bare: int) -> bytes:
    """Of `bare` bits, each set one is a row without its document."""
    said = [
        (Operation.DELETE, Operation.TRUNCATE)[row % 2] if bare >> row & 1 else Operation.UPDATE
        for row in range(len(raw))
    ]
    return bytes(said)


def shaped(
    raw: Sequence[bytes], said: bytes, known: TableSchema, settings: TableSettings
) -> dict[str, Any] | str:
    """All that came of it, or the error."""
    try:
        found = BsonDocuments(TABLE, raw, said).shape(known, settings)
    except Exception as error:  # noqa: BLE001 - both halves must fail alike
        return f"{type(error).__name__}: {error}"
    return _told(found)


def _told(found: Shaped) -> dict[str, Any]:
    """As text, in which NaN equals itself, and 1, 1.0 and 1.00 are three."""
    columns = [repr(list(column)) for column in found.columns]
    return {
        "columns": columns,
        "unknown": list(found.unknown.items()),
        "findings": found.findings,
        "asked": found.asked,
        "skipped": repr(found.skipped),
        "refused": list(found.refused.items()),
        "key kind": found.key_kind,
    }


def compare(raw: Sequence[bytes], bare: int, known: TableSchema, settings: TableSettings) -> None:
    said = operations(raw, bare)
    with native.switched(False):
        expected = shaped(raw, said, known, settings)
    with native.switched(True):
        assert shaped(raw, said, known, settings) == expected
