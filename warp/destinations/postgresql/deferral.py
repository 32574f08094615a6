"""Changes that wait for another row's: a child for its parent, a parent's delete for its children,
a unique value for the row that holds it.

They lie in `deferred_rows`, the newest change of each key, and are tried again in the write
transactions of whoever writes what they wait for, and every few seconds by their own unit.  A row
lock on the entry keeps two of them apart; the version guard of the merge makes an entry that was
overruled meanwhile harmless.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from warp import metadata_rows, stored
from warp.compact import Compacted
from warp.destinations.postgresql import constraints, ddl, merge
from warp.destinations.postgresql.careful import Careful, Refusal
from warp.destinations.postgresql.constraints import Reference, places_of, wanted_text
from warp.destinations.postgresql.merge import Landing
from warp.destinations.postgresql.session import Session, fitting, storable
from warp.destinations.sql.landing import TableState
from warp.destinations.sql.refused import is_partial, must_have_quarantine, operation_of
from warp.destinations.sql.refused import quarantined as set_aside
from warp.errors import DestinationRefused
from warp.kinds import Relation, converter, relation
from warp.model import (
    SHARED,
    UNCHANGED,
    Kind,
    Operation,
    Phase,
    Position,
    QuarantinedRow,
    TableId,
    TableSchema,
    TableSelection,
    WorkUnit,
)
from warp.staged import Staged, stage
from warp.streams import schema_of_table, schemas_of

LOOK_SECONDS: Final = 2.0  # between two looks of a unit at what its own schema defers
_ROWS: Final = 500  # tried at once
_ROUNDS: Final = 40  # a row that lands may let another land, and so on
_MARK: Final = type(UNCHANGED)


@dataclass(slots=True)
class Waiting:
    """One change that another row holds up."""

    schema: TableSchema
    cells: list[Any]
    operation: Operation
    version: int
    refusal: Refusal
    key: str
    position: Position | None = None
    # Where it lies in deferred_rows already.
    id: int | None = None
    age: float = 0.0  # seconds
    tries: int = 0
    waits_for: str | None = None
    of_batch: bool = True  # False for a row that a truncation or a sweep was to delete

    @property
    def partial(self) -> bool:
        return is_partial(self.operation, self.cells)


@dataclass(slots=True)
class Tried:
    """What became of the changes that waited, in one transaction."""

    landed: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)  # at last
    deferred: list[Waiting] = field(default_factory=list)  # new ones
    given_up: list[QuarantinedRow] = field(default_factory=list)  # after their time, or for good
    # Rows of the batch that are not in their table, by what was to be done with them.
    missing: Counter[tuple[TableId, Operation]] = field(default_factory=Counter)


@dataclass(slots=True)
class Awaited:
    """Rows just written, for which others may wait."""

    landing: Landing
    part: Staged
    keys: list[str] | None = None  # of those whose children have not been looked for


class Unreadable(Exception):
    """A kept row that its table cannot take any more as it is."""


def key_of(schema: TableSchema, cells: Sequence[Any]) -> str:
    """One text for one key, however its numbers are written."""
    return stored.dump(schema.columns, [_plain(cell) for cell in cells], schema.key)


def _plain(cell: Any) -> Any:
    if isinstance(cell, Decimal) and cell.is_finite():
        return cell.normalize() + 0
    if isinstance(cell, float) and cell == 0:
        return 0.0
    return cell


def waiting_of(part: Staged, refusal: Refusal) -> Waiting:
    """The refused row of a part."""
    row = refusal.row
    cells = [column[row] for column in part.carriers]
    key = key_of(part.schema, cells)
    operation = operation_of(part, row)
    return Waiting(part.schema, cells, operation, part.versions[row], refusal, key)


def quarantined(waiting: Waiting, reason: str) -> QuarantinedRow:
    """Set aside instead of waiting on."""
    return set_aside(
        waiting.schema,
        waiting.cells,
        waiting.operation,
        waiting.version,
        reason=reason,
        code=waiting.refusal.code,
        position=waiting.position,
    )


def together(schema: TableSchema, rows: Sequence[Waiting]) -> Staged:
    """Changes of one table as a part that can be landed."""
    columns = [list(column) for column in zip(*(row.cells for row in rows), strict=True)]
    operations = bytes(row.operation for row in rows)
    return stage(schema, Compacted(operations, [row.version for row in rows], columns))


def refers_to(waiting: Waiting, reference: Reference) -> str | None:
    """The parent's key as the parent writes it; None where the change refers to nothing."""
    if waiting.operation is Operation.DELETE:
        return None
    at = {fitting(column.name): place for place, column in enumerate(waiting.schema.columns)}
    if any(column not in at for column in reference.columns):
        return None
    places = [at[column] for column in reference.columns]
    return wanted_text(
        reference.parent_columns,
        [waiting.schema.columns[place].kind for place in places],
        [waiting.cells[place] for place in places],
    )


