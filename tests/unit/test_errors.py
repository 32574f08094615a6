"""Every code has a meaning, an advice and an anchor in docs/errors.md, and no other is raised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from warp import errors_reference
from warp.errors import WarpError
from warp.errors_reference import ASIDE, CELLS, anchor, cell_code, classes
from warp.model import Outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
OURS = ("warp", "workers", "coordinator", "commands", "dashboards")


def sources() -> Iterator[tuple[Path, str]]:
    for package in OURS:
        for file in sorted((ROOT / package).rglob("*.py")):
            if "testing" not in file.parts:
                yield file, file.read_text()


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == errors_reference.page(), (
        "run: python -m warp.errors_reference > docs/errors.md"
    )


def test_no_two_errors_share_a_code() -> None:
    codes = Counter(error.code for error in classes())
    assert set(codes.values()) == {1}
    assert all(re.fullmatch(r"WARP-\d{3}", code) for code in codes)


@pytest.mark.parametrize("error", classes(), ids=lambda error: error.code)
def test_an_error_says_what_it_means_what_comes_next_and_what_to_do(
    error: type[WarpError],
) -> None:
    assert error.__doc__
    assert "__doc__" in vars(error)
    assert min(len(error.then), len(error.advice)) > 5
    assert PAGE.read_text().count(f'<a id="{anchor(error.code)}"></a>') == 1
    assert f"### {error.code} {error.__name__}\n" in PAGE.read_text()


@pytest.mark.parametrize("outcome", Outcome)
def test_what_can_become_of_a_cell_has_an_anchor(outcome: Outcome) -> None:
    assert outcome in CELLS
    assert PAGE.read_text().count(f'<a id="{anchor(cell_code(outcome))}"></a>') == 1


def test_the_set_is_closed() -> None:
    """No module makes an error of its own, and none names a code that is not there."""
    codes = {error.code for error in classes()}
    names = "|".join(error.__name__ for error in classes())
    for file, text in sources():
        if file.name != "errors.py" or file.parent.name != "warp":
            assert not re.findall(rf"^class \w+\((?:{names})\)", text, re.M), file
        assert set(re.findall(r"WARP-\d{3}", text)) <= codes, file


def test_every_code_written_to_the_metadata_is_in_the_set() -> None:
    codes = {error.code for error in classes()} | set(ASIDE)
    for file, text in sources():
        for code in re.findall(r"""\bcode=f?["']([^"'{]*)""", text):
            known = code.strip() in codes or code == "CELL-"
            assert known, f"{file}: the code {code!r} has no line in warp.errors_reference"


def test_a_message_shows_its_code_and_place_first() -> None:
    assert str(WarpError("what to do", place="shop.orders")) == "WARP-000 shop.orders: what to do"
