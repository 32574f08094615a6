"""A table's changes as one Parquet file: one row per key, its columns by number.  Pure.

Beside the cells `c0 … cN`: `o` the operation, `v` the version, `k` which cells the row leaves as
they are (a digit each, "1" for kept), `n` the row's number, `key` the key as the audit writes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from warp import stored
from warp.cells import holds_marks, taken, unchanged
from warp.compact import Compacted
from warp.destinations.bigquery import spelling
from warp.destinations.bigquery.spelling import Spelled
from warp.model import Cells, Operation, TableSchema

if TYPE_CHECKING:
    import pyarrow as pa

_BARE: Final = (Operation.DELETE.value, Operation.TRUNCATE.value)
BESIDE: Final = (("o", "INT64"), ("v", "INT64"), ("k", "STRING"), ("n", "INT64"), ("key", "STRING"))
"""What a staging table has beside the cells."""


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's changes, ready to be loaded: one change per key."""

    schema: TableSchema
    operations: bytes
    versions: Sequence[int]
    columns: Sequence[Cells]
    kept: Mapping[int, Sequence[int]]  # column -> rows whose cell is left as it is
    truncated_at: int | None = None

    def __len__(self) -> int:
        return len(self.operations)

    def has(self, *operations: Operation) -> bool:
        return any(operation.value in self.operations for operation in operations)

    def only(self, rows: Sequence[int]) -> Staged:
        """These of the rows, in this order."""
        return stage(
            self.schema,
            Compacted(
                bytes(self.operations[row] for row in rows),
                [self.versions[row] for row in rows],
                [taken(column, rows) for column in self.columns],
                self.truncated_at,
            ),
        )

    def key_of(self, row: int) -> str:
        cells = [column[row] for column in self.columns]
        return stored.dump(self.schema.columns, cells, self.schema.key)

    def row_of(self, row: int) -> str:
        return stored.dump(self.schema.columns, [column[row] for column in self.columns])


def stage(schema: TableSchema, changes: Compacted) -> Staged:
    """Note which cells keep what the destination has."""
    operations = changes.operations
    kept: dict[int, list[int]] = {}
    for place, cells in enumerate(changes.columns):
        if holds_marks(cells):
            rows = [row for row in unchanged(cells) if operations[row] not in _BARE]
            if rows:
                kept[place] = rows
    return Staged(schema, operations, changes.versions, changes.columns, kept, changes.truncated_at)


def unfit(part: Staged) -> dict[int, str]:
    """Rows with a cell that no column here could hold, and why; the first such cell of each."""
    found: dict[int, str] = {}
    for column, cells in zip(part.schema.columns, part.columns, strict=True):
        for row, why in spelling.unfit(column.kind, cells).items():
            found.setdefault(row, f"column {column.name!r}: {why}")
    return found


def parquet(part: Staged, spelled: Sequence[Spelled], *, keys: bool) -> bytes:
    """The file; with `keys` the key's text stands beside each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: list[str] = []
    arrays: list[pa.Array] = []
    for place, (one, cells) in enumerate(zip(spelled, part.columns, strict=True)):
        names.append(f"c{place}")
        arrays.append(_array(one, cells))
    rows = len(part)
    beside: list[Any] = [
        pa.array(list(part.operations), pa.int64()),
        pa.array(list(part.versions), pa.int64()),
        pa.array(_bitmaps(part), pa.string()),
        pa.array(range(rows), pa.int64()),
        pa.array([part.key_of(row) if keys else None for row in range(rows)], pa.string()),
    ]
    names += [name for name, _ in BESIDE]
    file = io.BytesIO()
    pq.write_table(pa.table([*arrays, *beside], names=names), file, compression="snappy")
    return file.getvalue()


def _array(one: Spelled, cells: Cells) -> pa.Array:
    import pyarrow as pa

    values = spelling.staged(one.column.kind, cells)
    type_ = one.staged_type
    if type_ == "TIMESTAMP":
        return pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    if type_ == "TIME":
        return pa.array(values, pa.int64()).cast(pa.time64("us"))
    return pa.array(
        values,
        {
            "BOOL": pa.bool_(),
            "INT64": pa.int64(),
            "FLOAT64": pa.float64(),
            "STRING": pa.string(),
            "BYTES": pa.binary(),
            "DATE": pa.date32(),
        }[type_],
    )


def _bitmaps(part: Staged) -> list[str | None]:
    if not part.kept:
        return [None] * len(part)
    bits: dict[int, bytearray] = {}
    for place, rows in part.kept.items():
        for row in rows:
            bits.setdefault(row, bytearray(b"0" * len(part.schema.columns)))[place] = ord("1")
    return [bits[row].decode() if row in bits else None for row in range(len(part))]
