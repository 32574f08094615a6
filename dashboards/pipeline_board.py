"""How the chosen schemas move: rows, lag, transactions, work."""

from __future__ import annotations

from dashboards.panels import STATUS_WORDS, Board, Panel, Query, Row
from dashboards.queries import LAG_STEPS, Chosen
from warp import metrics as m
from warp.metrics import ALL_TABLES


def board() -> Board:
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
