"""What it costs to read a table, before anything is read.

Bytes are what BigQuery bills where it bills by bytes; they are asked for by dry runs, which bill
nothing.  Prices are the project's own and are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warp.capture import clocks, pages
from warp.capture.clocks import SECOND
from warp.capture.pages import Between, Order
from warp.errors import SourceRefused
from warp.model import Column, Cost, TableSettings
from warp.sources.bigquery import compared, history, snapshot
from warp.sources.bigquery.catalog import Table
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import Server
from warp.sources.bigquery.strategies import Way, way_of

_DIALECT: Final = BigQueryDialect()
BILLED_AT_LEAST: Final = 10 << 20  # bytes of each table that a query names
_HOUR: Final = 3600 * SECOND


def cost(server: Server, table: Table, settings: TableSettings) -> Cost:
    way = way_of(settings, table)
    name = _DIALECT.name(table.id.namespace, table.id.name)
    doing = f"estimate what reading {table.id} costs"
    whole = server.estimate(snapshot.select(table, name), doing=doing)
    cap = server.options.maximum_bytes_billed
    compare = compared.scans(server, table, settings.chunk_rows) * _billed(whole)
    if way is Way.COMPARISON:
        # What was there before is one scan, what is there now another.
        run = 2 * _billed(whole)
        return Cost(table.id, way, _billed(whole), run, cap, verification=compare)
    try:
        run = sum(
            _billed(server.estimate(statement, doing=doing))
            for statement in _statements(server, table, settings, way)
        )
    except SourceRefused as error:
        return Cost(table.id, way, _billed(whole), None, cap, error.message, compare)
    return Cost(table.id, way, _billed(whole), run, cap, verification=compare)


def _statements(server: Server, table: Table, settings: TableSettings, way: Way) -> Sequence[str]:
    """What a run after an hour, or after its interval, would ask for."""
    now = server.now()
    if way is Way.HISTORY:
        appended = history.is_appended(server, table)
        until = now - (0 if appended else int(server.options.history_delay * SECOND))
        since = max(until - _HOUR, int(table.created * SECOND))
        function = "APPENDS" if appended else "CHANGES"
        return [history.statement(table, function, since, max(until, since))]
    if way is Way.NONE:
        return []
    schema = table.proposal()
    times = next(c for c in schema.columns if c.source == settings.timestamp_column)
    page = pages.page(_DIALECT, Order(schema, times), between=_since(times, settings, now), rows=1)
    return [pages.greatest(_DIALECT, schema, times), page]


def _since(times: Column, settings: TableSettings, now: int) -> Between | None:
    """The last interval, or None for a column of numbers, whose unit is not known."""
    if clocks.is_number(times):
        return None
    then = now - int(settings.polling_interval * SECOND)
    low, high = (
        clocks.text(times, clocks.stamped(times, at, settings.timezone)) for at in (then, now)
    )
    return Between(low, high)


def _billed(processed: int) -> int:
    return max(processed, BILLED_AT_LEAST)
