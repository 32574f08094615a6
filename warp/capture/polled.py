"""What a SQL connector forwards to: each table by its own strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from warp.capture import batches, keyed, preflight, timestamp, whole
from warp.capture.places import Place, Strategy, parse, version_of
from warp.capture.side import SqlSide
from warp.capture.trigger import QueuePolls
from warp.errors import SourceRefused
from warp.model import (
    Capture,
    ChangeBatch,
    Diagnosis,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
)


class Polled:
    """The polled tables of one connector."""

    def __init__(self, side: SqlSide, selection: TableSelection) -> None:
        self._side = side
        self._selection = selection
        self._queues: dict[TableId, QueuePolls] = {}

    def start(self, table: TableId, *, fire_time: float) -> Position:
        """As `SourceConnector.poll_start`."""
        settings = self._settings(table)
        if settings.capture is Capture.TRIGGER:
            return self._queue(settings).start(fire_time=fire_time)
        if settings.capture is Capture.HASH:
            version = self._side.version()
            return Place(Strategy.WHOLE, version=version).position(fire_time)
        return timestamp.start(self._side, settings, fire_time=fire_time)

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        """As `SourceConnector.poll`."""
        settings = self._settings(table)
        if settings.capture is Capture.TRIGGER:
            return self._queue(settings).poll(position, fire_time=fire_time)
        if settings.capture is Capture.HASH:
            return self._whole(settings, position, fire_time)
        return timestamp.poll(self._side, settings, position, fire_time=fire_time)

    def changes_of(
        self, schema: TableSchema, keys: Sequence[keyed.Key], *, least: int
    ) -> tuple[int, list[TableChanges]]:
        """As `warp.digest.seams.ReadsKeys`."""
        # Before the rows: whatever they show was committed at this version or later.
        version = max(self._side.version(), least)
        return version, keyed.changes(self._side, schema, keys, version)

    def acknowledge(self, position: Position) -> None:
        """As `SourceConnector.acknowledge`, for positions of polls (`places.is_polled`)."""
        for queue in self._queues.values():
            queue.acknowledge(position)

    def diagnose(self, tables: Sequence[TableId]) -> list[Diagnosis]:
        """As `SourceConnector.diagnose`, about what is polled of these."""
        settings = [s for table in tables if (s := self._selection(table)) is not None]
        return preflight.diagnose(self._side, settings)

    def close(self) -> None:
        self._side.close()

    def remove(self, table: TableId) -> None:
        """Take away what was installed at the source for this table."""
        self._side.triggers.remove(table)

    def _whole(
        self, settings: TableSettings, position: Position | None, fire_time: float
    ) -> Iterator[ChangeBatch]:
        known = parse(position, Strategy.WHOLE)
        place = known or Place(Strategy.WHOLE, version=version_of(position))
        schema = self._side.schema(settings.table)
        if schema is None:
            yield batches.batch([], place.position(fire_time))
            return
        yield from whole.read(
            self._side,
            schema,
            place,
            rows=settings.write_batch_size,
            at=lambda reached: reached.position(fire_time),
        )

    def _queue(self, settings: TableSettings) -> QueuePolls:
        if settings.table not in self._queues:
            self._queues[settings.table] = QueuePolls(self._side, settings)
        return self._queues[settings.table]

    def _settings(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise SourceRefused("a selected table was expected", place=str(table))
        return settings
