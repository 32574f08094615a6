"""Every metric, declared once: name, labels, and what exactly it means.

The declarations are data; documentation and dashboards are generated from them and checked
against them.  Processes that measure use `Meters`; the one process of a container that is
scraped runs a `MetricsServer`, which adds up all processes through files in one directory.

prometheus_client decides when it is first imported, by PROMETHEUS_MULTIPROC_DIR, whether its
values live in such files.  So it is imported here only when a Meters or a server is made, and a
server sets the variable before that; processes it is the parent of inherit it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import psutil

from warp import errors
from warp.errors import StartFailed, WarpError
from warp.listening import Listener, Site
from warp.model import (
    ChangeBatch,
    Finding,
    Operation,
    Outcome,
    SchemaChange,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.options import redact
from warp.streams import schema_of_table

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
RATE_WINDOW: Final = 60.0  # seconds
# A worker shows the error that stopped a unit so long (seconds) after it let go of it.  It cannot
# know when somebody else takes it up again; what stays stopped the coordinator shows.
ERROR_SHOWN_FOR: Final = 300.0
ALL_TABLES: Final = "*"  # label of a stream as a whole, which follows every table of its schemas
# Of one table; cells of further columns are counted under OTHER_COLUMNS.  Documents may have a new
# field in each, and a series is for ever.
MOST_COLUMNS: Final = 50
OTHER_COLUMNS: Final = "*"
_GONE: Final = math.nan  # a gauge cannot be removed from a file; the server leaves this value out


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Over(StrEnum):
    """How the values of a gauge in several processes become one."""

    LATEST = "livemostrecent"  # one process at a time knows it; dead ones do not count
    SUM = "livesum"
    MAX = "max"  # true for ever, also when its process is gone


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    type: Type
    labels: tuple[str, ...]
    help: str
    over: Over = Over.LATEST
    buckets: tuple[float, ...] = ()

    @property
    def of_plan(self) -> bool:
        """One of the eleven that the plan of this project names."""
        return self in METRICS[:11]


_TABLE: Final = ("database", "schema", "table")

RECORDS_PROCESSED: Final = "cartridge_warp_records_processed_total"
PROCESSING_RATE: Final = "cartridge_warp_processing_rate"
LAG: Final = "cartridge_warp_lag_seconds"
SYNC_STATUS: Final = "cartridge_warp_sync_status"
LAST_SYNC: Final = "cartridge_warp_last_successful_sync"
ERRORS: Final = "cartridge_warp_error_count_total"
BATCH_SECONDS: Final = "cartridge_warp_batch_processing_duration_seconds"
QUEUE_SIZE: Final = "cartridge_warp_queue_size"
MEMORY: Final = "cartridge_warp_memory_usage_bytes"
SCHEMA_CHANGES: Final = "cartridge_warp_schema_changes_total"
CONVERSION_WARNINGS: Final = "cartridge_warp_type_conversion_warnings_total"
LEASES_HELD: Final = "cartridge_warp_leases_held"
TAKEOVERS: Final = "cartridge_warp_takeovers_total"
FENCE_REJECTIONS: Final = "cartridge_warp_fence_rejections_total"
QUARANTINED: Final = "cartridge_warp_quarantined_total"
DEFERRED: Final = "cartridge_warp_deferred_total"
CELLS: Final = "cartridge_warp_cells_total"
SNAPSHOT_PROGRESS: Final = "cartridge_warp_snapshot_progress_ratio"
RETENTION: Final = "cartridge_warp_source_retention_seconds"
HEADROOM_RATIO: Final = "cartridge_warp_source_retention_headroom_ratio"
HEADROOM_SECONDS: Final = "cartridge_warp_source_retention_headroom_seconds"
HEADROOM_BYTES: Final = "cartridge_warp_source_retention_headroom_bytes"
RETAINED: Final = "cartridge_warp_source_retained_bytes"
LEDGER_WIPES: Final = "cartridge_warp_ledger_wipes_total"
DIFFERENCES: Final = "cartridge_warp_verification_differences"
OLDEST_VERDICT: Final = "cartridge_warp_verification_oldest_verdict_timestamp_seconds"

CELL_OUTCOMES: Final = tuple(o for o in Outcome if o is not Outcome.DEFERRED)
WARNED: Final = frozenset(CELL_OUTCOMES) - {Outcome.CONVERTED}

METRICS: Final = (
    Metric(
        RECORDS_PROCESSED,
        Type.COUNTER,
        (*_TABLE, "operation"),
        "Rows committed at the destination; operation is read, create, update, delete or truncate. "
        "A row of a transaction that was rolled back is not counted.",
    ),
    Metric(
        PROCESSING_RATE,
        Type.GAUGE,
        _TABLE,
        "Rows committed per second: those of the last 60 seconds, divided by 60.",
        Over.SUM,
    ),
    Metric(
        LAG,
        Type.GAUGE,
        _TABLE,
        "Seconds from the source's commit of the last applied event to its commit at the "
        "destination; 0 when idle and caught up.",
    ),
    Metric(
        SYNC_STATUS,
        Type.GAUGE,
        _TABLE,
        "1 while a worker works on the table, 0 while none does, -1 when it stopped with an "
        "error. Table * is the stream of a whole schema.",
    ),
    Metric(
        LAST_SYNC,
        Type.GAUGE,
        _TABLE,
        "Unix time of the last commit at the destination, or of the last look that found "
        "nothing to do.",
        Over.MAX,
    ),
    Metric(
        ERRORS,
        Type.COUNTER,
        (*_TABLE, "error_type"),
        "Failures by type: the name of the error's class, or `unexpected`.",
    ),
    Metric(
        BATCH_SECONDS,
        Type.HISTOGRAM,
        _TABLE,
        "Seconds of one write transaction, counted for each table that it wrote to.",
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
    Metric(
        QUEUE_SIZE,
        Type.GAUGE,
        _TABLE,
        "Work units that are due or leased; their sum is the number that autoscalers read. "
        "Table * is the stream of a whole schema. Only the leading coordinator shows it.",
    ),
    Metric(
        MEMORY,
        Type.GAUGE,
        ("database", "schema"),
        "Resident bytes of the worker processes that serve the schema now; a process that serves "
        "several is counted for each.",
        Over.SUM,
    ),
    Metric(
        SCHEMA_CHANGES,
        Type.COUNTER,
        (*_TABLE, "change_type"),
        "Changes made to tables at the destination.",
    ),
    Metric(
        CONVERSION_WARNINGS,
        Type.COUNTER,
        _TABLE,
        "Cells whose value did not fit its column: all of cartridge_warp_cells_total but those "
        "that were converted exactly.",
    ),
    Metric(LEASES_HELD, Type.GAUGE, (), "Leases that worker processes hold.", Over.SUM),
    Metric(
        TAKEOVERS,
        Type.COUNTER,
        ("schema",),
        "Units whose new owner is another than the last and did not get them handed over: their "
        "lease ran out.",
    ),
    Metric(
        FENCE_REJECTIONS,
        Type.COUNTER,
        ("schema",),
        "Writes refused by the destination because a newer owner stands there. Each is a "
        "superseded worker that did no harm.",
    ),
    Metric(QUARANTINED, Type.COUNTER, _TABLE, "Rows set aside, whole, instead of written."),
    Metric(
        DEFERRED,
        Type.COUNTER,
        _TABLE,
        "Rows that wait for the row their foreign key refers to; counted when they begin to wait.",
    ),
    Metric(
        CELLS,
        Type.COUNTER,
        (*_TABLE, "column", "outcome"),
        "Cells that did not fit their column as they were, by what became of them: "
        + ", ".join(outcome.value for outcome in CELL_OUTCOMES)
        + f". Column {OTHER_COLUMNS} is all beyond the first {MOST_COLUMNS} columns of a table.",
    ),
    Metric(
        SNAPSHOT_PROGRESS,
        Type.GAUGE,
        _TABLE,
        "Share of the table's chunks that are done, 0 to 1.",
    ),
    Metric(
        RETENTION,
        Type.GAUGE,
        ("database", "schema"),
        "Seconds that the source's log reaches back: how long this schema may stand still "
        "before its position is lost.",
    ),
    Metric(
        HEADROOM_RATIO,
        Type.GAUGE,
        ("database", "schema"),
        "What is left before the place of the schema's stream is forgotten by its source, as a "
        "share of all that the source keeps: 1 at the end of the log, 0 where the place is lost.",
    ),
    Metric(
        HEADROOM_SECONDS,
        Type.GAUGE,
        ("database", "schema"),
        "Seconds until the place of the schema's stream is forgotten by its source if the stream "
        "stands still from now on; not shown where the source does not forget by age.",
    ),
    Metric(
        HEADROOM_BYTES,
        Type.GAUGE,
        ("database", "schema"),
        "Bytes that the source may still write before it forgets the place of the schema's "
        "stream; not shown where it does not forget by size.",
    ),
    Metric(
        RETAINED,
        Type.GAUGE,
        ("database", "schema"),
        "Bytes of the log that the source keeps on its disk only because the schema's stream has "
        "not passed them; shown where the source waits for us.",
    ),
    Metric(LEDGER_WIPES, Type.COUNTER, (), "Times that Redis was found empty and rebuilt."),
    Metric(
        DIFFERENCES,
        Type.GAUGE,
        _TABLE,
        "Rows of the destination that the last comparison with the source found to differ and that "
        "nobody has repaired.",
    ),
    Metric(
        OLDEST_VERDICT,
        Type.GAUGE,
        _TABLE,
        "When the oldest part of the table's last complete comparison ended, Unix time.",
    ),
)

_BY_NAME: Final = {metric.name: metric for metric in METRICS}
ERROR_TYPES: Final = frozenset(
    re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, WarpError)
) | {"unexpected"}


def error_type(error: BaseException) -> str:
    """The label of an error: one of a closed set, so that no message makes a series."""
    if not isinstance(error, WarpError):
        return "unexpected"
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return name if name in ERROR_TYPES else "warp_error"


class Status(IntEnum):
    ACTIVE = 1
    INACTIVE = 0
    ERROR = -1


# Measuring


class Rate:
    """Events per second over a sliding window, kept in slices of a second."""

    def __init__(self, window: float = RATE_WINDOW) -> None:
        self._window = window
        self._slices: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, count: int, now: float) -> None:
        second = math.floor(now)
        if self._slices and self._slices[-1][0] >= second:
            last, before = self._slices.pop()
            self._slices.append((last, before + count))
        else:
            self._slices.append((second, count))
        self._sum += count

    def value(self, now: float) -> float:
        while self._slices and self._slices[0][0] <= now - self._window:
            self._sum -= self._slices.popleft()[1]
        return self._sum / self._window


class TableMeter:
    """What one process measures about one table."""

    def __init__(self, meters: Meters, labels: tuple[str, str, str]) -> None:
        self._meters = meters
        self._labels = labels
        self._rate = Rate()
        self._error_at: float | None = None
        self._units: set[str] = set()  # that work on the table: a stream, and chunks of it
        self._columns: set[str] = set()  # that have series of their own
        if labels[-1] != ALL_TABLES:
            # A series that begins with its first event shows no increase: no alert would see it.
            for name in (QUARANTINED, DEFERRED, CONVERSION_WARNINGS):
                meters.counter(name, labels)

    def committed(self, rows: Mapping[Operation, int], seconds: float, event_time: float) -> None:
        """A transaction is durable.  `event_time` is when the source committed it, 0 if unknown."""
        meters, now = self._meters, self._meters.clock()
        for operation, count in rows.items():
            label = operation.name.lower()
            meters.counter(RECORDS_PROCESSED, (*self._labels, label)).inc(count)
        meters.histogram(BATCH_SECONDS, self._labels).observe(seconds)
        with meters.lock:
            self._rate.add(sum(rows.values()), now)
        self.moved(event_time)
        self.refresh(now)

    def moved(self, event_time: float) -> None:
        """Something became durable that the source committed then."""
        now = self._meters.clock()
        self._synced(now)
        if event_time > 0:
            # Clocks of two machines differ; a negative lag would only say so.
            self.lag(max(0.0, now - event_time))

    def caught_up(self) -> None:
        """Nothing is waiting at the source."""
        self.lag(0.0)
        self._synced(self._meters.clock())

    def lag(self, seconds: float) -> None:
        self._meters.gauge(LAG, self._labels).set(seconds)

    def status(self, status: Status) -> None:
        self._error_at = self._meters.clock() if status is Status.ERROR else None
        self._meters.gauge(SYNC_STATUS, self._labels).set(status)

    def error(self, error: BaseException) -> None:
        self._meters.counter(ERRORS, (*self._labels, error_type(error))).inc()

    def schema_changed(self, change_type: str) -> None:
        self._meters.counter(SCHEMA_CHANGES, (*self._labels, change_type)).inc()

    def found(self, finding: Finding) -> None:
        labels = (*self._labels, self._shown_column(finding.column), finding.outcome.value)
        self._meters.counter(CELLS, labels).inc(finding.cells)
        if finding.outcome in WARNED:
            self._meters.counter(CONVERSION_WARNINGS, self._labels).inc(finding.cells)

    def _shown_column(self, column: str) -> str:
        with self._meters.lock:
            if column not in self._columns and len(self._columns) >= MOST_COLUMNS:
                return OTHER_COLUMNS
            self._columns.add(column)
        return column

    def quarantined(self, rows: int) -> None:
        self._meters.counter(QUARANTINED, self._labels).inc(rows)

    def deferred(self, rows: int) -> None:
        self._meters.counter(DEFERRED, self._labels).inc(rows)

    def join(self, unit_id: str) -> None:
        """A unit of this process works on the table."""
        with self._meters.lock:
            self._units.add(unit_id)
        self.status(Status.ACTIVE)

    def leave(self, unit_id: str) -> None:
        with self._meters.lock:
            self._units.discard(unit_id)
            last = not self._units
        if last:
            self.retire()

    def refresh(self, now: float) -> None:
        """Let the rate fall while nothing comes, and an old error go."""
        with self._meters.lock:
            rate = self._rate.value(now)
        self._meters.gauge(PROCESSING_RATE, self._labels).set(rate)
        if self._error_at is not None and now - self._error_at > ERROR_SHOWN_FOR:
            self._error_at = None
            self.retire()

    def retire(self) -> None:
        """This process knows nothing about the table any more; another one may."""
        self._meters.gauge(LAG, self._labels).set(_GONE)
        if self._error_at is None:
            self._meters.gauge(SYNC_STATUS, self._labels).set(_GONE)

    def _synced(self, now: float) -> None:
        self._meters.gauge(LAST_SYNC, self._labels).set(now)


class Meters:
    """The metrics of one process.  Safe to use from several threads.

    `database` labels what is about a schema's stream as a whole.
    """

    def __init__(self, database: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self._instruments, self.registry = _instruments()
        self._database = database
        self.clock = clock
        self.lock = threading.Lock()
        self._tables: dict[tuple[str, str, str], TableMeter] = {}
        self._units: dict[str, UnitMeter] = {}
        self._shown: dict[str, set[tuple[str, ...]]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # What is about a table

    def table(self, schema: str, table: TableId | None) -> TableMeter:
        """The meter of a table, or of the schema's stream where there is none."""
        labels = (
            (table.namespace, schema, table.name)
            if table is not None
            else (self._database, schema, ALL_TABLES)
        )
        with self.lock:
            if labels not in self._tables:
                self._tables[labels] = TableMeter(self, labels)
            return self._tables[labels]

    # What is about a unit

    def meter(self, unit: WorkUnit, selection: TableSelection | None = None) -> UnitMeter:
        """A unit begins to work in this process; a stream may carry tables of several schemas."""
        meter = UnitMeter(self, unit, selection)
        with self.lock:
            # Known already where the unit starts over after a failure, without a new lease.
            meter = self._units.setdefault(unit.id, meter)
        meter.begin()
        return meter

    def over(self, unit: WorkUnit) -> None:
        """This process does not hold it any more."""
        with self.lock:
            meter = self._units.pop(unit.id, None)
        if meter is not None:
            meter.retire()

    def error(self, unit: WorkUnit, error: Exception) -> None:
        self.table(unit.schema, unit.table).error(error)

    def stopped(self, unit: WorkUnit) -> None:
        """Nobody works on it until a person acts."""
        self.table(unit.schema, unit.table).status(Status.ERROR)

    def fenced(self, unit: WorkUnit) -> None:
        self.counter(FENCE_REJECTIONS, (unit.schema,)).inc()

    # What is about everything

    def show(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set all series of a gauge at once; those shown before and not now are gone.

        `values` has the label values in their declared order; {} takes the gauge away, as a
        coordinator does that leads no more.
        """
        for labels in self._shown.get(name, set()) - values.keys():
            self.gauge(name, labels).set(_GONE if _BY_NAME[name].over is Over.LATEST else 0.0)
        for labels, value in values.items():
            self.gauge(name, labels).set(value)
        self._shown[name] = set(values)

    def count(self, name: str, labels: tuple[str, ...] = (), by: float = 1) -> None:
        self.counter(name, labels).inc(by)

    def refresh(self) -> None:
        """Bring up to date what changes by the passing of time alone."""
        now = self.clock()
        with self.lock:
            tables = list(self._tables.values())
            units = [meter.unit for meter in self._units.values()]
        for table in tables:
            table.refresh(now)
        resident = float(psutil.Process().memory_info().rss)
        schemas = {unit.schema for unit in units}
        self.show(MEMORY, {(self._database, schema): resident for schema in schemas})
        self.gauge(LEASES_HELD, ()).set(len(units))

    def start(self, every: float = 5.0) -> None:
        """Refresh from a thread until `stop`."""

        def run() -> None:
            while not self._stop.wait(every):
                self.refresh()

        self._thread = threading.Thread(target=run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    # The instruments, by name

    def counter(self, name: str, labels: tuple[str, ...]) -> Counter:
        child: Counter = self._child(name, labels)
        return child

    def gauge(self, name: str, labels: tuple[str, ...]) -> Gauge:
        child: Gauge = self._child(name, labels)
        return child

    def histogram(self, name: str, labels: tuple[str, ...]) -> Histogram:
        child: Histogram = self._child(name, labels)
        return child

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        instrument = self._instruments[name]
        return instrument.labels(*labels) if labels else instrument


class UnitMeter:
    """What the pipeline tells about one unit (`warp.pipeline.Meter`), as metrics."""

    def __init__(
        self, meters: Meters, unit: WorkUnit, selection: TableSelection | None = None
    ) -> None:
        self._meters = meters
        self._selection = selection
        self.unit = unit
        self._tables: dict[TableId | None, TableMeter] = {}

    def begin(self) -> None:
        self._table(self.unit.table).join(self.unit.id)
        self._meters.counter(FENCE_REJECTIONS, (self.unit.schema,))  # shown from 0 on

    def committed(self, batch: ChangeBatch, written: Written) -> None:
        by_table: dict[TableId, dict[Operation, int]] = {}
        for (table, operation), rows in written.counts.items():
            by_table.setdefault(table, {})[operation] = rows
        # A chunk is read at one moment and may take an hour: its rows are not late.
        chunk = self.unit.kind is UnitKind.CHUNK
        event_time = 0.0 if chunk else batch.end.committed_at
        for table, counts in by_table.items():
            self._table(table).committed(counts, written.seconds, event_time)
        if self.unit.kind is UnitKind.STREAM:
            # The stream's own lag is told here too, else the 0 of its last rest would stand.
            self._table(None).moved(event_time)
        for table, rows in written.quarantined.items():
            self._table(table).quarantined(rows)
        for table, rows in written.deferred.items():
            self._table(table).deferred(rows)

    def caught_up(self) -> None:
        for table in self._tables.values():
            table.caught_up()

    def evolved(self, changes: Iterable[SchemaChange]) -> None:
        for change in changes:
            self._table(change.table).schema_changed(change.change.value)

    def found(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._table(finding.table).found(finding)

    def retire(self) -> None:
        """The unit is worked on no more by this process."""
        for table in self._tables.values():
            table.leave(self.unit.id)

    def _table(self, table: TableId | None) -> TableMeter:
        if table not in self._tables:
            schema = self.unit.schema
            if table is not None and self._selection is not None:
                schema = schema_of_table(table, self._selection, self.unit)
            meter = self._tables[table] = self._meters.table(schema, table)
            meter.join(self.unit.id)
        return self._tables[table]


def _instruments() -> tuple[dict[str, Any], CollectorRegistry]:
    """New instruments, in files where VARIABLE names a directory, else in memory."""
    directory = os.environ.get(VARIABLE)
    from prometheus_client import (  # late: see the head of this module
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        disable_created_metrics,
        values,
    )

    in_files = getattr(values.ValueClass, "_multiprocess", False)
    if bool(directory) != in_files:
        raise StartFailed(
            f"expected {VARIABLE} to be {'set before' if directory else 'the same as when'} "
            "prometheus_client was imported, found it changed since; make the MetricsServer first",
            place="metrics",
        )
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    made: dict[str, Any] = {}
    for metric in METRICS:
        labels = metric.labels
        if metric.type is Type.COUNTER:
            made[metric.name] = Counter(metric.name, metric.help, labels, registry=registry)
        elif metric.type is Type.GAUGE:
            made[metric.name] = Gauge(
                metric.name,
                metric.help,
                labels,
                registry=registry,
                multiprocess_mode=metric.over.value,
            )
        else:
            made[metric.name] = Histogram(
                metric.name, metric.help, labels, registry=registry, buckets=metric.buckets
            )
    return made, registry


# Serving


class _Present:
    """A collector without the gauges that are gone."""

    def __init__(self, collect: Callable[[], Iterable[Any]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Any]:
        for metric in self._collect():
            metric.samples = [s for s in metric.samples if not math.isnan(s.value)]
            if metric.samples:
                yield metric


Health = Callable[[], Mapping[str, Any] | None]
"""Why not, as a JSON object; None where all is well."""


def well() -> None:
    """The answer of a process that has nothing to check."""


class MetricsServer:
    """Serves `/metrics` over all processes that use its directory, `/healthz` and `/readyz`.

    Make it before any Meters, in the process that starts the others.  Without a directory it
    makes one of its own and removes it at the end.
    """

    def __init__(
        self,
        port: int,
        directory: Path | str | None = None,
        *,
        host: str = "",
        healthy: Health = well,
        ready: Health = well,
        pages: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
        sites: Mapping[str, Site] = MappingProxyType({}),
    ) -> None:
        """`pages` are further paths, each with what gives its JSON; an error of ours is a 503.

        `sites` are paths that answer for themselves, headers included, and may take their time.
        """
        self._own = tempfile.TemporaryDirectory(prefix="warp-metrics-") if not directory else None
        self.directory = Path(self._own.name if self._own else str(directory))
        self.healthy = healthy
        self.ready = ready
        self._pages = pages
        self.sites = sites
        try:
            self._http = Listener(host, port, self)
        except StartFailed:
            self._remove()
            raise
        self.port: int = self._http.server_address[1]
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in self.directory.glob("*.db"):  # of a container's earlier life
            left.unlink()
        os.environ[VARIABLE] = str(self.directory)
        self._registry = _serving_registry(self.directory)
        self._scraping = threading.Lock()
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="metrics http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        if os.environ.get(VARIABLE) == str(self.directory):
            del os.environ[VARIABLE]
        self._remove()

    def __enter__(self) -> MetricsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, path: str, accept: str = "") -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        page = path.partition("?")[0]
        if page == "/metrics":
            return 200, *self._scrape(accept)
        if page in self._pages:
            try:
                return 200, "application/json", json.dumps(self._pages[page]()).encode() + b"\n"
            except WarpError as error:
                told = {"ok": False, "error": redact(str(error))}
                return 503, "application/json", json.dumps(told).encode() + b"\n"
        checks = {"/healthz": self.healthy, "/readyz": self.ready}
        if page not in checks:
            return 404, "text/plain; charset=utf-8", b"see /metrics, /healthz and /readyz\n"
        problem = checks[page]()
        body = {"ok": problem is None, **(problem or {})}
        status = 200 if problem is None else 503
        return status, "application/json", json.dumps(body, default=str).encode() + b"\n"

    def _scrape(self, accept: str) -> tuple[str, bytes]:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        with self._scraping:  # many at once take as long, and memory for each
            self._forget_the_dead()
            return content_type, encode(self._registry)

    def _forget_the_dead(self) -> None:
        """Gauges of a process that was killed would show its last moment for ever."""
        from prometheus_client.multiprocess import mark_process_dead

        found = {
            match[1]
            for file in self.directory.glob("gauge_live*_*.db")
            if (match := re.search(r"_(\d+)\.db$", file.name))
        }
        for pid in found:
            if not _lives(int(pid)):
                with contextlib.suppress(FileNotFoundError):  # a second scrape was faster
                    mark_process_dead(  # type: ignore[no-untyped-call]
                        int(pid), str(self.directory)
                    )

    def _remove(self) -> None:
        if self._own:
            self._own.cleanup()


def _serving_registry(directory: Path) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    files = MultiProcessCollector(  # type: ignore[no-untyped-call]
        None, str(directory)
    )
    registry.register(_Present(files.collect))
    return registry


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
