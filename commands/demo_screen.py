"""How the demo shows itself: a live screen on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from commands.demo_compare import Comparison
from commands.demo_watch import Look, TableState

Progress = AbstractContextManager[Callable[[int], None]]

_LINE_EVERY: Final = 2.0  # seconds between two lines where there is no terminal


class Screen(Protocol):
    def say(self, text: str, *, loud: bool = False) -> None:
        """Something happened; it stays readable."""
        ...

    def show(self, look: Look) -> None:
        """The present state; the next one replaces it."""
        ...

    def progress(self, title: str, total: int) -> Progress: ...

    def close(self) -> None:
        """Leave the terminal as it was; `open` goes on."""
        ...

    def open(self) -> None: ...


class Lines:
    """For pipes and logs: one line a moment, no control characters."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._last = 0.0

    def say(self, text: str, *, loud: bool = False) -> None:
        seconds = time.monotonic() - self._begun
        self._console.print(f"{seconds:6.1f} s  {text}", markup=False, soft_wrap=True)

    def show(self, look: Look) -> None:
        if time.monotonic() - self._last >= _LINE_EVERY:
            self._last = time.monotonic()
            there = sum(table.destination_rows for table in look.tables)
            wanted = sum(table.source_rows for table in look.tables)
            rate = sum(table.per_second for table in look.tables)
            self.say(
                f"{there:,} of {wanted:,} rows · {rate:,.0f} rows/s · {lag_text(look)} · "
                f"{look.changes:,} changes"
            )

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        self.say(f"{title}: {total:,}")
        yield lambda rows: None

    def close(self) -> None:
        """Nothing is open."""

    def open(self) -> None:
        """Nothing needs to be."""


class LiveScreen:
    """What happened scrolls by above; below it stands what is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self.open()

    def open(self) -> None:
        self._live.start()

    def say(self, text: str, *, loud: bool = False) -> None:
        line = Text(f"{time.monotonic() - self._begun:6.1f} s  ", style="dim")
        line.append(text, style="bold yellow" if loud else "not dim")
        self._live.console.print(line)

    def show(self, look: Look) -> None:
        self._live.update(dashboard(look))

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        bar = bars.Progress(
            bars.TextColumn(title), bars.BarColumn(), bars.MofNCompleteColumn(), auto_refresh=False
        )
        task = bar.add_task(title, total=total)
        self._live.update(bar)
        yield lambda rows: bar.advance(task, rows)
        self._live.update("")

    def close(self) -> None:
        self._live.stop()


def dashboard(look: Look) -> RenderableType:
    table = Table()
    for name in ("table", "MongoDB", "PostgreSQL"):
        table.add_column(name, justify="left" if name == "table" else "right")
    table.add_column("", width=24)
    table.add_column("rows/s", justify="right")
    table.add_column("phase")
    for row in look.tables:
        table.add_row(
            row.name,
            f"{row.source_rows:,}",
            f"{row.destination_rows:,}",
            ProgressBar(total=max(row.source_rows, 1), completed=row.destination_rows, width=24),
            f"{row.per_second:,.0f}",
            _phase(row),
        )
    fleet = Text("")
    for label, state, held in look.workers:
        fleet.append(f"{label} ", style="bold" if state == "running" else "red strike")
        fleet.append(f"{state}, {held} units   " if state == "running" else f"{state}   ")
    facts = Text(f"{look.changes:,} live changes   {lag_text(look)}")
    return Group(table, facts, fleet)


def _phase(row: TableState) -> Text:
    return Text(row.phase, style="green" if row.phase == "streaming" else "yellow")


def lag_text(look: Look) -> str:
    """From MongoDB's acknowledgement to PostgreSQL's commit."""
    if look.lag is None:
        return "lag unknown"
    return f"lag {look.lag:.2f} s (worst {look.worst_lag:.2f} s)"


def report(comparisons: Sequence[Comparison]) -> Table:
    table = Table(title="Every row and every field compared")
    for name in ("table", "MongoDB rows", "PostgreSQL rows", "fields", "differences"):
        table.add_column(name, justify="left" if name == "table" else "right")
    for found in comparisons:
        table.add_row(
            found.table,
            f"{found.source_rows:,}",
            f"{found.destination_rows:,}",
            f"{found.fields:,}",
            Text(f"{found.different:,}", style="red" if found.different else "green"),
        )
    return table
