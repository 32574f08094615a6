"""The connector: it asks over REST, and reads rows by the Storage Read API where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final, NoReturn

import structlog
from pydantic import BaseModel

from warp.capture import preflight as strategies_preflight
from warp.capture import timestamp
from warp.capture.places import Place, Strategy, parse
from warp.diagnosis import refuse
from warp.digest.seams import BoundsOf, Compared, Delivered, Summing
from warp.errors import SourceRefused
from warp.interfaces import SourceTraits
from warp.model import (
    Capture,
    ChangeBatch,
    Chunk,
    Cost,
    Diagnosis,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    Verdict,
)
from warp.sources.bigquery import compared, comparison, costs, history, preflight, snapshot
from warp.sources.bigquery.capture import CaptureSide
from warp.sources.bigquery.catalog import Catalog, Table
from warp.sources.bigquery.options import BigQuerySourceOptions
from warp.sources.bigquery.server import Server
from warp.sources.bigquery.strategies import Way, way_of

_READ_SIZE: Final = 1_000

log = structlog.get_logger(__name__)


class BigQuerySource:
    """Reads one project."""

    Options: ClassVar[type[BaseModel]] = BigQuerySourceOptions
    # BigQuery remembers the changes of each table, but has no log that waits to be followed.
    traits: ClassVar[SourceTraits] = SourceTraits(
        streams=False, bills=True, estimates=True, compares=True, remembers=True
    )

    def __init__(
        self,
        options: BigQuerySourceOptions,
        selection: TableSelection,
        server: Server | None = None,
    ) -> None:
        self._selection = selection
        self.server = server or Server(options)
        self.catalog = Catalog(self.server)
        self._side = CaptureSide(self.server, self.catalog.table)
        self._warned: set[TableId] = set()
        self._dataset = options.database or options.address.dataset

    def __repr__(self) -> str:
        return "<BigQuerySource>"

    # -- what is there

    def check(self) -> None:
        refuse(self._look(), SourceRefused, place=self.server.explainer.place)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        selected = self._selected()
        sound = True
        for one in preflight.diagnose(self.server, self.catalog, selected):
            sound &= one.verdict is not Verdict.FAILED
            yield one
        if sound:
            timed = [s for table, s in selected if way_of(s, table) in (Way.TIMES, Way.NONE)]
            yield from strategies_preflight.diagnose(self._side, timed)

    def namespaces(self) -> list[str]:
        return self.catalog.namespaces()

    def tables(self) -> list[TableId]:
        namespace = getattr(self._selection, "namespace", None)
        found: list[TableId] = []
        for dataset in [namespace] if namespace is not None else self.namespaces():
            listed, others = self.catalog.tables(dataset)
            found += [table for table in listed if self._selection(table) is not None]
            for table, kind in others.items():
                if table not in self._warned and self._selection(table) is not None:
                    self._warned.add(table)
                    log.warning("left_out", table=str(table), why=f"it is a {kind}")
        return sorted(found)

    def rows_about(self, tables: Sequence[TableId]) -> dict[TableId, int]:
        return {id: table.rows for id, table in self.catalog.find(tables).items()}

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        found = self.catalog.find(tables)
        return {id: table.proposal() for id, table in found.items()}

    def cost(self, tables: Sequence[TableId] | None = None) -> list[Cost]:
        """What reading these tables bills, or all that are selected; asking bills nothing."""
        wanted = self.tables() if tables is None else tables
        return [
            costs.cost(self.server, table, settings) for table, settings in self._selected(wanted)
        ]

    def _selected(
        self, tables: Sequence[TableId] | None = None
    ) -> list[tuple[Table, TableSettings]]:
        found = self.catalog.find(self.tables() if tables is None else tables)
        return [
            (table, settings)
            for id, table in found.items()
            if (settings := self._selection(id)) is not None
        ]

    # -- the log, of which there is none

    def position(self) -> Position:
        now = self.server.now()
        return Place(Strategy.HISTORY, upto=now, version=now).position(time.time())

    def version(self) -> int:
        return self.server.now()

    def reached(self, position: Position, goal: Position) -> bool:
        places = [parse(one, Strategy.HISTORY) for one in (position, goal)]
        here, there = (place.upto or 0 if place is not None else 0 for place in places)
        return here >= there

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        self._no_log()

    def acknowledge(self, position: Position) -> None:
        """The history is kept by age, whoever has read it."""

    # -- compared with what it was brought to

    def bounds(self, chunk: Chunk) -> BoundsOf | None:
        found = self.catalog.table(chunk.table)
        return None if found is None else compared.bounds(found, chunk)

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        """None: its functions would bill the same bytes, and not every form has one."""
        return None

    def delivered(self, table: TableId, position: Position) -> Delivered | None:
        found = self.catalog.table(table)
        if found is None:
            return None
        settings = self._settings(table)
        return compared.delivered(self.server, self.catalog, found, settings, position)

    def look_up(self, rows: TableChanges) -> TableChanges:
        return self._looked_up(rows, None)

    def look_up_at(self, rows: TableChanges, at: int) -> TableChanges:
        return self._looked_up(rows, at)

    def _looked_up(self, rows: TableChanges, at: int | None) -> TableChanges:
        found = self.catalog.table(rows.table)
        if found is None:
            return TableChanges(rows.table, bytearray(), [], rows.schema, [])
        return compared.look_up(self.server, found, rows, at)

    def rows_at(self, chunk: Chunk, at: int) -> Iterator[ChangeBatch]:
        found = self.catalog.table(chunk.table)
        if found is None:
            return
        end = Place(Strategy.HISTORY, upto=at, version=at).position(at / 1_000_000)
        parts = compared.rows_at(self.server, found, chunk, self._full_load(chunk.table), at)
        for changes in parts:
            yield ChangeBatch([changes], end, read_at=time.time())

    def _no_log(self) -> NoReturn:
        raise SourceRefused("BigQuery has no log to follow; its tables are polled")

    # -- the rows

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        found = self.catalog.table(table)
        return [Chunk(table, 0)] if found is None else snapshot.cut(self.server, found, rows)

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        table = self.catalog.table(chunk.table)
        if table is None:  # dropped since it was cut: nothing is there
            yield ChangeBatch([], self.position(), read_at=time.time())
            return

        for at, changes in snapshot.read(self.server, table, chunk, self._full_load(chunk.table)):
            end = Place(Strategy.HISTORY, upto=at, version=at).position(at / 1_000_000)
            yield ChangeBatch([] if changes is None else [changes], end, read_at=time.time())

    def _full_load(self, table: TableId) -> Callable[[], int]:
        """Rows of a part, which may change while they are read."""

        def rows() -> int:
            settings = self._selection(table)
            return settings.full_load_batch_size if settings else _READ_SIZE

        return rows

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        settings = self._settings(table)
        found = self.catalog.table(table)
        if found is None:  # dropped since it was listed
            yield ChangeBatch([], position or self.position(), read_at=time.time())
            return
        match way_of(settings, found):
            case Way.TIMES:
                yield from timestamp.poll(self._side, settings, position, fire_time=fire_time)
            case Way.COMPARISON:
                yield from comparison.poll(
                    self.server, self.catalog, found, settings, position, fire_time=fire_time
                )
            case Way.HISTORY:
                yield from history.poll(
                    self.server, self.catalog, found, settings, position, fire_time=fire_time
                )
            case Way.NONE:
                self._side.triggers.install(table, found.proposal())

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        settings = self._settings(table)
        found = self.catalog.table(table)
        if found is None or way_of(settings, found) is Way.COMPARISON:
            return comparison.start(self.server, found, fire_time=fire_time)
        if settings.capture is Capture.LOG:
            return history.start(self.server, found, fire_time=fire_time)
        return timestamp.start(self._side, settings, fire_time=fire_time)

    def _settings(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise SourceRefused("a selected table was expected", place=str(table))
        return settings

    def close(self) -> None:
        self.server.close()
