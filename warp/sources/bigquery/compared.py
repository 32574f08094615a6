"""What comparing with a destination asks of BigQuery: a table as its last run has delivered it.

A comparison's run (`strategy: hash`) delivers the table of one moment, and BigQuery shows it as it
was then for as long as the time travel reaches; so source and destination are compared at that very
moment, however much is written meanwhile.  The other ways deliver what changed until some moment,
and perhaps some of what came after it (rows that were read a little later, a snapshot of which the
history is ten minutes behind); of them the moment is one up to which nothing is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

from warp.capture.clocks import SECOND
from warp.capture.places import Strategy, parse
from warp.digest.seams import IN_ONE_ORDER, Bound, BoundsOf, Delivered, KeyRange
from warp.errors import PositionLost, SourceUnavailable
from warp.kinds import as_text, converter
from warp.model import (
    Cells,
    Chunk,
    Kind,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSettings,
)
from warp.sources.bigquery import reading, snapshot
from warp.sources.bigquery.catalog import Catalog, Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.comparison import MARGIN
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import Server
from warp.sources.bigquery.strategies import Way, way_of

_DIALECT: Final = BigQueryDialect()
_STATEMENT: Final = 250_000  # characters of keys in one query; BigQuery takes a million in all
_LARGEST: Final = 38  # digits of a BIGNUMERIC on either side of its point
_PART: Final = 1_000  # rows
_YEARS: Final = range(-62_135_596_800_000_000, 253_402_300_800_000_000)  # 1 to 9999, microseconds


def delivered(
    server: Server, catalog: Catalog, table: Table, settings: TableSettings, position: Position
) -> Delivered | None:
    """As `warp.digest.seams.Remembers`."""
    found = _brought(table, settings, position)
    if found is None:
        return None
    reach = catalog.time_travel(table.id.namespace) - MARGIN  # reading takes its time too
    oldest = max(server.now() - int(reach * SECOND), int(table.created * SECOND))
    return found if found.at > oldest else None


def _brought(table: Table, settings: TableSettings, position: Position) -> Delivered | None:
    """What the place of a poll says.  Pure."""
    match way_of(settings, table):
        case Way.COMPARISON:
            place = parse(position, Strategy.WHOLE)
            # After a change of columns the next run reads all rows, whatever was there before.
            if place is None or place.upto is None or place.about != table.signature:
                return None
            return Delivered(place.upto, exact=place.reading is None)
        case Way.TIMES:
            place = parse(position, Strategy.TIMESTAMP, settings.timestamp_column)
            return None if place is None or place.upto is None else Delivered(place.upto, False)
        case Way.HISTORY:
            place = parse(position, Strategy.HISTORY)
            # Changes of the moment itself are of the next span.
            return None if place is None or place.upto is None else Delivered(place.upto - 1, False)
        case Way.NONE:
            return None


def bounds(table: Table, chunk: Chunk) -> BoundsOf | None:
    """None also where the table was cut otherwise than by the values of its whole key."""
    leading = table.column(table.key[0]) if len(table.key) == 1 else None
    if leading is None or leading.kind not in IN_ONE_ORDER:
        return None
    ends: list[Bound | None] = []
    for text in (chunk.lower, chunk.upper):
        if text is None:
            ends.append(None)
            continue
        value = snapshot.value_of(leading, text)
        convert = converter(Kind.TEXT, leading.kind)
        if value is None or convert is None:
            return None
        ends.append((convert(value),))
    return BoundsOf((leading.kind,), KeyRange(*ends))


def scans(server: Server, table: Table, rows: int) -> int:
    """How often one pass over ranges of about so many rows scans the table."""
    leading = table.column(table.key[0]) if len(table.key) == 1 else None
    if leading is None or leading.kind not in IN_ONE_ORDER or table.prunes_by(leading.name):
        return 1
    wanted = max(1, -(-table.rows // max(1, rows)))
    affordable = snapshot.affordable(server, table)
    if wanted > affordable and server.reader is not None:
        return 1  # it is not cut by keys, and so compared as one
    return min(wanted, affordable)


def look_up(server: Server, table: Table, wanted: TableChanges, at: int | None) -> TableChanges:
    """The rows of these keys, and perhaps of others whose parts are the same; now, or at a time."""
    now = at or server.now()
    found: list[list[Any]] = [[] for _ in table.columns]
    for keys in _in_parts(table, _keys(table, wanted)):
        condition = " AND ".join(
            _among(column, {key[place] for key in keys})
            for place, column in enumerate(_key_columns(table))
        )
        doing = f"look up rows of {table.id}"
        statement = snapshot.select(table, _DIALECT.at(table.id, now), condition)
        with remembered(table.id):
            taken = reading.begin_query(server, statement, doing=doing)
            try:
                ready = reading.wait(server, taken, doing=doing)
                batches = reading.read(server, ready or reading.Ready(taken), doing=doing)
                for part in reading.parts(batches, lambda: _PART):
                    for column, cells in zip(
                        found, reading.cells(part, table.columns), strict=True
                    ):
                        column += cells
            except reading.Vanished as error:
                raise SourceUnavailable(
                    "the result of a query was expected, found it gone; it is asked again",
                    place=str(table.id),
                ) from error
    count = len(found[0]) if found else 0
    operations = bytearray((Operation.READ,)) * count
    return TableChanges(table.id, operations, [now] * count, table.proposal(), found)


def rows_at(
    server: Server, table: Table, chunk: Chunk, rows: Callable[[], int], at: int
) -> Iterator[TableChanges]:
    with remembered(table.id):
        for _, changes in snapshot.read(server, table, chunk, rows, at=at):
            if changes is not None:
                yield changes


@contextmanager
def remembered(table: TableId) -> Iterator[None]:
    """A moment that has gone out of reach meanwhile is no lost place of the poll."""
    try:
        yield
    except PositionLost as error:
        raise SourceUnavailable(
            "a table that is shown as it was at its last run was expected; found: "
            f"{error.message}; it is compared after the next run",
            place=str(table),
        ) from error


def _key_columns(table: Table) -> list[Declared]:
    return [column for name in table.key if (column := table.column(name)) is not None]


def _keys(table: Table, wanted: TableChanges) -> list[tuple[Any, ...]]:
    """Those that the columns of the key can hold; there is no row of any other."""
    if wanted.schema is None:
        raise AssertionError("rows with columns are looked up")
    names = [column.name for column in wanted.schema.columns]
    columns = _key_columns(table)
    cells: list[Cells] = [wanted.columns[names.index(column.name)] for column in columns]
    rows = dict.fromkeys(zip(*cells, strict=True))
    return [
        key
        for key in rows
        if all(_fits(column, cell) for column, cell in zip(columns, key, strict=True))
    ]


def _fits(column: Declared, cell: Any) -> bool:
    if cell is None:
        return False
    if isinstance(cell, Decimal):
        exponent = cell.as_tuple().exponent
        fits = isinstance(exponent, int) and -exponent <= _LARGEST and cell.adjusted() < _LARGEST
        return fits and cell.is_finite()
    return column.kind not in (Kind.DATETIME, Kind.TIMESTAMP) or cell in _YEARS


def _in_parts(table: Table, keys: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """As many as one statement can name."""
    columns = _key_columns(table)
    part: list[tuple[Any, ...]] = []
    size = 0
    for key in keys:
        mine = sum(len(_literal(c, cell)) + 2 for c, cell in zip(columns, key, strict=True))
        if part and size + mine > _STATEMENT:
            yield part
            part, size = [], 0
        part.append(key)
        size += mine
    if part:
        yield part


def _among(column: Declared, cells: set[Any]) -> str:
    """Is the column one of these?  A condition on one column at a time, by which BigQuery leaves
    out what need not be read."""
    name = _DIALECT.name(column.name)
    numbers = [cell for cell in cells if not (isinstance(cell, float) and math.isnan(cell))]
    conditions = []
    if numbers:
        conditions.append(f"{name} IN ({', '.join(_literal(column, cell) for cell in numbers)})")
    if len(numbers) < len(cells):  # which equals nothing
        conditions.append(f"IS_NAN({name})")
    return f"({' OR '.join(conditions)})"


def _literal(column: Declared, cell: Any) -> str:
    return _DIALECT.literal(column.kind, as_text(column.kind, cell))
