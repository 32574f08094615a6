"""Writes `docs/operations/metrics.md` from the declarations: `python -m warp.metrics_reference`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from warp.metrics import (
    ALL_TABLES,
    CELL_OUTCOMES,
    ERROR_TYPES,
    METRICS,
    MOST_COLUMNS,
    OTHER_COLUMNS,
    RATE_WINDOW,
    Metric,
    Over,
    Type,
)
from warp.model import Change, Operation

# What each label says, and how many values it can have for one table; None: of the deployment.
LABELS: Final[dict[str, tuple[str, int | None]]] = {
    "database": ("namespace of the table at the source; of a stream, `source.database`", None),
    "schema": ("the schema of the configuration", None),
    "table": (f"name of the table at the source; `{ALL_TABLES}` is a stream as a whole", None),
    "operation": ("`read` by a snapshot, `create`, `update`, `delete`, `truncate`", len(Operation)),
    "error_type": ("name of the error's class, see docs/errors.md", len(ERROR_TYPES)),
    "change_type": ("what was done to the table", len(Change)),
    "outcome": ("what became of the cell, see docs/errors.md", len(CELL_OUTCOMES)),
    "column": (
        f"the first {MOST_COLUMNS} columns of a table that something happened to; "
        f"`{OTHER_COLUMNS}` is the rest",
        MOST_COLUMNS + 1,
    ),
}

_HEAD: Final = """# Metrics

<!-- Written by `python -m warp.metrics_reference`; edit the declarations in warp/metrics.py. -->

Every container has one page for Prometheus, whatever its processes: `/metrics` on
`monitoring.prometheus.port` (8080 where nothing else is said), once `monitoring.prometheus.enabled`
is true or `--port` is given. `dashboards/grafana/` and `dashboards/prometheus/alerts.yml` are made
for them; [monitoring.md](monitoring.md) says how to put them up.

| path | answers |
| --- | --- |
| `/metrics` | what stands below, in Prometheus' text format or OpenMetrics |
| `/healthz` | 200 while the process can answer; 503 of a leader whose round takes two minutes |
| `/readyz` | 200 while the ledger answers and, all processes of a worker run; else 503 and why |
| `/status` | of a coordinator and of `cartridge-warp`: what `cartridge-warp status --json` prints |

## The eleven of the plan
"""

_BEYOND: Final = """
## Beyond them
"""

_MEANING: Final = f"""
## What they do and do not say

* **Rows are counted when their transaction is durable, and never before.** A process that dies
  between the commit and the count forgets that one batch: after a crash
  `cartridge_warp_records_processed_total` may be one batch short of the truth for each unit it
  held, and is never ahead of it. The truth is `rows` in `sync_markers`.
* **Lag** of a table is that of the last change that arrived, and 0 once nothing waits at the
  source. A table that has not changed since its worker started is shown by the coordinator, as 0
  while its stream stands at the end of the log. Table `{ALL_TABLES}` is the stream as a whole.
  Where no worker follows a stream, or its marker has stood still for 30 seconds, the coordinator
  shows its lag from the marker, so that it grows though nobody measures it. Rows of a snapshot are
  not late, whatever their age.
* **Several pages may show one series**: the worker that works on a table and the coordinator that
  sees the whole. Take `max` of lag; of `cartridge_warp_sync_status` take -1 where any page says so,
  else `max`. The dashboards do.
* **Queues, snapshot progress and retention** are shown by the coordinator that leads, and by no
  other. `sum(cartridge_warp_queue_size)` is the size of the set `cw:{{namespace}}:demand` in Redis,
  which autoscalers read.
* **Rates** are those of the last {RATE_WINDOW:.0f} seconds, and fall to 0 by themselves. For other
  windows use `rate()` over the counters.
* A gauge of a process that ended is gone with the next scrape; its counters stay until the
  container ends, as Prometheus expects of counters.

## How many series there are

Labels take their values from the configuration, from the source's tables, or from closed sets. No
message, key, address, id or value of a row is ever a label.
"""


def page() -> str:
    parts = [_HEAD, *_tables(m for m in METRICS if m.of_plan)]
    parts += [_BEYOND, *_tables(m for m in METRICS if not m.of_plan)]
    parts += [_MEANING, *_labels(), "", *_cardinality(), ""]
    return "\n".join(parts)


def _tables(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| metric | kind | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        over = "" if metric.type is not Type.GAUGE else _OVER[metric.over]
        yield f"| `{metric.name}` | {metric.type.value} | {labels} | {metric.help}{over} |"


_OVER: Final = {
    Over.LATEST: "",
    Over.SUM: " Summed over the processes of a container.",
    Over.MAX: " The highest of a container's processes.",
}


def _labels() -> Iterator[str]:
    yield "| label | says | values |"
    yield "| --- | --- | --- |"
    used = dict.fromkeys(label for metric in METRICS for label in metric.labels)
    for label in used:
        says, values = LABELS[label]
        yield f"| `{label}` | {says} | {values or 'as many as you have'} |"


def _cardinality() -> Iterator[str]:
    tables = [m for m in METRICS if "table" in m.labels]
    usual = sum(_series(m) for m in tables if not _own_labels(m))
    yield (
        f"A table has {usual} series whatever happens to it. Each further one needs something to "
        "have happened, and there are at most so many of them for one table:"
    )
    yield ""
    yield "| metric | series for one table, at most |"
    yield "| --- | --- |"
    for metric in tables:
        if _own_labels(metric):
            yield f"| `{metric.name}` | {_series(metric)} |"
    yield ""
    yield (
        f"1,000 tables whose rows are read, created, updated and deleted, and a tenth of which "
        f"has trouble in ten columns, are about {_thousand(usual):,} series in all. A worker "
        "shows only tables it has worked on since its start."
    )


def _thousand(usual: int) -> int:
    return round((1000 * (usual + 4) + 100 * (10 + 2)) / 1000) * 1000


def _own_labels(metric: Metric) -> list[str]:
    return [label for label in metric.labels if LABELS[label][1] is not None]


def _series(metric: Metric) -> int:
    many = math.prod(LABELS[label][1] or 1 for label in _own_labels(metric))
    # A histogram has its buckets, the endless one, the sum and the count.
    return many * (len(metric.buckets) + 3 if metric.type is Type.HISTOGRAM else 1)


if __name__ == "__main__":
    sys.stdout.write(page())
