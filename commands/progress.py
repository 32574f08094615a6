"""How far the first rows have come: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from rich import progress as bars
from rich.console import Console

from warp.model import Marker, Phase, UnitKind

log = structlog.get_logger(__name__)

_LINE_EVERY: Final = 5.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the first rows of all tables of a run."""

    tables: int
    complete: int
    rows: int
    expected: int  # an estimate, of the tables that are cut into chunks so far


def progress_of(markers: Iterable[Marker], *, tables: int, complete: int) -> Progress:
    rows = expected = 0
    for marker in markers:
        if marker.unit.kind is not UnitKind.CHUNK or marker.unit.chunk is None:
            continue
        # The size was an estimate, and a chunk that is read again counts its rows again.
        size = marker.rows if marker.phase is Phase.DONE else marker.unit.chunk.rows
        rows += min(marker.rows, size)
        expected += size
    return Progress(tables, complete, rows, expected)


class Display(Protocol):
    def show(self, progress: Progress) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Lines:
    """For pipes and services: what changed since the last line, as a log line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._line_at = clock() + _LINE_EVERY
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        if self._clock() < self._line_at or progress == self._last:
            return
        self._line_at = self._clock() + _LINE_EVERY
        self._last = progress
        log.info(
            "snapshot_progress",
            rows=progress.rows,
            of_about=progress.expected,
            tables_complete=progress.complete,
            tables=progress.tables,
        )

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """For people: one line that stays in place, then none."""

    def __init__(self, console: Console) -> None:
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.completed:,} of about {task.total:,} rows"),
            bars.TextColumn("{task.fields[complete]} of {task.fields[tables]} tables"),
            bars.TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: bars.TaskID | None = None

    def show(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._bar.add_task("", total=0, complete=0, tables=0)
            self._bar.start()
        following = progress.complete == progress.tables
        self._bar.update(
            self._task,
            description="following the log" if following else "first rows",
            completed=progress.rows,
            total=progress.expected,
            complete=progress.complete,
            tables=progress.tables,
        )

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def waiting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much of something is done, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with bars.Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
