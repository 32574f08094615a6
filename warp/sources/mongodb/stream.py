"""One change stream, followed for ever: events in, change batches out, nothing lost between.

The stream is opened on the database, so it survives drops and renames of its collections, and
reads with `fullDocument: updateLookup`.  A look-up that finds nothing means that the document was
deleted meanwhile: its delete follows, so the update is skipped, never written as an empty row.

A batch ends at the token of its last event, inside a transaction too (each event's token is a
place to resume, seen on 6.0.5), or at the server's postBatchResumeToken where a reply ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bson.raw_bson import RawBSONDocument
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from warp import native
from warp.errors import PositionLost
from warp.model import ChangeBatch, Operation, Position, TableChanges, TableId, TableSelection
from warp.sources.documents import EMPTY, BsonDocuments
from warp.sources.elements import elements
from warp.sources.mongodb import errors
from warp.sources.mongodb.cursor import RawCursor, Reply, gathering
from warp.sources.mongodb.events import (
    OtherEvent,
    RowEvent,
    careful,
    parse,
    table_of,
    with_document,
)
from warp.sources.mongodb.tokens import Token

if TYPE_CHECKING:
    from warp.native.replies import Events, Slices

# After activity the server is asked for so long before the stream says that it has caught up.
_QUICK_MS: Final = 10
# Killing a cursor does not always wake a read that waits there (seen on 6.0.5), so that `close`
# may have to wait for this long.
_LONGEST_WAIT: Final = 0.5  # seconds
# New cursors at the same place before somebody else is told: an election takes one or two.
_REOPENINGS: Final = 3


@dataclass(slots=True)
class _Part:
    """The changes of one table in the batch being made."""

    table: TableId
    operations: bytearray = field(default_factory=bytearray)
    versions: list[int] = field(default_factory=list)
    documents: Slices | list[bytes] = field(default_factory=gathering)

    def changes(self) -> TableChanges:
        documents = BsonDocuments(self.table, self.documents, self.operations)
        return TableChanges(self.table, self.operations, self.versions, documents=documents)


class ChangeStream:
    """Follows one database, or several as one stream of the cluster."""

    def __init__(
        self,
        database: Database[Any],
        *,
        namespaces: tuple[str, ...] = (),
        whole_cluster: bool = False,
        ignored: tuple[TableId, ...] = (),
        read_size: Callable[[], int],
        closed: threading.Event,
        oldest: Callable[[], str],
    ) -> None:
        """The database's own events; or the cluster's, from `admin`, of some or all databases.

        `ignored` tables are known not to be selected, so the server need not send them.
        `oldest` says where the log begins, for the message of a lost position.
        """
        self._database = database
        self._namespaces = namespaces
        self._whole_cluster = whole_cluster
        self._ignored = ignored
        self._read_size = read_size
        self._closed = closed
        self._oldest = oldest
        self._cursor: RawCursor | None = None

    # -- opening

    def pipeline(self, token: Token, *, lean: bool = False) -> list[dict[str, Any]]:
        """With `lean` the events come without their documents."""
        options: dict[str, Any] = {"fullDocument": "updateLookup", **token.resume()}
        if self._whole_cluster:
            options["allChangesForCluster"] = True
        stages: list[dict[str, Any]] = [{"$changeStream": options}]
        wanted: dict[str, Any] = {}
        if self._namespaces:
            wanted["ns.db"] = {"$in": list(self._namespaces)}
        if self._ignored:
            # A rename may bring an ignored collection to a name that is selected.
            structural = {"operationType": {"$nin": ["insert", "update", "replace", "delete"]}}
            names = [{"ns.db": t.namespace, "ns.coll": t.name} for t in self._ignored]
            wanted["$or"] = [{"$nor": names}, structural]
        if wanted:
            stages.append({"$match": wanted})
        # Never used, and with it an event may pass 16 MB, which ends the stream (10334).
        stages.append({"$unset": ["updateDescription", *(["fullDocument"] if lean else [])]})
        return stages

    def open(self, token: Token, *, lean: bool = False) -> RawCursor:
        pipeline = self.pipeline(token, lean=lean)
        command = {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": 0}}
        self._cursor = RawCursor(self._database, command)
        return self._cursor

    def close(self) -> None:
        """From any thread: ends a read that waits at the server."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()

    # -- following

    def follow(
        self, position: Position, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        place = _Place(Token.parse(position.token), position)
        reopened = 0
        while not self._closed.is_set():
            try:
                for batch in self._read(place, selection, idle):
                    reopened = 0
                    yield batch
                    if self._closed.is_set():
                        return
            except PyMongoError as error:
                if self._closed.is_set():
                    return
                reopened += 1
                place.too_large = _code(error) == errors.OBJECT_TOO_LARGE and not place.too_large
                if not place.too_large:
                    place.resume = self._reaction(error, place, reopened)
            finally:
                self.close()

    def _reaction(self, error: PyMongoError, place: _Place, reopened: int) -> Token:
        """Where to open the stream again after an error, or the error of ours to end with."""
        code = _code(error)
        once = reopened == 1
        if code == errors.CHANGE_STREAM_HISTORY_LOST or (
            code == errors.CAPPED_POSITION_LOST and not once
        ):
            raise self._lost(place, f"error {code}") from error
        if code == errors.CAPPED_POSITION_LOST:
            return place.resume  # the cursor was overtaken; a new one may still find the place
        if code == errors.CHANGE_STREAM_FATAL and place.resume.data and once:
            # "Resume token was not found": made by another filter or server version.  What comes
            # twice from the start of its moment is harmless, for applying is idempotent.
            return place.resume.moment_before()
        if errors.is_transient(error) and reopened <= _REOPENINGS:
            return place.resume
        raise errors.translate(error, f"follow the changes of {self._database.name}") from error

    def _lost(self, place: _Place, why: str) -> PositionLost:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(place.resume.seconds))
        return errors.position_lost(
            self._database.name, f"the marker is at {at}, {why}", self._oldest()
        )

    def _read(self, place: _Place, selection: TableSelection, idle: float) -> Iterator[ChangeBatch]:
        """Batches of one open cursor; empty ones while nothing happens."""
        lean = place.too_large
        cursor = self.open(place.resume, lean=lean)
        # Events of the moment itself come again when a stream starts at it.
        known = place.resume.version if not place.resume.data else -1
        cursor.read(0)
        wait_ms, busy, passed = _QUICK_MS, True, 0
        spoken = time.monotonic()
        while not self._closed.is_set():
            reply = cursor.read(1 if lean else self._read_size(), wait_ms)
            found = self._looked_up(reply) if lean else _reading(reply)
            for batch in self._batches(found, reply, place, selection, known):
                yield batch
                spoken = time.monotonic()
            if cursor.exhausted:  # invalidated: open anew behind the event that did it
                return
            passed += len(reply.documents)
            if lean and (passed >= self._read_size() or not reply.documents):
                place.too_large = False  # the one that did not fit was among those that passed
                return
            was_busy, busy = busy, bool(reply.documents)
            if (was_busy and not busy) or time.monotonic() - spoken >= idle:
                yield ChangeBatch([], place.shown, read_at=time.time())
                spoken = time.monotonic()
            wait_ms = _QUICK_MS if busy else max(1, int(min(idle, _LONGEST_WAIT) * 1000))

    def _looked_up(self, reply: Reply) -> Iterator[RowEvent | OtherEvent]:
        """Events without documents, each with the document as it is now, found by its key."""
        for event in reply.documents:
            namespace = next((v for _, name, v in elements(event) if name == b"ns"), b"")

            def look_up(key: bytes, namespace: bytes = namespace) -> bytes | None:
                database, collection = table_of(namespace)
                find = {"find": collection, "filter": RawBSONDocument(key), "limit": 1}
                cursor = RawCursor(self._database.client[database], find)
                try:
                    return next(iter(cursor.read(1).documents), None)
                finally:
                    cursor.close()

            yield with_document(event, look_up)

    def _batches(
        self,
        events: Events | Iterable[RowEvent | OtherEvent],
        reply: Reply,
        place: _Place,
        selection: TableSelection,
        known: int,
    ) -> Iterator[ChangeBatch]:
        """The batches of one reply.  It holds 16 MB at most, so only rows need counting."""
        making = _Making(selection)
        if isinstance(events, Iterable):
            wall_ms = yield from _one_by_one(events, making, place, known)
        else:
            wall_ms = yield from _by_runs(events, making, place, known)
        if reply.resume is not None:
            place.move(Token.of(reply.resume, drained=not reply.documents), wall_ms)
        if making.rows or making.reload:
            yield making.batch(place.shown)


