"""Cutting a table into chunks, and reading one of them as it was at one time.

A chunk is a range of the key's first column, compared by BigQuery only.  Where the table is neither
clustered nor partitioned by it, each range scans the whole table.  Where that would be more than
`scan_limit` allows, a chunk is a stream of one session of the Storage Read API instead: together
they scan the table once, but the session is kept for six hours only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa

from warp.errors import SourceRefused, SourceUnavailable
from warp.kinds import as_text
from warp.model import Chunk, Column, Kind, Operation, TableChanges
from warp.sources.bigquery import reading
from warp.sources.bigquery.catalog import Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.reading import Taken
from warp.sources.bigquery.server import Server
from warp.sql import load

_DIALECT: Final = BigQueryDialect()
# Keys of up to so many rows are numbered exactly, which one worker of BigQuery does; of more, the
# edges are where BigQuery guesses them to be.
_NUMBERED_ROWS: Final = 10_000_000
_RANGED: Final = (
    *(Kind.INT64, Kind.DECIMAL, Kind.TEXT, Kind.BYTES),
    *(Kind.DATE, Kind.DATETIME, Kind.TIMESTAMP),
)
_MOST_STREAMS: Final = 1_000  # of a session
_CLOSED: Final = "the connector was closed"


def cut(server: Server, table: Table, rows: int) -> list[Chunk]:
    """Chunks of about `rows` rows that together cover every key, the missing one too."""
    if not table.rows:
        # What has just streamed in is not counted yet.  To count it bills nothing.
        name = _DIALECT.name(table.id.namespace, table.id.name)
        [(counted,)] = server.ask(f"SELECT COUNT(*) FROM {name}", doing=f"count {table.id}")
        table = replace(table, rows=int(counted))
    wanted = -(-table.rows // max(1, rows))
    most = affordable(server, table)
    leading = table.column(table.key[0]) if table.key else None
    if leading is None or wanted < 2:  # a chunk of a table without a key takes the place of all
        return [Chunk(table.id, 0, rows=table.rows)]
    if leading.kind not in _RANGED or most < wanted:
        if server.reader is not None:
            return _streams(server, table, min(wanted, _MOST_STREAMS))
        if leading.kind not in _RANGED or most < 2:
            return [Chunk(table.id, 0, rows=table.rows)]
    edges = _edges(server, table, leading, min(wanted, most))
    share = -(-table.rows // (len(edges) + 1))
    return [
        Chunk(table.id, number, lower, upper, share)
        for number, (lower, upper) in enumerate(pairwise([None, *edges, None]))
    ]


def _streams(server: Server, table: Table, wanted: int) -> list[Chunk]:
    """All at the time of the cutting; as many as BigQuery thinks the table is worth."""
    at = server.now()
    streams = reading.table_streams(server, table.id, table.columns, at=at, most=wanted)
    share = -(-table.rows // max(1, len(streams)))
    bounds = [json.dumps({"stream": taken.name, "at": at}) for taken in streams]
    return [Chunk(table.id, number, bound, None, share) for number, bound in enumerate(bounds)] or [
        Chunk(table.id, 0)
    ]


def _stream_of(chunk: Chunk) -> tuple[Taken, int] | None:
    """The stream that a chunk is, and its time; None where it is a range of keys."""
    said = json.loads(chunk.lower) if chunk.lower and chunk.lower.startswith("{") else None
    return (Taken("stream", str(said["stream"])), int(said["at"])) if said else None


def affordable(server: Server, table: Table) -> int:
    """How many ranges may scan the table each."""
    if not table.bytes or table.prunes_by(table.key[0] if table.key else ""):
        return max(1, table.rows)
    return max(1, server.options.scan_limit // table.bytes)


def _edges(server: Server, table: Table, leading: Declared, wanted: int) -> list[str]:
    exact = table.rows <= _NUMBERED_ROWS
    statement = load("bigquery_source", "edges" if exact else "rough_edges").format(
        key=_DIALECT.name(leading.name),
        table=_DIALECT.name(table.id.namespace, table.id.name),
        step=-(-table.rows // wanted),
        parts=wanted,
    )
    found = server.ask(statement, doing=f"cut {table.id} into chunks")
    # One value twice would be an empty range; the first edge of all is the least key.
    texts = [bound(leading, value) for (value,) in found if value is not None]
    return list(dict.fromkeys(texts))


def bound(leading: Declared, value: Any) -> str:
    """A value of the key's first column as the text of a chunk's bound."""
    [cell] = leading.cells(pa.array([value], type=_ARROW.get(leading.type)))
    return json.dumps([leading.type, as_text(leading.kind, cell)], ensure_ascii=False)


_ARROW: Final[dict[str, Any]] = {
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


def within(chunk: Chunk, table: Table) -> str:
    """The condition of a chunk's key range; empty where it is the whole table."""
    if chunk.lower is None and chunk.upper is None:
        return ""
    leading = table.column(table.key[0]) if table.key else None
    if leading is None:
        raise _moved(chunk, "no key")
    name = _DIALECT.name(leading.name)
    conditions = []
    if chunk.lower is not None:
        conditions.append(f"{name} >= {_literal(chunk, leading, chunk.lower)}")
    if chunk.upper is not None:
        below = f"{name} < {_literal(chunk, leading, chunk.upper)}"
        # The declared key is not enforced: rows without one are of the first range.
        conditions.append(below if conditions else f"({below} OR {name} IS NULL)")
    return " AND ".join(conditions)


