"""The destination's own constraints: what refers to what, and which values are unique.

Read when a row was refused, never before, so that a table without such trouble costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from warp import stored
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing
from warp.destinations.postgresql.session import Session, fitting, name, text
from warp.model import UNCHANGED, Column, Kind, Operation, TableId
from warp.staged import PARTIAL

_AND: Final = text(" and ")
_COMMA: Final = text(", ")
# A foreign key that finds no parent, or a parent whose children are still there; the second code
# is what RESTRICT says since PostgreSQL 18.
OF_A_REFERENCE: Final = frozenset({"23503", "23001"})
# A value that another row holds: a unique and an exclusion constraint.
OF_A_RIVAL: Final = frozenset({"23505", "23P01"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key, by the names that the server has."""

    name: str
    child: TableId
    columns: tuple[str, ...]
    parent: TableId
    parent_columns: tuple[str, ...]
    deferrable: bool


@dataclass(frozen=True, slots=True)
class Constraints:
    """Of one destination table."""

    outgoing: tuple[Reference, ...]
    incoming: tuple[Reference, ...]
    # Columns of unique constraints beside the key that can be emptied for a moment.
    vacant: tuple[str, ...]
    rivals: bool  # has it unique constraints beside its key?
    deferrable: bool  # can any check be put off to the end of the transaction?

    def awaited(self) -> frozenset[tuple[str, ...]] | None:
        if not (self.outgoing or self.incoming or self.rivals):
            return None
        return frozenset(reference.parent_columns for reference in self.incoming)


def read(session: Session, place: TableId) -> Constraints:
    """The constraints of a destination table, as they are now."""
    space, table = fitting(place.namespace), fitting(place.name)
    found = [
        Reference(
            constraint,
            TableId(child_space, child),
            tuple(columns),
            TableId(parent_space, parent),
            tuple(parent_columns),
            deferrable,
        )
        for constraint, child_space, child, columns, parent_space, parent, parent_columns, (
            deferrable
        ) in session.named("references", namespace=space, table=table)
    ]
    unique = session.named("unique_columns", namespace=space, table=table).fetchall()
    here = TableId(space, table)
    return Constraints(
        tuple(reference for reference in found if reference.child == here),
        tuple(reference for reference in found if reference.parent == here),
        # What another table refers to is never emptied: its rows would go, or hold it back.
        tuple(column for column, needed, _, pointed_at in unique if not (needed or pointed_at)),
        bool(unique),
        any(reference.deferrable for reference in found) or any(row[2] for row in unique),
    )


def places_of(landing: Landing, columns: Sequence[str]) -> list[int] | None:
    """Where the staging table has these columns of the server; None where we do not write all."""
    at = {fitting(column): place for place, column in enumerate(landing.schema.names())}
    places = [at.get(column) for column in columns]
    return None if None in places else [place for place in places if place is not None]


def wanted_text(names: Sequence[str], kinds: Sequence[Kind], cells: Sequence[Any]) -> str | None:
    """The referenced row, as child and parent both write it; None where nothing is referred to."""
    if any(cell is None or type(cell) is type(UNCHANGED) for cell in cells):
        return None
    order = sorted(range(len(names)), key=lambda n: names[n])
    return stored.dump([Column(names[n], kinds[n]) for n in order], [cells[n] for n in order])


# -- statements about staged rows; `s` is the staged row, `d` the destination's


def orphans(
    landing: Landing, reference: Reference, left_out: frozenset[int]
) -> sql.Composed | None:
    """Numbers of staged rows whose parent is neither there nor staged beside them.

    Takes the parameter `after`, as `merge.upsert` does.  None where the reference cannot be told
    from the staged rows; the halving finds such rows too.
    """
    places = places_of(landing, reference.columns)
    if places is None or left_out & set(places):
        return None
    conditions: list[sql.Composable] = [
        text("s.op <> {}").format(sql.Literal(int(Operation.DELETE))),
        *(text("{} is not null").format(landing.cell(place)) for place in places),
        *(_said(place) for place in places),
        text("not exists (select 1 from {} as p where {})").format(
            sql.Identifier(reference.parent.namespace, reference.parent.name),
            _AND.join(
                text("p.{} = {}").format(_quoted(column), landing.cell(place))
                for column, place in zip(reference.parent_columns, places, strict=True)
            ),
        ),
        # A row that is overruled will not be written, so it refers to nothing.
        text("not exists (select 1 from {} as d where {} and not {})").format(
            landing.table, landing.same_key, _lands()
        ),
        _not_truncated(),
    ]
    itself = None
    if reference.parent == reference.child:
        itself = places_of(landing, reference.parent_columns)
    if itself is not None:
        conditions.append(
            text("not exists (select 1 from {} as t where t.op <> {} and {})").format(
                landing.staged,
                sql.Literal(int(Operation.DELETE)),
                _AND.join(
                    text("{} = {}").format(sql.Identifier("t", f"c{parent}"), landing.cell(place))
                    for parent, place in zip(itself, places, strict=True)
                ),
            )
        )
    return text("select s.n from {} as s where {}").format(landing.staged, _AND.join(conditions))


