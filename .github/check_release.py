"""Is this checkout the version that a tag says?  Prints its part of the changelog.

python .github/check_release.py v0.1.0 > notes.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(changelog: str, version: str) -> str:
    """What the changelog says about a version; empty where it has no dated part of its own."""
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$"
    found = re.search(heading + r"\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    return found[1].strip() if found else ""


def mistakes(tag: str, root: Path = ROOT) -> Iterator[str]:
    """Everything that does not say the tag's version."""
    version = tag.removeprefix("v")
    if not re.fullmatch(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?", tag):
        yield f"expected a tag such as v1.2.3 or v1.2.3rc1, found {tag!r}"
    for file, pattern in (
        ("warp/__init__.py", r'^__version__ = "(.*)"$'),
        ("charts/cartridge-warp/Chart.yaml", r"^version: (.*)$"),
        ("charts/cartridge-warp/Chart.yaml", r'^appVersion: "(.*)"$'),
    ):
        found = re.search(pattern, (root / file).read_text(), re.M)
        if found is None or found[1] != version:
            yield f"expected {version} in {file}, found {found[1] if found else 'no version'}"
    if not notes((root / "CHANGELOG.md").read_text(), version):
        yield f"expected a part `## {version} - YYYY-MM-DD` in CHANGELOG.md, found none"


def main() -> int:
    [tag] = sys.argv[1:]
    found = list(mistakes(tag))
    for mistake in found:
        sys.stderr.write(mistake + "\n")
    sys.stdout.write(notes((ROOT / "CHANGELOG.md").read_text(), tag.removeprefix("v")) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