def circles(edges: Mapping[int, Iterable[int]]) -> list[list[int]]:
    """For each number that can be reached from itself, all that can be reached from it.

    One list for one set; what is in an earlier list does not start another.
    """
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in edges:
        if start in seen:
            continue
        reached: set[int] = set()
        next_ones = list(edges[start])
        while next_ones:
            one = next_ones.pop()
            if one not in reached:
                reached.add(one)
                next_ones += edges.get(one, ())
        if start in reached:
            seen |= reached
            found.append(sorted(reached))
    return found


class Deferral:
    """The waiting changes of one destination, tried within its write transactions."""

    def __init__(
        self,
        session: Session,
        selection: TableSelection,
        careful: Careful,
        landing: Callable[[TableSchema, WorkUnit], Landing],
    ) -> None:
        self._session = session
        self._selection = selection
        self._careful = careful
        self._landing = landing
        self._unit = WorkUnit.stream("")
        # Of the tables of one transaction.
        self._states: dict[TableId, TableState] = {}
        self._schemas: dict[TableId, TableSchema | None] = {}
        self._overruled: list[int] = []
        self._looked_at = float("-inf")
        self._asked_at = float("-inf")

    # -- between transactions

    def due(self, schema: str) -> bool:
        """Is it time for a look, and is anything there to look at?"""
        if time.monotonic() - self._asked_at < LOOK_SECONDS:
            return False
        self._asked_at = time.monotonic()
        schemas = self._schemas_of(schema)
        row = self._session.named("any_deferred_due", schemas=schemas).fetchone()
        return bool(row and row[0])

    # -- before a part is merged

    def overrule(
        self, part: Staged, schema: str
    ) -> tuple[Staged, dict[str, int], list[QuarantinedRow]]:
        """The part with what it does not say taken from waiting changes of the same keys, and
        those changes, by key: newer ones take their place, so that a delete is never undone and
        order per key is kept (guarantee 5).

        The last are changes that cannot be read any more: to be set aside.
        """
        table = part.schema.table
        place = {"schema": schema, "namespace": table.namespace, "table": table.name}
        if part.truncated_at is not None:
            self._session.named("forget_deferred_below", below=part.truncated_at + 1, **place)
        keys = {
            storable(key_of(part.schema, [column[row] for column in part.carriers])): row
            for row in range(len(part))
        }
        found = self._session.named("deferred_of_keys", keys=list(keys), **place).fetchall()
        taken: dict[str, int] = {}
        lost: list[QuarantinedRow] = []
        columns: list[list[Any]] | None = None
        for values in found:
            row = keys[values[3]]
            if not _is_newer(part, row, values[8]):
                continue
            taken[values[3]] = values[0]
            silent = [
                at
                for at, column in enumerate(part.carriers)
                if column[row] is UNCHANGED and part.operations[row] != Operation.DELETE
            ]
            if not silent or values[4] == chr(Operation.DELETE):
                continue
            try:
                older = _kept(values, part.schema)
            except Unreadable as error:
                lost.append(self._unreadable(values, str(error)))
                continue
            columns = columns or [list(column) for column in part.carriers]
            for at in silent:
                columns[at][row] = older.cells[at]
        if columns is not None:
            known = {operation.value for operation in Operation}
            operations = bytes(
                code if code in known else Operation.UPDATE for code in part.operations
            )
            part = stage(
                part.schema, Compacted(operations, part.versions, columns, part.truncated_at)
            )
        return part, taken, lost

    # -- at the end of a transaction

    def finish(
        self,
        unit: WorkUnit,
        states: Mapping[TableId, TableState],
        refused: Sequence[Waiting],
        written: Sequence[tuple[Landing, Staged]],
        taken: Mapping[TableId, Mapping[str, int]],
        position: Position | None,
    ) -> Tried:
        """Try what waits for the rows just written, and now and then whatever waits; keep the
        rest."""
        self._states, self._schemas = dict(states), {}
        self._overruled = [id_ for ids in taken.values() for id_ in ids.values()]
        self._unit = unit
        done = Tried()
        pool = list(refused)
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            pool += self._read(done, "deferred_due", pool)
        todo = [Awaited(*one) for one in written]
        stuck: list[Waiting] = []  # refused, and nothing has landed since
        tried = False
        for _ in range(_ROUNDS):
            known = [*pool, *stuck]
            page, todo = self._waiting_for(done, todo, known, at_once=bool(refused) or tried)
            pool += page
            if not (pool or stuck or todo):
                break
            if pool and not tried:
                self._begin(written)
                tried = True
            fresh, left = self._try(done, pool) if pool else ([], [])
            stuck += left
            pool = []
            if not (fresh or todo):
                fresh, stuck = self._try_circles(done, stuck)
                if not fresh:
                    break
            if fresh:  # what landed may be what others wait for
                todo += [Awaited(*one) for one in fresh]
                pool, stuck = stuck, []
        self._keep(done, [*pool, *stuck], taken, position)
        return done

    def keep(
        self,
        unit: WorkUnit,
        refused: Sequence[Waiting],
        taken: Mapping[TableId, Mapping[str, int]],
        position: Position | None,
    ) -> Tried:
        """Keep changes without trying them again."""
        self._unit = unit
        done = Tried()
        self._keep(done, refused, taken, position)
        return done

    def clear_out(self, unit: WorkUnit, state: TableState, table: TableId, below: int) -> Tried:
        """Before a table's tombstones go: whatever waits and is overruled by one must go too, and
        so must what a new snapshot did not find again."""
        place = {"schema": unit.schema, "namespace": table.namespace, "table": table.name}
        self._states, self._schemas = {table: state}, {}
        self._overruled = []
        self._unit = unit
        done = Tried()
        if below > -1:
            self._session.named("forget_deferred_below", below=below, **place)
        seen: list[Waiting] = []
        while found := self._read(done, "deferred_of_table", seen, **place):
            _, left = self._try(done, found)
            seen += left
            self._again(left)
        return done

    # -- reading

    def _waiting_for(
        self,
        done: Tried,
        todo: Sequence[Awaited],
        pool: Sequence[Waiting],
        *,
        at_once: bool,
    ) -> tuple[list[Waiting], list[Awaited]]:
        """A page of what waits for these rows, and those of them for which there is more."""
        found: list[Waiting] = []
        more: list[Awaited] = []
        for one in todo:
            landing = one.landing
            if landing.awaited is None:
                continue
            place = {
                "schemas": self._schemas_of(self._unit.schema),
                "namespace": fitting(landing.place.namespace),
                "table": fitting(landing.place.name),
            }
            row = self._session.named("any_deferred_by_parent", **place).fetchone()
            if row is None or not row[0]:
                continue
            if one.keys is None:
                one.keys = _texts(landing, one.part)
            known, keys = [*pool, *found], one.keys[:_ROWS]
            page = self._read(
                done, "deferred_by_parent", known, keys=keys, at_once=at_once, **place
            )
            found += page
            if len(page) < _ROWS:
                del one.keys[:_ROWS]
            if one.keys or len(page) == _ROWS:
                more.append(one)
        return found, more

    def _read(
        self, done: Tried, statement: str, known: Sequence[Waiting], **parameters: Any
    ) -> list[Waiting]:
        """Waiting changes of tables that can be written to now."""
        parameters = {"schemas": self._schemas_of(self._unit.schema)} | parameters
        # What the batch has overruled must not land any more: its row may be deleted by now.
        ids = [*self._overruled, *(row.id for row in known if row.id is not None)]
        rows = self._session.named(statement, known=ids, rows=_ROWS, **parameters).fetchall()
        found: list[Waiting] = []
        for values in rows:
            table = TableId(values[1], values[2])
            if table not in self._schemas:
                self._schemas[table] = self._schema(table)
            schema = self._schemas[table]
            if schema is None:
                continue
            try:
                found.append(_kept(values, schema))
            except Unreadable as error:
                done.given_up.append(self._unreadable(values, str(error)))
                self._session.named("defer_no_more", ids=[values[0]])
        return found

    def _schemas_of(self, schema: str) -> list[str]:
        """The schemas whose changes a unit of this schema may land: of a shared stream, all."""
        together = schemas_of(self._selection) if schema == SHARED else None
        return [schema] if together is None else list(together)

    def _schema(self, table: TableId) -> TableSchema | None:
        """The table as it is now; None where it is not ours, not there or busy."""
        settings = self._selection(table)
        if settings is None:
            return None
        if table not in self._states:
            id_ = WorkUnit.of_table(settings.schema, table).id
            row = self._session.named("lock_table_unless_busy", unit=id_).fetchone()
            if row is None:
                return None
            self._states[table] = TableState(row[0], row[1], Phase(row[2]), *row[3:])
        try:
            return ddl.registered(self._session, settings)
        except DestinationRefused:
            return None  # dropped: whoever writes to it says so

    # -- trying

    def _begin(self, written: Sequence[tuple[Landing, Staged]]) -> None:
        """Before the first try: checks that were put off are made now, for the batch's own rows,
        and its staged rows go, or they would be merged once more."""
        self._session.run(b"SET CONSTRAINTS ALL IMMEDIATE")
        for landing, _ in written:
            self._session.run(merge.empty_staging(landing)[0])

    def _try(
        self, done: Tried, pool: Sequence[Waiting]
    ) -> tuple[list[tuple[Landing, Staged]], list[Waiting]]:
        """Land what can land; returns that, and what waits on."""
        fresh: list[tuple[Landing, Staged]] = []
        left: list[Waiting] = []
        for schema, rows in _by_table(pool):
            landing = self._landing(schema, self._unit)
            part = together(schema, rows)
            self._session.run(b"SAVEPOINT waiting")
            try:
                refused = self._careful.land(part, landing, self._states[schema.table])
            except psycopg.errors.SyntaxErrorOrAccessRuleViolation:
                # The table is not as it was registered: its own unit finds out and says so.
                self._session.run(b"ROLLBACK TO SAVEPOINT waiting")
                left += rows
                continue
            self._session.run(b"RELEASE SAVEPOINT waiting")
            apart = {one.row: one for one in refused}
            self._landed(done, [row for at, row in enumerate(rows) if at not in apart])
            for at, row in enumerate(rows):
                if at not in apart:
                    continue
                row.refusal, row.waits_for = apart[at], None
                if apart[at].waits:
                    left.append(row)
                else:
                    self._give_up(done, row, apart[at].reason)
            landed = [at for at in range(len(rows)) if at not in apart]
            if landed:
                fresh.append((landing, part.only(landed)))
        return fresh, left

    def _try_circles(
        self, done: Tried, pool: Sequence[Waiting]
    ) -> tuple[list[tuple[Landing, Staged]], list[Waiting]]:
        """Rows that refer to each other in a circle: none can come first.

        Where no constraint can be put off, they come without their references first, in the same
        transaction.
        """
        edges, between = self._references(pool)
        fresh: list[tuple[Landing, Staged]] = []
        landed: set[int] = set()
        for circle in circles(edges):
            rows = [pool[at] for at in circle]
            bare = [_without(pool[at], between[at]) for at in circle if between[at]]
            groups = [
                (
                    together(schema, some),
                    self._landing(schema, self._unit),
                    self._states[schema.table],
                )
                for schema, some in [*_by_table(bare), *_by_table(rows)]
            ]
            if self._careful.lands_whole(groups):
                landed |= set(circle)
                self._landed(done, rows)
                fresh += [
                    (self._landing(schema, self._unit), together(schema, some))
                    for schema, some in _by_table(rows)
                ]
        return fresh, [row for at, row in enumerate(pool) if at not in landed]

    def _references(
        self, pool: Sequence[Waiting]
    ) -> tuple[dict[int, list[int]], dict[int, list[str]]]:
        """Which of the changes refers to which, and the columns that cannot be checked later."""
        outgoing: dict[TableId, tuple[Reference, ...]] = {}
        rows = [
            at
            for at, row in enumerate(pool)
            if row.operation is not Operation.DELETE and not row.partial
        ]
        for table in {pool[at].schema.table for at in rows}:
            outgoing[table] = constraints.read(self._session, self._place(table)).outgoing
        needed = {
            (reference.parent, reference.parent_columns)
            for references in outgoing.values()
            for reference in references
        }
        there: dict[tuple[TableId, str], int] = {}
        for at in rows:
            place = self._place(pool[at].schema.table)
            for parent, columns in needed:
                if parent == place:
                    text = _text_of(pool[at], columns)
                    if text is not None:
                        there[parent, text] = at
        edges: dict[int, list[int]] = {}
        between: dict[int, list[str]] = {at: [] for at in range(len(pool))}
        for at in rows:
            for reference in outgoing[pool[at].schema.table]:
                text = refers_to(pool[at], reference)
                to = there.get((reference.parent, text)) if text is not None else None
                if to is not None and to != at:
                    edges.setdefault(at, []).append(to)
                    if not reference.deferrable:
                        between[at] += reference.columns
        return edges, between

    def _place(self, table: TableId) -> TableId:
        settings = self._selection(table)
        if settings is None:
            raise AssertionError("a change that is tried is of a table of ours")
        place = settings.destination
        return TableId(fitting(place.namespace), fitting(place.name))

    # -- what became of them

    def _landed(self, done: Tried, rows: Sequence[Waiting]) -> None:
        waited = [row for row in rows if row.id is not None]
        done.landed.update((row.schema.table, row.operation) for row in waited)
        if waited:
            self._session.named("defer_no_more", ids=[row.id for row in waited])

    def _unreadable(self, values: Sequence[Any], reason: str) -> QuarantinedRow:
        """A line of deferred_rows as it is, to be set aside."""
        table = TableId(values[1], values[2])
        must_have_quarantine(self._selection(table), table, values[3], reason)
        return QuarantinedRow(
            table=table,
            key=values[3],
            operation=Operation(ord(values[4])),
            row=values[5],
            reason=reason,
            code="SCHEMA",
            position=Position(values[9], values[10]) if values[9] is not None else None,
            version=values[8],
            kinds=values[6],
            partial=values[7],
        )

    def _give_up(self, done: Tried, row: Waiting, reason: str) -> None:
        """To quarantine, or where that is off to a person (guarantee 4)."""
        table = row.schema.table
        must_have_quarantine(self._selection(table), table, row.key, reason)
        done.given_up.append(quarantined(row, reason))
        if row.id is not None:
            self._session.named("defer_no_more", ids=[row.id])
        elif row.of_batch:
            done.missing[row.schema.table, row.operation] += 1

    def _keep(
        self,
        done: Tried,
        pool: Sequence[Waiting],
        taken: Mapping[TableId, Mapping[str, int]],
        position: Position | None,
    ) -> None:
        waits: list[Waiting] = []
        for row in pool:
            settings = self._selection(row.schema.table)
            if row.id is None or settings is None:
                waits.append(row)
            elif row.age >= settings.deferred_max_age:
                self._give_up(done, row, f"waited {row.age:.0f} s in vain: {row.refusal.reason}")
            elif row.tries >= settings.deferred_max_tries:
                self._give_up(done, row, f"tried {row.tries} times in vain: {row.refusal.reason}")
            else:
                waits.append(row)
        # In one order, so that two units never wait for each other's line in a circle.
        new = sorted((row for row in waits if row.id is None), key=lambda row: row.key)
        self._again([row for row in waits if row.id is not None])
        if new:
            with self._session.connect().cursor() as cursor:
                cursor.executemany(
                    self._session.statement("defer"),
                    [
                        self._entry(row) | metadata_rows.place(row.position or position)
                        for row in new
                    ],
                )
        done.deferred += new
        done.missing.update((row.schema.table, row.operation) for row in new if row.of_batch)
        kept = {(row.schema.table, storable(row.key)) for row in new}
        gone = [
            id_
            for table, ids in taken.items()
            for key, id_ in ids.items()
            if (table, key) not in kept
        ]
        if gone:
            self._session.named("defer_no_more", ids=gone)

    def _again(self, rows: Sequence[Waiting]) -> None:
        if not rows:
            return
        with self._session.connect().cursor() as cursor:
            cursor.executemany(
                self._session.statement("defer_again"),
                [self._waits_for(row) | {"id": row.id} for row in rows],
            )

    def _entry(self, row: Waiting) -> dict[str, Any]:
        schema = row.schema
        return self._waits_for(row) | {
            "unit": self._unit.id,
            "schema": schema_of_table(schema.table, self._selection, self._unit),
            "namespace": schema.table.namespace,
            "table": schema.table.name,
            "key": storable(row.key),
            "operation": chr(row.operation),
            "row": storable(stored.dump(schema.columns, row.cells)),
            "kinds": Jsonb(stored.kinds_of(schema.columns)),
            "partial": row.partial,
            "version": row.version,
        }

    def _waits_for(self, row: Waiting) -> dict[str, Any]:
        refusal = row.refusal
        text = row.waits_for
        if refusal.reference is not None:
            text = refers_to(row, refusal.reference)
        place = refusal.place or self._place(row.schema.table)
        return {
            "constraint": refusal.constraint,
            "parent_namespace": place.namespace,
            "parent_table": place.name,
            "waits_for": None if text is None else storable(text),
            "reason": storable(refusal.reason),
            "code": refusal.code,
        }