def _reading(reply: Reply) -> Events | Iterable[RowEvent | OtherEvent]:
    if native.active() and isinstance(reply.documents, native.replies.Slices):
        return native.replies.Events(reply.documents)
    return map(parse, reply.documents)


class _Making:
    """The batch being made of a reply's events."""

    def __init__(self, selection: TableSelection) -> None:
        self.selection = selection
        self._begin()

    def _begin(self) -> None:
        self.parts: dict[TableId, _Part] = {}
        self.reload: list[TableId] = []
        self.rows = 0
        self._limit = _NO_LIMIT  # the least of its tables'
        self._chosen: dict[bytes, _Part | None] = {}  # by namespace, as events name their table

    def part(self, namespace: bytes) -> _Part | None:
        """The table's, or None where it is not selected."""
        try:
            return self._chosen[namespace]
        except KeyError:
            table = TableId(*table_of(namespace))
            settings = self.selection(table)
            part = None if settings is None else _part(self.parts, table)
            if settings is not None:
                self._limit = min(self._limit, settings.write_batch_size)
            self._chosen[namespace] = part
            return part

    @property
    def room(self) -> int:
        """For rows; a batch of truncations alone may be full and still take one."""
        return max(1, self._limit - self.rows)

    @property
    def full(self) -> bool:
        return self.rows >= self._limit

    def batch(self, end: Position) -> ChangeBatch:
        """What was made; the next one begins."""
        made = _batch(self.parts, self.reload, end)
        self._begin()
        return made


