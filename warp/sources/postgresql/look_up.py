"""The rows of some keys as they are now."""

from __future__ import annotations

from typing import Any, Final

from psycopg import sql

from warp.errors import WarpError
from warp.model import Operation, TableChanges
from warp.sources.postgresql import rows as reading
from warp.sources.postgresql.catalog import Catalog, Shape, Table
from warp.sources.postgresql.position import lsn_of
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.snapshot import durable, key_of
from warp.sources.postgresql.values import text_of
from warp.sources.postgresql.visibility import settled_version

_AT_ONCE: Final = 1_000


def look_up(
    server: Server,
    catalog: Catalog,
    table: Table,
    shape: Shape,
    wanted: TableChanges,
    publication: str,
) -> TableChanges:
    """At one version, as a chunk of just these keys would be read."""
    if wanted.schema is None:
        raise WarpError("rows with columns are looked up", place=str(wanted.table))
    places = {column.source: place for place, column in enumerate(wanted.schema.columns)}
    key = key_of(table, shape)
    kinds = [catalog.types.codec(c.type_oid).kind for c in key]
    cells = [wanted.columns[places[c.name]] for c in key]
    keys = sorted(
        {
            tuple(text_of(kind, cell) for kind, cell in zip(kinds, row, strict=True))
            for row in zip(*cells, strict=True)
        }
    )
    version = settled_version(server, table.id, table.oid, publication)
    schema = catalog.schema(table, shape)
    codecs = reading.codecs_of(catalog, shape)
    columns_found: list[list[Any]] = [[] for _ in shape.columns]
    found = reading.changes(schema, columns_found, Operation.READ, version)
    connection = server.connect()
    doing = f"look up rows of {table.id}"
    try:
        for start in range(0, len(keys), _AT_ONCE):
            listed = sql.SQL(", ").join(
                sql.SQL("({})").format(
                    sql.SQL(", ").join(
                        sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(c.type_name))
                        for value, c in zip(values, key, strict=True)
                    )
                )
                for values in keys[start : start + _AT_ONCE]
            )
            # Names of their own: a row filter of the publication names the table's columns bare.
            asked = [sql.Identifier(f"_cw_key_{place}") for place in range(len(key))]
            names = sql.SQL(", ").join(asked)
            same = sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(sql.Identifier("t", c.name), name)
                for c, name in zip(key, asked, strict=True)
            )
            join = sql.SQL("JOIN (VALUES {}) AS k ({}) ON {}").format(listed, names, same)
            statement = reading.select(table, shape, join=join)
            for columns in reading.read(
                server, connection, statement, codecs, lambda: _AT_ONCE, place=str(table.id)
            ):
                more = reading.changes(schema, columns, Operation.READ, version)
                found.operations += more.operations
                found.versions = [*found.versions, *more.versions]
                for done, cells_ in zip(columns_found, more.columns, strict=True):
                    done += cells_
        with server.meaning(doing):
            (end,) = connection.execute(
                "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
            ).fetchall()[0]
    finally:
        server.give_back(connection)
    durable(server, lsn_of(end))
    return found
