"""One table compared at both ends while both are written: reads, waits and asks.

What is expected at the destination is what the source's rows would be written as: they go through
`evolve` as any row does, so a value that was converted, truncated, kept in `_extra` or set aside is
no difference.  What counts as one, `warp.digest.comparing` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from warp import stored
from warp.bracket import Bracket
from warp.digest import canonical
from warp.digest.comparing import (
    Difference,
    Forms,
    Judgement,
    Key,
    Seen,
    Sort,
    Stored,
    difference,
    is_same,
    judge,
    keys_apart,
    leaves_apart,
    rows_apart,
)
from warp.digest.ranges import Range, Wanted, compared_of, keys_of
from warp.digest.seams import (
    EVERYTHING,
    IN_ONE_ORDER,
    Bound,
    Compared,
    KeyRange,
    Summing,
    Verified,
    compared_destination,
    compared_source,
)
from warp.digest.sums import Sums
from warp.errors import DestinationRefused, SchemaMoved, WarpError
from warp.evolve import evolve
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.kinds import converter
from warp.model import (
    Change,
    ChangeBatch,
    Chunk,
    Kind,
    Operation,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    WorkUnit,
)
from warp.pace import Pace
from warp.patience import Answer, patiently

LOOKS: Final = 8  # at a key that changes each time; then it is left to the next pass
KEYS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Ends:
    """What a comparison works with."""

    source: SourceConnector
    destination: DestinationConnector
    hold: Hold
    selection: TableSelection


def range_of(source: SourceConnector, have: TableSchema, chunk: Chunk) -> KeyRange | None:
    """A chunk's key range as the destination has it; None where it has no such range."""
    if chunk.lower is None and chunk.upper is None:
        return EVERYTHING
    key = canonical.key_columns(have)
    bounds = compared_source(source, chunk.table).bounds(chunk)
    if bounds is None or len(bounds.kinds) != len(key):
        return None
    if not all(column.kind in IN_ONE_ORDER for column in key):
        return None
    converts = [
        converter(kind, column.kind) for kind, column in zip(bounds.kinds, key, strict=True)
    ]
    ends: list[Bound | None] = []
    for bound in (bounds.range.lower, bounds.range.upper):
        if bound is None:
            ends.append(None)
            continue
        try:
            ends.append(
                tuple(
                    convert(cell)
                    for convert, cell in zip(converts, bound, strict=True)
                    if convert is not None
                )
            )
        except ValueError:
            return None
        if len(ends[-1] or ()) != len(key):
            return None
    return KeyRange(*ends)


@dataclass(slots=True)
class Judged:
    """What became of some keys."""

    differences: list[Difference] = field(default_factory=list)
    seen: dict[Key, Seen] = field(default_factory=dict)  # of the differences
    aside: int = 0
    unsettled: int = 0
    later: set[Key] = field(default_factory=set)  # nothing can be said of these now
    looks: int = 0


