"""Cutting a table into key ranges, and reading one of them at one version.

Bounds are cut and compared by the server, in the collation of its index, and are kept as JSON
texts of the key's values: keys are never compared here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from psycopg import sql

from warp.digest.seams import IN_ONE_ORDER, Bound, BoundsOf, KeyRange
from warp.errors import SourceRefused
from warp.model import Chunk, Invalid, Operation, TableChanges
from warp.sources.postgresql import rows
from warp.sources.postgresql.catalog import Catalog, ColumnOf, Shape, Table
from warp.sources.postgresql.position import lsn_of
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.values import Types, column
from warp.sources.postgresql.visibility import flushed, settled_version

_WALKED_BYTES: Final = (
    64 << 20
)  # a table up to here is read to cut it exactly, a larger one sampled
_SAMPLES_PER_EDGE: Final = 30
_FLUSH_BY_ITSELF: Final = 0.25  # seconds that the server is given to flush its log


def cut(server: Server, table: Table, shape: Shape, size: int) -> list[Chunk]:
    """Key ranges of about `size` rows that together cover every key."""
    ((counted, held),) = server.ask(
        "estimate", {"oid": table.oid}, doing=f"estimate the size of {table.id}"
    )
    if not table.key or (counted <= size and held > _WALKED_BYTES):
        return [Chunk(table.id, 0, rows=counted)]
    edges = _edges(server, table, key_of(table, shape), size, counted, exact=held <= _WALKED_BYTES)
    bounds = [None, *edges, None]
    share = min(counted, size)
    return [
        Chunk(table.id, number, lower, upper, share)
        for number, (lower, upper) in enumerate(pairwise(bounds))
    ]


def key_of(table: Table, shape: Shape) -> list[ColumnOf]:
    by_name = {c.name: c for c in shape.columns}
    missing = [name for name in table.key if name not in by_name]
    if missing:
        raise SourceRefused(
            f"the key's columns were expected in the publication, found {', '.join(missing)} left "
            "out by its column list; add them to it",
            place=str(table.id),
        )
    return [by_name[name] for name in table.key]


def _edges(
    server: Server, table: Table, key: Sequence[ColumnOf], size: int, counted: int, *, exact: bool
) -> list[str]:
    names = sql.SQL(", ").join(sql.Identifier(c.name) for c in key)
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c.name)) for c in key)
    if exact:
        sample, step = sql.SQL("").format(), size
    else:
        wanted = counted / size * _SAMPLES_PER_EDGE
        percent = min(100.0, max(100.0 * wanted / counted, 0.0001))
        sample = sql.SQL("TABLESAMPLE SYSTEM ({})").format(sql.Literal(percent))
        step = _SAMPLES_PER_EDGE
    # An edge twice would be an empty range, but keys are unique.
    statement = sql.SQL(
        "SELECT {texts} FROM (SELECT {names}, row_number() OVER (ORDER BY {names}) AS place "
        "FROM {only}{table} {sample}) AS walked WHERE place > 1 AND place % {step} = 1 "
        "ORDER BY place"
    ).format(
        texts=texts,
        names=names,
        only=sql.SQL("" if table.partitioned else "ONLY "),
        table=sql.Identifier(table.id.namespace, table.id.name),
        sample=sample,
        step=sql.Literal(max(2, step)),
    )
    connection = server.connect()  # without a limit: a large table takes its time
    try:
        with server.meaning(f"cut {table.id} into chunks"):
            found = connection.execute(statement).fetchall()
    finally:
        server.give_back(connection)
    return [json.dumps(edge, ensure_ascii=False) for edge in found]


def within(chunk: Chunk, key: Sequence[ColumnOf]) -> list[sql.Composable]:
    """The conditions of a chunk's key range, for the table's alias `t`."""
    row = sql.SQL("({})").format(sql.SQL(", ").join(sql.Identifier("t", c.name) for c in key))
    conditions: list[sql.Composable] = []
    for bound, compared in ((chunk.lower, ">="), (chunk.upper, "<")):
        if bound is None:
            continue
        values = json.loads(bound)
        if len(values) != len(key):
            raise SourceRefused(
                f"a bound of {len(key)} key columns was expected, found {bound}: the table's key "
                "was changed since its chunks were cut; run `cartridge-warp resync SCHEMA`",
                place=str(chunk.table),
            )
        typed = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(c.type_name))
            for value, c in zip(values, key, strict=True)
        )
        conditions.append(sql.SQL("{} {} ({})").format(row, sql.SQL(compared), typed))
    return conditions


def bounds(chunk: Chunk, key: Sequence[ColumnOf], types: Types) -> BoundsOf | None:
    """The key range as carriers, where its keys have one order everywhere."""
    codecs = [types.codec(column.type_oid) for column in key]
    if not all(codec.kind in IN_ONE_ORDER and not codec.made_of for codec in codecs):
        return None
    ends: list[Bound | None] = []
    for bound in (chunk.lower, chunk.upper):
        texts = json.loads(bound) if bound is not None else None
        if texts is None:
            ends.append(None)
        elif len(texts) != len(codecs):
            return None
        else:
            pairs = zip(codecs, texts, strict=True)
            ends.append(tuple(column(codec, [text.encode()])[0] for codec, text in pairs))
    if any(isinstance(cell, Invalid) for end in ends if end is not None for cell in end):
        return None
    return BoundsOf(tuple(codec.kind for codec in codecs), KeyRange(*ends))


def read(
    server: Server,
    catalog: Catalog,
    table: Table,
    shape: Shape,
    chunk: Chunk,
    size: Callable[[], int],
    publication: str,
) -> Iterator[tuple[int, TableChanges | None]]:
    """(version, rows) of about `size` rows each, asked anew for each; at least one pair, also of an
    empty range."""
    doing = f"read {table.id}"
    version = settled_version(server, table.id, table.oid, publication)
    schema = catalog.schema(table, shape)
    key = key_of(table, shape) if table.key else []
    statement = rows.select(table, shape, within(chunk, key))
    connection = server.connect()
    yielded = False
    try:
        with server.meaning(doing):
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # The first query opens the snapshot.
            opened = connection.execute("SELECT pg_catalog.pg_current_wal_insert_lsn()::text")
            ((end,),) = opened.fetchall()
        durable(server, lsn_of(end))
        codecs = rows.codecs_of(catalog, shape)
        for columns in rows.read(server, connection, statement, codecs, size, place=str(table.id)):
            yielded = True
            yield version, rows.changes(schema, columns, Operation.READ, version)
    finally:
        server.give_back(connection)
    if not yielded:
        yield version, None


def durable(server: Server, end: int) -> None:
    """Until everything that the snapshot shows would survive a crash of the server.

    Transactions with `synchronous_commit = off` are visible before.
    """
    began = time.monotonic()
    forced = False
    while flushed(server) < end:
        if not forced and time.monotonic() - began > _FLUSH_BY_ITSELF:
            forced = True
            # A transaction of ours, whose commit is waited for.
            emit = sql.SQL("SELECT pg_catalog.pg_logical_emit_message(true, 'cartridge-warp', '')")
            server.ask(emit, doing="flush the log")
        server.closed.wait(0.02)
        server.still_open()
