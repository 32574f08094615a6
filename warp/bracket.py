"""Between which moments a comparison looks at a table: what the source is read as of, and when the
destination has all of it.

Three ways, by how the table's changes are found:

* By a stream.  The source is read as it is, then asked where its log ends, and the destination is
  read once the stream has passed that place.
* By runs.  The same, with a run that has begun after the source was read.
* By runs, of a source that remembers.  The marker of the poll says what the runs have delivered,
  and the source is read as it was then: nobody waits for a run, of which there may be one a day,
  and what was written since is in neither.  A run that ends meanwhile makes rows of the destination
  newer, which the next look sees at both ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, cast

from warp.digest.seams import Delivered, Remembers
from warp.errors import SourceUnavailable
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.model import (
    SHARED,
    Capture,
    ChangeBatch,
    Chunk,
    Marker,
    Phase,
    Position,
    TableChanges,
    TableSettings,
    UnitKind,
    WorkUnit,
)

LOOK_EVERY: Final = 0.1  # seconds between looks at a marker


class Bracket:
    """Of one table; opened before the source is read, closed before the destination is."""

    def __init__(
        self,
        source: SourceConnector,
        destination: DestinationConnector,
        hold: Hold,
        unit: WorkUnit,
        settings: TableSettings,
    ) -> None:
        self._source = source
        self._destination = destination
        self._hold = hold
        self._unit = unit
        self._settings = settings
        self._table = settings.table
        self._follows = settings.capture is Capture.LOG and source.traits.streams
        self._remembers = source.traits.remembers and not self._follows
        self.then: Delivered | None = None  # what is compared; None: what there is now

    def open(self) -> bool:
        """False where the hold asked to stop."""
        self.then = None
        if not self._remembers:
            return True
        marker = self._wait(UnitKind.POLL, lambda marker: marker.phase is Phase.IDLE)
        if marker is None:
            return False
        self.then = self._delivered(marker)
        return True

    def close(self) -> Position | None:
        """The place that the destination has reached; None where the hold asked to stop."""
        if self.then is not None:
            return Position(f"version {self.then.at}")
        if self._follows:
            return self._passed(self._source.position())
        return self._polled(time.time())

    def has_moved(self) -> bool:
        """Has a run that came meanwhile perhaps changed the destination?"""
        if self.then is None:
            return False
        marker = self._marker(UnitKind.POLL)
        unmoved = marker is not None and marker.phase is Phase.IDLE
        return not unmoved or self._delivered(marker) != self.then

    def version(self) -> int | None:
        """That of a row that was found missing: what no look has seen comes with a higher one.

        None: what would be written could be older than that; look again later.
        """
        if not self._remembers:
            return self._source.version()
        # A run under way has a version below the source's, and one above what was delivered.
        return None if self.then is None else self.then.at

    # -- the source

    def rows(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        if self.then is None:
            return self._source.get_full_snapshot(chunk)
        return cast("Remembers", self._source).rows_at(chunk, self.then.at)

    def look_up(self, rows: TableChanges) -> TableChanges:
        if self.then is None:
            return self._source.look_up(rows)
        return cast("Remembers", self._source).look_up_at(rows, self.then.at)

    # -- the markers

    def _delivered(self, marker: Marker | None) -> Delivered | None:
        if marker is None or marker.position is None:
            return None
        return cast("Remembers", self._source).delivered(self._table, marker.position)

    def _passed(self, goal: Position) -> Position | None:
        def reached(marker: Marker) -> bool:
            return marker.position is not None and self._source.reached(marker.position, goal)

        return goal if self._wait(UnitKind.STREAM, reached) is not None else None

    def _polled(self, since: float) -> Position | None:
        def ran(marker: Marker) -> bool:
            """Has a run that began after that ended?"""
            began = marker.position.committed_at if marker.position is not None else 0.0
            return marker.phase is Phase.IDLE and began > since

        goal = Position(f"poll {since:.6f}", since)
        return goal if self._wait(UnitKind.POLL, ran) is not None else None

    def _wait(self, kind: UnitKind, reached: Callable[[Marker], bool]) -> Marker | None:
        hold = self._hold
        pause = LOOK_EVERY
        # Where a marker moves seldom, each look at it costs as much.
        longest = max(LOOK_EVERY, self._destination.traits.idle_marker_seconds / 10)
        while True:
            hold.check()
            if hold.stopping():
                return None
            marker = self._marker(kind)
            if marker is not None and reached(marker):
                return marker
            if marker is None or marker.phase in (Phase.FAILED, Phase.PAUSED):
                phase = "none" if marker is None else f"it {marker.phase}"
                raise SourceUnavailable(
                    f"expected the {kind} of {self._table} at work, found {phase}: without it "
                    "nobody can tell a difference from a change on its way",
                    place=self._unit.id,
                )
            hold.wait(pause)
            pause = min(pause * 1.5, longest)

    def _marker(self, kind: UnitKind) -> Marker | None:
        """Of the unit that brings the table's changes."""
        found = [
            marker
            for marker in self._destination.metadata().markers((kind,))
            if marker.unit.schema in (self._unit.schema, SHARED)
            and (kind is UnitKind.STREAM or marker.unit.table == self._table)
        ]
        # A schema may have had a stream of its own before it came to share one.
        return max(found, key=lambda marker: marker.updated_at, default=None)
