"""A release is refused where something does not say its version."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import warp

ROOT = Path(__file__).parents[2]
FILES = ("warp/__init__.py", "charts/cartridge-warp/Chart.yaml", "CHANGELOG.md")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    place = ROOT / ".github" / "check_release.py"
    spec = importlib.util.spec_from_file_location("check_release", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This one as it would be on the day of its release."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    dated = (
        f"## {warp.__version__} - 2026-11-26\n\n* Everything.\n\n## 0.0.1 - 2026-01-01\n\n* Less.\n"
    )
    changelog.write_text("# Changelog\n\n## Unreleased\n\n* Later.\n\n" + dated)
    return tmp_path


def test_everything_says_the_version_of_the_tag(check: ModuleType, checkout: Path) -> None:
    assert list(check.mistakes(f"v{warp.__version__}", checkout)) == []
    assert check.notes((checkout / "CHANGELOG.md").read_text(), warp.__version__) == "* Everything."


def test_a_tag_of_another_version_is_told_each_place(check: ModuleType, checkout: Path) -> None:
    found = list(check.mistakes("v9.9.9", checkout))
    assert len(found) == 4
    assert all("9.9.9" in mistake for mistake in found)


def test_an_odd_tag_is_refused(check: ModuleType, checkout: Path) -> None:
    assert "tag" in next(check.mistakes("1.0", checkout))


def test_the_changelog_has_a_part_for_what_comes_next() -> None:
    first = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert first.startswith(("Unreleased\n", f"{warp.__version__} - "))
