"""Rows in quarantine: how they are read, and what a transaction does with those it lands.

A transaction that lands them holds the table's own row alone, so what it finds of a key (its row,
its deletion) is what there is when it commits: nothing newer comes between look and write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from warp import metadata_rows, replays, stored
from warp.compact import Compacted
from warp.destinations.postgresql import copying, merge
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing
from warp.destinations.postgresql.session import Session, literal, name, storable, text
from warp.errors import LeaseLost
from warp.kinds import converter
from warp.model import (
    Aside,
    ChangeBatch,
    Choice,
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
_COMMA = text(", ")


class Replaying:
    """The rows of one write transaction that come out of quarantine, and what becomes of each."""

    def __init__(
        self, session: Session, unit: WorkUnit, replay: Replay, batch: ChangeBatch
    ) -> None:
        self.unlanded: list[tuple[TableId, Operation]] = []
        self._session = session
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

    def sift(self, part: Staged, landing: Landing, truncated_at: int, *, carefully: bool) -> Staged:
        """The rows that nothing newer overrules."""
        first, self._sifted = self._sifted, self._sifted + len(part)
        keys = [part.carriers[place] for place in landing.places(landing.schema.key)]
        if carefully:
            standings = self._one_by_one(landing, keys, part.versions)
        else:
            standings = standings_of(self._session, landing, keys, part.versions, audit=True)
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

    def _one_by_one(
        self, landing: Landing, keys: Sequence[Sequence[Any]], versions: Sequence[int]
    ) -> list[Standing]:
        """A key that cannot even be asked for is in no table; its row is refused by itself."""
        found: list[Standing] = []
        for row in range(len(versions)):
            one = [column[row : row + 1] for column in keys]
            self._session.run(b"SAVEPOINT look")
            try:
                found += standings_of(
                    self._session, landing, one, versions[row : row + 1], audit=True
                )
                self._session.run(b"RELEASE SAVEPOINT look")
            except (psycopg.DataError, OverflowError, UnicodeError):
                if self._session.lost:
                    raise
                self._session.run(b"ROLLBACK TO SAVEPOINT look")
                found.append(Standing())
        return found

    def refused(self, rows: Iterable[QuarantinedRow]) -> None:
        """Rows that the table would not take: they stay the rows of the quarantine they are."""
        for row in rows:
            id, operation = self._landing[row.key]
            self._became[id] = Aside.WAITING, row.reason
            self.unlanded.append((row.table, operation))

    def settle(self) -> None:
        """Write down what became of each, in the transaction of the rows (guarantee 1)."""
        ids = sorted(self._became)
        self._session.named(
            "settle_replayed",
            ids=ids,
            states=[self._became[id][0].value for id in ids],
            reasons=[storable(self._became[id][1]) for id in ids],
        )


def supersede_deleted(session: Session, part: Staged) -> None:
    """In the transaction of a delete: what was set aside of its key before shall not land."""
    table = part.schema.table
    where = {"namespace": table.namespace, "table": table.name}
    if session.named("any_undecided", **where).fetchone() is None:
        return
    rows = [row for row, code in enumerate(part.operations) if code == Operation.DELETE]
    session.named(
        "supersede_deleted",
        keys=[part.key_of(row) for row in rows],
        versions=[part.versions[row] for row in rows],
        **where,
    )


def supersede_gone(session: Session, landing: Landing, *, below: int) -> None:
    """In the transaction that settles a table, before tombstones and stale rows go from it."""
    table = landing.schema.table
    where = {"namespace": table.namespace, "table": table.name}
    if below > -1:
        session.named("supersede_older", below=below, **where)
    after = 0
    while page := session.named("undecided", after=after, limit=PAGE, **where).fetchall():
        after = page[-1][0]
        overruled = _overruled(session, landing, page)
        session.named("supersede", ids=list(overruled), reasons=list(overruled.values()))


def _overruled(session: Session, landing: Landing, page: Sequence[Sequence[Any]]) -> dict[int, str]:
    """Id -> why, of the rows of one page that a tombstone or a newer row overrules."""
    schema = landing.schema
    places = landing.places(schema.key)
    columns: list[list[Any]] = [[] for _ in places]
    rows = []
    for row in page:
        _, key, kinds, *_ = row
        try:
            carriers = stored.load(key, kinds)
            cells = [
                _as(schema, place, carriers[schema.columns[place].name], kinds) for place in places
            ]
        except (KeyError, ValueError):
            continue  # not this table's key any more: it is looked at when it is replayed
        rows.append(row)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    keys = TableSchema(schema.table, tuple(schema.columns[place] for place in places), schema.key)
    versions = [row[3] for row in rows]
    staged = stage(keys, Compacted(b"u" * len(rows), versions, columns))
    standings = standings_of(session, landing, staged.carriers, versions, audit=False)
    found = {}
    for (id, _, _, version, operation, column), standing in zip(rows, standings, strict=True):
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
    convert = converter(type(column.kind)(have), column.kind)
    if convert is None:
        raise ValueError
    return convert(cell)


def standings_of(
    session: Session,
    landing: Landing,
    keys: Sequence[Sequence[Any]],
    versions: Sequence[int],
    *,
    audit: bool,
) -> list[Standing]:
    """What the table has of each key; `keys` are the key's columns.

    Leaves the staging table as empty as it was.
    """
    if not versions:
        return []
    schema = landing.schema
    places = landing.places(schema.key)
    kinds = [schema.columns[place].kind for place in places]
    copying.copy(
        session,
        _copy_keys(landing),
        list(zip(kinds, keys, strict=True)),
        rows=len(versions),
        beside=[("int8", range(len(versions)))],
    )
    found: list[tuple[int | None, bool]] = [(None, False)] * len(versions)
    for row, version, gone in session.run(_present(landing)):
        found[row] = version, gone
    deleted = [-1] * len(versions)
    if audit:
        for row, version in session.run(_deleted(landing), {"oldest": min(versions)}):
            deleted[row] = version
    [empty] = merge.empty_staging(landing)
    session.run(empty)
    return [Standing(version, gone, at) for (version, gone), at in zip(found, deleted, strict=True)]


def _copy_keys(landing: Landing) -> bytes:
    """The number of each row stands where its version would."""
    columns = [f"c{place}" for place in landing.places(landing.schema.key)] + ["v"]
    return (
        text("copy {} ({}) from stdin (format binary)")
        .format(landing.staged, _COMMA.join(map(sql.Identifier, columns)))
        .as_bytes(None)
    )


def _present(landing: Landing) -> sql.Composed:
    gone: sql.Composable = text("d.{}").format(DELETED)
    if landing.soft is not None:
        gone = text("d.{} or coalesce(d.{}, false)").format(DELETED, name(landing.soft))
    return text("select s.v, d.{}, {} from {} as s join {} as d on {}").format(
        VERSION, gone, landing.staged, landing.table, landing.same_key
    )


def _deleted(landing: Landing) -> sql.Composed:
    """Deletions of these keys in the audit, as it writes a key."""
    key = landing.schema.key
    built = _COMMA.join(
        text("{}, {}").format(literal(column), landing.cell(place))
        for column, place in zip(key, landing.places(key), strict=True)
    )
    return text(
        "select s.v, max(a.version) from {} as s join {} as a"
        " on a.source_namespace = {} and a.source_table = {} and a.version >= %(oldest)s"
        " and a.key = jsonb_build_object({}) group by s.v"
    ).format(
        landing.staged,
        name(landing.meta, "deletion_audit"),
        literal(landing.schema.table.namespace),
        literal(landing.schema.table.name),
        built,
    )


# ---------------------------------------------------------------- reading


def chosen(choice: Choice) -> dict[str, Any]:
    """A choice as the parameters of read_quarantine.sql and read_errors.sql."""
    return {
        "ids": None if choice.ids is None else list(choice.ids),
        "schemas": list(choice.schemas),
        "table": storable(choice.table),
        "code": storable(choice.code),
        "reason": storable(choice.reason),
        "states": [state.value for state in choice.states],
        "older_than": choice.older_than,
        "newer_than": choice.newer_than,
        "after": choice.after,
        "limit": choice.limit,
        "whole": choice.whole,
    }


def set_aside(row: Sequence[Any]) -> SetAside:
    """From the columns of read_quarantine.sql."""
    return metadata_rows.set_aside(row, row[metadata_rows.KINDS_OF_SET_ASIDE])
