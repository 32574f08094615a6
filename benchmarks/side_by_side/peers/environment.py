"""A peer's own virtual environment, kept in the user's cache: never ours, and made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIMIT: Final = 900.0  # seconds to download and install
_DONE: Final = ".installed"


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    requirements: tuple[str, ...]  # the first is the peer itself

    @property
    def version(self) -> str:
        return self.requirements[0].partition("==")[2]

    @property
    def folder(self) -> Path:
        wanted = " ".join((*self.requirements, *map(str, sys.version_info[:2])))
        mark = hashlib.sha256(wanted.encode()).hexdigest()[:8]
        return _cache() / f"{self.name}-{self.version}-{mark}"

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def packages(self) -> Path:
        major, minor = sys.version_info[:2]
        return self.folder / f"lib/python{major}.{minor}/site-packages"

    def install(self) -> str:
        """Why it cannot be installed; nothing where it is."""
        if (self.folder / _DONE).exists():
            return ""
        print(f"installing {self.requirements[0]} into {self.folder}", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            venv.create(self.folder, with_pip=True)
            said = subprocess.run(
                [self.python, "-m", "pip", "install", "--quiet", *self.requirements],
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"{type(error).__name__}: {error}"
        if said.returncode:
            errors = [line for line in said.stderr.splitlines() if line.startswith("ERROR")]
            return (errors or said.stderr.splitlines() or ["pip failed"])[-1]
        (self.folder / _DONE).touch()
        return ""


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return root / "cartridge-warp/peers"
