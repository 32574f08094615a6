"""MongoDB as a source: replica sets and sharded clusters, version 5.0 or later.

A collection is a table, a database its namespace.  Reading is split by what is read: `stream`
(the log), `snapshot` (key ranges), `poll` (batch tables); `tokens` says what a position is and
`errors` what each error of the server means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

import pymongo
import structlog
from bson import Timestamp
from pydantic import BaseModel, Field
from pymongo.errors import PyMongoError

from warp.diagnosis import refuse
from warp.digest.seams import BoundsOf, Compared, Summing
from warp.errors import SourceRefused, SourceUnavailable
from warp.interfaces import SourceTraits
from warp.model import (
    ChangeBatch,
    Chunk,
    Diagnosis,
    Headroom,
    KeySpan,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    Verdict,
)
from warp.options import ConnectorOptions, Count, PositiveDuration, redact
from warp.sources.bson_decoding import KEY, decode
from warp.sources.documents import EMPTY, BsonDocuments
from warp.sources.mongodb import keys, look, poll, snapshot
from warp.sources.mongodb.cursor import RawCursor
from warp.sources.mongodb.errors import is_unauthorized, translated
from warp.sources.mongodb.stream import ChangeStream
from warp.sources.mongodb.tokens import Token, order_key
from warp.sources.proposals import propose

_INTERNAL: Final = frozenset({"admin", "config", "local"})
_READ_SIZE: Final = 1_000
_SAMPLE_BYTES: Final = 8 << 20  # and what a reply holds beyond that (guarantee 9)
_TABLES_TRIED: Final = 50  # a look takes about a millisecond each

log = structlog.get_logger(__name__)


class MongoOptions(ConnectorOptions):
    """The `source:` block of type `mongodb`."""

    # A server that cannot be reached is told within ten seconds, on a busy machine too.
    server_selection_timeout: PositiveDuration = Field(
        4.0, description="how long to look for a primary before the source counts as unavailable"
    )
    connect_timeout: PositiveDuration = Field(4.0, description="how long one connection may take")
    socket_timeout: PositiveDuration = Field(
        120.0, description="how long one answer may take; a scan of a long oplog needs its time"
    )
    sample_size: Count = Field(2_000, description="documents looked at to propose columns")


class MongoSource:
    """Reads one replica set or sharded cluster."""

    Options: ClassVar[type[BaseModel]] = MongoOptions
    traits: ClassVar[SourceTraits] = SourceTraits(
        schemaless=True,
        headroom=True,
        ranges=True,
        compares=True,
        estimates=True,
        key_in_positions=KEY,
    )

    def __init__(self, options: MongoOptions, selection: TableSelection) -> None:
        self._options = options
        self._selection = selection
        self._closed = threading.Event()
        self._connected: pymongo.MongoClient[dict[str, Any]] | None = None
        self._connecting = threading.Lock()
        self._stream: ChangeStream | None = None
        self._warned: set[TableId] = set()

    def __repr__(self) -> str:
        return "<MongoSource>"

    # -- what is there

    def check(self) -> None:
        refuse(self._look(), SourceRefused)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        """What is asked of the server, in an order in which nothing is asked in vain."""
        with translated("connect to MongoDB"):
            hello = self._client.admin.command("hello")
            said = str(self._client.admin.command("buildInfo")["version"])
        yield (first := look.topology(hello))
        if first.verdict is Verdict.FAILED:
            return
        yield look.version(hello, said)
        # The driver tells no other way, whatever part of the connection string asked for it.
        encrypted = getattr(self._client.options.pool_options, "_ssl_context", None) is not None
        yield look.wire([host for host, _ in self._client.nodes], encrypted=encrypted)
        user = self._user()
        namespace = getattr(self._selection, "namespace", None) or self._options.database or ""
        try:
            tables = self.tables()
        except SourceRefused as error:
            if not is_unauthorized(error):
                raise
            yield look.right("listCollections", namespace, user, given=False)
            return
        # Before the change stream: a user without any right sees no collection either.
        for table in tables[:_TABLES_TRIED]:
            yield self._tried("find", table.namespace, user, lambda t=table: self._read_one(t))  # type: ignore[misc]
        yield self._tried("changeStream", namespace, user, self._open_stream)
        yield look.tables([str(table) for table in tables])
        for table, kind in self._left_out():
            yield look.left_out(str(table), kind)
        if first.found != "mongos":  # each shard keeps a log of its own
            filled, megabytes = self._oplog_size()
            yield look.oplog(self._oplog_window(), filled, user, megabytes=megabytes)

    def _tried(
        self, action: str, place: str, user: Mapping[str, str] | None, act: Callable[[], None]
    ) -> Diagnosis:
        try:
            with translated(f"{action} on {place}"):
                act()
        except SourceRefused as error:
            if not is_unauthorized(error):
                raise
            return look.right(action, place, user, given=False)
        return look.right(action, place, user, given=True)

    def _read_one(self, table: TableId) -> None:
        self._client[table.namespace].command({"find": table.name, "limit": 1})

    def _open_stream(self) -> None:
        stream = self._change_stream(self._selection)
        stream.open(Token.at(order_key(self._now()))).read(0)
        stream.close()

    def _user(self) -> Mapping[str, str] | None:
        """Who we are to the server; None where it asks nobody."""
        with translated("ask who we are"):
            status = self._client.admin.command("connectionStatus")
        users: list[dict[str, str]] = status["authInfo"]["authenticatedUsers"]
        return users[0] if users else None

    def _left_out(self) -> Iterator[tuple[TableId, str]]:
        """What is selected and cannot be followed."""
        namespace = getattr(self._selection, "namespace", None)
        for database in [namespace] if namespace is not None else self.namespaces():
            with translated(f"list the collections of {database}"):
                listed = self._client[database].list_collections(
                    nameOnly=True, authorizedCollections=True
                )
                for each in listed:
                    table = TableId(database, each["name"])
                    plain = each["type"] == "collection" or each["name"].startswith("system.")
                    if not plain and self._selection(table) is not None:
                        yield table, str(each["type"])

    def _oplog_size(self) -> tuple[float | None, float]:
        """The share of its size that the oplog has reached, and that size in megabytes."""
        try:
            stats = self._client.local.command("collStats", "oplog.rs")
        except PyMongoError:
            return None, 0.0
        return stats["size"] / stats["maxSize"], stats["maxSize"] / (1 << 20)

    def namespaces(self) -> list[str]:
        with translated("list databases"):
            command = {"listDatabases": 1, "nameOnly": True, "authorizedDatabases": True}
            found = self._client.admin.command(command)["databases"]
        return sorted(each["name"] for each in found if each["name"] not in _INTERNAL)

    def tables(self) -> list[TableId]:
        return [t for t in self._collections(self._selection) if self._selection(t) is not None]

    def _collections(self, selection: TableSelection) -> list[TableId]:
        """The collections of the selection's database, or of all, that can be followed."""
        namespace = getattr(selection, "namespace", None)
        found: list[TableId] = []
        for database in [namespace] if namespace is not None else self.namespaces():
            with translated(f"list the collections of {database}"):
                listed = self._client[database].list_collections(
                    nameOnly=True, authorizedCollections=True
                )
                for each in listed:
                    table = TableId(database, each["name"])
                    if each["type"] == "collection" and not table.name.startswith("system."):
                        found.append(table)
                    elif selection(table) is not None:
                        self._warn_left_out(table, each["type"])
        return sorted(found)

    def _warn_left_out(self, table: TableId, kind: str) -> None:
        if table not in self._warned and not table.name.startswith("system."):
            self._warned.add(table)
            log.warning("left out: it has no change stream", table=str(table), type=kind)

    def rows_about(self, tables: Sequence[TableId]) -> dict[TableId, int]:
        """What the collections' metadata says, which is not exact after a crash."""
        with translated("estimate how many documents there are"):
            return {
                t: int(self._client[t.namespace].command({"count": t.name})["n"]) for t in tables
            }

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        present: set[TableId] = set()
        for database in {t.namespace for t in tables}:
            names = [t.name for t in tables if t.namespace == database]
            with translated(f"list the collections of {database}"):
                listed = self._client[database].list_collections(
                    filter={"name": {"$in": names}}, nameOnly=True, authorizedCollections=True
                )
                present |= {TableId(database, c["name"]) for c in listed if c["type"] != "view"}
        proposals: dict[TableId, TableSchema] = {}
        for table in tables:
            settings = self._selection(table)
            if table in present and settings is not None:
                with translated(f"sample {table}"):
                    sample = self._sample(table)
                proposals[table] = propose(table, sample, settings)
        return proposals

    def _sample(self, table: TableId) -> list[dict[str, Any]]:
        """Documents at random, and the first and the last: new fields appear at one end."""
        wanted = self._options.sample_size
        ends = max(1, wanted // 20)
        command: dict[str, Any] = {"aggregate": table.name, "cursor": {}}
        pipelines: list[list[dict[str, Any]]] = [
            [{"$sort": {"_id": 1}}, {"$limit": ends}],
            [{"$sample": {"size": wanted}}],
            [{"$sort": {"_id": -1}}, {"$limit": ends}],
        ]
        counted = int(self._client[table.namespace].command({"count": table.name})["n"])
        if counted <= wanted:
            pipelines = [[{"$limit": wanted}]]
        raw: list[bytes] = []
        size = 0
        for pipeline in pipelines:
            cursor = RawCursor(self._client[table.namespace], command | {"pipeline": pipeline})
            try:
                while not cursor.exhausted and size < _SAMPLE_BYTES:
                    reply = cursor.read(_READ_SIZE)
                    raw += reply.documents
                    size += reply.size
            finally:
                cursor.close()
        return decode(raw)

    # -- the log

    def position(self) -> Position:
        return Token.at(order_key(self._now())).position()

    def version(self) -> int:
        return order_key(self._now())

    def reached(self, position: Position, goal: Position) -> bool:
        return Token.parse(position.token).covers(Token.parse(goal.token))

    def _now(self) -> Timestamp:
        """The newest moment of the cluster's clock, once a majority has everything before it.

        Without the wait a moment could be rolled back by an election: a stream would start after
        changes that a chunk, read at the new primary, had not seen.
        """
        with translated("read the cluster's clock"):
            now: Timestamp | None = self._client.admin.command("ping").get("operationTime")
            if now is None:
                raise SourceRefused(
                    "a replica set or mongos was expected, found a standalone server, which has "
                    "no change streams; start mongod with --replSet and run rs.initiate()"
                )
            command = {
                "find": "any",
                "limit": 1,
                "readConcern": {"level": "majority", "afterClusterTime": now},
                "maxTimeMS": int(self._options.server_selection_timeout * 1000),
            }
            self._client[self._clock_database()].command(command)
        return now

    def _clock_database(self) -> str:
        """Any database that may be read; the collection need not be there."""
        namespace = getattr(self._selection, "namespace", None)
        return namespace or self._options.database or "admin"

    def look_up(self, rows: TableChanges) -> TableChanges:
        """Documents of some keys as `verify` has them; every event of the log carries its own."""
        database = self._client[rows.table.namespace]
        version = self._now()
        with translated(f"look up documents of {rows.table}"):
            found = keys.look_up(database, rows, version)
        documents = BsonDocuments(rows.table, found)
        operations = bytearray((Operation.READ,)) * len(found)
        versions = [order_key(version)] * len(found)
        return TableChanges(rows.table, operations, versions, documents=documents)

    def bounds(self, chunk: Chunk) -> BoundsOf | None:
        return keys.bounds(chunk)

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        """What a document is as a row, its server cannot know."""
        return None

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        stream = self._stream = self._change_stream(selection)
        return stream.follow(position, selection, idle)

    def _change_stream(self, selection: TableSelection) -> ChangeStream:
        collections = self._collections(selection)
        chosen = [t for t in collections if selection(t) is not None]
        namespace = getattr(selection, "namespace", None) or self._options.database
        databases = {t.namespace for t in chosen} or ({namespace} if namespace else set())
        single = databases.pop() if len(databases) == 1 else None
        return ChangeStream(
            self._client[single or "admin"],
            namespaces=() if single else tuple(sorted(databases)),
            whole_cluster=single is None,
            ignored=tuple(t for t in collections if selection(t) is None),
            read_size=lambda: min(
                (s.stream_batch_size for t in chosen if (s := selection(t)) is not None),
                default=_READ_SIZE,
            ),
            closed=self._closed,
            oldest=self._oldest,
        )

    def acknowledge(self, position: Position) -> None:
        """The oplog is kept by size and age, whoever has read it."""

    def headroom(self, position: Position) -> Headroom:
        window = self._oplog_window()
        filled, megabytes = (None, 0.0) if window is None else self._oplog_size()
        at = Token.parse(position.token).seconds
        return look.headroom(at, window, filled, megabytes=megabytes)

    def _oplog_window(self) -> tuple[float, float] | None:
        """When the oldest and the newest entry were written; None where it may not be read."""
        oplog = self._client.local["oplog.rs"]
        ends = []
        for direction in (1, -1):
            with suppress(PyMongoError):
                entry = oplog.find_one({}, {"ts": 1}, sort=[("$natural", direction)])
                if entry is not None:
                    ends.append(float(entry["ts"].time))
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def _oldest(self) -> str:
        window = self._oplog_window()
        if window is None:
            return "an unknown time (the oplog may not be read)"
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(window[0]))

    # -- the rows

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        with translated(f"cut {table} into chunks"):
            return snapshot.cut(self._client[table.namespace], table, rows)

    def chunks_within(self, table: TableId, within: KeySpan, rows: int) -> list[Chunk]:
        schema = self.get_schema([table]).get(table)
        if schema is None:
            return []
        kind = schema.columns[schema.names().index(schema.key[0])].kind
        with translated(f"cut {table} into chunks"):
            return snapshot.cut_within(self._client[table.namespace], table, kind, within, rows)

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        def rows() -> int:
            settings = self._selection(chunk.table)
            return settings.full_load_batch_size if settings else _READ_SIZE

        database = self._client[chunk.table.namespace]
        parts = snapshot.read(database, chunk, rows, now=self._now, closed=self._closed)
        for version, documents in parts:
            yield _rows(
                chunk.table, Operation.READ, version, documents, Token.at(version).position()
            )

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        settings = self._selection(table)
        if settings is None:
            raise SourceRefused("a selected collection was expected", place=str(table))
        database = self._client[table.namespace]
        reached = poll.Reached.parse(position)
        with translated(f"poll {table}"):
            timed = poll.has_field(database, table, settings.timestamp_column)
        # Before the cluster time: what it does not show as open is in the rows of that time.
        reached = poll.begin(self._client, table, settings, reached) if timed else poll.Reached()
        now = self._now()
        version = order_key(now)
        parts = poll.read(
            database,
            table,
            reached,
            settings.timestamp_column if timed else None,
            version=now,
            rows=settings.write_batch_size,
            closed=self._closed,
        )
        for documents, reached in parts:
            yield _rows(table, Operation.READ, version, documents, reached.position(fire_time))
        gone = [] if timed else [EMPTY]  # of a full comparison: rows older than this run
        end = reached.ended().position(fire_time)
        yield _rows(table, Operation.TRUNCATE, version - 1, gone, end)

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        settings = self._selection(table)
        if settings is None:
            raise SourceRefused("a selected collection was expected", place=str(table))
        return poll.start(self._client, table, settings).position(fire_time)

    # -- the connection

    @property
    def _client(self) -> pymongo.MongoClient[dict[str, Any]]:
        with self._connecting:
            if self._closed.is_set():
                raise SourceUnavailable("the connector was closed")
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> pymongo.MongoClient[dict[str, Any]]:
        options = self._options
        try:
            return pymongo.MongoClient(
                options.url,
                serverSelectionTimeoutMS=int(options.server_selection_timeout * 1000),
                connectTimeoutMS=int(options.connect_timeout * 1000),
                socketTimeoutMS=int(options.socket_timeout * 1000),
                # Ours to try again: the driver's second try would double the time until it tells.
                retryReads=False,
                serverMonitoringMode="poll",  # one thread per server instead of two
                server_selector=_stay_with_one_mongos,
                appname="cartridge-warp",
            )
        except (PyMongoError, ValueError) as error:
            # Without its cause, which may repeat the connection string (guarantee 10).
            said = redact(str(error))
            raise SourceRefused(f"a valid connection string was expected: {said}") from None

    def close(self) -> None:
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        with self._connecting:
            if self._connected is not None:
                self._connected.close()


def _stay_with_one_mongos(servers: Sequence[Any]) -> Sequence[Any]:
    """A cursor lives on the mongos that opened it, so all commands go to the same one."""
    routers = [s for s in servers if s.server_type_name == "Mongos"]
    return [min(routers, key=lambda s: s.address)] if routers else servers


def _rows(
    table: TableId, operation: Operation, version: int, documents: Sequence[bytes], end: Position
) -> ChangeBatch:
    """Documents that all had the same happen to them at the same version."""
    changes = []
    if documents:
        count = len(documents)
        operations = bytearray((operation,)) * count
        bson = BsonDocuments(table, documents, operations)
        changes = [TableChanges(table, operations, [version] * count, documents=bson)]
    return ChangeBatch(changes, end, read_at=time.time())
