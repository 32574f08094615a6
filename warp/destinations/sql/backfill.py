"""Values that waited in `_extra` for a column, moved into it once there is one.

Only a value whose JSON type fits the column exactly is moved; anything else stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from warp import faults
from warp.destinations.sql.ddl import unit_of
from warp.destinations.sql.session import Session
from warp.model import Column, Role, TableSchema, TableSettings


def finish(
    session: Session,
    settings: TableSettings,
    schema: TableSchema | None,
    *,
    alone: Callable[[str], AbstractContextManager[bool]],
    fill: Callable[[Column, Column], None],
) -> None:
    """Fill every column of the table that is still to be filled, unless somebody else is at it.

    Also what a process that was killed half-way left to do.  `alone` says whether nobody else is;
    `fill` moves the values of one column out of `_extra`.
    """
    unit = unit_of(settings).id
    extra = None
    if schema is not None:
        extra = next((c for c in schema.columns if c.role is Role.EXTRA), None)
    if schema is None or extra is None:
        return
    waiting = session.named("unfilled_columns", unit=unit).fetchall()
    if not waiting:
        return
    with alone(unit) as nobody_else:
        for version, name in waiting if nobody_else else ():
            column = schema.column(name)
            faults.hit("before_fill")
            if column is not None:
                fill(extra, column)
            faults.hit("after_fill")
            session.named("column_filled", unit=unit, version=version)