class Comparison:
    """One table at both ends, as its schemas are now."""

    def __init__(
        self, ends: Ends, unit: WorkUnit, compared: Compared, at_source: TableSchema | None
    ) -> None:
        self.compared = compared
        self._ends = ends
        self._unit = unit
        self._table = compared.schema.table
        self.at_source = at_source  # None: documents
        self.comparing = compared_destination(ends.destination, self._table).comparing()
        # Nothing is changed at the destination for a comparison, so nothing may be asked for.
        self._frozen = replace(
            compared.schema,
            full=True,
            columns=tuple(replace(c, fixed=True) for c in compared.schema.columns),
        )
        settings = self._settings()
        self._pace = Pace(settings, ends.hold)
        self.bracket = Bracket(ends.source, ends.destination, ends.hold, unit, settings)

    @classmethod
    def of(cls, ends: Ends, unit: WorkUnit, table: TableId) -> Comparison:
        have = ends.destination.get_schema(table)
        if have is None:
            raise DestinationRefused(
                "expected the table at the destination, found none; is its snapshot under way?",
                place=str(table),
            )
        compared_source(ends.source, table)
        at_source = None
        if not ends.source.traits.schemaless:
            at_source = ends.source.get_schema([table]).get(table)
        return cls(ends, unit, compared_of(have, at_source), at_source)

    # -- a table with a key

    def by_key(self, chunk: Chunk) -> Verified | None:
        where = range_of(self._ends.source, self.compared.schema, chunk)
        if where is None:
            raise SchemaMoved("the key's kind has changed since the pass was planned")
        if not self._opened():
            return None
        summing = self.summing(chunk)
        if summing is not None and self.bracket.then is None:
            return self._by_servers(summing, where)
        ours = Range(self.compared)
        for wanted in self._wanted(chunk):
            ours.add(wanted)
            self._pace.rests(wanted.rows)
            if self._ends.hold.stopping():
                return None
        position = self._passed()
        if position is None:
            return None
        verified = Verified(ours.sums.rows, ours.sums, position)
        if not ours.partial and ours.sums == self._total(where):
            return verified
        candidates = self._candidates(chunk, where, ours)
        return None if candidates is None else self._look_again(candidates, verified)

    def summing(self, chunk: Chunk) -> Summing | None:
        """The source's server, where it would sum up the very values that the destination has."""
        if self.at_source is None:
            return None
        kinds = {column.source: column.kind for column in self.at_source.columns}
        if any(
            not canonical.have_one_form(kinds.get(column.source), column.kind)
            or column.limit is not None
            or column.scale is not None
            for column in self.compared.columns
        ):
            return None
        if not self.comparing.keeps_forms(self.compared):
            return None
        return compared_source(self._ends.source, self._table).summing(chunk, self.compared)

    def _by_servers(self, summing: Summing, where: KeyRange) -> Verified | None:
        """Nothing but digests travels, and rows only where these differ.

        A value that is written otherwise than it is (a date that no column takes) makes its row a
        candidate; what it should be is told by the look at its key, as of any other.
        """
        ours = self._patiently(summing.total)
        self._pace.rests(ours.rows)
        position = self._passed()
        if position is None:
            return None
        verified = Verified(ours.rows, ours, position)
        if ours == self._total(where):
            return verified
        self._pace.rests()
        apart = leaves_apart(self._patiently(summing.leaves), self._leaves(where))
        self._pace.rests(ours.rows)
        if not apart:
            return verified
        here = self._patiently(lambda: summing.rows(apart))
        there = self._rows(where, apart)
        self._pace.rests(ours.rows)
        return self._look_again(keys_apart(here, there), verified)

    def _candidates(self, chunk: Chunk, where: KeyRange, ours: Range) -> list[Key] | None:
        """The keys that may differ, by the leaves that do."""
        theirs = self._leaves(where)
        apart = sorted({*leaves_apart(ours.leaves(), theirs), *ours.partial_leaves})
        if not apart:
            return []
        kept = ours.rows(apart)
        if kept is None:  # too many to be kept: read again, and only these
            again = Range(self.compared, only=frozenset(apart))
            for wanted in self._wanted(chunk):
                again.add(wanted)
                self._pace.rests(wanted.rows)
                if self._ends.hold.stopping():
                    return None
            kept = again.rows(apart) or []
        return keys_apart(kept, self._rows(where, apart))

    def _total(self, where: KeyRange) -> Sums:
        return self._patiently(lambda: self.comparing.total(self.compared, where))

    def _leaves(self, where: KeyRange) -> dict[int, Sums]:
        return self._patiently(lambda: self.comparing.leaves(self.compared, where))

    def _rows(self, where: KeyRange, leaves: Sequence[int]) -> list[tuple[Key, bytes]]:
        return self._patiently(lambda: self.comparing.rows(self.compared, where, leaves))

    def _look_again(self, candidates: Sequence[Key], verified: Verified) -> Verified | None:
        found: list[Difference] = []
        aside = unsettled = looks = 0
        for start in range(0, len(candidates), KEYS_AT_ONCE):
            judged = self.judged(candidates[start : start + KEYS_AT_ONCE])
            if judged is None:
                return None
            found += judged.differences
            aside += judged.aside
            unsettled += judged.unsettled
            looks = max(looks, judged.looks)
        return replace(
            verified,
            differences=tuple(found),
            aside=aside,
            unsettled=unsettled,
            looks=1 + looks,
        )

    def judged(self, keys: Sequence[Key]) -> Judged | None:
        """Look at these keys until each is judged, or has changed at every look."""
        before: Mapping[Key, Seen] = {}
        result = Judged()
        different: list[tuple[Key, Seen]] = []
        moving = list(keys)
        while moving and result.looks < LOOKS:
            now = self.look(moving)
            if now is None:
                return None
            result.looks += 1
            still = []
            for key in moving:
                match judge(before.get(key), now[key], self.compared.columns):
                    case Judgement.MOVING:
                        still.append(key)
                    case Judgement.DIFFERENT:
                        different.append((key, now[key]))
                    case Judgement.ASIDE:
                        result.aside += 1
                    case Judgement.LATER:
                        result.aside += 1
                        result.later.add(key)
            before, moving = now, still
        result.unsettled = len(moving)
        result.later.update(moving)
        known = self._set_aside([key for key, _ in different])
        for key, seen in different:
            if key in known:
                result.aside += 1
            else:
                result.differences.append(difference(key, seen, self.compared.columns))
                result.seen[key] = seen
        return result

    def look(self, keys: Sequence[Key]) -> dict[Key, Seen] | None:
        """One look at each key: the source, then how far its changes are, then the destination."""
        if not self._opened():
            return None
        cells = self.cells_of(keys)
        found: dict[Key, list[Forms]] = {}
        aside: set[Key] = set()
        later: set[Key] = set()
        asked = self._asked(cells)
        if len(asked):
            # Where only the whole table can tell which rows these are, it takes its time.
            found, aside = self._rows_of(self._patiently(lambda: self.bracket.look_up(asked)))
            later = self._changed_since(asked, found, keys)
        if self._passed() is None:
            return None
        stored_ = self.comparing.look(self.compared, cells)
        return {
            key: Seen(
                self._like(found.get(key, ()), there),
                key in aside,
                there,
                later=key in later or self._is_newer(there),
                at=None if self.bracket.then is None else self.bracket.then.at,
            )
            for key, there in zip(keys, stored_, strict=True)
        }

    def _changed_since(
        self, asked: TableChanges, found: Mapping[Key, list[Forms]], keys: Sequence[Key]
    ) -> set[Key]:
        """Keys of which the destination may have what came after that which is compared."""
        then = self.bracket.then
        if then is None or then.exact:
            return set()
        now, _ = self._rows_of(self._patiently(lambda: self._ends.source.look_up(asked)))
        return {key for key in keys if set(found.get(key, ())) != set(now.get(key, ()))}

    def _is_newer(self, there: Stored | None) -> bool:
        then = self.bracket.then
        if then is None or then.exact or there is None:
            return False
        return there.version > then.at

    def _like(self, found: Sequence[Forms], there: Stored | None) -> Forms | None:
        """The row of a key; of several, which a source that enforces no key may have and of which
        one arrives, that which did."""
        columns = self.compared.columns
        same = (forms for forms in found if is_same(Seen(forms, False, there), columns))
        return next(same, found[-1] if found else None)

    def expected(self, rows: TableChanges) -> tuple[dict[Key, Forms], set[Key]]:
        """What rows of the source should be at the destination, and keys of those that cannot."""
        found, aside = self._rows_of(rows)
        return {key: forms[-1] for key, forms in found.items()}, aside

    def _rows_of(self, rows: TableChanges) -> tuple[dict[Key, list[Forms]], set[Key]]:
        found: dict[Key, list[Forms]] = {}
        aside: set[Key] = set()
        for wanted in self._fitted(rows):
            forms = canonical.forms_of(self.compared.columns, wanted.columns)
            for key, one in zip(keys_of(self.compared, wanted), forms, strict=True):
                found.setdefault(key, []).append(one)
            aside.update(wanted.aside)
        return found, aside

    def cells_of(self, keys: Sequence[Key]) -> list[list[Any]]:
        """Keys as columns of carriers of the destination."""
        return [
            [canonical.of_form(column.kind, key[place]) for key in keys]
            for place, column in enumerate(self.compared.key)
        ]

    def _asked(self, cells: Sequence[Sequence[Any]]) -> TableChanges:
        """The keys as the source has them.  One that has no form there is of no row of it."""
        key = self.compared.key
        at_source = self.at_source
        columns = list(key)
        if at_source is not None:
            by_source = {c.source: c for c in at_source.columns}
            if any(c.source not in by_source for c in key):
                raise SchemaMoved("the key's columns are not those of the source")
            columns = [by_source[c.source] for c in key]
        converts = [converter(c.kind, s.kind) for c, s in zip(key, columns, strict=True)]
        rows: list[list[Any]] = []
        for row in zip(*cells, strict=True):
            if None in row:  # only a destination that enforces no key has such
                continue
            try:
                rows.append(
                    [
                        convert(cell)
                        for convert, cell in zip(converts, row, strict=True)
                        if convert is not None
                    ]
                )
            except ValueError:
                continue
        if any(convert is None for convert in converts):
            rows = []
        schema = TableSchema(self._table, tuple(columns), tuple(c.name for c in columns))
        return TableChanges(
            self._table,
            bytearray((Operation.READ,)) * len(rows),
            [0] * len(rows),
            schema,
            [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns],
        )

    def _set_aside(self, keys: Sequence[Key]) -> set[Key]:
        """Keys of which a row waits in quarantine, or for another row: known already."""
        if not keys:
            return set()
        names = self.key_texts(keys)
        there = compared_destination(self._ends.destination, self._table).verifications()
        known = there.set_aside(self._unit.schema, self._table, list(names))
        return {names[text] for text in known}

    def waiting(self, texts: Sequence[str]) -> dict[str, str]:
        """Rows of these keys that wait in quarantine, as they are written there."""
        if not texts:
            return {}
        there = compared_destination(self._ends.destination, self._table).verifications()
        return there.waiting(self._unit.schema, self._table, texts)

    def key_texts(self, keys: Sequence[Key]) -> dict[str, Key]:
        """Keys as they are written outside of their table, in the order of its columns."""
        order = [column.name for column in self.compared.schema.columns]
        places = sorted(
            range(len(self.compared.key)), key=lambda n: order.index(self.compared.key[n].name)
        )
        columns = [self.compared.key[place] for place in places]
        cells = self.cells_of(keys)
        rows = zip(*(cells[place] for place in places), strict=True)
        return {stored.dump(columns, row): key for row, key in zip(rows, keys, strict=True)}

    # -- a table without a key

    def without_key(self, chunk: Chunk) -> Verified | None:
        """The rows as they are, each as often as it is there; two looks must agree."""
        before = None
        for look in range(1, LOOKS + 1):
            if not self._opened():
                return None
            rows: list[Key] = []
            hashes: list[bytes] = []
            for wanted in self._wanted(chunk):
                rows += canonical.forms_of(self.compared.columns, wanted.columns)
                hashes += canonical.row_hashes(self.compared.columns, wanted.columns)
                self._pace.rests(wanted.rows)
            position = self._passed()
            if position is None:
                return None
            sums = Sums.of(hashes)
            verified = Verified(len(rows), sums, position, looks=look)
            if sums == self._total(EVERYTHING):
                return verified
            theirs = self._leaves(EVERYTHING)
            mine = Range(self.compared)
            mine.add_rows(rows, hashes)
            apart = leaves_apart(mine.leaves(), theirs)
            listed = self._rows(EVERYTHING, apart)
            wanted_rows = (key for key, _ in mine.rows(apart) or ())
            now = rows_apart(wanted_rows, (key for key, _ in listed))
            if self.bracket.has_moved():  # rows have no version that would tell
                before = None
            elif now == before:
                here, there = set(rows), {key for key, _ in listed}
                return replace(
                    verified,
                    differences=tuple(
                        Difference(key, _sort_of(key in here, key in there)) for key in now
                    ),
                )
            else:
                before = now
        return replace(verified, unsettled=len(now))

    # -- the source's rows

    def _wanted(self, chunk: Chunk) -> Iterator[Wanted]:
        for batch in self.bracket.rows(chunk):
            self._ends.hold.check()
            for part in batch.changes:
                yield from self._fitted(part)

    def _fitted(self, part: TableChanges) -> Iterator[Wanted]:
        """As the destination should have them.  Raises SchemaMoved where they are to change it."""
        if not len(part):
            return
        batch = ChangeBatch([self._known_columns(part)], Position("verify"))
        plan = evolve(batch, {self._table: self._frozen}, self._lenient)
        if plan.ddl:
            if all(change.change is Change.ADD_COLUMN for change in plan.ddl):
                raise AssertionError("columns that the destination has not got were left out")
            raise SchemaMoved("the source's rows are about to change the destination's columns")
        aside = [
            key
            for row in plan.quarantined
            if not row.column and (key := self._key_of(row.key, row.kinds)) is not None
        ]
        for fitted in plan.batch.changes:
            by_name = dict(zip(self._frozen.names(), fitted.columns, strict=True))
            columns = [by_name[column.name] for column in self.compared.columns]
            yield Wanted(self.comparing.kept(self.compared, columns), len(fitted), aside)

    def _known_columns(self, part: TableChanges) -> TableChanges:
        """Without columns that have not come to the destination yet: the stream brings them."""
        if part.schema is None:
            return part
        known = {c.source for c in self._frozen.columns}
        kept = [i for i, c in enumerate(part.schema.columns) if c.source in known]
        if len(kept) == len(part.schema.columns):
            return part
        schema = replace(part.schema, columns=tuple(part.schema.columns[i] for i in kept))
        return replace(part, schema=schema, columns=[part.columns[i] for i in kept])

    def _key_of(self, text: str, kinds: Mapping[str, str]) -> Key | None:
        """The key of a row that was set aside; None where the destination has no such key."""
        try:
            cells = stored.load(text, kinds)
            forms = []
            for column in self.compared.key:
                convert = converter(Kind(kinds[column.name]), column.kind)
                if convert is None:
                    return None
                forms.append(canonical.form(column.kind, convert(cells[column.name])))
        except (KeyError, ValueError):
            return None
        return tuple(forms)

    def _patiently(self, question: Callable[[], Answer]) -> Answer:
        [answer] = patiently(self._ends.hold, question)
        return answer

    # -- what brings the table's changes

    def _opened(self) -> bool:
        """Before the source is read; False where the hold asked to stop."""
        opened = self.bracket.open()
        self._pace.begins()  # a run under way was waited for
        return opened

    def _passed(self) -> Position | None:
        """Wait until the destination has everything that the source had when it was read.

        The place that was waited for; None where the hold asked to stop.
        """
        position = self.bracket.close()
        if position is not None:
            self._pace.begins()
        return position

    def _lenient(self, table: TableId) -> TableSettings | None:
        """What would stop a unit for want of a quarantine is only looked at here."""
        settings = self._ends.selection(table)
        return None if settings is None else replace(settings, dead_letter_queue=True)

    def _settings(self) -> TableSettings:
        settings = self._ends.selection(self._table)
        if settings is None:
            raise WarpError("expected a table of the configuration", place=str(self._table))
        return settings


def _sort_of(here: bool, there: bool) -> Sort:
    """Of a row without a key that is not as often at the destination as at the source."""
    if here and there:
        return Sort.DUPLICATE
    return Sort.MISSING if here else Sort.EXTRA
