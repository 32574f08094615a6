"""All that is known of one table, or of a few beside each other."""

from __future__ import annotations

from dashboards.panels import STATUS_WORDS, Board, Panel, Query, Row
from dashboards.queries import CHOICE, LAG_STEPS, RATE, Chosen
from warp import metrics as m


def board() -> Board:
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
