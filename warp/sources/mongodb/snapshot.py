"""Cutting a collection into key ranges, and reading one of them at one version.

Ranges are `min` and `max` of the `_id` index: `{_id: {$gt: x}}` is bracketed by type and loses
ids of every other type (2 of 8 documents matched `_id > 1` where all 8 should [measured]).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from bson import Int64, ObjectId, Timestamp, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.json_util import JSONMode, JSONOptions
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Chunk, Edge, KeySpan, Kind, TableId
from warp.sources.bson_decoding import KEY, decode, decode_ids
from warp.sources.extjson import tagged
from warp.sources.mongodb import errors
from warp.sources.mongodb.cursor import RawCursor, gathering
from warp.sources.mongodb.tokens import order_key

# Ids sampled for each edge: more make the ranges more even.
_SAMPLES_PER_EDGE: Final = 20
_REPLY_ROWS: Final = 5_000  # cheaper than 20,000 [measured]
# Four batches of a chunk are under way at once, each as documents, as rows or as both, and eight
# chunks in one worker: they shall fit into 300 MB (guarantee 9).
_FULL_BYTES: Final = 4 << 20
_ATTEMPTS: Final = 5  # without a row in between

BOUNDS: Final = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=False,
)


def bound(id: Any) -> str:
    """An id as the text of a chunk's bound: canonical Extended JSON."""
    return json_util.dumps({KEY: id}, json_options=BOUNDS)


def unbound(text: str) -> dict[str, Any]:
    """The bound as `min` and `max` take it."""
    found: dict[str, Any] = json_util.loads(text, json_options=BOUNDS)
    return found


def cut(database: Database[Any], table: TableId, rows: int) -> list[Chunk]:
    """Key ranges of about `rows` documents that together cover every id of every type."""
    counted = int(database.command({"count": table.name})["n"])
    wanted = math.ceil(counted / max(1, rows))
    if wanted <= 1:
        return [Chunk(table, 0, rows=counted)]
    edges = [bound(id) for id in _edges(database, table, wanted)]
    bounds = [None, *edges, None]
    share = math.ceil(counted / (len(bounds) - 1))
    return [
        Chunk(table, number, lower, upper, share)
        for number, (lower, upper) in enumerate(pairwise(bounds))
    ]


def cut_within(
    database: Database[Any], table: TableId, kind: Kind, wanted: KeySpan, rows: int
) -> list[Chunk]:
    """Key ranges that cover the ids between two edges, which are of one type."""
    first: list[Any] = []
    after: list[Any] = []
    if (edge := wanted.lower) is not None:
        sign = "$gte" if edge.inclusive else "$gt"
        first = _first(database, table, sign, _id(edge, kind, table))
        if not first:
            return []
    if (edge := wanted.upper) is not None:
        sign = "$gt" if edge.inclusive else "$gte"
        after = _first(database, table, sign, _id(edge, kind, table))
    if first and after and after[0] <= first[0]:
        return []  # the server refuses such a range
    lower, upper = (bound(ids[0]) if ids else None for ids in (first, after))
    edges = _walked(database, table, lower, upper, max(1, rows))
    return [
        Chunk(table, number, begin, end, rows)
        for number, (begin, end) in enumerate(pairwise([lower, *edges, upper]))
    ]


def _id(edge: Edge, kind: Kind, table: TableId) -> Any:
    if kind not in (Kind.INT32, Kind.INT64, Kind.OBJECTID):
        raise SourceRefused(
            f"ids that are all integers or all ObjectIds were expected, found {kind.value}: the "
            "order of others is not the destination's; run `cartridge-warp resync` without --where",
            place=str(table),
        )
    [value] = edge.values
    return ObjectId(value) if kind is Kind.OBJECTID else Int64(value)


def _first(database: Database[Any], table: TableId, sign: str, id: Any) -> list[Any]:
    """The first id of the value's own type that is beyond it, in a list; none of none."""
    found = database[table.name].find_one({KEY: {sign: id}}, {KEY: 1}, sort=[(KEY, 1)])
    return [] if found is None else [found[KEY]]


