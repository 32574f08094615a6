"""Decide how a batch's columns fit the destination.  Pure: no I/O, no clock.

The one place where types are decided: documents get their columns here, columns of a source with
a schema are converted here, and what the destination must change first is said here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from warp import stored
from warp.cells import taken
from warp.errors import WarpError
from warp.fitting import Fitting
from warp.kinds import join
from warp.model import (
    ABSENT,
    UNCHANGED,
    Cells,
    Change,
    ChangeBatch,
    Column,
    Evolution,
    Finding,
    Operation,
    Outcome,
    QuarantinedRow,
    SchemaChange,
    Skipped,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
)


def evolve(
    batch: ChangeBatch, known: Mapping[TableId, TableSchema], selection: TableSelection
) -> Evolution:
    """Fit every table's changes to the schema the destination has now.

    `known` holds an entry for each table of the batch that exists at the destination.  With
    `ddl` in the answer, make those changes, read the schemas again and evolve the same batch anew.
    """
    plan = Evolution(ChangeBatch([], batch.end, batch.reload, batch.read_at))
    for part in batch.changes:
        settings = selection(part.table)
        if settings is None:
            raise WarpError("changes of a table that is not selected", place=str(part.table))
        have = known.get(part.table)
        if part.documents is not None:
            _shape(part, have, settings, plan)
        else:
            _convert(part, have, settings, plan)
    return plan


def _shape(
    part: TableChanges,
    have: TableSchema | None,
    settings: TableSettings,
    plan: Evolution,
) -> None:
    """Documents to columns, by the destination's schema."""
    documents = part.documents
    if documents is None:
        raise AssertionError("only called with documents")
    if have is None:
        proposal = documents.describe(settings)
        plan.ddl.append(SchemaChange(part.table, Change.CREATE_TABLE, schema=proposal))
        return
    shaped = documents.shape(have, settings)
    key = have.column(have.key[0])
    if shaped.key_kind is not None and key is not None and shaped.key_kind != key.kind:
        column = replace(key, kind=shaped.key_kind)
        change = SchemaChange(part.table, Change.RETYPE_KEY, column=column, base=have.version)
        plan.ddl.append(change)
        return
    if shaped.unknown:
        plan.unknown[part.table] = shaped.unknown
    fitted = TableChanges(part.table, part.operations, part.versions, have, shaped.columns)
    # What is set aside is set aside as it was shaped, with the refused values in `_extra`.
    _settle(shaped, fitted, fitted, plan)


def _convert(
    part: TableChanges, have: TableSchema | None, settings: TableSettings, plan: Evolution
) -> None:
    """Columns of a source with a schema to the destination's, one decision per column."""
    schema = part.schema
    if schema is None:
        raise AssertionError("a part without documents has a schema")
    if have is None and not schema.columns:
        return  # a table that was dropped before anybody had seen a row of it
    if have is None:
        plan.ddl.append(SchemaChange(part.table, Change.CREATE_TABLE, schema=schema))
        return
    at_source = {c.source: i for i, c in enumerate(schema.columns)}
    new = [c for c in schema.columns if all(c.source != h.source for h in have.columns)]
    if new:
        plan.ddl += [
            SchemaChange(part.table, Change.ADD_COLUMN, column=c, base=have.version) for c in new
        ]
        return
    fitting = Fitting(part.table, settings, have.key)
    columns: list[Cells] = []
    for column in have.columns:
        i = at_source.get(column.source)
        if i is None:  # dropped at the source: kept here, new rows NULL
            columns.append([UNCHANGED] * len(part))
        else:
            columns.append(fitting.cells(part.columns[i], schema.columns[i].kind, column))
    fitted = TableChanges(part.table, part.operations, part.versions, have, columns)
    _settle(fitting, fitted, part, plan)


class _Fitted(Protocol):
    """What was found while cells were put into their columns."""

    @property
    def asked(self) -> list[tuple[Change, Column]]: ...
    @property
    def findings(self) -> list[tuple[int, Finding]]: ...
    @property
    def skipped(self) -> list[Skipped]: ...
    @property
    def refused(self) -> dict[int, str]: ...


def _settle(found: _Fitted, fitted: TableChanges, original: TableChanges, plan: Evolution) -> None:
    """Into the plan: columns to change first, else rows to write and what is set aside of them."""
    have, schema = fitted.schema, original.schema
    if have is None or schema is None:
        raise AssertionError("both have a schema by now")
    table, operations, versions = fitted.table, fitted.operations, fitted.versions
    if found.asked:
        plan.ddl += [
            SchemaChange(table, change, column=column, base=have.version)
            for change, column in found.asked
        ]
        return
    end = plan.batch.end
    before = len(plan.quarantined)
    for row, finding in found.findings:
        plan.findings.append(replace(finding, key=_Kept.of(fitted, original, row).key))
    for cell in found.skipped:
        column = Column(cell.column, cell.kind)
        kept = _Kept.of(fitted, original, cell.row)
        plan.quarantined.append(
            QuarantinedRow(
                table=table,
                key=kept.key,
                operation=Operation(operations[cell.row]),
                row=stored.dump([column], [cell.original]),
                reason=f"column {cell.column}: {cell.reason}",
                code=f"CELL-{Outcome.SKIPPED}",
                position=end,
                version=versions[cell.row],
                kinds=kept.key_kinds | stored.kinds_of([column]),
                partial=True,
                column=cell.column,
            )
        )
    for row, why in sorted(found.refused.items()):
        kept = _Kept.of(fitted, original, row)
        plan.quarantined.append(
            QuarantinedRow(
                table=table,
                key=kept.key,
                operation=Operation(operations[row]),
                row=stored.dump(kept.columns, kept.cells),
                reason=why,
                code="conversion",
                position=end,
                version=versions[row],
                # Without a key nobody could tell the row again: it is shown, never replayed.
                kinds=stored.kinds_of(kept.columns) if schema.key else {},
                partial=UNCHANGED in kept.cells,
            )
        )
    if plan.quarantined:
        rows = [*(cell.row for cell in found.skipped), *sorted(found.refused)]
        _mark_overtaken(plan, [-1] * before + rows, fitted, original)
    if found.refused:
        keep = [row for row in range(len(fitted)) if row not in found.refused]
        fitted.columns = [taken(cells, keep) for cells in fitted.columns]
        fitted.operations = bytearray(operations[row] for row in keep)
        fitted.versions = [versions[row] for row in keep]
    plan.batch.changes.append(fitted)


