"""The columns that a collection asks for, judged by a sample of its documents.  Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final

from warp.model import (
    Column,
    DocumentColumn,
    Kind,
    Role,
    Shape,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.sources.bson_cells import KEY_CELLS, fit
from warp.sources.bson_decoding import KEY
from warp.sources.bson_types import Seen

EXTRA: Final = Column("_extra", Kind.JSON, role=Role.EXTRA, comment="fields without a column")
DOCUMENT: Final = Column("doc", Kind.JSON, role=Role.DOCUMENT, comment="the whole document")
DOCUMENT_TEXT: Final = replace(DOCUMENT, kind=Kind.JSON_TEXT)

_COMMON_SHARE: Final = 0.01  # of the sample, to have a column
_NAME_BYTES: Final = 63  # PostgreSQL cuts longer names without a word

_NAMELESS: Final = "_empty"  # the column of the field whose name is empty: no column may be ""

# Names that are ours, or that PostgreSQL keeps for itself in every table.
_RESERVED: Final = frozenset(
    {"_cw_version", "_cw_deleted", EXTRA.name, DOCUMENT.name, _NAMELESS}
    | {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
)


def propose(
    table: TableId,
    sample: Sequence[Mapping[str, Any]],
    settings: TableSettings,
    *,
    more_ids: Iterable[Any] = (),
) -> TableSchema:
    """The columns a collection asks for, judged by a sample of its documents."""
    fixed = dict(settings.columns)
    seen: dict[str, Seen] = {}
    for document in sample:
        for field, value in document.items():
            if field not in seen:
                seen[field] = Seen()
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
    seen: Mapping[str, Seen], documents: int, fixed: Mapping[str, Kind], most: int
) -> list[Column]:
    """In the order of first sight; of too many, the most common ones."""
    wanted = {f: seen.get(f, Seen()) for f in fixed if f != KEY}
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
    for kind, single in KEY_CELLS.items():
        if type(cells[0]) in single:
            _, misfits = fit(cells, (), single)
            if not misfits and None not in cells:
                return kind
    return Kind.TAGGED


def field_of(column: Column) -> str:
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
