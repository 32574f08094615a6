"""Rows of a snapshot by COPY straight into their table, where none of their keys is there yet.

The merge costs the server several times the COPY, and is needed only where a key is there: a
stream rarely touches a chunk that has not landed, and no key means no other row.  So the COPY is
tried in a savepoint, and whatever it refuses is left to the merge.

The guard of a READ (it lands where no row of its key is, or an older one) is held by the index of
the key: a row that is there, be it a tombstone or one that another session has not committed yet,
makes the COPY fail as a whole, and the guard of the merge decides.
"""

from __future__ import annotations

from array import array
from typing import Final

import psycopg
from psycopg import sql

from warp import faults, native
from warp.destinations.postgresql import copying
from warp.destinations.postgresql.careful import TableState, is_of_a_value
from warp.destinations.postgresql.carriers import TYPES
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing, composed
from warp.destinations.postgresql.session import Session, fitting, text
from warp.model import Kind, TableId
from warp.native import Packed
from warp.staged import READS, Staged

# Refusals beyond the batches that landed, until a unit stops trying: rows of a chunk that is read
# again, or of a table that is, are all there, and to copy them twice helps nobody.
_REFUSALS: Final = 1
_MOST: Final = 3
# Their order in Python is not the server's, or they cannot be compared (a decimal NaN).
_UNORDERED: Final = frozenset({Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL})


class Straight:
    """Tries it, and remembers for each unit whether it is worth trying."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._left: dict[tuple[str, TableId], int] = {}  # refusals that are still borne

    def lands(self, part: Staged, landing: Landing, state: TableState) -> bool:
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

    def _tried(self, part: Staged, landing: Landing) -> bool:
        self._session.run(b"SAVEPOINT straight")
        try:
            self._copy(part, landing)
            faults.hit("after_copy")
            landed = self._was_right(part, landing)
        except (psycopg.Error, OverflowError, UnicodeError) as error:
            if self._session.lost or not _leaves_it_to_the_merge(error):
                raise
            landed = False
        end = b"RELEASE SAVEPOINT straight" if landed else b"ROLLBACK TO SAVEPOINT straight"
        self._session.run(end)
        return landed

    def _copy(self, part: Staged, landing: Landing) -> None:
        schema = part.schema
        [statement] = copy_in(landing, left_out=_left_out(part))
        copying.copy(
            self._session,
            statement,
            [part.columns[place] for place in _places(landing, _left_out(part))],
            rows=len(part),
            # A table without a key shows its rows when all of them are there: see `keyless`.
            constants=[
                ("int8", part.versions[0]),
                ("bool", not schema.key),
                *[("bool", False)] * (landing.soft is not None),
            ],
            order=key_order(part, landing),
        )

    def _was_right(self, part: Staged, landing: Landing) -> bool:
        columns = [landing.schema.columns[place] for place in _places(landing, _left_out(part))]
        ours = ["_cw_deleted", *([landing.soft] if landing.soft is not None else [])]
        row = self._session.named(
            "straight_was_right",
            namespace=fitting(landing.place.namespace),
            table=fitting(landing.place.name),
            columns=[*(fitting(c.name) for c in columns), "_cw_version", *map(fitting, ours)],
            types=[*(TYPES[c.kind] for c in columns), "bigint", *["boolean"] * len(ours)],
            key=sorted(map(fitting, landing.schema.key)),
        ).fetchone()
        return row is not None and bool(row[0])


def may(part: Staged, landing: Landing, state: TableState) -> bool:
    """Are these whole rows of a snapshot, of one version, that no truncation has removed?"""
    if part.kept is not None or frozenset(part.operations) != READS or not part.one_version:
        return False
    if not part.schema.key:
        return True
    return landing.of_chunk and part.versions[0] > state.truncated_at


def key_order(part: Staged, landing: Landing) -> array[int] | None:
    """The rows in the order in which the merge takes row locks (`Landing.in_key_order`), so that a
    chunk and a stream do not wait for each other in a circle; None where they stand in it.

    Python compares text as the server compares its bytes.
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


@composed
def copy_in(landing: Landing, *, left_out: frozenset[int]) -> list[sql.Composed]:
    """Without parameters, so percent signs in names stay as they are."""
    columns: list[sql.Composable] = [
        sql.Identifier(fitting(landing.schema.columns[place].name))
        for place in _places(landing, left_out)
    ]
    columns += [VERSION, DELETED]
    if landing.soft is not None:
        columns.append(sql.Identifier(fitting(landing.soft)))
    return [
        text("copy {} ({}) from stdin (format binary)").format(
            sql.Identifier(fitting(landing.place.namespace), fitting(landing.place.name)),
            text(", ").join(columns),
        )
    ]


def _left_out(part: Staged) -> frozenset[int]:
    # As the merge: a column that no row says anything about gets its default, but none does in a
    # table without a key, where each run takes the place of the last.
    return part.left_out if part.schema.key else frozenset()


def _places(landing: Landing, left_out: frozenset[int]) -> list[int]:
    return [place for place in range(len(landing.schema.columns)) if place not in left_out]


def _leaves_it_to_the_merge(error: BaseException) -> bool:
    """A row's fault, or something that COPY cannot do or may not, and a merge perhaps can."""
    return is_of_a_value(error) or isinstance(
        error, psycopg.ProgrammingError | psycopg.NotSupportedError
    )
