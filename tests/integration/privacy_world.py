"""What a test of privacy rules plants, and every place where it may turn up again."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import zlib
from dataclasses import dataclass, field
from typing import Any

import programs
import psycopg
import redis
from fix_servers import Server
from processes import Fleet
from psycopg import sql

PEOPLE, OPEN = "people", "open"
PLANTED = {PEOPLE: "xqzgeheim", OPEN: "xqzoffen"}
KEY = "the privacy key of the tests"


@dataclass
class Seen:
    """All there was to be read, by the name of the place."""

    fleet: Fleet
    places: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)

    def holding(self, table: str) -> set[str]:
        """The places that hold a value of the table, as it is or as MongoDB's tokens spell it."""
        needle = PLANTED[table]
        spelled = (needle, needle.encode().hex(), needle.encode().hex().upper())
        return {place for place, text in self.places.items() if any(s in text for s in spelled)}

    def ask(self, *what: str, code: int) -> None:
        """Run a command, and keep what it said."""
        name = " ".join(what)
        self.places[name], self.answers[name] = _ran(self.fleet, what, code)


def hashed(text: str) -> str:
    return hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


def asked(fleet: Fleet, query: str) -> list[tuple[Any, ...]]:
    try:
        return fleet.asked(query)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def rows_of(fleet: Fleet, table: str) -> list[dict[str, Any]]:
    query = sql.SQL("select to_jsonb(t) from {} t where not _cw_deleted").format(
        sql.Identifier(fleet.database_name, table)
    )
    try:
        with psycopg.connect(fleet.pg_url) as connection:
            return [row for (row,) in connection.execute(query)]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def refuse_large(url: str, schema: str, table: str) -> None:
    """Rows whose n is 5000 or more; and the server's words repeat the row."""
    with psycopg.connect(url, autocommit=True) as admin:
        statement = "alter table {} add constraint small check (n < 5000) not valid"
        admin.execute(sql.SQL(statement).format(sql.Identifier(schema, table)))


def _ran(fleet: Fleet, what: tuple[str, ...], code: int) -> tuple[str, Any]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
    environment = {**inherited, "PRIVACY_KEY": KEY}
    done = programs.run("commands.cli", "--config", str(fleet.config), *what, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == code, (what, said)
    return said, json.loads(done.stdout)


def dumped(url: str) -> dict[str, str]:
    """Every row of every table, ours and the metadata's, by its table."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables where table_schema"
            " not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
        ).fetchall()
        found = {}
        for schema, table in tables:
            query = sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))
            found[f"table {table}"] = "\n".join(row for (row,) in connection.execute(query))
    return found


def tables_holding(url: str, mark: str) -> set[str]:
    """The tables of a warehouse that hold it anywhere."""
    found = dumped(url).items()
    return {place.removeprefix("table ") for place, text in found if mark in text}


def everything_in(server: Server) -> set[str]:
    found: set[bytes] = set()
    with redis.Redis.from_url(server.url) as client:
        for key in client.keys("*"):
            found.add(key)
            match client.type(key):
                case b"hash":
                    found.update(text for pair in client.hgetall(key).items() for text in pair)
                case b"set":
                    found.update(client.smembers(key))
                case b"zset":
                    found.update(client.zrange(key, 0, -1))
                case b"list":
                    found.update(client.lrange(key, 0, -1))
                case b"stream":
                    found.update(v for _, e in client.xrange(key) for v in e.values())
                case _:
                    found.add(client.get(key) or b"")
    return {_inflated(value).decode("utf-8", "replace") for value in found}


def _inflated(value: bytes) -> bytes:
    """rq compresses what it keeps."""
    with contextlib.suppress(zlib.error):
        return zlib.decompress(value)
    return value
