"""A table of BigQuery as any client reads it, for a second opinion on its digest."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from warp.destinations.bigquery.names import column, dataset, quoted
from warp.destinations.bigquery.names import table as table_name
from warp.destinations.bigquery.session import Session
from warp.digest import witness
from warp.errors import DestinationRefused


def recount(
    session: Session,
    place: tuple[str, str],
    columns: Sequence[tuple[str, str]],
    soft_delete_column: str | None,
) -> tuple[int, str]:
    """(rows, digest) of a table now; `columns` are names and kinds.

    A row with a value that is none of its kind was not there when anybody certified it: the digest
    is then that of no table.
    """
    there = (dataset(place[0]), table_name(place[1]))
    with session.meaning(f"reading {'.'.join(place)}"):
        found = session.table(*there)
        if found is None:
            raise DestinationRefused(
                f"expected the table {'.'.join(place)}, found none; it was certified, and is gone",
                place=session.place,
            )
        types = {field.name: field.field_type for field in found.schema}
        asked = []
        readers: list[Callable[[Any], Any]] = []
        for name, kind in columns:
            # As it is called, unless another one had that name already or BigQuery takes it not.
            called = name if name in types else column(name, {name.lower()})
            as_json = types.get(called) == "JSON"
            expression = _SELECTED.get("JSON" if as_json else kind, "{}")
            asked.append(expression.format(quoted(called)))
            readers.append(_shown if as_json else _READ.get(kind, lambda value: value))
        statement = f"SELECT {', '.join(asked)} FROM {quoted(session.project, *there)} WHERE "
        marks = ["_cw_deleted", *([column(soft_delete_column)] if soft_delete_column else [])]
        statement += " AND ".join(f"IFNULL({quoted(mark)}, FALSE) = FALSE" for mark in marks)
        try:
            return witness.count(_rows(session, statement, readers), [kind for _, kind in columns])
        except (ValueError, OverflowError):
            return -1, ""


def _rows(
    session: Session, statement: str, readers: Sequence[Callable[[Any], Any]]
) -> Iterator[list[Any]]:
    for row in session.each(statement):
        yield [
            None if value is None else read(value) for read, value in zip(readers, row, strict=True)
        ]


def _shown(text: str) -> str:
    """JSON whose doubles are written with the digits that they are."""

    def double(token: str) -> Any:
        value = float(token)
        return int(value) if value % 1 == 0 else value

    def whole(token: str) -> Any:
        fits = len(token) < 21 and -(2**63) <= int(token) < 2**64
        return int(token) if fits else double(token)

    return json.dumps(json.loads(text, parse_float=double, parse_int=whole))


_2000: Final = 946_684_800
_SELECTED: Final[Mapping[str, str]] = {
    "JSON": "IF({0} IS NULL, NULL, TO_JSON_STRING({0}))",
    "decimal": "CAST({} AS STRING)",
    "date": "DATE_DIFF({}, DATE '2000-01-01', DAY)",
    "time": "TIME_DIFF({}, TIME '00:00:00', MICROSECOND)",
    "datetime": "DATETIME_DIFF({}, DATETIME '2000-01-01 00:00:00', MICROSECOND)",
    "timestamp": "TIMESTAMP_DIFF({}, TIMESTAMP '2000-01-01 00:00:00+00', MICROSECOND)",
}
_READ: Final[Mapping[str, Callable[[Any], Any]]] = {"decimal": Decimal, "uuid": uuid.UUID}
