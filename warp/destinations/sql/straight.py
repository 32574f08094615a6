"""Rows of a snapshot straight into their table, where none of their keys is there yet.

The merge costs the server several times the copy, and is needed only where a key is there: a
stream rarely touches a chunk that has not landed, and no key means no other row.  So the copy is
tried in a savepoint, and whatever it refuses is left to the merge.

The guard of a READ (it lands where no row of its key is, or an older one) is held by the index of
the key: a row that is there, be it a tombstone or one that another session has not committed yet,
makes the copy fail as a whole, and the guard of the merge decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import ClassVar, Final, Generic, TypeVar

from warp import faults, native
from warp.destinations.sql.landing import Landing, TableState
from warp.destinations.sql.session import Session
from warp.model import Kind, TableId
from warp.native import Packed
from warp.staged import READS, Staged

# Refusals beyond the batches that landed, until a unit stops trying: rows of a chunk that is read
# again, or of a table that is, are all there, and to copy them twice helps nobody.
_REFUSALS: Final = 1
_MOST: Final = 3
# Their order in Python is not the server's, or they cannot be compared (a decimal NaN).
_UNORDERED: Final = frozenset({Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL})

S = TypeVar("S", bound=Session)
L = TypeVar("L", bound=Landing)


class Straight(ABC, Generic[S, L]):
    """Tries it, and remembers for each unit whether it is worth trying."""

    FAILURES: ClassVar[tuple[type[BaseException], ...]]
    """What a copy may raise."""

    def __init__(self, session: S) -> None:
        self._session = session
        self._left: dict[tuple[str, TableId], int] = {}  # refusals that are still borne

    @abstractmethod
    def _copy(self, part: Staged, landing: L, order: array[int] | None) -> None:
        """Copy the rows in this order, where one is given."""

    @abstractmethod
    def _leaves_it_to_the_merge(self, error: BaseException) -> bool:
        """A row's fault, or something that a copy cannot do or may not, and a merge perhaps can."""

    def _was_right(self, part: Staged, landing: L) -> bool:
        """Did the table take the rows as the merge would have written them?"""
        return True

    def lands(self, part: Staged, landing: L, state: TableState) -> bool:
        """Land the rows and say so; False, with nothing done, where the merge must land them."""
        if not may(part, landing, state):
            return False
        of = landing.unit, landing.schema.table
        # Of a table that is read anew most rows are there.
        left = self._left.get(of, _REFUSALS if state.epoch == 0 else 0)
        if left < 0:
            return False
        landed = self._tried(part, landing)
        self._left[of] = min(left + 1, _MOST) if landed else left - 1
        return landed

    def _tried(self, part: Staged, landing: L) -> bool:
        self._session.savepoint("straight")
        try:
            self._copy(part, landing, key_order(part, landing))
            faults.hit("after_copy")
            landed = self._was_right(part, landing)
        except self.FAILURES as error:
            if self._session.lost or not self._leaves_it_to_the_merge(error):
                raise
            landed = False
        if landed:
            self._session.release("straight")
        else:
            self._session.back_to("straight")
        return landed


def may(part: Staged, landing: Landing, state: TableState) -> bool:
    """Are these whole rows of a snapshot, of one version, that no truncation has removed?"""
    if part.kept is not None or frozenset(part.operations) != READS or not part.one_version:
        return False
    if not part.schema.key:
        return True
    return landing.of_chunk and part.versions[0] > state.truncated_at


def left_out(part: Staged) -> frozenset[int]:
    """As the merge: a column that no row says anything about gets its default, but none does in a
    table without a key, where each run takes the place of the last."""
    return part.left_out if part.schema.key else frozenset()


def key_order(part: Staged, landing: Landing) -> array[int] | None:
    """The rows in the order in which a merge takes row locks, so that a chunk and a stream do not
    wait for each other in a circle; None where they stand in it.

    Python compares text as the servers compare its bytes.
    """
    places = landing.places(landing.schema.key)
    if not places or any(part.schema.columns[place].kind in _UNORDERED for place in places):
        return None
    columns = [part.carriers[place] for place in places]
    if len(columns) == 1 and isinstance(columns[0], Packed) and not columns[0].blank:
        packed = columns[0]
        if native.packed.in_order(packed):
            return None
        if native.packed.compares_by_bytes(packed.kind):
            return native.packed.sorted_rows(packed)
    keys = list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))
    try:
        if sorted(keys) == keys:
            return None
        return array("q", sorted(range(len(keys)), key=keys.__getitem__))
    except TypeError:  # a key that is NULL: the server refuses it
        return None
