"""The screen: what the fleet does above, who does it and what happened below."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.geometry import Size
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Static

from dashboards.top import columns, dialogs
from dashboards.top.desk import DRAIN, PAUSE, RESUME, Desk, Looks, in_background
from dashboards.top.grid import Grid
from warp.fleet import words
from warp.fleet.lines import ORDERS, Health, Line, chosen
from warp.fleet.picture import Picture
from warp.fleet.view import TableView, WorkerView
from warp.model import SHARED

WIDE: Final = 120  # columns; from here on workers and news stand side by side
_COURSE: Final = 20
_STYLE_OF_NEWS: Final = {"takeover": "yellow", "fenced": "yellow", "error": "red"}


class Seen(Message):
    """A look has come back."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture


class Unseen(Message):
    """A look has failed."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble


class Told(Message):
    """What came of something that was asked for."""

    def __init__(self, text: str, failed: bool) -> None:
        super().__init__()
        self.text, self.failed = text, failed


class Top(App[None]):
    """Live until `q`.  It shows a fleet, and is no part of it: leaving stops nothing."""

    TITLE = "cartridge-warp top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layers: base; }
    #summary { height: 2; padding: 0 1; background: $panel; }
    #units { height: 1fr; }
    #below { height: 10; }
    #workers { height: 5; border-top: solid $primary; border-title-color: $text; }
    #lately { height: 5; border-top: solid $primary; border-title-color: $text; }
    #lately:focus, #workers:focus { border-top: heavy $accent; }
    Grid { scrollbar-size: 1 1; overflow-x: hidden; }
    #lately { scrollbar-size: 1 1; }
    Screen.wide #below { layout: horizontal; height: 14; }
    Screen.wide #workers { height: 100%; width: 62; }
    Screen.wide #lately { height: 100%; width: 1fr; }
    #filter { dock: bottom; height: 1; border: none; padding: 0 1; display: none; }
    #filter.open { display: block; }
    Question, Page, Detail { align: center middle; }
    #question { width: 64; max-width: 95%; height: auto; border: heavy $warning;
      padding: 1 2; background: $surface; }
    #page { width: 110; max-width: 96%; height: auto; max-height: 90%;
      border: heavy $primary; padding: 0 1; background: $surface; }
    #content { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("question_mark", "keys", "keys", key_display="?"),
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("t", "tables", "tables"),
        Binding("p", "pause", "pause"),
        Binding("r", "resume", "resume"),
        Binding("d", "drain", "drain"),
        Binding("escape", "everything", show=False),
    ]

    def __init__(self, desk: Desk, *, every: float = 1.0) -> None:
        super().__init__()
        self.animation_level = "none"  # every frame is bytes on an SSH connection
        self._desk = desk
        self._looks = Looks(
            desk,
            every,
            seen=lambda picture: self._post(Seen(picture)),
            failed=lambda trouble: self._post(Unseen(trouble)),
        )
        self.picture: Picture | None = None
        self._trouble = ""
        self._order = "health"
        self._words = ""
        self._of_tables = False

    def compose(self) -> ComposeResult:
        yield Static(Text("looking…"), id="summary")
        yield Grid[Line](columns.LINES, lambda line: line.key, id="units")
        with Container(id="below"):
            workers = Grid[WorkerView](columns.WORKERS, lambda worker: worker.id, id="workers")
            workers.border_title = "workers"
            yield workers
            with VerticalScroll(id="lately") as lately:
                lately.border_title = "lately"
                yield Static(id="news")
        yield Input(placeholder="words, then Enter", id="filter", compact=True)
        yield Footer(compact=True)

    def on_load(self) -> None:
        if not self.is_headless:
            # Where a shell has exported them, they are asked instead of the terminal, and the
            # screen would keep their size for ever.
            for told in ("COLUMNS", "LINES"):
                os.environ.pop(told, None)

    def on_mount(self) -> None:
        self.unit_grid.focus()
        self._looks.start()

    def on_unmount(self) -> None:
        self._looks.stop()

    def leave(self) -> None:
        """As `q` does, from a signal: the terminal is left as it was."""
        self.call_later(self.exit)

    def on_resize(self, event: events.Resize) -> None:
        self.screen_stack[0].set_class(event.size.width >= WIDE, "wide")

    def _post(self, message: Message) -> None:
        """From another thread; after the end nobody hears it."""
        if self.is_running:
            self.post_message(message)

    # ------------------------------------------------------------ what is seen

    @property
    def unit_grid(self) -> Grid[Line]:
        return self._base("#units")

    @property
    def table_grid(self) -> Grid[TableView]:
        return self._base("#units")

    @property
    def worker_grid(self) -> Grid[WorkerView]:
        return self._base("#workers")

    def _base(self, selector: str) -> Grid:  # type: ignore[type-arg]
        """Of the screen under whatever is open over it."""
        return self.screen_stack[0].query_one(selector, Grid)

    def on_seen(self, message: Seen) -> None:
        if not self.screen_stack:  # it was on its way while the screen was left
            return
        self.picture, self._trouble = message.picture, ""
        self._follow_the_terminal()
        self._draw()
        if isinstance(self.screen, dialogs.Detail):
            self.screen.renew(message.picture)

    def _follow_the_terminal(self) -> None:
        """Take the terminal's size, where nobody told that it has changed.

        Seen once in tmux on a busy machine: the screen stayed at its old size for a minute.
        """
        if self.is_headless:
            return
        size = Size(*shutil.get_terminal_size())  # as textual itself asks when it is told
        if size != self.size:
            self.post_message(events.Resize(size, size))
        elif size != self.screen.size:
            self.screen.post_message(events.Resize(size, size))

    def on_unseen(self, message: Unseen) -> None:
        if not self.screen_stack:
            return
        self._trouble = message.trouble
        self._summarise()

    def _draw(self) -> None:
        picture = self.picture
        if picture is None:
            return
        now = picture.fleet.as_of
        with self.batch_update():
            self._summarise()
            if self._of_tables:
                self.table_grid.show(self._chosen_tables(picture), now)
            else:
                lines = chosen(picture.lines, order=self._order, text=self._words)
                self.unit_grid.show(lines, now)
            self.worker_grid.show(sorted(picture.fleet.workers, key=lambda w: w.id), now)
            news = self.screen_stack[0].query_one("#news", Static)
            news.update(self._news(picture))

    def _chosen_tables(self, picture: Picture) -> list[TableView]:
        wanted = self._words.casefold().split()
        found = [
            table
            for table in picture.fleet.tables
            if all(word in f"{table.table} {table.phase}".casefold() for word in wanted)
        ]
        if self._order == "name":
            return sorted(found, key=lambda table: table.table)
        return sorted(found, key=lambda t: (-t.quarantined - t.deferred, t.table))

    def _summarise(self) -> None:
        summary = self.screen_stack[0].query_one("#summary", Static)
        if self.picture is None:
            summary.update(Text(words.plain(self._trouble) or "looking…", style="red"))
            return
        summary.update(self._summary(self.picture))

    def _summary(self, picture: Picture) -> Text:
        fleet, health = picture.fleet, picture.health
        shown = Text(no_wrap=True, overflow="ellipsis")
        shown.append(words.clock(fleet.as_of) + " UTC  ", style="bold")
        if fleet.caught_up:
            shown.append("caught up", style="green")
        else:
            shown.append("not caught up", style="yellow")
        shown.append(f"  {words.count(picture.rate)} rows/s ")
        shown.append(words.sparkline(picture.history, _COURSE).strip(), style="cyan")
        shown.append(f"  worst lag {words.duration(picture.worst_lag)}\n")
        if self._trouble:
            shown.append(f"old: {words.plain(self._trouble)}", style="bold red")
            return shown
        slots = sum(worker.slots for worker in fleet.workers)
        held = sum(worker.held for worker in fleet.workers)
        shown.append(words.many(len(picture.lines), "unit"))
        for state in (Health.FAILED, Health.LATE, Health.PAUSED, Health.WAITING):
            if health[state]:
                shown.append(f"  {health[state]} {state}", style="bold red" if state in (
                    Health.FAILED, Health.LATE) else "yellow")  # fmt: skip
        workers = words.many(len(fleet.workers), "worker")
        shown.append(f"  {workers}, {held} of {slots} slots")
        shown.append(f"  by {self._order}", style="dim")
        if self._words:
            shown.append(f"  only “{words.plain(self._words)}”", style="bold")
        return shown

    def _news(self, picture: Picture) -> Text:
        shown = Text()
        for one in picture.fleet.news:
            shown.append(words.clock(one.at) + " ", style="dim")
            shown.append(f"{one.sort} ", style=_STYLE_OF_NEWS.get(one.sort, ""))
            shown.append(words.plain(f"{one.subject}: {one.text}") + "\n")
        return shown if shown else Text("nothing in the last day", style="dim")

    # ------------------------------------------------------------ keys

    def action_keys(self) -> None:
        self.push_screen(dialogs.keys())

    def action_sort(self) -> None:
        names = list(ORDERS)
        self._order = names[(names.index(self._order) + 1) % len(names)]
        self._draw()

    def action_tables(self) -> None:
        self._of_tables = not self._of_tables
        if self._of_tables:
            self.table_grid.offer(columns.TABLES, lambda table: f"{table.schema} {table.table}")
        else:
            self.unit_grid.offer(columns.LINES, lambda line: line.key)
        self._draw()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.value = self._words
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter()

    def action_everything(self) -> None:
        self._words = ""
        self._close_filter()
        self._draw()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("open")
        self.unit_grid.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if self.picture is None or event.data_table.id != "units":
            return
        found = self.unit_grid.chosen
        if isinstance(found, Line):
            self.push_screen(dialogs.Detail(found, self.picture))

    def action_pause(self) -> None:
        self._ask_schema(PAUSE, "Its units stop at their place; the source's log must reach back "
                         "to it when the schema is resumed.")  # fmt: skip

    def action_resume(self) -> None:
        self._ask_schema(RESUME, "Its units go on from where they stand.")

    def _ask_schema(self, what: str, told: str) -> None:
        schemas = self._schemas_at_cursor()
        if not schemas:
            self.notify("expected a unit at the cursor", severity="warning")
            return
        name = words.plain(schemas[0])
        asked = f"{what} schema {name}?"
        if len(schemas) > 1:
            others = ", ".join(map(words.plain, schemas[1:]))
            told = f"It shares one stream with {others}, which {what} too. {told}"
        self._confirmed(asked, told, lambda: self._desk.act(what, schemas[0]))

    def _schemas_at_cursor(self) -> list[str]:
        """Of a stream that several share: all of them."""
        at = self.unit_grid.chosen
        if at is None or self.picture is None:
            return []
        if at.schema != SHARED:
            return [at.schema]
        carried = set(at.tables) if isinstance(at, Line) else set()
        return sorted({t.schema for t in self.picture.fleet.tables if t.table in carried})

    def action_drain(self) -> None:
        worker = self.worker_grid.chosen if self.focused is self.worker_grid else None
        if worker is None:
            self.worker_grid.focus()
            self.notify("choose a worker, then d again")
            return
        asked = f"drain worker {words.worker(worker.id, 50)}?"
        units = words.many(worker.held, "unit")
        told = f"It gives {units} to others and takes no more until it is restarted."
        self._confirmed(asked, told, lambda: self._desk.act(DRAIN, worker.id))

    def _confirmed(self, asked: str, told: str, act: Callable[[], str]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                in_background(act, lambda text, failed: self._post_told(text, failed))

        self.push_screen(dialogs.Question(asked, told), answered)

    def _post_told(self, text: str, failed: bool) -> None:
        self._post(Told(text, failed))

    def on_told(self, message: Told) -> None:
        self.notify(
            Text(words.plain(message.text)).markup,
            severity="error" if message.failed else "information",
        )
        self._looks.now()
