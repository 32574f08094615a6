"""Events, one after another -> transactions: where each begins, its rows, where it ends.

The state machine that a stream of events goes through.  It gives rows out as they come, so that a
transaction may be of any size; the place after it is given only at its end, which is the only
place where a marker may stand (guarantees 4 and 6).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from warp.errors import PositionLost, SourceRefused
from warp.model import Operation, TableId
from warp.sources.mysql.binlog import events
from warp.sources.mysql.binlog.events import EventType as E
from warp.sources.mysql.binlog.events import damaged, ends_with_checksum
from warp.sources.mysql.binlog.gtid import (
    COMPLETED_XA,
    PREPARED_XA,
    STANDALONE,
    Gtid,
    MariaGtid,
    MysqlBeginning,
    gtid_event,
    mariadb_gtid_event,
    tagged_gtid_event,
    xid_key,
    xid_text,
)
from warp.sources.mysql.binlog.rows import (
    LoggedTable,
    Moved,
    Row,
    Wanted,
    logged_table,
    table_id_of,
)
from warp.sources.mysql.binlog.statements import Sort, Statement, outline, statement_of


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the log files: the file, and the byte after the last event."""

    file: str
    position: int

    def __str__(self) -> str:
        return f"{self.file}:{self.position}"


@dataclass(frozen=True, slots=True)
class Began:
    gtid: Gtid | MariaGtid | None
    committed_at: float  # Unix seconds; whole ones where the server knows no better


@dataclass(slots=True)
class Rows:
    """The rows of one event.  CREATE and UPDATE: as they are now; DELETE: as they were."""

    table: LoggedTable
    operation: Operation
    rows: list[Row]
    moved: list[Moved]  # UPDATE only: rows whose key was another


@dataclass(slots=True)
class Unread:
    """The rows of one event, before anybody has looked into them."""

    table: LoggedTable
    operation: Operation
    event: bytes
    place: int  # where its rows begin, with the sets of columns that are there
    end: int

    def read(self) -> Rows:
        table, event, place, end = self.table, self.event, self.place, self.end
        if self.operation is Operation.UPDATE:
            rows, moved = table.updated(event, place, end)
            return Rows(table, self.operation, rows, moved)
        read = table.deleted if self.operation is Operation.DELETE else table.inserted
        return Rows(table, self.operation, read(event, place, end), [])


