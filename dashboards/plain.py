"""The fleet as text: what `status` prints, and `top` where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from warp import headroom
from warp.fleet import words
from warp.fleet.lines import Health, Line, lines_of
from warp.fleet.news import News
from warp.fleet.picture import Picture
from warp.fleet.view import FleetView, WorkerView

STYLES: Final = {
    Health.FAILED: "bold red",
    Health.LATE: "red",
    Health.PAUSED: "yellow",
    Health.WAITING: "yellow",
    Health.WELL: "",
}
WIDTH: Final = 250  # where stdout is no terminal
_LONGEST: Final = 40  # of a position, which may be a token of hundreds of characters
_MOST_NEWS: Final = 10


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the text: only shown where some line has something to say in it."""

    heading: str
    cell: Callable[[Line, float], str]
    right: bool = False
    always: bool = True


def _owner(line: Line) -> str:
    if len(line.owners) > 1:
        return f"{len(line.owners)} workers"
    return words.plain(line.owners[0]) if line.owners else "-"


def _phase(line: Line) -> str:
    if line.progress is not None:
        return f"{line.phase} {words.percent(line.progress)}"
    return line.phase


_COLUMNS: Final = (
    Column("unit", lambda line, now: words.plain(line.key)),
    Column("phase", lambda line, now: _phase(line)),
    Column("state", lambda line, now: line.state),
    Column("owner", lambda line, now: _owner(line)),
    Column("fence", lambda line, now: str(line.fence), right=True),
    Column("rows", lambda line, now: f"{line.rows:,}", right=True),
    Column(
        "rows/s",
        lambda line, now: "" if line.rate is None else words.count(line.rate),
        right=True,
        always=False,
    ),
    Column(
        "left", lambda line, now: words.duration(line.eta) if line.eta else "", True, always=False
    ),
    Column("lag", lambda line, now: "" if line.lag is None else f"{line.lag:.1f} s", right=True),
    Column(
        "log left",
        lambda line, now: "" if line.headroom is None else headroom.short(line.headroom),
        right=True,
        always=False,
    ),
    Column(
        "verified",
        lambda line, now: (
            ""
            if line.verified_at is None and not line.differences
            else words.verified(line.verified_at, line.differences, now)
        ),
        always=False,
    ),
    Column(
        "last slot",
        lambda line, now: "" if line.slot is None else words.moment(line.slot),
        always=False,
    ),
    Column("position", lambda line, now: words.plain(line.position or "-", _LONGEST)),
)


def of_fleet(fleet: FleetView) -> Group:
    """One look, for people."""
    if not fleet.units and not fleet.workers:
        return Group("nothing has run yet")
    return _group(fleet, lines_of(fleet), ())


def of_picture(picture: Picture) -> Group:
    """A look with rates and with what has happened lately."""
    moment = Text(words.clock(picture.fleet.as_of) + " UTC", style="bold")
    if not picture.fleet.units and not picture.fleet.workers:
        return Group(moment, "nothing has run yet")
    return Group(moment, _group(picture.fleet, picture.lines, picture.fleet.news[:_MOST_NEWS]))


def console() -> Console:
    """On stdout: as wide as the terminal, or wide enough for a file."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(width=WIDTH, highlight=False)


def _group(fleet: FleetView, lines: Sequence[Line], news: Sequence[News]) -> Group:
    parts: list[RenderableType] = [_units(lines, fleet.as_of), "", _workers(fleet.workers), ""]
    tables = {str(table.table): table for table in fleet.tables}
    aside = [f"{t.quarantined:,} of {words.plain(n)}" for n, t in tables.items() if t.quarantined]
    if aside:
        parts.append(Text(f"rows in quarantine: {', '.join(aside)}", style="yellow"))
    waiting = [f"{t.deferred:,} of {words.plain(n)}" for n, t in tables.items() if t.deferred]
    if waiting:
        parts.append(Text(f"rows that wait for others: {', '.join(waiting)}", style="yellow"))
    for one in news:
        said = f"{words.clock(one.at)} {one.sort}: {one.subject}: {one.text}"
        parts.append(Text(words.plain(said), style="dim"))
    if fleet.caught_up:
        return Group(*parts, Text("caught up", style="green"))
    return Group(*parts, Text("not caught up", style="yellow"))


def _units(lines: Sequence[Line], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [c for c in _COLUMNS if c.always or any(c.cell(line, now) for line in lines)]
    for column in shown:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=column.heading in ("position", "last slot"),
        )
    for line in lines:
        style = STYLES[line.health]
        table.add_row(
            *(
                Text(c.cell(line, now), style=style if c.heading in ("phase", "state") else "")
                for c in shown
            )
        )
    return table


def _workers(workers: Sequence[WorkerView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("worker")
    table.add_column("held", justify="right")
    table.add_column("slots", justify="right")
    for worker in workers:
        slots = "drains" if worker.draining else str(worker.slots)
        table.add_row(Text(words.plain(worker.id)), str(worker.held), slots)
    return table