def value_of(leading: Declared, text: str) -> str | None:
    """The value that `bound` wrote; None where the column has become another, or it is a stream."""
    try:
        declared, value = json.loads(text)
    except (ValueError, TypeError):
        return None
    return str(value) if declared == leading.type else None


def _literal(chunk: Chunk, leading: Declared, text: str) -> str:
    value = value_of(leading, text)
    if value is None:
        raise _moved(chunk, f"{leading.type} where it was {text}")
    return _DIALECT.literal(leading.kind, value)


def _moved(chunk: Chunk, found: str) -> SourceRefused:
    return SourceRefused(
        f"the key that the table had when it was cut into chunks was expected, found {found}; "
        "run `cartridge-warp resync SCHEMA`",
        place=str(chunk.table),
    )


def read(
    server: Server, table: Table, chunk: Chunk, rows: Callable[[], int], *, at: int | None = None
) -> Iterator[tuple[int, TableChanges | None]]:
    """(the time that is read, rows of it); at least one pair, also of an empty range.

    As they are now, or were `at` a time; but a stream is of its own time.
    """
    stream = _stream_of(chunk)
    at = stream[1] if stream is not None else at or server.now()
    batches = (
        _of_stream(server, table, stream[0])
        if stream is not None
        else _of_range(server, table, chunk, at)
    )
    yielded = False
    for part in reading.parts(batches, rows):
        yielded = True
        yield at, changes(table, at, part)
        if server.closed.is_set():
            # To end without an error would look like the end of the rows (guarantee 8).
            raise SourceUnavailable(_CLOSED, place=str(table.id))
    if not yielded:
        yield at, None


def _of_stream(server: Server, table: Table, taken: Taken) -> Iterator[pa.RecordBatch]:
    try:
        yield from reading.read(server, reading.Ready(taken), doing=f"read {table.id}")
    except reading.Vanished as error:
        raise SourceRefused(
            "a stream of rows was expected, which BigQuery keeps for six hours, found it gone; run "
            "`cartridge-warp resync SCHEMA TABLE` with more workers, or cluster the table by its "
            "key, or raise scan_limit",
            place=str(table.id),
        ) from error


def _of_range(server: Server, table: Table, chunk: Chunk, at: int) -> Iterator[pa.RecordBatch]:
    doing = f"read {table.id}"
    condition = within(chunk, table)
    if server.reader is not None:
        taken = reading.table_streams(server, table.id, table.columns, at=at, restriction=condition)
    else:
        statement = select(table, _DIALECT.at(table.id, at), condition)
        taken = [reading.begin_query(server, statement, doing=doing)]
    try:
        for one in taken:
            ready = reading.wait(server, one, doing=doing)
            yield from reading.read(server, ready or reading.Ready(one), doing=doing)
    except reading.Vanished as error:
        raise SourceUnavailable(
            "rows that are kept for six hours were expected, found them gone; the chunk is read "
            "again",
            place=str(table.id),
        ) from error


def select(table: Table, place: str, condition: str = "") -> str:
    listed = ", ".join(_DIALECT.name(c.name) for c in table.columns)
    return f"SELECT {listed} FROM {place}" + (f" WHERE {condition}" if condition else "")


def changes(table: Table, version: int, part: pa.Table) -> TableChanges:
    """Rows as a snapshot delivers them, all at one version."""
    count = part.num_rows
    operations = bytearray((Operation.READ,)) * count
    columns = reading.cells(part, table.columns)
    return TableChanges(table.id, operations, [version] * count, table.proposal(), columns)


def key_columns(table: Table) -> list[Column]:
    """The key as the schema lists it, in the key's own order."""
    found = {c.name: c for c in table.proposal().columns}
    return [found[name] for name in table.key]
