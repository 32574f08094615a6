"""The five dashboards.  Every query is composed of what `warp.metrics` declares.

A metric that no panel below asks for gets a panel at the foot of the fleet's board, so that one
declared tomorrow is seen without a change here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dashboards.panels import (
    RED,
    STATUS_WORDS,
    YELLOW,
    Board,
    Panel,
    Query,
    Row,
)
from warp import metrics as m
from warp.metrics import ALL_TABLES, METRICS, Metric, Type

RATE: Final = "$__rate_interval"  # Grafana's: at least four scrapes
CHOICE: Final = ("database", "schema", "table")
LAG_STEPS: Final = ((60.0, YELLOW), (300.0, RED))
ANY: Final = ((1.0, RED),)
_BY_NAME: Final = {metric.name: metric for metric in METRICS}
_SUFFIXES: Final = ("_bucket", "_count", "_sum")


class Chosen:
    """Writes selectors for a board: what of a metric the board's variables choose."""

    def __init__(self, *variables: str) -> None:
        self.variables = variables

    def __call__(self, name: str, *more: str, suffix: str = "") -> str:
        labels = _BY_NAME[name].labels
        chosen = [f'{label}=~"${label}"' for label in self.variables if label in labels]
        inside = ",".join([*chosen, *more])
        return f"{name}{suffix}" + (f"{{{inside}}}" if inside else "")

    def per_second(self, name: str, *by: str, suffix: str = "") -> str:
        return _summed(f"rate({self(name, suffix=suffix)}[{RATE}])", by)

    def during(self, name: str, *by: str, window: str = RATE) -> str:
        return _summed(f"increase({self(name)}[{window}])", by)

    def highest(self, name: str, *by: str, more: Iterable[str] = ()) -> str:
        """Of several pages that show one series: coordinators and workers may do so."""
        return f"max by ({', '.join(by)}) ({self(name, *more)})"

    def quantile(self, part: float) -> str:
        buckets = self.per_second(m.BATCH_SECONDS, "le", suffix="_bucket")
        return f"histogram_quantile({part:g}, {buckets})"

    def status(self, *by: str) -> str:
        """An error on any page hides work on another, work hides rest."""
        shown, of = self(m.SYNC_STATUS), ", ".join(by)
        return f"(min by ({of}) ({shown}) < 0) or max by ({of}) ({shown})"


def _summed(expression: str, by: Iterable[str]) -> str:
    labels = ", ".join(by)
    return f"sum by ({labels}) ({expression})" if labels else f"sum({expression})"


TABLES_ONLY: Final = f'table!="{ALL_TABLES}"'