def _mark_overtaken(
    plan: Evolution, rows: Sequence[int], fitted: TableChanges, original: TableChanges
) -> None:
    """What is set aside of a row that this part deletes after it must not come back (guarantee 5).

    Only here is it known which of them came first: the changes of a transaction are of one version,
    and what lands is compacted.  `rows` are the places in the part of what is set aside.
    """
    keyed = fitted.schema is not None and bool(fitted.schema.key)
    if not keyed or Operation.DELETE not in fitted.operations:
        return
    deleted = {
        _Kept.of(fitted, original, row).key: row
        for row, operation in enumerate(fitted.operations)
        if operation == Operation.DELETE
    }
    plan.quarantined = [
        replace(aside, overtaken=True)
        if aside.table == fitted.table and deleted.get(aside.key, -1) > row
        else aside
        for aside, row in zip(plan.quarantined, rows, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A row as it is kept outside of its table: as its source has it, but for its key.

    Whoever looks for what waits of a key (a later delete, an update of a part of the row, a
    comparison) has the destination's key, and looks for its very text.  A key of another kind at
    the source, a bigint that is a numeric here, has another text, and was never found.
    """

    columns: Sequence[Column]
    cells: list[Any]
    key: str
    key_kinds: dict[str, str]

    @staticmethod
    def of(fitted: TableChanges, original: TableChanges, row: int) -> _Kept:
        have, schema = fitted.schema, original.schema
        if have is None or schema is None:
            raise AssertionError("both have a schema by now")
        columns, cells = [*schema.columns], _row(original, row)
        ours = _row(fitted, row)
        places = {column.source: place for place, column in enumerate(schema.columns)}
        in_key = [
            (column, cell)
            for column, cell in zip(have.columns, ours, strict=True)
            if column.name in have.key
        ]
        if any(c is None or c is UNCHANGED or c is ABSENT for _, c in in_key) or not in_key:
            # It is the key that does not fit: there is no row of it here to look for.
            key = stored.dump(columns, cells, schema.key)
            kinds = stored.kinds_of(column for column in columns if column.name in schema.key)
            return _Kept(columns, cells, key, kinds)
        for column, cell in in_key:
            place = places.get(column.source)
            if place is not None:
                columns[place], cells[place] = column, cell
        key = stored.dump(have.columns, ours, have.key)
        return _Kept(columns, cells, key, stored.kinds_of(column for column, _ in in_key))


def _row(part: TableChanges, row: int) -> list[Any]:
    return [cells[row] for cells in part.columns]


class Growth:
    """Fields seen without a column, until their time to get one has come.

    A field waits `promote_after` seconds from its first sight, so that a burst of new fields
    costs one schema change per table and the kind is the union of what was seen meanwhile.
    """

    def __init__(self) -> None:
        self._seen: dict[TableId, dict[str, tuple[float, Column]]] = {}

    def observe(self, table: TableId, unknown: Mapping[str, Column], now: float) -> None:
        """Note the fields of one batch; `now` is monotonic, in seconds."""
        fields = self._seen.setdefault(table, {})
        for name, column in unknown.items():
            if name in fields:
                since, earlier = fields[name]
                kind = join(earlier.kind, column.kind)
                fields[name] = (since, replace(earlier, kind=kind))
            else:
                fields[name] = (now, column)

    def due(
        self, known: Mapping[TableId, TableSchema], selection: TableSelection, now: float
    ) -> list[SchemaChange]:
        """The columns to add now; the fields they come from are forgotten here."""
        changes: list[SchemaChange] = []
        for table, fields in list(self._seen.items()):
            settings, schema = selection(table), known.get(table)
            if settings is None or schema is None:
                del self._seen[table]
                continue
            if all(now - since < settings.promote_after for since, _ in fields.values()):
                continue
            del self._seen[table]
            have = {c.source for c in schema.columns}
            room = 0 if schema.full else settings.max_columns - len(schema.columns)
            wanted = [c for _, c in fields.values() if c.source not in have]
            changes += [
                SchemaChange(table, Change.ADD_COLUMN, column=c, base=schema.version)
                for c in wanted[: max(0, room)]
            ]
        return changes
