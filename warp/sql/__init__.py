"""The project's SQL, one statement per named file, with its reason in a head comment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Migration:
    """One forward step of a metadata schema."""

    version: int
    name: str
    text: str


@cache
def load(dialect: str, name: str) -> str:
    """The statement in `warp/sql/{dialect}/{name}.sql`, without its comments."""
    return _bare(files(__name__).joinpath(dialect, f"{name}.sql").read_text("utf-8"))


@cache
def migrations(dialect: str) -> tuple[Migration, ...]:
    """The numbered files of `warp/sql/{dialect}/migrations`, in order, without a gap."""
    found = []
    for file in files(__name__).joinpath(dialect, "migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            text = _bare(file.read_text("utf-8"))
            found.append(Migration(int(match[1]), match[2], text))
    found.sort(key=lambda step: step.version)
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations of {dialect} have a gap: {[s.version for s in found]}")
    return tuple(found)


def _bare(text: str) -> str:
    # Comments are for readers of the file; drivers would look for placeholders in them.
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(line for line in lines if line.strip())
