"""Landing a table's changes when a row among them was refused: which one, and for whose sake.

Halving finds k bad rows of n in O(k log n) statements; the rest lands.  Rows without a parent are
found by one query for each foreign key instead, because there may be as many as the batch has.
Everything happens inside savepoints of the write transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
from psycopg import sql

from warp.compact import Compacted
from warp.destinations.postgresql import constraints, merge
from warp.destinations.postgresql.constraints import (
    OF_A_REFERENCE,
    OF_A_RIVAL,
    Constraints,
    Reference,
    constraint_of,
    state_of,
    table_of,
)
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.session import Session, fitting
from warp.destinations.sql.landing import TableState, deletes_first
from warp.destinations.sql.staging import SqlStaging
from warp.model import ABSENT, Operation, Phase, TableId
from warp.staged import Staged, stage

# 21 two rows of one statement for one key, 22 values, 23 constraints, 54 index row too large;
# P0, 38, 39 and 44 are what functions, triggers and views of the destination's owner raise.
_VALUE_CLASSES: Final = frozenset({"21", "22", "23", "38", "39", "44", "54", "P0"})
_OF_A_VALUE: Final = (psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError)
# How often rows are set apart and the others tried anew before each is judged alone.
_ROUNDS: Final = 8
_MANY: Final = 8  # rows, for which a query costs less than halving them
_CHAIN: Final = 20  # rows that refer to rows that refer to … a missing one
_AT_ONCE: Final = 500  # keys to delete, where a truncation was refused


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of a part that did not land, and why."""

    row: int
    sqlstate: str
    code: str  # for people
    reason: str
    waits: bool = False  # for another row's change, rather than for a person
    constraint: str = ""
    reference: Reference | None = None  # the foreign key that finds no parent
    place: TableId | None = None  # the destination's table that must change first


def is_of_a_value(error: BaseException) -> bool:
    """Is it one row's fault, so that the others can land without it?"""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate[:2] in _VALUE_CLASSES
    return isinstance(error, _OF_A_VALUE)