def _is_newer(part: Staged, row: int, version: int) -> bool:
    """Does the batch's change overrule a waiting one of this version?  As `merge` guards rows."""
    if part.operations[row] == Operation.READ:
        return part.versions[row] > version
    return part.versions[row] >= version


def _kept(values: Sequence[Any], schema: TableSchema) -> Waiting:
    """A line of deferred_rows as its table takes it now."""
    (
        id_,
        _,
        _,
        key,
        operation,
        text,
        kinds,
        partial,
        version,
        position,
        committed_at,
        tries,
        age,
    ) = values[:13]
    try:
        row = stored.load(text, kinds)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    now = {column.name: column.kind for column in schema.columns}
    for name, cell in row.items():
        kept, wanted = Kind(kinds[name]), now.get(name)
        if wanted is kept or (wanted is not None and cell is None):
            continue
        # The column may have been widened, or become text, while the row waited.
        exact = wanted is not None and relation(kept, wanted) is Relation.LOSSLESS
        convert = converter(kept, wanted) if wanted is not None and exact else None
        if convert is None or name in schema.key:
            raise Unreadable(
                f"expected column {name!r} as {kept}, found {wanted or 'none'}: it was changed "
                "while the row waited; replay the row"
            )
        row[name] = convert(cell)
    return Waiting(
        schema,
        stored.cells_of(schema.columns, row, partial=partial),
        Operation(ord(operation)),
        version,
        _refusal(values),
        key,
        Position(position, committed_at) if position is not None else None,
        id_,
        age,
        tries,
        values[18],
    )


