"""Every panel and every alert, asked of a real Prometheus that scraped a real fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eventful import Day

from dashboards.alerts import ALERTS
from dashboards.boards import boards
from dashboards.queries import names_in
from warp.metrics import DIFFERENCES, HEADROOM_BYTES, METRICS, OLDEST_VERDICT, RETAINED
from warp.testing.prometheus import Series

pytestmark = [pytest.mark.xdist_group("eventful"), pytest.mark.timeout(400)]

# What Grafana puts in the place of its variables, for a fleet that is scraped every second.
VARIABLES = {
    "$__rate_interval": "4s",
    "$__range": "1m",
    "$database": ".*",
    "$schema": ".*",
    "$table": ".*",
}


# Metrics that this fleet, from MongoDB and never compared, does not have, and where each is shown.
ELSEWHERE = {
    HEADROOM_BYTES: "tests/unit/test_headroom.py",
    RETAINED: "tests/integration/test_postgresql_source_slot.py",
    DIFFERENCES: "tests/integration/test_verify.py",
    OLDEST_VERDICT: "tests/integration/test_verify.py",
}


def every_query() -> Iterator[tuple[str, str]]:
    for board in boards():
        for panel in board.panels():
            for query in panel.queries:
                yield f"{board.title}: {panel.title}", query.expression


def asked(day: Day, expression: str) -> list[Series]:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return day.prometheus.ask(expression, since=day.began, until=day.ended, step=1.0)


def test_every_query_of_every_panel_shows_something(eventful: Day) -> None:
    empty = [
        f"{where}: {expression}"
        for where, expression in every_query()
        if not names_in(expression) & ELSEWHERE.keys()
        and not any(series.values for series in asked(eventful, expression))
    ]

    assert not empty, "\n".join(empty)
    assert ELSEWHERE.keys() <= {metric.name for metric in METRICS}


def test_the_signal_of_every_alert_is_there_on_a_fleet_that_runs(eventful: Day) -> None:
    empty = [
        f"{alert.name}: {alert.signal}"
        for alert in ALERTS
        if not names_in(alert.signal) & ELSEWHERE.keys()
        and not any(series.values for series in asked(eventful, alert.signal))
    ]

    assert not empty, "\n".join(empty)


def test_prometheus_reads_and_evaluates_every_rule(eventful: Day) -> None:
    loaded = eventful.prometheus.rules_loaded()

    assert set(loaded) == {alert.name for alert in ALERTS}
    assert {name: rule["lastError"] for name, rule in loaded.items() if "lastError" in rule} == {}
    assert {rule["health"] for rule in loaded.values()} == {"ok"}


@pytest.mark.parametrize(
    ("alert", "labels"),
    [
        ("CartridgeWarpStopped", {"table": "broken"}),
        ("CartridgeWarpRowsSetAside", {"table": "orders"}),
        ("CartridgeWarpValuesLost", {"table": "orders"}),
        ("CartridgeWarpNoWorkers", {}),
        ("CartridgeWarpNobodyFollows", {"schema": "plain"}),
        ("CartridgeWarpSnapshotStands", {"table": "broken"}),
        ("CartridgeWarpRedisWiped", {}),
    ],
)
def test_what_this_fleet_went_through_is_what_its_alerts_see(
    eventful: Day, alert: str, labels: dict[str, str]
) -> None:
    (rule,) = [each for each in ALERTS if each.name == alert]

    seen = [series.labels for series in asked(eventful, rule.asked) if series.values]

    assert any(labels.items() <= each.items() for each in seen), seen


def test_a_query_for_a_metric_that_nobody_shows_would_be_found(eventful: Day) -> None:
    """The broken twin of the first test."""
    assert asked(eventful, "max by (table) (cartridge_warp_lag)") == []
