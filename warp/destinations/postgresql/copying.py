"""Columns of cells as the data of a binary COPY: the only place where that happens.

By the compiled encoder, which takes packed columns and makes no object of a cell; or row by row
through psycopg where the compiled modules are not at work or a cell has no packed form.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

from psycopg import Copy

from warp import faults, native
from warp.cells import taken
from warp.destinations.postgresql.carriers import DUMPED_AS, dumped
from warp.destinations.postgresql.session import OIDS, Session
from warp.model import Cells, Kind
from warp.native import Packed

Column = tuple[Kind, Cells]
Said = tuple[str, Any]
"""Beside the cells: how it is sent, and a value for each row, or one for all."""

_BLOCK_BYTES: Final = 256 << 10  # encoded at once, about; a row is never split
_KINDS: Final = {
    "bool": Kind.BOOL,
    "int2": Kind.INT32,
    "int4": Kind.INT32,
    "int8": Kind.INT64,
    "bytea": Kind.BYTES,
}
_SHORT: Final = frozenset({"int2"})  # not sent as their kind is


def copy(
    session: Session,
    statement: bytes,
    columns: Sequence[Column],
    *,
    rows: int,
    beside: Sequence[Said] = (),
    constants: Sequence[Said] = (),
    order: array[int] | None = None,
) -> None:
    """Run a COPY … FROM STDIN (FORMAT binary): the columns, what is said of each row beside them,
    and what is the same in every row; their rows in another order where one is given.

    `statement` is sent as it is, without parameters: no percent sign in a name is doubled.
    """
    packed = _packed(columns, beside) if native.active() else None
    with session.connect().cursor() as cursor, cursor.copy(statement) as copying:
        if packed is None:
            if order is not None:
                columns = [(kind, taken(cells, order)) for kind, cells in columns]
                beside = [(form, taken(values, order)) for form, values in beside]
            _row_by_row(copying, columns, beside, constants, rows)
        else:
            short = {len(columns) + i: form for i, (form, _) in enumerate(beside) if form in _SHORT}
            for block in _blocks(packed, short, constants, order):
                copying.write(block)
        faults.hit("in_copy")


def _packed(columns: Sequence[Column], beside: Sequence[Said]) -> list[Packed] | None:
    """All columns packed; None where one cannot be."""
    found: list[Packed] = []
    for kind, cells in (*columns, *((_KINDS[form], values) for form, values in beside)):
        made = cells if isinstance(cells, Packed) else Packed.of(kind, cells)
        if made is None or made.kind is not kind:
            return None
        found.append(made)
    return found


def _blocks(
    columns: Sequence[Packed],
    short: dict[int, str],
    constants: Sequence[Said],
    order: array[int] | None,
) -> Iterator[bytes]:
    rows = len(columns[0])
    size = sum(column.nbytes for column in columns) // max(1, rows) + 1
    step = max(1, _BLOCK_BYTES // size)
    yield native.packed.COPY_HEAD
    for start in range(0, rows, step):
        yield native.packed.copy_rows(
            columns,
            start,
            start + step,
            order=order,
            wire=short,
            tail=_tail(constants),
            tail_fields=len(constants),
        )
    yield native.packed.COPY_END


def _tail(constants: Sequence[Said]) -> bytes:
    """The fields that end every row."""
    if not constants:
        return b""
    columns = [Packed.of(_KINDS[form], [value]) for form, value in constants]
    short = {place: form for place, (form, _) in enumerate(constants) if form in _SHORT}
    row = native.packed.copy_rows([c for c in columns if c is not None], wire=short)
    return row[2:]  # without the number of its fields


def _row_by_row(
    copying: Copy,
    columns: Sequence[Column],
    beside: Sequence[Said],
    constants: Sequence[Said],
    rows: int,
) -> None:
    types = [DUMPED_AS[kind] for kind, _ in columns]
    types += [form for form, _ in (*beside, *constants)]
    copying.set_types([OIDS[type_] for type_ in types])
    cells = [dumped(kind, column) for kind, column in columns]
    said = [values for _, values in beside]
    write = copying.write_row
    for row in zip(*cells, *said, *(repeat(value, rows) for _, value in constants), strict=True):
        write(row)