def _fleet() -> Board:
    of = Chosen("database")
    now = (
        Panel(
            "Stopped by an error",
            (
                Query(
                    f"count(min by (database, schema, table) ({of(m.SYNC_STATUS)}) < 0)"
                    " or vector(0)"
                ),
            ),
            "stat",
            description="Streams and tables that nobody works on until a person acts.",
            width=3,
            height=4,
            steps=ANY,
        ),
        Panel(
            "Worst lag",
            (Query(f"max({of(m.LAG)})"),),
            "stat",
            "s",
            "Of the table or stream that is furthest behind its source.",
            width=3,
            height=4,
            steps=LAG_STEPS,
        ),
        Panel(
            "Rows per second",
            (Query(of.per_second(m.RECORDS_PROCESSED)),),
            "stat",
            "cps",
            "Committed at the destination.",
            width=3,
            height=4,
        ),
        Panel(
            "Work units",
            (Query(f"sum({of(m.QUEUE_SIZE)})"),),
            "stat",
            description="Due or leased: what autoscalers read.",
            width=3,
            height=4,
        ),
        Panel(
            "Leases held",
            (Query(f"sum({m.LEASES_HELD})"),),
            "stat",
            description="Fewer than work units for long: there are too few slots.",
            width=3,
            height=4,
        ),
        Panel(
            "Containers answering",
            (Query(f"count(count by (instance) ({m.LEASES_HELD}))"),),
            "stat",
            description="Coordinators and workers that Prometheus can scrape.",
            width=3,
            height=4,
        ),
        Panel(
            "Rows set aside",
            (Query(of.during(m.QUARANTINED, window="$__range")),),
            "stat",
            description="Put into quarantine in the time shown; a part of a row is an estimate.",
            width=3,
            height=4,
            steps=ANY,
        ),
        Panel(
            "Errors",
            (Query(f"{of.during(m.ERRORS, window='$__range')} or vector(0)"),),
            "stat",
            description="In the time shown.",
            width=3,
            height=4,
            steps=ANY,
        ),
    )
    work = (
        Panel(
            "Rows per second by schema",
            (Query(of.per_second(m.RECORDS_PROCESSED, "schema"), "{{schema}}"),),
            unit="cps",
            stacked=True,
            least=0,
        ),
        Panel(
            "Lag by schema",
            (Query(of.highest(m.LAG, "schema"), "{{schema}}"),),
            unit="s",
            steps=LAG_STEPS,
            least=0,
        ),
        Panel(
            "Work and hands",
            (
                Query(f"sum({of(m.QUEUE_SIZE)})", "work units, due or leased"),
                Query(f"sum({m.LEASES_HELD})", "leases held"),
            ),
            least=0,
        ),
        Panel(
            "State of each schema",
            (Query(of.status("schema"), "{{schema}}"),),
            "state-timeline",
            "none",
            width=12,
            words=STATUS_WORDS,
        ),
        Panel(
            "Schemas now",
            (
                Query(of.highest(m.LAG, "schema"), "lag", instant=True),
                Query(f"sum by (schema) ({of(m.PROCESSING_RATE)})", "rows/s", instant=True),
                Query(f"sum by (schema) ({of(m.QUEUE_SIZE)})", "work units", instant=True),
            ),
            "table",
            "none",
            "Lag in seconds, rows per second over the last minute, work units.",
            width=12,
        ),
    )
    hands = (
        Panel(
            "Changes of hands",
            (
                Query(of.during(m.TAKEOVERS), "taken over after a lease ran out"),
                Query(of.during(m.FENCE_REJECTIONS), "writes of superseded workers refused"),
                Query(of.during(m.LEDGER_WIPES), "Redis found empty"),
            ),
            description="A takeover follows a crash; a refusal is a fence that held.",
            least=0,
        ),
        Panel(
            "Memory of worker processes by schema",
            (Query(f"sum by (schema) ({of(m.MEMORY)})", "{{schema}}"),),
            unit="bytes",
            description="A process that serves several schemas is counted for each.",
            least=0,
        ),
        Panel(
            "What is left of the source's log",
            (Query(f"min by (schema) ({of(m.HEADROOM_RATIO)})", "{{schema}}"),),
            unit="percentunit",
            description="Behind the place of a schema's stream: at 0 its place is lost.",
            least=0,
            most=1,
        ),
        Panel(
            "How long a schema may stand still",
            (Query(f"min by (schema) ({of(m.HEADROOM_SECONDS)})", "{{schema}}"),),
            unit="s",
            description="Before its place is lost, where the source forgets by age.",
            least=0,
        ),
        Panel(
            "How far back the source's log reaches",
            (Query(f"min by (schema) ({of(m.RETENTION)})", "{{schema}}"),),
            unit="s",
            least=0,
        ),
    )
    return Board(
        "cartridge-warp-fleet",
        "cartridge-warp · Fleet",
        "Is all well, and is there enough of everything?",
        (Row("Now", now), Row("Work", work), Row("Hands", hands)),
        of.variables,
        m.SYNC_STATUS,
    )


