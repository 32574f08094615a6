"""The alert rules.  Each has a page in docs/runbooks/ of its name, and a case in
`dashboards/prometheus/alerts_test.yml`.

An alert is a signal and what of it is too much.  The signal alone must give something on any
fleet that runs, so that no rule is silent because it asks for what is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import yaml

from warp import metrics as m
from warp.headroom import LOW_RATIO
from warp.metrics import ALL_TABLES

RUNBOOKS: Final = "docs/runbooks"


class Severity(StrEnum):
    PAGE = "page"  # somebody is needed now
    TICKET = "ticket"  # somebody is needed today
    NOTE = "note"  # good to know


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    severity: Severity
    lasts: str  # before it fires
    signal: str
    too_much: str  # appended to the signal
    summary: str  # {{ $labels.… }} and {{ $value }} are Prometheus' own
    meaning: str
    expression: str = ""  # where it is not the signal and what is too much

    @property
    def asked(self) -> str:
        return self.expression or f"({self.signal}) {self.too_much}"

    @property
    def page(self) -> str:
        return f"{RUNBOOKS}/{self.name}.md"


_TABLE: Final = "database, schema, table"
_WHICH: Final = "{{ $labels.schema }} {{ $labels.table }}"
_WORK: Final = f"sum({m.QUEUE_SIZE})"
_HELD: Final = f"(sum({m.LEASES_HELD}) or vector(0))"
_STREAM: Final = f'{{table="{ALL_TABLES}"}}'
_FOLLOWED: Final = f"max by (database, schema) ({m.SYNC_STATUS}{_STREAM})"
_SUCCEEDED: Final = f"time() - max by (database, schema) ({m.LAST_SYNC}{_STREAM})"

ALERTS: Final = (
    Alert(
        "CartridgeWarpTargetDown",
        Severity.TICKET,
        "5m",
        'up{job=~".*warp.*"}',
        "== 0",
        "{{ $labels.instance }} does not answer",
        "Prometheus cannot scrape a coordinator or worker: it is gone, hangs, or is cut off.",
    ),
    Alert(
        "CartridgeWarpStopped",
        Severity.PAGE,
        "1m",
        f"min by ({_TABLE}) ({m.SYNC_STATUS})",
        "< 0",
        f"{_WHICH} has stopped with an error",
        "A stream or table stopped and waits for a person. The others go on.",
    ),
    Alert(
        "CartridgeWarpNoCoordinator",
        Severity.PAGE,
        "2m",
        f"count({m.QUEUE_SIZE})",
        "",
        "no coordinator leads",
        "No coordinator that leads is scraped. Streams go on; nothing new is planned, no schedule "
        "fires, and a wiped Redis is not filled again.",
        expression=f"absent({m.QUEUE_SIZE})",
    ),
    Alert(
        "CartridgeWarpNoWorkers",
        Severity.PAGE,
        "2m",
        _WORK,
        "> 0",
        "{{ $value }} work units and nobody holds one",
        "There is work, and no worker holds any of it.",
        expression=f"({_WORK} > 0) unless ({_HELD} > 0)",
    ),
    Alert(
        "CartridgeWarpWorkWaits",
        Severity.TICKET,
        "15m",
        f"{_WORK} - {_HELD}",
        "> 0",
        "{{ $value }} work units wait for a slot",
        "More units are due than there are slots, for long: too few workers, or an autoscaler at "
        "its limit.",
    ),
    Alert(
        "CartridgeWarpNobodyFollows",
        Severity.PAGE,
        "5m",
        _FOLLOWED,
        "== 0",
        "no worker follows the stream of {{ $labels.schema }}",
        "A stream that is due is held by no worker.",
        # A paused stream is no work unit.
        expression=(
            f"({_FOLLOWED} == 0) and (sum by (database, schema) ({m.QUEUE_SIZE}{_STREAM}) > 0)"
        ),
    ),
    Alert(
        "CartridgeWarpLate",
        Severity.TICKET,
        "5m",
        f"max by ({_TABLE}) ({m.LAG})",
        "> 300",
        f"{_WHICH} is {{{{ $value | humanizeDuration }}}} behind its source",
        "Changes reach the destination more than five minutes late.",
    ),
    Alert(
        "CartridgeWarpNoSuccess",
        Severity.TICKET,
        "5m",
        _SUCCEEDED,
        "> 900",
        "{{ $labels.schema }} has had no success for {{ $value | humanizeDuration }}",
        "A worker has the stream, and neither commits anything nor finds that nothing waits.",
        expression=f"({_SUCCEEDED} > 900) and ({_FOLLOWED} > 0)",
    ),
    Alert(
        "CartridgeWarpLogRunsOut",
        Severity.PAGE,
        "5m",
        f"min by (database, schema) ({m.HEADROOM_RATIO})",
        f"< {LOW_RATIO:g}",
        "{{ $labels.schema }} has {{ $value | humanizePercentage }} left of what its source keeps",
        "A late stream is about to lose its place: its source will have thrown its log away.",
    ),
    Alert(
        "CartridgeWarpErrors",
        Severity.TICKET,
        "0m",
        f"sum by ({_TABLE}, error_type) (increase({m.ERRORS}[15m]))",
        "> 5",
        f"{_WHICH}: {{{{ $value }}}} times {{{{ $labels.error_type }}}} within 15 minutes",
        "One error comes again and again.",
    ),
    Alert(
        "CartridgeWarpRowsSetAside",
        Severity.TICKET,
        "0m",
        f"sum by ({_TABLE}) (increase({m.QUARANTINED}[15m]))",
        "> 0",
        f"{_WHICH}: rows were set aside",
        "Rows that the destination cannot take went into quarantine. They are missing there.",
    ),
    Alert(
        "CartridgeWarpDiffers",
        Severity.TICKET,
        "0m",
        f"max by ({_TABLE}) ({m.DIFFERENCES})",
        "> 0",
        f"{_WHICH}: {{{{ $value }}}} rows are not those of the source",
        "The last comparison found rows of the destination that differ, and nobody repaired them.",
    ),
    Alert(
        "CartridgeWarpValuesLost",
        Severity.NOTE,
        "0m",
        f"sum by ({_TABLE}) (increase({m.CONVERSION_WARNINGS}[1h]))",
        "> 0",
        f"{_WHICH}: values did not fit their columns",
        "Cells were cut, set to NULL, moved to `_extra` or left out.",
    ),
    Alert(
        "CartridgeWarpTakeovers",
        Severity.TICKET,
        "0m",
        f"sum by (schema) (increase({m.TAKEOVERS}[30m]))",
        "> 3",
        "{{ $labels.schema }}: units changed hands again and again after a lease ran out",
        "Workers crash, hang, or cannot reach Redis in time.",
    ),
    Alert(
        "CartridgeWarpFencesRefused",
        Severity.TICKET,
        "0m",
        f"sum by (schema) (increase({m.FENCE_REJECTIONS}[30m]))",
        "> 3",
        "{{ $labels.schema }}: writes of superseded workers were refused",
        "A worker wrote after another had taken its unit. Nothing was harmed; it should be rare.",
    ),
    Alert(
        "CartridgeWarpRedisWiped",
        Severity.NOTE,
        "0m",
        f"sum(increase({m.LEDGER_WIPES}[15m]))",
        "> 0",
        "Redis was found empty and filled again",
        "Nothing is lost; every unit paused for as long as it took.",
    ),
    Alert(
        "CartridgeWarpSnapshotStands",
        Severity.TICKET,
        "30m",
        f"max by ({_TABLE}) ({m.SNAPSHOT_PROGRESS})",
        "< 1",
        f"{_WHICH}: the snapshot does not get on",
        "A table is half read, and for half an hour no row of it has been.",
        expression=(
            f"(max by ({_TABLE}) ({m.SNAPSHOT_PROGRESS}) < 1) unless "
            f'(sum by ({_TABLE}) (rate({m.RECORDS_PROCESSED}{{operation="read"}}[30m])) > 0)'
        ),
    ),
    Alert(
        "CartridgeWarpWritesSlow",
        Severity.TICKET,
        "15m",
        f"histogram_quantile(0.95, sum by (le, schema) (rate({m.BATCH_SECONDS}_bucket[5m])))",
        "> 10",
        "{{ $labels.schema }}: a write transaction takes {{ $value | humanizeDuration }}",
        "The destination is slow, or somebody locks the tables.",
    ),
)


def index_text() -> str:
    """`docs/runbooks/README.md`."""
    lines = [f"| [{a.name}]({a.name}.md) | {a.severity.value} | {a.meaning} |" for a in ALERTS]
    return "\n".join([_INDEX_HEAD, *lines, ""])


_INDEX_HEAD: Final = """# Runbooks

<!-- Written by `python -m dashboards`; edit dashboards/alerts.py. -->

One page for each alert of `dashboards/prometheus/alerts.yml`. **page**: somebody is needed now;
**ticket**: today; **note**: good to know.

| alert | severity | meaning |
| --- | --- | --- |"""


def rules_text() -> str:
    """`dashboards/prometheus/alerts.yml`."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.asked,
            "for": alert.lasts,
            "labels": {"severity": alert.severity.value},
            "annotations": {
                "summary": alert.summary,
                "description": alert.meaning,
                "runbook": alert.page,
            },
        }
        for alert in ALERTS
    ]
    text = yaml.safe_dump(
        {"groups": [{"name": "cartridge-warp", "rules": rules}]},
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )
    return "# Written by `python -m dashboards`; edit dashboards/alerts.py.\n" + text
