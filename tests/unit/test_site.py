"""Pages of the site: each in the navigation, each link leads somewhere, what they name exists."""

from __future__ import annotations

import importlib.util
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from commands import reference
from warp.errors_reference import classes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = loaded  # dataclasses look there for what annotations name
    spec.loader.exec_module(loaded)
    return loaded


LINKS_OUT = module(DOCS / "links_out.py")


def named(nav: Any) -> Iterator[str]:
    for entry in nav:
        inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from named(inner) if isinstance(inner, list) else [inner]


def test_the_navigation_names_every_page_once() -> None:
    listed = list(named(SITE["nav"]))
    assert sorted(listed) == PAGES
    assert len(set(listed)) == len(listed)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))


@cache
def anchors(page: Path) -> set[str]:
    text = page.read_text()
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M
    ):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found


def dead_links(page: Path) -> Iterator[str]:
    for target in LINKS_OUT.LINK.findall(without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        if "://" not in target and (
            not place.exists() or (anchor and anchor not in anchors(place.resolve()))
        ):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert list(dead_links(DOCS / page)) == []


def test_a_link_that_leads_nowhere_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A part\n[a](#a-part) [b](#another) [c](gone.md) `[d](code.md)`\n")
    assert list(dead_links(page)) == ["#another", "gone.md"]


def test_links_out_of_the_documentation_lead_to_the_repository() -> None:
    outside = LINKS_OUT.outside
    assert outside("capture.md", "../benchmarks/results/triggers.md#x") == (
        "benchmarks/results/triggers.md#x"
    )
    for stays in ("errors.md#warp-510", "../errors.md", "#here", "https://example.org/a"):
        assert outside("operations/doctor.md", stays) is None


def test_nothing_is_asked_of_anybody_else() -> None:
    assert SITE["theme"]["font"] is False
    assert "repo_url" not in SITE
    assert SITE["plugins"] == ["search"]
    for page in PAGES:  # the theme fetches a script where a diagram is drawn by mermaid
        assert "```mermaid" not in (DOCS / page).read_text()
        assert not re.search(
            r"!\[[^\]]*\]\(http|<(img|script|iframe)\b", without_code((DOCS / page).read_text())
        )


def test_the_diagrams_are_current() -> None:
    diagrams = module(DOCS / "images" / "diagrams.py")
    for name, draw in diagrams.PICTURES.items():
        drawn = (DOCS / "images" / name).read_text()
        assert drawn == draw().svg(), "run: python docs/images/diagrams.py"
        assert f"images/{name})" in (DOCS / "concepts.md").read_text()


COMMANDS = dict(reference.programs())
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS}


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """What stands behind `cartridge-warp` in code, up to the end of the command."""
    for found in re.finditer(r"cartridge-warp ((?:[^`\n|;&#]|\\\n)+)", text):
        yield found[0].replace("\\\n", " "), found[1].replace("\\\n", " ").split()


def unknown_flags(text: str) -> Iterator[str]:
    code = "\n".join(re.findall(r"^ *```.*?^ *```|`[^`\n]+`", text, re.M | re.S))
    for shown, words in commands_in(code):
        name = "cartridge-warp"
        for word in words:
            if f"{name} {word}" not in COMMANDS and f"{name} {word}" not in GROUPS:
                break
            name += f" {word}"
        if name not in COMMANDS:
            continue
        known = {
            flag
            for each in (COMMANDS["cartridge-warp"], COMMANDS[name])
            for option in each.params
            if isinstance(option, click.Option)
            for flag in (*option.opts, *option.secondary_opts, "--help")
        }
        flags = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        yield from (f"{flag} in {shown}" for flag in flags - known)


@pytest.mark.parametrize("page", PAGES)
def test_a_flag_that_is_named_exists(page: str) -> None:
    assert list(unknown_flags((DOCS / page).read_text())) == []


def test_a_flag_that_does_not_exist_would_be_found() -> None:
    text = "`cartridge-warp verify --repair`, `cartridge-warp repair --apply`\n"
    assert list(unknown_flags(text)) == ["--repair in cartridge-warp verify --repair"]


def test_codes_and_log_lines_of_the_troubleshooting_page_exist() -> None:
    text = (DOCS / "operations" / "troubleshooting.md").read_text()
    codes = {error.code for error in classes()}
    assert set(re.findall(r"WARP-\d{3}", text)) <= codes
    sources = "\n".join(
        file.read_text()
        for package in ("warp", "workers", "coordinator")
        for file in (ROOT / package).rglob("*.py")
    )
    seen = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    events = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", "\n".join(seen)))
    assert len(events) > 10
    assert not {event for event in events if f'"{event}"' not in sources}


def test_every_finding_of_doctor_is_on_its_page() -> None:
    families = "mongodb|postgresql|mysql|redis|bigquery|capture|privacy|jsonl|log"
    code = rf'"((?:{families})-[a-z]+(?:-[a-z]+)*)"'
    ours = [f for p in ("warp", "commands") for f in (ROOT / p).rglob("*.py")]
    texts = {file: file.read_text() for file in ours if "testing" not in file.parts}
    codes = {found for text in texts.values() for found in re.findall(code, text)}
    followed = texts[ROOT / "warp" / "sources" / "postgresql" / "preflight.py"]
    for short in re.findall(r'(?:_judged\(|bad\.append\()\s*\(?\s*"([a-z-]+)"', followed):
        codes.add(f"postgresql-{short}")
    assert len(codes) > 80
    page = (DOCS / "operations" / "doctor.md").read_text()
    # Not of `doctor`: it is told of a row, while it is read.
    assert sorted(c for c in codes - {"bigquery-value"} if f"`{c}`" not in page) == []
