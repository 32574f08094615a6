"""`docs/cli.md` says what the commands say."""

from __future__ import annotations

from pathlib import Path

from commands import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m commands.reference > docs/cli.md"


def test_every_command_has_a_part_and_every_flag_a_meaning() -> None:
    text = PAGE.read_text()
    names = [name for name, _ in reference.programs()]
    assert {"cartridge-warp init", "cartridge-warp quarantine replay", "warp-worker"} <= {*names}
    for name in names:
        assert f"\n## {name}\n" in text
    rows = [line for line in text.splitlines() if line.startswith("| `-")]
    assert len(rows) > 60
    assert not [row for row in rows if len(row.split(" | ")[1].strip(" |")) < 5]
