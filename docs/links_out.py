"""A hook of mkdocs: links from a page to files beside docs/ lead to the repository.

On GitHub they work as they stand; the site has only what is below docs/.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

LINK: Final = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def outside(page: str, target: str) -> str | None:
    """Where a link of a page leads in the repository, if not to something below docs/."""
    if "://" in target or target.startswith(("#", "mailto:")):
        return None
    path, sign, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
    return None if place.startswith("docs/") else place + sign + anchor


def on_page_markdown(markdown: str, *, page: Any, config: Any, **more: Any) -> str:
    def lead_out(found: re.Match[str]) -> str:
        place = outside(page.file.src_uri, found[1])
        return found[1] if place is None else f"{config.extra['repository']}/blob/main/{place}"

    return LINK.sub(lead_out, markdown)
