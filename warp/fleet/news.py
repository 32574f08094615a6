"""What has happened lately: takeovers, writes that a fence refused, errors.  Pure.

Two places know it: runs that their worker could not end (`sync_runs`), and the error log.  Who came
after it, the ledger tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from warp.model import CutShort, ErrorLine, LeasedUnit

MOST: Final = 200  # kept and shown


class Sort(StrEnum):
    TAKEOVER = "takeover"  # a unit's owner was gone, and another has it
    FENCED = "fenced"  # a superseded worker's write was refused: no harm done (guarantee 2)
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened."""

    at: float  # Unix seconds
    sort: Sort
    subject: str  # the unit or table it is about
    text: str

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.sort, self.subject, self.text)


def of_runs(runs: Iterable[CutShort], owners: Mapping[str, LeasedUnit]) -> Iterable[News]:
    """`owners` are the leases of now, by unit: who came after."""
    for run in runs:
        if run.status == "abandoned":
            text = f"{run.worker} (fence {run.fence}) was gone"
            now = owners.get(run.unit)
            if now is not None and now.owner and now.fence > run.fence:
                text += f"; {now.owner} has it (fence {now.fence})"
            yield News(run.ended_at, Sort.TAKEOVER, run.unit, text)
        else:
            told = f": {run.error}" if run.error else ""
            text = f"{run.worker} (fence {run.fence}) was superseded{told}"
            yield News(run.ended_at, Sort.FENCED, run.unit, text)


def of_errors(lines: Iterable[ErrorLine]) -> Iterable[News]:
    """Findings about single cells are counted elsewhere, and would drown what stops a unit."""
    for line in lines:
        if line.cells is None:
            subject = line.unit or (str(line.table) if line.table else line.schema)
            action = f" ({line.action})" if line.action else ""
            yield News(line.last_at, Sort.ERROR, subject, f"{line.code} {line.message}{action}")


def latest(parts: Iterable[Iterable[News]], most: int = MOST) -> tuple[News, ...]:
    """All of it, the latest first, each thing once."""
    found: dict[tuple[str, str, str], News] = {}
    for one in sorted((one for part in parts for one in part), key=lambda one: -one.at):
        found.setdefault(one.identity, one)
    return tuple(found.values())[:most]
