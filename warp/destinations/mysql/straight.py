"""Rows of a snapshot straight into their table, where none of their keys is there yet.

The merge costs the server several times the load, and is needed only where a key is there: a
stream rarely touches a chunk that has not landed, and no key means no other row.  So the load is
tried in a savepoint, and whatever it refuses is left to the merge.

The guard of a READ (it lands where no row of its key is, or an older one) is held by the index of
the key: a row that is there, be it a tombstone or one that another session has not committed yet,
makes the load fail as a whole, and the guard of the merge decides.
"""

from __future__ import annotations

from typing import Final

import pymysql

from warp import faults
from warp.destinations.mysql.careful import TableState
from warp.destinations.mysql.errors import NotAsSent, is_of_a_value
from warp.destinations.mysql.loading import Into, Loader
from warp.destinations.mysql.merge import DELETED, VERSION, Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.staging import in_key_order
from warp.model import TableId
from warp.staged import READS, Staged

# Refusals beyond the batches that landed, until a unit stops trying: rows of a chunk that is read
# again, or of a table that is, are all there, and to load them twice helps nobody.
_REFUSALS: Final = 1
_MOST: Final = 3


class Straight:
    """Tries it, and remembers for each unit whether it is worth trying."""

    def __init__(self, session: Session, loader: Loader) -> None:
        self._session = session
        self._loader = loader
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
        landed = self._tried(in_key_order(part, landing), landing)
        self._left[of] = min(left + 1, _MOST) if landed else left - 1
        return landed

    def _tried(self, part: Staged, landing: Landing) -> bool:
        self._session.run("SAVEPOINT straight")
        try:
            self._load(part, landing)
            faults.hit("after_copy")
        except (pymysql.err.Error, NotAsSent, OverflowError, UnicodeError) as error:
            if self._session.lost or not is_of_a_value(error):
                raise
            self._session.run("ROLLBACK TO SAVEPOINT straight")
            return False
        self._session.run("RELEASE SAVEPOINT straight")
        return True

    def _load(self, part: Staged, landing: Landing) -> None:
        # As the merge: a column that no row says anything about gets its default, but none does in
        # a table without a key, where each run takes the place of the last.
        left_out = part.left_out if part.schema.key else frozenset()
        chosen = [n for n in range(len(part.schema.columns)) if n not in left_out]
        # A table without a key shows its rows when all of them are there: see `keyless`.
        constants = [
            (VERSION, str(part.versions[0])),
            (DELETED, "0" if part.schema.key else "1"),
        ]
        if landing.soft is not None:
            constants.append((quoted(fitting(landing.soft)), "0"))
        self._loader.load(
            landing.table,
            [Into(quoted(part.schema.columns[n].name), part.schema.columns[n]) for n in chosen],
            [part.carriers[n] for n in chosen],
            rows=len(part),
            constants=constants,
        )


def may(part: Staged, landing: Landing, state: TableState) -> bool:
    """Are these whole rows of a snapshot, of one version, that no truncation has removed?"""
    if part.kept is not None or frozenset(part.operations) != READS or not part.one_version:
        return False
    if not part.schema.key:
        return True
    return landing.of_chunk and part.versions[0] > state.truncated_at
