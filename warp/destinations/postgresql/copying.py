"""Columns of cells as the data of a binary COPY: the only place where that happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from warp import faults
from warp.destinations.postgresql.session import OIDS, Session


def copy(
    session: Session,
    statement: bytes,
    columns: Sequence[tuple[str, Iterable[Any]]],
    *,
    rows: int,
    constants: Sequence[tuple[str, Any]] = (),
) -> None:
    """Run a COPY … FROM STDIN (FORMAT binary): each column with the type it is dumped as (see
    `carriers.DUMPED_AS`), then those whose value is the same in every row.

    `statement` is sent as it is, without parameters: no percent sign in a name is doubled.
    """
    types = [OIDS[dumped] for dumped, _ in (*columns, *constants)]
    cells = [*(cells for _, cells in columns), *(repeat(value, rows) for _, value in constants)]
    with session.connect().cursor() as cursor, cursor.copy(statement) as copying:
        copying.set_types(types)
        write = copying.write_row
        for row in zip(*cells, strict=True):
            write(row)
        faults.hit("in_copy")
