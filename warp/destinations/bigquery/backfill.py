"""Values that waited in `_extra` for a column, moved into it when it is made.  Pure.

Only a value whose JSON type fits the column exactly is moved; anything else stays where it is.
Written for the forms that sources write into `_extra`: JSON where it has the type, canonical
Extended JSON elsewhere.  Done while nobody writes to the table, and harmless when done twice.
"""

from __future__ import annotations

import json
import re
from typing import Final

from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.spelling import Spelled
from warp.destinations.bigquery.tables import Table
from warp.model import Kind, Role

# For each kind: when the JSON value {v} fits, and the column's value then.
_EXACT: Final[dict[Kind, tuple[str, str]]] = {
    Kind.BOOL: ("JSON_TYPE({v}) = 'boolean'", "BOOL({v})"),
    Kind.INT32: ("JSON_TYPE({v}) = 'number' AND SAFE.INT64({v}) IS NOT NULL", "INT64({v})"),
    Kind.INT64: ("JSON_TYPE({v}) = 'number' AND SAFE.INT64({v}) IS NOT NULL", "INT64({v})"),
    # Beyond 2**53 a double and an integer look alike in JSON.
    Kind.FLOAT64: (
        "JSON_TYPE({v}) = 'number' AND ABS(FLOAT64({v})) <= 9007199254740992",
        "FLOAT64({v})",
    ),
    Kind.TEXT: ("JSON_TYPE({v}) = 'string'", "STRING({v})"),
    Kind.OBJECTID: (
        "JSON_TYPE({v}) = 'object' AND REGEXP_CONTAINS(JSON_VALUE({v}, '$.\"$oid\"'),"
        " r'^[0-9a-f]{{24}}$')",
        "JSON_VALUE({v}, '$.\"$oid\"')",
    ),
    Kind.TIMESTAMP: (
        "JSON_TYPE({v}) = 'object' AND SAFE.TIMESTAMP_MILLIS(SAFE_CAST("
        'JSON_VALUE({v}, \'$."$date"."$numberLong"\') AS INT64)) IS NOT NULL',
        'TIMESTAMP_MILLIS(CAST(JSON_VALUE({v}, \'$."$date"."$numberLong"\') AS INT64))',
    ),
    Kind.JSON: ("JSON_TYPE({v}) <> 'null'", "{v}"),
}


_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def statement(table: Table, project: str, column: Spelled) -> str | None:
    """None where nothing can have waited, or cannot be moved."""
    extra = next((one for one in table.spelled if one.column.role is Role.EXTRA), None)
    exact = _EXACT.get(column.column.kind)
    if extra is None or exact is None or extra.type != "JSON" or column.column.limit is not None:
        return None
    field = column.column.source.replace("\0", "\u2400")
    plain = _PLAIN.fullmatch(field) is not None
    path = literal("$." + (field if plain else json.dumps(field, ensure_ascii=False)))
    cell = quoted(extra.name)
    value = f"JSON_QUERY({cell}, {path})"
    fits, found = (part.format(v=value) for part in exact)
    place = quoted(project, table.place.namespace, table.place.name)
    name = quoted(column.name)
    return (
        f"UPDATE {place} SET {name} = {found}, {cell} = JSON_REMOVE({cell}, {path})"
        f" WHERE {value} IS NOT NULL AND {name} IS NULL AND {fits}"
    )
