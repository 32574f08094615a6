"""`docs/configuration.md` says what the models say."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from warp.config import blocks, reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference.page(), (
        "run: python -m warp.config.reference > docs/configuration.md"
    )


def test_every_key_has_a_line_with_a_meaning() -> None:
    lines = {
        m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \|.*\| (.+) \|$", PAGE.read_text(), re.M)
    }

    models: list[type[BaseModel]] = [blocks.Configuration]
    models += [model for _, _, model in reference.SECTIONS]
    keys = {f.alias or name for model in models for name, f in model.model_fields.items()}
    assert keys <= lines.keys()
    assert not [key for key, meaning in lines.items() if len(meaning) < 5]


def test_the_keys_of_the_installed_connectors_are_there() -> None:
    text = PAGE.read_text()

    assert "## `source:` of type `mongodb`" in text
    assert "## `destination:` of type `postgresql`" in text
    assert "`idle_in_transaction_session_timeout`" in text
