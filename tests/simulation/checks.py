"""What must hold in every run: while it goes on, and when all has come to rest.

These know nothing of how the product keeps its promises.  They look at what was committed, in the
order in which it was, and at what the source did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edges import RATES, STREAMED, TABLES

from warp.model import (
    SHARED,
    Aside,
    ChangeBatch,
    Invalid,
    Lease,
    Marker,
    Phase,
    Position,
    QuarantinedRow,
    TableId,
    UnitKind,
    WorkUnit,
)

if TYPE_CHECKING:
    from scheduler import Process
    from world import World

Changes = Counter[tuple[int, TableId]]
_AT_REST = {UnitKind.CHUNK: Phase.DONE, UnitKind.POLL: Phase.IDLE, UnitKind.REPLAY: Phase.IDLE}


class Checks:
    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, Marker] = {}
        self._lenient: Counter[str] = Counter()  # moves, for a batch may be about two of them
        self._durable: Counter[str] = Counter()  # the furthest position there was, by schema
        self._landed: dict[str, Changes] = {}  # of a stream, since its position moved last

    # ------------------------------------------------------------ while it goes on

    def opened(self, lease: Lease) -> None:
        """Guarantee 2: from here on everybody older is shut out."""
        marker = self._world.warehouse.markers[lease.unit.id]
        if marker.fence != lease.fence:
            self._fail(f"{lease.unit.id} was opened under {lease.fence} and has {marker.fence}")
        self._landed.pop(lease.unit.id, None)  # it is read again from its position

    def about_to_write(self, process: Process, marker: Marker) -> None:
        """A hold that says it is ours is never wrong, unless the ledger itself was changed."""
        unit, world = marker.unit, self._world
        claimed = world.claimed.get((unit.id, process.name), -1.0)
        owner = world.owner_of(unit)
        if claimed > world.ledger_disturbed_at and owner not in (None, process.name):
            self._fail(f"{process.name} begins to write {marker.unit.id}, leased to {owner}")

    def wrote(
        self,
        marker: Marker,
        before: Mapping[str, Marker],
        batch: ChangeBatch | None,
        quarantined: Sequence[QuarantinedRow],
        *,
        looked_up: bool,
    ) -> None:
        """`looked_up`: some rows are not as the log had them, but as they were found."""
        unit = marker.unit
        stood = before.get(unit.id, Marker(unit))
        if marker.fence != stood.fence:  # guarantee 2
            self._fail(f"{unit.id} was written under {marker.fence} while {stood.fence} stood")
        if marker.batch != stood.batch + 1:  # guarantee 7
            self._fail(f"{unit.id} went from batch {stood.batch} to {marker.batch}")
        if unit.kind is UnitKind.STREAM and marker.position is not None:
            if looked_up:
                self._lenient[unit.id] = 2
            self._moved(unit, stood.position, marker.position, batch, quarantined)

    def _moved(
        self,
        unit: WorkUnit,
        start: Position | None,
        end: Position,
        batch: ChangeBatch | None,
        quarantined: Sequence[QuarantinedRow],
    ) -> None:
        """Guarantee 4: what is between two positions landed between them, once."""
        if start is None:
            return
        landed = self._landed.setdefault(unit.id, Counter())
        for part in batch.changes if batch is not None else ():
            landed.update((version, part.table) for version in part.versions)
        landed.update((row.version, row.table) for row in quarantined if not row.column)
        first, last = int(start.token), int(end.token)
        if last < first:
            self._fail(f"{unit.id} moved back from {first} to {last}")
        if last == first:
            return
        schemas = STREAMED if unit.schema == SHARED else (unit.schema,)
        tables = [table for schema in schemas for table in TABLES[schema]]
        expected = Counter(
            one
            for one in self._world.database.history
            if first < one[0] <= last and one[1] in tables
        )
        # The beginning of a transaction that goes on behind the end is for the next move.
        counted = Counter({one: times for one, times in landed.items() if one[0] <= last})
        missing, twice = expected - counted, counted - expected
        lenient = self._lenient[unit.id] > 0
        self._lenient[unit.id] -= 1
        if missing and not lenient:
            self._fail(f"{unit.id} passed by {_told(missing)} on its way from {first} to {last}")
        if twice and not lenient and not self._world.duplicates:
            self._fail(f"{unit.id} applied again {_told(twice)} on its way from {first} to {last}")
        for one in counted:
            del landed[one]

    def acknowledged(self, schema: str, position: Position) -> None:
        """Guarantee 3: what the source may forget is durable."""
        named = (schema, SHARED) if schema in STREAMED or schema == SHARED else (schema,)
        if int(position.token) > max(self._durable[name] for name in named):
            self._fail(f"{schema} acknowledged {position.token} before it was durable")

    def look(self) -> None:
        """A fence never falls, nor an epoch, nor the count of batches."""
        markers = self._world.warehouse.markers
        for id in self._seen.keys() - markers.keys():
            del self._seen[id]  # a chunk of a snapshot that was begun anew
        for id, marker in markers.items():
            seen = self._seen.get(id)
            if seen is marker:
                continue
            if seen is not None and (
                marker.fence < seen.fence or marker.epoch < seen.epoch or marker.batch < seen.batch
            ):
                self._fail(f"{id} fell back from {_shown(seen)} to {_shown(marker)}")
            self._seen[id] = marker
            if marker.unit.kind in (UnitKind.STREAM, UnitKind.POLL) and marker.position:
                # Also where a resync has moved it back since: what was before it had landed.
                schema, place = marker.unit.schema, int(marker.position.token)
                self._durable[schema] = max(self._durable[schema], place)

    # ------------------------------------------------------------ when all has come to rest

    def unsettled(self) -> str:
        """What is still to be done; empty where nothing is."""
        return next(self._unsettled(), "")

    def _unsettled(self) -> Iterator[str]:
        markers = self._world.warehouse.markers
        for schema, tables in TABLES.items():
            for table in tables:
                state = markers.get(WorkUnit.of_table(schema, table).id)
                if state is None or state.phase is not Phase.STREAMING:
                    yield f"{table} is {state.phase if state else 'not there'}"
        streams = [m for m in markers.values() if m.unit.kind is UnitKind.STREAM]
        for stream in streams:
            if stream.phase is not Phase.STREAMING:
                yield f"{stream.unit.id} is {stream.phase}"
            position = int(stream.position.token) if stream.position else -1
            if position < self._world.database.version:
                yield f"{stream.unit.id} is at {position} of {self._world.database.version}"
        if not streams:
            yield "no stream"
        for marker in markers.values():
            wanted = _AT_REST.get(marker.unit.kind, marker.phase)
            if marker.phase is not wanted and not self._is_of_the_past(marker):
                yield f"{marker.unit.id} is {marker.phase}"
        poll = markers.get(WorkUnit.poll("cron", RATES).id)
        reached = int(poll.position.token) if poll and poll.position else -1
        if reached < self._world.rates.version:
            yield f"the poll is at {reached} of {self._world.rates.version}"

    def _is_of_the_past(self, marker: Marker) -> bool:
        """A chunk of a snapshot that was begun anew."""
        if marker.unit.kind is not UnitKind.CHUNK or marker.unit.table is None:
            return False
        table = WorkUnit.of_table(marker.unit.schema, marker.unit.table)
        return marker.epoch < self._world.warehouse.markers[table.id].epoch

    def at_rest(self) -> None:
        """The destination equals the source, or says of each row why not."""
        for schema, tables in TABLES.items():
            for table in tables:
                self._equal(schema, table)
        fired = Counter(
            (run["unit"], run["slot"])
            for run in self._world.warehouse.runs.values()
            if run["slot"] is not None and run["status"] == "done"
        )
        for (unit, slot), times in fired.items():
            if times > 1:
                self._fail(f"slot {slot} of {unit} was run {times} times")

    def _equal(self, schema: str, table: TableId) -> None:
        database = self._world.rates if schema == "cron" else self._world.database
        described = database.schemas[table]
        have = {row["id"]: row for row in self._world.warehouse.rows(table)}
        aside = {
            a.row.key: a.row.version
            for a in self._world.warehouse.aside
            if a.row.table == table and a.state in (Aside.WAITING, Aside.REPLAYING)
        }
        for key, row in database.tables[table].items():
            if any(isinstance(cell, Invalid) for cell in row.values()):
                if not any(f"{key[0]}" in text for text in aside):
                    self._fail(f"{table} {key}: neither landed nor set aside")
                have.pop(key[0], None)
                continue
            found = have.pop(key[0], None)
            wanted = {c.name: row.get(c.name) for c in described.columns}
            if found is None or {name: found.get(name) for name in wanted} != wanted:
                self._fail(f"{table} {key}: the source has {wanted}, the destination {found}")
        if have:
            self._fail(f"{table}: the destination has {have}, which the source has not")

    def _fail(self, what: str) -> None:
        self._world.violated(what)


def _shown(marker: Marker) -> Any:
    return (marker.fence, marker.epoch, marker.batch)


def _told(changes: Changes) -> str:
    return ", ".join(f"{table.name}@{version}" for version, table in sorted(changes)[:5])
