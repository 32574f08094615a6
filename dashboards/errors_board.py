"""What failed, what was set aside, what did not fit, and how tables changed."""

from __future__ import annotations

from dashboards.panels import STATUS_WORDS, Board, Panel, Query, Row
from dashboards.queries import Chosen
from warp import metrics as m


def board() -> Board:
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
