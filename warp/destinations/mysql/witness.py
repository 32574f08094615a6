"""A table of MySQL as any client reads it, for a second opinion on its digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.digest import witness


def recount(
    session: Session,
    place: tuple[str, str],
    columns: Sequence[tuple[str, str]],
    soft_delete_column: str | None,
) -> tuple[int, str]:
    """(rows, digest) of a table now; `columns` are names and kinds."""
    selected = ", ".join(
        _SELECTED.get(kind, "{}").format(f"t.{quoted(fitting(name))}") for name, kind in columns
    )
    conditions = ["not t._cw_deleted"]
    if soft_delete_column is not None:
        conditions.append(f"t.{quoted(fitting(soft_delete_column))} is not true")
    statement = (
        f"select {selected} from {quoted(*map(fitting, place))} as t"
        f" where {' and '.join(conditions)}"
    )
    with session.meaning(f"reading {'.'.join(place)}"), session.patience():
        rows = (row for page in session.pages(statement) for row in page)
        return witness.count(rows, [kind for _, kind in columns])


# What the driver would not give as it is.
_SELECTED: Final = {
    "float32": "({} + 0e0)",  # six digits of it
    "date": "datediff({}, '2000-01-01')",
    "time": "timestampdiff(microsecond, '2000-01-01', timestamp('2000-01-01', {}))",
    "datetime": "timestampdiff(microsecond, '2000-01-01', {})",
    "timestamp": "timestampdiff(microsecond, '2000-01-01', {})",
}
