"""Ids as cells of a key, and back: documents by their keys, and chunks as key ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from bson import Binary, Int64, ObjectId, Timestamp, json_util
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from warp.digest.seams import IN_ONE_ORDER, BoundsOf, KeyRange
from warp.errors import WarpError
from warp.model import Chunk, Kind, TableChanges
from warp.sources.bson_cells import KEY_CELLS, MISFIT
from warp.sources.bson_decoding import KEY
from warp.sources.mongodb.cursor import RawCursor
from warp.sources.mongodb.snapshot import BOUNDS, unbound

_AT_ONCE: Final = 1_000

_IDS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.INT64: Int64,
    Kind.TEXT: str,
    Kind.BYTES: bytes,
    Kind.UUID: lambda cell: Binary(cell, 4),
    Kind.TIMESTAMP: lambda cell: DatetimeMS(cell // 1000),
    Kind.OBJECTID: ObjectId,
    Kind.TAGGED: lambda cell: json_util.loads(f'{{"{KEY}":{cell}}}', json_options=BOUNDS)[KEY],
}


def look_up(database: Database[Any], rows: TableChanges, version: Timestamp) -> list[bytes]:
    """The documents of these keys at one version; those gone are left out.

    So is one whose id was too long for an index of the destination: a hash stands there for it.
    """
    schema = rows.schema
    if schema is None or len(schema.key) != 1:
        raise WarpError("documents are looked up by their key", place=str(rows.table))
    place = schema.names().index(schema.key[0])
    kind = schema.columns[place].kind
    ids = [_IDS[kind](c) for c in rows.columns[place] if not _is_hashed(kind, c)]
    found: list[bytes] = []
    for start in range(0, len(ids), _AT_ONCE):
        command = {
            "find": rows.table.name,
            "filter": {KEY: {"$in": ids[start : start + _AT_ONCE]}},
            "batchSize": _AT_ONCE,
            "readConcern": {"level": "snapshot", "atClusterTime": version},
        }
        cursor = RawCursor(database, command)
        try:
            while not cursor.exhausted:
                found += map(bytes, cursor.read(_AT_ONCE).documents)
        finally:
            cursor.close()
    return found


def _is_hashed(kind: Kind, cell: Any) -> bool:
    return kind is Kind.TAGGED and cell.startswith("sha256:")


def bounds(chunk: Chunk) -> BoundsOf | None:
    """Where all bounds are of one type that has one order everywhere."""
    cells: list[Any] = []
    kinds: set[Kind] = set()
    for bound in (chunk.lower, chunk.upper):
        if bound is None:
            cells.append(None)
            continue
        kind, cell = _cell(unbound(bound)[KEY])
        if kind is None:
            return None
        kinds.add(kind)
        cells.append((cell,))
    if len(kinds) > 1:
        return None
    return BoundsOf(tuple(kinds), KeyRange(*cells))


def _cell(id: Any) -> tuple[Kind | None, Any]:
    if isinstance(id, datetime | DatetimeMS):
        return Kind.TIMESTAMP, KEY_CELLS[Kind.TIMESTAMP][type(id)](id)
    for kind, made_by in KEY_CELLS.items():
        make = made_by.get(type(id))
        if make is not None and kind in IN_ONE_ORDER and type(id) is not float:
            cell = make(id)
            return (None, None) if cell is MISFIT else (kind, cell)
    return None, None
