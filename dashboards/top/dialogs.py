"""What opens over the screen: a question, the keys, one unit in full."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from warp import headroom
from warp.fleet import words
from warp.fleet.lines import Line
from warp.fleet.picture import Picture

_MOST_CHUNKS = 200
_KEYS = (
    ("↑ ↓  j k  PgUp PgDn", "move"),
    ("Tab", "from the units to the workers and on to what happened lately"),
    ("Enter", "open what the cursor stands on"),
    ("t", "tables instead of units, and back"),
    ("s", "sort by another column: name, health, lag, rows/s, progress, quarantine"),
    ("/", "show only what has these words in it; Esc shows everything again"),
    ("p", "pause the schema at the cursor: its units stop at their place"),
    ("r", "resume it"),
    ("d", "drain the worker at the cursor: it gives its units back and takes no more"),
    ("?", "this"),
    ("q", "leave; the fleet goes on"),
)
_SIGNS = "● works   · waits for a worker   ! late   ‖ paused   ✗ stopped until a person acts"


class Question(ModalScreen[bool]):
    """Yes or no; anything but yes is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q,enter", "answer(False)", "no"),
    ]

    def __init__(self, asked: str, told: str) -> None:
        super().__init__()
        self._asked, self._told = asked, told

    def compose(self) -> ComposeResult:
        with Vertical(id="question"):
            yield Static(Text(self._asked, style="bold"))
            yield Static(Text(self._told))
            yield Static(Text("\ny  yes      n  no", style="bold"))

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Page(ModalScreen[None]):
    """Something to read, as long as it likes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "close", "close"),
    ]

    def __init__(self, title: str, content: RenderableType) -> None:
        super().__init__()
        self._title, self._content = title, content

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page") as box:
            box.border_title = Text(self._title).markup
            box.border_subtitle = "Esc closes"
            yield Static(self._content, id="content")

    def show(self, content: RenderableType) -> None:
        """The same page, a look later."""
        self.query_one("#content", Static).update(content)

    def action_close(self) -> None:
        self.dismiss(None)


def keys() -> Page:
    table = Table.grid(padding=(0, 2))
    for key, meaning in _KEYS:
        table.add_row(Text(key, style="bold"), Text(meaning))
    return Page("keys", Group(table, "", Text(_SIGNS)))


class Detail(Page):
    """One line in full, renewed with every look."""

    def __init__(self, line: Line, picture: Picture) -> None:
        super().__init__(words.plain(line.key), details(line, picture))
        self._key = line.key

    def renew(self, picture: Picture) -> None:
        for line in picture.lines:
            if line.key == self._key:
                self.show(details(line, picture))
                return
        self.show(Text("it is done, or nobody plans it any more"))


def details(line: Line, picture: Picture) -> RenderableType:
    """All that is known about a line.  Pure."""
    fleet = picture.fleet
    facts = Table.grid(padding=(0, 2))

    def fact(name: str, said: str) -> None:
        facts.add_row(Text(name, style="dim"), Text(said))

    fact("is", f"{line.health}, {line.phase}, in the ledger {line.state}")
    fact("owner", "\n".join(map(words.plain, line.owners)) or words.NOTHING)
    fact("fence", str(line.fence))
    fact("rows", f"{line.rows:,}, {words.count(line.rate)} a second")
    if line.progress is not None:
        left = f", {words.duration(line.eta)} left" if line.eta is not None else ""
        of = f" of about {line.expected:,} rows" if line.expected else ""
        fact("snapshot", f"{words.bar(line.progress, 20)} {words.percent(line.progress)}{of}{left}")
    if line.lag is not None:
        fact("lag", words.duration(line.lag))
    fact("log left", headroom.short(line.headroom) if line.headroom else "-")
    fact("quarantine", f"{line.quarantined:,} rows; {line.deferred:,} wait for others")
    fact("verified", words.verified(line.verified_at, line.differences, fleet.as_of))
    if line.slot:
        fact("last slot", words.moment(line.slot))
    if line.tries:
        fact("failures in a row", str(line.tries))
    if line.position:
        fact("position", words.plain(line.position))
    return Group(facts, *_chunks(line), *_tables(line, picture), *_lately(line, picture))


def _chunks(line: Line) -> list[RenderableType]:
    at_work = [unit for unit in line.units if unit.owner and len(line.units) > 1]
    if not at_work:
        return []
    table = Table.grid(padding=(0, 2))
    for unit in at_work[:_MOST_CHUNKS]:
        of = f" of about {unit.expected:,}" if unit.expected else ""
        table.add_row(
            words.plain(unit.id),
            Text(words.worker(unit.owner)),
            Text(f"{unit.rows:,}{of} rows"),
            Text(f"fence {unit.fence}"),
        )
    return ["", Text("chunks at work", style="bold"), table]


def _tables(line: Line, picture: Picture) -> list[RenderableType]:
    wanted = set(line.tables)
    table = Table.grid(padding=(0, 2))
    for found in picture.fleet.tables:
        if found.table in wanted:
            verified = words.verified(found.verified_at, found.differences, picture.fleet.as_of)
            table.add_row(
                Text(words.plain(str(found.table))),
                Text(found.phase),
                Text(f"{found.quarantined:,} aside"),
                Text(f"{found.deferred:,} wait"),
                Text(f"verified {verified}"),
            )
    return ["", Text("tables", style="bold"), table] if table.row_count else []


def _lately(line: Line, picture: Picture) -> list[RenderableType]:
    about = {line.key, *(unit.id for unit in line.units), *map(str, line.tables)}
    told = [one for one in picture.fleet.news if one.subject in about]
    if not told:
        return []
    said = [Text(words.plain(f"{words.moment(one.at)} {one.sort}: {one.text}")) for one in told]
    return ["", Text("lately", style="bold"), *said]
