"""docs/guarantees.md names tests that exist, for every guarantee."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{f}::{t}" for f, t in NAMED])
def test_a_test_named_there_exists(file: str, test: str) -> None:
    assert re.search(rf"^\s*def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_nothing_that_looks_like_a_test_escapes_the_check() -> None:
    assert "test_" not in re.sub(r"`[\w/]+\.py(::\w+)?`", "", PAGE)


@pytest.mark.parametrize("number", range(1, 11))
def test_each_guarantee_has_tests_and_a_twin_or_says_that_it_has_none(number: int) -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)[number]
    assert section.startswith(f"{number}. ")
    assert "| held by |" in section
    assert "| broken twin |" in section or "No broken twin yet" in section


def test_what_is_not_proved_is_said() -> None:
    assert "## Not proved here" in PAGE
