"""A load of which every write is known, with its place in the source's log, and told to a scribe.

What is tried is drawn from a seed, step by step and for each writer alone, whatever becomes of the
steps before.  A row is only ever written by one writer; where one cannot know what became of a
write, its next write of that row is one that needs not know.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import pymongo
import pymysql
from fleet import Document, Load
from history import REFUSED, Event, Kind, Outcome, Scribe
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError
from sql_fleet import Origin, PostgresOrigin
from warehouses import Warehouse

ACCOUNTS, ENTRIES = "accounts", "entries"
TABLES: Final = (ACCOUNTS, ENTRIES)
DRIVERS: Final = (psycopg.Error, pymysql.err.Error, PyMongoError, OSError)
_MOST: Final = 64  # writes of one step
_WRITERS: Final = 8
_PRELOADED: Final = 1 << 24  # stamps below are of rows that were there before the first step
_FRESH: Final = 1 << 20  # numbers of keys from here on are used once
Key = int | str


@dataclass(frozen=True, slots=True)
class Write:
    kind: Kind
    table: str
    key: Key
    stamp: int
    values: dict[str, Any] = field(default_factory=dict)
    to: Key | None = None  # the key that the row gets


def key_of(table: str, number: int) -> Key:
    return number if table == ACCOUNTS else f"entry/{number} 'ü\"\\%"


# --- how each source is written to ----------------------------------------------------------------


class Pen(ABC):
    """One connection to a source.  After an error it is of no more use."""

    moves_keys: bool

    @abstractmethod
    def write(self, writes: Sequence[Write], *, keep: bool) -> None:
        """All of them, which last or are rolled back."""

    @abstractmethod
    def place(self) -> int:
        """A place in the log with all that this pen wrote before it."""

    @abstractmethod
    def close(self) -> None: ...


class MongoPen(Pen):
    moves_keys = False

    def __init__(self, url: str, database: str) -> None:
        self._client = pymongo.MongoClient[Document](url, w="majority", retryWrites=True)
        self._database = self._client[database]
        self._session: ClientSession = self._client.start_session()

    def write(self, writes: Sequence[Write], *, keep: bool) -> None:
        if len(writes) == 1 and keep:
            self._one(writes[0], self._session)
        elif keep and {(w.kind, w.table) for w in writes} == {(Kind.CREATE, writes[0].table)}:
            documents = [{"_id": w.key, **w.values} for w in writes]
            self._database[writes[0].table].insert_many(documents, session=self._session)
        else:
            self._transaction(writes, keep=keep)

    def _transaction(self, writes: Sequence[Write], *, keep: bool) -> None:
        def all_of_them(session: ClientSession) -> None:
            for write in writes:
                self._one(write, session)
            if not keep:
                session.abort_transaction()

        self._session.with_transaction(all_of_them)

    def _one(self, write: Write, session: ClientSession) -> None:
        collection, key = self._database[write.table], {"_id": write.key}
        if write.kind is Kind.DELETE:
            collection.delete_one(key, session=session)
        elif write.kind is Kind.CHANGE:
            collection.update_one(key, {"$set": write.values}, session=session)
        else:
            collection.replace_one(key, write.values, upsert=True, session=session)

    def place(self) -> int:
        at = self._session.operation_time
        if at is None:
            raise AssertionError("a session that wrote knows when")
        return at.time << 32 | at.inc

    def close(self) -> None:
        self._client.close()


class SqlPen(Pen):
    moves_keys = True

    def __init__(self, origin: Origin, database: str) -> None:
        self._origin = origin
        self._connection = origin.connect(database)
        self._cursor = self._connection.cursor()

    def write(self, writes: Sequence[Write], *, keep: bool) -> None:
        alone = len(writes) == 1 and keep
        if not alone:
            self._cursor.execute("begin")
        for write in writes:
            self._one(write)
        if not alone:
            self._cursor.execute("commit" if keep else "rollback")

    def _one(self, write: Write) -> None:
        names, cells = list(write.values), list(write.values.values())
        if write.kind is Kind.DELETE:
            self._cursor.execute(f"delete from {write.table} where id = %s", [write.key])
        elif write.kind is Kind.CHANGE:
            if write.to is not None:
                names, cells = ["id", *names], [write.to, *cells]
            sets = ", ".join(f"{name} = %s" for name in names)
            statement = f"update {write.table} set {sets} where id = %s"
            self._cursor.execute(statement, [*cells, write.key])
        else:
            sets = ", ".join(f"{name} = {self._origin.again.format(name)}" for name in names)
            more = self._origin.upsert.format(key="id", sets=sets)
            marks = ", ".join(["%s"] * (1 + len(names)))
            into = f"insert into {write.table} (id, {', '.join(names)}) values ({marks})"
            self._cursor.execute(into + more, [write.key, *cells])

    def place(self) -> int:
        # What is not flushed could be forgotten by a crash, and its place used again.
        postgres = isinstance(self._origin, PostgresOrigin)
        place = "pg_current_wal_flush_lsn()" if postgres else "@@last_gtid"
        self._cursor.execute(f"select {place}")
        said = str(self._cursor.fetchone()[0])
        if postgres:
            high, low = said.split("/")
            return int(high, 16) << 32 | int(low, 16)
        return int(said.rpartition("-")[2] or 0)  # of the one domain there is

    def close(self) -> None:
        with contextlib.suppress(*DRIVERS):
            self._connection.close()


def create_tables(cursor: Any, origin: Origin) -> None:
    """In a SQL source; in MongoDB the first document makes the collection."""
    postgres = isinstance(origin, PostgresOrigin)
    text, key = ("text", "varchar(64)") if postgres else ("mediumtext", "varchar(64) binary")
    for table, of in ((ACCOUNTS, "bigint"), (ENTRIES, key)):
        cursor.execute(
            f"create table {table} (id {of} primary key, stamp bigint not null,"
            f" total bigint not null, name {text} not null, body {text})"
        )
        if postgres:
            # Stored beside the row: an update that leaves it does not send it.
            cursor.execute(f"alter table {table} alter column body set storage external")


# --- what is written ------------------------------------------------------------------------------


@dataclass
class KnownWriters(Load):
    """Threads that write until told to stop, and tell the scribe of each write."""

    pen: Callable[[], Pen]
    scribe: Scribe
    keys: int  # rows are made, changed and deleted among so many keys of each table
    seed: int
    threads: int = 2
    pause: float = 0.01
    refused: float = 0.0  # of the writes, once `refuse` was called
    made: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.threads >= _WRITERS:
            raise ValueError(f"stamps are for fewer than {_WRITERS} writers")
        self._refusing = threading.Event()
        # Whether a row is there; None: nobody knows.
        self._there: list[dict[tuple[str, Key], bool | None]] = [{} for _ in range(self.threads)]

    def refuse(self) -> None:
        """From now on the destination refuses rows whose total is REFUSED."""
        self._refusing.set()

    def preload(self) -> None:
        """A row for every key."""
        chosen = random.Random(self.seed)
        pen = self.pen()
        for at, table in enumerate(TABLES):
            for first in range(0, self.keys, _MOST):
                writes = []
                for number in range(first, min(first + _MOST, self.keys)):
                    key, stamp = key_of(table, number), at * self.keys + number + 1
                    cells = _values(table, key, stamp, chosen, whole=True)
                    writes.append(Write(Kind.CREATE, table, key, stamp, cells))
                    self._there[number % self.threads][table, key] = True
                pen.write(writes, keep=True)
                place = pen.place()
                self.scribe.add(*_events(writes, Outcome.SURE, 0, place))
        pen.close()

    def _run(self, seed: int) -> None:
        thread = seed - self.seed * 100
        pen: Pen | None = None
        after = number = 0
        while not self._stop.wait(self.pause):
            try:
                pen = pen or self.pen()
            except DRIVERS:  # it is being started
                continue
            writes, keep = self._step(thread, number, pen.moves_keys)
            number += 1
            outcome, place = Outcome.SURE if keep else Outcome.UNDONE, None
            try:
                pen.write(writes, keep=keep)
            except DRIVERS as error:
                self.made[f"failed: {type(error).__name__}"] += 1
                outcome = Outcome.PERHAPS if keep else Outcome.UNDONE
                pen = _closed(pen)
            else:
                try:
                    place = pen.place() if keep else None
                except DRIVERS:
                    pen = _closed(pen)
            self.scribe.add(*_events(writes, outcome, after, place))
            self._learn(thread, writes, outcome)
            after = max(after, place or 0)
        _closed(pen)

    def _learn(self, thread: int, writes: Sequence[Write], outcome: Outcome) -> None:
        there = self._there[thread]
        for write in writes:
            self.made[f"{outcome}: {write.kind}"] += 1
            if outcome is Outcome.UNDONE:
                continue
            sure = outcome is Outcome.SURE
            there[write.table, write.key] = write.kind is not Kind.DELETE if sure else None
            if write.to is not None:
                there[write.table, write.key] = False if sure else None
                there[write.table, write.to] = True if sure else None

    def _step(self, thread: int, number: int, moves_keys: bool) -> tuple[list[Write], bool]:
        """What this writer tries next, and whether it shall last."""
        chosen = random.Random(f"{self.seed}/{thread}/{number}")
        first = _PRELOADED + number * _MOST * _WRITERS + thread
        stamps = iter(range(first, first + _MOST * _WRITERS, _WRITERS))
        dice = chosen.random()
        if dice < 0.04:
            table = chosen.choice(TABLES)
            return list(self._fresh(table, thread, number, stamps, chosen)), True
        if dice < 0.07 and moves_keys:
            return [self._moved(thread, number, next(stamps), chosen)], True
        count = chosen.randint(2, 5) if dice < 0.20 else 1
        keep = count == 1 or chosen.random() < 0.8
        numbers = chosen.sample(range(self.keys // self.threads), count)
        return [self._write(thread, n, next(stamps), chosen) for n in numbers], keep

    def _fresh(
        self,
        table: str,
        thread: int,
        number: int,
        stamps: Iterator[int],
        chosen: random.Random,
    ) -> Iterator[Write]:
        for place in range(chosen.randint(2, 12)):
            key = key_of(table, _FRESH + (number * _MOST + place) * _WRITERS + thread)
            stamp = next(stamps)
            cells = self._with_refusal(_values(table, key, stamp, chosen, whole=True), chosen)
            yield Write(Kind.CREATE, table, key, stamp, cells)

    def _moved(self, thread: int, number: int, stamp: int, chosen: random.Random) -> Write:
        """A row that changes its key, where one is there; its long value need not be in the log."""
        n = chosen.randrange(self.keys // self.threads) * self.threads + thread
        key = key_of(ENTRIES, n)
        new = key_of(ENTRIES, _FRESH + number * _MOST * _WRITERS + thread)
        cells = _values(ENTRIES, new, stamp, chosen, whole=False)
        if not self._there[thread].get((ENTRIES, key)):
            whole = {**cells, "body": None}
            return Write(Kind.REPLACE, ENTRIES, key, stamp, whole)
        return Write(Kind.CHANGE, ENTRIES, key, stamp, cells, to=new)

    def _write(self, thread: int, n: int, stamp: int, chosen: random.Random) -> Write:
        table = chosen.choice(TABLES)
        key = key_of(table, n * self.threads + thread)
        dice = chosen.random()
        there = self._there[thread].get((table, key))
        if there is not False and dice < 0.25:
            return Write(Kind.DELETE, table, key, stamp)
        whole = not there or dice < 0.5
        cells = self._with_refusal(_values(table, key, stamp, chosen, whole=whole), chosen)
        kind = Kind.CHANGE if not whole else Kind.CREATE if there is False else Kind.REPLACE
        return Write(kind, table, key, stamp, cells)

    def _with_refusal(self, cells: dict[str, Any], chosen: random.Random) -> dict[str, Any]:
        unlucky = chosen.random() < self.refused
        return {**cells, "total": REFUSED} if unlucky and self._refusing.is_set() else cells


def _closed(pen: Pen | None) -> Pen | None:
    """None, where an open one is of no more use."""
    if pen is not None:
        pen.close()
    return None


def _values(
    table: str, key: Key, stamp: int, chosen: random.Random, *, whole: bool
) -> dict[str, Any]:
    cells = {
        "stamp": stamp,
        "total": chosen.randrange(1_000_000),
        "name": f"{table} {key} #{stamp}",
    }
    body = chosen.randbytes(1500).hex() if chosen.random() < 0.3 else None
    return {**cells, "body": body} if whole or chosen.random() < 0.2 else cells


def _events(
    writes: Sequence[Write], outcome: Outcome, after: int, place: int | None
) -> Iterator[Event]:
    now = time.time()
    for write in writes:
        name, total = write.values.get("name", ""), write.values.get("total", 0)
        key = str(write.key)
        kind = write.kind
        if write.to is not None:
            yield Event(write.table, key, write.stamp, Kind.DELETE, outcome, after, place, at=now)
            key, kind = str(write.to), Kind.CREATE
        yield Event(write.table, key, write.stamp, kind, outcome, after, place, total, name, now)


# --- what became of it ----------------------------------------------------------------------------

Rows = dict[tuple[str, str], dict[str, Any]]
COLUMNS: Final = ("stamp", "total", "name", "body")


def rows_of_mongodb(client: pymongo.MongoClient[Document], database: str) -> Rows:
    found: Rows = {}
    for table in TABLES:
        for document in client[database][table].find():
            if "stamp" in document:
                cells = {name: document.get(name) for name in COLUMNS}
                found[table, str(document["_id"])] = cells
    return found


def rows_of_sql(connection: Any) -> Rows:
    found: Rows = {}
    for table in TABLES:
        cursor = connection.cursor()
        cursor.execute(f"select id, {', '.join(COLUMNS)} from {table}")
        for key, *cells in cursor.fetchall():
            found[table, str(key)] = dict(zip(COLUMNS, cells, strict=True))
    return found


def rows_of_destination(warehouse: Warehouse, key: str) -> Rows:
    found: Rows = {}
    columns = ", ".join(f'"{name}"' for name in (key, *COLUMNS))
    for table in TABLES:
        where = f'"{warehouse.name}"."{table}" where not _cw_deleted'
        for name, *cells in warehouse.read(f"select {columns} from {where}"):
            found[table, str(name)] = dict(zip(COLUMNS, cells, strict=True))
    return found


def refuse_at_destination(warehouse: Warehouse) -> None:
    """From now on a row whose total is REFUSED breaks a constraint."""
    with warehouse.connect() as connection:
        for table in TABLES:
            connection.cursor().execute(
                f'alter table "{warehouse.name}"."{table}"'
                f" add constraint refused check (total <> {REFUSED})"
            )
