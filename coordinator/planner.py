"""What the fleet should be doing and is not: duties, decided from what is known.  Pure.

Every duty is idempotent, so it does not matter how many coordinators decided it, nor on how old
a view.  The one order that matters: a table is cut into chunks only once the position its stream
starts from is stored (docs/architecture.md).  It is kept here, by never asking for chunks of a
table whose stream marker has no position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from warp.model import (
    Capture,
    KeySpan,
    LeasedUnit,
    Marker,
    Phase,
    SnapshotMode,
    TableId,
    TableSettings,
    UnitKind,
    WorkUnit,
)

STOPPED = (Phase.FAILED, Phase.PAUSED)  # a person put it there or must bring it back
_OVER = (Phase.DONE, *STOPPED)

_SAME = 1.0  # seconds by which two clocks may tell the same wait differently
_TOO_LONG = 86_400.0  # seconds that no run waits beyond its time, unless a stranger wrote it so

# Seconds until a polled table's next run; its marker tells of the last one.
Delay = Callable[[TableSettings, Marker], float]


@dataclass(frozen=True, slots=True)
class SchemaView:
    """One schema of the configuration and the tables its source has now."""

    name: str
    tables: tuple[TableSettings, ...] | None  # None while the source has not answered yet
    streams: bool = True  # it follows a log; else all its tables are polled
    stream: WorkUnit | None = None  # the unit that follows it; None: its own
    follows: str = ""  # names what the stream carries, by this configuration
    left_out: frozenset[TableId] = frozenset()  # known tables that are not selected any more
    held: bool = False  # another schema of the same stream waits for a serial snapshot
    first: bool = True  # of the schemas of its stream, the one that answers for it

    scheduled: bool = False  # polled at the slots of a schedule
    now: float = 0.0  # Unix seconds

    def of_log(self, table: TableSettings) -> bool:
        return self.streams and table.capture is Capture.LOG


@dataclass(frozen=True, slots=True)
class StartStream:
    """Store the log's end as the position the stream starts from."""

    stream: WorkUnit
    follows: str = ""


@dataclass(frozen=True, slots=True)
class Follow:
    """The stream carries other tables than it did: shut out whoever runs it with the old ones."""

    stream: WorkUnit
    follows: str


@dataclass(frozen=True, slots=True)
class StartPoll:
    """Store where polling a table goes on after its snapshot."""

    unit: WorkUnit
    table: TableId


@dataclass(frozen=True, slots=True)
class AdoptTable:
    """A table without a snapshot: it is complete from its first moment."""

    unit: WorkUnit
    table: TableId


@dataclass(frozen=True, slots=True)
class PlanSnapshot:
    """Cut a table into chunks of about `rows`.

    None: the source has the table no more; no chunks, so that settling sweeps what is left.
    """

    schema: str
    table: TableId
    rows: int | None
    within: KeySpan | None = None  # what of it, where that is not all


@dataclass(frozen=True, slots=True)
class PlanVerification:
    """Compare a table with its source, cut into key ranges of about `rows`."""

    schema: str
    table: TableId
    rows: int


@dataclass(frozen=True, slots=True)
class Settle:
    """All chunks of a table are done."""

    schema: str
    table: TableId


@dataclass(frozen=True, slots=True)
class Ensure:
    """Units that should be in the ledger."""

    units: tuple[WorkUnit, ...]


@dataclass(frozen=True, slots=True)
class OfferLater:
    """A polled table's next run."""

    unit: WorkUnit
    delay: float


