"""Writes the dashboards, the alert rules and their index anew: `python -m dashboards`.

With `--check` nothing is written, and a file that is not what would be written is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from dashboards.alert_cases import tests_text
from dashboards.alerts import RUNBOOKS, index_text, rules_text
from dashboards.boards import boards

HERE: Final = Path(__file__).parent
GRAFANA: Final = HERE / "grafana"
RULES: Final = HERE / "prometheus" / "alerts.yml"
CASES: Final = HERE / "prometheus" / "alerts_test.yml"
INDEX: Final = HERE.parent / RUNBOOKS / "README.md"


def files() -> dict[Path, str]:
    drawn = {GRAFANA / board.file: board.text() for board in boards()}
    return {**drawn, RULES: rules_text(), CASES: tests_text(), INDEX: index_text()}


def stale() -> list[Path]:
    """Files that are not what their definitions say, and boards that have none any more."""
    wanted = files()
    other = [file for file in GRAFANA.glob("*.json") if file not in wanted]
    changed = [f for f, text in wanted.items() if not f.exists() or f.read_text() != text]
    return sorted([*other, *changed])


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        for file in (found := stale()):
            sys.stderr.write(f"{file.relative_to(HERE.parent)} is stale; run: make docs\n")
        return 1 if found else 0
    for file in stale():
        file.unlink(missing_ok=True)
    for file, text in files().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
