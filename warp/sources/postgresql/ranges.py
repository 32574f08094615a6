"""Cutting a part of a table, between two edges of its key, into chunks.

The server finds the first key at or after an edge; the walk between two of them is exact.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from psycopg import sql

from warp.errors import SourceRefused
from warp.model import Chunk, Edge, KeySpan
from warp.sources.postgresql.catalog import ColumnOf, Shape, Table
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.snapshot import key_of, within

_AND = sql.SQL(" AND ")
_COMMA = sql.SQL(", ")


def cut(server: Server, table: Table, shape: Shape, wanted: KeySpan, size: int) -> list[Chunk]:
    """Key ranges that cover the keys between two edges, as far as there are any."""
    if tuple(table.key) != wanted.key:
        raise SourceRefused(
            f"the key ({', '.join(wanted.key)}) was expected, found ({', '.join(table.key)}): it "
            "was changed since; run `cartridge-warp resync` without --where",
            place=str(table.id),
        )
    key = key_of(table, shape)
    lower = upper = None
    if (edge := wanted.lower) is not None:
        lower = _first(server, table, key, _beyond(key, edge, ">=" if edge.inclusive else ">"))
        if lower is None:
            return []
    if (edge := wanted.upper) is not None:
        upper = _first(server, table, key, _beyond(key, edge, ">" if edge.inclusive else ">="))
    inside = within(Chunk(table.id, 0, lower, upper), key)
    edges = _walked(server, table, key, inside, max(2, size))
    return [
        Chunk(table.id, number, begin, end, size)
        for number, (begin, end) in enumerate(pairwise([lower, *edges, upper]))
    ]


def _beyond(key: list[ColumnOf], edge: Edge, sign: str) -> sql.Composed:
    columns = key[: len(edge.values)]
    return sql.SQL("({}) {} ({})").format(
        _COMMA.join(sql.Identifier("t", c.name) for c in columns),
        sql.SQL(sign),
        _COMMA.join(
            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(c.type_name))
            for value, c in zip(edge.values, columns, strict=True)
        ),
    )


def _first(server: Server, table: Table, key: list[ColumnOf], where: sql.Composable) -> str | None:
    statement = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT 1").format(
        _texts(key), _of(table), where, _names(key)
    )
    found = _ask(server, table, statement)
    return json.dumps(found[0], ensure_ascii=False) if found else None


def _walked(
    server: Server, table: Table, key: list[ColumnOf], inside: list[sql.Composable], size: int
) -> list[str]:
    """Every key that begins a chunk, but the first."""
    statement = sql.SQL(
        "SELECT {texts} FROM (SELECT {names}, row_number() OVER (ORDER BY {names}) AS place "
        "FROM {table} WHERE {inside}) AS t WHERE place > 1 AND place % {size} = 1 ORDER BY place"
    ).format(
        texts=_texts(key),
        names=_names(key),
        table=_of(table),
        inside=_AND.join(inside) if inside else sql.SQL("true"),
        size=sql.Literal(size),
    )
    return [json.dumps(edge, ensure_ascii=False) for edge in _ask(server, table, statement)]


def _ask(server: Server, table: Table, statement: sql.Composed) -> list[tuple[Any, ...]]:
    connection = server.connect()  # without a limit: a large range takes its time
    try:
        with server.meaning(f"cut {table.id} into chunks"):
            return connection.execute(statement).fetchall()
    finally:
        server.give_back(connection)


def _of(table: Table) -> sql.Composed:
    only = sql.SQL("" if table.partitioned else "ONLY ")
    return only + sql.Identifier(table.id.namespace, table.id.name) + sql.SQL(" AS t")


def _names(key: list[ColumnOf]) -> sql.Composed:
    return _COMMA.join(sql.Identifier("t", c.name) for c in key)


def _texts(key: list[ColumnOf]) -> sql.Composed:
    return _COMMA.join(sql.SQL("{}::text").format(sql.Identifier("t", c.name)) for c in key)
