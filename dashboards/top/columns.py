"""Which columns fit into a terminal, and what stands in them.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rich.text import Text

from dashboards.plain import STYLES
from warp import headroom
from warp.fleet import words
from warp.fleet.lines import Health, Line
from warp.fleet.view import TableView, WorkerView

Row = TypeVar("Row")

# Told apart without colour too.
SIGNS: Final = {
    Health.FAILED: "✗",
    Health.LATE: "!",
    Health.PAUSED: "‖",
    Health.WAITING: "·",
    Health.WELL: "●",
}
_BAR: Final = 5
_WELL: Final = {Health.WELL: "green"}
_ENDING: Final = {headroom.State.LOW: "yellow", headroom.State.LOST: "bold red"}


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    heading: str
    width: int
    cell: Callable[[Row, float, int], Text]  # of a row, at a time, as wide as that at most
    rank: int = 0  # the higher, the earlier it gives way
    right: bool = False
    grows: bool = False  # takes the room that is left, up to its `most`
    most: int = 60


def fitting(columns: Iterable[Column[Row]], width: int) -> list[Column[Row]]:
    """Those that fit, in their order, the growing one as wide as there is room."""
    chosen: list[Column[Row]] = []
    left = width
    for column in sorted(columns, key=lambda c: c.rank):  # stable: equal ranks in their order
        if column.width + 1 <= left or column.rank == 0:
            chosen.append(column)
            left -= column.width + 1
        else:
            break
    ordered = [column for column in columns if column in chosen]
    return [
        Column(
            c.heading,
            min(c.most, c.width + max(0, left)),
            c.cell,
            c.rank,
            c.right,
            c.grows,
            c.most,
        )
        if c.grows
        else c
        for c in ordered
    ]


def cells(columns: Sequence[Column[Row]], row: Row, now: float) -> list[Text]:
    """Each as wide as its column, so that a cell that changes moves nothing beside it."""
    shown = []
    for column in columns:
        cell = column.cell(row, now, column.width)
        cell.truncate(column.width, overflow="ellipsis")
        cell.align("right" if column.right else "left", column.width)
        shown.append(cell)
    return shown


def headings(columns: Sequence[Column[Row]]) -> list[Text]:
    shown = []
    for column in columns:
        heading = Text(column.heading)
        heading.align("right" if column.right else "left", column.width)
        shown.append(heading)
    return shown


# ---------------------------------------------------------------- units


def _is(line: Line, now: float, width: int) -> Text:
    health = line.health
    word = line.phase if health is Health.WELL else health.value
    return Text(f"{SIGNS[health]} {word}", style=STYLES[health] or _WELL.get(health, ""))


def _going(line: Line, now: float, width: int) -> Text:
    """How far a snapshot is and how long it takes still; the course of everything else."""
    if line.progress is None:
        return Text(words.sparkline(line.history, width), style="cyan")
    shown = Text(words.bar(line.progress, _BAR), style="cyan")
    shown.append(f" {words.percent(line.progress)}", style="default")
    if line.eta is not None and line.progress < 1:
        shown.append(f" {words.duration(line.eta)}", style="bold default")
    return shown


def _owner(line: Line, now: float, width: int) -> Text:
    if len(line.owners) > 1:
        return Text(f"{len(line.owners)} workers")
    return Text(words.worker(line.owners[0], width) if line.owners else words.NOTHING)


def _lag(line: Line, now: float, width: int) -> Text:
    return Text(
        words.duration(line.lag), style=STYLES[Health.LATE] if line.health is Health.LATE else ""
    )


def _verified(line: Line, now: float, width: int) -> Text:
    style = "bold red" if line.differences else ""
    return Text(words.verified(line.verified_at, line.differences, now), style=style)


def _room(line: Line, now: float, width: int) -> Text:
    """How long, or how much, its source still keeps."""
    if line.headroom is None:
        return Text(words.NOTHING)
    style = _ENDING.get(headroom.state_of(line.headroom), "")
    return Text(headroom.short(line.headroom), style=style)


def _aside(number: int) -> Text:
    return Text(words.count(number), style="yellow" if number else "dim")


LINES: Final[tuple[Column[Line], ...]] = (
    Column("unit", 18, lambda x, now, w: Text(words.short(x.key, w)), grows=True),
    Column("is", 11, _is),
    Column("state", 7, lambda x, now, w: Text(x.state), 4),
    Column("owner", 10, _owner),
    Column("fence", 16, lambda x, now, w: Text(str(x.fence)), 1, True),
    Column("going", 16, _going),
    Column("rows", 7, lambda x, now, w: Text(words.count(x.rows)), 6, True),
    Column("rows/s", 6, lambda x, now, w: Text(words.count(x.rate)), 0, True),
    Column("lag", 6, _lag, 0, True),
    Column("room", 7, _room, 2, True),
    Column("aside", 5, lambda x, now, w: _aside(x.quarantined), 0, True),
    Column("wait", 5, lambda x, now, w: _aside(x.deferred), 5, True),
    Column("verified", 10, _verified, 3),
)


# ---------------------------------------------------------------- tables and workers


def _chunks(table: TableView, now: float, width: int) -> Text:
    if not table.chunks:
        return Text(words.NOTHING)
    return Text(f"{table.chunks_done}/{table.chunks}")


def _compared(table: TableView, now: float, width: int) -> Text:
    style = "bold red" if table.differences else ""
    return Text(words.verified(table.verified_at, table.differences, now), style=style)


TABLES: Final[tuple[Column[TableView], ...]] = (
    Column("table", 24, lambda x, now, w: Text(words.short(str(x.table), w)), grows=True),
    Column("schema", 14, lambda x, now, w: Text(words.short(x.schema, w))),
    Column("phase", 9, lambda x, now, w: Text(x.phase.value)),
    Column("chunks", 9, _chunks, 0, True),
    Column("aside", 5, lambda x, now, w: _aside(x.quarantined), 0, True),
    Column("wait", 5, lambda x, now, w: _aside(x.deferred), 0, True),
    Column("verified", 10, _compared, 1),
    Column("epoch", 5, lambda x, now, w: Text(str(x.epoch)), 2, True),
)


def _slots(worker: WorkerView, now: float, width: int) -> Text:
    if worker.draining:
        return Text(f"{worker.held} drains", style="yellow")
    return Text(f"{worker.held}/{worker.slots}")


def _heard(worker: WorkerView, now: float, width: int) -> Text:
    if worker.heard_ago is None:
        return Text(words.NOTHING)
    # Past two thirds of its time: the heartbeat comes each third.
    silent = worker.alive_for < worker.heard_ago / 2
    return Text(words.duration(worker.heard_ago), style="red" if silent else "")


WORKERS: Final[tuple[Column[WorkerView], ...]] = (
    Column("worker", 20, lambda x, now, w: Text(words.worker(x.id, w)), grows=True, most=44),
    Column("units/slots", 11, _slots, 0, True),
    Column("heard", 6, _heard, 0, True),
    Column("memory", 9, lambda x, now, w: Text(words.size(x.memory)), 0, True),
)
