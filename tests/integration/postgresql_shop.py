"""A database to capture: an application that writes, and a role that may only read along."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from warp.model import ChangeBatch, Operation, Position, TableId, TableSelection, TableSettings
from warp.own_process import wait_until
from warp.sources.postgresql import PostgresSource, PostgresSourceOptions
from warp.testing.servers import Postgres


class Shop:
    """The database at `url` with a schema `shop` owned by an application's role.

    The reading role is as docs/sources/postgresql.md makes it: it logs in, replicates, reads, and
    is a member of the owner so that it can publish.  Slot and publication are of this shop alone.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.mark = secrets.token_hex(4)
        self.slot = f"cartridge_{self.mark}"
        self.publication = f"pub {self.mark}"
        self.owner, self.reader = f"owner_{self.mark}", f"reader_{self.mark}"
        self.admin = self.connect()
        self.made: list[PostgresSource] = []
        self.server: Postgres  # where it is one of its own

    def __enter__(self) -> Self:
        database = sql.Identifier(self.admin.info.dbname)
        owner, reader = sql.Identifier(self.owner), sql.Identifier(self.reader)
        for statement in (
            sql.SQL("CREATE ROLE {o} NOLOGIN"),
            sql.SQL("CREATE ROLE {r} LOGIN REPLICATION IN ROLE pg_read_all_stats, {o}"),
            sql.SQL("GRANT CREATE ON DATABASE {d} TO {r}"),
        ):
            self.admin.execute(statement.format(o=owner, r=reader, d=database))
        return self.fresh()

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def fresh(self) -> Self:
        """As it was made: an empty schema, no slot, no publication.  Cheaper than a database."""
        self.tidy()
        owner = sql.Identifier(self.owner)
        self.admin.execute("SET client_min_messages = warning")
        self.admin.execute("DROP SCHEMA IF EXISTS shop CASCADE")
        self.admin.execute(sql.SQL("CREATE SCHEMA shop AUTHORIZATION {}").format(owner))
        self.admin.execute(sql.SQL("SET ROLE {}").format(owner))
        return self

    def tidy(self) -> None:
        """End what follows the log, and let go of it."""
        for source in self.made:
            source.close()
        self.made = []
        self.admin.execute("RESET ROLE")
        prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for (name,) in self.admin.execute(prepared).fetchall():
            self.admin.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(name)))
        self.drop_slot()
        name_ = sql.Identifier(self.publication)
        self.admin.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(name_))

    def __exit__(self, *exc: object) -> None:
        self.tidy()
        for role in (self.reader, self.owner):
            name = sql.Identifier(role)
            self.admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
            self.admin.execute(sql.SQL("DROP ROLE {}").format(name))
        self.admin.close()

    @property
    def reading_url(self) -> str:
        known = {k: str(v) for k, v in conninfo_to_dict(self.url).items() if v is not None}
        return make_conninfo(**known | {"user": self.reader})

    def drop_slot(self) -> None:
        """Also one that somebody still follows."""
        self.admin.execute("RESET ROLE")
        self.admin.execute(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
            "WHERE slot_name = %s AND active_pid IS NOT NULL",
            (self.slot,),
        )
        self.admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = %s",
            (self.slot,),
        )

    # -- the application

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = self.admin.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def another(self) -> psycopg.Connection[Any]:
        """A second session of the application, in a transaction of its own."""
        connection = psycopg.connect(self.url)
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.owner)))
        connection.commit()
        return connection

    # -- the capture

    def options(self, **more: Any) -> PostgresSourceOptions:
        given = {
            "connection_string": self.reading_url,
            "slot": self.slot,
            "publication": self.publication,
        }
        return PostgresSourceOptions.model_validate(given | more)

    def source(self, selection: TableSelection | None = None, **more: Any) -> PostgresSource:
        self.made.append(PostgresSource(self.options(**more), selection or everything))
        return self.made[-1]


def everything(table: TableId) -> TableSettings | None:
    """Every table of `shop`."""
    if table.namespace != "shop":
        return None
    return TableSettings(table, table, "shop", full_load_batch_size=50, write_batch_size=20)


Seen = tuple[str, int, dict[str, Any]]  # operation, version, cells by column


def seen(batch: ChangeBatch) -> list[Seen]:
    """The rows of a batch with their cells by name."""
    found: list[Seen] = []
    for part in batch.changes:
        assert part.schema is not None
        names = part.schema.names()
        for operation, version, row in zip(
            part.operations, part.versions, part.rows(), strict=True
        ):
            found.append((Operation(operation).name, version, dict(zip(names, row, strict=True))))
    return found


def follow(
    source: PostgresSource,
    position: Position,
    count: int,
    selection: TableSelection = everything,
) -> list[tuple[Seen, Position]]:
    """The next `count` rows after a position, each with the end of its batch."""
    found: list[tuple[Seen, Position]] = []
    changes = source.get_changes(position, selection=selection, idle=0.05)
    try:
        for batch in changes:
            found += [(row, batch.end) for row in seen(batch)]
            if len(found) >= count:
                return found
    finally:
        changes.close()  # type: ignore[attr-defined]  # it is a generator
    raise AssertionError("the stream ended")


def read(source: PostgresSource, table: TableId, rows: int = 1_000) -> list[Seen]:
    """All rows of a table as its chunks hold them."""
    found: list[Seen] = []
    for chunk in source.chunks(table, rows):
        for batch in source.get_full_snapshot(chunk):
            found += seen(batch)
    return found


@contextmanager
def hanging(shop: Shop, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Inside, a transaction is committed in the log and visible to nobody but replication.

    So it is for moments at every commit, and for as long as a synchronous standby takes.
    """
    shop.admin.execute("reset role")
    shop.run("alter system set synchronous_standby_names = 'nobody'")
    shop.run("select pg_reload_conf()")
    # Its word, for the server's processes take the setting up in their own time.
    assert wait_until(lambda: _shown(shop.url, "synchronous_standby_names") == "nobody", 10)
    connection = shop.another()
    assert wait_until(lambda: _says(connection, "synchronous_standby_names") == "nobody", 10)
    for statement in statements:
        connection.execute(statement.encode())
    commits = threading.Thread(target=connection.commit)
    commits.start()
    try:
        with psycopg.connect(shop.url, autocommit=True) as looking:
            pid = connection.info.backend_pid
            assert wait_until(
                lambda: (
                    looking.execute(
                        "select wait_event from pg_stat_activity where pid = %s", (pid,)
                    ).fetchone()
                    == ("SyncRep",)
                ),
                10,
            )
        yield connection
    finally:
        shop.admin.execute("set synchronous_commit = local")
        shop.run("alter system reset synchronous_standby_names")
        shop.run("select pg_reload_conf()")
        shop.admin.execute("reset synchronous_commit")
        commits.join(20)
        connection.close()


def _shown(url: str, setting: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        return _says(connection, setting)


def _says(connection: psycopg.Connection[Any], setting: str) -> str:
    row = connection.execute("select current_setting(%s)", (setting,)).fetchone()
    assert row is not None
    if not connection.autocommit:
        connection.rollback()
    return str(row[0])
