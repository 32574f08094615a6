"""Cells as binary COPY takes them: packed columns, or one pass per column and C dumpers only.

psycopg picks a dumper by the type named to `set_types`; the server only sees bytes.  So an instant
goes as the int8 that a timestamptz is inside, JSON as bytes with jsonb's version byte before them,
a UUID as its sixteen bytes: none of them becomes a Python object on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from warp.cells import holds_marks, taken, unchanged
from warp.compact import Compacted
from warp.model import UNCHANGED, Cells, Kind, Operation, TableSchema

TYPES: Final[dict[Kind, str]] = {
    Kind.BOOL: "boolean",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.FLOAT32: "real",
    Kind.FLOAT64: "double precision",
    Kind.DECIMAL: "numeric",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.DATETIME: "timestamp",
    Kind.TIMESTAMP: "timestamptz",
    Kind.JSON: "jsonb",
    Kind.JSON_TEXT: "json",
    Kind.OBJECTID: "text",
    Kind.TAGGED: "text",
}
"""How this destination spells each kind."""

DUMPED_AS: Final[dict[Kind, str]] = {
    Kind.BOOL: "bool",
    Kind.INT32: "int4",
    Kind.INT64: "int8",
    Kind.FLOAT32: "float4",
    Kind.FLOAT64: "float8",
    Kind.DECIMAL: "numeric",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.UUID: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "int8",
    Kind.DATETIME: "int8",
    Kind.TIMESTAMP: "int8",
    Kind.JSON: "bytea",
    Kind.JSON_TEXT: "bytea",
    Kind.OBJECTID: "text",
    Kind.TAGGED: "text",
}

KINDS: Final[dict[str, Kind]] = {
    "boolean": Kind.BOOL,
    "smallint": Kind.INT32,
    "integer": Kind.INT32,
    "bigint": Kind.INT64,
    "real": Kind.FLOAT32,
    "double precision": Kind.FLOAT64,
    "numeric": Kind.DECIMAL,
    "text": Kind.TEXT,
    "character varying": Kind.TEXT,
    "bytea": Kind.BYTES,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "time without time zone": Kind.TIME,
    "timestamp without time zone": Kind.DATETIME,
    "timestamp with time zone": Kind.TIMESTAMP,
    "jsonb": Kind.JSON,
    "json": Kind.JSON_TEXT,
}
"""The kind of a column that somebody else made, by the server's name of its type."""

PARTIAL: Final = ord("p")
"""Stands in the staging table for a change that keeps some cells of its row."""

READS: Final = frozenset({Operation.READ.value})
STREAMED: Final = frozenset({Operation.CREATE.value, Operation.UPDATE.value})

_POSTGRES_EPOCH: Final = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_MARK: Final = type(UNCHANGED)
_NONE: Final = type(None)
_BARE: Final = (Operation.DELETE.value, Operation.TRUNCATE.value)


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's changes, ready to be copied: one change per key."""

    schema: TableSchema
    carriers: Sequence[Cells]  # a column each
    operations: bytes  # PARTIAL among them
    versions: Sequence[int]
    kept: Sequence[bytes | None] | None = None  # a bitmap of the cells each PARTIAL row keeps
    left_out: frozenset[int] = frozenset()  # columns that no row of these says anything about
    truncated_at: int | None = None

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def columns(self) -> list[tuple[Kind, Cells]]:
        return [
            (c.kind, cells) for c, cells in zip(self.schema.columns, self.carriers, strict=True)
        ]

    @property
    def mixed(self) -> bool:
        """Must the merge tell the rows apart?"""
        met = set(self.operations)
        return not (met <= READS or met <= STREAMED or met == {Operation.DELETE.value})

    @property
    def one_version(self) -> bool:
        return self.versions[0] == self.versions[-1] and len(set(self.versions)) == 1

    def only(self, rows: Sequence[int]) -> Staged:
        """These of the rows, in this order, without the truncation."""
        return Staged(
            self.schema,
            [taken(column, rows) for column in self.carriers],
            bytes(self.operations[row] for row in rows),
            [self.versions[row] for row in rows],
            None if self.kept is None else [self.kept[row] for row in rows],
            self.left_out,
        )


def stage(schema: TableSchema, changes: Compacted) -> Staged:
    """Note which cells keep what the destination has."""
    operations = changes.operations
    keeping: dict[int, list[int]] = {}  # column -> rows whose cell is UNCHANGED
    for place, values in enumerate(changes.columns):
        if holds_marks(values):
            rows = [row for row in unchanged(values) if operations[row] not in _BARE]
            if rows:
                keeping[place] = rows
    left_out: frozenset[int] = frozenset()
    if keeping:
        # A column that all rows leave alone (dropped at the source) needs no bitmap.
        said = len(operations) - sum(map(operations.count, _BARE))
        left_out = frozenset(place for place, rows in keeping.items() if len(rows) == said)
    bitmaps: dict[int, bytearray] = {}
    for place, rows in keeping.items():
        if place not in left_out:
            for row in rows:
                bits = bitmaps.setdefault(row, bytearray(len(schema.columns) // 8 + 1))
                bits[place // 8] |= 1 << place % 8  # as get_bit() counts
    kept: list[bytes | None] | None = None
    if bitmaps:
        marked = bytearray(operations)
        kept = [None] * len(operations)
        for row, bits in bitmaps.items():
            marked[row] = PARTIAL
            kept[row] = bytes(bits)
        operations = bytes(marked)
    return Staged(
        schema,
        changes.columns,
        operations,
        changes.versions,
        kept,
        left_out,
        changes.truncated_at,
    )


def dumped(kind: Kind, values: Cells) -> Sequence[Any]:
    """One column as psycopg's dumper for `DUMPED_AS` wants it."""
    types = set(map(type, values))
    if _MARK in types:
        values = [None if type(cell) is _MARK else cell for cell in values]
    nulls = _MARK in types or _NONE in types
    if kind in (Kind.TIMESTAMP, Kind.DATETIME):
        if nulls:
            return [None if v is None else v - _POSTGRES_EPOCH for v in values]
        return [v - _POSTGRES_EPOCH for v in values]
    if kind == Kind.JSON:
        if nulls:
            return [None if v is None else b"\x01" + v for v in values]
        return [b"\x01" + v for v in values]
    return values
