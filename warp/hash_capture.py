"""`strategy: hash`: one run of a table whose changes only a comparison with its copy shows.

Both servers sum the rows of a key range up (`docs/digest.md`).  Where the sums agree nothing is
read and nothing written; below those that do not, the keys that differ are found by leaves and
hashes, and only their rows are read and written.  So nothing has to be remembered between two runs,
and a row that somebody changed at the destination is mended as one that changed at the source.

What makes this right while the source is written (guarantees 4 and 5):

* Every statement sees what is committed when it is run.  A change after that is found by the next
  run, whatever this one saw of its neighbours.
* The rows of the keys that differ are read last, at the version that was taken before.  Versions
  never fall from batch to batch and run to run, and rows of an equal version land in the order of
  delivery, so the state that was read last stays.
* Nobody else writes the copy: a table is polled by one unit under its lease, and corrections of its
  replay unit carry the version of the row that they replace.

Where the servers cannot sum up the same values, or the source has columns that the copy has not got
yet, the table is read whole, which finds all that this does (`warp.capture.whole`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import structlog

from warp import pipeline, stored, verifying
from warp.capture import batches, timestamp
from warp.capture.places import Place, Reading, Strategy, parse, version_of
from warp.comparison import Comparison, Ends, range_of
from warp.digest import canonical
from warp.digest.comparing import Key, Seen, in_groups, is_same, keys_apart, leaves_apart
from warp.digest.seams import EVERYTHING, ReadsKeys, Summing
from warp.errors import SchemaMoved
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.machine import THIS_MACHINE, Machine
from warp.model import (
    Capture,
    ChangeBatch,
    Chunk,
    Marker,
    Operation,
    Phase,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
)
from warp.patience import Answer, patiently
from warp.pipeline import Delivery, Meter

log = structlog.get_logger(__name__)

LISTED: Final = 200_000  # keys and hashes of both sides in memory at once (guarantee 9)
MOST_GROUPS: Final = 5
"""More reads of one range, each for some of its leaves, would cost more than reading it whole."""

_said: set[tuple[TableId, str]] = set()  # a run is short: remembered here


class _ReadWhole(Exception):
    """This run reads the table whole instead."""


def is_meant(source: SourceConnector, settings: TableSettings) -> bool:
    """Is the table captured by comparison: by its strategy, or for want of a column of times?"""
    if settings.capture is not Capture.TIMESTAMP or not source.traits.reads_keys:
        return settings.capture is Capture.HASH
    schema = source.get_schema([settings.table]).get(settings.table)
    return schema is not None and timestamp.must_compare(schema, settings)


def poll(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
    meter: Meter,
    fire_time: float,
    machine: Machine = THIS_MACHINE,
) -> bool:
    """As `pipeline.poll`, of a table that `is_meant`."""
    if source.traits.reads_keys and destination.traits.compares:
        delivery = Delivery(source, destination, hold, selection, meter, machine.monotonic)
        ends = Ends(source, destination, hold, selection)
        run = _Run(ends, delivery, meter, marker, fire_time)
        try:
            return run.complete()
        except (_ReadWhole, SchemaMoved) as reason:
            _say_once(marker.unit.table, str(reason))
            marker = run.marker
    return pipeline.poll(
        *(source, destination, marker, hold),
        selection=selection,
        meter=meter,
        fire_time=fire_time,
        machine=machine,
    )


class _Run:
    """One run, from where its marker stands."""

    def __init__(
        self, ends: Ends, delivery: Delivery, meter: Meter, marker: Marker, fire_time: float
    ) -> None:
        if marker.unit.table is None:
            raise AssertionError("a poll unit has a table")
        self.marker = marker
        self._ends = ends
        self._table: TableId = marker.unit.table
        self._source = cast("ReadsKeys", ends.source)
        self._delivery = delivery
        self._meter = meter
        known = parse(marker.position, Strategy.DIGESTS)
        self._place = known or Place(Strategy.DIGESTS, version=version_of(marker.position))
        # A run that goes on has seen its first ranges when it began, and tells that time.
        self._fire_time = fire_time
        if self._place.reading is not None and marker.position is not None:
            self._fire_time = marker.position.committed_at

    def complete(self) -> bool:
        """True when it is; False when asked to stop half-way."""
        comparison, at_source = self._comparison()
        if not comparison.compared.schema.key:
            return self._without_key(comparison)
        chunks = self._chunks(comparison)
        for number, chunk in enumerate(chunks):
            if comparison.compared.schema != self._delivery.know(self._table):
                comparison, at_source = self._comparison()  # a row before has changed columns
            for keys in self._apart(comparison, chunk):
                self._bring(comparison, at_source, keys)
                if self._ends.hold.stopping():
                    return False
            self._ends.hold.check()
            if number + 1 < len(chunks) and chunk.upper is not None:
                self._place = replace(self._place, reading=Reading(after=(chunk.upper,)))
                self._move(Phase.SNAPSHOT)
            if self._ends.hold.stopping():
                return False
        self._end()
        return True

    def _comparison(self) -> tuple[Comparison, TableSchema]:
        """Of a table whose columns are the same at both ends, and its schema at the source."""
        have = self._delivery.know(self._table)
        if have is None:
            raise _ReadWhole("it is not at the source")
        comparison = Comparison.of(self._ends, self.marker.unit, self._table)
        at_source = comparison.at_source
        if at_source is None:
            raise _ReadWhole("it is not at the source")
        have = comparison.compared.schema
        if {c.source for c in at_source.columns} - {c.source for c in have.columns}:
            raise _ReadWhole("the source has columns that are new")
        # Of another kind it may have keys of which the source cannot even be asked.
        ours, theirs = (
            {(column.source, column.kind) for column in canonical.key_columns(schema)}
            for schema in (at_source, have)
        )
        if ours != theirs:
            raise _ReadWhole("the destination's table has another key")
        return comparison, at_source

    def _without_key(self, comparison: Comparison) -> bool:
        """Rows without a key are read all or not at all."""
        ours, theirs = self._both(
            self._summing(comparison, Chunk(self._table, 0)).total,
            lambda: comparison.comparing.total(comparison.compared, EVERYTHING),
        )
        if ours != theirs:
            raise _ReadWhole("it has no key")
        self._end()
        return True

    # -- what differs

    def _chunks(self, comparison: Comparison) -> list[Chunk]:
        """The key ranges that are left to be compared."""
        have = comparison.compared.schema
        chunks = verifying.cut(self._source, have, self._table, self._settings.chunk_rows)
        reading = self._place.reading
        if reading is None or not reading.after:
            return chunks
        # Cut anew, so a range may begin before the place reached: it is compared whole.
        done = self._bound(Chunk(self._table, 0, upper=reading.after[0]))
        if done is None:
            return chunks
        bounds = ((chunk, self._bound(chunk)) for chunk in chunks)
        return [chunk for chunk, upper in bounds if upper is None or upper > done]

    def _bound(self, chunk: Chunk) -> tuple[Any, ...] | None:
        found = self._source.bounds(chunk)
        return None if found is None else found.range.upper

    def _apart(self, comparison: Comparison, chunk: Chunk) -> Iterator[Sequence[Key]]:
        """Keys of a range whose rows differ, as many as are written at once."""
        compared, comparing = comparison.compared, comparison.comparing
        where = range_of(self._source, compared.schema, chunk)
        if where is None:
            raise _ReadWhole("its keys have no order that both servers know")
        summing = self._summing(comparison, chunk)
        ours, theirs = self._both(summing.total, lambda: comparing.total(compared, where))
        if ours == theirs:
            return
        here, there = self._both(summing.leaves, lambda: comparing.leaves(compared, where))
        groups = in_groups(leaves_apart(here, there), here, there, LISTED)
        if len(groups) > MOST_GROUPS:
            raise _ReadWhole("most of a long range differs")
        for leaves in groups:
            listed = self._both(
                partial(summing.rows, leaves), partial(comparing.rows, compared, where, leaves)
            )
            keys = keys_apart(*listed)
            while keys:
                size = self._settings.write_batch_size  # which may follow the load
                yield keys[:size]
                del keys[:size]

    def _summing(self, comparison: Comparison, chunk: Chunk) -> Summing:
        found = comparison.summing(chunk)
        if found is None:
            raise _ReadWhole("it has columns whose values the source's server cannot digest")
        return found

    def _both(
        self, ours: Callable[[], Answer], theirs: Callable[[], Answer]
    ) -> tuple[Answer, Answer]:
        """Both servers at once."""
        here, there = patiently(self._ends.hold, ours, theirs)
        return here, there

    @property
    def _settings(self) -> TableSettings:
        found = self._ends.selection(self._table)
        if found is None:
            raise AssertionError("a polled table is selected")
        return found

    # -- what is written

    def _bring(self, comparison: Comparison, at_source: TableSchema, keys: Sequence[Key]) -> None:
        """Make the destination have of these keys what the source has now."""
        while keys:
            asked = _as_at_source(comparison, at_source, keys)
            version, parts = self._source.changes_of(at_source, asked, least=self._place.version)
            apart = _still_apart(comparison, parts, keys)
            if len(apart) == len(keys):
                self._place = replace(self._place, version=version)
                batch = batches.batch(parts, self._place.position(self._fire_time))
                self.marker = self._delivery.write(self.marker, batch, Phase.SNAPSHOT)
                self._delivery.promote()
                return
            keys = apart

    def _move(self, phase: Phase) -> None:
        end = self._place.position(self._fire_time)
        self.marker = self._delivery.move(self.marker, ChangeBatch([], end), phase)

    def _end(self) -> None:
        self._place = replace(self._place, reading=None)
        self._move(Phase.IDLE)
        self._meter.caught_up()


def _as_at_source(
    comparison: Comparison, at_source: TableSchema, keys: Sequence[Key]
) -> list[tuple[Any, ...]]:
    """Keys as carriers, in the order of the source's key.  Both ends have the same kinds."""
    names = [column.source for column in comparison.compared.key]
    cells = comparison.cells_of(keys)
    ordered = [cells[names.index(c.source)] for c in canonical.key_columns(at_source)]
    return list(zip(*ordered, strict=True))


