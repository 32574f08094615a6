"""The rows of a SELECT as columns, by the codecs that read the log: COPY in text, or in binary.

In binary where the compiled reader knows each type: it is exact there, and costs a fifth of the
text of a double.
"""

from __future__ import annotations

import re
import select as select_
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import Connection, Copy, pq, sql
from psycopg.rows import TupleRow

from warp import native
from warp.model import Cells, Operation, TableChanges, TableSchema
from warp.sources.postgresql import libpq
from warp.sources.postgresql.catalog import Catalog, Shape, Table
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.values import Codec, column, settled

if TYPE_CHECKING:
    from warp.native.postgresql import Frames, Receiver

FULL_BYTES: Final = 4 << 20
"""Four batches of a chunk may be under way at once, eight chunks in one worker (guarantee 9)."""

# Seconds: a unit whose server says nothing for longer has lost its lease long ago.
_SILENT: Final = 600.0

_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED: Final = {
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}
_NULL: Final = rb"\N"


def select(
    table: Table,
    shape: Shape,
    where: Sequence[sql.Composable] = (),
    join: sql.Composable | None = None,
) -> sql.Composed:
    """The columns of a table that the log carries too, of the rows that it carries too."""
    conditions = list(where)
    if shape.row_filter is not None:
        # As the server itself writes it; its names are the table's columns.
        conditions.append(sql.SQL("({})").format(sql.SQL(shape.row_filter)))
    columns = sql.SQL(", ").join(sql.Identifier("t", c.name) for c in shape.columns)
    statement = sql.SQL("SELECT {} FROM {}{} AS t").format(
        columns,
        sql.SQL("" if table.partitioned else "ONLY "),
        sql.Identifier(table.id.namespace, table.id.name),
    )
    if join is not None:
        statement += sql.SQL(" ") + join
    if conditions:
        statement += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
    return statement


def read(
    server: Server,
    connection: Connection[TupleRow],
    statement: sql.Composable,
    codecs: Sequence[Codec],
    rows: Callable[[], int],
    *,
    place: str,
) -> Iterator[Sequence[Cells]]:
    """Columns of up to `rows` rows, or of so many as make a few megabytes; none of no rows.

    How many, it asks anew each time.
    """
    receiver = libpq.receiver()
    # A value has one text and one binary form; the latter is read for less.
    binary = receiver is not None and all(codec.binary for codec in codecs)
    copy_out = sql.SQL("COPY ({}) TO STDOUT" + " (FORMAT binary)" * binary).format(statement)
    with (
        server.meaning(f"read {place}"),
        connection.cursor() as cursor,
        cursor.copy(copy_out) as copy,
    ):
        if receiver is None:
            for lines in _lines(copy, rows):
                yield carriers(lines, codecs)
                server.still_open(place)
        else:
            kinds = [codec.compiled for codec in codecs]
            compiled = native.postgresql
            columns_of = compiled.binary_columns_of if binary else compiled.columns_of
            for frames in _frames(connection, receiver, rows):
                taken = columns_of(frames, kinds)
                if len(taken[0][0]):  # the last message of a binary COPY is no row
                    yield [settled(codec, one) for codec, one in zip(codecs, taken, strict=True)]
                server.still_open(place)
    server.still_open(place)


def _lines(copy: Copy, rows: Callable[[], int]) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    size, wanted = 0, rows()
    for line in copy:
        lines.append(bytes(line))
        size += len(line)
        if len(lines) >= wanted or size >= FULL_BYTES:
            yield lines
            lines, size, wanted = [], 0, rows()
    if lines:
        yield lines


def _frames(
    connection: Connection[TupleRow], receiver: Receiver, rows: Callable[[], int]
) -> Iterator[Frames]:
    """The same lines, by the compiled receiver."""
    server = connection.pgconn
    readable = select_.poll()
    readable.register(server.socket, select_.POLLIN)
    frames = native.postgresql.Frames()
    status, wanted = native.postgresql.FULL, rows()
    while status != native.postgresql.ENDED:
        status = libpq.receive(server, receiver, frames, FULL_BYTES, wanted)
        if status == native.postgresql.FULL:
            yield frames
            frames, wanted = native.postgresql.Frames(), rows()
        elif status == native.postgresql.WAIT:
            _await(server, readable)
        elif status == native.postgresql.REFUSED:
            break
    _completed(connection)
    if len(frames):
        yield frames


def _completed(connection: Connection[TupleRow]) -> None:
    """Take what the server says at the end of the COPY, which may be that it failed."""
    server = connection.pgconn
    readable = select_.poll()
    readable.register(server.socket, select_.POLLIN)
    failed = None
    while True:
        while server.is_busy():
            _await(server, readable)
            server.consume_input()
        result = server.get_result()
        if result is None:
            break
        if result.status != pq.ExecStatus.COMMAND_OK:
            failed = result
    if failed is not None:
        raise psycopg.errors.error_from_result(failed, connection.info.encoding)


def _await(server: pq.abc.PGconn, readable: select_.poll) -> None:
    if not readable.poll(_SILENT * 1000):
        server.finish()  # else the end of the COPY would be waited for
        raise psycopg.OperationalError(f"the server has sent nothing for {_SILENT:g} s")


def carriers(lines: list[bytes], codecs: Sequence[Codec]) -> list[Cells]:
    """Lines of COPY's text format as columns."""
    width = len(codecs)
    block = b"".join(lines)
    cells: list[Any] = block[:-1].replace(b"\n", b"\t").split(b"\t")
    if b"\\" in block:
        cells = [_plain(cell) if b"\\" in cell else cell for cell in cells]
    return [column(codec, cells[i::width]) for i, codec in enumerate(codecs)]


def _plain(cell: bytes) -> bytes | None:
    if cell == _NULL:
        return None
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), cell)


def changes(
    schema: TableSchema, columns: Sequence[Cells], operation: Operation, version: int
) -> TableChanges:
    """Rows that all had the same happen to them at the same version."""
    count = len(columns[0])
    operations = bytearray((operation,)) * count
    return TableChanges(schema.table, operations, [version] * count, schema, columns)


def codecs_of(catalog: Catalog, shape: Shape) -> list[Codec]:
    return [catalog.types.codec(c.type_oid) for c in shape.columns]
