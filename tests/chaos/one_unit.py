"""One unit in a process of its own, to be killed or paused; its order is JSON in its argument.

It prints one line of JSON at its end: how it ended, and how often it was refused on the way.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from warp import faults, pipeline
from warp.destinations.postgresql import PostgresDestination, PostgresOptions, session
from warp.destinations.postgresql.transaction import Transactions
from warp.destinations.sql.notes import Notes
from warp.errors import DestinationUnavailable, WarpError
from warp.model import (
    ChangeBatch,
    Chunk,
    Lease,
    Marker,
    Phase,
    Position,
    QuarantinedRow,
    TableId,
    TableSettings,
    WorkUnit,
    Written,
)
from warp.pipeline import NoMeter
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sql import load
from workers.hold import Held

TABLE = "orders"
BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Order:
    """What to run.  `place` names the destination's schema and metadata of this case."""

    mongo: str
    postgres: str
    namespace: str  # at the source
    place: str  # at the destination
    kind: str  # "stream" or "chunk"
    fence: int
    goal: str  # the stream ends when it has got here
    ttl: float = 600.0  # seconds until the lease has run out
    stubborn: bool = False  # never looks at its lease, and tries every write again
    broken: str = ""  # the twin: which guard is removed

    @property
    def table(self) -> TableId:
        return TableId(self.namespace, TABLE)

    @property
    def unit(self) -> WorkUnit:
        if self.kind == "stream":
            return WorkUnit.stream(self.namespace)
        return WorkUnit.of_chunk(self.namespace, Chunk(self.table, 0), 0)

    def source(self) -> Bounded:
        options = MongoOptions.model_validate({"connection_string": self.mongo})
        return Bounded(options, Selection(self.namespace, self.place))

    def destination(self) -> PostgresDestination:
        options = {"connection_string": self.postgres, "metadata_schema": f"cw_{self.place}"}
        made = Stubborn if self.stubborn else PostgresDestination
        selection = Selection(self.namespace, self.place)
        return made(PostgresOptions.model_validate(options), selection)


@dataclass(frozen=True, slots=True)
class Selection:
    """One collection, which goes to the case's own schema."""

    namespace: str
    place: str

    def __call__(self, table: TableId) -> TableSettings | None:
        if table != TableId(self.namespace, TABLE):
            return None
        return TableSettings(
            table,
            TableId(self.place, TABLE),
            self.namespace,
            full_load_batch_size=BATCH_ROWS,
            write_batch_size=BATCH_ROWS,
        )


class Bounded(MongoSource):
    """Says when everything up to a goal is durable."""

    goal: Position | None = None
    arrived = False

    def acknowledge(self, position: Position) -> None:
        super().acknowledge(position)
        self.arrived = self.goal is not None and self.reached(position, self.goal)


class Stubborn(PostgresDestination):
    """Believes in no error: sends the same batch again until it is in, or is refused."""

    def write_batch(self, batch: ChangeBatch, marker: Marker, **said: Any) -> Written:
        while True:
            with contextlib.suppress(DestinationUnavailable):
                return super().write_batch(batch, marker, **said)

    def update_marker(self, marker: Marker) -> None:
        while True:
            with contextlib.suppress(DestinationUnavailable):
                return super().update_marker(marker)


class Watch:
    """The real hold, which asks the monotonic clock; or for a stubborn owner none at all."""

    def __init__(self, held: Held, source: Bounded, *, stubborn: bool) -> None:
        self._held = held
        self._source = source
        self._stubborn = stubborn

    @property
    def lease(self) -> Lease:
        return self._held.lease

    def check(self) -> None:
        if not self._stubborn:
            self._held.check()

    def stopping(self) -> bool:
        return self._source.arrived

    def wait(self, seconds: float) -> None:
        self._held.wait(seconds)


def run(order: Order) -> None:
    """The unit from adoption to its end, as a worker's slot runs it."""
    with (
        twin(order.broken),
        closing(order.source()) as source,
        closing(order.destination()) as destination,
    ):
        source.goal = Position(order.goal)
        held = Held(
            Lease(order.unit, f"process {order.fence}", order.fence),
            ttl=order.ttl,
            asked_at=time.monotonic(),
        )
        hold = Watch(held, source, stubborn=order.stubborn)
        marker = destination.open(held.lease)
        selection = Selection(order.namespace, order.place)
        if order.kind == "stream":
            pipeline.stream(
                source,
                destination,
                marker,
                hold,
                selection=selection,
                meter=NoMeter(),
                idle=0.05,
            )
        else:
            pipeline.snapshot(
                source, destination, marker, hold, selection=selection, meter=NoMeter()
            )


# -- the broken twins


@contextlib.contextmanager
def twin(broken: str) -> Iterator[None]:
    """Inside, guards of the destination are gone; several are joined by " + "."""
    writes: Any = Transactions
    notes: Any = Notes
    guards = [
        (writes, "_advance"),
        (writes, "_commit"),
        (writes, "was_committed"),
        (notes, "set_aside"),
    ]
    kept = [(of, name, getattr(of, name)) for of, name in guards]
    try:
        for guard in filter(None, broken.split(" + ")):
            match guard:
                case "marker first":
                    writes._advance = _marker_first
                case "marker last":
                    writes._advance = _marker_not_yet
                    writes._commit = _marker_last
                case "done early":
                    writes._advance = _done_early
                case "sets nothing aside":
                    notes.set_aside = _sets_nothing_aside
                case "never asks":
                    writes.was_committed = _never_asks
                case "no fence":
                    vars(session)["load"] = without("and fence = %(fence)s")
                case "no batch":
                    vars(session)["load"] = without("and batch = %(batch)s - 1")
                case other:
                    raise ValueError(f"no such twin: {other}")
        yield
    finally:
        vars(session)["load"] = load
        for of, name, guard in kept:
            setattr(of, name, guard)


def without(guard: str) -> Any:
    """The loader of statements that leaves out a guard of advance_marker.sql."""

    def loaded(dialect: str, name: str) -> str:
        text = load(dialect, name)
        if name != "advance_marker":
            return text
        if guard not in text:
            raise AssertionError(f"{guard!r} is not in advance_marker.sql")
        return text.replace(guard, "")

    return loaded


_advance = Transactions._advance


def _marker_first(self: Transactions, marker: Marker) -> None:
    _advance(self, marker)
    self._session.run(b"COMMIT")
    self._session.run(b"BEGIN")


def _marker_not_yet(self: Transactions, marker: Marker) -> None:
    pass


def _done_early(self: Transactions, marker: Marker) -> None:
    _advance(self, replace(marker, phase=Phase.DONE))


def _sets_nothing_aside(
    self: Notes, unit: WorkUnit, rows: Sequence[QuarantinedRow], at: Position
) -> None:
    pass


def _never_asks(self: Transactions, batch: ChangeBatch | None, marker: Marker) -> bool:
    return False


def _marker_last(self: Transactions, batch: ChangeBatch | None, marker: Marker) -> None:
    self._session.run(b"COMMIT")
    faults.hit("between")
    self._session.run(b"BEGIN")
    _advance(self, marker)
    self._session.run(b"COMMIT")


def main() -> None:
    ended = "done"
    try:
        run(Order(**json.loads(sys.argv[1])))
    except WarpError as error:
        ended = type(error).__name__
    print(json.dumps({"ended": ended}))  # noqa: T201 - its answer to the test


if __name__ == "__main__":
    main()
