"""The connector of docs/connectors.md keeps the contract of every source, as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

from warp.config import load

PAGE = Path(__file__).parents[2] / "docs" / "connectors.md"


def module(name: str, code: str) -> Any:
    """As if the code lay in a file of that name; pydantic looks there for what it names."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(compile(code, f"{PAGE}:{name}", "exec"), made.__dict__)
    return made


source, tests = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
sqlite_source = module("sqlite_source", source)
TestSqliteSource: Any = module("test_sqlite_source", tests).TestSqliteSource


def test_it_is_named_in_the_configuration_as_the_page_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "config.yaml"
    file.write_text(
        block + "destination:\n  connection_string: postgresql://h/d\nschemas: [{name: shop}]\n"
    )
    settings = load(file)
    assert settings.source.connector is sqlite_source.SqliteSource