def vacate(
    landing: Landing, columns: Sequence[str], left_out: frozenset[int]
) -> sql.Composed | None:
    """Empty the unique columns of the rows that the staged ones are about to overwrite.

    So two rows can swap a value: neither holds it while both are written.  The version stays, so
    that the staged rows land; and only rows whose values change are touched.
    """
    key = set(landing.schema.key)
    at = {fitting(column): place for place, column in enumerate(landing.schema.names())}
    places = [
        at[column]
        for column in columns
        if column in at and landing.schema.names()[at[column]] not in key
    ]
    places = [place for place in places if place not in left_out]
    if not places:
        return None
    names = [name(landing.schema.columns[place].name) for place in places]
    kept = [text("not {}").format(_said(place)) for place in places]
    sets = [
        text("{0} = case when {1} then d.{0} end").format(column, keeps)
        for column, keeps in zip(names, kept, strict=True)
    ]
    moves = text(" or ").join(
        text("({} and d.{} is distinct from {})").format(_said(place), column, landing.cell(place))
        for column, place in zip(names, places, strict=True)
    )
    return text(
        "update {} as d set {} from {} as s where s.op <> {} and {} and {} and {} and ({})"
    ).format(
        landing.table,
        _COMMA.join(sets),
        landing.staged,
        sql.Literal(int(Operation.DELETE)),
        landing.same_key,
        _lands(),
        _not_truncated(),
        moves,
    )


def keys_up_to(landing: Landing, condition: sql.Composable) -> sql.Composed:
    """The keys, as carriers, and the versions of rows; `d` in the condition is the row."""
    kinds = {column.name: column.kind for column in landing.schema.columns}
    cells = [
        text(_AS_CARRIER.get(kinds[column], "{}")).format(text("d.{}").format(name(column)))
        for column in landing.schema.key
    ]
    return text("select {}, d.{} from {} as d where {}").format(
        _COMMA.join(cells), VERSION, landing.table, condition
    )


# What is not already its carrier when the driver hands it over.
_AS_CARRIER: Final = {
    Kind.UUID: "uuid_send({})",
    Kind.TIME: "(extract(epoch from {}) * 1000000)::bigint",
    Kind.DATETIME: "(extract(epoch from {}) * 1000000)::bigint",
    Kind.TIMESTAMP: "(extract(epoch from {}) * 1000000)::bigint",
    Kind.JSON: "convert_to({}::text, 'UTF8')",
}


def is_tombstone() -> sql.Composed:
    return text("d.{}").format(DELETED)


def up_to_version() -> sql.Composed:
    return text("d.{} <= %(version)s").format(VERSION)


def _lands() -> sql.Composed:
    """The guard of `merge`, of a staged row over one that is there."""
    return text("(d.{0} < s.v or (s.op <> {1} and d.{0} = s.v))").format(
        VERSION, sql.Literal(int(Operation.READ))
    )


def _not_truncated() -> sql.Composed:
    return text("(s.op <> {} or s.v > %(after)s)").format(sql.Literal(int(Operation.READ)))


def _said(place: int) -> sql.Composed:
    """Does the staged row say anything about this column?"""
    return text("(s.op <> {} or s.kept is null or get_bit(s.kept, {}) = 0)").format(
        sql.Literal(PARTIAL), sql.Literal(place)
    )


def _quoted(column: str) -> sql.Identifier:
    return name(column)


# -- errors


def constraint_of(error: BaseException) -> str:
    found = error.diag.constraint_name if isinstance(error, psycopg.Error) else None
    return found or ""


def table_of(error: BaseException) -> TableId | None:
    """The table that the server names in an error; of a foreign key, the one that refers."""
    if not isinstance(error, psycopg.Error):
        return None
    space, table = error.diag.schema_name, error.diag.table_name
    return TableId(space, table) if space and table else None


def state_of(error: BaseException) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
