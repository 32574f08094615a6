"""The five dashboards.  Every query is composed of what `warp.metrics` declares.

A metric that no panel asks for gets a panel at the foot of the fleet's board, so that one declared
tomorrow is seen without a change here.
"""

from __future__ import annotations

from dataclasses import replace

from dashboards import errors_board, fleet_board, pipeline_board, snapshot_board, table_board
from dashboards.panels import Board, Panel, Query, Row
from dashboards.queries import Chosen, names_in
from warp.metrics import METRICS, Metric, Type


def boards() -> tuple[Board, ...]:
    fleet, *rest = (
        module.board()
        for module in (fleet_board, pipeline_board, table_board, snapshot_board, errors_board)
    )
    asked = set()
    for board in (fleet, *rest):
        for panel in board.panels():
            for query in panel.queries:
                asked |= names_in(query.expression)
    left = tuple(_plain(metric) for metric in METRICS if metric.name not in asked)
    if left:
        fleet = replace(fleet, rows=(*fleet.rows, Row("More", left)))
    return (fleet, *rest)


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
    if metric.name.endswith("_timestamp_seconds"):
        expression = f"time() - {expression}"
    title = metric.name.removeprefix("cartridge_warp_").replace("_", " ").capitalize()
    unit = "s" if metric.name.endswith("_seconds") else "short"
    unit = "bytes" if metric.name.endswith("_bytes") else unit
    return Panel(title, (Query(expression, legend),), unit=unit, description=metric.help)
