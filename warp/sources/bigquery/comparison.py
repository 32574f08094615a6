"""What is different from the last run, found by BigQuery itself: `strategy: hash`.

A run reads the table at one time.  Where there is a key, and BigQuery can still show the table as
it was at the run before, only rows that differ are read, and keys that are gone.  Otherwise all
rows are, and what is not among them is gone: at first, after a change of columns, where the table
was made again, where a run could not be ended, and where the last one is longer ago than the time
travel reaches (guarantee 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from warp.capture import batches
from warp.capture.clocks import SECOND
from warp.capture.places import Place, Strategy, parse
from warp.model import (
    ABSENT,
    ChangeBatch,
    Operation,
    Position,
    TableChanges,
    TableSettings,
)
from warp.sources.bigquery import reading, runs, snapshot
from warp.sources.bigquery.catalog import Catalog, Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import Server
from warp.sql import load

_DIALECT: Final = BigQueryDialect()
_DIFFERENCE, _WHOLE = "difference", "whole"
_GONE: Final = Declared("_cw_gone", "BOOL")
# A run must end before the window does.
MARGIN: Final = 3600.0  # seconds


def start(server: Server, table: Table | None, *, fire_time: float) -> Position:
    """Where runs go on after a snapshot that begins now: with all rows.

    A chunk may show a row that came after now and went before the first run, or a value that was
    set back; a difference between the two would not mention it.
    """
    about = table.signature if table is not None else ""
    return Place(Strategy.WHOLE, about, version=server.now()).position(fire_time)


def poll(
    server: Server,
    catalog: Catalog,
    table: Table,
    settings: TableSettings,
    position: Position | None,
    *,
    fire_time: float,
) -> Iterator[ChangeBatch]:
    """One run, from where the last one got to."""
    place = parse(position, Strategy.WHOLE) or Place(Strategy.WHOLE)
    rows = settings.write_batch_size
    if not table.key:
        yield from _without_key(server, table, place, rows, fire_time)
        return
    if place.about != table.signature:
        place = replace(place, about=table.signature, upto=None, reading=None)
    doing = f"compare {table.id}"
    reached = first = place

    def begin() -> Place:
        if first.reading is None:
            return _begin(server, catalog, table, first)
        # A run whose rows are kept no more has delivered some of them: what was set back since
        # differs from those, and not from the run before.
        return begin_whole(server, table, first, max(server.now(), first.version))

    for reached, part in runs.read(server, place, begin, rows=rows, doing=doing):
        kind = runs.kind_of(reached)
        changes = [] if part is None else _changes(table, at_of(reached), part, kind)
        yield batches.batch(changes, reached.position(fire_time))
    at = at_of(reached)
    whole = runs.kind_of(reached) != _DIFFERENCE
    done = reached.at(at, upto=at, reading=None)
    # What a whole run did not find is gone: it is older than the run.
    swept = [batches.truncate(table.proposal(), at - 1)] if whole else []
    yield batches.batch(swept, done.position(fire_time))


def at_of(place: Place) -> int:
    """The time that the run reads, which is the version of its rows."""
    return place.reading.first if place.reading is not None else place.version


def _begin(server: Server, catalog: Catalog, table: Table, place: Place) -> Place:
    now = max(server.now(), place.version)
    reach = catalog.time_travel(table.id.namespace) - MARGIN
    before = place.upto
    if (
        before is None
        or not max(now - int(reach * SECOND), int(table.created * SECOND)) < before < now
    ):
        return begin_whole(server, table, place, now)
    statement = difference(table, before, now)
    taken = reading.begin_query(server, statement, doing=f"compare {table.id}")
    return runs.begun(replace(place, version=now), _DIFFERENCE, taken, first=now)


def begin_whole(server: Server, table: Table, place: Place, at: int) -> Place:
    """A run over all rows as they were at a time."""
    place = replace(place, version=at)
    if server.reader is None:
        statement = snapshot.select(table, _DIALECT.at(table.id, at))
        taken = reading.begin_query(server, statement, doing=f"read {table.id}")
        return runs.begun(place, _WHOLE, taken, first=at)
    streams = reading.table_streams(server, table.id, table.columns, at=at)
    return runs.begun(place, _WHOLE, streams[0] if streams else None, first=at)


def difference(table: Table, before: int, now: int) -> str:
    """The statement that finds what differs between two times."""
    name = _DIALECT.name
    return load("bigquery_source", "difference").format(
        table=name(table.id.namespace, table.id.name),
        before=_DIALECT.instant(before),
        now=_DIALECT.instant(now),
        columns=", ".join(name(c.name) for c in table.columns),
        keys=", ".join(f"{name(key)} AS k{n}" for n, key in enumerate(table.key)),
        keyed=" AND ".join(f"{name(key)} IS NOT NULL" for key in table.key),
        joined=" AND ".join(f"n.{name(key)} = b.k{n}" for n, key in enumerate(table.key)),
        selected=", ".join(_selected(table, column) for column in table.columns),
    )


def _selected(table: Table, column: Declared) -> str:
    name = _DIALECT.name(column.name)
    if column.name in table.key:
        return f"COALESCE(n.{name}, b.k{table.key.index(column.name)}) AS {name}"
    return f"n.{name} AS {name}"


def _changes(table: Table, at: int, part: pa.Table, kind: str) -> list[TableChanges]:
    schema = table.proposal()
    columns = reading.cells(part, table.columns)
    if kind != _DIFFERENCE:
        return [batches.rows(schema, columns, at)]
    gone = _GONE.cells(part.column(_GONE.name))
    operations = bytearray(Operation.DELETE if one else Operation.UPDATE for one in gone)
    if Operation.DELETE in operations:
        columns = [
            cells if column.name in table.key else without(cells, operations)
            for column, cells in zip(table.columns, columns, strict=True)
        ]
    return [TableChanges(table.id, operations, [at] * len(operations), schema, columns)]


def without(cells: Any, operations: bytearray) -> list[Any]:
    """A column of which a delete says nothing."""
    return [
        ABSENT if operation == Operation.DELETE else cell
        for cell, operation in zip(cells, operations, strict=True)
    ]


def _without_key(
    server: Server, table: Table, place: Place, rows: int, fire_time: float
) -> Iterator[ChangeBatch]:
    """In one go, at a time of its own: no row replaces another, so all earlier ones must go."""
    at = max(server.now(), place.version + 1)
    schema = table.proposal()
    place = replace(place, about=table.signature, upto=None, reading=None)
    for reached, part in runs.read(
        server,
        place,
        lambda: begin_whole(server, table, place, at),
        rows=rows,
        doing=f"read {table.id}",
    ):
        if part is not None:
            cells = reading.cells(part, table.columns)
            end = replace(reached, reading=None).position(fire_time)
            yield batches.batch([batches.rows(schema, cells, at, Operation.READ)], end)
    done = replace(place, version=at, upto=at)
    yield batches.batch([batches.truncate(schema, at - 1)], done.position(fire_time))
