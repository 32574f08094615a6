"""BSON documents as columns: the exact type, or the slow path, or `_extra`; never a guess.

A column is converted by one C-level pass where the set of its cells' types says that nothing can
go wrong, and cell by cell where it does not.  A cell that does not fit its column keeps its value
in `_extra`, so a row is never lost or set aside for one field (guarantee 4).

`bson.decode_all` is called once per batch.  One damaged document would fail it for all, so then
each is decoded alone, and those that still fail are read element by element.
"""

from __future__ import annotations

import gc
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count, repeat
from operator import attrgetter, floordiv, itemgetter, sub
from typing import Any, Final

import bson
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidBSON

from warp.fitting import Fitting, Original
from warp.kinds import as_text
from warp.model import (
    ABSENT,
    Column,
    DocumentColumn,
    Handling,
    Kind,
    Operation,
    Outcome,
    Role,
    Shape,
    Shaped,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.sources import lossless
from warp.sources.elements import LENGTH, elements
from warp.sources.extjson import (
    EPOCH,
    NUL_SEEN,
    Garbled,
    column_to_json,
    milliseconds,
    tagged,
    to_json,
    to_json_text,
)

KEY: Final = "_id"
EXTRA: Final = Column("_extra", Kind.JSON, role=Role.EXTRA, comment="fields without a column")
DOCUMENT: Final = Column("doc", Kind.JSON, role=Role.DOCUMENT, comment="the whole document")
DOCUMENT_TEXT: Final = replace(DOCUMENT, kind=Kind.JSON_TEXT)

# UUIDs stay Binary (UNSPECIFIED): decoding one of 15 bytes as a UUID fails the whole batch.
# Dates stay naive, in UTC, and become DatetimeMS only outside the years 1 to 9999: making a
# DatetimeMS of each costs more than the decoding of all other fields.
DECODING: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    unicode_decode_error_handler="strict",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

EMPTY: Final = b"\x05\x00\x00\x00\x00"
"""The document of a TRUNCATE row."""

_COMMON_SHARE: Final = 0.01  # of the sample, to have a column
_LONGEST_KEY: Final = 2000  # bytes; a btree entry holds 2,700
_EXACT_IN_DOUBLE: Final = 1 << 53
_LARGEST_EXPONENT: Final = 1000  # 1E+6144 would be 6,145 digits of numeric
_NAME_BYTES: Final = 63  # PostgreSQL cuts longer names without a word

_NAMELESS: Final = "_empty"  # the column of the field whose name is empty: no column may be ""

# Names that are ours, or that PostgreSQL keeps for itself in every table.
_RESERVED: Final = frozenset(
    {"_cw_version", "_cw_deleted", EXTRA.name, DOCUMENT.name, _NAMELESS}
    | {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
)

_Mark: Final[type] = type(ABSENT)
_BLANK: Final[frozenset[type]] = frozenset({type(None), _Mark})

# What PostgreSQL's timestamptz holds: 4714-11-24 BC to the end of 294276, in microseconds.
_FIRST_INSTANT: Final = -210_866_803_200_000_000
_LAST_INSTANT: Final = 9_224_318_016_000_000_000 - 1

_MICROSECOND: Final = timedelta(microseconds=1)
_MISFIT: Final = object()


# ---------------------------------------------------------------------------------------------
# Kinds


class _Seen:
    """What one field held in a number of documents."""

    __slots__ = ("large", "types")

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.large = False  # an int that no double holds exactly

    def add(self, value: Any) -> None:
        self.types[type_name(value)] += 1
        if isinstance(value, int) and not -_EXACT_IN_DOUBLE <= value <= _EXACT_IN_DOUBLE:
            self.large = True

    def kind(self) -> Kind | None:
        """The narrowest kind that holds all of it; None where only nulls were seen."""
        kinds = {_KIND_OF[name] for name in self.types if name != "null"}
        if not kinds:
            return None
        if len(kinds) == 1:
            return kinds.pop()
        if kinds <= {Kind.INT64, Kind.FLOAT64}:
            return Kind.DECIMAL if self.large else Kind.FLOAT64
        if kinds <= {Kind.INT64, Kind.FLOAT64, Kind.DECIMAL}:
            return Kind.DECIMAL
        return Kind.JSON

    def comment(self, field: str, documents: int) -> str:
        shares = ", ".join(
            f"{name} {count * 100 / documents:.3g} %" for name, count in self.types.most_common()
        )
        return f"MongoDB field {field!r}: {shares}"


_NAMES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    Int64: "long",
    float: "double",
    Decimal128: "decimal",
    str: "string",
    Garbled: "string that is not UTF-8",
    bytes: "binData",
    ObjectId: "objectId",
    datetime: "date",
    DatetimeMS: "date",
    dict: "object",
    list: "array",
    Regex: "regex",
    Code: "javascript",
    Timestamp: "timestamp",
    MinKey: "minKey",
    MaxKey: "maxKey",
    DBRef: "dbRef",
}

_KIND_OF: Final[dict[str, Kind]] = {
    "bool": Kind.BOOL,
    "int": Kind.INT64,
    "long": Kind.INT64,
    "double": Kind.FLOAT64,
    "decimal": Kind.DECIMAL,
    "string": Kind.TEXT,
    "string that is not UTF-8": Kind.TEXT,
    "binData": Kind.BYTES,
    "uuid": Kind.UUID,
    "objectId": Kind.OBJECTID,
    "date": Kind.TIMESTAMP,
    "object": Kind.JSON,
    "array": Kind.JSON,
    "regex": Kind.JSON,
    "javascript": Kind.JSON,
    "timestamp": Kind.JSON,
    "minKey": Kind.JSON,
    "maxKey": Kind.JSON,
    "dbRef": Kind.JSON,
}


def type_name(value: Any) -> str:
    """The BSON type of a decoded value, as MongoDB calls it."""
    if type(value) is Binary:
        return "uuid" if value.subtype == 4 and len(value) == 16 else "binData"
    return _NAMES[type(value)]


# ---------------------------------------------------------------------------------------------
# Cells


def _whole_double(value: float) -> Any:
    if value.is_integer() and -(1 << 63) <= value < (1 << 63):
        return int(value)
    return _MISFIT


def _exact_double(value: int) -> Any:
    converted = float(value)
    return converted if int(converted) == value else _MISFIT


def _int32(value: int) -> Any:
    return int(value) if -(1 << 31) <= value < (1 << 31) else _MISFIT


def _decimal128(value: Decimal128) -> Any:
    converted = value.to_decimal()
    if not converted.is_finite():
        return _MISFIT if converted.is_snan() else converted
    digits = converted.as_tuple().digits
    first, last = converted.adjusted(), converted.adjusted() - len(digits) + 1
    return converted if max(abs(first), abs(last)) <= _LARGEST_EXPONENT else _MISFIT


def _instant(value: datetime | DatetimeMS) -> Any:
    converted = milliseconds(value) * 1000
    return converted if _FIRST_INSTANT <= converted <= _LAST_INSTANT else _MISFIT


def _day(value: datetime) -> Any:
    """Only midnight is a date: anything else would lose its time."""
    midnight = not (value.hour or value.minute or value.second or value.microsecond)
    return date(value.year, value.month, value.day) if midnight else _MISFIT


def _single(value: float) -> Any:
    """What a 32-bit column gives back as it was: 0.1 does not."""
    try:
        (stored,) = _SINGLE.unpack(_SINGLE.pack(value))
    except OverflowError:
        return _MISFIT
    return value if stored == value or value != value else _MISFIT


_SINGLE: Final = struct.Struct("<f")


def _whole_single(value: int) -> Any:
    converted = _exact_double(value)
    return converted if converted is _MISFIT else _single(converted)


def _uuid(value: Binary) -> Any:
    return bytes(value) if value.subtype == 4 and len(value) == 16 else _MISFIT


def _same(value: Any) -> Any:
    return value


def _as_text(value: Any) -> str:
    """Any value in a column of text: scalars as PostgreSQL would cast them, the rest as JSON."""
    if isinstance(value, str):
        return str(value)
    kind = _KIND_OF[type_name(value)]
    if kind is not Kind.JSON:
        convert = _CELLS[kind].get(type(value))
        made = _MISFIT if convert is None else convert(value)
        if made is not _MISFIT:
            return as_text(kind, made)
    return to_json(value).decode()


# For each kind, the exact types that may fit it and what makes a cell of them.
_CELLS: Final[dict[Kind, dict[type, Callable[[Any], Any]]]] = {
    Kind.BOOL: {bool: _same},
    Kind.INT32: {int: _int32, Int64: _int32},
    Kind.INT64: {int: _same, Int64: int, float: _whole_double},
    Kind.FLOAT32: {float: _single, int: _whole_single, Int64: _whole_single},
    Kind.FLOAT64: {float: _same, int: _exact_double, Int64: _exact_double},
    # The shortest text of a double names that double and no other; its exact digits would be
    # 0.1000000000000000055511151231257827 for 0.1.
    Kind.DECIMAL: {
        Decimal128: _decimal128,
        int: Decimal,
        Int64: lambda v: Decimal(int(v)),
        float: lambda v: Decimal(repr(v)),
    },
    Kind.TEXT: {str: lambda v: _MISFIT if "\0" in v else v},
    Kind.BYTES: {bytes: _same, Binary: bytes},
    Kind.UUID: {Binary: _uuid},
    Kind.DATE: {datetime: _day},
    Kind.TIME: {},
    Kind.DATETIME: {datetime: _instant, DatetimeMS: _instant},  # BSON dates are in UTC
    Kind.TIMESTAMP: {datetime: _instant, DatetimeMS: _instant},
    Kind.OBJECTID: {ObjectId: str},
    Kind.JSON_TEXT: dict.fromkeys([*_NAMES, Binary], to_json_text),
}

# Keys must be exact: two ids must never become one cell.
_KEY_CELLS: Final[dict[Kind, dict[type, Callable[[Any], Any]]]] = {
    Kind.INT64: _CELLS[Kind.INT64],
    Kind.TEXT: {str: lambda v: v if "\0" not in v and _taggable(v) else _MISFIT},
    Kind.BYTES: {bytes: lambda v: v if _taggable(v) else _MISFIT},  # Binary has a subtype too
    Kind.UUID: _CELLS[Kind.UUID],
    Kind.TIMESTAMP: _CELLS[Kind.TIMESTAMP],
    Kind.OBJECTID: _CELLS[Kind.OBJECTID],
}


def _short(key: str) -> bool:
    """Fits an index entry."""
    return len(key) * 4 <= _LONGEST_KEY or len(key.encode()) <= _LONGEST_KEY


def _taggable(id: Any) -> bool:
    """Would this id be short as a tagged key too, which its column may have to become?"""
    return _short(tagged(id))


def _whole_text(cells: list[Any]) -> list[Any] | None:
    return None if "\0" in "".join(cells) else cells


def _whole_key_text(cells: list[Any]) -> list[Any] | None:
    if max(map(len, cells), default=0) * 6 + 2 > _LONGEST_KEY:  # as if all of it were escaped
        return None
    return _whole_text(cells)


def _whole_instants(cells: list[Any]) -> list[Any]:
    # Years 1 to 9999 all fit, so nothing is left to check.
    since = map(sub, cells, repeat(EPOCH))
    return list(map(floordiv, since, repeat(_MICROSECOND)))


_object_id_bytes: Final = attrgetter("_ObjectId__id")


def _whole_object_ids(cells: list[Any]) -> list[Any]:
    return list(map(bytes.hex, map(_object_id_bytes, cells)))


def _whole_ints(cells: list[Any]) -> list[Any]:
    return list(map(int, cells))


# For each kind, the types a column may be made of entirely for a pass in C.  None: look closer.
_WholePass = tuple[frozenset[type], Callable[[list[Any]], list[Any] | None]]
_WHOLE: Final[dict[Kind, tuple[_WholePass, ...]]] = {
    Kind.BOOL: ((frozenset({bool}), _same),),
    Kind.INT64: ((frozenset({int}), _same), (frozenset({int, Int64}), _whole_ints)),
    Kind.FLOAT64: ((frozenset({float}), _same),),
    Kind.TEXT: ((frozenset({str}), _whole_text),),
    Kind.BYTES: ((frozenset({bytes}), _same),),
    Kind.TIMESTAMP: ((frozenset({datetime}), _whole_instants),),
    Kind.OBJECTID: ((frozenset({ObjectId}), _whole_object_ids),),
}
_KEY_WHOLE: Final[dict[Kind, tuple[_WholePass, ...]]] = {
    Kind.INT64: _WHOLE[Kind.INT64],
    Kind.TEXT: ((frozenset({str}), _whole_key_text),),
    Kind.TIMESTAMP: _WHOLE[Kind.TIMESTAMP],
    Kind.OBJECTID: _WHOLE[Kind.OBJECTID],
}


def _fit(
    cells: list[Any],
    whole: tuple[_WholePass, ...],
    single: Mapping[type, Callable[[Any], Any]],
) -> tuple[list[Any], list[int]]:
    """Cells of a kind, and the places of those that are not of it (None stands there)."""
    types = set(map(type, cells))
    for accepted, convert in whole:
        if types <= accepted:
            converted = convert(cells)
            if converted is not None:
                return converted, []
            break
        if types - _BLANK <= accepted:
            filled = convert([c for c in cells if c is not None and c is not ABSENT])
            if filled is not None:
                take = iter(filled)
                return [c if c is None or c is ABSENT else next(take) for c in cells], []
            break
    fitted: list[Any] = []
    misfits: list[int] = []
    for place, cell in enumerate(cells):
        if cell is None or cell is ABSENT:
            fitted.append(cell)
            continue
        make = single.get(type(cell))
        made = _MISFIT if make is None else make(cell)
        if made is _MISFIT:
            misfits.append(place)
            made = None
        fitted.append(made)
    return fitted, misfits


def _fit_json(cells: list[Any]) -> tuple[list[Any], list[int]]:
    """JSON holds everything; the places are those where NUL had to be replaced."""
    if _BLANK.isdisjoint(map(type, cells)):
        return column_to_json(cells)
    filled = [i for i, c in enumerate(cells) if c is not None and c is not ABSENT]
    texts, changed = column_to_json([cells[i] for i in filled])
    fitted = list(cells)
    for place, text in zip(filled, texts, strict=True):
        fitted[place] = text
    return fitted, [filled[i] for i in changed]


# ---------------------------------------------------------------------------------------------
# Documents


class BsonDocuments:
    """The documents of one table's changes, as the server sent them, decoded when asked for.

    A DELETE row's document is its key alone, a TRUNCATE row's is EMPTY; both are ABSENT in every
    other column.
    """

    __slots__ = ("_operations", "_raw", "_table")

    def __init__(
        self, table: TableId, raw: Sequence[bytes], operations: bytes | bytearray = b""
    ) -> None:
        """Without `operations` every document is a whole row."""
        self._table = table
        self._raw = raw
        self._operations = b"" if _BARE.isdisjoint(operations) else operations

    def __len__(self) -> int:
        return len(self._raw)

    def documents(self) -> list[dict[str, Any]]:
        """All of them, decoded."""
        return [document for _, documents, _ in self._blocks() for document in documents]

    def _blocks(self) -> Iterator[tuple[Sequence[bytes], list[dict[str, Any]], list[int]]]:
        """A part of the documents at a time, decoded, and which of these say but their key."""
        for start in range(0, len(self._raw), _BLOCK):
            raw = self._raw[start : start + _BLOCK]
            documents = decode(raw)
            operations = self._operations[start : start + _BLOCK]
            bare = [row for row, operation in enumerate(operations) if operation in _BARE]
            for row in bare:  # a sharded collection's keys carry the shard key too
                document = documents[row]
                documents[row] = {KEY: document[KEY]} if KEY in document else {}
            yield raw, documents, bare

    def shape(self, known: TableSchema, settings: TableSettings) -> Shaped:
        """Columns exactly as `known` lists them; what has none or does not fit goes to `_extra`."""
        shaping = _Shaping(known, settings)
        for raw, documents, bare in self._blocks():
            shaping.add(raw, documents, bare)
        return shaping.shaped()

    def describe(self, settings: TableSettings) -> TableSchema:
        """The schema these documents alone would propose, for a table nobody has seen yet."""
        whole: list[dict[str, Any]] = []
        ids: list[Any] = []
        for _, documents, rows in self._blocks():
            bare = set(rows)
            whole += [d for row, d in enumerate(documents) if row not in bare]
            ids += [documents[row][KEY] for row in rows if documents[row]]
        return propose(self._table, whole, settings, more_ids=ids)


_BARE: Final = frozenset({Operation.DELETE, Operation.TRUNCATE})

# Documents decoded at once.  As objects these fit a processor's cache: 3.9 us a document, against
# 8.2 with blocks of 5,000 [measured, 228 bytes of 8 fields].
_BLOCK: Final = 128


class _Extra:
    """What goes into `_extra` of the rows of one block."""

    __slots__ = ("_wanted", "rows")

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted  # a table without it has every value in `doc`
        self.rows: dict[int, dict[str, Any]] = {}  # row -> field -> value

    def keep(self, column: Column, row: int, value: Any) -> None:
        if self._wanted:
            self.rows.setdefault(row, {})[_field_of(column)] = value


class _Shaping:
    """One call of `shape`: block after block of documents, and what has come of them so far."""

    def __init__(self, known: TableSchema, settings: TableSettings) -> None:
        self.known = known
        self.settings = settings
        self.columns: list[list[Any]] = [[] for _ in known.columns]
        self.seen: dict[str, _Seen] = {}  # fields without a column
        self.rows = 0
        self.key_kind: Kind | None = None
        self.keeps_extra = any(c.role is Role.EXTRA for c in known.columns)
        self.keeps_whole = any(c.role is Role.DOCUMENT for c in known.columns)
        self.extra = _Extra(self.keeps_extra)
        self.fitting = Fitting(
            known.table,
            settings,
            known.key,
            extra=self.keeps_extra or self.keeps_whole,
            # Not a method of this object: a circle of references would keep every batch alive
            # until garbage is looked for, and documents may be large (guarantee 9).
            keep=self.extra.keep,
        )
        # Of the block at hand:
        self.raw: Sequence[bytes] = ()
        self.documents: list[dict[str, Any]] = []
        self.bare: list[int] = []

    def add(self, raw: Sequence[bytes], documents: list[dict[str, Any]], bare: list[int]) -> None:
        self.raw, self.documents, self.bare = raw, documents, bare
        self.extra.rows = {}
        self.fitting.first = self.rows
        self.rows += len(documents)
        cells = self._cells()
        for column, done in zip(self.known.columns, self.columns, strict=True):
            if column.role is Role.FIELD:
                done += self._field(column, cells[_field_of(column)])
            elif column.role is Role.DOCUMENT:
                done += self._whole(column)
        if self.keeps_extra:  # now that all columns have said what they leave over
            left_over = self._left_over()
            for column, done in zip(self.known.columns, self.columns, strict=True):
                if column.role is Role.EXTRA:
                    done += left_over

    def shaped(self) -> Shaped:
        unknown: dict[str, Column] = {}
        taken = set(self.known.names())
        for field, values in self.seen.items():
            kind = values.kind()
            if kind is not None:
                name = column_name(field, taken)
                taken.add(name)
                comment = values.comment(field, self.rows)
                unknown[field] = Column(name, kind, source=field, comment=comment)
        return Shaped(
            self.columns,
            unknown,
            self.fitting.findings,
            self.fitting.asked,
            self.fitting.skipped,
            self.fitting.refused,
            self.key_kind,
        )

    def _cells(self) -> dict[str, list[Any]]:
        """The cells of each known field, and into `extra` all others."""
        fields = list({_field_of(c): None for c in self.known.columns if c.role is Role.FIELD})
        documents = self.documents
        cells: dict[str, list[Any]] = {}
        present = 0
        for field in fields:
            try:
                cells[field] = list(map(itemgetter(field), documents))
                present += len(documents)
            except KeyError:
                column = cells[field] = [d.get(field, ABSENT) for d in documents]
                present += len(column) - column.count(ABSENT)
        # As many values as the columns took: no document has a field beyond them.
        if (self.keeps_extra or not self.keeps_whole) and present != sum(map(len, documents)):
            self._collect_unknown(frozenset(fields))
        return cells

    def _collect_unknown(self, fields: frozenset[str]) -> None:
        seen = self.seen
        for row, document in enumerate(self.documents):
            if document.keys() <= fields:
                continue
            extra = self.extra.rows.setdefault(row, {})
            for field, value in document.items():
                if field not in fields:
                    extra[field] = value
                    if field not in seen:
                        seen[field] = _Seen()
                    seen[field].add(value)
        if not self.keeps_extra:
            raise ValueError(
                f"{self.known.table}: a schema with `_extra` or `doc` was expected, for the fields "
                f"{sorted(seen)[:5]} have no column; give the table one of the two"
            )

    def _field(self, column: Column, cells: list[Any]) -> list[Any]:
        if column.name in self.known.key:
            return self._key(column, cells)
        if column.kind is Kind.JSON:
            fitted, changed = _fit_json(cells)
            self._note_nul(column, changed)
            return fitted
        if column.kind is Kind.TAGGED:
            return [c if c is None or c is ABSENT else tagged(c) for c in cells]
        fitted, misfits = _fit(cells, _WHOLE.get(column.kind, ()), _CELLS[column.kind])
        for row in misfits:
            fitted[row] = self._misfit(column, row, cells[row])
        return self.fitting.within(fitted, column)

    def _misfit(self, column: Column, row: int, value: Any) -> Any:
        """What stands in the column for a value that it cannot hold; the value is kept whole."""
        if column.kind is Kind.TEXT and isinstance(value, str) and type(value) is not Code:
            # Readable text in the column, the bytes as they were in `_extra`.
            met = "NUL in a string" if type(value) is str else type_name(value)
            self.fitting.note(column, row, Outcome.EXTRA, met, original=str(value))
            self.extra.keep(
                column, row, value.raw if isinstance(value, Garbled) else value.encode()
            )
            return str(value).replace("\0", NUL_SEEN)
        met = type_name(value)
        if column.kind is Kind.TEXT and self._becomes_text(column):
            self.fitting.note(column, row, Outcome.CONVERTED, met)
            return _as_text(value)
        json = to_json(value)
        original = Original(_KIND_OF[met], met, json.decode(), value, Kind.JSON, json)
        return self.fitting.misfit(column, row, original, f"{met} has no form as {column.kind}")

    def _becomes_text(self, column: Column) -> bool:
        policy = self.settings.policy_of(column.source)
        return Handling.TEXT in (policy.narrower, policy.drastic)

    def _note_nul(self, column: Column, rows: list[int]) -> None:
        if rows:
            self.fitting.note(column, rows[0], Outcome.EXTRA, "NUL in a string", cells=len(rows))

    def _key(self, column: Column, cells: list[Any]) -> list[Any]:
        if column.kind is Kind.TAGGED:
            return self._tagged_key(column, cells)
        single = _KEY_CELLS.get(column.kind)
        if single is None:
            self.key_kind = Kind.TAGGED
            return [None] * len(cells)
        fitted, misfits = _fit(cells, _KEY_WHOLE.get(column.kind, ()), single)
        if misfits or None in fitted:
            self.key_kind = Kind.TAGGED
        return fitted

    def _tagged_key(self, column: Column, cells: list[Any]) -> list[Any]:
        keys: list[Any] = []
        bare = set(self.bare)
        for row, cell in enumerate(cells):
            if cell is ABSENT:
                keys.append(ABSENT)
                continue
            key = tagged(cell)
            if not _short(key):
                key = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
                if row not in bare:
                    self.extra.keep(column, row, cell)
            keys.append(key)
        return keys

    def _whole(self, column: Column) -> list[Any]:
        verbatim = column.kind is Kind.JSON_TEXT
        texts, changed = lossless.column(self.raw, self.documents, DECODING, verbatim=verbatim)
        self._note_nul(column, changed)
        return self._without_bare(list[Any](texts))

    def _left_over(self) -> list[Any]:
        column: list[Any] = [None] * len(self.documents)
        for row, fields in self.extra.rows.items():
            column[row] = to_json(fields)
        return self._without_bare(column)

    def _without_bare(self, cells: list[Any]) -> list[Any]:
        for row in self.bare:
            cells[row] = ABSENT
        return cells


# ---------------------------------------------------------------------------------------------
# Proposals


def propose(
    table: TableId,
    sample: Sequence[Mapping[str, Any]],
    settings: TableSettings,
    *,
    more_ids: Iterable[Any] = (),
) -> TableSchema:
    """The columns a collection asks for, judged by a sample of its documents."""
    fixed = dict(settings.columns)
    seen: dict[str, _Seen] = {}
    for document in sample:
        for field, value in document.items():
            if field not in seen:
                seen[field] = _Seen()
            seen[field].add(value)
    ids = [d[KEY] for d in sample if KEY in d]
    key = Column(
        KEY,
        fixed.get(KEY) or key_kind([*ids, *more_ids]),
        comment=seen[KEY].comment(KEY, len(sample)) if ids else "",
    )
    columns = [key]
    if settings.shape is not Shape.DOCUMENT:
        columns += _fields(seen, len(sample), fixed, settings.max_columns)
    if settings.shape is not Shape.TYPED:
        kept_as_it_is = settings.document_column is DocumentColumn.JSON
        columns.append(DOCUMENT_TEXT if kept_as_it_is else DOCUMENT)
    if settings.shape is not Shape.DOCUMENT:
        columns.append(EXTRA)
    return TableSchema(table, tuple(columns), (KEY,))


def _fields(
    seen: Mapping[str, _Seen], documents: int, fixed: Mapping[str, Kind], most: int
) -> list[Column]:
    """In the order of first sight; of too many, the most common ones."""
    wanted = {f: seen.get(f, _Seen()) for f in fixed if f != KEY}
    common = [
        field
        for field, values in seen.items()
        if field not in (KEY, *wanted)
        and values.kind() is not None
        and values.types.total() >= documents * _COMMON_SHARE
    ]
    common.sort(key=lambda f: -seen[f].types.total())
    chosen = {*wanted, *common[: max(0, most - len(wanted))]}
    order = [f for f in seen if f in chosen] + [f for f in wanted if f not in seen]
    columns = []
    taken = {KEY}
    for field in order:
        name = column_name(field, taken)
        taken.add(name)
        kind = fixed.get(field) or seen[field].kind()
        if kind is None:
            raise AssertionError("a field of nulls alone was not chosen")
        comment = seen[field].comment(field, documents) if field in seen else ""
        columns.append(Column(name, kind, source=field, comment=comment))
    return columns


def key_kind(ids: Iterable[Any]) -> Kind:
    """The one kind that holds all these ids exactly, or TAGGED."""
    cells = list(ids)
    if not cells:
        return Kind.OBJECTID  # what drivers make where nobody chose
    for kind, single in _KEY_CELLS.items():
        if type(cells[0]) in single:
            _, misfits = _fit(cells, (), single)
            if not misfits and None not in cells:
                return kind
    return Kind.TAGGED


def _field_of(column: Column) -> str:
    """The field a column carries.  A source of "" cannot be written down: it means "the name"."""
    return "" if column.name == column.source == _NAMELESS else column.source


def column_name(field: str, taken: Collection[str] = ()) -> str:
    """The name of a field's column: the field's own wherever a table can have it."""
    name = field or _NAMELESS
    if field in _RESERVED:
        name += "_field"
    if len(name.encode()) <= _NAME_BYTES and name not in taken:
        return name
    for attempt in count():
        seed = f"{field}\0{attempt}" if attempt else field
        mark = "_" + hashlib.sha256(seed.encode()).hexdigest()[:8]
        marked = name.encode()[: _NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark
        if marked not in taken:
            return marked
    raise AssertionError("a free name is found")


# ---------------------------------------------------------------------------------------------
# Decoding


@contextmanager
def _without_collector() -> Iterator[None]:
    """A batch is all new objects, none of them garbage: collecting costs 1.5 of 3.7 us a row."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def decode(raw: Sequence[bytes]) -> list[dict[str, Any]]:
    """All documents at once; where one of them is damaged, each alone."""
    with _without_collector():
        try:
            return bson.decode_all(b"".join(raw), DECODING)
        except InvalidBSON:
            return [_decode_one(document) for document in raw]


def decode_ids(raw: Sequence[bytes]) -> list[Any]:
    return [document[KEY] for document in decode(raw)]


def _decode_one(document: bytes) -> dict[str, Any]:
    try:
        return bson.decode(document, DECODING)
    except InvalidBSON:
        return _salvage(document)


def _salvage(document: bytes) -> dict[str, Any]:
    """A document that pymongo refuses, read element by element, each as well as it can be."""
    fields: dict[str, Any] = {}
    for code, raw_name, value in elements(document):
        name = raw_name.decode("utf-8", "replace")
        while name in fields:
            name += "\ufffd"
        fields[name] = _salvage_value(code, value)
    return fields


def _salvage_value(code: int, value: bytes) -> Any:
    body = bytes((code,)) + b"v\0" + value + b"\0"
    try:
        return bson.decode(LENGTH.pack(len(body) + 4) + body, DECODING)["v"]
    except InvalidBSON:
        if code == 0x03:
            return _salvage(value)
        if code == 0x04:
            return list(_salvage(value).values())
        if code in (0x02, 0x0D, 0x0E):
            return Garbled(value[4:-1])
        return value  # unreadable, and kept as bytes