def _still_apart(
    comparison: Comparison, parts: Sequence[TableChanges], keys: Sequence[Key]
) -> list[Key]:
    """Those of the keys of which the destination has something else than what would be written.

    A value that is written otherwise than it is (a zero date becomes NULL) makes the servers'
    hashes differ for ever, and its row must not be written in each run for that.
    """
    expected: dict[Key, Any] = {}
    aside: set[Key] = set()
    for part in parts:
        if Operation.DELETE in part.operations:
            continue
        try:
            forms, refused = comparison.expected(part)
        except SchemaMoved:  # the destination's columns are to change first, as for any change
            return list(keys)
        expected |= forms
        aside |= refused
    found = comparison.comparing.look(comparison.compared, comparison.cells_of(keys))
    columns = comparison.compared.columns
    apart = [
        key
        for key, there in zip(keys, found, strict=True)
        if key in aside or not is_same(Seen(expected.get(key), False, there), columns)
    ]
    told = _told(comparison, parts, apart)
    return [key for key in apart if key not in told]


def _told(comparison: Comparison, parts: Sequence[TableChanges], keys: Sequence[Key]) -> set[Key]:
    """Those of the keys whose rows the destination has refused already, as they are now: each run
    would put them into the quarantine once more."""
    texts = comparison.key_texts(keys)
    waiting = comparison.waiting(list(texts))
    if not waiting:
        return set()
    known: set[Key] = set()
    of = {key: text for text, key in texts.items()}
    for part in parts:
        schema = part.schema
        if schema is None or Operation.DELETE in part.operations:
            continue
        named = [column.source for column in schema.columns]
        places = [(column.kind, named.index(column.source)) for column in comparison.compared.key]
        for row in part.rows():
            text = of.get(tuple(canonical.form(kind, row[place]) for kind, place in places))
            if text is not None and text in waiting:
                now = json.loads(stored.dump(schema.columns, row))
                if json.loads(waiting[text]) == now:
                    known.add(texts[text])
    return known


def _say_once(table: TableId | None, reason: str) -> None:
    if table is not None and (table, reason) not in _said:
        _said.add((table, reason))
        log.info("table_read_whole", table=str(table), reason=reason)
