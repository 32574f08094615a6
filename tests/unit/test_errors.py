"""Every error has a code of its own and a line in the operator's page."""

from __future__ import annotations

import re
from pathlib import Path

from warp.errors import WarpError

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "errors.md"


def classes(root: type[WarpError]) -> list[type[WarpError]]:
    """An error and all that derive from it in `warp.errors`."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            found += classes(child)
    return found


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in classes(WarpError)]
    assert len(codes) == len(set(codes))


def test_the_page_lists_every_error_once_and_no_other() -> None:
    listed = re.findall(r"^\| (WARP-\d{3}) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted((error.code, error.__name__) for error in classes(WarpError))


def test_a_message_shows_its_code_and_place_first() -> None:
    assert str(WarpError("what to do", place="shop.orders")) == "WARP-000 shop.orders: what to do"
