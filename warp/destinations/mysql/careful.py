"""Landing a table's changes when a row among them was refused: which one, and why.

Halving finds k bad rows of n in O(k log n) statements; the rest lands.  Everything happens inside
savepoints of the write transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from warp.destinations.mysql import merge
from warp.destinations.mysql.errors import DUPLICATE, code_of, is_of_a_value, said_by
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.names import fitting
from warp.destinations.mysql.session import Session
from warp.destinations.sql import refused
from warp.destinations.sql.landing import TableState, deletes_first
from warp.destinations.sql.staging import SqlStaging
from warp.model import QuarantinedRow
from warp.staged import Staged

_ROUNDS: Final = 8  # a row that lands may free the unique value that another one takes


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of a part that did not land, and why."""

    row: int
    number: int
    reason: str

    @property
    def code(self) -> str:
        """For people."""
        return f"MYSQL {self.number}" if self.number else "conversion"


class Careful:
    """Lands what can land of one table's changes."""

    def __init__(self, session: Session, writes: SqlStaging[Session, Landing]) -> None:
        self._session = session
        self._writes = writes

    def land(self, part: Staged, landing: Landing, state: TableState) -> list[Refusal]:
        """Land the rows; returns those that were refused, each alone."""
        rows = deletes_first(part)
        error = self._lands(part, rows, landing, state)
        refused = [] if error is None else self._halved(part, rows, landing, state, error)
        for _ in range(_ROUNDS):
            rivals = [one.row for one in refused if one.number == DUPLICATE]
            if not rivals:
                break
            left = self._again(part, rivals, landing, state)
            if len(left) == len(rivals):
                break
            refused = [one for one in refused if one.number != DUPLICATE] + left
        return sorted(refused, key=lambda one: one.row)

    def _again(
        self, part: Staged, rows: Sequence[int], landing: Landing, state: TableState
    ) -> list[Refusal]:
        """Rows whose unique value another row held, now that others have landed: one by one, and
        where that helps none of them, together, after their old values were taken from them."""
        left = [
            Refusal(row, code_of(error), said_by(error))
            for row in rows
            if (error := self._lands(part, [row], landing, state)) is not None
        ]
        if len(left) == len(rows) > 1 and self._lands(part, rows, landing, state, True) is None:
            return []
        return left

    def _lands(
        self,
        part: Staged,
        rows: Sequence[int],
        landing: Landing,
        state: TableState,
        vacated: bool = False,
    ) -> BaseException | None:
        """Try these rows in a savepoint; None where they landed."""
        some = part.only(rows)
        self._session.run("SAVEPOINT land")
        try:
            if vacated:
                self._vacate(some, landing)
            self._writes.copy(some, landing)
            self._writes.merge(some, landing, state)
        except BaseException as error:
            if not is_of_a_value(error) or self._session.lost:
                raise
            self._session.run("ROLLBACK TO SAVEPOINT land")
            return error
        self._session.run("RELEASE SAVEPOINT land")
        return None

    def _vacate(self, part: Staged, landing: Landing) -> None:
        unique = self._session.named(
            "unique_columns",
            namespace=fitting(landing.place.namespace),
            table=fitting(landing.place.name),
        )
        ours = set(landing.schema.names()) - set(landing.schema.key)
        columns = tuple(
            str(name) for name, nullable in unique.fetchall() if nullable and name in ours
        )
        if columns:
            self._writes.copy(part, landing, range(len(part)))
            self._session.run_all(
                merge.vacate(landing, columns=columns, one_version=False), {"version": 0}
            )

    def _halved(
        self,
        part: Staged,
        rows: Sequence[int],
        landing: Landing,
        state: TableState,
        error: BaseException,
    ) -> list[Refusal]:
        """Those of the rows, which were refused together, that are refused alone."""
        if len(rows) == 1:
            return [Refusal(rows[0], code_of(error), said_by(error))]
        middle = len(rows) // 2
        refused: list[Refusal] = []
        for half in (rows[:middle], rows[middle:]):
            found = self._lands(part, half, landing, state)
            if found is not None:
                refused += self._halved(part, half, landing, state, found)
        return refused


def quarantined(part: Staged, refusal: Refusal) -> QuarantinedRow:
    """The refused row of a part."""
    row = refusal.row
    return refused.quarantined(
        part.schema,
        [column[row] for column in part.carriers],
        refused.operation_of(part, row),
        part.versions[row],
        reason=refusal.reason,
        code=refusal.code,
    )
