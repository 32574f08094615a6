"""For each alert a course of its metrics: a time at which it must be silent, one at which it fires.

Written into `dashboards/prometheus/alerts_test.yml`, for `promtool test rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from dashboards.alerts import ALERTS
from warp import metrics as m

TABLE: Final = {"database": "shop", "schema": "web", "table": "orders"}
STREAM: Final = {"database": "shop", "schema": "web", "table": "*"}
SCHEMA: Final = {"database": "shop", "schema": "web"}


@dataclass(frozen=True, slots=True)
class Course:
    """Values a minute apart, as promtool writes them: `1x5 -1x10`, `0+3x20`."""

    metric: str
    values: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def series(self) -> str:
        inside = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{self.metric}{{{inside}}}" if inside else self.metric


@dataclass(frozen=True, slots=True)
class Case:
    alert: str
    courses: Sequence[Course]
    silent_at: str
    fires_at: str
    labels: Mapping[str, str]
    summary: str


CASES: Final = (
    Case(
        "CartridgeWarpTargetDown",
        [Course("up", "1x5 0x15", {"job": "warp-worker", "instance": "w1:8080"})],
        "10m",
        "11m",
        {"job": "warp-worker", "instance": "w1:8080"},
        "w1:8080 does not answer",
    ),
    Case(
        "CartridgeWarpStopped",
        [
            Course(m.SYNC_STATUS, "1x4 -1x10", {**TABLE, "instance": "coordinator"}),
            # A worker says it for a while only, and another table is well.
            Course(m.SYNC_STATUS, "1x20", {**TABLE, "table": "users", "instance": "w1"}),
        ],
        "4m",
        "7m",
        TABLE,
        "web orders has stopped with an error",
    ),
    Case(
        "CartridgeWarpNoCoordinator",
        [Course(m.QUEUE_SIZE, "1x10 stale", STREAM)],
        "10m",
        "15m",
        {},
        "no coordinator leads",
    ),
    Case(
        "CartridgeWarpNoWorkers",
        [
            Course(m.QUEUE_SIZE, "3x20", STREAM),
            Course(m.LEASES_HELD, "0x20", {"instance": "coordinator"}),
            Course(m.LEASES_HELD, "3x5 stale", {"instance": "w1"}),
        ],
        "5m",
        "9m",
        {},
        "3 work units and nobody holds one",
    ),
    Case(
        "CartridgeWarpWorkWaits",
        [
            Course(m.QUEUE_SIZE, "2x5 7x30", TABLE),
            Course(m.LEASES_HELD, "1x40", {"instance": "w1"}),
            Course(m.LEASES_HELD, "1x40", {"instance": "w2"}),
        ],
        "15m",
        "25m",
        {},
        "5 work units wait for a slot",
    ),
    Case(
        "CartridgeWarpNobodyFollows",
        [
            Course(m.SYNC_STATUS, "1x5 0x20", STREAM),
            Course(m.QUEUE_SIZE, "1x25", STREAM),
            # Paused: at rest, and no work unit.
            Course(m.SYNC_STATUS, "0x25", {**STREAM, "schema": "paused"}),
        ],
        "8m",
        "13m",
        SCHEMA,
        "no worker follows the stream of web",
    ),
    Case(
        "CartridgeWarpLate",
        [
            Course(m.LAG, "2x5 400x20", {**TABLE, "instance": "w1"}),
            Course(m.LAG, "0x25", {**TABLE, "instance": "coordinator"}),
        ],
        "8m",
        "12m",
        TABLE,
        "web orders is 6m 40s behind its source",
    ),
    Case(
        "CartridgeWarpNoSuccess",
        [
            Course(m.LAST_SYNC, "0x40", {**STREAM, "instance": "w1"}),
            Course(m.SYNC_STATUS, "1x40", STREAM),
            # Nobody works on it, so nobody can succeed.
            Course(m.LAST_SYNC, "0x40", {**STREAM, "schema": "paused"}),
            Course(m.SYNC_STATUS, "0x40", {**STREAM, "schema": "paused"}),
        ],
        "15m",
        "25m",
        SCHEMA,
        "web has had no success for 25m 0s",
    ),
    Case(
        "CartridgeWarpLogRunsOut",
        [
            Course(m.HEADROOM_RATIO, "1x10 0.5x10 0.2x20", SCHEMA),
            Course(m.HEADROOM_RATIO, "1x60", {**SCHEMA, "schema": "users"}),
        ],
        "23m",
        "30m",
        SCHEMA,
        "web has 20% left of what its source keeps",
    ),
    Case(
        "CartridgeWarpErrors",
        [
            Course(m.ERRORS, "0x20 0+1x30", {**TABLE, "error_type": "source_unavailable"}),
            Course(m.ERRORS, "1x50", {**TABLE, "error_type": "unexpected"}),
        ],
        "20m",
        "40m",
        {**TABLE, "error_type": "source_unavailable"},
        "web orders: 15 times source_unavailable within 15 minutes",
    ),
    Case(
        "CartridgeWarpRowsSetAside",
        [Course(m.QUARANTINED, "0x10 2x20", TABLE)],
        "9m",
        "12m",
        TABLE,
        "web orders: rows were set aside",
    ),
    Case(
        "CartridgeWarpDiffers",
        [Course(m.DIFFERENCES, "0x10 3x20", TABLE)],
        "9m",
        "12m",
        TABLE,
        "web orders: 3 rows are not those of the source",
    ),
    Case(
        "CartridgeWarpValuesLost",
        [Course(m.CONVERSION_WARNINGS, "0x10 9x20", TABLE)],
        "9m",
        "12m",
        TABLE,
        "web orders: values did not fit their columns",
    ),
    Case(
        "CartridgeWarpTakeovers",
        [Course(m.TAKEOVERS, "1x20 2 3 4 5 6x20", {"schema": "web"})],
        "20m",
        "28m",
        {"schema": "web"},
        "web: units changed hands again and again after a lease ran out",
    ),
    Case(
        "CartridgeWarpFencesRefused",
        [Course(m.FENCE_REJECTIONS, "0x20 2 3 4 5 6x20", {"schema": "web"})],
        "20m",
        "28m",
        {"schema": "web"},
        "web: writes of superseded workers were refused",
    ),
    Case(
        "CartridgeWarpRedisWiped",
        [Course(m.LEDGER_WIPES, "0x10 1x10", {"instance": "coordinator"})],
        "9m",
        "12m",
        {},
        "Redis was found empty and filled again",
    ),
    Case(
        "CartridgeWarpSnapshotStands",
        [
            Course(m.SNAPSHOT_PROGRESS, "0.5x120", TABLE),
            Course(m.RECORDS_PROCESSED, "0+100x20 2000x100", {**TABLE, "operation": "read"}),
        ],
        "45m",
        "85m",
        TABLE,
        "web orders: the snapshot does not get on",
    ),
    Case(
        "CartridgeWarpWritesSlow",
        [
            Course(f"{m.BATCH_SECONDS}_bucket", "0+10x60", {**TABLE, "le": "10"}),
            Course(f"{m.BATCH_SECONDS}_bucket", "0+10x10 110+100x50", {**TABLE, "le": "30"}),
            Course(f"{m.BATCH_SECONDS}_bucket", "0+10x10 110+100x50", {**TABLE, "le": "+Inf"}),
        ],
        "10m",
        "40m",
        {"schema": "web"},
        "web: a write transaction takes 28.89s",
    ),
)


def tests_text() -> str:
    """`dashboards/prometheus/alerts_test.yml`."""
    file = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [_test(case) for case in CASES],
    }
    text = yaml.safe_dump(file, sort_keys=False, width=100, allow_unicode=True)
    head = (
        "# Written by `python -m dashboards`; edit dashboards/alert_cases.py.\n"
        "# promtool test rules alerts_test.yml\n"
    )
    return head + text


def _test(case: Case) -> dict[str, Any]:
    (alert,) = [alert for alert in ALERTS if alert.name == case.alert]
    annotations = {
        "summary": case.summary,
        "description": alert.meaning,
        "runbook": alert.page,
    }
    labels = {"severity": alert.severity.value, **case.labels}
    fires = {"exp_labels": labels, "exp_annotations": annotations}
    return {
        "name": case.alert,
        "interval": "1m",
        "input_series": [{"series": c.series, "values": c.values} for c in case.courses],
        "alert_rule_test": [
            {"eval_time": case.silent_at, "alertname": case.alert, "exp_alerts": []},
            {"eval_time": case.fires_at, "alertname": case.alert, "exp_alerts": [fires]},
        ],
    }
