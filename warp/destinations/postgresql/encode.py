"""Staged rows into an open COPY: by the compiled encoder, or row by row through psycopg.

The only place where rows become what PostgreSQL reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import Copy

from warp import native
from warp.destinations.postgresql.carriers import DUMPED_AS, Staged, dumpable, packed
from warp.destinations.postgresql.session import OIDS
from warp.model import Kind
from warp.native import Packed

Said = Sequence[tuple[str, Sequence[Any]]]
"""Columns beside the cells: how each is sent, and a value a row."""

_BLOCK_BYTES: Final = 256 << 10  # encoded at once; rows are never split
_KINDS: Final = {"int2": Kind.INT32, "int4": Kind.INT32, "int8": Kind.INT64, "bytea": Kind.BYTES}


def into(copy: Copy, part: Staged, said: Said) -> None:
    """All rows of the part, each with what is said beside its cells."""
    columns = packed(part)
    if columns is not None:
        beside = [Packed.of(_KINDS[form], values) for form, values in said]
        whole = [column for column in beside if column is not None]
        if len(whole) == len(beside):
            wire = {
                len(columns) + place: form
                for place, (form, _) in enumerate(said)
                if form in ("int2", "int4")
            }
            for block in _blocks([*columns, *whole], wire):
                copy.write(block)
            return
    _row_by_row(copy, part, said)


def _blocks(columns: Sequence[Packed], wire: dict[int, str]) -> Iterator[bytes]:
    rows = len(columns[0])
    size = sum(column.nbytes for column in columns) // max(1, rows) + 1
    step = max(1, _BLOCK_BYTES // size)
    yield native.packed.COPY_HEAD
    for start in range(0, rows, step):
        yield native.packed.copy_rows(columns, start, start + step, wire=wire)
    yield native.packed.COPY_END


def _row_by_row(copy: Copy, part: Staged, said: Said) -> None:
    types = [OIDS[DUMPED_AS[column.kind]] for column in part.schema.columns]
    copy.set_types([*types, *(OIDS[form] for form, _ in said)])
    write = copy.write_row
    for row in zip(*dumpable(part), *(values for _, values in said), strict=True):
        write(row)
