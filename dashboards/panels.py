"""What a Grafana dashboard is made of, and its JSON.  Pure, and no more of Grafana than is used.

A board is rows of panels; where each panel lies on Grafana's 24 columns is worked out here, so
that a panel put between two others moves the rest by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

COLUMNS: Final = 24
SCHEMA_VERSION: Final = 39  # of dashboards: Grafana 10.4 and later read it
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "text"

# What `cartridge_warp_sync_status` says, for people.
STATUS_WORDS: Final = {
    -1: ("stopped by an error", RED),
    0: ("at rest", GREY),
    1: ("working", GREEN),
}


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL; `legend` has `{{label}}`.  `instant` asks for now alone."""

    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"  # or stat, bargauge, state-timeline, table, heatmap
    unit: str = "short"
    description: str = ""
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float, str], ...] = ()  # from this value on, this colour
    words: Mapping[int, tuple[str, str]] | None = None  # value -> text and colour
    stacked: bool = False
    least: float | None = None
    most: float | None = None

    def as_json(self, id: int, x: int, y: int) -> dict[str, Any]:
        return {
            "id": id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": SOURCE,
                    "expr": query.expression,
                    "legendFormat": query.legend or "__auto",
                    "instant": query.instant,
                    "range": not query.instant,
                    "format": self._format(),
                }
                for place, query in enumerate(self.queries)
            ],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            **self._transformed(),
        }

    def _format(self) -> str:
        return {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series")

    def _defaults(self) -> dict[str, Any]:
        steps: list[dict[str, float | str | None]] = [{"value": None, "color": GREEN}]
        steps += [{"value": value, "color": color} for value, color in self.steps]
        bounds = {"min": self.least, "max": self.most}
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            **{name: value for name, value in bounds.items() if value is not None},
        }
        if self.words:
            options = {
                str(value): {"text": text, "color": color}
                for value, (text, color) in self.words.items()
            }
            defaults["mappings"] = [{"type": "value", "options": options}]
        if self.kind == "timeseries":
            defaults["custom"] = {
                "lineWidth": 1,
                "fillOpacity": 25 if self.stacked else 8,
                "showPoints": "never",
                "spanNulls": 60_000,  # a missed scrape is no gap
                "stacking": {"mode": "normal" if self.stacked else "none"},
            }
        return defaults

    def _options(self) -> dict[str, Any]:
        last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        match self.kind:
            case "timeseries":
                legend = {"displayMode": "table", "placement": "bottom", "calcs": ["last", "max"]}
                return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
            case "stat":
                return {"reduceOptions": last, "colorMode": "background", "graphMode": "area"}
            case "bargauge":
                return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "lcd"}
            case "state-timeline":
                return {"showValue": "never", "mergeValues": True, "legend": {"showLegend": False}}
            case "heatmap":
                return {
                    "calculate": False,
                    "yAxis": {"unit": self.unit},
                    "color": {"scheme": "Blues"},
                }
            case _:
                return {"showHeader": True}

    def _transformed(self) -> dict[str, Any]:
        if self.kind != "table":
            return {}
        # Several instant queries become one row for each set of labels.
        organised = {"excludeByName": {"Time": True}}
        steps = [{"id": "merge", "options": {}}, {"id": "organize", "options": organised}]
        return {"transformations": steps}


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """`variables` are label names to choose by, each within the choice of those before it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[str, ...] = ()
    variables_of: str = ""  # the metric whose labels are offered

    @property
    def file(self) -> str:
        return f"{self.uid.removeprefix('cartridge-warp-')}.json"

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels

    def as_json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["cartridge-warp"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [_LINK],
            "annotations": {"list": []},
            "templating": {"list": [_SOURCE_VARIABLE, *self._variables()]},
            "panels": list(self._laid_out()),
        }

    def text(self) -> str:
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    def _variables(self) -> Iterator[dict[str, Any]]:
        for place, label in enumerate(self.variables):
            within = within_of(self.variables[:place])
            yield {
                "name": label,
                "label": label.capitalize(),
                "type": "query",
                "datasource": SOURCE,
                "query": {
                    "query": f"label_values({self.variables_of}{within}, {label})",
                    "refId": f"variable {label}",
                },
                "refresh": 2,  # when the time range changes
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
            }

    def _laid_out(self) -> Iterator[dict[str, Any]]:
        id, y = 0, 0
        for row in self.rows:
            id += 1
            heading = {
                "id": id,
                "type": "row",
                "title": row.title,
                "collapsed": row.folded,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
            y += 1
            inside = []
            for panel, x, down in _placed(row.panels):
                id += 1
                inside.append(panel.as_json(id, x, y + down))
            y = max((p["gridPos"]["y"] + p["gridPos"]["h"] for p in inside), default=y)
            yield {**heading, "panels": inside if row.folded else []}
            if not row.folded:
                yield from inside


def within_of(labels: Sequence[str]) -> str:
    """A selector of what is chosen: `{database=~"$database"}`."""
    if not labels:
        return ""
    return "{" + ",".join(f'{label}=~"${label}"' for label in labels) + "}"


def _placed(panels: Sequence[Panel]) -> Iterator[tuple[Panel, int, int]]:
    """From left to right, with a new line where the next one has no room; x and y of each."""
    x = y = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        yield panel, x, y
        x, height = x + panel.width, max(height, panel.height)


_SOURCE_VARIABLE: Final = {
    "name": "source",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
    "current": {},
}
_LINK: Final = {
    "title": "cartridge-warp",
    "type": "dashboards",
    "tags": ["cartridge-warp"],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
}
