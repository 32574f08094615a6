"""What a destination of tables is to write: one table's changes, one for each key, and what is said
of a batch beside its rows.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from warp import stored
from warp.cells import holds_marks, taken, unchanged
from warp.compact import Compacted
from warp.model import (
    Cells,
    ChangeBatch,
    Finding,
    Kind,
    Operation,
    QuarantinedRow,
    Replay,
    TableId,
    TableSchema,
)

PARTIAL: Final = ord("p")
"""Stands in the staging table for a change that keeps some cells of its row."""

READS: Final = frozenset({Operation.READ.value})
STREAMED: Final = frozenset({Operation.CREATE.value, Operation.UPDATE.value})
BARE: Final = (Operation.DELETE.value, Operation.TRUNCATE.value)
"""Only their keys say something."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said about a batch beside its rows."""

    quarantined: Sequence[QuarantinedRow] = ()
    findings: Sequence[Finding] = ()
    replay: Replay | None = None


NOTHING_SAID: Final = Said()


def counted(batch: ChangeBatch) -> Counter[tuple[TableId, Operation]]:
    """The rows of a batch by table and operation."""
    counts: Counter[tuple[TableId, Operation]] = Counter()
    for changes in batch.changes:
        for code in set(changes.operations):
            counts[changes.table, Operation(code)] += changes.operations.count(code)
    return counts


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's changes, ready to be sent: one change per key."""

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

    def key_of(self, row: int) -> str:
        """As the quarantine and the audit write it."""
        cells = [column[row] for column in self.carriers]
        return stored.dump(self.schema.columns, cells, self.schema.key)

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
            rows = [row for row in unchanged(values) if operations[row] not in BARE]
            if rows:
                keeping[place] = rows
    left_out: frozenset[int] = frozenset()
    if keeping:
        # A column that all rows leave alone (dropped at the source) needs no bitmap.
        said = len(operations) - sum(map(operations.count, BARE))
        left_out = frozenset(place for place, rows in keeping.items() if len(rows) == said)
    bitmaps: dict[int, bytearray] = {}
    for place, rows in keeping.items():
        if place not in left_out:
            for row in rows:
                bits = bitmaps.setdefault(row, bytearray(len(schema.columns) // 8 + 1))
                bits[place // 8] |= 1 << place % 8  # the least bit first, as PostgreSQL's get_bit()
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
