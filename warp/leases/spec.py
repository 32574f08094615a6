"""Work units as the ledger stores them: JSON with the unit's kind, schema, table and key range.

What comes back out of Redis is input, not memory: anyone who may write to Redis may have written
it, so reading checks every part and `UnitRefused` is an answer the caller must expect.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from warp.errors import UnitFailed, UnitRefused
from warp.model import Chunk, TableId, UnitKind, WorkUnit

LONGEST: Final = 64 * 1024  # bytes; a key range of two large keys is far below it

_LONGEST_PASS: Final = 18  # digits
_WHOLE: Final = (UnitKind.STREAM, UnitKind.LEADER)  # of no single table
_LEASED: Final = frozenset(kind.value for kind in UnitKind if kind is not UnitKind.TABLE)

LARGEST_FENCE: Final = 2**53 - 2  # Lua counts in doubles; microseconds get there in the year 2255


def encode(unit: WorkUnit) -> bytes:
    spec: dict[str, Any] = {"kind": unit.kind.value, "schema": unit.schema}
    if unit.table is not None:
        spec["table"] = [unit.table.namespace, unit.table.name]
    if unit.chunk is not None:
        chunk = unit.chunk
        spec["chunk"] = {
            "number": chunk.number,
            "lower": chunk.lower,
            "upper": chunk.upper,
            "rows": chunk.rows,
        }
    return orjson.dumps(spec)


def decode(id: str, spec: bytes) -> WorkUnit:
    """The unit, with the table and kind agreeing with its id.  Raises UnitRefused."""
    try:
        return _decoded(id, spec)
    except UnitRefused as refused:
        raise UnitRefused(refused.message, place=id) from None


def _decoded(id: str, spec: bytes) -> WorkUnit:
    if not spec:
        raise UnitRefused("expected a JSON object, found nothing")
    if len(spec) > LONGEST:
        raise UnitRefused(f"expected at most {LONGEST} bytes, found {len(spec)}")
    try:
        found = orjson.loads(spec)
    except orjson.JSONDecodeError as error:
        raise UnitRefused(f"expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnitRefused(f"expected a JSON object, found {type(found).__name__}")
    kind, schema = _text(found, "kind"), _text(found, "schema")
    if kind not in _LEASED:
        raise UnitRefused(f"expected a kind that is leased, found {kind[:40]!r}")
    table = _table(found["table"]) if "table" in found else None
    chunk = None
    if "chunk" in found:
        if table is None:
            raise UnitRefused("expected a chunk to name its table")
        chunk = _chunk(found["chunk"], table)
    if (kind in _WHOLE) != (table is None):
        raise UnitRefused(f"expected a table where a unit is of one, found a {kind} otherwise")
    if (kind in (UnitKind.CHUNK, UnitKind.VERIFY)) != (chunk is not None):
        raise UnitRefused(f"expected a key range in a chunk and nowhere else, found a {kind}")
    unit = WorkUnit(id, UnitKind(kind), schema, table, chunk)
    # The id names the marker, the rest says what to do: they must not come from two units.
    if not _is_id_of(unit, id):
        raise UnitRefused(f"expected the parts of {id[:80]!r}, found those of another unit")
    return unit


def stand_in(id: str) -> WorkUnit:
    """Something to show for a unit whose spec cannot be read.  TABLE units are never leased."""
    return WorkUnit(id, UnitKind.TABLE, "")


def refuse_foreign_fence(unit_id: str, fence: int) -> None:
    """A fence that this ledger cannot have issued, nor count on from: a person must look."""
    if fence > LARGEST_FENCE:
        raise UnitFailed(
            f"expected a fence below 2^53, found {fence} in the destination, which no ledger "
            "issued; find out who wrote it, then correct the unit's marker",
            place=unit_id,
        )


def _is_id_of(unit: WorkUnit, id: str) -> bool:
    """The epoch of a chunk, or the pass of a verification, is in its id only."""
    if unit.kind is UnitKind.LEADER:
        return id == "leader"
    named = f"{unit.kind.value}:{unit.schema}"
    if unit.table is not None:
        named += f":{unit.table}"
    if unit.chunk is None:
        return id == named
    pass_, _, number = id.removeprefix(f"{named}:").partition(":")
    numbered = pass_.isascii() and pass_.isdigit() and len(pass_) <= _LONGEST_PASS
    return numbered and id == f"{named}:{pass_}:{number}" and number == str(unit.chunk.number)


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise UnitRefused(f"expected text as {name}, found {type(value).__name__}")
    return value


def _table(found: object) -> TableId:
    match found:
        case [str(namespace), str(name)]:
            return TableId(namespace, name)
    raise UnitRefused("expected [namespace, name] as table")


def _chunk(found: object, table: TableId) -> Chunk:
    match found:
        case {
            "number": int(number),
            "lower": str() | None as lower,
            "upper": str() | None as upper,
            "rows": int(rows),
        } if type(number) is type(rows) is int and number >= 0:  # to Python, true is a number
            return Chunk(table, number, lower, upper, rows)
    raise UnitRefused("expected number, lower, upper and rows as chunk")
