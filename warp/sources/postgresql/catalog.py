"""What the catalog says of tables, columns and types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from warp.model import Column, TableId, TableSchema
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.values import Types, UserType

VIRTUAL: Final = "v"
STORED: Final = "s"


@dataclass(frozen=True, slots=True)
class Table:
    """A table (or the root of a partitioned one) as it can be captured."""

    oid: int
    id: TableId
    partitioned: bool
    identity: str  # `d`efault, `i`ndex, `f`ull, `n`othing
    logged: bool
    key: tuple[str, ...]
    published: bool

    @property
    def obstacle(self) -> str:
        """Why its changes cannot be followed; empty where they can."""
        if not self.logged:
            return "it is UNLOGGED, so its changes are in no log"
        if self.identity == "n":
            return "its REPLICA IDENTITY is NOTHING, so the log does not say which row changed"
        if not self.key:
            return (
                "it has neither a primary key nor a replica identity over a unique index of NOT "
                "NULL columns (a deferrable one does not count)"
            )
        return ""


@dataclass(frozen=True, slots=True)
class ColumnOf:
    """A column of a table, as the catalog has it now."""

    name: str
    number: int
    type_oid: int
    type_name: str  # as SQL spells it, its schema included
    filled: bool  # rows that are older than the column read its default


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a table that both the log and a snapshot carry."""

    columns: tuple[ColumnOf, ...]
    row_filter: str | None  # the publication's WHERE, as SQL


class Catalog:
    """Reads the catalog; knows the types it has met."""

    def __init__(self, server: Server, publication: str) -> None:
        self._server = server
        self._publication = publication
        self.types = Types()

    def namespaces(self) -> list[str]:
        return [name for (name,) in self._server.ask("namespaces", doing="list the schemas")]

    def tables(
        self, namespaces: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> list[Table]:
        """Of these schemas, or of all; only those of these names, where names are given."""
        rows = self._server.ask(
            "tables",
            {
                "namespaces": None if namespaces is None else list(namespaces),
                "names": None if names is None else list(names),
                "publication": self._publication,
            },
            doing="list the tables",
        )
        return [
            Table(
                oid,
                TableId(namespace, name),
                kind == "p",
                identity,
                persistence == "p",
                tuple(key),
                published,
            )
            for oid, namespace, name, kind, identity, persistence, key, published in rows
        ]

    def find(self, tables: Iterable[TableId]) -> dict[TableId, Table]:
        """Those of the tables that exist."""
        wanted = set(tables)
        if not wanted:
            return {}
        found = self.tables(sorted({t.namespace for t in wanted}), sorted({t.name for t in wanted}))
        return {table.id: table for table in found if table.id in wanted}

    def shapes(self, oids: Sequence[int]) -> dict[int, Shape]:
        """The columns of each table, their types learned.

        What the log does not carry, a snapshot must not either: columns outside a column list of
        the publication, and generated ones before PostgreSQL 18.
        """
        rows = self._server.ask(
            "columns",
            {"oids": list(oids), "publication": self._publication},
            doing="read the columns of tables",
        )
        columns: dict[int, list[ColumnOf]] = {oid: [] for oid in oids}
        filters: dict[int, str] = {}
        for oid, name, number, type_oid, type_name, generated, filled, published, where in rows:
            if where is not None:
                filters[oid] = where
            if generated == VIRTUAL:
                continue
            # Before 18 the view lists them, and the log does not have them (seen on 15).
            if generated == STORED and not self.generated_are_published:
                continue
            if published is not False:
                columns[oid].append(ColumnOf(name, number, type_oid, type_name, filled))
        self.learn(c.type_oid for found in columns.values() for c in found)
        return {oid: Shape(tuple(found), filters.get(oid)) for oid, found in columns.items()}

    @property
    def generated_are_published(self) -> bool:
        """Can this server's log carry generated columns that are stored?"""
        return self._server.version >= 180000

    def changed_since(self, oids: Sequence[int], horizon: int) -> set[int]:
        """The tables whose columns were changed by a transaction not older than `horizon`."""
        rows = self._server.ask(
            "changed_columns",
            {"oids": list(oids), "horizon": horizon},
            doing="look for changed columns",
        )
        return {oid for (oid,) in rows}

    def learn(self, oids: Iterable[int]) -> None:
        """Ask for types not met before; one that is gone stays text."""
        asked: set[int] = set()
        while unknown := self.types.unknown(oids := list(oids)) - asked:
            rows = self._server.ask(
                "types", {"oids": sorted(unknown)}, doing="read what types are made of"
            )
            self.types.learn(UserType(*row) for row in rows)
            asked |= unknown

    def schema(self, table: Table, shape: Shape) -> TableSchema:
        columns = tuple(Column(c.name, self.types.codec(c.type_oid).kind) for c in shape.columns)
        return TableSchema(table.id, columns, table.key)
