"""What a worker process tells the outside: progress of its units, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from warp.autosize import AutoSized
from warp.model import ChangeBatch, Finding, SchemaChange, TableSelection, WorkUnit, Written
from warp.pipeline import Meter
from workers.hold import Held


class Probe(Protocol):
    """What happens to units in this process; `warp.metrics.Meters` is one."""

    def meter(self, unit: WorkUnit, selection: TableSelection) -> Meter:
        """The unit begins to work; the selection knows which schema each table is of."""
        ...

    def error(self, unit: WorkUnit, error: Exception) -> None:
        """A failure of any sort."""
        ...

    def stopped(self, unit: WorkUnit) -> None:
        """Nobody works on it until a person acts."""
        ...

    def fenced(self, unit: WorkUnit) -> None:
        """The destination refused its fence."""
        ...

    def over(self, unit: WorkUnit) -> None:
        """This process does not hold it any more."""
        ...


class UnitMeter:
    """The meter of one unit: passes everything on, and keeps what the worker itself decides by."""

    def __init__(
        self, inner: Meter, held: Held, works: Callable[[], None], selection: AutoSized
    ) -> None:
        self._inner = inner
        self._held = held
        self._works = works  # called at each sign that the unit gets on
        self._selection = selection

    def committed(self, batch: ChangeBatch, written: Written) -> None:
        self._held.rows += sum(written.counts.values())
        self._works()
        self._selection.committed(len(batch), written.seconds)
        self._inner.committed(batch, written)

    def caught_up(self) -> None:
        self._works()
        self._inner.caught_up()

    def evolved(self, changes: Iterable[SchemaChange]) -> None:
        self._inner.evolved(changes)

    def found(self, findings: Sequence[Finding]) -> None:
        self._inner.found(findings)
