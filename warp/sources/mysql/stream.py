"""The log, followed for ever: events in, change batches out, nothing lost between.

A batch ends where a transaction ended.  One that is larger than a batch comes as several, all but
the last of which carry the end of the transaction before: to apply them again is harmless.  While
a prepared XA transaction waits, the position stays before it, and what followed comes again after
a restart.

Where a MySQL gives no global ids the position also moves while no transaction comes, from file to
file: a file that is purged must not be needed any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from warp import native
from warp.errors import PositionLost, SourceRefused, WarpError
from warp.model import (
    ABSENT,
    UNCHANGED,
    Capture,
    Cells,
    ChangeBatch,
    Invalid,
    Kind,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
)
from warp.sources.mysql.binlog import transactions as log
from warp.sources.mysql.binlog.rows import UNREADABLE, Row, Wanted, columns_of
from warp.sources.mysql.binlog.transactions import Transactions
from warp.sources.mysql.ddl import Effect, effect
from warp.sources.mysql.dump import FIRST_EVENT, RESUMABLE, Dump, found_global_ids, lost_global_ids
from warp.sources.mysql.position import Counting, OwnFiles, Passed, Place, version_at
from warp.sources.mysql.schema import Table

if TYPE_CHECKING:
    from warp.native.binlog import Filling

# After activity the server is given so long before the stream says that it has caught up.
_QUICK: Final = 0.002  # seconds
# Rows that keep trickling in are handed over no later than this.
_OLDEST: Final = 0.05  # seconds
# Several batches are under way at once, as bytes of events and as rows (guarantee 9).
_FULL_BYTES: Final = 4 << 20
_NO_LIMIT: Final = 1 << 62
_WHOLE: Final = 4  # batches that a transaction may fill and still be kept whole
# Where a versioned table's `row_end` begins to mean for ever; 2038, or 2106 from MariaDB 11.5 on.
_FOR_EVER: Final = 2_147_483_647_999_999
_NUL: Final = "\0"
# How often a stream of MySQL asks whether there are global ids.
_LOOK_EVERY: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the stream asks the server about tables, on another connection."""

    describe: Callable[[TableId], Table | None]
    is_no_table: Callable[[TableId], bool]
    listed: Callable[[], Sequence[TableId]]
    has_global_ids: Callable[[], bool]


@dataclass(slots=True)
class _Part:
    """The changes of one table in the batch being made."""

    schema: TableSchema
    operations: bytearray = field(default_factory=bytearray)
    versions: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    filling: Filling | None = None  # instead of rows, where the compiled modules are at work

    @staticmethod
    def of(schema: TableSchema) -> _Part:
        part = _Part(schema)
        if native.active():
            part.filling = native.binlog.Filling(column.kind for column in schema.columns)
        return part

    def add(self, operation: Operation, version: int, rows: Sequence[Row]) -> None:
        if self.filling is not None:
            self.filling.add_rows(rows)
        else:
            self.rows += rows
        self.count(operation, version, len(rows))

    def count(self, operation: Operation, version: int, rows: int) -> None:
        """What happened to rows that were added to the columns."""
        self.operations += bytes((operation,)) * rows
        self.versions += [version] * rows

    def changes(self) -> TableChanges:
        columns: Sequence[Cells]
        if self.filling is not None:
            columns = self.filling.columns_made()
        else:
            columns = made = columns_of(self.rows)
            for column, cells in zip(self.schema.columns, made, strict=True):
                if column.kind is Kind.TEXT:
                    _without_nul(cells)
        return TableChanges(self.schema.table, self.operations, self.versions, self.schema, columns)


@dataclass(slots=True)
class _Making:
    """The batch being made."""

    parts: dict[TableId, _Part] = field(default_factory=dict)
    reload: list[TableId] = field(default_factory=list)
    limit: int = _NO_LIMIT  # rows: the least of what its tables are written by
    rows: int = 0
    size: int = 0  # bytes of the events
    since: float = 0.0  # when the first change came

    def __bool__(self) -> bool:
        return bool(self.parts or self.reload)

    def part(self, schema: TableSchema, selection: TableSelection) -> _Part:
        found = self.parts.get(schema.table)
        if found is None:
            self.since = self.since or time.monotonic()
            settings = selection(schema.table)
            self.limit = min(self.limit, settings.write_batch_size if settings else 1)
            found = self.parts[schema.table] = _Part.of(schema)
        return found

    def clashes(self, schema: TableSchema) -> bool:
        """Does a table look otherwise from here on?"""
        part = self.parts.get(schema.table)
        return part is not None and part.schema is not schema and part.schema != schema

    def read_anew(self, tables: Iterable[TableId]) -> None:
        self.reload += [table for table in tables if table not in self.reload]
        self.since = self.since or time.monotonic()

    @property
    def is_full(self) -> bool:
        return self.rows >= self.limit or self.size >= _FULL_BYTES

    @property
    def is_too_large(self) -> bool:
        """Must it end amid a transaction?

        One that is not much larger than a batch is kept whole: readers of the destination see all
        of it at once, and none of it is applied again after a crash.
        """
        return self.rows >= _WHOLE * self.limit or self.size >= _FULL_BYTES

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.since >= _OLDEST

    def changes(self) -> list[TableChanges]:
        return [part.changes() for part in self.parts.values() if part.operations]


