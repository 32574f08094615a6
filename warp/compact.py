"""The last change per key: what is left to write of a batch once later changes overrule earlier.

Pure.  Applying the result once leaves a destination row as applying every change in turn would,
under the guards of the destination (a READ lands on older versions only, anything else on
versions up to its own), so order per key is kept (guarantee 5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from warp import native
from warp.cells import listed, taken, unchanged
from warp.model import UNCHANGED, Cells, Kind, Operation, TableChanges, TableSchema
from warp.native import Packed

_READ = Operation.READ.value
_DELETE = Operation.DELETE.value
_TRUNCATE = Operation.TRUNCATE.value


@dataclass(frozen=True, slots=True)
class Compacted:
    """One change per key, oldest first, to be made after the truncation where there is one."""

    operations: bytes
    versions: Sequence[int]
    columns: Sequence[Cells]
    truncated_at: int | None = None  # every row up to this version goes first

    def __len__(self) -> int:
        return len(self.operations)


def compact(changes: TableChanges) -> Compacted:
    """Reduce shaped changes (oldest first) to the last change of each key.

    An UNCHANGED cell is filled from the key's earlier change in the batch where that knew it.
    Changes before the last TRUNCATE are left out, up to its version: it removes what they would
    have made.
    """
    schema = changes.schema
    if schema is None:
        raise ValueError(f"{changes.table}: changes must be shaped into columns before compaction")
    operations = bytes(changes.operations)
    versions, columns = changes.versions, changes.columns
    truncated_at = None
    cut = operations.rfind(_TRUNCATE)
    if cut >= 0:
        truncated_at = versions[cut]
        # A poll that reads a table whole ends with a TRUNCATE of what is older than its own rows.
        left = [r for r in range(cut) if versions[r] > truncated_at and operations[r] != _TRUNCATE]
        kept_rows = [*left, *range(cut + 1, len(operations))]
        operations = bytes(operations[row] for row in kept_rows)
        versions = [versions[row] for row in kept_rows]
        columns = [taken(column, kept_rows) for column in columns]
    packed = _packed_keys(schema, columns)
    if packed:
        kept = native.packed.last_of_each(packed, operations, versions)
        if len(kept) == len(operations):
            return Compacted(operations, versions, columns, truncated_at)
        if not any(map(unchanged, columns)):
            return _only(kept, operations, versions, columns, truncated_at)
    keys = keys_of(schema, columns, len(operations))
    if len(set(keys)) == len(operations):
        return Compacted(operations, versions, columns, truncated_at)

    # Only columns that hold UNCHANGED can need filling; they alone are copied.
    filled = {i: listed(column) for i, column in enumerate(columns) if unchanged(column)}
    columns = [filled.get(i, column) for i, column in enumerate(columns)]
    newest: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        earlier = newest.get(key)
        if earlier is None:
            newest[key] = row
        elif _overrules(operations[row], versions[row], versions[earlier]):
            newest[key] = row
            if operations[row] != _DELETE and operations[earlier] != _DELETE:
                for column in filled.values():
                    if column[row] is UNCHANGED:
                        column[row] = column[earlier]
    return _only(sorted(newest.values()), operations, versions, columns, truncated_at)


def _only(
    rows: Sequence[int],
    operations: bytes,
    versions: Sequence[int],
    columns: Sequence[Cells],
    truncated_at: int | None,
) -> Compacted:
    return Compacted(
        bytes(map(operations.__getitem__, rows)),
        list(map(versions.__getitem__, rows)),
        [taken(column, rows) for column in columns],
        truncated_at,
    )


def _overrules(operation: int, version: int, earlier: int) -> bool:
    # Changes of one transaction share a version, so a stream row must land on an equal one.
    return earlier < version if operation == _READ else earlier <= version


def _packed_keys(schema: TableSchema, columns: Sequence[Cells]) -> list[Packed]:
    """The columns of the key, where they can be compared without making objects of them."""
    keys = [columns[place] for place, c in enumerate(schema.columns) if c.name in schema.key]
    packed = [key for key in keys if isinstance(key, Packed)]
    if not packed or len(packed) != len(keys):
        return []
    if not all(native.packed.compares_by_bytes(key.kind) for key in packed):
        return []
    return packed


def keys_of(schema: TableSchema, columns: Sequence[Cells], rows: int) -> Sequence[Hashable]:
    """The key of each row, equal where a database would call them equal."""
    if not schema.key:
        return range(rows)  # without a key every row is its own
    places = {name: i for i, name in enumerate(schema.names())}
    parts: list[Iterable[Hashable]] = []
    for name in schema.key:
        place = places[name]
        column = columns[place]
        if schema.columns[place].kind in (Kind.FLOAT64, Kind.DECIMAL):
            # In Python NaN differs from itself; as a key it is one value.
            column = [UNCHANGED if cell != cell else cell for cell in column]
        parts.append(column)
    return list(parts[0]) if len(parts) == 1 else list(zip(*parts, strict=True))
