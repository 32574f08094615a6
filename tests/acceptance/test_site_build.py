"""The site as it is built: its links resolve, and a browser asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from warp.testing.browser import Browser

ROOT = Path(__file__).parents[2]
# What a page loads by itself, unlike a link that somebody has to click.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|data)=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*href=[\"']?(?:https?:)?//"
    r"|@import\s*(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//",
    re.IGNORECASE,
)
# Without these the theme's script has nothing to fetch from elsewhere: diagrams, stars, versions.
NOT_USED = re.compile(r"class=[\"'](?:[\w ]*\b)?mermaid\b|data-md-component=[\"']?source\b")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.soak
def test_nothing_that_a_page_loads_is_elsewhere(site: Path) -> None:
    files = [file for kind in ("*.html", "*.css", "*.svg") for file in site.rglob(kind)]
    assert len(files) > 50
    for file in files:
        text = file.read_text()
        assert not LOADED.search(text), f"{file}: {LOADED.findall(text)[:3]}"
        assert file.suffix != ".html" or not NOT_USED.search(text), file


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://unpkg.com/x.js">',
        "<link rel=preconnect href=https://fonts.gstatic.com>",
        "@import url(//cdn.example.org/a.css)",
        "src:url('http://example.org/a.woff')",
    ],
)
def test_what_is_loaded_from_elsewhere_would_be_found(loads: str) -> None:
    assert LOADED.search(loads)
    assert not LOADED.search('<a href="https://example.org"> <script src="assets/a.js">')


@pytest.mark.soak
def test_a_browser_asks_nobody_else(site: Path) -> None:
    with Browser() as browser:
        for page in ("index.html", "concepts.html", "errors.html"):
            browser.open((site / page).as_uri())
            browser.until("document.querySelector('h1') !== null")
        assert browser.requests
        assert not [url for url in browser.requests if not url.startswith(("file:", "data:"))]
