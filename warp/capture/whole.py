"""A table read whole, and what was not found again removed: the way that sees everything.

For tables without a column of times, and where a strategy cannot say what changed.  Deletes show
by their absence: rows of the destination that are older than the run's first row go at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from warp.capture import batches, pages
from warp.capture.places import Place, Reading
from warp.capture.side import SqlSide
from warp.model import ChangeBatch, Operation, Position, TableSchema

At = Callable[[Place], Position]


def read(
    side: SqlSide, schema: TableSchema, place: Place, *, rows: int, at: At
) -> Iterator[ChangeBatch]:
    """One run; a run that was cut short goes on after the last row of `place`."""
    if not schema.key:
        yield from _read_without_key(side, schema, place, rows, at)
        return
    version = max(side.version(), place.version)
    if place.reading is None:
        place = place.at(version, reading=Reading(first=version))
    order = pages.Order(schema)
    page = max(rows, side.page_rows)
    while True:
        reading = place.reading or Reading()
        statement = pages.page(side.dialect, order, after=reading.after, rows=page)
        found = 0
        for columns in side.select(statement, schema, rows=rows):
            found += len(columns[0])
            place = place.at(version, reading=replace(reading, after=tuple(order.last(columns))))
            yield batches.batch([batches.rows(schema, columns, version)], at(place))
        if found < page:
            break
        version = max(side.version(), version)
    first = (place.reading or Reading()).first
    done = place.at(version, reading=None)
    yield batches.batch([batches.truncate(schema, first - 1)], at(done))


def _read_without_key(
    side: SqlSide, schema: TableSchema, place: Place, rows: int, at: At
) -> Iterator[ChangeBatch]:
    """In one go, at a version of its own: no row replaces another, so all earlier ones must go.

    A run that was cut short has left rows of its version; the next has a higher one.
    """
    version = max(side.version(), place.version + 1)
    place = place.at(version, reading=None)
    for columns in side.select(pages.page(side.dialect, pages.Order(schema)), schema, rows=rows):
        part = batches.rows(schema, columns, version, Operation.READ)
        yield batches.batch([part], at(place))
    yield batches.batch([batches.truncate(schema, version - 1)], at(place))
