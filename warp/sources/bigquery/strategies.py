"""Which way of finding changes serves a table, by its settings and by what it has.  Pure."""

from __future__ import annotations

from enum import StrEnum

from warp.model import Capture, TableSettings
from warp.sources.bigquery.catalog import Table


class Way(StrEnum):
    TIMES = "timestamp"  # rows whose column of times says so
    COMPARISON = "comparison"  # with the last run
    HISTORY = "history"  # that BigQuery keeps
    NONE = "trigger"  # of which there are none


def way_of(settings: TableSettings, table: Table) -> Way:
    match settings.capture:
        case Capture.LOG:
            return Way.HISTORY
        case Capture.HASH:
            return Way.COMPARISON
        case Capture.TRIGGER:
            return Way.NONE
        case Capture.TIMESTAMP:
            timed = table.column(settings.timestamp_column) is not None and table.key
            return Way.TIMES if timed else Way.COMPARISON
