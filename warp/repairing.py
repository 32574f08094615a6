"""Corrections of rows that differ: what is written in their place, and when it comes too late.

A correction lands by the replay unit of its table, under that unit's lease and the table's lock,
as a change of the version that the destination's row has, or of the moment that was compared.  So
it takes the place of the row that was looked at and of no other: whatever the stream or a run
brings meanwhile has a higher version and stays (guarantees 2 and 5).  Where a row is missing, a
tombstone is put in its place before the source is read, so that a delete that comes between leaves
its trace.  Where a server lets several rows have one key, all but the newest go first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from warp import stored
from warp.comparison import Comparison, Ends
from warp.digest import canonical
from warp.digest.comparing import Difference, Key, Seen, Sort, differing
from warp.digest.seams import Kept
from warp.kinds import as_text, converter
from warp.model import UNCHANGED, Column, Kind, Operation, QuarantinedRow, TableId, WorkUnit

CODE: Final = "REPAIR"
MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of a row that differs, for people."""

    column: str
    at_source: str | None
    at_destination: str | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A row that differs now, and what is to be written."""

    id: int  # of the difference
    key: str
    sort: Sort
    cells: tuple[Cell, ...] = ()
    row: QuarantinedRow | None = None  # None: nothing mends it but the table's next whole read
    why_not: str = ""


@dataclass(slots=True)
class Looked:
    """Some differences, looked at again."""

    corrections: list[Correction]
    gone: list[int]  # ids of those that are none any more
    later: int = 0  # that changed at every look, or since the last run


class Repair:
    """The differences of one table."""

    def __init__(
        self, ends: Ends, schema: str, table: TableId, *, masked: Collection[str] = ()
    ) -> None:
        self._ends = ends
        self._schema = schema
        self._table = table
        self._unit = WorkUnit.of_replay(schema, table)
        self._comparison = Comparison.of(ends, self._unit, table)
        self._masked = frozenset(masked)

    def look(self, kept: Sequence[Kept], *, holding: bool) -> Looked | None:
        """What is wrong with these rows now; None where the hold asked to stop.

        `holding` puts tombstones where rows are missing, and leaves one row of each key.
        """
        compared = self._comparison.compared
        if not compared.schema.key:
            return Looked([_of_no_key(k, self._schema, self._table) for k in kept], [])
        keys: dict[Key, Kept] = {}
        gone: list[int] = []
        for one in kept:
            key = self._key(one)
            if key is None:
                gone.append(one.id)  # the table has another key by now
            else:
                keys[key] = one
        judged = self._comparison.judged(list(keys))
        if judged is None:
            return None
        missing = [d.key for d in judged.differences if d.sort is Sort.MISSING]
        versions: dict[Key, int] = {}
        comparing = self._comparison.comparing
        if holding and (out := [key for key, seen in judged.seen.items() if not seen.reachable]):
            comparing.single_out(compared, self._comparison.cells_of(out))
            seen = self._comparison.look(out)
            if seen is None:
                return None
            judged.seen.update(seen)
        version = self._comparison.bracket.version() if holding and missing else None
        if version is not None:
            cells = self._comparison.cells_of(missing)
            comparing.hold_places(compared, cells, version - 1)
            # Read again, now that whatever is deleted from here on is in the audit.
            seen = self._comparison.look(missing)
            if seen is None:
                return None
            judged.seen.update(seen)
            versions = dict.fromkeys(missing, version)
        elif holding:
            judged.later.update(missing)
        differences = {d.key: d for d in judged.differences if d.key not in judged.later}
        gone += [one.id for key, one in keys.items() if key not in {*differences, *judged.later}]
        corrections = []
        for key, found in differences.items():
            seen_now = judged.seen[key]
            if seen_now.expected is None and (found.sort is Sort.MISSING or not seen_now.stored):
                gone.append(keys[key].id)  # deleted at the source since, or gone here
                continue
            corrections.append(self._correction(keys[key], found, seen_now, versions.get(key)))
        return Looked(corrections, gone, len(judged.later))

    def _key(self, kept: Kept) -> Key | None:
        try:
            cells = stored.load(kept.key, kept.kinds)
            forms = []
            for column in self._comparison.compared.key:
                convert = converter(Kind(kept.kinds[column.name]), column.kind)
                if convert is None:
                    return None
                forms.append(canonical.form(column.kind, convert(cells[column.name])))
        except (KeyError, ValueError):
            return None
        return tuple(forms)

    def _correction(
        self, kept: Kept, found: Difference, seen: Seen, version: int | None
    ) -> Correction:
        columns = self._comparison.compared.columns
        shown = tuple(self._cell(column, seen, place) for place, column in enumerate(columns))
        if found.sort is Sort.DIFFERS:
            wrong = set(differing(seen, columns))
            shown = tuple(cell for cell in shown if cell.column in wrong)
        row = self._row(kept, found, seen, version)
        return Correction(kept.id, kept.key, found.sort, shown, row)

    def _row(
        self, kept: Kept, found: Difference, seen: Seen, version: int | None
    ) -> QuarantinedRow:
        compared = self._comparison.compared
        columns: Sequence[Column] = compared.columns
        forms = seen.expected
        operation = Operation.UPDATE
        if forms is None:
            operation, columns = Operation.DELETE, compared.key
            forms = found.key
        elif found.sort is Sort.MISSING:
            operation = Operation.CREATE
        cells = [
            form if form is UNCHANGED else canonical.of_form(column.kind, form)
            for column, form in zip(columns, forms, strict=True)
        ]
        at = version
        if at is None:
            # What was delivered up to a moment is all there is of versions up to it; a row that
            # somebody else wrote may have one of before the table was last emptied.
            at = max(seen.stored.version if seen.stored else 0, seen.at or 0)
        return QuarantinedRow(
            self._table,
            kept.key,
            operation,
            stored.dump(columns, cells),
            f"a correction: the row at the destination is {_WORDS[found.sort]}",
            CODE,
            version=at,
            kinds=stored.kinds_of(columns),
            partial=UNCHANGED in cells,
        )

    def _cell(self, column: Column, seen: Seen, place: int) -> Cell:
        here = None if seen.expected is None else seen.expected[place]
        there = None if seen.found is None else seen.found[place]
        hidden = column.name in self._masked or column.source in self._masked
        return Cell(column.name, _shown(column, here, hidden), _shown(column, there, hidden))


_WORDS: Final = {
    Sort.MISSING: "missing",
    Sort.EXTRA: "not at the source",
    Sort.DIFFERS: "not as at the source",
    Sort.DUPLICATE: "there too often or not often enough",
}


def _shown(column: Column, form: object, hidden: bool) -> str | None:
    if form is None or form is UNCHANGED:
        return None
    if hidden:
        return MASK
    try:
        return as_text(column.kind, canonical.of_form(column.kind, str(form)))
    except (ValueError, OverflowError):  # no value of this kind, which somebody else wrote there
        return str(form)


def _of_no_key(kept: Kept, schema: str, table: TableId) -> Correction:
    why = (
        "the table has no key, so no correction finds its row: run `cartridge-warp resync "
        f"{schema} {table}`, which reads it whole in the place of what is there"
    )
    return Correction(kept.id, kept.key, kept.sort, why_not=why)