class Careful:
    """Lands what can land of one table's changes."""

    def __init__(self, session: Session, writes: SqlStaging[Session, Landing]) -> None:
        self._session = session
        self._writes = writes

    def land(self, part: Staged, landing: Landing, state: TableState) -> list[Refusal]:
        """Land the rows; returns those that were refused, each alone.

        Rows whose unique values are vacated first, and are then refused, are put back and left
        out of the next round: a row that does not land keeps what it had.
        """
        apart: dict[int, Refusal] = {}
        known: Constraints | None = None
        vacating = False
        for turn in range(_ROUNDS + 1):
            rest = [row for row in deletes_first(part) if row not in apart]
            if not rest:
                break
            last = turn == _ROUNDS  # judges each row as it is, so that none is left undecided
            vacant = known.vacant if known is not None and vacating and not last else ()
            self._session.run(b"SAVEPOINT part")
            attempt = _Attempt(self, part, landing, state, known is not None and known.deferrable)
            error = attempt.lands(rest, vacant)
            if error is None:
                self._session.run(b"RELEASE SAVEPOINT part")
                break
            if known is None and state_of(error) in OF_A_REFERENCE | OF_A_RIVAL:
                known = constraints.read(self._session, landing.place)
                found: dict[int, Refusal] = {}
                if state_of(error) in OF_A_REFERENCE:
                    found = self.orphans(part, rest, landing, state, known)
                    apart |= found
                vacating = state_of(error) in OF_A_RIVAL and bool(known.vacant)
                if found or vacating or known.deferrable:
                    self._session.run(b"RELEASE SAVEPOINT part")
                    continue
            if vacant and not attempt.vacates(rest, vacant):
                vacant = ()  # a check of the owner's wants a value there
            refused = attempt.halved(rest, error)
            if vacant and refused:  # those must not stay vacated
                apart |= {one.row: one for one in refused}
                self._session.run(b"ROLLBACK TO SAVEPOINT part")
                continue
            if not (last or vacating) and any(one.sqlstate in OF_A_RIVAL for one in refused):
                known = known or constraints.read(self._session, landing.place)
                vacating = bool(known.vacant)
                if vacating:
                    apart |= {one.row: one for one in refused if not one.waits}
                    self._session.run(b"ROLLBACK TO SAVEPOINT part")
                    continue
            apart |= {one.row: one for one in refused}
            self._session.run(b"RELEASE SAVEPOINT part")
            break
        return [_placed(apart[row], landing, known) for row in sorted(apart)]

    def alone(self, steps: Iterable[bytes], parameters: Mapping[str, Any]) -> bool:
        """Run statements in a savepoint; False, and nothing done, where a row was in the way."""
        self._session.run(b"SAVEPOINT alone")
        try:
            for step in steps:
                self._session.run(step, parameters)
        except psycopg.IntegrityError:
            if self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT alone")
            return False
        self._session.run(b"RELEASE SAVEPOINT alone")
        return True

    def lands_whole(self, groups: Iterable[tuple[Staged, Landing, TableState]]) -> bool:
        """Land rows of several tables together, or none of them."""
        self._session.run(b"SAVEPOINT together")
        try:
            self._session.run(b"SET CONSTRAINTS ALL DEFERRED")
            for part, landing, state in groups:
                self._write(part, landing, state)
            self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
        except BaseException as error:
            if not is_of_a_value(error) or self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT together")
            self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
            return False
        self._session.run(b"RELEASE SAVEPOINT together")
        return True

    def cleared(
        self,
        landing: Landing,
        state: TableState,
        condition: sql.Composable,
        parameters: Mapping[str, Any],
        *,
        version: int | None = None,
    ) -> Iterator[tuple[Staged, list[Refusal]]]:
        """Delete the rows that the condition finds one by one, where all at once was refused.

        Yields those that are still referred to.  `version` is the deletes', each row's own where
        there is none.
        """
        gone = replace(state, phase=Phase.STREAMING)  # deleted, not left as tombstones
        keys = constraints.keys_up_to(landing, condition)
        self._session.run(sql.SQL("declare cw_keys no scroll cursor for ") + keys, parameters)
        while rows := self._session.run(f"fetch {_AT_ONCE} from cw_keys".encode()).fetchall():
            part = _deletes(landing, rows, version)
            refused = self.land(part, landing, gone)
            if refused:
                yield part, refused
        self._session.run(b"close cw_keys")

    def orphans(
        self,
        part: Staged,
        rest: Sequence[int],
        landing: Landing,
        state: TableState,
        known: Constraints,
    ) -> dict[int, Refusal]:
        """Rows that refer to one that is not there, by a query for each foreign key."""
        found: dict[int, Refusal] = {}
        asked = [
            (reference, query)
            for reference in known.outgoing
            if (query := constraints.orphans(landing, reference, part.left_out)) is not None
        ]
        self._session.run(b"SAVEPOINT orphans")
        try:
            for _ in range(_CHAIN):
                left = [row for row in rest if row not in found]
                if not asked or not left:
                    break
                self._writes.copy(part.only(left), landing, left)
                before = len(found)
                for reference, query in asked:
                    for (row,) in self._session.run(query, {"after": state.truncated_at}):
                        found.setdefault(row, _orphan(row, reference))
                self._session.run(merge.empty_staging(landing)[0])
                if len(found) == before:
                    break
        except (psycopg.ProgrammingError, *_OF_A_VALUE):
            # No right to read the parent, or a value that cannot be staged: the halving tells.
            if self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT orphans")
        self._session.run(b"RELEASE SAVEPOINT orphans")
        return found

    def _write(self, part: Staged, landing: Landing, state: TableState) -> None:
        self._writes.copy(part, landing)
        self._writes.merge(part, landing, state)
        self._session.run(merge.empty_staging(landing)[0])


