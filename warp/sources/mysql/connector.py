"""The connector: one connection to ask with, and one more for whatever is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import ClassVar, Final, TypeVar

import structlog
from pydantic import BaseModel

from warp.capture.places import is_polled
from warp.capture.polled import Polled
from warp.digest.seams import Bound, BoundsOf, Compared, Summing
from warp.errors import SourceRefused, SourceUnavailable
from warp.interfaces import SourceTraits
from warp.model import (
    Capture,
    ChangeBatch,
    Chunk,
    Diagnosis,
    Headroom,
    KeySpan,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    Verdict,
)
from warp.sources.mysql import digests, preflight, schema, snapshot
from warp.sources.mysql.capture import CaptureSide
from warp.sources.mysql.connection import CLOCK, Connection, MysqlOptions, log_status
from warp.sources.mysql.dump import Dump
from warp.sources.mysql.kept import KeptFiles
from warp.sources.mysql.position import NoLog, OwnFiles, Place
from warp.sources.mysql.reading import Reader
from warp.sources.mysql.stream import Catalog, LogStream

_READ_SIZE: Final = 1_000
# Long enough for the server to refuse, where it does: it answers at once.
_TRIED_FOR: Final = 0.2  # seconds

log = structlog.get_logger(__name__)

Opened = TypeVar("Opened", Reader, Dump)


class MysqlSource:
    """Reads one server."""

    Options: ClassVar[type[BaseModel]] = MysqlOptions
    # A dump thread sends the whole log, so a second stream costs as much as the first.
    traits: ClassVar[SourceTraits] = SourceTraits(
        follows_twice=False,
        full_rows=False,
        headroom=True,
        ranges=True,
        compares=True,
        estimates=True,
        reads_keys=True,
    )

    def __init__(self, options: MysqlOptions, selection: TableSelection) -> None:
        self._options = options
        self._selection = selection
        self._closed = threading.Event()
        self._connecting = threading.Lock()
        self._asking: Connection | None = None
        self._opened: list[Reader | Dump] = []  # what `close` has to wake
        self._warned: set[TableId] = set()
        self._file = ("", 0, 0)  # of the log: the last one seen, how far it went, when it was begun
        self._kept = KeptFiles(lambda: self._connection, self._begun_at)
        side = CaptureSide(
            lambda: self._connection,
            self._open_kept_reader,
            self.described,
            self.version,
            schema=options.capture_schema,
        )
        self.polled = Polled(side, selection)

    def __repr__(self) -> str:
        return "<MysqlSource>"

    # -- what is there

    def check(self) -> None:
        preflight.refuse(self.diagnose())

    def diagnose(self) -> list[Diagnosis]:
        followed: list[TableId] = []
        polled: list[TableId] = []
        for table in self.tables():
            settings = self._selection(table)
            by_log = settings is not None and settings.capture is Capture.LOG
            (followed if by_log else polled).append(table)
        found = preflight.diagnose(self._connection, followed, polled, self._try_to_follow)
        if any(one.verdict is Verdict.FAILED for one in found):
            return found  # perhaps the tables may not be read, which the rest takes for granted
        return [*found, *self.polled.diagnose(polled)]

    def _try_to_follow(self) -> None:
        with self._open(Dump(self._options, self._closed)) as dump:
            self.position()  # refused where there is no log
            dump.begin(self._place())
            for _ in dump.read(_TRIED_FOR):
                break

    def namespaces(self) -> list[str]:
        return schema.databases(self._connection)

    def tables(self) -> list[TableId]:
        return [t for t in self._listed(self._selection) if self._selection(t) is not None]

    def _listed(self, selection: TableSelection) -> list[TableId]:
        """The tables of the selection's database, or of all."""
        namespace = getattr(selection, "namespace", None)
        found: list[TableId] = []
        for database in [namespace] if namespace is not None else self.namespaces():
            listed, others = schema.tables(self._connection, database)
            found += listed
            for table, kind in others:
                if table not in self._warned and selection(table) is not None:
                    self._warned.add(table)
                    log.warning("left out: it is not in the log", table=str(table), type=kind)
        return sorted(found)

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        described = ((table, self.described(table)) for table in tables)
        return {table: found.proposal() for table, found in described if found is not None}

    def rows_about(self, tables: Sequence[TableId]) -> dict[TableId, int]:
        wanted = set(tables)
        counted: dict[TableId, int] = {}
        for database in sorted({table.namespace for table in wanted}):
            counted |= schema.rows_about(self._connection, database)
        return {table: rows for table, rows in counted.items() if table in wanted}

    def described(self, table: TableId) -> schema.Table | None:
        """A table as it is now, for whoever composes statements about it."""
        return schema.describe(self._connection, table)

    # -- the log

    def position(self) -> Position:
        place = self._place()
        if isinstance(place.passed, NoLog):
            raise SourceRefused(
                "a server that writes a binary log was expected, found none; set log_bin in the "
                "server's configuration and restart it, or have the tables polled: "
                "change_detection.strategy trigger, timestamp or hash, and the schema's mode batch"
            )
        if isinstance(place.passed, OwnFiles):
            begun = self._file_begun(place)
            place = replace(place, passed=replace(place.passed, begun=begun))
        return place.position(time.time())

    def _file_begun(self, place: Place) -> int:
        """When the log file of a place was begun; asked once per file."""
        file, offset, begun = self._file
        if file != place.file or offset > place.offset:
            begun = self._begun_at(place.file)
        self._file = (place.file, place.offset, begun)
        return begun

    def version(self) -> int:
        return self._place().version

    def reached(self, position: Position, goal: Position) -> bool:
        return Place.parse(position.token).covers(Place.parse(goal.token))

    def _place(self) -> Place:
        """Where the log ends.  The global ids are read first, so that the file holds them."""
        connection = self._connection
        if connection.server.is_mariadb:
            [(gtid,)] = connection.rows("SELECT @@GLOBAL.gtid_binlog_pos")
            mode = server = ""
        else:
            [(gtid, mode, server)] = connection.rows(
                "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_mode, @@server_uuid"
            )
        status = connection.rows(log_status(connection.server))
        if not status:
            [(clock,)] = connection.rows(CLOCK)
            return Place(NoLog(int(clock)))
        file, offset = status[0][:2]
        if connection.server.is_mariadb:
            return Place.of_mariadb(gtid, file, offset)
        if mode != "ON":
            return Place(OwnFiles(server), file, offset)
        return Place.of_mysql(gtid, file, offset)

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        catalog = Catalog(
            describe=self.described,
            is_no_table=lambda table: schema.is_no_table(self._connection, table),
            listed=lambda: self._listed(selection),
            has_global_ids=lambda: preflight.has_global_ids(self._connection),
        )
        try:
            with self._open(Dump(self._options, self._closed)) as dump:
                stream = LogStream(dump, catalog, selection, position)
                yield from stream.follow(idle, self._closed.is_set)
        except SourceUnavailable:
            if not self._closed.is_set():
                raise

    def acknowledge(self, position: Position) -> None:
        """The log is kept by age, whoever has read it; a queue of changed keys is not."""
        if is_polled(position):
            self.polled.acknowledge(position)

    def headroom(self, position: Position) -> Headroom:
        return self._kept.headroom(Place.parse(position.token))

    def _begun_at(self, file: str) -> int:
        with self._open(Dump(self._options, self._closed)) as dump:
            return dump.first_timestamp(file)

    # -- the rows

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        described = self.described(table)
        if described is None:
            return [Chunk(table, 0)]
        return snapshot.cut(self._connection, described, rows)

    def chunks_within(self, table: TableId, within: KeySpan, rows: int) -> list[Chunk]:
        described = self.described(table)
        return (
            []
            if described is None
            else snapshot.cut_within(self._connection, described, within, rows)
        )

    def bounds(self, chunk: Chunk) -> BoundsOf | None:
        described = self.described(chunk.table)
        return None if described is None else snapshot.bounds(chunk, described.keys)

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        described = self.described(chunk.table)
        if described is None or not digests.ServerSums.can(described, compared):
            return None
        return digests.ServerSums(self._reader, described, chunk, compared)

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        described = self.described(chunk.table)
        if described is None:  # dropped since it was cut: nothing is there
            yield ChangeBatch([], self.position(), read_at=time.time())
            return

        def rows() -> int:
            settings = self._selection(chunk.table)
            return settings.full_load_batch_size if settings else _READ_SIZE

        for place, changes in snapshot.read(self._reader, described, chunk, rows, self._closed):
            parts = [] if changes is None else [changes]
            yield ChangeBatch(parts, place.position(time.time()), read_at=time.time())

    def look_up(self, rows: TableChanges) -> TableChanges:
        described = self.described(rows.table)
        if (
            described is None
            or rows.schema is None
            or not set(described.key) <= set(rows.schema.key)
        ):
            # Gone, or of another key by now: what the log says of that comes later.
            schema_then = rows.schema or TableSchema(rows.table, (), ())
            return TableChanges(
                rows.table, bytearray(), [], schema_then, [[] for _ in schema_then.columns]
            )
        places = [rows.schema.names().index(name) for name in described.key]
        keys = list(zip(*(rows.columns[place] for place in places), strict=True))
        with self._reader() as reader:
            return snapshot.look_up(reader, described, keys, self._closed)

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        return self.polled.poll(table, position, fire_time=fire_time)

    def changes_of(
        self, schema: TableSchema, keys: Sequence[Bound], *, least: int
    ) -> tuple[int, list[TableChanges]]:
        return self.polled.changes_of(schema, keys, least=least)

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        return self.polled.start(table, fire_time=fire_time)

    # -- connections

    @property
    def _connection(self) -> Connection:
        with self._connecting:
            if self._closed.is_set():
                raise SourceUnavailable("the connector was closed")
            if self._asking is None or not self._asking.driver.open:
                self._asking = Connection(self._options)
            return self._asking

    def _open_kept_reader(self) -> Reader:
        """A reader that `close` ends."""
        if self._closed.is_set():
            raise SourceUnavailable("the connector was closed")
        reader = Reader(self._options)
        self._opened.append(reader)
        return reader

    def _reader(self) -> AbstractContextManager[Reader]:
        return self._open(Reader(self._options))

    @contextmanager
    def _open(self, opened: Opened) -> Iterator[Opened]:
        """Closed at the end; woken by `close` before."""
        self._opened.append(opened)
        try:
            if self._closed.is_set():
                raise SourceUnavailable("the connector was closed")
            yield opened
        finally:
            self._opened.remove(opened)
            opened.close()

    def close(self) -> None:
        self._closed.set()
        for opened in list(self._opened):
            opened.end()
        self.polled.close()
        with self._connecting:
            if self._asking is not None:
                self._asking.close()
