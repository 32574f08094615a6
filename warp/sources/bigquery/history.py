"""What BigQuery remembers of a table's changes: `strategy: log`.

CHANGES() tells of inserts, updates and deletes of tables with `enable_change_history`, up to ten
minutes ago; APPENDS() of new rows of any table, at once.  Both reach back as far as the time
travel.  A place before that is lost, and never skipped (guarantee 6).

No emulator knows either function: what is shown of this module are its requests, and what it makes
of the answers that Google's documentation promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pyarrow as pa

from warp.capture import batches
from warp.capture.clocks import SECOND, iso
from warp.capture.places import Place, Strategy, parse
from warp.errors import PositionLost, SourceRefused
from warp.model import ChangeBatch, Operation, Position, TableChanges, TableSettings
from warp.sources.bigquery import comparison, reading, runs
from warp.sources.bigquery.catalog import Catalog, Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import Server
from warp.sql import load

_DIALECT: Final = BigQueryDialect()
_CHANGES, _APPENDS = "CHANGES", "APPENDS"
_LONGEST_SPAN: Final = 24 * 3600 * SECOND  # that one call of CHANGES() may ask for
_KIND: Final = "history"
_TYPE: Final = Declared("_cw_type", "STRING")
_AT: Final = Declared("_cw_at", "INT64")
_OPERATIONS: Final = {
    "INSERT": Operation.UPDATE,  # of a key that may be there, where a span is read again
    "UPDATE": Operation.UPDATE,
    "DELETE": Operation.DELETE,
}


def start(server: Server, table: Table | None, *, fire_time: float) -> Position:
    """Where runs go on after a snapshot that begins now."""
    now = server.now()
    about = table.signature if table is not None else ""
    return Place(Strategy.HISTORY, about, upto=now, version=now).position(fire_time)


def poll(
    server: Server,
    catalog: Catalog,
    table: Table,
    settings: TableSettings,
    position: Position | None,
    *,
    fire_time: float,
) -> Iterator[ChangeBatch]:
    """One run, from where the last one got to; without that, all rows."""
    if not table.key:
        raise SourceRefused(
            "a table with a key was expected, found none: which row a change is about cannot be "
            "told; name its columns with `keys`, or use strategy hash",
            place=str(table.id),
        )
    place = parse(position, Strategy.HISTORY)
    if place is None or (place.upto is None and runs.kind_of(place) != _KIND):
        yield from _whole(server, table, settings, place, fire_time)
        return
    function = _APPENDS if is_appended(server, table) else _CHANGES
    delay = 0 if function == _APPENDS else int(server.options.history_delay * SECOND)
    goal = server.now() - delay
    while place.reading is not None or (place.upto or 0) < goal:
        span = _span(server, catalog, table, settings, place, goal, function)
        for reached, part in span:
            place = reached
            changes = [] if part is None else _changes(table, part)
            yield batches.batch(changes, place.position(fire_time))
    yield batches.batch([], place.position(fire_time))


def is_appended(server: Server, table: Table) -> bool:
    """Are rows only ever added to it, as the configuration says?"""
    named = server.options.appended
    return str(table.id) in named or table.id.name in named


def statement(table: Table, function: str, since: int, until: int) -> str:
    """The last change of each key in [since, until)."""
    name = _DIALECT.name
    return load("bigquery_source", "history").format(
        columns=", ".join(name(c.name) for c in table.columns),
        function=function,
        table=name(table.id.namespace, table.id.name),
        since=_DIALECT.instant(since),
        until=_DIALECT.instant(until),
        keys=", ".join(name(key) for key in table.key),
    )


def _span(
    server: Server,
    catalog: Catalog,
    table: Table,
    settings: TableSettings,
    place: Place,
    goal: int,
    function: str,
) -> Iterator[tuple[Place, pa.Table | None]]:
    """One call of the function, as far as it may reach."""
    doing = f"read the history of {table.id}"

    def begin() -> Place:
        since = place.upto or 0
        _must_be_remembered(server, catalog, table, since)
        until = min(goal, since + _LONGEST_SPAN)
        asked = statement(table, function, since, until)
        taken = reading.begin_query(server, asked, doing=doing)
        return runs.begun(place, _KIND, taken, then=until)

    reached = place
    for reached, part in runs.read(
        server, place, begin, rows=settings.write_batch_size, doing=doing
    ):
        yield reached, part
    if reached.reading is None or reached.reading.then is None:
        raise AssertionError("a span under way has an end")
    until = reached.reading.then
    yield replace(reached, upto=until, version=max(reached.version, until), reading=None), None


def _must_be_remembered(server: Server, catalog: Catalog, table: Table, since: int) -> None:
    """The history of a table that was made again begins with it."""
    reach = int(catalog.time_travel(table.id.namespace) * SECOND)
    oldest = server.now() - reach
    if since < oldest:
        raise PositionLost(
            f"a history from {iso(since)} on was expected, found that BigQuery remembers it from "
            f"{iso(oldest)} on: changes in between cannot be read any more; run `cartridge-warp "
            "resync SCHEMA`, and poll more often, or raise max_time_travel_hours of the dataset",
            place=str(table.id),
        )
    if since < int(table.created * SECOND):
        raise PositionLost(
            f"the table of {iso(since)} was expected, found one made at "
            f"{iso(int(table.created * SECOND))}, whose history begins there; run "
            "`cartridge-warp resync SCHEMA`",
            place=str(table.id),
        )


def _changes(table: Table, part: pa.Table) -> list[TableChanges]:
    types = _TYPE.cells(part.column(_TYPE.name))
    try:
        operations = bytearray(_OPERATIONS[one] for one in types)
    except KeyError as error:
        raise SourceRefused(
            f"changes of INSERT, UPDATE or DELETE were expected, found {error.args[0]!r}",
            place=str(table.id),
        ) from None
    columns = reading.cells(part, table.columns)
    if Operation.DELETE in operations:
        columns = [
            cells if column.name in table.key else comparison.without(cells, operations)
            for column, cells in zip(table.columns, columns, strict=True)
        ]
    versions = list(_AT.cells(part.column(_AT.name)))
    return [TableChanges(table.id, operations, versions, table.proposal(), columns)]


def _whole(
    server: Server, table: Table, settings: TableSettings, place: Place | None, fire_time: float
) -> Iterator[ChangeBatch]:
    """All rows as they are now; what is not among them is gone, and the history goes on there."""
    place = place or Place(Strategy.HISTORY, table.signature)

    def begin() -> Place:
        now = max(server.now(), place.version)
        return comparison.begin_whole(server, table, place, now)

    reached = place
    for reached, part in runs.read(
        server, place, begin, rows=settings.write_batch_size, doing=f"read {table.id}"
    ):
        found = [] if part is None else reading.cells(part, table.columns)
        changes = (
            [batches.rows(table.proposal(), found, comparison.at_of(reached))] if found else []
        )
        yield batches.batch(changes, reached.position(fire_time))
    at = comparison.at_of(reached)
    done = reached.at(at, upto=at, reading=None)
    yield batches.batch([batches.truncate(table.proposal(), at - 1)], done.position(fire_time))