def _refusal(values: Sequence[Any]) -> Refusal:
    reason, code, constraint, namespace, table = values[13:18]
    return Refusal(
        0,
        code.removeprefix("SQLSTATE "),
        code,
        reason,
        True,
        constraint,
        None,
        TableId(namespace, table),
    )


def _by_table(rows: Sequence[Waiting]) -> list[tuple[TableSchema, list[Waiting]]]:
    groups: dict[TableId, list[Waiting]] = {}
    for row in rows:
        groups.setdefault(row.schema.table, []).append(row)
    return [(some[0].schema, some) for some in groups.values()]


def _texts(landing: Landing, part: Staged) -> list[str]:
    """What the children of these rows wait for."""
    texts: set[str] = set()
    for columns in landing.awaited or ():
        places = places_of(landing, columns)
        if places is None:
            continue
        kinds = [landing.schema.columns[place].kind for place in places]
        for cells in zip(*(part.carriers[place] for place in places), strict=True):
            text = wanted_text(columns, kinds, cells)
            if text is not None:
                texts.add(storable(text))
    return list(texts)


def _text_of(row: Waiting, columns: Sequence[str]) -> str | None:
    at = {fitting(column.name): place for place, column in enumerate(row.schema.columns)}
    if any(column not in at for column in columns):
        return None
    places = [at[column] for column in columns]
    return wanted_text(
        columns,
        [row.schema.columns[place].kind for place in places],
        [row.cells[place] for place in places],
    )


def _without(row: Waiting, columns: Sequence[str]) -> Waiting:
    """The row without its references, and older than itself, so that it lands once more whole."""
    emptied = [
        None if fitting(column.name) in columns else cell
        for column, cell in zip(row.schema.columns, row.cells, strict=True)
    ]
    return replace(row, cells=emptied, version=row.version - 1)
