"""What the account may do and the tables must have, tried for real where that bills nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from warp.diagnosis import failed, ok, warning
from warp.errors import PositionLost, SourceRefused
from warp.model import Diagnosis, TableSettings
from warp.sources.bigquery import costs, history, reading
from warp.sources.bigquery.catalog import Catalog, Dataset, Table
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import Server
from warp.sources.bigquery.strategies import Way, way_of
from warp.sql import load

_DIALECT: Final = BigQueryDialect()
_TABLES_TRIED: Final = 50
_DAY: Final = 86_400.0

Selected = Sequence[tuple[Table, TableSettings]]


def diagnose(server: Server, catalog: Catalog, selected: Selected) -> Iterator[Diagnosis]:
    """In an order in which nothing is asked in vain."""
    tried = _tried(
        "bigquery-may-query",
        server.project,
        "the right to run queries (bigquery.jobs.create)",
        "roles/bigquery.jobUser on the project",
        lambda: server.estimate("SELECT 1", doing="try a query"),
    )
    yield tried
    if tried.mend:
        return
    for name in sorted({table.id.namespace for table, _ in selected}):
        dataset = catalog.dataset(name)
        yield _location(server, dataset)
        yield from _time_travel(server, dataset, [one for one in selected if _is_in(one, name)])
    yield _cap(server)
    readable = []
    for table, settings in selected[:_TABLES_TRIED]:
        right = _may_read(server, table)
        yield right
        if not right.mend:
            readable.append((table, settings))
    if readable and server.reader is not None:
        yield _may_stream(server, readable[0][0])
    kept = _with_history(server, readable)
    for table, settings in readable:
        yield from _table(server, table, settings, kept)


def _is_in(one: tuple[Table, TableSettings], dataset: str) -> bool:
    return one[0].id.namespace == dataset


def _tried(
    code: str, subject: str, expected: str, role: str, action: Callable[[], object]
) -> Diagnosis:
    try:
        action()
    except SourceRefused as error:
        return failed(code, subject, expected, error.message, f"grant {role} to the account")
    return ok(code, subject, expected, "given")


def _location(server: Server, dataset: Dataset) -> Diagnosis:
    wanted = server.options.region
    code, subject = "bigquery-location", f"dataset {dataset.name}"
    if wanted is None or wanted.upper() == dataset.location.upper():
        return ok(code, subject, "the location where queries run", dataset.location or "the same")
    return failed(
        code, subject, wanted, dataset.location, f"set source.location to {dataset.location}"
    )


def _time_travel(server: Server, dataset: Dataset, selected: Selected) -> Iterator[Diagnosis]:
    """Of tables whose strategy reads what was before."""
    looking_back = [
        settings
        for table, settings in selected
        if way_of(settings, table) in (Way.COMPARISON, Way.HISTORY)
    ]
    if not looking_back:
        return
    reach = server.options.time_travel or dataset.time_travel
    slowest = max(settings.polling_interval for settings in looking_back)
    code, subject = "bigquery-time-travel", f"dataset {dataset.name}"
    expected = "time travel of two runs and of a day, as the longest outage to survive"
    found = f"{reach / 3600:g} hours"
    if reach >= max(2 * slowest, _DAY):
        yield ok(code, subject, expected, found)
    else:
        yield warning(
            code,
            subject,
            expected,
            found,
            f"ALTER SCHEMA {_DIALECT.name(dataset.name)} SET OPTIONS (max_time_travel_hours = 168)",
        )


def _cap(server: Server) -> Diagnosis:
    code, subject = "bigquery-cap", "maximum_bytes_billed"
    expected = "a bound on what a single query may bill"
    cap = server.options.maximum_bytes_billed
    if cap is None:
        return warning(code, subject, expected, "none", "set source.maximum_bytes_billed")
    return ok(code, subject, expected, f"{cap:,} bytes")


def _may_read(server: Server, table: Table) -> Diagnosis:
    name = _DIALECT.name(table.id.namespace, table.id.name)
    columns = ", ".join(_DIALECT.name(c.name) for c in table.columns) or "1"
    return _tried(
        "bigquery-may-read",
        str(table.id),
        "the right to read its rows (bigquery.tables.getData)",
        "roles/bigquery.dataViewer on the dataset",
        lambda: server.estimate(f"SELECT {columns} FROM {name}", doing=f"try to read {table.id}"),
    )


def _may_stream(server: Server, table: Table) -> Diagnosis:
    """A session bills nothing before its rows are read."""
    return _tried(
        "bigquery-may-stream",
        "Storage Read API",
        "the right to make read sessions (bigquery.readsessions.create)",
        "roles/bigquery.readSessionUser on the project (or set storage_api: false)",
        lambda: reading.table_streams(server, table.id, table.columns[:1], at=server.now()),
    )


def _with_history(server: Server, selected: Selected) -> frozenset[str]:
    """`dataset.table` of those whose changes are kept, of those that are to have it."""
    wanted = {
        table.id.namespace
        for table, settings in selected
        if way_of(settings, table) is Way.HISTORY and not history.is_appended(server, table)
    }
    found: list[str] = []
    for dataset in sorted(wanted):
        statement = load("bigquery_source", "change_history").format(dataset=_DIALECT.name(dataset))
        asked = server.ask(statement, doing=f"look at the options of {dataset}'s tables")
        found += [f"{dataset}.{name}" for (name,) in asked]
    return frozenset(found)


def _table(
    server: Server, table: Table, settings: TableSettings, kept: frozenset[str]
) -> Iterator[Diagnosis]:
    name = _DIALECT.name(table.id.namespace, table.id.name)
    subject, way = str(table.id), way_of(settings, table)
    yield from _key(table, name, way)
    if table.needs_filter:
        yield failed(
            "bigquery-partition-filter",
            subject,
            "a table that may be read without naming partitions",
            "require_partition_filter",
            f"ALTER TABLE {name} SET OPTIONS (require_partition_filter = FALSE)",
        )
        return
    if way is Way.HISTORY and not history.is_appended(server, table):
        expected = "a table whose changes BigQuery keeps"
        if str(table.id) in kept:
            yield ok("bigquery-change-history", subject, expected, "kept")
        else:
            yield failed(
                "bigquery-change-history",
                subject,
                expected,
                "enable_change_history is not set",
                f"ALTER TABLE {name} SET OPTIONS (enable_change_history = TRUE); or list it under "
                "source.appended where rows are only ever added; or use strategy timestamp or hash",
            )
            return
    if way is Way.TIMES and not table.prunes_by(settings.timestamp_column):
        column = _DIALECT.name(settings.timestamp_column)
        yield warning(
            "bigquery-clustering",
            f"{subject}.{settings.timestamp_column}",
            "a table that is partitioned by the column, or clustered by it first",
            "neither, so each run scans the whole table",
            f"make it anew: CREATE TABLE … PARTITION BY TIMESTAMP_TRUNC({column}, DAY) AS SELECT "
            f"* FROM {name}",
        )
    yield _cost(server, table, settings)


def _key(table: Table, name: str, way: Way) -> Iterator[Diagnosis]:
    subject = str(table.id)
    missing = [key for key in table.key if table.column(key) is None]
    mend = (
        f"ALTER TABLE {name} ADD PRIMARY KEY (…) NOT ENFORCED, or name its columns under "
        "source.keys"
    )
    if missing:
        found = f"no column {', '.join(missing)}"
        yield failed("bigquery-key", subject, "the columns of its key", found, mend)
    elif not table.key:
        find = failed if way is Way.HISTORY else warning
        yield find(
            "bigquery-key",
            subject,
            "a primary key",
            "none, so each run takes the place of all rows"
            if way is not Way.HISTORY
            else "none, so which row a change is about cannot be told",
            mend,
        )


def _cost(server: Server, table: Table, settings: TableSettings) -> Diagnosis:
    code, subject = "bigquery-cost", str(table.id)
    expected = "reading that stays below maximum_bytes_billed"
    try:
        found = costs.cost(server, table, settings)
    except PositionLost as error:
        return warning(code, subject, expected, error.message, "")
    run = "unknown" if found.run is None else f"{found.run:,} bytes"
    said = f"{found.snapshot:,} bytes once, then {run} a run ({found.way})"
    if found.verification is not None:
        said += f"; {found.verification:,} for each pass of `verify`"
    if found.is_refused:
        mend = "raise source.maximum_bytes_billed, or leave the table out"
        return failed(code, subject, expected, said, mend)
    return ok(code, subject, expected, said)
