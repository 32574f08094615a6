"""The rows of a key range as they should be, digested as they come.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from warp.cells import unchanged
from warp.digest import canonical
from warp.digest.comparing import Key
from warp.digest.seams import Compared
from warp.digest.sums import Sums, leaf_of, total
from warp.model import Cells, TableSchema

KEPT_ROWS: Final = 300_000  # keys and hashes of a range kept in memory; else it is read again


@dataclass(slots=True)
class Wanted:
    """Some rows of the source as the destination should have them."""

    columns: Sequence[Cells]  # in the order of the compared ones
    rows: int
    aside: list[Key] = field(default_factory=list)  # keys of rows that cannot be written


def compared_of(have: TableSchema, at_source: TableSchema | None) -> Compared:
    """What can be compared: a column dropped at the source is kept at the destination as it was."""
    columns = have.columns
    if at_source is not None:
        known = {column.source for column in at_source.columns}
        columns = tuple(column for column in columns if column.source in known)
    ordered = tuple(sorted(columns, key=lambda column: column.name.encode()))
    key = tuple(canonical.key_columns(have)) if have.key else ordered
    return Compared(have, ordered, key)


def keys_of(compared: Compared, wanted: Wanted) -> list[Key]:
    """The key of each row, as forms."""
    places = {column.name: place for place, column in enumerate(compared.columns)}
    cells = [wanted.columns[places[column.name]] for column in compared.key]
    return canonical.forms_of(compared.key, cells)


class Range:
    """The rows of a key range as they should be: their digest, and keys as long as they are few."""

    def __init__(self, compared: Compared, only: frozenset[int] | None = None) -> None:
        self.sums = Sums()
        self.partial = False  # holds a row of which not every cell is known
        self.partial_leaves: set[int] = set()
        self._compared = compared
        self._only = only
        self._kept: list[tuple[Key, bytes | None]] | None = []
        self._leaves: dict[int, Sums] = {}  # of what is not kept

    def add(self, wanted: Wanted) -> None:
        columns = self._compared.columns
        partial = {row for cells in wanted.columns for row in unchanged(cells)}
        whole = wanted.columns
        if partial:
            self.partial = True
            whole = [_nulled(cells) for cells in wanted.columns]
        hashes: list[bytes | None] = [*canonical.row_hashes(columns, whole)]
        for row in partial:
            hashes[row] = None
        self.add_rows(keys_of(self._compared, wanted), hashes)

    def add_rows(self, keys: Iterable[Key], hashes: Sequence[bytes | None]) -> None:
        self.sums += _sum(hashes)
        rows = list(zip(keys, hashes, strict=True))
        if self._only is not None:
            rows = [row for row in rows if self._leaf(row[0]) in self._only]
        self.partial_leaves.update(self._leaf(key) for key, hash_ in rows if hash_ is None)
        if self._kept is not None:
            self._kept += rows
            if len(self._kept) <= KEPT_ROWS or self._only is not None:
                return
            rows, self._kept = self._kept, None
        for leaf, sums in self._by_leaf(rows).items():
            self._leaves[leaf] = self._leaves.get(leaf, Sums()) + sums

    def leaves(self) -> dict[int, Sums]:
        return self._leaves if self._kept is None else self._by_leaf(self._kept)

    def rows(self, leaves: Sequence[int]) -> list[tuple[Key, bytes | None]] | None:
        """Those of some leaves; None where they were too many to be kept."""
        if self._kept is None:
            return None
        wanted = frozenset(leaves)
        return [row for row in self._kept if self._leaf(row[0]) in wanted]

    def _by_leaf(self, rows: Iterable[tuple[Key, bytes | None]]) -> dict[int, Sums]:
        hashes: dict[int, list[bytes | None]] = {}
        for key, hash_ in rows:
            hashes.setdefault(self._leaf(key), []).append(hash_)
        return {leaf: _sum(of) for leaf, of in hashes.items()}

    def _leaf(self, key: Key) -> int:
        return leaf_of(canonical.text_of_forms(self._compared.key, key))


def _sum(hashes: Sequence[bytes | None]) -> Sums:
    """A row without a hash counts as one."""
    whole = [hash_ for hash_ in hashes if hash_ is not None]
    return total((Sums.of(whole), Sums(rows=len(hashes) - len(whole))))


def _nulled(cells: Cells) -> list[Any]:
    rows = set(unchanged(cells))
    return [None if row in rows else cell for row, cell in enumerate(cells)]
