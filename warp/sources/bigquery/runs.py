"""A run over rows that stand still: begun, waited for, read, gone on with by whoever comes next.

While BigQuery works on a query, a run yields empty batches whose position names the query: so a
worker that waits shows progress, and its successor asks for the same result and bills nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pyarrow as pa

from warp.capture.places import Place, Reading
from warp.errors import SourceRefused, SourceUnavailable
from warp.sources.bigquery import reading
from warp.sources.bigquery.reading import Taken, Vanished
from warp.sources.bigquery.server import Server

# A unit without progress for a minute is taken for stuck.
_TELL_EVERY: Final = 15.0

Begin = Callable[[], Place]


def begun(
    place: Place, kind: str, taken: Taken | None, *, first: int = 0, then: int | None = None
) -> Place:
    """The place at the beginning of a run; without `taken` there is no row to read."""
    after = (kind, *(taken.words() if taken is not None else ()))
    return replace(place, reading=Reading(after=after, first=first, then=then))


def kind_of(place: Place) -> str:
    """What sort of run is under way."""
    return place.reading.after[0] if place.reading and place.reading.after else ""


def read(
    server: Server, place: Place, begin: Begin, *, rows: int, doing: str
) -> Iterator[tuple[Place, pa.Table | None]]:
    """(the place after them, rows), and None for rows while there is only to wait.

    Where what was read before is not kept any more, the run begins anew.
    """
    fresh = place.reading is None
    if fresh:
        place = begin()
    try:
        yield from _read(server, place, rows, doing)
    except Vanished as error:
        if fresh:
            raise SourceUnavailable(
                f"could not {doing}: what was begun is kept no more; the run begins anew",
                place=server.explainer.place,
            ) from error
        place = begin()
        yield from _read(server, place, rows, doing)


def _read(
    server: Server, place: Place, rows: int, doing: str
) -> Iterator[tuple[Place, pa.Table | None]]:
    yield place, None  # remembered before it is waited for
    taken = taken_of(place)
    if taken is None:  # the table had no row
        return
    ready = reading.wait(server, taken, doing=doing, seconds=_TELL_EVERY)
    while ready is None:
        yield place, None
        ready = reading.wait(server, taken, doing=doing, seconds=_TELL_EVERY)
    taken = ready.taken
    for part in reading.parts(reading.read(server, ready, doing=doing), lambda: rows):
        taken = taken.after(part.num_rows)
        place = _moved(place, taken)
        yield place, part


def taken_of(place: Place) -> Taken | None:
    if place.reading is None or place.reading.after is None or len(place.reading.after) < 2:
        return None
    try:
        return Taken.parse(place.reading.after[1:])
    except ValueError as error:
        raise SourceRefused(
            f"the place of a run was expected, found {place.reading.after!r}; run "
            "`cartridge-warp resync SCHEMA`"
        ) from error


def _moved(place: Place, taken: Taken) -> Place:
    if place.reading is None:
        raise AssertionError("a run under way has a place")
    after = (kind_of(place), *taken.words())
    return replace(place, reading=replace(place.reading, after=after))
