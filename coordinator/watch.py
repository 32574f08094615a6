"""What only somebody who sees the whole fleet can measure: queues, and the lag of stopped units.

A worker measures what it works on.  What nobody works on is measured here, from the markers, so
that the lag of a stopped worker grows where it can be seen.  `readings` is pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from coordinator.status import lag_of
from warp import metrics
from warp.digest.seams import Pass
from warp.metrics import ALL_TABLES, Meters, Status
from warp.model import SHARED, Headroom, LeasedUnit, Marker, Phase, TableId, UnitKind, WorkUnit

# A healthy stream moves its marker at least every 10 s while its log moves.
SILENT_AFTER = 30.0

Labels = tuple[str, ...]

# Gauge -> what it shows of a headroom; no series where that is None.
_OF_HEADROOM: Final[Mapping[str, Callable[[Headroom], float | None]]] = {
    metrics.RETENTION: lambda found: found.window,
    metrics.HEADROOM_RATIO: lambda found: found.ratio,
    metrics.HEADROOM_SECONDS: lambda found: found.seconds,
    metrics.HEADROOM_BYTES: lambda found: found.bytes,
    metrics.RETAINED: lambda found: found.retained,
}


@dataclass(slots=True)
class Readings:
    """Gauges by metric name, then by label values."""

    queue: dict[Labels, float] = field(default_factory=dict)
    lag: dict[Labels, float] = field(default_factory=dict)
    status: dict[Labels, Status] = field(default_factory=dict)
    progress: dict[Labels, float] = field(default_factory=dict)


def labels_of(unit: WorkUnit, database: str) -> Labels:
    if unit.table is None:
        return (database, unit.schema, ALL_TABLES)
    return (unit.table.namespace, unit.schema, unit.table.name)


def readings(
    markers: Sequence[Marker],
    ledger: Iterable[LeasedUnit],
    *,
    database: str,
    reached: Mapping[str, bool],
    now: float,
) -> Readings:
    """Everything shown, from one look at markers and ledger."""
    found = Readings()
    leased = set()
    for entry in ledger:
        labels = labels_of(entry.unit, database)
        if entry.state == "leased":
            leased.add(entry.unit.id)
        if entry.state in ("due", "leased"):
            found.queue[labels] = found.queue.get(labels, 0.0) + 1
        else:
            found.queue.setdefault(labels, 0.0)
    polled = {labels_of(m.unit, database) for m in markers if m.unit.kind is UnitKind.POLL}
    chunks: Counter[Labels] = Counter()
    done: Counter[Labels] = Counter()
    for marker in markers:
        labels = labels_of(marker.unit, database)
        if marker.unit.kind is UnitKind.CHUNK:
            chunks[labels] += 1
            done[labels] += marker.phase is Phase.DONE
            if marker.phase is Phase.DONE:
                continue
        held = marker.unit.id in leased
        if marker.unit.kind is UnitKind.TABLE:  # worked on by its schema's stream, if there is one
            streams = {WorkUnit.stream(name).id for name in (marker.unit.schema, SHARED)}
            held = bool(streams & leased) and labels not in polled
        status = Status.ERROR if marker.phase is Phase.FAILED else Status(int(held))
        # Of several units of one table: an error hides work, work hides rest.
        found.status[labels] = max(
            (found.status.get(labels, Status.INACTIVE), status),
            key=(Status.INACTIVE, Status.ACTIVE, Status.ERROR).index,
        )
        if marker.unit.kind is UnitKind.STREAM and marker.position is not None:
            silent = now - marker.updated_at > SILENT_AFTER
            if silent or not held:
                at_end = reached.get(marker.unit.schema, False)
                found.lag[labels] = lag_of(marker, now, reached=at_end)
    found.progress = {labels: done[labels] / count for labels, count in chunks.items()}
    return found


class Watch:
    """Shows the readings as metrics while this coordinator leads."""

    def __init__(self, meters: Meters, *, database: str) -> None:
        self._meters = meters
        self._database = database
        self._tries: dict[str, tuple[str, int]] = {}
        self._headroom: dict[str, Headroom] = {}  # by schema

    def observe(
        self,
        markers: Sequence[Marker],
        ledger: Sequence[LeasedUnit],
        *,
        reached: Mapping[str, bool],
        now: float,
    ) -> None:
        found = readings(markers, ledger, database=self._database, reached=reached, now=now)
        self._meters.show(metrics.QUEUE_SIZE, found.queue)
        self._meters.show(metrics.LAG, found.lag)
        self._meters.show(metrics.SYNC_STATUS, found.status)
        self._meters.show(metrics.SNAPSHOT_PROGRESS, found.progress)
        self._count_takeovers(ledger)

    def rest(self) -> None:
        """Another coordinator shows them from now on."""
        for name in (
            metrics.QUEUE_SIZE,
            metrics.LAG,
            metrics.SYNC_STATUS,
            metrics.SNAPSHOT_PROGRESS,
            *_OF_HEADROOM,
            metrics.DIFFERENCES,
            metrics.OLDEST_VERDICT,
        ):
            self._meters.show(name, {})
        self._tries.clear()
        self._headroom.clear()

    def headroom(self, schemas: Iterable[str], found: Headroom) -> None:
        """What the source of these schemas, which share a stream, still keeps behind it."""
        for schema in schemas:
            self._headroom[schema] = found
        for name, part in _OF_HEADROOM.items():
            values = {schema: part(one) for schema, one in self._headroom.items()}
            told = {s: float(value) for s, value in values.items() if value is not None}
            self._meters.show(name, {(self._database, s): value for s, value in told.items()})

    def verified(self, passes: Sequence[Pass]) -> None:
        """What the comparisons of a schema's tables found; the newest pass of each comes first."""
        told: set[TableId] = set()
        for found in passes:
            if not found.complete or found.oldest is None or found.table in told:
                continue
            told.add(found.table)
            labels = labels_of(WorkUnit.of_table(found.schema, found.table), self._database)
            self._meters.gauge(metrics.DIFFERENCES, labels).set(found.differences)
            self._meters.gauge(metrics.OLDEST_VERDICT, labels).set(found.oldest)

    def wiped(self) -> None:
        self._meters.count(metrics.LEDGER_WIPES)

    def schema_failed(self, schema: str, error: Exception) -> None:
        self._meters.table(schema, None).error(error)

    def _count_takeovers(self, ledger: Sequence[LeasedUnit]) -> None:
        """A unit that has another owner and one failure more than before was not handed over."""
        seen = {}
        for entry in ledger:
            owner, tries = self._tries.get(entry.unit.id, ("", 0))
            if entry.owner and owner and entry.owner != owner and entry.tries > tries:
                self._meters.count(metrics.TAKEOVERS, (entry.unit.schema,))
            seen[entry.unit.id] = (entry.owner or owner, entry.tries if entry.owner else tries)
        self._tries = seen
