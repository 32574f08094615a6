"""Rows whose column of times says that they changed: `strategy: timestamp`.

A transaction stamps its rows before it commits, and another that stamped later may commit first.
So the place reached is never the greatest time seen: it is the instant the run began by the
source's clock, or the beginning of the oldest transaction then open, whichever is earlier.  The
next run reads from there, or from the greatest time seen where that is earlier still (all who
stamp may be behind the source's clock, or in another time zone than configured), less an overlap.
What is read again and has not changed changes nothing.

What no column of times can show: deletes, rows stamped with NULL, rows stamped back into the past.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isfinite
from typing import Final

import structlog

from warp.capture import batches, clocks, pages, whole
from warp.capture.clocks import SECOND
from warp.capture.pages import Between
from warp.capture.places import Place, Reading, Strategy, parse, version_of
from warp.capture.side import Clock, SqlSide
from warp.model import (
    ChangeBatch,
    Column,
    Invalid,
    Position,
    TableId,
    TableSchema,
    TableSettings,
)

log = structlog.get_logger(__name__)

# Where the server tells about its transactions: what a stamp may be older than the transaction
# that carries it (a clock of the application's, a statement that waited for its first lock).
OVERLAP: Final = 5.0
# Where it does not: also the longest transaction, as far as one can guess.
UNTOLD_OVERLAP: Final = 60.0
_HELD_BACK: Final = 300 * SECOND  # for so long nobody need be told
_AHEAD: Final = 300 * SECOND  # more than clocks differ

_said: set[tuple[TableId, str]] = set()  # a connector lives for one run: remembered here


@dataclass(frozen=True, slots=True)
class Timed:
    """A table that is polled by a column of times."""

    schema: TableSchema
    times: Column
    settings: TableSettings


def start(side: SqlSide, settings: TableSettings, *, fire_time: float) -> Position:
    """Where polling goes on after a snapshot that begins now."""
    upto = _then(side.clock(), settings, None)
    place = Place(Strategy.TIMESTAMP, settings.timestamp_column, upto, version=side.version())
    schema = side.schema(settings.table)
    times = None if schema is None else _times(schema, settings)
    if schema is not None and times is not None:
        greatest = _greatest(side, Timed(schema, times, settings))
        if greatest is not None and not isinstance(greatest, Invalid):
            place = replace(place, greatest=clocks.text(times, greatest))
    return place.position(fire_time)


def poll(
    side: SqlSide, settings: TableSettings, position: Position | None, *, fire_time: float
) -> Iterator[ChangeBatch]:
    """One run, from where the last one got to."""
    column = settings.timestamp_column
    place = parse(position, Strategy.TIMESTAMP, column) or Place(Strategy.TIMESTAMP, column)
    schema = side.schema(settings.table)
    if schema is None:  # dropped since it was listed
        yield batches.batch([], place.position(fire_time))
        return
    times = _times(schema, settings)
    if times is None:
        known = parse(position, Strategy.WHOLE)
        found = known or Place(Strategy.WHOLE, version=version_of(position))
        yield from whole.read(
            side,
            schema,
            found,
            rows=settings.write_batch_size,
            at=lambda reached: reached.position(fire_time),
        )
        return
    yield from _run(side, Timed(schema, times, settings), place, fire_time)


def must_compare(schema: TableSchema, settings: TableSettings) -> bool:
    """Is the table without the column, or without a key?"""
    return not schema.key or _column(schema, settings) is None


def _times(schema: TableSchema, settings: TableSettings) -> Column | None:
    """None where the table must be compared."""
    found = _column(schema, settings)
    if found is None or not schema.key:
        return None
    clocks.must_hold_times(settings.table, found)
    return found


def _column(schema: TableSchema, settings: TableSettings) -> Column | None:
    return next((c for c in schema.columns if c.source == settings.timestamp_column), None)


def _run(side: SqlSide, timed: Timed, place: Place, fire_time: float) -> Iterator[ChangeBatch]:
    reading = place.reading or _begin(side, timed, place)
    rows = timed.settings.write_batch_size
    page = max(rows, side.page_rows)
    order = pages.Order(timed.schema, timed.times)
    version = place.version
    while reading is not None:
        # Before the rows: whatever a row shows was committed at this version or later.
        version = max(side.version(), version)
        statement = pages.page(
            side.dialect, order, between=reading.between, after=reading.after, rows=page
        )
        found = 0
        for columns in side.select(statement, timed.schema, rows=rows):
            found += len(columns[0])
            reading = replace(reading, after=tuple(order.last(columns)))
            place = place.at(version, reading=reading)
            part = batches.rows(timed.schema, columns, version)
            yield batches.batch([part], place.position(fire_time))
        if found < page:
            greatest = reading.between.high if reading.between else ""
            place = place.at(version, upto=reading.then, greatest=greatest, reading=None)
            break
    yield batches.batch([], place.position(fire_time))


def _begin(side: SqlSide, timed: Timed, place: Place) -> Reading | None:
    """What this run reads; None where there is nothing."""
    # The clock first: a transaction that it does not show as open has committed before the rows
    # are read, or begins later than it says (guarantee 4).
    clock = side.clock()
    times, zone, table = timed.times, timed.settings.timezone, timed.schema.table
    greatest = _greatest(side, timed)
    if greatest is None:
        return None
    then = _then(clock, timed.settings, place.upto)
    if isinstance(greatest, Invalid):  # `infinity`: later than all that can be told
        return Reading(between=Between(None, greatest.text), then=then)
    high = clocks.text(times, greatest)
    unit = clocks.unit_of(table, times, greatest)
    if clocks.is_later(greatest, clocks.stamped(times, clock.now + _AHEAD, zone, unit)):
        # Nothing is missed; but everything between now and then is read in each run.
        _say_once(table, "times_ahead_of_the_clock", found=high, now=clocks.iso(clock.now))
    if place.upto is None:
        return Reading(between=Between(None, high), then=then)
    low = clocks.stamped(times, min(place.upto, clock.now), zone, unit)
    if place.greatest and high != place.greatest:
        overlap = _overlap(clock, timed.settings)
        seen = clocks.before(times, clocks.read(times, place.greatest), overlap, unit)
        low = seen if clocks.is_later(low, seen) else low
    # Else nobody has stamped anything since: the rows of the greatest time, of which there may be
    # very many, need not be read again for that.
    return Reading(between=Between(clocks.text(times, low), high), then=then)


def _greatest(side: SqlSide, timed: Timed) -> clocks.Time | Invalid | None:
    """What came later than this was stamped or committed since the clock was looked at."""
    statement = pages.greatest(side.dialect, timed.schema, timed.times)
    schema = TableSchema(timed.schema.table, (timed.times,), ())
    [[greatest]] = [part[0] for part in side.select(statement, schema, rows=1)]
    if isinstance(greatest, float | Decimal) and not isfinite(greatest):
        return Invalid(clocks.text(timed.times, greatest))
    return greatest  # type: ignore[no-any-return]


def _then(clock: Clock, settings: TableSettings, upto: int | None) -> int | None:
    """The instant from which the next run reads."""
    if clock.untold:
        _say_once(settings.table, "transactions_untold", mend=clock.untold)
    if clock.unknown:
        # It was open when we last looked, and `upto` is not after its beginning; or it began
        # since, which is later still.
        _say_once(settings.table, "poll_held_back", by=clock.holder)
        return upto
    reached = clock.now if clock.oldest is None else min(clock.now, clock.oldest)
    if clock.now - reached > _HELD_BACK:
        _say_once(settings.table, "poll_held_back", by=clock.holder, since=clocks.iso(reached))
    return reached - int(_overlap(clock, settings) * SECOND)


def _overlap(clock: Clock, settings: TableSettings) -> float:
    if settings.overlap is not None:
        return settings.overlap
    return UNTOLD_OVERLAP if clock.untold else OVERLAP


def _say_once(table: TableId, what: str, **more: str) -> None:
    """Each run reads what was held back again, which is right, and costs."""
    if (table, what) not in _said:
        _said.add((table, what))
        log.warning(what, table=str(table), **more)
