"""What docs/destinations/bigquery.md says was shown is what the tests of BigQuery show."""

from __future__ import annotations

import re
from collections import Counter

import bigquery_shown
from bigquery_shown import ALL, FENCE, SHOWN


def test_the_page_is_current() -> None:
    assert bigquery_shown.PAGE.read_text() == bigquery_shown.page(), (
        "run: python tests/bigquery_shown.py"
    )


def test_a_test_that_is_named_exists() -> None:
    for _, by in SHOWN:
        for file, name in by:
            text = (bigquery_shown.ROOT / "tests" / file).read_text()
            assert name == ALL or f"\ndef {name}(" in text, (file, name)


def test_every_test_of_the_fence_is_named_once() -> None:
    text = (bigquery_shown.ROOT / "tests" / FENCE).read_text()
    named = Counter(name for _, by in SHOWN for file, name in by if file == FENCE)
    assert named == Counter(re.findall(r"^def (test_\w+)", text, re.MULTILINE))


def test_the_contract_has_cases() -> None:
    assert bigquery_shown.cases() > 60
