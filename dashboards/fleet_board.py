"""Is all well, and is there enough of everything?"""

from __future__ import annotations

from dashboards.panels import STATUS_WORDS, Board, Panel, Query, Row
from dashboards.queries import ANY, LAG_STEPS, Chosen
from warp import metrics as m


def board() -> Board:
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
