"""A fleet whose source is a SQL server: the same processes, audit and judgement as in `fleet`.

An origin says what differs between the servers: how to reach them, and how their tables are made.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Protocol

import accusations
import psycopg
import pymysql
from fleet import PATIENCE, Fleet, Load, Servers
from least_rights import PASSWORD, make_postgresql_reader, mysql_reader
from psycopg import sql
from psycopg.conninfo import make_conninfo

from warp.testing.servers import MariaDb, Postgres

ORDERS, CUSTOMERS, NOTES = "orders", "customers", "notes"
TABLES: Final = (ORDERS, CUSTOMERS, NOTES)
KEYS: Final[dict[str, tuple[str, ...]]] = {
    ORDERS: ("id",),
    CUSTOMERS: ("part", "id"),
    NOTES: ("id",),
}
LOST = (psycopg.OperationalError, psycopg.InterfaceError, pymysql.err.Error, OSError)
Row = dict[str, Any]

WENT_BACK: Final = "a row that went back to an older version"
ACCUSATIONS: Final = {
    **accusations.ACCUSATIONS,
    # Rows of chunks are left out: their version is a lower bound of what they have seen, so that
    # what the stream brings again lands.
    WENT_BACK: accusations.ACCUSATIONS[WENT_BACK].replace(
        "from {audit}.rows",
        "from {audit}.rows r where exists (select 1 from {audit}.advances a where a.tx = r.tx"
        " and a.unit like 'stream:%')",
    ),
}


class Origin(Protocol):
    """A server to follow, to crash and to start again."""

    upsert: ClassVar[str]  # what follows `insert … values …`
    again: ClassVar[str]  # how it names the value that was to be inserted

    @property
    def server(self) -> Postgres | MariaDb: ...

    def create(self, name: str) -> None: ...
    def drop(self, name: str) -> None: ...
    def block(self, name: str) -> dict[str, Any]: ...
    def connect(self, name: str) -> Any: ...

    def forgotten(self, name: str) -> int | None:
        """How far it was told to forget its log; None where nobody tells it, or it is away."""
        ...


@dataclass(frozen=True, slots=True)
class PostgresOrigin:
    """A database of its own, and in it a schema of the same name."""

    upsert: ClassVar[str] = " on conflict ({key}) do update set {sets}"
    again: ClassVar[str] = "excluded.{}"
    server: Postgres

    def create(self, name: str) -> None:
        owner = sql.Identifier(name)
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("create role {} login").format(owner))
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with psycopg.connect(self.server.database_url(name), autocommit=True) as connection:
            connection.execute(sql.SQL("create schema {0} authorization {0}").format(owner))
            make_postgresql_reader(connection, _reader(name), owner=name, schema=name)
        with contextlib.closing(self.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "create table orders (id bigint primary key, name text, total int,"
                " weight double precision, paid boolean, at timestamptz(6), doc jsonb)"
            )
            cursor.execute(
                "create table customers (part varchar(20), id int, name text,"
                " total numeric(20, 4), day date, primary key (part, id))"
            )
            # Long and stored beside the row: an update that leaves it does not send it.
            cursor.execute(
                "create table notes (id varchar(64) primary key, name text, total int, body text)"
            )
            cursor.execute("alter table notes alter column body set storage external")

    def drop(self, name: str) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots"
                " where database = %s and active",
                (name,),
            )
            _drop_slots(connection, name)
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )
            for role in (_reader(name), name):
                connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))

    def block(self, name: str) -> dict[str, Any]:
        return {
            "type": "postgresql",
            "connection_string": make_conninfo(self.server.database_url(name), user=_reader(name)),
            # Slots are of the whole server, and several tests use this one.
            "slot": name,
            "publication": name,
        }

    def connect(self, name: str) -> Any:
        return psycopg.connect(
            self.server.database_url(name),
            user=name,  # who owns the tables, as an application does
            autocommit=True,
            options=f"-c search_path={name} -c timezone=UTC",
            connect_timeout=5,
        )

    def forgotten(self, name: str) -> int | None:
        try:
            with psycopg.connect(self.server.url, connect_timeout=5) as connection:
                row = connection.execute(
                    "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots"
                    " where slot_name = %s",
                    (name,),
                ).fetchone()
        except psycopg.OperationalError:
            return None
        return row[0] if row else None


def _reader(name: str) -> str:
    """The login that the fleet follows a database by."""
    return f"{name}_cdc"


def _drop_slots(connection: psycopg.Connection[Any], database: str) -> None:
    """A slot whose reader was just ended stays active for a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s",
                (database,),
            )
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)
        else:
            return


