"""Cells into their columns, and what becomes of those that do not fit.  Pure.

One `Fitting` serves the changes of one table in one batch, whatever their source: columns of a
source with a schema go through `cells`, a source that shapes documents calls `misfit` for what its
own conversion refused.  What it decides by is `warp.precedence`; nothing is lost: a value is in
its column, in `_extra`, in quarantine, or its text is in the error log (guarantee 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from warp import precedence
from warp.cells import holds_invalid, listed
from warp.errors import DestinationRefused
from warp.kinds import Relation, as_text, converter, relation, widened
from warp.model import (
    UNCHANGED,
    Cells,
    Change,
    Column,
    Finding,
    Handling,
    Invalid,
    Kind,
    Outcome,
    Skipped,
    TableId,
    TableSettings,
)

SHOWN: Final = 200  # characters of an original value in a message
_MARK: Final = type(UNCHANGED)
_Keep = Callable[[Column, int, Any], None]


@dataclass(frozen=True, slots=True)
class Original:
    """A value that does not fit, as it is told and kept."""

    kind: Kind
    met: str  # the name of its type at the source, or what else is wrong with it
    text: str  # for people
    kept: Any  # for `_extra`, as the source has it there; or of the kind below, for the quarantine
    kept_as: Kind | None = None  # what `kept` is a carrier of; None: of `kind`
    carrier: Any = None  # for the quarantine, where that differs from `kept`


@dataclass(slots=True)
class _Found:
    """What was met, first here; counted without a new object for each cell."""

    row: int
    first: Finding
    cells: int
    longest: int | None


class Fitting:
    """What becomes of the cells of one table's changes in one batch."""

    def __init__(
        self,
        table: TableId,
        settings: TableSettings,
        key: Iterable[str],
        *,
        extra: bool = False,
        keep: _Keep | None = None,
    ) -> None:
        """`keep` puts a value into `_extra`; `extra` says that the table has it."""
        self.first = 0  # of the rows at hand, where they come in blocks
        self._table = table
        self._settings = settings
        self._key = frozenset(key)
        self._extra = extra
        self._keep = keep
        self._asked: dict[str, tuple[Change, Column]] = {}
        self._found: dict[tuple[str, Outcome, str], _Found] = {}
        self.skipped: list[Skipped] = []
        self.refused: dict[int, str] = {}  # row -> why

    @property
    def asked(self) -> list[tuple[Change, Column]]:
        """Columns to change before these cells can be written; the rest is void then."""
        return list(self._asked.values())

    @property
    def findings(self) -> list[tuple[int, Finding]]:
        """With the first row each is about."""
        return [
            (found.row, replace(found.first, cells=found.cells, original_length=found.longest))
            for found in self._found.values()
        ]

    # -- columns of a source with a schema

    def cells(self, cells: Cells, have: Kind, column: Column) -> Cells:
        """Cells of kind `have` as the column takes them."""
        if holds_invalid(cells):
            cells = self._without_invalid(cells, column)
        if have is column.kind:
            return self.within(cells, column)
        if self._widens_at_once(have, column):
            return cells
        found = relation(have, column.kind)
        convert = converter(have, column.kind)
        fitted: list[Any] = []
        converted = 0
        for row, cell in enumerate(cells):
            if cell is None or type(cell) is _MARK:
                fitted.append(cell)
                continue
            try:
                if convert is None:
                    raise ValueError(f"{have} has no exact form as {column.kind}")
                fitted.append(convert(cell))
                converted += 1
            except ValueError as error:
                text = as_text(have, cell)
                original = Original(have, have.value, text, cell)
                fitted.append(self.misfit(column, row, original, str(error)))
        if converted and found is not Relation.LOSSLESS:
            first = next(i for i, c in enumerate(fitted) if c is not None and type(c) is not _MARK)
            self.note(column, first, Outcome.CONVERTED, have.value, cells=converted)
        return self.within(fitted, column)

    def _widens_at_once(self, have: Kind, column: Column) -> bool:
        """A source whose column is declared wider gets a wider column, before a value asks."""
        if relation(have, column.kind) is not Relation.WIDER:
            return False
        policy = self._settings.policy_of(column.source)
        key = column.name in self._key
        chosen = precedence.handling(have, column, policy, extra=self._extra, key=key)
        if chosen is Handling.WIDEN:
            self._widen(column, have)
        return chosen is Handling.WIDEN

    def _without_invalid(self, cells: Cells, column: Column) -> list[Any]:
        fitted = list(cells)
        for row, cell in enumerate(cells):
            if type(cell) is Invalid:
                original = Original(Kind.TEXT, "invalid", cell.text, cell.text)
                chosen = precedence.invalid(
                    column,
                    self._settings.policy_of(column.source),
                    extra=self._extra,
                    key=column.name in self._key,
                )
                why = f"the source could not read {cell.text[:SHOWN]!r} as {column.kind}"
                fitted[row] = self._do(chosen, column, row, original, why)
        return fitted

    # -- the destination's own limits

    def within(self, cells: Cells, column: Column) -> Cells:
        """The cells, those beyond the column's limits dealt with."""
        if column.limit is None and column.scale is None:
            return cells
        if column.kind is Kind.DECIMAL:
            return self._within_digits(cells, column, column.limit)
        if column.kind in (Kind.TEXT, Kind.OBJECTID, Kind.TAGGED) and column.limit is not None:
            return self._within_length(cells, column, column.limit)
        return cells

    def _within_length(self, cells: Cells, column: Column, limit: int) -> Cells:
        # PostgreSQL counts characters; a cell of spaces beyond the limit would be cut silently.
        long = [i for i, c in enumerate(cells) if type(c) is str and len(c) > limit]
        if not long:
            return cells
        fitted = list(cells)
        policy = self._settings.policy_of(column.source)
        key = column.name in self._key
        chosen = precedence.too_long(column, policy, extra=self._extra, key=key)
        for row in long:
            text = cells[row]
            met = f"text longer than {limit}"
            original = Original(Kind.TEXT, met, text, text)
            why = f"{len(text)} characters do not fit into {limit}"
            fitted[row] = self._do(chosen, column, row, original, why)
        return fitted

    def _within_digits(self, cells: Cells, column: Column, limit: int | None) -> Cells:
        fitted: list[Any] | None = None
        for row, cell in enumerate(cells):
            if type(cell) is Decimal and not _holds(cell, limit, column.scale):
                if fitted is None:
                    fitted = listed(cells)
                shown = f"numeric({limit},{column.scale or 0})"
                text = as_text(Kind.DECIMAL, cell)
                original = Original(Kind.DECIMAL, f"more digits than {shown}", text, cell)
                fitted[row] = self.misfit(column, row, original, f"does not fit into {shown}")
        return cells if fitted is None else fitted

    # -- one cell

    def misfit(self, column: Column, row: int, original: Original, why: str) -> Any:
        """The cell for a value that has no exact form in its column."""
        policy = self._settings.policy_of(column.source)
        key = column.name in self._key
        chosen = precedence.handling(original.kind, column, policy, extra=self._extra, key=key)
        return self._do(chosen, column, row, original, why)

    def _do(self, chosen: Handling, column: Column, row: int, original: Original, why: str) -> Any:
        aside = chosen in (Handling.SKIP, Handling.QUARANTINE)
        if chosen is Handling.STOP or (aside and not self._settings.dead_letter_queue):
            reason = "the configuration says stop" if not aside else "dead_letter_queue is off"
            raise DestinationRefused(
                f"expected {column.kind}, found {original.met} {original.text[:SHOWN]!r}: {why}; "
                f"{reason}: mend the value at the source, or choose how to handle it",
                place=f"{self._table} column {column.name}",
            )
        match chosen:
            case Handling.WIDEN:
                self._widen(column, original.kind)
                return None
            case Handling.TEXT:
                self._ask(Change.TEXT_COLUMN, replace(column, kind=Kind.TEXT))
                return None
            case Handling.TRUNCATE:
                if self._keep is not None and self._extra:
                    self._keep(column, row, original.kept)
                self._tell(column, row, Outcome.TRUNCATED, original, length=len(original.text))
                return precedence.truncated(original.text, column.limit or 0)
            case Handling.EXTRA:
                if self._keep is None:
                    raise AssertionError("a table with `_extra` says how to keep a value in it")
                self._keep(column, row, original.kept)
                self._tell(column, row, Outcome.EXTRA, original)
                return None
            case Handling.SKIP:
                self.skipped.append(_skipped(self.first + row, column, original, why))
                self._tell(column, row, Outcome.SKIPPED, original)
                return UNCHANGED
            case Handling.SET_NULL:
                self._tell(column, row, Outcome.NULLED, original)
                return None
            case _:
                if self._keep is not None:
                    self._keep(column, row, original.kept)
                self.refused[self.first + row] = f"column {column.name}: {why}"
                self._tell(column, row, Outcome.QUARANTINED, original)
                return None

    def _widen(self, column: Column, have: Kind) -> None:
        kind = widened(have, column.kind) or column.kind
        if column.name not in self._asked:
            self._ask(Change.WIDEN_COLUMN, replace(column, kind=kind))

    def _ask(self, change: Change, column: Column) -> None:
        self._asked[column.name] = (change, replace(column, limit=None, scale=None))

    def kept_again(self, column: Column, row: int, met: str, kept: Any) -> bool:
        """Keep and count one more value of a type that goes into `_extra` for this column.

        False for the first of them, and where they go elsewhere: then ask `misfit`.
        """
        found = self._found.get((column.name, Outcome.EXTRA, met))
        if found is None or self._keep is None:
            return False
        self._keep(column, row, kept)
        found.cells += 1
        return True

    # -- telling

    def _tell(
        self,
        column: Column,
        row: int,
        outcome: Outcome,
        original: Original,
        *,
        length: int | None = None,
    ) -> None:
        self.note(column, row, outcome, original.met, original=original.text, length=length)

    def note(
        self,
        column: Column,
        row: int,
        outcome: Outcome,
        met: str,
        *,
        cells: int = 1,
        original: str = "",
        length: int | None = None,
    ) -> None:
        """Count what happened to cells of a column; the first row and value stand as example."""
        at = (column.name, outcome, met)
        before = self._found.get(at)
        if before is None:
            # The text that NULL replaced is kept nowhere else: whole, up to a bound.
            most = 100 * SHOWN if outcome is Outcome.NULLED else SHOWN
            finding = Finding(
                self._table,
                column.name,
                outcome,
                met,
                column.kind.value,
                cells,
                original=original[:most],
            )
            self._found[at] = _Found(self.first + row, finding, cells, length)
            return
        before.cells += cells
        before.longest = max(length or 0, before.longest or 0) or None


def _skipped(row: int, column: Column, original: Original, why: str) -> Skipped:
    if original.kept_as is None:
        return Skipped(row, column.name, original.kind, original.kept, why)
    return Skipped(row, column.name, original.kept_as, original.carrier, why)


def _holds(value: Decimal, limit: int | None, scale: int | None) -> bool:
    """Does numeric(limit, scale) hold this number as it is, without rounding?"""
    if limit is None:
        return True
    if not value.is_finite():
        return bool(value.is_nan())  # infinity is refused where digits are limited
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return False
    kept = len(digits)
    while kept > 1 and digits[kept - 1] == 0:  # 1.10 fits where 1.1 does
        kept, exponent = kept - 1, exponent + 1
    if digits[0] == 0:
        return True
    return -exponent <= (scale or 0) and kept + exponent <= limit - (scale or 0)
