"""Changes that carry a part of their row: which must be looked up, and what they become.  Pure.

A partial change of a row the destination has not got would leave NULL where the source sent
nothing, and a later chunk could not mend it: its row is older (docs/architecture.md; guarantee 4).
Nothing of this runs for a batch in which every change carries its whole row.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace

from warp.cells import taken, unchanged
from warp.compact import keys_of
from warp.fitting import Fitting
from warp.model import UNCHANGED, Cells, Operation, TableChanges, TableSchema, TableSettings

_PARTIAL = (Operation.UPDATE.value, Operation.CREATE.value)


def rows_of(part: TableChanges) -> list[int]:
    """The rows that carry a part and follow no whole row of their key in the same batch.

    Those that do follow one are filled from it by compaction.
    """
    schema = part.schema
    if schema is None or not schema.key or not any(o in part.operations for o in _PARTIAL):
        return []
    lacking = {row for column in part.columns for row in unchanged(column)}
    if not lacking:
        return []
    whole: set[Hashable] = set()
    found: list[int] = []
    for row, (operation, key) in enumerate(zip(part.operations, _keys(part), strict=True)):
        if operation == Operation.TRUNCATE:
            whole.clear()
        elif operation == Operation.DELETE:
            whole.discard(key)
        elif row not in lacking:
            whole.add(key)
        elif key not in whole:
            found.append(row)
    return found


def asked(
    part: TableChanges, rows: Sequence[int], have: TableSchema, settings: TableSettings
) -> tuple[TableChanges, list[int]]:
    """The keys of UPDATE rows as the destination has them, and the rows of the part they are of.

    A key that does not fit its column is left out: its row is set aside as it is.
    """
    cells_of = dict(zip((c.source for c in _known(part).columns), part.columns, strict=True))
    kind_of = {column.source: column.kind for column in _known(part).columns}
    key = [column for name in have.key if (column := have.column(name)) is not None]
    if any(column.source not in cells_of for column in key):
        return _chosen(part, [], replace(have, columns=()), []), []  # it has another key by now
    updates = [row for row in rows if part.operations[row] == Operation.UPDATE]
    fitting = Fitting(part.table, settings, have.key)
    columns = [
        fitting.cells([cells_of[c.source][row] for row in updates], kind_of[c.source], c)
        for c in key
    ]
    fitted = [place for place in range(len(updates)) if place not in fitting.refused]
    columns = [taken(column, fitted) for column in columns]
    updates = [updates[place] for place in fitted]
    return _chosen(part, updates, replace(have, columns=tuple(key)), columns), updates


def created(part: TableChanges, rows: Iterable[int]) -> list[int]:
    """A key that was changed creates its row anew, less what the source did not send.

    What the destination may have of that key, such as a soft-deleted row, is another row.
    """
    return [row for row in rows if part.operations[row] == Operation.CREATE]


def wanted(part: TableChanges, rows: Iterable[int]) -> TableChanges:
    """What to ask the source for: one row of each key."""
    keys = _keys(part)
    first = list({keys[row]: row for row in rows}.values())
    columns = [taken(column, first) for column in part.columns]
    return _chosen(part, first, _known(part), columns)


def filled(part: TableChanges, rows: Collection[int], found: TableChanges) -> TableChanges:
    """The part with these rows made whole from what the source has now, at their own versions.

    What is gone at the source is left out: its delete follows in the log.
    """
    schema, at_source = _known(part), _known(found)
    place = {key: row for row, key in enumerate(_keys(found, schema.key))}
    keys = _keys(part)
    kept = [r for r in range(len(part)) if r not in rows or keys[r] in place]
    columns = []
    for column, cells in zip(schema.columns, part.columns, strict=True):
        i = next((i for i, c in enumerate(at_source.columns) if c.source == column.source), None)
        columns.append(
            [
                found.columns[i][place[keys[r]]]
                if r in rows and cells[r] is UNCHANGED and i is not None
                else cells[r]
                for r in kept
            ]
        )
    return _chosen(part, kept, schema, columns)


def _chosen(
    part: TableChanges, rows: Sequence[int], schema: TableSchema, columns: Sequence[Cells]
) -> TableChanges:
    operations = bytearray(part.operations[row] for row in rows)
    return TableChanges(part.table, operations, [part.versions[r] for r in rows], schema, columns)


def _keys(part: TableChanges, key: Sequence[str] = ()) -> Sequence[Hashable]:
    schema = _known(part)
    return keys_of(replace(schema, key=tuple(key or schema.key)), part.columns, len(part))


def _known(part: TableChanges) -> TableSchema:
    if part.schema is None:
        raise AssertionError("only a source with a schema sends parts of rows")
    return part.schema