@dataclass(frozen=True, slots=True)
class MariaDbOrigin:
    """A database of its own."""

    upsert: ClassVar[str] = " on duplicate key update {sets}"
    again: ClassVar[str] = "values({})"
    server: MariaDb

    def create(self, name: str) -> None:
        with contextlib.closing(self.server.client()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"create database {name} character set utf8mb4")
            for statement in mysql_reader(_reader(name), name, mariadb=True):
                cursor.execute(statement)
        with contextlib.closing(self.connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "create table orders (id bigint primary key, name text, total int,"
                " weight double, paid bit(1), at timestamp(6) null, doc json)"
            )
            cursor.execute(
                "create table customers (part varchar(20), id int, name text,"
                " total decimal(20, 4), day date, primary key (part, id))"
            )
            cursor.execute(
                "create table notes (id varchar(64) primary key, name text, total int,"
                " body mediumtext)"
            )

    def drop(self, name: str) -> None:
        with contextlib.closing(self.server.client()) as connection:
            connection.cursor().execute(f"drop database if exists {name}")
            connection.cursor().execute(f"drop user if exists {_reader(name)}")

    def block(self, name: str) -> dict[str, Any]:
        login = f"{_reader(name)}:{PASSWORD}@127.0.0.1:{self.server.port}"
        return {"type": "mysql", "connection_string": f"mysql://{login}/", "database": name}

    def connect(self, name: str) -> Any:
        return self.server.client(
            database=name,
            autocommit=True,
            connect_timeout=5,
            read_timeout=60,
            init_command="set time_zone = '+00:00'",
        )

    def forgotten(self, name: str) -> None:
        """It forgets by its own settings."""


class SqlFleet(Fleet):
    """Processes that follow one SQL database, with a supervisor and an audit."""

    accusations = ACCUSATIONS

    def __init__(self, servers: Servers, origin: Origin, **settings: Any) -> None:
        self.origin = origin
        super().__init__(servers, **settings)

    def _open_source(self, stack: contextlib.ExitStack) -> None:
        self.origin.create(self.name)

    def _drop_source(self) -> None:
        self.origin.drop(self.name)

    def _source_block(self) -> dict[str, Any]:
        return self.origin.block(self.name)

    @property
    def stream(self) -> str:
        return "stream:*"

    def execute(self, statement: str, *parameters: Any) -> None:
        """One statement at the source, again until it can be reached."""

        def once() -> None:
            with contextlib.closing(self.origin.connect(self.name)) as connection:
                connection.cursor().execute(statement, parameters)

        with_retries(once)

    def preload(self, rows: int, chosen: random.Random) -> None:
        with contextlib.closing(self.origin.connect(self.name)) as connection:
            for table in TABLES:
                made = [row(table, n, chosen) for n in range(rows)]
                for start in range(0, rows, 500):
                    insert(connection.cursor(), table, made[start : start + 500])

    def put(self, key: int, name: str) -> None:
        self.execute("insert into orders (id, name) values (%s, %s)", key, name)

    def _write_last(self, table: str, name: str) -> None:
        made = row(table, (1 << 30) + random.SystemRandom().randrange(1 << 29), random.Random())
        made["name"] = name
        names = ", ".join(made)
        marks = ", ".join(["%s"] * len(made))
        self.execute(f"insert into {table} ({names}) values ({marks})", *made.values())

    def _differences(self, connection: Any, table: str) -> list[str]:
        with contextlib.closing(self.origin.connect(self.name)) as source:
            expected = _rows(source.cursor(), f"select * from {table}", table)
        found = _rows(
            connection.cursor(),
            f'select * from "{self.name}"."{table}" where not _cw_deleted',
            table,
        )
        said = []
        for key in sorted(expected.keys() | found.keys()):
            wanted, there = expected.get(key), found.get(key)
            if wanted is None or there is None:
                said.append(f"{table} {key}: only in the {'source' if wanted else 'destination'}")
            elif wanted != there:
                differing = {
                    name: (wanted.get(name), there.get(name))
                    for name in wanted.keys() | there.keys()
                    if wanted.get(name) != there.get(name)
                }
                said.append(f"{table} {key}: (source, destination) {str(differing)[:500]}")
        return said


def _rows(cursor: Any, query: str, table: str) -> dict[tuple[Any, ...], Row]:
    """By key; NULL stands for a column that one side has not got."""
    cursor.execute(query)
    names = [column[0] for column in cursor.description]
    rows: dict[tuple[Any, ...], Row] = {}
    count = 0
    for cells in cursor.fetchall():
        count += 1
        made = {
            name: _plain(name, cell)
            for name, cell in zip(names, cells, strict=True)
            if cell is not None and not name.startswith("_cw_")
        }
        rows[tuple(made[name] for name in KEYS[table])] = made
    if len(rows) != count:
        raise AssertionError(f"{table}: {count} rows have only {len(rows)} keys")
    return rows


def _plain(name: str, cell: Any) -> Any:
    if name == "paid" and isinstance(cell, bytes):  # a bit, as MariaDB hands it out
        return cell == b"\x01"
    if name == "doc" and isinstance(cell, str):
        return json.loads(cell)
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=None)
    return cell


# --- the load -------------------------------------------------------------------------------------


