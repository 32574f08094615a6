"""The dashboards and alert rules as files: drawn from the declarations, whole, and up to date."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dashboards.__main__ import CASES as CASES_FILE
from dashboards.__main__ import GRAFANA, RULES, stale
from dashboards.alert_cases import CASES
from dashboards.alerts import ALERTS, RUNBOOKS
from dashboards.boards import boards
from dashboards.panels import COLUMNS, Board, Panel, Query, Row
from dashboards.queries import names_in
from warp.metrics import METRICS
from warp.metrics_reference import LABELS, page
from warp.testing.prometheus import promtool

ROOT = Path(__file__).parents[2]
DECLARED = {metric.name for metric in METRICS}


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    folded = [inner for panel in board["panels"] for inner in panel.get("panels", [])]
    return [*board["panels"], *folded]


def test_the_files_are_what_their_definitions_say() -> None:
    assert stale() == []


def test_the_reference_of_metrics_is_what_the_declarations_say() -> None:
    assert (ROOT / "docs/operations/metrics.md").read_text() == page()


def test_no_query_and_no_rule_names_an_unknown_metric() -> None:
    asked = {query.expression for b in boards() for p in b.panels() for query in p.queries}
    asked |= {text for alert in ALERTS for text in (alert.asked, alert.signal)}

    assert set().union(*map(names_in, asked)) <= DECLARED


def test_every_metric_is_on_some_panel() -> None:
    asked = {query.expression for b in boards() for p in b.panels() for query in p.queries}

    assert set().union(*map(names_in, asked)) == DECLARED


def test_no_two_panels_lie_on_each_other_and_none_beside_the_page() -> None:
    for file in GRAFANA.glob("*.json"):
        board = json.loads(file.read_text())
        places = [panel["gridPos"] for panel in panels_of(board)]
        assert all(p["x"] >= 0 and p["x"] + p["w"] <= COLUMNS for p in places)
        for a, b in itertools.combinations(places, 2):
            apart = (
                a["x"] + a["w"] <= b["x"]
                or b["x"] + b["w"] <= a["x"]
                or a["y"] + a["h"] <= b["y"]
                or b["y"] + b["h"] <= a["y"]
            )
            assert apart, (file.name, a, b)


def test_every_variable_that_is_asked_for_is_offered_and_each_id_comes_once() -> None:
    for board in map(Board.as_json, boards()):
        ids = [panel["id"] for panel in panels_of(board)]
        assert len(set(ids)) == len(ids)
        offered = {variable["name"] for variable in board["templating"]["list"]}
        text = json.dumps(board["panels"])
        for name in ("database", "schema", "table"):
            assert (f"${name}" in text) <= (name in offered), (board["title"], name)


def test_a_panel_without_room_goes_to_the_next_line_below_the_highest() -> None:
    panels = tuple(
        Panel(str(n), (Query("up"),), width=w, height=h)
        for n, (w, h) in enumerate([(12, 4), (12, 8), (24, 3)])
    )

    board = Board("cartridge-warp-x", "x", "", (Row("a", panels), Row("b", panels[:1]))).as_json()

    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert places == [(0, 0), (0, 1), (12, 1), (0, 9), (0, 12), (0, 13)]


def test_every_label_is_bounded_and_said_to_be() -> None:
    used = {label for metric in METRICS for label in metric.labels}

    assert used == set(LABELS)


def test_every_alert_has_a_runbook_and_a_case_and_no_page_is_left_over() -> None:
    names = [alert.name for alert in ALERTS]

    assert len(set(names)) == len(names)
    assert sorted(case.alert for case in CASES) == sorted(names)
    pages = {file.stem for file in (ROOT / RUNBOOKS).glob("CartridgeWarp*.md")}
    assert pages == set(names)
    for alert in ALERTS:
        text = (ROOT / alert.page).read_text()
        assert text.startswith(f"# {alert.name}\n")
        for heading in ("What is at stake", "Find out", "Mend"):
            assert f"\n## {heading}\n" in text, (alert.name, heading)


def test_every_alert_is_silent_before_and_fires_after_by_promtool() -> None:
    promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("test", "rules", CASES_FILE)


def test_a_rule_that_never_fires_would_be_found(tmp_path: Path) -> None:
    """The broken twin of the test above."""
    rules = RULES.read_text()
    (tmp_path / RULES.name).write_text(rules.replace("> 300", "> 300000"))
    (tmp_path / CASES_FILE.name).write_text(CASES_FILE.read_text())

    with pytest.raises(Exception, match="CartridgeWarpLate"):
        promtool("test", "rules", tmp_path / CASES_FILE.name)
