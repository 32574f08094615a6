"""The steps of `lease_model.py`, taken with the ledger's scripts on a real Redis and with a real
destination, by the code that workers run.

What is real: the scripts, the statements, `RedisLeaseStore`, the connector, `adopt` of the worker.
What is not: the ledger's clock.  The one line of the scripts that reads TIME reads a key
instead, so that a tick of the model is a second of the ledger and the fences of both are the same
numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple
from unittest import mock

import redis
from lease_destinations import STREAM, Place, Rows
from lease_guards import Edit
from lease_model import TTL, Clock, Lease, Protocol, State, Step, Stored, Worker

import warp.leases.redis as ledger
from warp import faults
from warp import sql as statements
from warp.errors import DestinationUnavailable, FenceBehind, LeaseLost
from warp.leases.redis import RedisLeaseStore
from warp.model import (
    ABSENT,
    ChangeBatch,
    Marker,
    Operation,
    Phase,
    Position,
    TableChanges,
)
from warp.model import Lease as RealLease
from workers.hold import Held
from workers.worker import adopt

BEGAN: Final = 1_795_000_000  # seconds; any plausible now
CLOCK: Final = Clock(began=BEGAN * 1_000_000, per_tick=1_000_000)
NAMES: Final = ("A", "B")
_READS_TIME: Final = (
    "local time = redis.call('TIME')\n  return tonumber(time[1]) * 1000000 + tonumber(time[2])"
)


class Seen(NamedTuple):
    """What the model and the real servers can both show."""

    known: bool
    lease: Lease | None
    issued: int
    marker: Stored
    rows: Rows
    workers: tuple[Worker, ...]


class Differs(AssertionError):
    """The code did not do what the model says."""


# ---------------------------------------------------------------- the broken twins


def _replaced(text: str, line: str, instead: str) -> str:
    assert text.count(line) == 1, f"expected once: {line!r}"
    return text.replace(line, instead)


@contextlib.contextmanager
def scripts(clock: str, place: type[Place], edits: Sequence[Edit] = ()) -> Iterator[None]:
    """The ledger's scripts read the time from this key, and all lacks what `edits` take out."""
    real_script, real_load = ledger._script, statements.load
    tried: list[Marker] = []

    @cache
    def script(name: str) -> tuple[str, str]:
        _, text = real_script(name)
        text = _replaced(text, _READS_TIME, f"return tonumber(redis.call('GET', '{clock}'))")
        for edit in edits:
            if (edit.where, edit.name) == ("lua", name):
                text = _replaced(text, edit.line, edit.instead)
        return hashlib.sha1(text.encode()).hexdigest(), text

    def load(dialect: str, name: str) -> str:
        text = real_load(dialect, name)
        for edit in edits:
            if (edit.where, edit.name) == ("sql", name):
                text = _replaced(text, edit.line, edit.instead)
        return text

    def guess(self: object, batch: ChangeBatch | None, marker: Marker) -> bool:
        """Whatever was tried before went through."""
        again = marker in tried
        tried.append(marker)
        return again

    with contextlib.ExitStack() as changed:
        changed.enter_context(mock.patch.object(ledger, "_script", script))
        changed.enter_context(mock.patch.object(place.session_module, "load", load))
        if any(edit.where == "python" for edit in edits):
            changed.enter_context(mock.patch.object(place.transactions, "was_committed", guess))
        yield


# ---------------------------------------------------------------- one worker


class _TriedOnce(Exception):
    """`adopt` goes on with a higher fence; the model takes that for a step of its own."""


@dataclass
class _OneTry:
    """A destination that is opened once: what happens between two tries is up to the trace."""

    destination: Any
    tried: bool = False

    def open(self, lease: RealLease) -> Marker:
        if self.tried:
            raise _TriedOnce
        self.tried = True
        marker: Marker = self.destination.open(lease)
        return marker


class _ReachedCommit(Exception):
    """A write that would go through; it is taken back."""


@dataclass
class RealWorker:
    """What one worker process has in its hands."""

    name: str
    destination: Any
    phase: Any = "idle"
    held: Held | None = None
    marker: Marker | None = None
    unsure: tuple[ChangeBatch, Marker] | None = None

    @property
    def lease(self) -> RealLease:
        assert self.held is not None
        return self.held.lease

    def drop(self) -> None:
        self.phase, self.held, self.marker, self.unsure = "idle", None, None, None

    def seen(self) -> Worker:
        if self.held is None:
            return Worker()
        if self.marker is None:
            return Worker(self.phase, self.lease.fence)
        of = self.marker
        return Worker(self.phase, of.fence, of.batch, _number(of.position), of.epoch)