class _Attempt:
    """Rows of one part, tried together or apart."""

    def __init__(
        self,
        careful: Careful,
        part: Staged,
        landing: Landing,
        state: TableState,
        deferrable: bool,
    ) -> None:
        self._careful = careful
        self._session = careful._session
        self._writes = careful._writes
        self._part = part
        self._landing = landing
        self._state = state
        self.deferrable = deferrable

    def lands(self, rows: Sequence[int], vacant: Sequence[str] = ()) -> BaseException | None:
        """Try these rows in a savepoint; None where they landed."""
        some = self._part.only(rows)
        self._session.run(b"SAVEPOINT land")
        try:
            if self.deferrable:
                self._session.run(b"SET CONSTRAINTS ALL DEFERRED")
            if vacant:
                self.vacate(rows, vacant)
            self._writes.copy(some, self._landing)
            self._writes.merge(some, self._landing, self._state)
            if self.deferrable:
                self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
            self._session.run(merge.empty_staging(self._landing)[0])
        except BaseException as error:
            if not is_of_a_value(error) or self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT land")
            if self.deferrable:
                self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
            return error
        self._session.run(b"RELEASE SAVEPOINT land")
        return None

    def vacate(self, rows: Sequence[int], vacant: Sequence[str]) -> None:
        some = self._part.only(rows)
        statement = constraints.vacate(self._landing, vacant, some.left_out)
        if statement is not None:
            self._writes.copy(some, self._landing, rows)
            self._session.run(statement, {"after": self._state.truncated_at})
            self._session.run(merge.empty_staging(self._landing)[0])

    def vacates(self, rows: Sequence[int], vacant: Sequence[str]) -> bool:
        self._session.run(b"SAVEPOINT vacant")
        try:
            self.vacate(rows, vacant)
        except BaseException as error:
            if not is_of_a_value(error) or self._session.lost:
                raise
            self._session.run(b"ROLLBACK TO SAVEPOINT vacant")
            return False
        self._session.run(b"RELEASE SAVEPOINT vacant")
        return True

    def halved(self, rows: Sequence[int], error: BaseException) -> list[Refusal]:
        """Those of the rows, which were refused together, that are refused alone."""
        if len(rows) == 1:
            return [_refusal(rows[0], error)]
        if len(rows) >= _MANY and state_of(error) in OF_A_REFERENCE:
            known = constraints.read(self._session, self._landing.place)
            apart = self._careful.orphans(self._part, rows, self._landing, self._state, known)
            if apart:
                rest = [row for row in rows if row not in apart]
                again = self.lands(rest) if rest else None
                return [*apart.values(), *(self.halved(rest, again) if again else ())]
        middle = len(rows) // 2
        refused: list[Refusal] = []
        for half in (rows[:middle], rows[middle:]):
            found = self.lands(half)
            if found is not None:
                refused += self.halved(half, found)
        return refused


def _refusal(row: int, error: BaseException) -> Refusal:
    code = state_of(error)
    return Refusal(
        row,
        code,
        f"SQLSTATE {code}" if code else type(error).__name__,
        str(error),
        code in OF_A_REFERENCE | OF_A_RIVAL,
        constraint_of(error),
        place=table_of(error),
    )


def _orphan(row: int, reference: Reference) -> Refusal:
    reason = (
        f"no row of {reference.parent} for the foreign key {reference.name} of {reference.child}"
    )
    return Refusal(
        row, "23503", "SQLSTATE 23503", reason, True, reference.name, reference, reference.parent
    )


def _placed(refusal: Refusal, landing: Landing, known: Constraints | None) -> Refusal:
    """With what it waits for, where the server has told the constraint only."""
    if not refusal.waits or refusal.reference is not None:
        return refusal
    here = TableId(fitting(landing.place.namespace), fitting(landing.place.name))
    if refusal.sqlstate in OF_A_RIVAL:
        return replace(refusal, place=here)
    outgoing = known.outgoing if known else ()
    for reference in outgoing:
        if reference.name == refusal.constraint and refusal.place == here:
            return replace(refusal, reference=reference, place=reference.parent)
    return refusal if refusal.place else replace(refusal, place=here)


def _deletes(landing: Landing, rows: Sequence[Sequence[Any]], version: int | None) -> Staged:
    schema = landing.schema
    columns: list[list[Any]] = [[ABSENT] * len(rows) for _ in schema.columns]
    for at, place in enumerate(landing.places(schema.key)):
        columns[place] = [row[at] for row in rows]
    versions = [row[-1] if version is None else version for row in rows]
    operations = bytes([Operation.DELETE]) * len(rows)
    return stage(schema, Compacted(operations, versions, columns))
