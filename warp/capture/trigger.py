"""Rows whose keys the application's own transactions put into a queue: `strategy: trigger`.

The triggers write keys only; the rows are looked up when they are delivered.  So an entry says
"look at this key", nothing more: its row as it is now is the latest state, and no row is a delete.

Why no entry is missed and none comes out of order:

* An entry gets its id when it is made and is seen when its transaction commits, so ids do not
  become visible in order.  No place in the queue is remembered for that reason: each run reads
  every entry there is, from the lowest id, and an entry goes only by being removed.
* Exactly the entries of a batch are removed, by id, once the batch is durable (guarantee 3).  A
  crash in between delivers them again, and a row delivered twice is the row.
* The row is looked up after its entry was read, so it is as new as the entry or newer; if newer,
  an entry of that newer change is there or comes.  The order of entries among keys is therefore
  no matter.  Versions are read before the rows and never fall, and rows of an equal version land
  in the order of delivery, so the state read last stays.
* A truncation is an entry too.  In its batch it comes first: rows that live again after it are
  looked up after it.  It excludes every writer of the table, so entries with lower ids are from
  before it; a row of theirs that lives again has an entry with a higher id, still to come.
* What changes rows without a trigger shows in `Triggers.changes_unseen`, as does that the triggers
  had to be made anew: then the table is compared whole, with them in place before its first row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import structlog

from warp.capture import batches, keyed, queue, whole
from warp.capture.places import Place, Reading, Strategy, parse
from warp.capture.side import SqlSide
from warp.errors import SourceRefused
from warp.model import ChangeBatch, Position, TableSchema, TableSettings

log = structlog.get_logger(__name__)


class QueuePolls:
    """The runs of one table, which remember what they delivered until it is durable."""

    def __init__(self, side: SqlSide, settings: TableSettings) -> None:
        self._side = side
        self._rows = settings.write_batch_size
        self._table = settings.table
        self._queue = queue.Queue(side, settings.table)
        self._delivered: list[tuple[str, list[int]]] = []  # token of a batch -> its entries
        # The pipeline acknowledges one batch while the next is read ahead of it.
        self._turn = threading.Lock()

    def start(self, *, fire_time: float) -> Position:
        """Install the triggers: a snapshot that begins now misses nothing they do not see."""
        triggers = self._side.triggers
        triggers.install(self._table, self._schema())
        unseen = triggers.changes_unseen(self._table)
        return Place(Strategy.TRIGGER, unseen, version=self._side.version()).position(fire_time)

    def poll(self, position: Position | None, *, fire_time: float) -> Iterator[ChangeBatch]:
        """One run, until the queue is empty."""
        place = parse(position, Strategy.TRIGGER)
        if self._side.schema(self._table) is None:  # dropped since it was listed
            yield batches.batch([], (place or Place(Strategy.TRIGGER)).position(fire_time))
            return
        schema = self._schema()
        self._side.triggers.install(self._table, schema)
        unseen = self._side.triggers.changes_unseen(self._table)
        place = self._begin(place, unseen)
        if place.reading is not None:

            def at(reached: Place) -> Position:
                # With its last row the table has been compared, as it was when that began.
                known = reached if reached.reading else replace(reached, about=unseen)
                return known.position(fire_time)

            for batch in whole.read(self._side, schema, place, rows=self._rows, at=at):
                yield batch
                place = parse(batch.end, Strategy.TRIGGER) or place
        place = replace(place, entry=0)
        while page := self._page(schema, place, fire_time):
            place, batch = page
            yield batch
        yield batches.batch([], replace(place, entry=0).position(fire_time))

    def acknowledge(self, position: Position) -> None:
        """The batches up to this one are durable: their entries are not needed any more."""
        with self._turn:
            tokens = [token for token, _ in self._delivered]
            if position.token not in tokens:
                return
            upto = tokens.index(position.token) + 1
            self._queue.forget([id for _, ids in self._delivered[:upto] for id in ids])
            del self._delivered[:upto]

    def _schema(self) -> TableSchema:
        schema = self._side.schema(self._table)
        if schema is None or not schema.key:
            raise SourceRefused(
                "expected a table with a primary key, whose values a trigger can note, found "
                "none; add one, or set change_detection.strategy to timestamp or hash",
                place=str(self._table),
            )
        return schema

    def _begin(self, place: Place | None, unseen: str) -> Place:
        """Where this run begins; with a reading where the table must be compared whole first."""
        if place is None:
            reason = "nothing is known of it"
        elif unseen != (place.reading.unseen if place.reading else place.about):
            reason = "it may have changed without its triggers"
        else:
            return place  # perhaps in the middle of a comparison that was cut short
        log.info("table_compared_whole", table=str(self._table), reason=reason)
        version = max(self._side.version(), 0 if place is None else place.version)
        return Place(
            Strategy.TRIGGER, version=version, reading=Reading(first=version, unseen=unseen)
        )

    def _page(
        self, schema: TableSchema, place: Place, fire_time: float
    ) -> tuple[Place, ChangeBatch] | None:
        with self._turn:
            # Before the entries and the rows: whatever they show is of this version or later.
            version = max(self._side.version(), place.version)
            entries = self._queue.read(schema, after=place.entry, rows=self._rows)
            if not entries.ids:
                return None
            keys = entries.distinct_keys()
            found = keyed.changes(self._side, schema, keys, version)
            place = place.at(version, entry=entries.ids[-1])
            end = place.position(fire_time)
            self._delivered.append((end.token, entries.ids))
        if any(entries.truncated):
            found = [batches.truncate(schema, version), *found]
        return place, batches.batch(found, end)
