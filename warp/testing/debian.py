"""Programs of Debian that tests use: a terminal, a browser, a model checker; never installed by us.

The system's own is taken, else Debian's package and what it needs here, unpacked into a cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warp.errors import StartFailed
from warp.testing.servers import _debian_cache, _unpack_debian

BROWSERS: Final = ("chromium", "chromium-headless-shell", "google-chrome", "chromium-browser")


@dataclass(frozen=True, slots=True)
class Program:
    path: Path
    environment: Mapping[str, str]  # whole, as a process gets it


def tmux() -> Program:
    return _program(("tmux",), "tmux", "usr/bin/tmux", "CARTRIDGE_WARP_TEST_TMUX")


def chromium() -> Program:
    """Chromium or Chrome, of whatever version."""
    package = "chromium-headless-shell"
    path = "usr/lib/chromium/chromium-headless-shell"
    return _program(BROWSERS, package, path, "CARTRIDGE_WARP_TEST_CHROMIUM")


def spin() -> Program:
    """The model checker; it wants a compiler of C beside it."""
    return _program(("spin",), "spin", "usr/bin/spin", "CARTRIDGE_WARP_TEST_SPIN")


def _program(names: Sequence[str], package: str, path: str, variable: str) -> Program:
    given = os.environ.get(variable)
    if given:
        return Program(Path(given), os.environ)
    for name in names:
        if (system := shutil.which(name)) is not None:
            return Program(Path(system), os.environ)
    root = _debian_cache() / package
    if not root.exists():
        _unpack_debian(root, _missing(package))
    libraries = [*root.glob("usr/lib/*-linux-*"), *root.glob("usr/lib/*-linux-*/pulseaudio")]
    found = ":".join(map(str, libraries))
    return Program(root / path, {**os.environ, "LD_LIBRARY_PATH": found})


def _missing(package: str) -> list[str]:
    """The package first, then what it needs and this machine has not."""
    found = _simulated(package, ())
    if found is None:
        with tempfile.TemporaryDirectory() as place:  # a fresh machine has no lists of packages
            own = (
                *("-o", f"Dir::State::Lists={place}/lists", "-o", f"Dir::Cache={place}/cache"),
                *("-o", "Debug::NoLocking=true"),
            )
            (Path(place) / "lists/partial").mkdir(parents=True)
            (Path(place) / "cache/archives/partial").mkdir(parents=True)
            _apt_get([*own, "update"])
            found = _simulated(package, own)
    if found is None:
        raise StartFailed(
            f"expected {package} on this system, or Debian's apt-get to know it; found neither; "
            f"install {package}, or name one of yours (see warp/testing/debian.py)"
        )
    return [package, *(name for name in found if name != package)]


def _simulated(package: str, options: Sequence[str]) -> list[str] | None:
    if shutil.which("apt-get") is None:
        return None
    said = _apt_get([*options, "--simulate", "--no-install-recommends", "install", package])
    if said.returncode != 0:
        return None
    return re.findall(r"^Inst (\S+)", said.stdout, re.MULTILINE)


def _apt_get(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", *arguments], capture_output=True, text=True, check=False)