def row(table: str, n: int, chosen: random.Random) -> Row:
    at = datetime(2026, 1, 1) + timedelta(milliseconds=chosen.randrange(10**9))  # noqa: DTZ001
    if table == ORDERS:
        return {
            "id": n,
            "name": f"order {n}",
            "total": chosen.randrange(1_000_000),
            "weight": chosen.randrange(1_000_000) / 7,
            "paid": chosen.random() < 0.5,
            "at": at,
            "doc": json.dumps({"tags": [chosen.randrange(9)], "ü": None}),
        }
    if table == CUSTOMERS:
        return {
            "part": f"part {n % 7}",
            "id": n,
            "name": f"customer {n}",
            "total": f"{chosen.randrange(10**9)}.25",
            "day": at.date(),
        }
    return {
        "id": f"note/{n}",
        "name": f"note {n}",
        "total": chosen.randrange(1_000_000),
        "body": chosen.randbytes(1500).hex() if chosen.random() < 0.3 else None,
    }


def insert(cursor: Any, table: str, rows: Sequence[Row], more: str = "") -> None:
    """One statement for all the rows."""
    marks = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
    names = ", ".join(rows[0])
    cursor.execute(
        f"insert into {table} ({names}) values {', '.join([marks] * len(rows))}{more}",
        [cell for each in rows for cell in each.values()],
    )


def with_retries(action: Callable[[], Any], limit: float = PATIENCE) -> Any:
    """As an application would: try again while the server starts anew."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return action()
        except LOST:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.1)


@dataclass
class SqlWriters(Load):
    """Threads that write until told to stop, and connect again whenever the server went."""

    origin: Origin
    database: str
    keys: int  # rows are made, changed and deleted among so many keys of each table
    seed: int
    threads: int = 2
    pause: float = 0.002
    made: Counter[str] = field(default_factory=Counter)

    def _run(self, seed: int) -> None:
        chosen = random.Random(seed)
        while not self._stop.is_set():
            try:
                with contextlib.closing(self.origin.connect(self.database)) as connection:
                    while not self._stop.wait(self.pause):
                        self._write_one(connection, chosen)
            except LOST as error:
                # Whether it happened or not: the source says in the end.
                self.made[f"failed: {type(error).__name__}"] += 1
                self._stop.wait(0.1)

    def _write_one(self, connection: Any, chosen: random.Random) -> None:
        cursor = connection.cursor()
        dice = chosen.random()
        table = chosen.choice(TABLES)
        n = chosen.randrange(self.keys)
        if dice < 0.30:
            self._upsert(cursor, row(table, n, chosen), table)
            self.made["upserts"] += 1
        elif dice < 0.60:
            where, key = self._key(table, n)
            change = "name = concat(name, '.'), total = %s"
            cursor.execute(
                f"update {table} set {change} where {where}", [chosen.randrange(10**6), *key]
            )
            self.made["updates"] += 1
        elif dice < 0.70:
            where, key = self._key(table, n)
            cursor.execute(f"delete from {table} where {where}", key)
            self.made["deletes"] += 1
        elif dice < 0.74:
            # The key moves, and with it a long value that the log need not repeat.
            new = f"note/{chosen.randrange(self.keys, 1 << 40)}"
            cursor.execute("update notes set id = %s where id = %s", [new, f"note/{n}"])
            self.made["changes of key"] += 1
        elif dice < 0.80:
            first = chosen.randrange(self.keys, 1 << 29)
            insert(cursor, table, [row(table, first + i, chosen) for i in range(30)])
            self.made["bulk inserts"] += 1
        elif dice < 0.82:
            low = chosen.randrange(10**6)
            cursor.execute(
                f"update {table} set name = 'bulk' where total >= %s and total < %s",
                [low, low + 20_000],
            )
            self.made["bulk updates"] += 1
        else:
            self._transaction(connection, chosen)

    def _transaction(self, connection: Any, chosen: random.Random) -> None:
        """Several tables, no key twice, and at times none of it after all."""
        keys = chosen.sample(range(self.keys), 4)
        kept = chosen.random() < 0.8
        cursor = connection.cursor()
        cursor.execute("begin")
        try:
            self._upsert(cursor, row(ORDERS, keys[0], chosen), ORDERS)
            cursor.execute("delete from orders where id = %s", [keys[1]])
            cursor.execute("update notes set total = -1 where id = %s", [f"note/{keys[2]}"])
            self._upsert(cursor, row(CUSTOMERS, keys[3], chosen), CUSTOMERS)
        except (psycopg.Error, pymysql.err.Error):
            with contextlib.suppress(*LOST, psycopg.Error):
                cursor.execute("rollback")
            self.made["conflicts"] += 1
            return
        cursor.execute("commit" if kept else "rollback")
        self.made["transactions" if kept else "rollbacks"] += 1

    def _upsert(self, cursor: Any, made: Row, table: str) -> None:
        rest = [name for name in made if name not in KEYS[table]]
        sets = ", ".join(f"{name} = {self.origin.again.format(name)}" for name in rest)
        more = self.origin.upsert.format(key=", ".join(KEYS[table]), sets=sets)
        insert(cursor, table, [made], more)

    def _key(self, table: str, n: int) -> tuple[str, list[Any]]:
        made = row(table, n, random.Random(0))
        where = " and ".join(f"{name} = %s" for name in KEYS[table])
        return where, [made[name] for name in KEYS[table]]
