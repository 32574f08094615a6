"""The least that capture needs of PostgreSQL."""
from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import psycopg

from warp.capture import postgresql
from warp.capture.polled import Polled
from warp.capture.side import Clock
from warp.errors import SourceUnavailable
from warp.model import *

KINDS = {
    "integer": Kind.INT32, "bigint": Kind.INT64, "text": Kind.TEXT, "numeric": Kind.DECIMAL,
    "timestamp with time zone": Kind.TIMESTAMP, "timestamp without time zone": Kind.DATETIME,
    "date": Kind.DATE, "uuid": Kind.UUID, "bytea": Kind.BYTES, "double precision": Kind.FLOAT64,
}
EPOCH = dt.datetime(1970, 1, 1)


def carrier(kind: Kind, cell: Any) -> Any:
    if isinstance(cell, dt.datetime):
        return (cell.replace(tzinfo=None) - EPOCH) // dt.timedelta(microseconds=1)
    if kind is Kind.UUID and cell is not None:
        return cell.bytes
    if kind is Kind.TEXT and cell is not None:
        return str(cell)
    return cell


class ThinSide:
    def __init__(self, url: str) -> None:
        self.c = psycopg.connect(url, autocommit=True, options="-c timezone=UTC")
        self.dialect = postgresql.PostgresDialect()
        self.triggers = postgresql.PostgresTriggers(self.ask, self.act)

    def schema(self, table: TableId) -> TableSchema | None:
        rows = self.c.execute(
            "select a.attname, format_type(a.atttypid, null), i.indisprimary and a.attnum = any(i.indkey)"
            " from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            [self.dialect.name(table.namespace, table.name)],
        ).fetchall()
        if not rows:
            return None
        return TableSchema(
            table,
            tuple(Column(n, KINDS.get(t, Kind.TEXT)) for n, t, _ in rows),
            tuple(n for n, _, k in rows if k),
        )

    def version(self) -> int:
        return self.ask("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0].__int__()

    def clock(self) -> Clock:
        return postgresql.clock(self.ask)

    def select(self, statement: str, schema: TableSchema, *, rows: int) -> Iterator[list[list[Any]]]:
        found = self.ask(statement)
        for start in range(0, len(found), rows):
            columns = [list(c) for c in zip(*found[start:start + rows])]
            yield [[carrier(k.kind, x) for x in c] for k, c in zip(schema.columns, columns)]

    def look_up(self, rows: TableChanges) -> TableChanges:
        s = rows.schema
        assert s
        names = s.names()
        keys = list(zip(*(rows.columns[names.index(k)] for k in s.key)))
        from warp.kinds import as_text
        kind = {c.name: c.kind for c in s.columns}
        cond = " or ".join(
            "(" + " and ".join(
                f"{self.dialect.name(k)} = {self.dialect.literal(kind[k], as_text(kind[k], v))}"
                for k, v in zip(s.key, key)) + ")" for key in keys)
        st = f"select {', '.join(map(self.dialect.name, names))} from {self.dialect.name(s.table.namespace, s.table.name)} where {cond}"
        columns = next(self.select(st, s, rows=10**6), [[] for _ in names])
        n = len(columns[0])
        return TableChanges(s.table, bytearray(b"r") * n, [0] * n, s, columns)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self.c.execute(statement).fetchall()

    def act(self, *statements: str) -> None:
        try:
            with self.c.transaction():
                for s in statements:
                    self.c.execute(s)
        except psycopg.errors.LockNotAvailable as e:
            raise SourceUnavailable(str(e)) from e


class ThinSource:
    def __init__(self, url: str, selection: TableSelection) -> None:
        self.side = ThinSide(url)
        self.polled = Polled(self.side, selection)
        self.poll = self.polled.poll
        self.poll_start = self.polled.start
        self.acknowledge = self.polled.acknowledge

    def get_schema(self, tables):
        return {t: s for t in tables if (s := self.side.schema(t))}

    def close(self) -> None:
        self.side.c.close()


# --- MySQL ---
import pymysql
from fix_servers import mysql_client
from warp.capture import mysql
from warp.errors import SourceRefused

MY = {"int": Kind.INT32, "bigint": Kind.INT64, "varchar": Kind.TEXT, "enum": Kind.TEXT, "text": Kind.TEXT,
      "datetime": Kind.DATETIME, "timestamp": Kind.TIMESTAMP, "date": Kind.DATE, "double": Kind.FLOAT64,
      "varbinary": Kind.BYTES, "binary": Kind.BYTES, "decimal": Kind.DECIMAL, "tinyint": Kind.INT32}


class ThinMySide:
    def __init__(self, url: str) -> None:
        self.c = mysql_client(url)
        self._types: dict = {}
        self.act("set time_zone = '+00:00', sql_mode='ALLOW_INVALID_DATES'")
        self.dialect = mysql.MysqlDialect(self.types)
        self.triggers = mysql.MysqlTriggers(self.ask, self.act, mariadb="Maria" in self.c.get_server_info())

    def types(self, table):
        if table not in self._types:
            with self.c.cursor() as cu:
                cu.execute("select column_name, lower(data_type) from information_schema.columns where table_schema=%s and table_name=%s order by ordinal_position", [table.namespace, table.name])
                self._types[table] = dict(cu.fetchall())
        return self._types[table]

    def schema(self, table):
        self._types.pop(table, None)
        types = self.types(table)
        if not types:
            return None
        with self.c.cursor() as cu:
            cu.execute("select column_name from information_schema.statistics where table_schema=%s and table_name=%s and index_name='PRIMARY' order by seq_in_index", [table.namespace, table.name])
            key = tuple(n for n, in cu.fetchall())
        return TableSchema(table, tuple(Column(n, MY[t]) for n, t in types.items()), key)

    def version(self):
        (gtid,), = self.ask("select @@gtid_binlog_pos")
        return sum(int(p.rsplit("-", 1)[1]) for p in gtid.split(",") if p)

    def clock(self):
        return mysql.clock(self.ask)

    select = ThinSide.select
    look_up = ThinSide.look_up

    def ask(self, statement):
        with self.c.cursor() as cu:
            try:
                cu.execute(statement)
            except pymysql.err.OperationalError as e:
                if e.args[0] == 1227:
                    raise SourceRefused(str(e)) from e
                raise
            return list(cu.fetchall())

    def act(self, *statements):
        for s in statements:
            with self.c.cursor() as cu:
                try:
                    cu.execute(s)
                except pymysql.err.OperationalError as e:
                    if e.args[0] == 1205:
                        raise SourceUnavailable(str(e)) from e
                    raise


class ThinMySource(ThinSource):
    def __init__(self, url, selection):
        self.side = ThinMySide(url)
        self.polled = Polled(self.side, selection)
        self.poll = self.polled.poll
        self.poll_start = self.polled.start
        self.acknowledge = self.polled.acknowledge
