"""Rows in quarantine: how they are read, and what a transaction does with those it lands.

A transaction that lands them holds the table's own row alone, so what it finds of a key (its row,
its deletion) is what there is when it commits: nothing newer comes between look and write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from warp import metadata_rows, replays, stored
from warp.compact import Compacted
from warp.destinations.sql.landing import Landing
from warp.destinations.sql.session import Session
from warp.errors import LeaseLost
from warp.kinds import converter
from warp.model import (
    Aside,
    ChangeBatch,
    Choice,
    Kind,
    Operation,
    QuarantinedRow,
    Replay,
    SetAside,
    TableId,
    TableSchema,
    WorkUnit,
)
from warp.replays import Standing
from warp.staged import Staged, stage

PAGE: Final = 1000  # rows looked at together while a table settles
REPLAYED_BYTES: Final = 8 << 20  # of rows replayed together: no row is added to as many
_NO_LIMIT: Final = (1 << 63) - 1

S = TypeVar("S", bound=Session)
L = TypeVar("L", bound=Landing)


class Standings(ABC, Generic[S, L]):
    """What tables have of keys, by way of their staging tables, which are left empty."""

    def __init__(self, session: S) -> None:
        self._session = session

    def of(
        self,
        landing: L,
        keys: Sequence[Sequence[Any]],
        versions: Sequence[int],
        *,
        audit: bool,
    ) -> list[Standing]:
        """Of each key; `keys` are the key's columns."""
        if not versions:
            return []
        self._stage(landing, keys)
        found: list[tuple[int | None, bool]] = [(None, False)] * len(versions)
        for row, version, gone in self._present(landing):
            found[row] = version, bool(gone)
        deleted = [-1] * len(versions)
        if audit:
            for row, version in self._deleted(landing, min(versions)):
                deleted[row] = version
        self._empty(landing)
        return [
            Standing(version, gone, at) for (version, gone), at in zip(found, deleted, strict=True)
        ]

    def one_by_one(
        self, landing: L, keys: Sequence[Sequence[Any]], versions: Sequence[int]
    ) -> list[Standing]:
        """A key that cannot even be asked for is in no table; its row is refused by itself."""
        found: list[Standing] = []
        for row in range(len(versions)):
            one = [column[row : row + 1] for column in keys]
            self._session.savepoint("look")
            try:
                found += self.of(landing, one, versions[row : row + 1], audit=True)
                self._session.release("look")
            except BaseException as error:
                if self._session.lost or not self._cannot_be_asked(error):
                    raise
                self._session.back_to("look")
                found.append(Standing())
        return found

    @abstractmethod
    def _stage(self, landing: L, keys: Sequence[Sequence[Any]]) -> None:
        """The keys into the staging table; the number of each stands where its version would."""

    @abstractmethod
    def _present(self, landing: L) -> Sequence[Sequence[Any]]:
        """The number of a key, the version of its row, and whether that is gone."""

    @abstractmethod
    def _deleted(self, landing: L, oldest: int) -> Sequence[Sequence[Any]]:
        """The number of a key, and the version of its last deletion in the audit."""

    @abstractmethod
    def _empty(self, landing: L) -> None: ...

    @abstractmethod
    def _cannot_be_asked(self, error: BaseException) -> bool:
        """Is it the fault of a key that no column of the table could hold?"""


class Replaying(Generic[L]):
    """The rows of one write transaction that come out of quarantine, and what becomes of each."""

    def __init__(
        self,
        session: Session,
        standings: Standings[Any, L],
        unit: WorkUnit,
        replay: Replay,
        batch: ChangeBatch,
    ) -> None:
        self.unlanded: list[tuple[TableId, Operation]] = []
        self._session = session
        self._standings = standings
        self._unit = unit
        self._replay = replay
        self._cells: frozenset[int] = frozenset()
        self._became: dict[int, tuple[Aside, str]] = {
            id: (Aside.WAITING, why) for id, why in replay.refused.items()
        }
        # As they came: the staged ones do not tell a partial read from a partial update.
        self._operations = [Operation(code) for part in batch.changes for code in part.operations]
        self._sifted = 0  # rows of the parts that were sifted so far
        # Key -> id and operation, of the rows of the part under way.
        self._landing: dict[str, tuple[int, Operation]] = {}

    def lock(self) -> None:
        """Nobody else decides about these rows until the transaction ends."""
        wanted = {*self._replay.ids, *self._replay.refused}
        rows = self._session.named("lock_replayed", ids=sorted(wanted)).fetchall()
        if missing := wanted - {id for id, _ in rows}:
            raise LeaseLost(
                f"expected rows of the quarantine that are to be replayed, found {len(missing)} "
                f"decided about meanwhile (the first is {min(missing)}); drop the batch",
                place=self._unit.id,
            )
        self._cells = frozenset(id for id, column in rows if column)

    def sift(self, part: Staged, landing: L, truncated_at: int, *, carefully: bool) -> Staged:
        """The rows that nothing newer overrules."""
        first, self._sifted = self._sifted, self._sifted + len(part)
        keys = [part.carriers[place] for place in landing.places(landing.schema.key)]
        if carefully:
            standings = self._standings.one_by_one(landing, keys, part.versions)
        else:
            standings = self._standings.of(landing, keys, part.versions, audit=True)
        lands: list[int] = []
        self._landing = {}
        for row, standing in enumerate(standings):
            id, operation = self._replay.ids[first + row], self._operations[first + row]
            why = replays.overruled(
                operation,
                part.versions[row],
                standing,
                cell=id in self._cells,
                truncated_at=truncated_at,
            )
            if why:
                self._became[id] = Aside.SUPERSEDED, why
                self.unlanded.append((landing.schema.table, operation))
            else:
                self._became[id] = Aside.REPLAYED, ""
                self._landing[part.key_of(row)] = id, operation
                lands.append(row)
        return part if len(lands) == len(part) else part.only(lands)

    def refused(self, row: QuarantinedRow) -> None:
        """A row that the table would not take: it stays the row of the quarantine it is."""
        id, operation = self._landing[row.key]
        self._became[id] = Aside.WAITING, row.reason
        self.unlanded.append((row.table, operation))

    def settle(self) -> None:
        """Write down what became of each, in the transaction of the rows (guarantee 1)."""
        self._session.each(
            "settle_replayed",
            [
                {"id": id, "state": state.value, "why": self._session.storable(why)}
                for id, (state, why) in sorted(self._became.items())
            ],
        )


