"""A table that is brought up to date in place: what did not change is not drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from dashboards.top.columns import Column, cells, fitting, headings

Row = TypeVar("Row")


class Grid(DataTable[Text], Generic[Row]):
    """Rows of one sort, by a key that is the same in every look.

    The cursor stays at its row when rows come, go or change places.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "scroll_top", show=False),
        Binding("G", "scroll_bottom", show=False),
    ]

    def __init__(
        self, columns: Sequence[Column[Row]], key: Callable[[Row], str], **more: Any
    ) -> None:
        super().__init__(cursor_type="row", cell_padding=0, zebra_stripes=False, **more)
        self._all = columns
        self._key = key
        self._shown: list[Column[Row]] = []
        self._rows: list[Row] = []
        self._texts: dict[str, list[Text]] = {}
        self._now = 0.0

    def show(self, rows: Sequence[Row], now: float) -> None:
        self._rows, self._now = list(rows), now
        self._renew()

    def offer(self, columns: Sequence[Column[Row]], key: Callable[[Row], str]) -> None:
        """Show rows of another sort from now on."""
        self._all, self._key, self._rows, self._shown = columns, key, [], []

    @property
    def chosen(self) -> Row | None:
        """The row at the cursor."""
        place = self.cursor_row
        return self._rows[place] if 0 <= place < len(self._rows) else None

    def on_resize(self, event: events.Resize) -> None:
        self._renew()

    def _renew(self) -> None:
        width = self.size.width
        if width < 2:
            return
        columns = fitting(self._all, width - 1)  # one for the scroll bar
        texts = {self._key(row): cells(columns, row, self._now) for row in self._rows}
        same_columns = [(c.heading, c.width) for c in columns] == [
            (c.heading, c.width) for c in self._shown
        ]
        if same_columns and list(texts) == list(self._texts):
            self._update(texts)
        else:
            self._replace(columns, texts)
        self._texts = texts

    def _update(self, texts: dict[str, list[Text]]) -> None:
        for key, row in texts.items():
            for place, (before, after) in enumerate(zip(self._texts[key], row, strict=True)):
                if before != after:
                    self.update_cell(key, str(place), after)

    def _replace(self, columns: list[Column[Row]], texts: dict[str, list[Text]]) -> None:
        keys = list(self._texts)
        place = self.cursor_row
        at = keys[place] if 0 <= place < len(keys) else None
        top = self.scroll_offset.y
        with self.app.batch_update():
            self.clear(columns=True)
            for number, (column, heading) in enumerate(
                zip(columns, headings(columns), strict=True)
            ):
                # A column is as wide as its cells, and one more to keep them apart.
                self.add_column(heading, width=column.width + 1, key=str(number))
            for key, row in texts.items():
                self.add_row(*row, key=key)
            if at in texts:
                self.move_cursor(row=self.get_row_index(at), animate=False)
            elif texts:
                self.move_cursor(row=min(max(place, 0), len(texts) - 1), animate=False)
            self.scroll_to(y=top, animate=False)
        self._shown = columns
