"""Decoded documents into the columns of a table: the exact type, or the slow path, or `_extra`.

A cell that does not fit its column keeps its value in `_extra`, so a row is never lost or set
aside for one field (guarantee 4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from bson import Code

from warp.fitting import Fitting, Original
from warp.model import (
    ABSENT,
    Cells,
    Column,
    Handling,
    Kind,
    Operation,
    Outcome,
    Role,
    Shaped,
    TableSchema,
    TableSettings,
)
from warp.sources import lossless
from warp.sources.bson_cells import (
    CELLS,
    KEY_CELLS,
    KEY_WHOLE,
    WHOLE,
    cell_of_text,
    fit,
    fit_json,
    short,
)
from warp.sources.bson_decoding import DECODING, KEY
from warp.sources.bson_types import KIND_OF, Seen, type_name
from warp.sources.extjson import NUL_SEEN, Garbled, column_to_json, tagged, to_json
from warp.sources.proposals import column_name, field_of

# Documents decoded at once.  As objects these fit a processor's cache: 3.9 us a document, against
# 8.2 with blocks of 5,000 [measured, 228 bytes of 8 fields].
BLOCK: Final = 128

BARE: Final = frozenset({Operation.DELETE, Operation.TRUNCATE})


def bare_rows(documents: list[dict[str, Any]], operations: bytes | bytearray) -> list[int]:
    """The rows that say but their key, and the documents of these reduced to it."""
    bare = [row for row, operation in enumerate(operations) if operation in BARE]
    for row in bare:  # a sharded collection's keys carry the shard key too
        document = documents[row]
        documents[row] = {KEY: document[KEY]} if KEY in document else {}
    return bare


def without_columns(
    known: TableSchema, seen: Mapping[str, Seen], documents: int
) -> dict[str, Column]:
    """The columns that fields without one ask for."""
    unknown: dict[str, Column] = {}
    taken = set(known.names())
    for field, values in seen.items():
        kind = values.kind()
        if kind is not None:
            name = column_name(field, taken)
            taken.add(name)
            comment = values.comment(field, documents)
            unknown[field] = Column(name, kind, source=field, comment=comment)
    return unknown


class _Extra:
    """What goes into `_extra` of the rows of one block."""

    __slots__ = ("_wanted", "rows")

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted  # a table without it has every value in `doc`
        self.rows: dict[int, dict[str, Any]] = {}  # row -> field -> value

    def keep(self, column: Column, row: int, value: Any) -> None:
        if self._wanted:
            self.rows.setdefault(row, {})[field_of(column)] = value


class Shaping:
    """One call of `shape`: block after block of documents, and what has come of them so far."""

    def __init__(self, known: TableSchema, settings: TableSettings) -> None:
        self.known = known
        self.settings = settings
        self.columns: list[list[Any]] = [[] for _ in known.columns]
        self.seen: dict[str, Seen] = {}  # fields without a column
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
        self.said: Collection[str] | None = None
        self.documents: list[dict[str, Any]] = []
        self.bare: list[int] = []

    def add(
        self,
        raw: Sequence[bytes],
        documents: list[dict[str, Any]],
        bare: list[int],
        said: Collection[str] | None = None,
    ) -> None:
        """The next documents.  `said` are the only fields that these have, where that is known."""
        self.raw, self.documents, self.bare, self.said = raw, documents, bare, said
        self.extra.rows = {}
        self.fitting.first = self.rows
        self.rows += len(documents)
        cells = self._cells()
        for column, done in zip(self.known.columns, self.columns, strict=True):
            if column.role is Role.FIELD:
                field = field_of(column)
                absent = self.said is not None and field not in self.said
                if absent and column.name not in self.known.key:
                    done += cells[field]
                else:
                    done += self._field(column, cells[field])
            elif column.role is Role.DOCUMENT:
                done += self._whole(column)
        if self.keeps_extra:  # now that all columns have said what they leave over
            left_over = self._left_over()
            for column, done in zip(self.known.columns, self.columns, strict=True):
                if column.role is Role.EXTRA:
                    done += left_over

    def shaped(self) -> Shaped:
        return Shaped(
            self.columns,
            without_columns(self.known, self.seen, self.rows),
            self.fitting.findings,
            self.fitting.asked,
            self.fitting.skipped,
            self.fitting.refused,
            self.key_kind,
        )

    def _cells(self) -> dict[str, list[Any]]:
        """The cells of each known field, and into `extra` all others."""
        fields = list({field_of(c): None for c in self.known.columns if c.role is Role.FIELD})
        documents = self.documents
        cells: dict[str, list[Any]] = {}
        present = 0
        for field in fields:
            if self.said is not None and field not in self.said:
                cells[field] = [ABSENT] * len(documents)
                continue
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
                        seen[field] = Seen()
                    seen[field].add(value)
        if not self.keeps_extra:
            raise ValueError(
                f"{self.known.table}: a schema with `_extra` or `doc` was expected, for the fields "
                f"{sorted(seen)[:5]} have no column; give the table one of the two"
            )

    def _field(self, column: Column, cells: list[Any]) -> Cells:
        if column.name in self.known.key:
            return self._key(column, cells)
        if column.kind is Kind.JSON:
            fitted, changed = fit_json(cells)
            self._note_nul(column, changed)
            return fitted
        if column.kind is Kind.TAGGED:
            return [c if c is None or c is ABSENT else tagged(c) for c in cells]
        fitted, misfits = fit(cells, WHOLE.get(column.kind, ()), CELLS[column.kind])
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
            return cell_of_text(value)
        if self.fitting.kept_again(column, row, met, value):
            return None
        json = to_json(value)
        original = Original(KIND_OF[met], met, json.decode(), value, Kind.JSON, json)
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
        single = KEY_CELLS.get(column.kind)
        if single is None:
            self.key_kind = Kind.TAGGED
            return [None] * len(cells)
        fitted, misfits = fit(cells, KEY_WHOLE.get(column.kind, ()), single)
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
            if not short(key):
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
        texts, _ = column_to_json(list(self.extra.rows.values()))
        for row, text in zip(self.extra.rows, texts, strict=True):
            column[row] = text
        return self._without_bare(column)

    def _without_bare(self, cells: list[Any]) -> list[Any]:
        for row in self.bare:
            cells[row] = ABSENT
        return cells
