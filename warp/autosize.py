"""`auto` batch sizes: as many rows as the last batch showed to be right.

A batch is what its source has ready now, up to a number of rows.  That number grows while there is
more ready than it lets through, and shrinks where a transaction takes too long: for whoever waits
for the newest row where everything ready was in it, for whoever waits for a lock where a backlog
is worked off.  How many bytes a batch may have is no matter of speed and does not change
(guarantee 9).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from warp.interfaces import DestinationTraits
from warp.model import TableId, TableSelection, TableSettings, UnitKind
from warp.streams import schemas_of

# A few rows cost as much as a hundred.
LEAST: Final = 100

USUAL: Final = DestinationTraits()

_DEFAULTS: Final = TableSettings(TableId("", ""), TableId("", ""), "")


def next_size(
    size: int,
    rows: int,
    seconds: float,
    *,
    backlog: bool,
    traits: DestinationTraits = USUAL,
) -> int:
    """How many rows the next batch may have, after one of `rows` that took `seconds` to write.

    Half or twice the size at most, so that one slow transaction does not say much.
    """
    aim = traits.backlog_seconds if backlog else traits.prompt_seconds
    fitting = int(rows * aim / max(seconds, 1e-6))
    if seconds > aim:
        wanted = min(size, max(size // 2, fitting))
    elif backlog:
        wanted = max(size, min(size * 2, fitting))
    else:
        wanted = size
    return min(traits.most_rows, max(LEAST, wanted))


class AutoSized:
    """A selection as one unit's turn sees it: an `auto` size is what it is at this moment.

    The source asks it for each batch, in its thread, while `committed` is told in another one.
    """

    def __init__(self, selection: TableSelection, kind: UnitKind) -> None:
        self.namespace = getattr(selection, "namespace", None)
        self.schemas = schemas_of(selection)
        self._selection = selection
        self._is_stream = kind is UnitKind.STREAM  # whatever else is read is a backlog
        self._size = (
            _DEFAULTS.full_load_batch_size if kind is UnitKind.CHUNK else _DEFAULTS.write_batch_size
        )
        self._known: dict[TableId, TableSettings | None] = {}
        self._traits = USUAL

    @property
    def traits(self) -> DestinationTraits:
        """Of the destination, once it is known."""
        return self._traits

    @traits.setter
    def traits(self, traits: DestinationTraits) -> None:
        self._traits = traits
        if traits.sizes_batches:  # a poll's size stays what it begins with
            self._size = max(self._size, traits.best_batch_rows)
            self._known = {}

    @property
    def size(self) -> int:
        return self._size

    def __call__(self, table: TableId) -> TableSettings | None:
        known, size = self._known, self._size  # both as they are now
        try:
            return known[table]
        except KeyError:
            settings = self._selection(table)
            if settings is not None and settings.auto_sizes:
                sizes: dict[str, Any] = dict.fromkeys(settings.auto_sizes, size)
                settings = replace(settings, **sizes)
            known[table] = settings
            return settings

    def committed(self, rows: int, seconds: float) -> None:
        """A batch was written."""
        backlog = not self._is_stream or rows >= self._size
        size = next_size(self._size, rows, seconds, backlog=backlog, traits=self._traits)
        if size != self._size:
            # In this order: what was found for the old size must not be kept for the new one.
            self._size = size
            self._known = {}