def _one_by_one(
    events: Iterable[RowEvent | OtherEvent], making: _Making, place: _Place, known: int
) -> Generator[ChangeBatch, None, int]:
    """The full batches; returns when the last event happened."""
    wall_ms = 0
    for row in events:
        if isinstance(row, OtherEvent):
            wall_ms = row.wall_ms
            if row.version > known:
                making.rows += _structural(row, making.parts, making.reload, making.selection)
            continue
        token, operation, namespace, version, wall_ms, document = row
        if version <= known or document is None:
            continue
        part = making.part(namespace)
        if part is None:
            continue
        part.operations.append(operation)
        part.versions.append(version)
        part.documents.append(document)
        making.rows += 1
        if making.full:
            place.move(_token(token), wall_ms)
            yield making.batch(place.shown)
    return wall_ms


_SKIPPED, _TAKEN, _ASK = range(3)  # what a run does with the rows of a namespace


def _by_runs(
    events: Events, making: _Making, place: _Place, known: int
) -> Generator[ChangeBatch, None, int]:
    """The same, of events that were read where they lie."""
    at, wall_ms = 0, 0
    namespaces = events.namespaces
    wanted = bytearray((_ASK,)) * len(namespaces)
    while at < len(events):
        stop, rows = events.run(at, making.room, known, wanted)
        for number, operations, versions, documents in events.gather(at, stop, known, wanted):
            part = making.part(namespaces[number])
            if part is None:
                raise AssertionError("only rows of selected tables are taken")
            part.operations += operations
            part.versions += versions
            part.documents.extend(documents)
        if stop > at:
            wall_ms = events.wall_ms(stop - 1)
        at = stop
        making.rows += rows
        if rows and making.full:
            place.move(_token(events.token(at - 1)), wall_ms)
            yield making.batch(place.shown)
            wanted = bytearray((_ASK,)) * len(namespaces)
        elif at < len(events):
            asked = events.namespace(at)
            if asked is None:
                before = making.parts
                wall_ms = yield from _one_by_one([careful(events.event(at))], making, place, known)
                if making.parts is not before:
                    wanted = bytearray((_ASK,)) * len(namespaces)
                at += 1
            else:
                part = making.part(namespaces[asked])
                wanted[asked] = _SKIPPED if part is None else _TAKEN
    return wall_ms


_NO_LIMIT: Final = 1 << 62


class _Place:
    """How far the stream has got: where to resume, and what the consumer was told."""

    __slots__ = ("_furthest", "resume", "shown", "too_large")

    def __init__(self, resume: Token, shown: Position) -> None:
        self.resume = resume
        self.shown = shown
        self.too_large = False  # the next event does not fit a reply with its document
        self._furthest = resume

    def move(self, token: Token, wall_ms: int) -> None:
        """On to `token`.  What was shown never moves back, also when events come again."""
        self.resume = token
        if self._furthest.before(token):
            self._furthest = token
            committed_at = (
                wall_ms / 1000 if wall_ms else max(self.shown.committed_at, token.seconds)
            )
            self.shown = token.position(committed_at)


def _batch(parts: dict[TableId, _Part], reload: list[TableId], end: Position) -> ChangeBatch:
    changes = [part.changes() for part in parts.values() if part.operations]
    return ChangeBatch(changes, end, tuple(reload), time.time())


def _part(parts: dict[TableId, _Part], table: TableId) -> _Part:
    """The table's one part of the batch, for its rows and its truncations alike.

    In two parts they would lose their order: rows between a drop and a rename that came in one
    reply outlived the rename (guarantee 5).
    """
    return parts.setdefault(table, _Part(table))


def _truncate(parts: dict[TableId, _Part], table: TableId, version: int) -> int:
    part = _part(parts, table)
    part.operations.append(Operation.TRUNCATE)
    part.versions.append(version)
    part.documents.append(EMPTY)
    return 1


def _token(token: bytes | dict[str, Any]) -> Token:
    return Token.of(token if isinstance(token, dict) else {"_data": token.decode("ascii")})


def _structural(
    event: OtherEvent,
    parts: dict[TableId, _Part],
    reload: list[TableId],
    selection: TableSelection,
) -> int:
    """A collection was dropped or renamed: rows that are gone, tables to read anew."""
    rows = 0
    table = TableId(event.database, event.collection)
    if event.operation in ("drop", "rename") and selection(table) is not None:
        rows += _truncate(parts, table, event.version)
    if event.operation == "rename" and event.to is not None:
        renamed = TableId(*event.to)
        if selection(renamed) is not None:
            # One less: a chunk may be read at the very moment of the rename, and must land.
            rows += _truncate(parts, renamed, event.version - 1)
            reload.append(renamed)
    return rows


def _code(error: PyMongoError) -> int | None:
    return error.code if isinstance(error, OperationFailure) else None
