"""How far the first reading of each table has got."""

from __future__ import annotations

from dashboards.panels import Board, Panel, Query, Row
from dashboards.queries import RATE, TABLES_ONLY, Chosen
from warp import metrics as m


def board() -> Board:
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