def _number(position: Position | None) -> int:
    return int(position.token) if position else 0


# ---------------------------------------------------------------- all of it


@dataclass
class RealThings:
    """One unit, two workers, their ledger and their destination; `start` makes all anew."""

    place: Place
    client: redis.Redis
    namespace: str
    workers: list[RealWorker] = field(default_factory=list)
    operator: Any = None

    def __post_init__(self) -> None:
        self.clock_key = f"clock of {self.namespace}"
        # A hold of any length lets failures count anew: the model knows no back-off.
        self.ledger = RedisLeaseStore(
            self.client, self.namespace, lease_ttl=float(TTL), healthy_after=0.0
        )

    def start(self) -> None:
        self.stop()
        self.operator = self.place.connector()
        self.workers = [RealWorker(name, self.place.connector()) for name in NAMES]
        self._flushall()
        self.clock = 0
        self._set_clock(0)
        self.place.empty()

    def stop(self) -> None:
        for worker in self.workers:
            worker.destination.close()
        if self.operator is not None:
            self.operator.close()

    def take(self, step: Step) -> str:
        """Take a step; what was said."""
        if step.worker is not None:
            act = _ACTS[step.name]
            return act(self, self.workers[step.worker])
        match step.name:
            case "tick":
                self._set_clock(self.clock + 1)
            case "set_clock_back":
                self._set_clock(self.clock - 1)
            case "flushall":
                self._flushall()
            case "ensure":
                assert self.ledger.ensure([STREAM]) == 1
            case "resync":
                self.operator.metadata().resync("shop", None, position=Position("0"))
            case _:
                raise AssertionError(f"expected a step of the model, found {step}")
        return ""

    def seen(self) -> Seen:
        keys = dict(zip(ledger.KEYS, self.ledger.keys, strict=True))
        with self.client.pipeline(transaction=False) as asked:
            for key in ("due", "later", "dead", "exp"):
                asked.zscore(keys[key], STREAM.id)
            for key in ("own", "fence"):
                asked.hget(keys[key], STREAM.id)
            due, later, dead, expiry, owner, issued = asked.execute()
        assert (later, dead) == (None, None), "the model knows neither back-off nor dead units"
        fence = int(issued or 0)
        lease = None
        if expiry is not None:
            lease = Lease(NAMES.index(owner.decode()), round(expiry / 1000) - BEGAN, fence)
        stored, rows = self.place.stored()
        return Seen(
            known=due is not None or lease is not None,
            lease=lease,
            issued=fence,
            marker=stored,
            rows=rows,
            workers=tuple(worker.seen() for worker in self.workers),
        )

    # -- the world

    def _set_clock(self, ticks: int) -> None:
        self.clock = ticks
        self.client.set(self.clock_key, CLOCK.fence(ticks))

    def _flushall(self) -> None:
        """As far as the ledger can see; the server has other users."""
        self.client.delete(*self.ledger.keys)

    # -- the ledger

    def _claim(self, worker: RealWorker) -> str:
        leases = self.ledger.claim(worker.name, 1, ttl=float(TTL), slots=1)
        if not leases:
            return "nothing"
        [lease] = leases
        # No worker looks at its deadline: the clock of this one stands still.
        worker.held = Held(lease, ttl=float(TTL), asked_at=0.0, clock=lambda: 0.0)
        worker.phase = "claimed"
        return "claimed"

    def _renew(self, worker: RealWorker) -> str:
        _, [kept] = self.ledger.renew(worker.name, [worker.lease], ttl=float(TTL), slots=1)
        if not kept:
            worker.drop()
        return "renewed" if kept else "lost"

    def _release(self, worker: RealWorker) -> str:
        released = self.ledger.release(worker.lease)
        worker.drop()
        return "released" if released else "too late"

    def _crash(self, worker: RealWorker) -> str:
        worker.drop()
        worker.destination.close()
        worker.destination = self.place.connector()
        return ""

    # -- the destination

    def _open(self, worker: RealWorker) -> str:
        assert worker.held is not None
        once: Any = _OneTry(worker.destination)
        try:
            worker.marker = adopt(once, worker.held, self.ledger)
        except _TriedOnce:
            return "behind, refenced"
        except LeaseLost:
            worker.drop()
            return "behind, lost"
        worker.phase = "held"
        return "opened"

    def _next(self, worker: RealWorker) -> tuple[ChangeBatch, Marker]:
        """One row that tells which batch it came with, and by whom."""
        assert worker.marker is not None
        number = worker.marker.batch + 1
        cells: list[list[Any]] = [[number], [str(worker.marker.fence)], [ABSENT]]
        changes = TableChanges(
            self.place.schema.table,
            bytearray([Operation.CREATE]),
            [number],
            self.place.schema,
            cells,
        )
        end = Position(str(_number(worker.marker.position) + 1))
        batch = ChangeBatch([changes], end)
        return batch, worker.marker.advanced(batch, phase=Phase.STREAMING)

    def _write_batch(self, worker: RealWorker) -> str:
        return self._deliver(worker, self._next(worker))

    def _deliver(self, worker: RealWorker, write: tuple[ChangeBatch, Marker]) -> str:
        try:
            worker.destination.write_batch(*write)
        except FenceBehind:
            worker.drop()
            return "refused"
        except DestinationUnavailable:
            worker.phase, worker.unsure = "unsure", write
            return ""
        worker.marker = write[1]
        return "landed"

    def _request_lost(self, worker: RealWorker) -> str:
        with self._cut(worker, at="before_marker"):
            return self._write_batch(worker)

    def _commit_lost(self, worker: RealWorker) -> str:
        with self._cut(worker, at="before_commit", commits=False):
            return self._write_batch(worker)

    def _answer_lost(self, worker: RealWorker) -> str:
        with self._cut(worker, at="before_commit", commits=True):
            return self._write_batch(worker)

    def _read_marker(self, worker: RealWorker) -> str:
        """As the pipeline does it: the same batch once more, of which only the question is kept."""
        assert worker.unsure is not None

        def stop(point: str) -> None:
            if point == "before_commit":
                raise _ReachedCommit

        with mock.patch.object(faults, "hit", stop):
            try:
                said = self._deliver(worker, worker.unsure)
            except _ReachedCommit:
                worker.phase, worker.unsure = "held", None
                return "not committed"
        if said == "refused":
            return "lost"
        assert said == "landed"
        worker.phase, worker.unsure = "held", None
        return "committed"

    @contextlib.contextmanager
    def _cut(self, worker: RealWorker, *, at: str, commits: bool = False) -> Iterator[None]:
        """The connection breaks at this point of the next write, and there is none for a while.

        At `before_commit` the COMMIT itself is what gets lost: on its way there, or its answer.
        """
        ours = worker.destination._session
        run = ours.run

        def refuse() -> Any:
            raise DestinationUnavailable("there is no way to the server")

        def lose() -> None:
            ours.close()
            raise self.place.lost_connection()

        def until_commit(statement: Any, *arguments: Any, **options: Any) -> Any:
            if statement != self.place.commit:
                return run(statement, *arguments, **options)
            if commits:
                run(statement, *arguments, **options)
            return lose()

        def hit(point: str) -> None:
            if point != at:
                return
            broken.enter_context(mock.patch.object(ours, "_connect", refuse))
            if at == "before_commit":
                broken.enter_context(mock.patch.object(ours, "run", until_commit))
            else:
                lose()

        with contextlib.ExitStack() as broken, mock.patch.object(faults, "hit", hit):
            yield


