"""Writes PromQL over what `warp.metrics` declares, for a board and what is chosen on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dashboards.panels import RED, YELLOW
from warp import metrics as m
from warp.metrics import ALL_TABLES, METRICS

RATE: Final = "$__rate_interval"  # Grafana's: at least four scrapes
CHOICE: Final = ("database", "schema", "table")
TABLES_ONLY: Final = f'table!="{ALL_TABLES}"'
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

    def highest(self, name: str, *by: str) -> str:
        """Of several pages that show one series: coordinators and workers may do so."""
        return f"max by ({', '.join(by)}) ({self(name)})"

    def quantile(self, part: float) -> str:
        buckets = self.per_second(m.BATCH_SECONDS, "le", suffix="_bucket")
        return f"histogram_quantile({part:g}, {buckets})"

    def status(self, *by: str) -> str:
        """An error on any page hides work on another, work hides rest."""
        shown, of = self(m.SYNC_STATUS), ", ".join(by)
        return f"(min by ({of}) ({shown}) < 0) or max by ({of}) ({shown})"


def names_in(expression: str) -> set[str]:
    """Our metrics that a query asks for, by the names they are declared with."""
    found = set()
    for name in re.findall(r"\bcartridge_warp_\w+", expression):
        stem = next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name)
        found.add(stem if stem in _BY_NAME else name)
    return found


def _summed(expression: str, by: Iterable[str]) -> str:
    labels = ", ".join(by)
    return f"sum by ({labels}) ({expression})" if labels else f"sum({expression})"
