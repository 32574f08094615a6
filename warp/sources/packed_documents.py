"""Documents into packed columns by the compiled pass; what it leaves, by the reference.

What comes out is what `Shaping` alone would give, to the last finding: cells that the compiled
pass took have none, and the others keep the order and the blocks in which `Shaping` would see
them.  It is given the rows that were left whole, and of a row with a few odd cells a document of
these alone, for the other cells of such a row stand already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress, groupby, repeat
from operator import attrgetter, is_not, itemgetter, or_
from typing import Any, Final

from warp import native
from warp.model import ABSENT, Cells, Column, Kind, Role, Shaped, TableSchema, TableSettings
from warp.native import Packed
from warp.sources.bson_decoding import decode
from warp.sources.bson_types import EXACT_IN_DOUBLE, Seen, type_name
from warp.sources.proposals import field_of
from warp.sources.shaping import BLOCK, Shaping, bare_rows, without_columns

_KEYS: Final = frozenset(
    {
        Kind.INT64,
        Kind.TEXT,
        Kind.BYTES,
        Kind.UUID,
        Kind.TIMESTAMP,
        Kind.OBJECTID,
        Kind.TAGGED,
    }
)
_MOST_COLUMNS: Final = 1600  # of PostgreSQL

Met = tuple[int, str, str, bool]
"""A field without a column: row, name, type, is it an integer that no double holds exactly."""


def shape(
    raw: Sequence[bytes],
    operations: bytes | bytearray,
    known: TableSchema,
    settings: TableSettings,
) -> Shaped | None:
    """As `Documents.shape`; None where all of it is for the reference."""
    columns = _layout(known)
    if columns is None:
        return None
    made, slow, odd, met = native.bson.Layout(columns).shape(raw, bytes(operations))
    if not slow and not odd:
        return Shaped(made, without_columns(known, _seen(met), len(raw)))
    return _spliced(raw, operations, made, _left(raw, slow, odd), met, Shaping(known, settings))


@dataclass(frozen=True, slots=True)
class _Left:
    """A row that was left to the reference: whole, or only its odd cells."""

    row: int
    document: bytes  # of an odd one, the fields that are
    whole: bool


def _left(raw: Sequence[bytes], slow: list[int], odd: list[tuple[int, bytes]]) -> list[_Left]:
    left = [_Left(row, raw[row], True) for row in slow]
    left += [_Left(row, document, False) for row, document in odd]
    return sorted(left, key=attrgetter("row"))


def _layout(known: TableSchema) -> list[tuple[str, Kind, bytes, bool, int, int]] | None:
    columns = [_as_laid_out(column, known) for column in known.columns]
    whole = [column for column in columns if column is not None]
    fields = [name for role, _, name, *_ in whole if role == Role.FIELD]
    roles = [role for role, *_ in whole if role != Role.FIELD]
    alone = len(set(fields)) == len(fields) and len(set(roles)) == len(roles)
    return whole if alone and len(whole) == len(columns) <= _MOST_COLUMNS else None


def _as_laid_out(
    column: Column, known: TableSchema
) -> tuple[str, Kind, bytes, bool, int, int] | None:
    key = column.name in known.key
    name = field_of(column)
    if column.role is Role.FIELD and (
        "\0" in name or (column.kind not in _KEYS if key else column.kind is Kind.TAGGED)
    ):
        return None
    limit, scale = -1, -1
    if not key and column.kind in (Kind.TEXT, Kind.OBJECTID) and column.limit is not None:
        limit = column.limit
    elif not key and column.kind is Kind.DECIMAL and (column.limit, column.scale) != (None, None):
        if column.limit is None:
            return None
        scale = max(0, column.scale or 0)
        limit = max(0, column.limit - scale)
    return column.role.value, column.kind, name.encode("utf-8", "surrogatepass"), key, limit, scale


def _spliced(
    raw: Sequence[bytes],
    operations: bytes | bytearray,
    made: Sequence[Packed],
    left: list[_Left],
    met: list[Met],
    shaping: Shaping,
) -> Shaped:
    """With the rows that were left shaped by the reference, in the blocks they are part of."""
    fields = frozenset(field_of(c) for c in shaping.known.columns if c.role is Role.FIELD)
    for _, block in groupby(left, lambda each: each.row // BLOCK):
        rows = list(block)
        found = [each.document for each in rows]
        documents = decode(found)
        said = bytes(operations[each.row] for each in rows) if operations else b""
        bare = bare_rows(documents, said)
        shaping.add(found, documents, bare, set().union(*documents))
        if shaping.keeps_extra:
            met += _met(rows, documents, fields)
    met.sort(key=itemgetter(0))  # stable: the fields of one document keep their order
    done = shaping.shaped()
    places = [each.row for each in left]
    whole = [each.whole for each in left]
    return replace(
        done,
        columns=[
            _column(column, packed, places, whole, cells)
            for column, packed, cells in zip(shaping.known.columns, made, done.columns, strict=True)
        ],
        unknown=without_columns(shaping.known, _seen(met), len(raw)),
        findings=[(left[place].row, finding) for place, finding in done.findings],
        skipped=[replace(cell, row=left[cell.row].row) for cell in done.skipped],
        refused={left[place].row: why for place, why in done.refused.items()},
    )


def _column(
    column: Column, packed: Packed, left: list[int], whole: list[bool], cells: Cells
) -> Cells:
    """With the cells that were left; of a row with odd ones its other cells stand already."""
    wanted: Sequence[bool] = whole
    if column.role is Role.EXTRA:
        wanted = [True] * len(left)
    elif column.role is Role.FIELD:
        wanted = list(map(or_, whole, map(is_not, cells, repeat(ABSENT))))
    if True not in wanted:
        return packed
    rows = list(compress(left, wanted))
    return native.bson.spliced(packed, rows, list(compress(cells, wanted)))


def _met(
    rows: Sequence[_Left], documents: Sequence[dict[str, Any]], fields: frozenset[str]
) -> list[Met]:
    return [
        (
            each.row,
            field,
            type_name(value),
            isinstance(value, int) and not -EXACT_IN_DOUBLE <= value <= EXACT_IN_DOUBLE,
        )
        for each, document in zip(rows, documents, strict=True)
        for field, value in document.items()
        if field not in fields
    ]


def _seen(met: Sequence[Met]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    for _, field, name, large in met:
        if field not in seen:
            seen[field] = Seen()
        seen[field].add_type(name, large=large)
    return seen