@dataclass(frozen=True, slots=True)
class Revive:
    """A unit set aside after many failures that has come on since its last chance."""

    unit: WorkUnit
    batch: int  # how far it had come


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A unit set aside after many failures without coming on: durably, for a person to see."""

    unit: WorkUnit


Duty = (
    StartStream
    | Follow
    | StartPoll
    | AdoptTable
    | PlanSnapshot
    | PlanVerification
    | Settle
    | Ensure
    | OfferLater
    | Revive
    | GiveUp
)


@dataclass(slots=True)
class MarkersOf:
    """The markers of one schema, by what they are about."""

    stream: Marker | None = None
    tables: dict[TableId, Marker] = field(default_factory=dict)
    polls: dict[TableId, Marker] = field(default_factory=dict)
    replays: dict[TableId, Marker] = field(default_factory=dict)
    chunks: dict[TableId, dict[str, Marker]] = field(default_factory=dict)  # by unit id
    verifications: dict[str, Marker] = field(default_factory=dict)  # by unit id


def by_schema(markers: Iterable[Marker]) -> dict[str, MarkersOf]:
    """Sort all markers once per round, however many schemas ask."""
    sorted_: dict[str, MarkersOf] = {}
    for marker in markers:
        unit = marker.unit
        of = sorted_.setdefault(unit.schema, MarkersOf())
        if unit.kind is UnitKind.STREAM:
            of.stream = marker
        elif unit.table is None:
            continue
        elif unit.kind is UnitKind.TABLE:
            of.tables[unit.table] = marker
        elif unit.kind is UnitKind.POLL:
            of.polls[unit.table] = marker
        elif unit.kind is UnitKind.REPLAY:
            of.replays[unit.table] = marker
        elif unit.kind is UnitKind.VERIFY:
            of.verifications[unit.id] = marker
        elif unit.kind is UnitKind.CHUNK:
            of.chunks.setdefault(unit.table, {})[unit.id] = marker
    for of in sorted_.values():
        for table, chunks in of.chunks.items():
            _leave_out_earlier_epochs(chunks, of.tables.get(table))
    return sorted_


def _leave_out_earlier_epochs(chunks: dict[str, Marker], table: Marker | None) -> None:
    """A worker that adopts its chunk just after the table was planned anew makes its marker again.

    Nobody can write under it, so waiting for it to be done would be for ever.
    """
    for id, chunk in list(chunks.items()):
        if table is not None and chunk.epoch < table.epoch:
            del chunks[id]


def plan(
    view: SchemaView,
    markers: MarkersOf,
    known: Mapping[str, LeasedUnit],
    *,
    delay: Delay,
    revived: Mapping[str, int],
) -> list[Duty]:
    """The duties of one schema, in the order to do them.

    `known` are the ledger's units by id; `revived` says how far each unit had come when it was
    last given another chance.
    """
    if view.streams:
        stream = view.stream or WorkUnit.stream(view.name)
        if markers.stream is None or markers.stream.position is None:
            return [StartStream(stream, view.follows)]
        if markers.stream.follows != view.follows:
            # Before a new table is cut into chunks: what changes after its chunks were read must
            # find a follower who knows the table (guarantee 4).
            return [Follow(stream, view.follows)]
    if _is_paused(view, markers):
        return []
    duties: list[Duty] = []
    if view.tables is not None:
        duties += _plan_tables(view, view.tables, markers)
        duties += _plan_verifications(view.tables, markers, view.now)
    duties += _settle_tables(view, markers)
    wanted = _units(view, markers)
    if wanted:
        duties.append(Ensure(tuple(wanted)))
    duties += _poll_runs(view, markers, known, delay)
    duties += _second_chances(view, markers, known, revived)
    return duties


def _is_paused(view: SchemaView, markers: MarkersOf) -> bool:
    """Was the schema paused?  Then a table that turns up or waits for its chunks waits too."""
    if view.streams:
        return markers.stream is not None and markers.stream.phase is Phase.PAUSED
    return any(poll.phase is Phase.PAUSED for poll in markers.polls.values())


def _plan_tables(
    view: SchemaView, tables: Sequence[TableSettings], markers: MarkersOf
) -> Iterator[Duty]:
    present = {settings.table: settings for settings in tables}
    for table, settings in present.items():
        if not view.of_log(settings) and table not in markers.polls:
            yield StartPoll(WorkUnit.poll(view.name, table), table)
            continue  # its chunks come once that is stored
        marker = markers.tables.get(table)
        if marker is None and settings.snapshot is SnapshotMode.NEVER:
            yield AdoptTable(WorkUnit.of_table(view.name, table), table)
        elif marker is None or marker.phase is Phase.PLANNED:
            within = marker.within if marker is not None else None
            yield PlanSnapshot(view.name, table, settings.chunk_rows, within)
    for table, marker in markers.tables.items():
        # To be read anew, but dropped since.  What is not selected any more stays as it is.
        if table in present or table in view.left_out:
            continue
        if marker.phase is Phase.PLANNED:
            yield PlanSnapshot(view.name, table, None)


def _plan_verifications(
    tables: Sequence[TableSettings], markers: MarkersOf, now: float
) -> Iterator[Duty]:
    """A table that is complete is compared `verify.every` after its last pass began; a pass that
    is under way is not begun again."""
    of_table: dict[TableId, list[Marker]] = {}
    for marker in markers.verifications.values():
        if marker.unit.table is not None:
            of_table.setdefault(marker.unit.table, []).append(marker)
    for settings in tables:
        state = markers.tables.get(settings.table)
        if settings.verify_every is None or state is None or state.phase is not Phase.STREAMING:
            continue
        units = of_table.get(settings.table, [])
        if any(unit.phase not in _OVER for unit in units):
            continue
        begun = max((pass_begun(unit) for unit in units), default=0.0)
        if now - begun >= settings.verify_every:
            yield PlanVerification(settings.schema, settings.table, settings.chunk_rows)


def pass_begun(verification: Marker) -> float:
    """When the pass of a unit was planned: its number is that time, in milliseconds."""
    return int(verification.unit.id.rsplit(":", 2)[1]) / 1000


def _settle_tables(view: SchemaView, markers: MarkersOf) -> Iterator[Duty]:
    for table, marker in markers.tables.items():
        if marker.phase is Phase.SNAPSHOT and all(
            chunk.phase is Phase.DONE for chunk in markers.chunks.get(table, {}).values()
        ):
            yield Settle(view.name, table)


def _units(view: SchemaView, markers: MarkersOf) -> list[WorkUnit]:
    """The stream, replays under way, and the open chunks.

    The stream first: it must not wait for a long snapshot.
    """
    units: list[WorkUnit] = []
    if (
        view.streams
        and markers.stream is not None
        and markers.stream.phase not in STOPPED
        and not (view.held or waits_for_snapshot(view, markers))
    ):
        units.append(markers.stream.unit)
    # Marked in the quarantine and not landed yet: the marker knows, whatever became of the ledger.
    units += [r.unit for r in markers.replays.values() if r.phase not in (Phase.IDLE, *STOPPED)]
    for chunks in markers.chunks.values():
        units += [c.unit for c in chunks.values() if c.phase not in (Phase.DONE, *STOPPED)]
    units += [v.unit for v in markers.verifications.values() if v.phase not in _OVER]
    return units


def waits_for_snapshot(view: SchemaView, markers: MarkersOf) -> bool:
    """With `snapshot: serial` the stream waits for the last chunk of every such table."""
    if view.tables is None:
        # Unknown yet which tables those are; a stream that has run before need not wait to see.
        return markers.stream is not None and markers.stream.batch == 0
    for settings in view.tables:
        if settings.snapshot is not SnapshotMode.SERIAL or not view.of_log(settings):
            continue
        marker = markers.tables.get(settings.table)
        if marker is None or marker.phase in (Phase.PLANNED, Phase.SNAPSHOT):
            return True
    return False


def _poll_runs(
    view: SchemaView, markers: MarkersOf, known: Mapping[str, LeasedUnit], delay: Delay
) -> Iterator[Duty]:
    for settings in view.tables or ():
        marker = markers.polls.get(settings.table)
        table = markers.tables.get(settings.table)
        if marker is None or marker.phase in STOPPED or view.of_log(settings):
            continue
        if table is None or table.phase is not Phase.STREAMING:
            continue  # its first rows come by chunks
        entry = known.get(marker.unit.id)
        if entry is None:
            yield OfferLater(marker.unit, delay(settings, marker))
        elif entry.state == "later":
            wait = delay(settings, marker)
            # The schedule, or somebody's clock, was changed.
            most = _SAME if _waits_for_its_slot(view, entry) else _TOO_LONG
            if wait < entry.expires_in - most:
                yield OfferLater(marker.unit, wait)


def _waits_for_its_slot(view: SchemaView, entry: LeasedUnit) -> bool:
    """Else it comes by its interval, or is held back."""
    return view.scheduled and not entry.tries


def _second_chances(
    view: SchemaView,
    markers: MarkersOf,
    known: Mapping[str, LeasedUnit],
    revived: Mapping[str, int],
) -> Iterator[Duty]:
    """What becomes of units the ledger set aside for failing or crashing too often.

    A unit whose workers were killed many times is no poison as long as it comes on; a chunk
    begins anew each time, so its progress says nothing.
    """
    streams = [markers.stream] if markers.stream is not None and view.first else []
    chunks = [chunk for of in markers.chunks.values() for chunk in of.values()]
    ranges = markers.verifications.values()
    tables = (*markers.polls.values(), *markers.replays.values(), *ranges)
    for marker in (*streams, *tables, *chunks):
        entry = known.get(marker.unit.id)
        if entry is None or entry.state != "dead" or marker.phase in (Phase.DONE, *STOPPED):
            continue
        came_on = marker.batch > revived.get(marker.unit.id, 0)
        if came_on and marker.unit.kind not in (UnitKind.CHUNK, UnitKind.VERIFY):
            yield Revive(marker.unit, marker.batch)
        else:
            yield GiveUp(marker.unit)


def last_run(marker: Marker) -> float | None:
    """When the last complete run of a poll began; None where a run is due at once."""
    if marker.phase is not Phase.IDLE:
        return None  # never ran, or was cut short: the ledger forgot it, so it starts again
    if marker.position is not None and marker.position.committed_at:
        return marker.position.committed_at
    return marker.updated_at or None


def to_withdraw(
    configured: Collection[str],
    markers: Mapping[str, MarkersOf],
    units: Iterable[LeasedUnit],
    *,
    known: Collection[str] = (),
) -> list[str]:
    """Units waiting in the ledger that nobody should work on any more.

    Units stopped by their own failures (`dead`) stay to be seen and revived; units of schemas
    that are no longer configured go, whatever their state.  What cannot be read goes unless it is
    one of `known`, the ids of all markers: such a one was spoiled and has been written anew since.
    """
    gone = []
    for entry in units:
        unit = entry.unit
        if entry.state == "leased" or (unit.kind is UnitKind.TABLE and unit.id in known):
            continue
        of = markers.get(unit.schema, MarkersOf())
        if unit.schema not in configured or (entry.state != "dead" and _is_over(of, unit)):
            gone.append(unit.id)
    return gone


def _is_over(markers: MarkersOf, unit: WorkUnit) -> bool:
    """Finished, stopped, or replaced by a later epoch."""
    if unit.kind is UnitKind.STREAM:
        return markers.stream is not None and markers.stream.phase in STOPPED
    if unit.table is None:
        return False
    if unit.kind is UnitKind.POLL:
        poll = markers.polls.get(unit.table)
        return poll is not None and poll.phase in STOPPED
    if unit.kind is UnitKind.REPLAY:
        replay = markers.replays.get(unit.table)
        return replay is None or replay.phase in (Phase.IDLE, *STOPPED)
    if unit.kind is UnitKind.VERIFY:
        verification = markers.verifications.get(unit.id)
        return verification is None or verification.phase in _OVER
    if unit.kind is UnitKind.CHUNK:
        chunk = markers.chunks.get(unit.table, {}).get(unit.id)
        return chunk is None or chunk.phase in (Phase.DONE, *STOPPED)
    return False


def is_snapshotting(markers: Iterable[MarkersOf]) -> bool:
    """Does some table still wait for its first rows?  Then reconcile often."""
    return any(
        table.phase in (Phase.PLANNED, Phase.SNAPSHOT)
        for of in markers
        for table in of.tables.values()
    )