def _pipeline() -> Board:
    of = Chosen("database", "schema")
    moved = (
        Panel(
            "Rows per second by operation",
            (Query(of.per_second(m.RECORDS_PROCESSED, "operation"), "{{operation}}"),),
            unit="cps",
            stacked=True,
            least=0,
        ),
        Panel(
            "Rows per second by table",
            (Query(f"topk(20, {of.per_second(m.RECORDS_PROCESSED, 'table')})", "{{table}}"),),
            unit="cps",
            stacked=True,
            least=0,
        ),
        Panel(
            "Rows per second over the last minute",
            (Query(f"topk(20, sum by (table) ({of(m.PROCESSING_RATE)}))", "{{table}}"),),
            unit="cps",
            description="As the workers measure it.",
            least=0,
        ),
        Panel(
            "Lag by table",
            (Query(f"topk(20, {of.highest(m.LAG, 'table')})", "{{table}}"),),
            unit="s",
            description=f"Table {ALL_TABLES} is the stream as a whole.",
            steps=LAG_STEPS,
            least=0,
        ),
        Panel(
            "Since the last success",
            (Query(f"topk(20, time() - {of.highest(m.LAST_SYNC, 'table')})", "{{table}}"),),
            unit="s",
            description="Since the last commit, or the last look that found nothing to do.",
            least=0,
        ),
        Panel(
            "State of each table",
            (Query(of.status("schema", "table"), "{{schema}} {{table}}"),),
            "state-timeline",
            "none",
            words=STATUS_WORDS,
        ),
    )
    writes = (
        Panel(
            "Seconds of a write transaction",
            (
                Query(of.quantile(0.5), "half"),
                Query(of.quantile(0.95), "95 %"),
                Query(of.quantile(0.99), "99 %"),
            ),
            unit="s",
            least=0,
        ),
        Panel(
            "Write transactions per second",
            (Query(of.per_second(m.BATCH_SECONDS, "schema", suffix="_count"), "{{schema}}"),),
            unit="cps",
            description="Counted for each table that they wrote to.",
            least=0,
        ),
        Panel(
            "Rows per write",
            (
                Query(
                    f"{of.per_second(m.RECORDS_PROCESSED, 'schema')}"
                    f" / {of.per_second(m.BATCH_SECONDS, 'schema', suffix='_count')}",
                    "{{schema}}",
                ),
            ),
            description="What batch sizes come to.",
            least=0,
        ),
    )
    resources = (
        Panel(
            "Work units by table",
            (Query(f"topk(20, sum by (table) ({of(m.QUEUE_SIZE)}))", "{{table}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Memory",
            (Query(f"sum by (instance) ({of(m.MEMORY)})", "{{instance}}"),),
            unit="bytes",
            least=0,
        ),
        Panel(
            "Errors by type",
            (Query(of.during(m.ERRORS, "error_type"), "{{error_type}}"),),
            least=0,
        ),
    )
    return Board(
        "cartridge-warp-pipeline",
        "cartridge-warp · Pipeline",
        "How the chosen schemas move: rows, lag, transactions, work.",
        (Row("What moves", moved), Row("Writes", writes), Row("Resources", resources)),
        of.variables,
        m.SYNC_STATUS,
    )


def _table() -> Board:
    of = Chosen(*CHOICE)
    now = (
        Panel(
            "State",
            (Query(of.status(*CHOICE), "{{table}}"),),
            "state-timeline",
            "none",
            words=STATUS_WORDS,
            height=6,
        ),
        Panel(
            "Lag",
            (Query(of.highest(m.LAG, "schema", "table"), "{{schema}} {{table}}"),),
            unit="s",
            steps=LAG_STEPS,
            height=6,
            least=0,
        ),
        Panel(
            "Since the last success",
            (Query(f"time() - {of.highest(m.LAST_SYNC, 'table')}", "{{table}}"),),
            unit="s",
            height=6,
            least=0,
        ),
    )
    rows = (
        Panel(
            "Rows per second by operation",
            (Query(of.per_second(m.RECORDS_PROCESSED, "operation"), "{{operation}}"),),
            unit="cps",
            stacked=True,
            least=0,
        ),
        Panel(
            "Seconds of its write transactions",
            (
                Query(
                    f"sum by (le) (increase({of(m.BATCH_SECONDS, suffix='_bucket')}[{RATE}]))",
                    "{{le}}",
                ),
            ),
            "heatmap",
            "s",
        ),
        Panel(
            "Share of the snapshot that is done",
            (Query(of.highest(m.SNAPSHOT_PROGRESS, "table"), "{{table}}"),),
            unit="percentunit",
            least=0,
            most=1,
        ),
    )
    trouble = (
        Panel(
            "Rows set aside and rows that wait",
            (
                Query(of.during(m.QUARANTINED, "table"), "{{table}} set aside"),
                Query(of.during(m.DEFERRED, "table"), "{{table}} wait for another row"),
            ),
            least=0,
        ),
        Panel(
            "Cells that did not fit, by column",
            (Query(of.during(m.CELLS, "column", "outcome"), "{{column}}: {{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Changes of the table",
            (
                Query(
                    of.during(m.SCHEMA_CHANGES, "table", "change_type"), "{{table}} {{change_type}}"
                ),
            ),
            least=0,
        ),
    )
    return Board(
        "cartridge-warp-table",
        "cartridge-warp · Table",
        "All that is known of one table, or of a few beside each other.",
        (Row("Now", now), Row("Rows", rows), Row("What did not fit", trouble)),
        of.variables,
        m.SYNC_STATUS,
    )


def _snapshot() -> Board:
    of = Chosen("database", "schema")
    progress = of.highest(m.SNAPSHOT_PROGRESS, "schema", "table")
    speed = f"max by (schema, table) (deriv({of(m.SNAPSHOT_PROGRESS)}[10m]))"
    read = of(m.RECORDS_PROCESSED, 'operation="read"')
    panels = (
        Panel(
            "Tables being read",
            (Query(f"count({progress} < 1) or vector(0)"),),
            "stat",
            width=6,
            height=4,
        ),
        Panel(
            "Tables read",
            (Query(f"count({progress} == 1) or vector(0)"),),
            "stat",
            width=6,
            height=4,
        ),
        Panel(
            "Rows read per second",
            (Query(f"sum(rate({read}[{RATE}]))"),),
            "stat",
            "cps",
            width=6,
            height=4,
        ),
        Panel(
            "Work units",
            (Query(f"sum({of(m.QUEUE_SIZE, TABLES_ONLY)}) or vector(0)"),),
            "stat",
            description="Chunks and polls that are due or worked on.",
            width=6,
            height=4,
        ),
        Panel(
            "Share that is done",
            (Query(f"bottomk(30, {progress})", "{{schema}} {{table}}"),),
            "bargauge",
            "percentunit",
            width=12,
            height=10,
            least=0,
            most=1,
        ),
        Panel(
            "Time left",
            (
                Query(
                    f"topk(30, (1 - {progress}) / clamp_min({speed}, 1e-6))",
                    "{{schema}} {{table}}",
                ),
            ),
            unit="s",
            description="At the speed of the last ten minutes; meaningless in the first of them.",
            width=12,
            height=10,
            least=0,
        ),
        Panel(
            "Progress",
            (Query(f"bottomk(30, {progress})", "{{schema}} {{table}}"),),
            unit="percentunit",
            width=12,
            least=0,
            most=1,
        ),
        Panel(
            "Rows read per second by table",
            (Query(f"topk(20, sum by (table) (rate({read}[{RATE}])))", "{{table}}"),),
            unit="cps",
            width=12,
            stacked=True,
            least=0,
        ),
    )
    return Board(
        "cartridge-warp-snapshot",
        "cartridge-warp · Snapshot",
        "How far the first reading of each table has got.",
        (Row("Snapshots", panels),),
        of.variables,
        m.SYNC_STATUS,
    )


def _errors() -> Board:
    of = Chosen("database", "schema")
    failures = (
        Panel(
            "Errors by type",
            (Query(of.during(m.ERRORS, "error_type"), "{{error_type}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Errors by table",
            (Query(f"topk(20, {of.during(m.ERRORS, 'schema', 'table')})", "{{schema}} {{table}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Lowest state of each table",
            (Query(f"min by (schema, table) ({of(m.SYNC_STATUS)})", instant=True),),
            "table",
            "none",
            "-1 has stopped: `cartridge-warp errors` says why, `revive` lets it try again.",
            words=STATUS_WORDS,
        ),
        Panel(
            "Rows set aside",
            (
                Query(
                    f"topk(20, {of.during(m.QUARANTINED, 'schema', 'table')})",
                    "{{schema}} {{table}}",
                ),
            ),
            stacked=True,
            least=0,
        ),
        Panel(
            "Rows that began to wait for another row",
            (
                Query(
                    f"topk(20, {of.during(m.DEFERRED, 'schema', 'table')})", "{{schema}} {{table}}"
                ),
            ),
            stacked=True,
            least=0,
        ),
        Panel(
            "Fences that held",
            (
                Query(of.during(m.FENCE_REJECTIONS, "schema"), "{{schema}} refused"),
                Query(of.during(m.TAKEOVERS, "schema"), "{{schema}} taken over"),
            ),
            least=0,
        ),
    )
    schemas = (
        Panel(
            "Cells that did not fit, by outcome",
            (Query(of.during(m.CELLS, "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Cells that lost something, by table",
            (
                Query(
                    f"topk(20, {of.during(m.CONVERSION_WARNINGS, 'schema', 'table')})",
                    "{{schema}} {{table}}",
                ),
            ),
            stacked=True,
            least=0,
        ),
        Panel(
            "Changes of tables",
            (Query(of.during(m.SCHEMA_CHANGES, "change_type"), "{{change_type}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Cells by column",
            (
                Query(
                    f"topk(50, sum by (schema, table, column, outcome) ({of(m.CELLS)}))",
                    instant=True,
                ),
            ),
            "table",
            "none",
            "Since the workers' start.",
            width=24,
        ),
    )
    return Board(
        "cartridge-warp-errors",
        "cartridge-warp · Errors and schema",
        "What failed, what was set aside, what did not fit, and how tables changed.",
        (Row("Failures", failures), Row("Schema and values", schemas)),
        of.variables,
        m.SYNC_STATUS,
    )


def boards() -> tuple[Board, ...]:
    fleet, *rest = _fleet(), _pipeline(), _table(), _snapshot(), _errors()
    asked = set()
    for board in (fleet, *rest):
        for panel in board.panels():
            for query in panel.queries:
                asked |= names_in(query.expression)
    left = tuple(_plain(metric) for metric in METRICS if metric.name not in asked)
    if left:
        more = Row("More", left)
        fleet = Board(
            fleet.uid,
            fleet.title,
            fleet.description,
            (*fleet.rows, more),
            fleet.variables,
            fleet.variables_of,
        )
    return (fleet, *rest)


def names_in(expression: str) -> set[str]:
    """Our metrics that a query asks for, by the names they are declared with."""
    found = set()
    for name in re.findall(r"\bcartridge_warp_\w+", expression):
        stem = next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name)
        found.add(stem if stem in _BY_NAME else name)
    return found


def _plain(metric: Metric) -> Panel:
    of = Chosen("database")
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    by = ", ".join(metric.labels)
    if metric.type is Type.COUNTER:
        expression = of.during(metric.name, *metric.labels)
    elif metric.type is Type.HISTOGRAM:
        expression = of.per_second(metric.name, *metric.labels, suffix="_count")
    else:
        expression = f"max by ({by}) ({of(metric.name)})"
    title = metric.name.removeprefix("cartridge_warp_").replace("_", " ").capitalize()
    unit = "s" if metric.name.endswith("_seconds") else "short"
    unit = "bytes" if metric.name.endswith("_bytes") else unit
    return Panel(title, (Query(expression, legend),), unit=unit, description=metric.help)
