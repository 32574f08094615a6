"""Compares MongoDB with PostgreSQL row by row and field by field, as an outsider would.

Shares no code with the engine on purpose: it reads documents and rows by the drivers alone and
says what each document should look like as a row.  Both sides are read once, in the order of their
keys, so memory does not grow with the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import psycopg
from bson import ObjectId, json_util
from psycopg import sql
from psycopg.rows import dict_row
from pymongo.database import Database

Document = dict[str, Any]

_FETCH: Final = 5_000
_SHOWN: Final = 5
_OWN_COLUMNS: Final = ("_cw_version", "_cw_deleted", "_extra")


@dataclass(slots=True)
class Comparison:
    """What was found in one table.  `different` counts rows, whatever is wrong with them."""

    table: str
    source_rows: int = 0
    destination_rows: int = 0
    fields: int = 0
    different: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, what: str) -> None:
        self.different += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(what)


def compare(
    source: Database[Document],
    destination: psycopg.Connection[Any],
    schema: str,
    table: str,
    progress: Callable[[int], None] = lambda rows: None,
) -> Comparison:
    """Every row and every field of one table, both ways."""
    result = Comparison(table)
    rows = _rows(destination, schema, table)
    row = next(rows, None)
    for document in source[table].find(batch_size=_FETCH).sort("_id", 1):
        key = as_column(document["_id"])
        result.source_rows += 1
        while row is not None and row["_id"] < key:
            result.destination_rows += 1
            result.differs(f"{row['_id']}: only in PostgreSQL")
            row = next(rows, None)
        if row is None or row["_id"] > key:
            result.differs(f"{key}: only in MongoDB")
            continue
        result.destination_rows += 1
        result.fields += len(document)
        wrong = differing_fields(document, row)
        if wrong:
            result.differs(f"{key}: " + ", ".join(wrong))
        row = next(rows, None)
        if result.source_rows % _FETCH == 0:
            progress(_FETCH)
    while row is not None:
        result.destination_rows += 1
        result.differs(f"{row['_id']}: only in PostgreSQL")
        row = next(rows, None)
    progress(result.source_rows % _FETCH)
    return result


def _rows(
    destination: psycopg.Connection[Any], schema: str, table: str
) -> Iterator[dict[str, Any]]:
    """The rows in the byte order of their keys, which is MongoDB's order of one key type."""
    with destination.transaction(), destination.cursor("compared", row_factory=dict_row) as rows:
        kind = destination.execute(
            "select data_type from information_schema.columns"
            " where table_schema = %s and table_name = %s and column_name = '_id'",
            (schema, table),
        ).fetchone()
        if kind is None:
            return
        in_order = sql.SQL('collate "C"' if kind[0] == "text" else "")
        rows.itersize = _FETCH
        rows.execute(
            sql.SQL("select * from {} order by _id {}").format(
                sql.Identifier(schema, table), in_order
            )
        )
        yield from rows


def differing_fields(document: Document, row: dict[str, Any]) -> list[str]:
    """The fields whose value is not what the row holds, in its column or else in `_extra`."""
    extra = row.get("_extra")
    kept = json_util.loads(json_util.dumps(extra), json_options=_EXTENDED) if extra else {}
    wrong = []
    for name, value in document.items():
        found = row.get(name)
        if found is None and name in kept:
            if kept[name] != value:
                wrong.append(f"{name} is {value!r} and {kept[name]!r}")
        elif type(value) in _PLAIN:
            if found != value:
                wrong.append(f"{name} is {value!r} and {found!r}")
        elif found != as_column(value):
            wrong.append(f"{name} is {value!r} and {found!r}")
    wrong += [
        f"{name} is missing and {found!r}"
        for name, found in row.items()
        if found is not None and name not in document and name not in _OWN_COLUMNS
    ]
    wrong += [f"{name} is missing and {kept[name]!r}" for name in kept if name not in document]
    return wrong


_PLAIN: Final = frozenset({str, int, float, bool, type(None), datetime})
_EXTENDED: Final = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, tz_aware=True, document_class=dict
)


def as_column(value: Any) -> Any:
    """What a column should hold for a value: identifiers as text, objects and lists as JSON."""
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, dict):
        return {name: as_column(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_column(item) for item in value]
    if isinstance(value, Decimal | str | int | float | bool | datetime) or value is None:
        return value
    raise TypeError(f"the demo's data hold no {type(value).__name__}")


def same(comparisons: Sequence[Comparison]) -> bool:
    return not any(comparison.different for comparison in comparisons)
