"""What is there: databases, tables, columns and keys, as information_schema tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from warp import sql
from warp.model import Column, TableId, TableSchema
from warp.sources.mysql.columns import Declared
from warp.sources.mysql.connection import Connection

SYSTEM: Final = frozenset(
    {"information_schema", "mysql", "performance_schema", "sys", "ndbinfo", "#innodb_redo"}
)
# A sequence and a view are no tables; what is neither is one, whatever the server calls it.
_NO_TABLES: Final = frozenset({"VIEW", "SYSTEM VIEW", "SEQUENCE"})
VERSIONED: Final = "SYSTEM VERSIONED"
# What MariaDB calls the columns of a versioned table that nobody named; hidden from everybody
# but the log.
_HIDDEN: Final = ("row_start", "row_end")


@dataclass(frozen=True, slots=True)
class Table:
    """One table as it is now."""

    id: TableId
    columns: tuple[Declared, ...]
    key: tuple[str, ...]  # empty where there is no key
    index: str = ""  # the one that holds the key
    versioned: bool = False  # its rows in the log include those of the past

    def proposal(self) -> TableSchema:
        columns = tuple(Column(c.name, c.kind) for c in self.columns)
        return TableSchema(self.id, columns, self.key)

    def column(self, name: str) -> Declared | None:
        return next((c for c in self.columns if c.name == name), None)

    @property
    def keys(self) -> tuple[Declared, ...]:
        found = {c.name: c for c in self.columns}
        return tuple(found[name] for name in self.key)

    @property
    def row_start(self) -> str:
        """Of a versioned table: the column that says since when a row is as it is."""
        return self._generated("ROW START", _HIDDEN[0])

    @property
    def row_end(self) -> str:
        """Of a versioned table: the column that says until when a row was as it is."""
        return self._generated("ROW END", _HIDDEN[1])

    def _generated(self, expression: str, otherwise: str) -> str:
        found = (c.name for c in self.columns if c.expression.upper() == expression)
        return next(found, otherwise)


def databases(connection: Connection) -> list[str]:
    found = connection.rows("SHOW DATABASES")
    return sorted(name for (name,) in found if name.lower() not in SYSTEM)


def tables(
    connection: Connection, database: str
) -> tuple[list[TableId], list[tuple[TableId, str]]]:
    """(the tables of a database, what only looks like one with its type)."""
    listed: list[TableId] = []
    others: list[tuple[TableId, str]] = []
    for name, kind in connection.rows(sql.load("mysql", "tables"), [database]):
        if kind in _NO_TABLES:
            others.append((TableId(database, name), kind))
        elif kind != "TEMPORARY":
            listed.append(TableId(database, name))
    return listed, others


def rows_about(connection: Connection, database: str) -> dict[TableId, int]:
    """What the storage engine estimates; tables it says nothing of are left out."""
    found = connection.rows(sql.load("mysql", "rows_about"), [database])
    return {TableId(database, name): int(rows) for name, rows in found if rows is not None}


def is_no_table(connection: Connection, table: TableId) -> bool:
    """Is something of this name there that is a view or a sequence?"""
    return _type(connection, table) in _NO_TABLES


def _type(connection: Connection, table: TableId) -> str | None:
    found = connection.rows(sql.load("mysql", "table_types"), [table.namespace, table.name])
    return str(found[0][0]) if found else None


def describe(connection: Connection, table: TableId) -> Table | None:
    """None where there is no such table, or it is a view or a sequence."""
    names = [table.namespace, table.name]
    kind = _type(connection, table)
    if kind is None or kind in _NO_TABLES:
        return None
    versioned = kind == VERSIONED
    columns = tuple(
        Declared.of(*row) for row in connection.rows(sql.load("mysql", "columns"), names)
    )
    indexes = connection.rows(sql.load("mysql", "unique_indexes"), names)
    index, key = _key(indexes, {c.name for c in columns})
    return Table(table, columns, key, index, versioned)


def _key(rows: Sequence[tuple[Any, ...]], known: set[str]) -> tuple[str, tuple[str, ...]]:
    """The primary key, else the first unique index none of whose columns may be NULL.

    The key of a versioned table ends with the hidden `row_end`, which is no column of ours.
    """
    indexes: dict[str, list[tuple[Any, ...]]] = {}
    for name, *rest in rows:
        indexes.setdefault(name, []).append(tuple(rest))
    for name, parts in indexes.items():
        whole = all(column is not None and sub_part is None for column, _, sub_part in parts)
        nullable = any(nullable == "YES" for _, nullable, _ in parts)
        if name == "PRIMARY" or (whole and not nullable):
            key = tuple(column for column, _, _ in parts if column in known)
            if key:
                return name, key
    return "", ()
