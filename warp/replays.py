"""Rows that come out of quarantine: what they are written as, and when they come too late.  Pure.

A row was set aside at a version of its source.  It lands as a change of that version and no other,
so whatever the source has said about its key since then is kept (guarantee 5).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from warp import stored
from warp.model import (
    ABSENT,
    UNCHANGED,
    Cells,
    ChangeBatch,
    Column,
    Evolution,
    Kind,
    Operation,
    Position,
    QuarantinedRow,
    Replay,
    SetAside,
    TableChanges,
    TableSchema,
)

NO_KINDS: Final = (
    "it was set aside by a version that did not keep the kinds of its cells, so it cannot be read "
    "exactly; change the row at the source, or copy it by hand and discard this one"
)


OVERTAKEN: Final = "a later change of the same batch has deleted the row"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the destination has of one key."""

    version: int | None = None  # of its row, a tombstone too; None where there is none
    gone: bool = False  # that row is a tombstone, or marked as deleted
    deleted_at: int = -1  # the highest version in the audit at which a row of this key was deleted


def overruled(
    operation: Operation, version: int, standing: Standing, *, cell: bool, truncated_at: int
) -> str:
    """Why a row set aside at `version` must not land any more; empty where it may."""
    have = standing.version
    if version <= truncated_at:
        return f"the table was emptied at version {truncated_at}, this is of {version}"
    if have is not None and have > version:
        return f"the destination has version {have} of this row, this is of {version}"
    if operation is Operation.DELETE:
        return ""
    # Of one version, so of one transaction: a delete that comes later supersedes what waits when it
    # lands, so the row was made anew after this one.  What a chunk has read is older than it.
    late = standing.deleted_at if operation is Operation.READ else standing.deleted_at - 1
    if late >= version:
        return f"the row was deleted at version {standing.deleted_at}, this is of {version}"
    if (cell or operation is Operation.READ) and have == version and standing.gone:
        return f"the row was deleted at this very version, {version}"
    if cell:
        if have is None:
            return "the row that this cell belongs to is not there any more"
        if have != version:
            return f"the row of this cell had version {version} and has {have}"
    elif operation is Operation.READ and have == version:
        return f"the destination has this very version, {version}, of this row"
    return ""


@dataclass(slots=True)
class Loaded:
    """Rows of one table as a batch of a part for each, to be shaped by `evolve`."""

    batch: ChangeBatch
    rows: list[SetAside] = field(default_factory=list)  # of the parts, in their order
    unreadable: dict[int, str] = field(default_factory=dict)


def load(rows: Sequence[SetAside], have: TableSchema | None) -> Loaded:
    """The rows as changes in the columns they were set aside in.

    `have` is the table as the destination has it: it knows which fields its columns come from.
    """
    loaded = Loaded(ChangeBatch([], Position(f"quarantine {max(row.id for row in rows)}")))
    for row in rows:
        try:
            part = _part(row.row, have)
        except ValueError as error:
            loaded.unreadable[row.id] = str(error)
        else:
            loaded.batch.changes.append(part)
            loaded.rows.append(row)
    return loaded


def _part(aside: QuarantinedRow, have: TableSchema | None) -> TableChanges:
    if not aside.kinds:
        raise ValueError(NO_KINDS)
    columns: list[Column] = []
    for name, kind in aside.kinds.items():
        known = have.column(name) if have is not None else None
        columns.append(replace(known or Column(name, Kind.TEXT), kind=Kind(kind)))
    key = stored.load(aside.key, aside.kinds)
    cells = key | stored.load(aside.row, aside.kinds)
    if aside.column:
        if aside.column not in cells:
            raise ValueError(f"expected the cell of column {aside.column!r}, found none")
        cells = key | {aside.column: cells[aside.column]}
    partial = aside.partial or bool(aside.column)
    schema = TableSchema(aside.table, tuple(columns), tuple(key))
    return TableChanges(
        aside.table,
        bytearray([Operation.UPDATE if aside.column else aside.operation]),
        [aside.version],
        schema,
        [[cell] for cell in stored.cells_of(columns, cells, partial=partial)],
    )


def gather(plan: Evolution, loaded: Loaded) -> Replay:
    """One part of all shaped rows in place of `plan`'s many, and where each row comes from.

    A row that `evolve` refused stays the row of the quarantine that it is.  Of two rows of one key
    the later one is left for the next batch, where it finds what the first has done.
    """
    ids: list[int] = []
    refused = dict(loaded.unreadable)
    whole = [aside for aside in plan.quarantined if not aside.column]
    cells = [aside for aside in plan.quarantined if aside.column]
    taken: set[Hashable] = set()
    parts: list[TableChanges] = []
    for row, part in zip(loaded.rows, plan.batch.changes, strict=True):
        if not len(part):
            refused[row.id] = whole.pop(0).reason
        elif row.row.column and (why := _cell_refused(row.row, part, cells)):
            refused[row.id] = why
        elif (key := _key(part)) not in taken:
            taken.add(key)
            parts.append(part)
            ids.append(row.id)
    mended = {(row.row.key, row.row.column) for row in loaded.rows if row.row.column}
    plan.quarantined = [aside for aside in cells if (aside.key, aside.column) not in mended]
    plan.batch.changes = [_together(parts)] if parts else []
    return Replay(ids, refused)


def _cell_refused(
    aside: QuarantinedRow, part: TableChanges, again: Sequence[QuarantinedRow]
) -> str:
    """Why the cell does not fit its column even now; empty where it does."""
    if part.schema is None or part.schema.column(aside.column) is None:
        return f"the table has no column {aside.column!r} any more"
    cell = part.columns[part.schema.names().index(aside.column)][0]
    if cell is not UNCHANGED and cell is not ABSENT:
        return ""
    reasons = [a.reason for a in again if (a.key, a.column) == (aside.key, aside.column)]
    return reasons[0] if reasons else "the value has no form as its column's kind"


def _key(part: TableChanges) -> Hashable:
    if part.schema is None or not part.schema.key:
        return object()  # without a key every row is its own
    cells: Mapping[str, Cells] = dict(zip(part.schema.names(), part.columns, strict=True))
    values = [cells[name][0] for name in part.schema.key]
    # NaN differs from itself; as a key it is one value.
    return tuple(UNCHANGED if value != value else value for value in values)


def _together(parts: Sequence[TableChanges]) -> TableChanges:
    first = parts[0]
    return TableChanges(
        first.table,
        bytearray(part.operations[0] for part in parts),
        [part.versions[0] for part in parts],
        first.schema,
        [
            [cell for column in columns for cell in column]
            for columns in zip(*(p.columns for p in parts), strict=True)
        ],
    )