def _walked(
    database: Database[Any], table: TableId, lower: str | None, upper: str | None, rows: int
) -> list[str]:
    """Every id that begins a chunk, but the first."""
    command: dict[str, Any] = {
        "find": table.name,
        "hint": {KEY: 1},
        "projection": {KEY: 1},
        "batchSize": _REPLY_ROWS,
    }
    if lower is not None:
        command["min"] = unbound(lower)
    if upper is not None:
        command["max"] = unbound(upper)
    cursor = RawCursor(database, command)
    edges: list[str] = []
    seen = 0
    try:
        while not cursor.exhausted:
            for id in decode_ids(cursor.read(_REPLY_ROWS).documents):
                if seen and seen % rows == 0:
                    edges.append(bound(id))
                seen += 1
    finally:
        cursor.close()
    return edges


def _edges(database: Database[Any], table: TableId, chunks: int) -> list[Any]:
    command = {
        "aggregate": table.name,
        "pipeline": [
            {"$sample": {"size": chunks * _SAMPLES_PER_EDGE}},
            {"$project": {KEY: 1}},
            {"$sort": {KEY: 1}},
        ],
        "cursor": {"batchSize": _REPLY_ROWS},
        "allowDiskUse": True,
    }
    cursor = RawCursor(database, command)
    ids: list[Any] = []
    try:
        while not cursor.exhausted:
            ids += decode_ids(cursor.read(_REPLY_ROWS).documents)
    finally:
        cursor.close()
    if not ids:  # dropped since it was counted
        return []
    picked = [ids[i * len(ids) // chunks] for i in range(1, chunks)]
    # The server may sample a document twice, and an edge twice would be an empty range.
    return list({tagged(id): id for id in picked}.values())


def read(
    database: Database[Any],
    chunk: Chunk,
    rows: Callable[[], int],
    *,
    now: Callable[[], Timestamp],
    closed: threading.Event,
) -> Iterator[tuple[int, Sequence[bytes]]]:
    """(version, documents) of about `rows` each; at least one pair, also of an empty range.

    How many, it asks anew for each pair.

    A version that the server no longer keeps (some five minutes), a lost cursor or a new primary
    begin again at the last id read and at a new version: documents that come twice are harmless,
    since the older one never replaces the newer.
    """
    lower = unbound(chunk.lower) if chunk.lower is not None else None
    failures = 0
    yielded = False
    while True:
        version = now()
        last: bytes | None = None
        try:
            for documents in _read_at(database, chunk, lower, version, rows):
                failures, yielded = 0, True
                last = documents[-1]
                yield order_key(version), documents
                _still_open(closed, chunk)
            break
        except PyMongoError as error:
            _still_open(closed, chunk)
            failures += 1
            if failures > _ATTEMPTS or not _mended_by_a_new_version(error):
                raise errors.translate(error, f"read {chunk.table}") from error
        if last is not None:
            lower = {KEY: decode([last])[0][KEY]}
    if not yielded:
        yield order_key(version), []


def _still_open(closed: threading.Event, chunk: Chunk) -> None:
    """To end a read without an error would look like the end of its rows (guarantee 8)."""
    if closed.is_set():
        raise SourceUnavailable("the connector was closed", place=str(chunk.table))


def _mended_by_a_new_version(error: PyMongoError) -> bool:
    if isinstance(error, OperationFailure) and error.code in errors.STALE_SNAPSHOT:
        return True
    return errors.is_transient(error)


def _read_at(
    database: Database[Any],
    chunk: Chunk,
    lower: dict[str, Any] | None,
    version: Timestamp,
    rows: Callable[[], int],
) -> Iterator[Sequence[bytes]]:
    command: dict[str, Any] = {"find": chunk.table.name, "hint": {KEY: 1}}
    if lower is not None:
        command["min"] = lower
    if chunk.upper is not None:
        command["max"] = unbound(chunk.upper)
    wanted = rows()
    command["batchSize"] = min(wanted, _REPLY_ROWS)
    command["readConcern"] = {"level": "snapshot", "atClusterTime": version}
    cursor = RawCursor(database, command)
    documents = gathering()
    size = 0
    try:
        while not cursor.exhausted:
            reply = cursor.read(min(wanted - len(documents), _REPLY_ROWS))
            documents.extend(reply.documents)
            size += reply.size
            if len(documents) >= wanted or size >= _FULL_BYTES:
                yield documents
                documents, size, wanted = gathering(), 0, rows()
    finally:
        cursor.close()
    if documents:
        yield documents
