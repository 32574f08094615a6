"""Tables without a key: read whole again and again, and each run takes the place of the last.

No change can find its row there, so rows are only ever added.  Those of a run under way are hidden
as tombstones are (`_cw_deleted`); its last transaction removes the rows of the run before and
shows its own, so a reader sees one run or the other, never a mixture.  A run that was cut short is
forgotten when its unit is adopted again, so none of its rows stays (guarantee 7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from warp.destinations.sql.session import Session
from warp.errors import DestinationRefused
from warp.model import Marker, Phase, TableId, TableSelection, TableSettings, UnitKind, WorkUnit

S = TypeVar("S", bound=Session)


class Keyless(ABC, Generic[S]):
    def __init__(self, session: S, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection

    @abstractmethod
    def is_keyless(self, settings: TableSettings) -> bool: ...

    @abstractmethod
    def forget(self, settings: TableSettings) -> None:
        """Rows of a run that was cut short."""

    @abstractmethod
    def reveal(self, place: TableId) -> None:
        """The run is whole: its rows take the place of those there were."""

    @abstractmethod
    def _hides_rows(self, settings: TableSettings) -> bool: ...

    def begin(self, unit: WorkUnit) -> None:
        """Before a run of this unit."""
        if settings := self._read_whole(unit):
            self.forget(settings)

    def end(self, marker: Marker) -> None:
        """In the last transaction of a run, which leaves this marker."""
        settings = self._read_whole(marker.unit)
        if settings is None:
            return
        if marker.phase is Phase.DONE:
            self.reveal(settings.destination)
        elif self._hides_rows(settings):
            # A capture that brings only what has changed would leave them so.
            raise DestinationRefused(
                f"expected {settings.table}, which has no key, to be read whole by each poll, "
                "found rows that were picked out; give it a key, or capture it by a full "
                "comparison",
                place=str(settings.destination),
            )

    def _read_whole(self, unit: WorkUnit) -> TableSettings | None:
        """The table that a chunk or poll reads whole, because it has no key."""
        if unit.table is None or unit.kind not in (UnitKind.CHUNK, UnitKind.POLL):
            return None
        settings = self._selection(unit.table)
        return settings if settings is not None and self.is_keyless(settings) else None