_ACTS: Final = {
    "claim": RealThings._claim,
    "renew": RealThings._renew,
    "release": RealThings._release,
    "open": RealThings._open,
    "write_batch": RealThings._write_batch,
    "write_batch, answer lost": RealThings._answer_lost,
    "write_batch, request lost": RealThings._request_lost,
    "write_batch, COMMIT lost": RealThings._commit_lost,
    "read_marker": RealThings._read_marker,
    "crash": RealThings._crash,
}


# ---------------------------------------------------------------- beside the model


@dataclass
class Replay:
    """A trace, taken by the model and by the real things at once."""

    real: RealThings
    protocol: Protocol
    state: State = field(default_factory=State)
    rows: dict[int, int] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)

    def take(self, step: Step) -> str:
        """What both said.  Raises Differs where they disagree, in words or in what is left."""
        before = self.state
        told, self.state = self.protocol.after(before, step)
        self.taken.append(str(step))
        if told == "landed" and step.worker is not None:
            worker = before.workers[step.worker]
            self.rows[worker.batch + 1] = worker.fence
        # Whose answer got lost does not hear that its batch has landed.
        expected = "" if step.name == "write_batch, answer lost" and told == "landed" else told
        found = self.real.take(step)
        if (found, seen := self.real.seen()) != (expected, shown := self.shown()):
            raise Differs(
                f"after {', '.join(self.taken)}\nthe model says {expected!r}, {shown}\n"
                f"the servers   {found!r}, {seen}"
            )
        return told

    def shown(self) -> Seen:
        state = self.state
        return Seen(
            known=state.known,
            lease=state.lease,
            issued=state.issued,
            marker=state.marker,
            rows=tuple(sorted(self.rows.items())),
            workers=state.workers,
        )
