"""The path of a change with nothing at its end: sampled rows go through the real pipeline.

What the destination would be asked to change is foreseen, what would be written is counted, and
no server is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, cast

from warp.errors import ConfigError, TransientError, WarpError
from warp.interfaces import DestinationConnector, Foresees, SourceConnector, TellsCosts
from warp.model import (
    Change,
    ChangeBatch,
    Chunk,
    Cost,
    Finding,
    Foreseen,
    Lease,
    Marker,
    Outcome,
    Phase,
    QuarantinedRow,
    Replay,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
    Written,
)
from warp.pipeline import Delivery, NoMeter

PARTS: Final = 5  # places of a table that rows are sampled at
_LATER: Final = 1e9  # seconds: whatever waits for its time is due


@dataclass(frozen=True, slots=True)
class Misfit:
    """What became of some cells of a column."""

    outcome: Outcome
    met: str
    expected: str
    cells: int


@dataclass(slots=True)
class Forecast:
    """What would happen to one table."""

    table: TableId
    schema: str  # the schema's name in the configuration
    destination: TableId
    before: TableSchema | None  # at the destination; None where it is to be made
    after: TableSchema | None = None
    source: TableSchema | None = None  # as the source describes it; None of documents
    statements: list[str] = field(default_factory=list)
    rows: int = 0  # sampled
    whole: bool = False  # the sample is all there is
    estimated: int = 0  # rows of the table, about; 0 where nobody says
    misfits: dict[str, list[Misfit]] = field(default_factory=dict)  # by column
    quarantined: int = 0  # rows set aside whole
    billed: Cost | None = None  # where the source bills for reading
    obstacle: str = ""  # why the table cannot be carried as things are


class Rehearsal:
    """A destination that only tells.  Its tables are those of the real one, until it changes them.

    Serves one `Delivery`, so what a delivery never asks for is not here.
    """

    def __init__(self, destination: DestinationConnector) -> None:
        self._destination = destination
        self._changed: dict[TableId, TableSchema] = {}
        self.statements: list[str] = []
        self.misfits: Counter[tuple[str, Outcome, str, str]] = Counter()
        self.quarantined = 0
        self.rows = 0

    def get_schema(self, table: TableId) -> TableSchema | None:
        if table in self._changed:
            return self._changed[table]
        if self._destination.traits.foresees:
            return cast(Foresees, self._destination).standing(table)
        prepared = self._destination.metadata().prepared()
        return self._destination.get_schema(table) if prepared else None

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        for change in changes:
            have = self.get_schema(change.table)
            if self._destination.traits.foresees:
                found = cast(Foresees, self._destination).foresee(have, change)
            else:
                found = foreseen(have, change)
            version = 1 if have is None else have.version + 1
            self._changed[change.table] = replace(found.schema, version=version)
            self.statements += found.statements

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        whole = sum(not row.column for row in quarantined)
        self.rows += len(batch) + whole
        self.quarantined += whole
        for one in findings:
            self.misfits[one.column, one.outcome, one.met, one.expected] += one.cells
        return Written({})

    def missing(self, changes: TableChanges) -> list[int]:
        return []  # rows of a snapshot are whole


class _Free:
    """A hold that nobody takes away."""

    def __init__(self, unit: WorkUnit) -> None:
        self.lease = Lease(unit, "plan", 0)

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def wait(self, seconds: float) -> None: ...


def foreseen(have: TableSchema | None, change: SchemaChange) -> Foreseen:
    """A change of a destination that cannot tell its statements.  Pure."""
    if change.change is Change.CREATE_TABLE and change.schema is not None:
        if have is not None and not have.is_guess:
            return Foreseen(have)
        columns = ", ".join(f"{c.name} {c.kind}" for c in change.schema.columns)
        return Foreseen(change.schema, (f"create table {change.table} ({columns})",))
    column = change.column
    if have is None or column is None:
        raise AssertionError(f"{change.change} is of a column of a table")
    if change.change is Change.ADD_COLUMN:
        if have.column(column.name) is not None:
            return Foreseen(have)
        added = (*have.columns, column)
        statement = f"add to {change.table} the column {column.name} {column.kind}"
        return Foreseen(replace(have, columns=added), (statement,))
    columns_ = tuple(column if c.name == column.name else c for c in have.columns)
    statement = f"change in {change.table} the column {column.name} to {column.kind}"
    return Foreseen(replace(have, columns=columns_), (statement,))


def rehearse(
    source: SourceConnector,
    destination: DestinationConnector,
    settings: TableSettings,
    *,
    sample: int,
) -> Forecast:
    """What carrying this table would do, by about `sample` of its rows.

    That it cannot be carried is a forecast too.
    """
    stage = Rehearsal(destination)
    forecast = Forecast(
        settings.table, settings.schema, settings.destination, stage.get_schema(settings.table)
    )
    try:
        _play(source, stage, settings, forecast, sample)
    except (ConfigError, TransientError):
        raise  # not the table's fault
    except WarpError as error:
        forecast.obstacle = str(error)
    forecast.after = stage.get_schema(settings.table)
    forecast.statements = stage.statements
    forecast.rows, forecast.quarantined = stage.rows, stage.quarantined
    for (column, outcome, met, expected), cells in sorted(stage.misfits.items()):
        misfit = Misfit(outcome, met, expected, cells)
        forecast.misfits.setdefault(column, []).append(misfit)
    return forecast


def _play(
    source: SourceConnector,
    stage: Rehearsal,
    settings: TableSettings,
    forecast: Forecast,
    sample: int,
) -> None:
    table = settings.table
    if not source.traits.schemaless:
        forecast.source = source.get_schema([table]).get(table)
    forecast.billed = billed(source, table)
    chunks = source.chunks(table, settings.chunk_rows)
    forecast.estimated = sum(chunk.rows for chunk in chunks)
    chosen = spread(chunks, PARTS)
    now = [0.0]

    def selection(table: TableId) -> TableSettings | None:
        return settings if table == settings.table else None

    unit = WorkUnit.of_chunk(settings.schema, chosen[0], 0)
    delivery = Delivery(
        source,
        cast(DestinationConnector, stage),
        _Free(unit),
        selection,
        NoMeter(),
        clock=lambda: now[0],
    )
    marker = Marker(unit, phase=Phase.SNAPSHOT)
    delivery.know(table)
    forecast.whole = len(chosen) == len(chunks)
    for chunk in chosen:
        left = -(-sample // len(chosen))
        batches = source.get_full_snapshot(chunk)
        try:
            for batch in batches:
                marker = delivery.write(marker, batch, Phase.SNAPSHOT)
                left -= len(batch)
                if left <= 0:
                    forecast.whole &= not any(map(len, islice(batches, 1)))
                    break
        finally:
            cast(Any, batches).close()
        now[0] += _LATER
        delivery.promote()


def spread(chunks: Sequence[Chunk], count: int) -> list[Chunk]:
    """So many of them, from the first to the last."""
    if len(chunks) <= count:
        return list(chunks)
    return [chunks[i * (len(chunks) - 1) // (count - 1)] for i in range(count)]


def billed(source: SourceConnector, table: TableId) -> Cost | None:
    """What reading a table costs, where the source's traits say that it `bills`; asking is free."""
    if not source.traits.bills:
        return None
    return next(iter(cast(TellsCosts, source).cost([table])), None)