def supersede_deleted(session: Session, part: Staged) -> None:
    """In the transaction of a delete: what was set aside of its key before shall not land."""
    table = part.schema.table
    where = {"namespace": table.namespace, "table": table.name}
    if session.named("any_undecided", **where).fetchone() is None:
        return
    session.each(
        "supersede_deleted",
        [
            {"key": session.storable(part.key_of(row)), "version": part.versions[row], **where}
            for row, code in enumerate(part.operations)
            if code == Operation.DELETE
        ],
    )


def undecided(session: Session, part: Staged) -> set[int]:
    """The rows, by their place, of whose keys something waits in quarantine.

    What it alone has changed is in no row of the table, and what is written now overrules it.
    """
    table = part.schema.table
    where = {"namespace": table.namespace, "table": table.name}
    if not len(part) or session.named("any_undecided", **where).fetchone() is None:
        return set()
    keys = [session.storable(part.key_of(row)) for row in range(len(part))]
    waiting = {key for (key,) in session.named("undecided_keys", keys=keys, **where).fetchall()}
    return {row for row, key in enumerate(keys) if key in waiting}


def supersede_gone(
    session: Session, standings: Standings[Any, L], landing: L, *, below: int
) -> None:
    """In the transaction that settles a table, before tombstones and stale rows go from it."""
    table = landing.schema.table
    where = {"namespace": table.namespace, "table": table.name}
    if below > -1:
        session.named("supersede_older", below=below, **where)
    after = 0
    while page := session.named("undecided", after=after, limit=PAGE, **where).fetchall():
        after = page[-1][0]
        overruled = _overruled(session, standings, landing, page)
        if overruled:
            session.each("supersede", [{"id": id, "why": why} for id, why in overruled.items()])


def _overruled(
    session: Session, standings: Standings[Any, L], landing: L, page: Sequence[Sequence[Any]]
) -> dict[int, str]:
    """Id -> why, of the rows of one page that a tombstone or a newer row overrules."""
    schema = landing.schema
    places = landing.places(schema.key)
    if not places:
        return {}
    columns: list[list[Any]] = [[] for _ in places]
    rows = []
    for row in page:
        _, key, kinds, *_ = row
        of = session.of_json(kinds)
        try:
            carriers = stored.load(key, of)
            cells = [
                _as(schema, place, carriers[schema.columns[place].name], of) for place in places
            ]
        except (KeyError, ValueError):
            continue  # not this table's key any more: it is looked at when it is replayed
        rows.append(row)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    keys = TableSchema(schema.table, tuple(schema.columns[place] for place in places), schema.key)
    versions = [row[3] for row in rows]
    staged = stage(keys, Compacted(b"u" * len(rows), versions, columns))
    standing_of = standings.of(landing, staged.carriers, versions, audit=False)
    found = {}
    for (id, _, _, version, operation, column), standing in zip(rows, standing_of, strict=True):
        # A cell's row that is not there is a question for its replay, not for this table.
        if standing.version is not None and (
            why := replays.overruled(
                Operation(ord(operation)), version, standing, cell=bool(column), truncated_at=-1
            )
        ):
            found[id] = why
    return found


def _as(schema: TableSchema, place: int, cell: Any, kinds: Mapping[str, str]) -> Any:
    """A stored cell as its column has it now."""
    column = schema.columns[place]
    have = kinds[column.name]
    if have == column.kind or cell is None:
        return cell
    convert = converter(Kind(have), column.kind)
    if convert is None:
        raise ValueError
    return convert(cell)


# ---------------------------------------------------------------- reading


def chosen(session: Session, choice: Choice) -> dict[str, Any]:
    """A choice as the parameters of read_quarantine.sql and read_errors.sql."""
    return {
        "any_id": choice.ids is None,
        "ids": list(choice.ids or ()),
        "any_schema": not choice.schemas,
        "schemas": list(choice.schemas),
        "table": session.storable(choice.table),
        "code": session.storable(choice.code),
        "reason": session.storable(choice.reason),
        "any_state": not choice.states,
        "states": [state.value for state in choice.states],
        "older_than": choice.older_than,
        "newer_than": choice.newer_than,
        "after": choice.after,
        "limit": _NO_LIMIT if choice.limit is None else choice.limit,
        "whole": choice.whole,
    }


def set_aside(session: Session, row: Sequence[Any]) -> SetAside:
    """From the columns of read_quarantine.sql."""
    kinds = session.of_json(row[metadata_rows.KINDS_OF_SET_ASIDE])
    return metadata_rows.set_aside(row, kinds)