@dataclass(frozen=True, slots=True)
class Noted:
    """A statement that changes what a table is, or empties it: CREATE, ALTER, TRUNCATE, …"""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Ended:
    """A marker may stand here, unless rows of a prepared XA transaction are still held."""

    place: Place
    gtid: Gtid | MariaGtid | None
    held: bool = False
    # Tables whose rows, already given out, may have been undone: snapshot them anew.
    doubtful: tuple[TableId, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """The events that follow are of another file, or of this one from the place asked for."""

    begun: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class Heard:
    """No transaction, but the log has come this far: another file, or a heartbeat."""

    place: Place
    held: bool = False  # rows of a prepared XA transaction are still held: no marker stands here


Step = Opened | Began | Rows | Unread | Noted | Ended | Heard

_SYSTEM: Final = frozenset({"mysql", "sys", "performance_schema", "information_schema"})
_NOTED: Final = frozenset(
    {Sort.CREATE, Sort.ALTER, Sort.DROP, Sort.RENAME, Sort.TRUNCATE, Sort.DROP_DATABASE}
)
_KNOWN_LIMIT: Final = 10_000  # table maps: one for each shape a table has had
_MADE_FOR_US: Final = (E.ROTATE, E.HEARTBEAT, E.HEARTBEAT_V2)  # with a checksum, or without one
_NO_TABLE: Final = b"\xff\xff\xff\0\0\0"  # the id of rows that are none, which end a statement

_INSERTS: Final = (E.WRITE_ROWS_V1, E.WRITE_ROWS)
_UPDATES: Final = (E.UPDATE_ROWS_V1, E.UPDATE_ROWS)
_DELETES: Final = (E.DELETE_ROWS_V1, E.DELETE_ROWS)
_FIRST_FORM: Final = frozenset(
    {
        *(E.WRITE_ROWS_V1, E.UPDATE_ROWS_V1, E.DELETE_ROWS_V1, E.WRITE_ROWS_COMPRESSED_V1),
        *(E.UPDATE_ROWS_COMPRESSED_V1, E.DELETE_ROWS_COMPRESSED_V1),
    }
)
_COMPRESSED_ROWS: Final = {
    E.WRITE_ROWS_COMPRESSED_V1: E.WRITE_ROWS_V1,
    E.UPDATE_ROWS_COMPRESSED_V1: E.UPDATE_ROWS_V1,
    E.DELETE_ROWS_COMPRESSED_V1: E.DELETE_ROWS_V1,
    E.WRITE_ROWS_COMPRESSED: E.WRITE_ROWS,
    E.UPDATE_ROWS_COMPRESSED: E.UPDATE_ROWS,
    E.DELETE_ROWS_COMPRESSED: E.DELETE_ROWS,
}


@dataclass(slots=True)
class _Held:
    """Rows of an XA transaction that is prepared, or will be."""

    steps: list[Rows] = field(default_factory=list)
    rows: int = 0


class Transactions:
    """One connection's events, from a place where a transaction may begin."""

    def __init__(
        self,
        wanted: Callable[[TableId], Wanted | None],
        start: Place,
        *,
        verify: bool = True,
        held_rows: int = 100_000,
        unread: bool = False,
    ) -> None:
        """`wanted` says None for a table nobody selected.

        With `unread` rows are given out as the events have them, where their transaction's end is
        not awaited.
        `held_rows` bounds what prepared XA transactions keep in memory (guarantee 9).
        """
        self._wanted = wanted
        self._file, self._high, self._low = "", 0, 0  # the place, as two halves of 32 bits
        self._move(start)
        self._verify = verify
        self._checked = False  # verify, and this file has checksums
        self._held_limit = held_rows
        self._unread = unread
        self._tail = 0
        self._by_mariadb = False
        self._known: dict[bytes, LoggedTable | None] = {}
        self._mapped: dict[bytes, LoggedTable | None] = {}
        self._begun = False  # between Began and Ended
        self._open = False  # a COMMIT or an XID will end it
        self._gtid: Gtid | MariaGtid | None = None
        self._timestamp = 0
        self._touched: dict[int, LoggedTable] = {}  # by identity: a hash of names costs more
        self._undone = False
        self._xid: str | None = None  # of the XA transaction whose rows come now
        self._held: dict[str, _Held] = {}
        known: dict[int, Callable[[bytes, int], Iterable[Step]]] = {
            E.FORMAT_DESCRIPTION: self._format,
            E.ROTATE: self._rotate,
            E.HEARTBEAT: self._between,
            E.HEARTBEAT_V2: self._between,
            E.PREVIOUS_GTIDS: self._between,  # the end of what stands before a file's changes
            E.GTID: lambda event, end: self._mysql(gtid_event(event, end, anonymous=False)),
            E.ANONYMOUS_GTID: lambda event, end: self._mysql(
                gtid_event(event, end, anonymous=True)
            ),
            E.GTID_TAGGED: lambda event, end: self._mysql(tagged_gtid_event(event, end)),
            E.MARIADB_GTID: self._mariadb,
            E.QUERY: self._query,
            E.QUERY_COMPRESSED: self._compressed_query,
            E.EXECUTE_LOAD_QUERY: self._load,
            E.BEGIN_LOAD_QUERY: self._load,
            E.TABLE_MAP: self._table_map,
            **dict.fromkeys(_INSERTS, self._insert),
            **dict.fromkeys(_UPDATES, self._update),
            **dict.fromkeys(_DELETES, self._delete),
            **dict.fromkeys(_COMPRESSED_ROWS, self._compressed_rows),
            E.PARTIAL_UPDATE_ROWS: self._partial,
            E.TRANSACTION_PAYLOAD: self._payload,
            E.XID: self._commit,
            E.XA_PREPARE: self._prepared,
            E.INCIDENT: self._incident,
            **dict.fromkeys(events.PASSED_OVER, self._pass_over),
        }
        self._meanings: list[Callable[[bytes, int], Iterable[Step]]] = [
            known.get(kind, self._unknown) for kind in range(256)
        ]

    @property
    def place(self) -> Place:
        return Place(self._file, self._high + self._low)

    def forget(self) -> None:
        """Ask `wanted` again for every table: what it says has changed."""
        self._known.clear()

    def quiet(self) -> int | None:
        """Where in the file it stands, where nothing is under way and checksums are compared."""
        if self._begun or self._open or self._undone or self._xid or self._held:
            return None
        return self._low if self._checked and self._tail == events.CHECKSUM_SIZE else None

    def passed(self, position: int) -> Place:
        """Somebody else took the transactions up to here, in the same file."""
        self._low = position
        return self.place

    def feed(self, event: bytes) -> Iterable[Step]:
        """What one event means.  Use it up before the next event is fed."""
        kind: int
        size: int
        try:
            _, kind, _, size, next_position, flags = events.unpack_header(event)
        except struct.error:
            raise damaged(f"{len(event)} bytes, fewer than a header has") from None
        if size != len(event):
            raise damaged(f"{len(event)} bytes where the header says {size}")
        if self._checked and not ends_with_checksum(event) and kind not in _MADE_FOR_US:
            raise damaged(f"a wrong checksum in {events.type_name(kind)}")
        if next_position >= self._low:
            self._low = next_position
        elif next_position and not flags & events.ARTIFICIAL:
            # 32 bits, which a file beyond 4 GiB counts anew from 0.
            self._high, self._low = self._high + (1 << 32), next_position
        return self._meanings[kind](event, size - self._tail)

    def _move(self, place: Place) -> None:
        self._file = place.file
        self._high, self._low = place.position & ~0xFFFFFFFF, place.position & 0xFFFFFFFF

    # -- files

    def _format(self, event: bytes, end: int) -> Iterable[Step]:
        form = events.format_of(event)
        self._tail = events.CHECKSUM_SIZE if form.checksums else 0
        self._checked = form.checksums and self._verify
        self._by_mariadb = "MariaDB" in form.server_version
        return (*self._cut_short(), Opened(int.from_bytes(event[:4], "little")))

    def _rotate(self, event: bytes, end: int) -> Iterable[Step]:
        tail = events.CHECKSUM_SIZE if ends_with_checksum(event) else 0
        file, position = events.rotation_of(event, len(event) - tail)
        steps = self._cut_short()
        self._move(Place(file, position))
        self._mapped.clear()
        return (*steps, self._heard())

    def _cut_short(self) -> tuple[Step, ...]:
        """No transaction goes on in another file: one that is open was never committed."""
        if self._touched and self._xid is None:
            self._undone, self._gtid = True, None
            return tuple(self._end())
        self._begun = self._open = False
        self._xid = None
        return ()

    def _between(self, event: bytes, end: int) -> Iterable[Step]:
        return () if self._begun else (self._heard(),)

    def _heard(self) -> Heard:
        return Heard(self.place, bool(self._held))

    # -- beginnings

    def _begin(self, gtid: Gtid | MariaGtid | None, committed_at: float) -> Iterable[Step]:
        self._begun, self._gtid = True, gtid
        return (Began(gtid, committed_at),)

    def _mysql(self, beginning: MysqlBeginning) -> Iterable[Step]:
        return self._begin(beginning.gtid, beginning.committed_at)

    def _mariadb(self, event: bytes, end: int) -> Iterable[Step]:
        beginning = mariadb_gtid_event(event, end)
        self._open = not beginning.flags & STANDALONE
        if beginning.flags & PREPARED_XA:
            self._xid = xid_text(beginning.xid)
        elif beginning.flags & COMPLETED_XA:
            self._open = False
        return self._begin(beginning.gtid, int.from_bytes(event[:4], "little"))

    # -- statements

    def _query(self, event: bytes, end: int) -> Iterable[Step]:
        if not self._open and event.endswith(b"\0BEGIN", 0, end):  # nearly always
            self._open = True
            if self._begun:
                return ()
        return self._statement(event, events.query_of(event, end))

    def _compressed_query(self, event: bytes, end: int) -> Iterable[Step]:
        return self._statement(event, events.query_of(event, end, compressed=True))

    def _statement(self, event: bytes, query: events.Query) -> Iterable[Step]:
        statement = statement_of(query.text, query.namespace)
        steps: list[Step] = []
        if not self._begun:
            steps += self._begin(None, int.from_bytes(event[:4], "little"))
        sort = statement.sort
        if sort is Sort.BEGIN:
            self._open = True
        elif sort is Sort.COMMIT:
            steps += self._end()
        elif sort is Sort.ROLLBACK:
            # Rows of tables without transactions stay; which those are the log does not say.
            self._undone = True
            steps += self._end()
        elif sort is Sort.ROLLBACK_TO:
            self._undone = True
        elif sort is Sort.XA_START:
            self._open, self._xid = True, xid_key(statement.xid)
        elif sort in (Sort.XA_COMMIT, Sort.XA_ROLLBACK):
            steps += self._decided(statement)
        elif sort in (Sort.SAVEPOINT, Sort.XA_END):
            pass
        else:
            if sort is Sort.ROWS:
                self._refuse_rows(statement)
            elif sort in _NOTED:
                steps.append(Noted(statement))
                self._known.clear()  # a column's declared type may be another from here on
            if not self._open:
                steps += self._end()
        return steps

    def _refuse_rows(self, statement: Statement) -> None:
        """A change that is in the log as a statement: its rows cannot be known."""
        selected = [
            table
            for table in statement.tables
            if table.namespace not in _SYSTEM and self._wanted(table) is not None
        ]
        if selected or not statement.tables:
            raise SourceRefused(
                f"expected the rows of every change (binlog_format=ROW), found the statement "
                f"{outline(statement.text)!r} at {self.place}; a session or the "
                "server writes with binlog_format=STATEMENT or MIXED: set it to ROW, then "
                "`cartridge-warp resync`, since the rows of this statement are not in the log",
                place=", ".join(map(str, selected)),
            )

    def _load(self, event: bytes, end: int) -> Iterable[Step]:
        raise SourceRefused(
            "expected the rows of every change (binlog_format=ROW), found LOAD DATA as a "
            f"statement at {self.place}; set binlog_format=ROW, then "
            "`cartridge-warp resync`"
        )

    # -- rows

    def _table_map(self, event: bytes, end: int) -> Iterable[Step]:
        # The id is another after each restart; everything else is the same for the same table.
        body = event[25:end]
        try:
            table = self._known[body]
        except KeyError:
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            wanted = self._wanted(table_id_of(event, end))
            table = (
                None
                if wanted is None
                else logged_table(event, end, wanted, mariadb=self._by_mariadb)
            )
            if table is not None:
                table.body = body
            self._known[body] = table
        self._mapped[event[19:25]] = table
        return ()

    def _table(self, event: bytes) -> LoggedTable | None:
        try:
            return self._mapped[event[19:25]]
        except KeyError:
            if event[19:25] == _NO_TABLE:
                return None
            # Never passed over: mysql-replication does, and loses these rows.
            raise damaged(
                f"rows of a table that no table map names before them, at {self.place}"
            ) from None

    def _insert(self, event: bytes, end: int) -> Iterable[Step]:
        table = self._table(event)
        if table is None:
            return ()
        return self._rows(Unread(table, Operation.CREATE, event, _start_of_rows(event), end))

    def _delete(self, event: bytes, end: int) -> Iterable[Step]:
        table = self._table(event)
        if table is None:
            return ()
        return self._rows(Unread(table, Operation.DELETE, event, _start_of_rows(event), end))

    def _update(self, event: bytes, end: int) -> Iterable[Step]:
        table = self._table(event)
        if table is None:
            return ()
        return self._rows(Unread(table, Operation.UPDATE, event, _start_of_rows(event), end))

    def _rows(self, unread: Unread) -> Iterable[Step]:
        table = unread.table
        self._touched[id(table)] = table
        if self._unread and self._xid is None:
            return (unread,)
        step = unread.read()
        if self._xid is None:
            return (step,)
        held = self._held.setdefault(self._xid, _Held())
        held.steps.append(step)
        held.rows += len(step.rows)
        if sum(each.rows for each in self._held.values()) > self._held_limit:
            raise SourceRefused(
                f"expected prepared XA transactions of at most {self._held_limit:,} rows together, "
                f"found more, the last in {self._xid}; commit or roll back what `XA RECOVER` "
                "shows at the source"
            )
        return ()

    def _compressed_rows(self, event: bytes, end: int) -> Iterable[Step]:
        table = self._table(event)
        if table is None:
            return ()
        kind = _COMPRESSED_ROWS[E(event[4])]
        rows_at = _start_of_rows(event) + table.header_size(update=kind in _UPDATES)
        plain = (
            event[:4] + bytes((kind,)) + event[5:rows_at] + events.uncompressed(event[rows_at:end])
        )
        return self._meanings[kind](plain, len(plain))

    def _partial(self, event: bytes, end: int) -> Iterable[Step]:
        table = self._table(event)
        if table is None:
            return ()
        raise SourceRefused(
            "expected whole JSON values in the log, found parts of them "
            f"(PARTIAL_UPDATE_ROWS at {self.place}); a session or the server has "
            "binlog_row_value_options=PARTIAL_JSON: set it to '', then `cartridge-warp resync`",
            place=str(table.map),
        )

    def _payload(self, event: bytes, end: int) -> Iterator[Step]:
        tail, self._tail = self._tail, 0
        try:
            for inner in events.events_of_payload(event, end):
                yield from self._meanings[inner[4]](inner, len(inner))
        finally:
            self._tail = tail

    # -- ends

    def _commit(self, event: bytes, end: int) -> Iterable[Step]:
        return self._end()

    def _end(self) -> list[Step]:
        doubtful: tuple[TableId, ...] = ()
        if self._undone:
            doubtful = tuple(sorted({table.schema.table for table in self._touched.values()}))
        ended = Ended(self.place, self._gtid, bool(self._held), doubtful)
        self._begun = self._open = self._undone = False
        self._gtid = self._xid = None
        self._touched.clear()
        # A row after this must have a table map of its own transaction before it.
        self._mapped.clear()
        return [ended]

    def _prepared(self, event: bytes, end: int) -> Iterable[Step]:
        """XA_PREPARE: the rows wait for XA COMMIT, unless it is both in one."""
        steps: list[Step] = []
        if event[19:20] == b"\1" and self._xid is not None:
            steps += self._held.pop(self._xid, _Held()).steps
        elif self._xid is not None:
            self._held.setdefault(self._xid, _Held())
        return steps + self._end()

    def _decided(self, statement: Statement) -> list[Step]:
        name = xid_key(statement.xid)
        held = self._held.pop(name, None)
        if statement.sort is Sort.XA_ROLLBACK:
            return self._end()
        if held is None:
            raise PositionLost(
                f"found XA COMMIT {statement.xid} at {self.place}, whose rows "
                "were written before the place this stream began at; run `cartridge-warp resync`, "
                "with no transaction in `XA RECOVER` when it starts"
            )
        self._touched |= {id(step.table): step.table for step in held.steps}
        return [*held.steps, *self._end()]

    def _incident(self, event: bytes, end: int) -> Iterable[Step]:
        raise PositionLost(
            f"the server says at {self.place} that changes are missing in its "
            "log (an INCIDENT event); run `cartridge-warp resync`"
        )

    # -- the rest

    def _pass_over(self, event: bytes, end: int) -> Iterable[Step]:
        return ()

    def _unknown(self, event: bytes, end: int) -> Iterable[Step]:
        flags = int.from_bytes(event[17:19], "little")
        if flags & events.IGNORABLE:
            return ()
        raise SourceRefused(
            f"expected events that MySQL 9 or MariaDB 11 write, found type {event[4]} at "
            f"{self.place}; passing over it could lose rows: use a newer "
            "cartridge-warp, or turn off the server's setting that writes it"
        )


def _start_of_rows(event: bytes) -> int:
    """After the table's id and flags, and in the second form after what else is said."""
    if event[4] in _FIRST_FORM:
        return 27
    return 27 + (event[27] | event[28] << 8)