def _without_nul(cells: list[Any]) -> None:
    """Text with NUL is none that a text column of every destination takes."""
    texts = [cell for cell in cells if type(cell) is str]
    if _NUL in "".join(texts):
        cells[:] = [Invalid(cell) if type(cell) is str and _NUL in cell else cell for cell in cells]


def _clock(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _followed(selection: TableSelection) -> TableSelection:
    """Only the tables whose changes are taken from the log."""

    def select(table: TableId) -> TableSettings | None:
        settings = selection(table)
        return settings if settings is not None and settings.capture is Capture.LOG else None

    return select


class LogStream:
    """Follows the log of one server from one place."""

    def __init__(
        self, dump: Dump, catalog: Catalog, selection: TableSelection, start: Position
    ) -> None:
        self._dump = dump
        self._catalog = catalog
        self._selection = _followed(selection)
        here = Place.parse(start.token)
        if here.flavour is not dump.server.flavour:
            raise PositionLost(
                f"a server of {here.flavour} was expected, where the marker comes from, found "
                f"{dump.server.flavour}; run `cartridge-warp resync SCHEMA`"
            )
        self._start = here
        self._here = Counting(here)  # everything up to here was taken
        # Where there are no global ids: the file that is being read.
        self._files = here.passed if isinstance(here.passed, OwnFiles) else None
        self._is_open = False
        self._looked_at = time.monotonic()
        # Everything up to there may be forgotten; None: no more than at the start.
        self._resume: tuple[Passed, log.Place] | None = None
        self._shown = start
        self._shown_for: tuple[Passed, log.Place] | None = None
        self._version = here.version  # of the transaction under way
        self._inside = False
        self._committed_at = start.committed_at
        place = log.Place(here.file, here.offset)
        self._transactions = Transactions(self._wanted, place, unread=native.active())
        self._tables: dict[TableId, Table | None] = {}
        self._schemas: dict[TableId, TableSchema] = {}
        self._listed = frozenset(catalog.listed())
        self._making = _Making()
        by_ids = native.active() and self._files is None
        self._whole = native.binlog.Transactions() if by_ids else None

    # -- following

    def follow(self, idle: float, closed: Callable[[], bool]) -> Iterator[ChangeBatch]:
        """Batches as they come; empty ones while nothing happens."""
        self._dump.begin(self._start)
        spoken, busy = time.monotonic(), True
        while not closed():
            self._look_at_gtid_mode()
            heard = False
            # What is ready now makes a batch: to wait for more while rows trickle in would cost
            # each of them the whole of _OLDEST, and what comes meanwhile is the next batch.
            ready = bool(self._making) and not self._inside
            for event in self._dump.read(0.0 if ready else _QUICK if busy else idle):
                heard = True
                for step in self._transactions.feed(event):
                    if type(step) is not log.Rows and type(step) is not log.Unread:
                        self._take(step)
                        if type(step) is log.Ended and self._whole is not None:
                            self._take_whole(self._whole)
                        if self._making.is_full and not self._inside:
                            yield self._batch()
                            spoken = time.monotonic()
                        continue
                    schema = self._schema(step)
                    if self._making.clashes(schema):
                        yield self._batch()
                    self._take_rows(step, schema)
                    self._making.size += len(event)
                    if self._making.is_too_large:
                        yield self._batch()
                        spoken = time.monotonic()
            now = time.monotonic()
            if self._making:
                due = not self._inside and (not heard or self._making.is_old)
            else:
                due = (busy and not heard) or now - spoken >= idle
            if due:
                yield self._batch()
                spoken = now
            busy = heard

    def _batch(self) -> ChangeBatch:
        made, self._making = self._making, _Making()
        if self._whole is not None:
            self._whole.forget()
        return ChangeBatch(made.changes(), self._shown_now(), tuple(made.reload), time.time())

    def _shown_now(self) -> Position:
        """The place to resume at, as text; the same object while it does not move."""
        if self._resume is not None and self._resume is not self._shown_for:
            passed, place = self._shown_for = self._resume
            shown = Place(passed, place.file, place.position)
            self._shown = shown.position(self._committed_at)
        return self._shown

    # -- steps

    def _take(self, step: log.Step) -> None:
        match step:
            case log.Began(gtid, committed_at):
                self._inside = True
                if self._files is not None:
                    # Inside of the transaction: after every place that a chunk before it was
                    # read at, and before every one that a chunk with it is read at.
                    self._version = version_at(self._transactions.place)
                elif gtid is None:
                    raise PositionLost(
                        "transactions with global ids were expected, as the marker has them, found "
                        "one without; set gtid_mode = ON, then run `cartridge-warp resync SCHEMA`"
                    )
                else:
                    self._version = self._here.add(gtid)
                self._began_at = committed_at
            case log.Noted(statement):
                if self._whole is not None:
                    self._whole.forget()
                known = self._listed | self._schemas.keys()
                self._take_effect(effect(statement, self._selection, known))
            case log.Ended(place, _, held, doubtful):
                self._inside = False
                if not held:
                    self._may_resume(place)
                    self._committed_at = self._began_at
                if doubtful:  # what a rollback left of tables without transactions
                    self._making.read_anew(t for t in doubtful if self._selection(t) is not None)
            case log.Opened(begun) if self._files is not None:
                self._open_file(begun)
            case log.Heard(place, held) if self._files is not None:
                # Not at a file's very beginning: when it was begun is told after that.
                if not held and place.position > FIRST_EVENT:
                    self._may_resume(place)

    def _may_resume(self, place: log.Place) -> None:
        if self._files is None:
            self._resume = (self._here.passed, place)
        elif place.position < RESUMABLE:  # else from before, until the next file begins
            self._resume = (self._files, place)

    # -- without global ids

    def _open_file(self, begun: int) -> None:
        """A file of the marker's name that was begun at another time is another file: what stands
        at the marker's place in it is not what follows the marker (guarantee 6)."""
        if self._files is None:
            raise AssertionError("only where the position is one of files")
        expected = self._files.begun
        if not self._is_open and expected not in (0, begun):
            raise PositionLost(
                f"{self._start.file} begun at {_clock(expected)} was expected, where the marker is "
                f"in it, found it begun at {_clock(begun)}: the log was reset or the server "
                "restored; run `cartridge-warp resync SCHEMA`"
            )
        self._is_open = True
        self._files = replace(self._files, begun=begun)

    def _look_at_gtid_mode(self) -> None:
        """Chunks are numbered by what the server has now.  By ids they would be far below the
        versions of a stream that goes by files: a table read anew would not land.  The other way
        round they would be far above, and changes of the stream would not."""
        now = time.monotonic()
        if self._dump.server.is_mariadb or now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        if self._catalog.has_global_ids() != (self._files is None):
            raise found_global_ids() if self._files is not None else lost_global_ids()

    def _take_effect(self, found: Effect) -> None:
        for table in found.emptied:
            self._empty(table, self._version)
        for table in found.replaced:
            # One less: a chunk may be read at the very moment of the rename, and must land.
            self._empty(table, self._version - 1)
        self._making.read_anew((*found.replaced, *found.reload))

    def _empty(self, table: TableId, version: int) -> None:
        schema = self._schemas.get(table)
        if schema is None:
            described = self._catalog.describe(table)
            schema = described.proposal() if described else TableSchema(table, (), ())
        part = self._making.part(schema, self._selection)
        row = (ABSENT,) * len(part.schema.columns)
        part.add(Operation.TRUNCATE, version, [row])
        self._making.rows += 1

    # -- rows

    def _wanted(self, table: TableId) -> Wanted | None:
        """Asked at a table's first rows, and at the first after each change of its definition."""
        if self._selection(table) is None:
            return None
        described = self._tables[table] = self._catalog.describe(table)
        if described is None:
            # Dropped or renamed later in the log: its rows come, and then the statement.  A
            # sequence has rows in the log as well.
            return None if self._catalog.is_no_table(table) else Wanted()
        if not described.key:
            raise SourceRefused(
                "a primary key, or a unique one of columns that are NOT NULL, was expected, found "
                "none: which row of the destination a change is about cannot be told; add a "
                f"primary key, or list `!{table.name}` under `tables`",
                place=str(table),
            )
        # The log tells the primary key as it was; of a versioned table with `row_end` in it.
        told = described.index == "PRIMARY" and not described.versioned
        return Wanted(
            key=() if told else described.key,
            types=tuple((c.name, c.data_type) for c in described.columns),
        )

    def _schema(self, step: log.Rows | log.Unread) -> TableSchema:
        schema = step.table.schema
        described = self._tables.get(schema.table)
        return _as_shown(described, schema) if described and described.versioned else schema

    def _take_rows(self, step: log.Rows | log.Unread, schema: TableSchema) -> None:
        """`schema` is the table as everybody sees it, without the columns of its versions."""
        if isinstance(step, log.Unread):
            if self._pack(step, schema):
                return
            step = step.read()
        rows, moved = step.rows, step.moved
        if not schema.key or not rows:
            return  # a table without a key that is gone by now: its statement follows
        self._making.rows += len(rows)
        table, operation = schema.table, step.operation
        self._schemas[table] = schema
        part = self._making.part(schema, self._selection)
        if schema is not step.table.schema:
            described = self._tables[table]
            if described is None:
                raise AssertionError("a versioned table was described")
            logged = step.table.schema
            for code, row in _as_of_now(described, logged, schema, operation, rows):
                part.add(code, self._version, [row])
            return
        if operation is Operation.CREATE and UNCHANGED in rows[0]:
            operation = Operation.UPDATE  # a part of a row; the rest is looked up where it lacks
        if not moved:
            part.add(operation, self._version, rows)
            return
        done = 0
        for number, key in moved:
            part.add(operation, self._version, rows[done:number])
            part.add(Operation.DELETE, self._version, [_only_key(schema, key)])
            whole = Operation.UPDATE if UNCHANGED in rows[number] else Operation.CREATE
            part.add(whole, self._version, [rows[number]])
            done = number + 1
        part.add(operation, self._version, rows[done:])

    def _pack(self, step: log.Unread, schema: TableSchema) -> bool:
        """Take rows by the compiled reader; False where it does not surely read them right."""
        operation, table = step.operation, step.table
        first = step.place + table.header_size(update=operation is Operation.UPDATE)
        if not schema.key or schema is not table.schema or first >= step.end:
            return False
        part = self._making.parts.get(schema.table) or self._making.part(schema, self._selection)
        if part.filling is None:
            return False
        rows, whole = table.pack(part.filling, operation, step.event, step.place, step.end)
        if rows < 0:
            return False
        self._making.rows += rows
        self._schemas[schema.table] = schema
        if operation is Operation.CREATE and not whole:
            operation = Operation.UPDATE  # a part of a row; the rest is looked up where it lacks
        part.count(operation, self._version, rows)
        if self._whole is not None:
            unread = (step.operation, step.event, step.place)
            table.tell(self._whole, part.filling, unread, part.operations, part.versions, operation)
        return True

    def _take_whole(self, whole: native.binlog.Transactions) -> None:
        """Transactions that are here and like those of the batch, without a look at each event.

        The compiled reader takes one whole or leaves it whole: then its events come as any do.
        """
        last, position, making = self._here.last, self._transactions.quiet(), self._making
        if last is None or position is None or not making.parts:
            return
        with suppress(WarpError, *UNREADABLE):  # said again when that transaction is read
            whole.take(
                *self._dump.waiting,
                position,
                *last,
                making.rows,
                making.size,
                making.limit,
                _FULL_BYTES,
            )
        if not whole.count:
            return
        self._dump.passed(whole.start, whole.sequence)
        self._here.take(whole.number, whole.server, whole.version)
        self._version = whole.version
        self._resume = (self._here.passed, self._transactions.passed(whole.position))
        self._committed_at = self._began_at = whole.committed_at
        making.rows, making.size = whole.rows, whole.size


def _only_key(schema: TableSchema, key: Row) -> Row:
    """A row of which nothing is known but its key."""
    cells = dict(zip(schema.key, key, strict=True))
    return tuple(cells.get(column.name, ABSENT) for column in schema.columns)


def _as_shown(table: Table, schema: TableSchema) -> TableSchema:
    """The schema of a versioned table without the columns that only the log shows."""
    hidden = {name for name in (table.row_start, table.row_end) if table.column(name) is None}
    return replace(schema, columns=tuple(c for c in schema.columns if c.name not in hidden))


def _as_of_now(
    table: Table,
    logged: TableSchema,
    shown: TableSchema,
    operation: Operation,
    rows: Sequence[Row],
) -> Iterator[tuple[Operation, Row]]:
    """The rows of a versioned table without those of the past.

    An update is logged as an update and an insert of the row as it was; a delete as an update that
    ends the row's time.
    """
    names = logged.names()
    end = names.index(table.row_end)
    places = [names.index(name) for name in shown.names()]
    for row in rows:
        is_past = row[end] < _FOR_EVER
        if is_past and operation is not Operation.UPDATE:
            continue
        code = Operation.DELETE if is_past else operation
        yield code, tuple(row[place] for place in places)
