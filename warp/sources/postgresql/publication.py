"""The publication: which tables' changes the log hands out.

Kept equal to the selection where it is ours.  One that a database administrator made for us is
taken as it is, and every table it lacks is named with the statement that adds it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog
from psycopg import errors, sql

from warp.errors import SourceRefused
from warp.model import TableId
from warp.sources.postgresql.catalog import Table
from warp.sources.postgresql.session import LOCKS_BRIEFLY, Server

log = structlog.get_logger(__name__)

_ALSO_GENERATED: Final = 180000
_TRY_AGAIN: Final = 60.0  # seconds after a right was found missing


@dataclass(frozen=True, slots=True)
class PublicationState:
    oid: int
    by_rule: bool  # for all tables, or for all of some schemas
    whole: bool  # hands out inserts, updates, deletes and truncates
    via_root: bool
    generated: str  # `s` where stored generated columns are in it
    ours: bool  # may we alter it?


class Publication:
    """One publication of one database."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name
        self._warned: set[tuple[TableId, str]] = set()
        self._not_before: dict[TableId, float] = {}

    def state(self) -> PublicationState | None:
        rows = self._server.ask(
            "publication", {"publication": self.name}, doing="look at the publication"
        )
        return PublicationState(*rows[0]) if rows else None

    def ensure(self, tables: Sequence[Table]) -> None:
        """Make it where it is not there, of these tables.

        Without locks: the slot that is made after it waits for all who wrote before.
        """
        if self.state() is not None:
            return
        statement = self.creating(tables)
        try:
            with self._server.meaning("make the publication"):
                self._run(statement)
        except SourceRefused as error:
            if not isinstance(error.__cause__, errors.InsufficientPrivilege):
                raise
            raise SourceRefused(
                f"the publication {self.name} was expected, found none, and the right to make it "
                f"is missing ({self._server.explainer.said(error.__cause__)}); have the tables' "
                f"owner or a superuser run: {statement.as_string()}",
                place=self._server.explainer.place,
            ) from error
        log.info("publication_made", publication=self.name, tables=len(tables))

    def creating(self, tables: Iterable[Table]) -> sql.Composable:
        """The statement that makes it."""
        listed = list(tables)
        parts: list[sql.Composable] = [
            sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(self.name))
        ]
        if listed:
            names = sql.SQL(", ").join(map(_table, listed))
            parts.append(sql.SQL("FOR TABLE {}").format(names))
        generated = (
            ", publish_generated_columns = stored"
            if self._server.version >= _ALSO_GENERATED
            else ""
        )
        parts.append(sql.SQL(f"WITH (publish_via_partition_root = true{generated})"))
        return sql.SQL(" ").join(parts)

    def add(self, tables: Iterable[Table]) -> set[TableId]:
        """Which of these tables are in it now; the others cannot be, or not yet.

        The log says nothing of what was written to a table before it was in.  So nobody may be
        writing to it at that moment: a row of a transaction that ends after the table's snapshot
        would be in neither (guarantee 4).
        """
        added: set[TableId] = set()
        now = time.monotonic()
        for table in tables:
            if self._not_before.get(table.id, 0.0) > now:
                continue
            try:
                self._run(*self.adding(table))
            except errors.DuplicateObject:
                added.add(table.id)  # another coordinator was first
            except errors.LockNotAvailable:
                self._warn(table, "it is being written to; it is added once nobody does")
            except errors.InsufficientPrivilege as error:
                self._not_before[table.id] = now + _TRY_AGAIN
                statement = sql.SQL("; ").join(self.adding(table)).as_string()
                self._warn(
                    table,
                    f"{self._server.explainer.said(error)}; "
                    f"have its owner run: BEGIN; {statement}; COMMIT",
                )
            except psycopg.Error as error:
                raise self._server.explainer.explain(error, f"publish {table.id}") from error
            else:
                added.add(table.id)
                log.info("table_published", table=str(table.id), publication=self.name)
        return added

    def adding(self, table: Table) -> tuple[sql.Composable, sql.Composable]:
        """The statements that add a table, to be run in one transaction."""
        whole = sql.SQL("" if table.partitioned else "ONLY ")
        lock = sql.SQL("LOCK TABLE {}{} IN SHARE MODE").format(
            whole, sql.Identifier(*_parts(table))
        )
        add = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}")
        return lock, add.format(sql.Identifier(self.name), _table(table))

    def keep(self, wanted: Collection[TableId]) -> None:
        """Take out tables that are not selected (any more)."""
        state = self.state()
        if state is None or not state.ours:
            return
        rows = self._server.ask(
            "published", {"publication": self.name}, doing="look at the publication"
        )
        for namespace, name in rows:
            if TableId(namespace, name) in wanted:
                continue
            drop = sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(
                sql.Identifier(self.name), sql.Identifier(namespace, name)
            )
            try:
                self._run(drop)
            except errors.UndefinedObject:
                continue  # gone meanwhile
            except psycopg.Error as error:
                doing = f"take {namespace}.{name} out of the publication"
                raise self._server.explainer.explain(error, doing) from error
            log.info("table_unpublished", table=f"{namespace}.{name}", publication=self.name)

    def _run(self, *statements: sql.Composable) -> None:
        """In one transaction.  A lock that is not free at once is not waited for."""
        connection = self._server.connect(statement_timeout=LOCKS_BRIEFLY * 20)
        try:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement.as_bytes(None))
        finally:
            self._server.give_back(connection)

    def _warn(self, table: Table, why: str) -> None:
        if (table.id, why) not in self._warned:
            self._warned.add((table.id, why))
            log.warning("not_published", table=str(table.id), why=why)


def _parts(table: Table) -> tuple[str, str]:
    return table.id.namespace, table.id.name


def _table(table: Table) -> sql.Composable:
    # Without ONLY the tables that inherit from it would come along, under names of their own.
    return sql.SQL("{}{}").format(
        sql.SQL("" if table.partitioned else "ONLY "), sql.Identifier(*_parts(table))
    )
