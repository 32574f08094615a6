"""A broken configuration gives one line: the path, what was expected, what was found, where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from config_fakes import fake_connectors  # noqa: F401  a fixture

from warp.config import load
from warp.errors import ConfigError

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "config" / "broken"
CONFIG = ROOT / "examples" / "config.yaml"

pytestmark = pytest.mark.usefixtures("fake_connectors")


def mistakes() -> list[Path]:
    return sorted(p for p in CASES.iterdir() if p.suffix in (".yaml", ".json"))


def expected_of(path: Path) -> str:
    """In a comment on the file's first line, or beside it where the file can hold none."""
    beside = path.with_name(path.name + ".expected")
    if beside.exists():
        return beside.read_text().strip()
    arrow, _, expected = path.read_text().splitlines()[0].partition(" -> ")
    assert arrow == "#"
    return expected


@pytest.mark.parametrize("path", mistakes(), ids=lambda p: p.name)
def test_a_mistake_is_told_in_one_line_without_secrets(path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(path, {})

    told = str(raised.value)
    assert told.replace(str(path), "{file}") == expected_of(path)
    assert "\n" not in told
    assert "hunter2" not in told


def test_there_are_mistakes_enough() -> None:
    assert len(mistakes()) >= 60


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        (
            {"CARTRIDGE_WARP_COORDINATION__SLOTS": "many"},
            {},
            "WARP-100 coordination.slots: expected a whole number above 0, found 'many' "
            "(CARTRIDGE_WARP_COORDINATION__SLOTS)",
        ),
        (
            {"CARTRIDGE_WARP_SORCE__DATABASE": "x"},
            {},
            "WARP-100 sorce: unknown key; did you mean 'source'? (CARTRIDGE_WARP_SORCE__DATABASE)",
        ),
        (
            {"CARTRIDGE_WARP_SOURCE__DATABSE": "x"},
            {},
            "WARP-100 source.databse: unknown key; did you mean 'database'? "
            "(CARTRIDGE_WARP_SOURCE__DATABSE)",
        ),
        (
            {"CARTRIDGE_WARP_SCHEMAS__7__MODE": "batch"},
            {},
            "WARP-100 schemas[7]: expected a number from 0 to 2 in this place of a list "
            "(CARTRIDGE_WARP_SCHEMAS__7__MODE)",
        ),
        (
            {},
            {"mode": "singel"},
            "WARP-100 mode: expected one of single, multi, found 'singel'; did you mean 'single'? "
            "(--mode)",
        ),
        (
            {},
            {"mode": "single"},
            "WARP-100 mode: mode single runs one schema, found 2 (products, orders); name one by "
            "--schema, or use --mode multi",
        ),
        (
            {"CARTRIDGE_WARP_REDIS_URL": "cache:6379"},
            {},
            "WARP-100 coordination.redis_url: expected a URL that starts with redis://, rediss:// "
            "or unix://, found *** (CARTRIDGE_WARP_REDIS_URL)",
        ),
        (
            {},
            {"destination": "mysql://writer:hunter2@db/x"},
            "WARP-100 destination.type: expected the type of an installed destination connector, "
            "found 'mysql'; known: bigquery, postgresql (--destination)",
        ),
    ],
)
def test_a_mistake_in_a_variable_or_flag_names_it(
    environment: Mapping[str, str], flags: Mapping[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(CONFIG, environment, flags)

    assert str(raised.value) == expected


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "none.yaml")

    assert str(raised.value) == (
        f"WARP-100 {tmp_path / 'none.yaml'}: expected a readable file, found: No such file or "
        "directory; check the path and its rights"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_a_file_without_rights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)  # root may read everything

    with pytest.raises(ConfigError, match="Permission denied"):
        load(CONFIG)


def test_an_empty_secret_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    (tmp_path / "config.yaml").write_text(
        f"source:\n  type: mongodb\n  connection_string_file: {tmp_path / 'secret'}\n"
    )

    with pytest.raises(ConfigError, match="empty"):
        load(tmp_path / "config.yaml")


def test_a_class_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    text = CONFIG.read_text().replace("type: mongodb", "type: no_such_module:Source")
    (tmp_path / "config.yaml").write_text(text)

    with pytest.raises(ConfigError, match=r"package\.module:Class.*No module named"):
        load(tmp_path / "config.yaml")
