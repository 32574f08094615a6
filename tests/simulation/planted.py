"""Bugs planted in the real code, each of which the simulation must find.

A bug is a line of the product, and what a tired person might have written there instead.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import edges
import pytest
from faults import Fault, Planned
from world import FAULTY

import warp.leases.redis as redis_ledger
from coordinator import planner
from coordinator.reconciler import Reconciler
from warp import evolve, pipeline, replays
from warp.errors import DestinationUnavailable
from warp.testing.memory import MemoryDestination, MemoryMetadata
from workers.hold import Heartbeat, Held, Holds
from workers.worker import Turn, Worker


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a function, and what stands there instead."""

    owner: Any  # a class or a module
    function: str
    line: str
    instead: str


@dataclass(frozen=True, slots=True)
class Script:
    """A line of a ledger script, likewise."""

    name: str
    line: str
    instead: str


@dataclass(frozen=True, slots=True)
class Bug:
    lines: tuple[Line | Script, ...]
    planned: tuple[Planned, ...] | None = None  # what brings it out soon; None: as drawn
    first: int = 0  # the seed to begin with: one that has found it

    @property
    def faulty(self) -> float:
        return FAULTY if self.planned is None else 10.0


def plant(bug: Bug, patch: pytest.MonkeyPatch) -> None:
    for one in bug.lines:
        if isinstance(one, Script):
            _plant_script(one, patch)
        else:
            _plant_line(one, patch)


def _plant_line(one: Line, patch: pytest.MonkeyPatch) -> None:
    function = inspect.getattr_static(one.owner, one.function)
    text = textwrap.dedent(inspect.getsource(function))
    assert one.line in text, f"the line of a planted bug is gone from {one.function}: {one.line}"
    names = dict(function.__globals__) | {"DestinationUnavailable": DestinationUnavailable}
    changed = text.replace(one.line, one.instead, 1)
    exec(compile(f"from __future__ import annotations\n{changed}", "planted", "exec"), names)
    patch.setattr(one.owner, one.function, names[one.function])


def _plant_script(one: Script, patch: pytest.MonkeyPatch) -> None:
    read = redis_ledger._read

    def changed(name: str) -> str:
        text = read(name)
        if name != one.name:
            return text
        assert one.line in text, f"the line of a planted bug is gone from {name}.lua: {one.line}"
        return text.replace(one.line, one.instead, 1)

    patch.setattr(redis_ledger, "_read", changed)


def often(
    fault: Fault, call: str = "", *, seconds: float = 0.0, schema: str = ""
) -> tuple[Planned, ...]:
    """The same fault once a second."""
    times = [0.5 + n for n in range(8)]
    return tuple(Planned(at, fault, call=call, seconds=seconds, schema=schema) for at in times)


PAUSED: Final = 6.0  # seconds: longer than a lease
NOTHING: Final = ()
# Who reads a table is paused with rows in hand, while others follow its changes.
LATE_CHUNKS: Final = often(Fault.FREEZE_BEFORE, "destination.write_chunk", seconds=2.0) * 2
# Tables are read anew besides, again and again.
SNAPSHOTS: Final = (
    *often(Fault.RESYNC, schema="shop"),
    *LATE_CHUNKS,
)
FROZEN_WRITERS: Final = often(Fault.FREEZE_BEFORE, "destination.write_batch", seconds=PAUSED)

# The rows come in a transaction of their own, after that of the marker.
_MARKER_FIRST: Final = Line(
    edges.DestinationConnection,
    "write_batch",
    'return self._transaction(f"write_{kind}", marker, batch, more)',
    """from warp.model import Written
    checks, before = self._network.world.checks, {}
    def first():
        before.update(self._network.world.warehouse.markers)
        self._inner.update_marker(marker)
        aside = more.get("quarantined", ())
        checks.wrote(marker, before, batch, aside, looked_up=False)
    def then():
        for part in batch.changes:
            self._inner._write(part, marker.unit, {})
        return Written({})
    self._network.call("destination.write_batch", first)
    return self._network.call("destination.rows", then)""",
)

BUGS: Final[Mapping[str, Bug]] = {
    # ---------------------------------------------------------------- the marker protocol
    "a write does not check the fence": Bug(
        (Line(MemoryDestination, "_advance", "or stored.fence != marker.fence", ""),),
        FROZEN_WRITERS,
    ),
    "a write does not check the batch before it, and is tried again blindly": Bug(
        (
            Line(MemoryDestination, "_advance", "or stored.batch + 1 != marker.batch", ""),
            Line(
                pipeline.Delivery,
                "write",
                "except SchemaMoved:",
                "except (SchemaMoved, DestinationUnavailable):",
            ),
        ),
        often(Fault.LOST_REPLY, "destination.write_batch"),
    ),
    "a unit is opened under an older fence": Bug(
        (Line(MemoryDestination, "open", "marker.fence >= lease.fence", "False"),),
        often(Fault.FREEZE_BEFORE, "destination.open", seconds=PAUSED) + FROZEN_WRITERS,
    ),
    "opening does not raise the fence": Bug(
        (
            Line(
                MemoryDestination,
                "open",
                "fence=lease.fence, owner=lease.owner",
                "owner=lease.owner",
            ),
        ),
        NOTHING,
    ),
    "the marker commits before the rows": Bug(
        (_MARKER_FIRST,), often(Fault.CRASH_AFTER, "destination.write_batch")
    ),
    "a resync leaves the fence": Bug(
        (Line(MemoryMetadata, "resync", "fence=marker.fence + 1,", ""),), SNAPSHOTS
    ),
    # ---------------------------------------------------------------- snapshot and stream
    "a change of the version of the row is passed by": Bug(
        (
            Line(
                MemoryDestination,
                "_write",
                "elif old is not None and old.version > version:",
                "elif old is not None and old.version >= version:",
            ),
        ),
        NOTHING,
    ),
    "a chunk's row lands on a newer one": Bug(
        (
            Line(
                MemoryDestination,
                "_write",
                "if version <= truncated_at or (old is not None and old.version >= version):",
                "if version <= truncated_at:",
            ),
        ),
        LATE_CHUNKS,
    ),
    "a chunk's row lands after it was truncated away": Bug(
        (
            Line(
                MemoryDestination,
                "_write",
                "if version <= truncated_at or (old is not None and old.version >= version):",
                "if old is not None and old.version >= version:",
            ),
        ),
        LATE_CHUNKS + often(Fault.TRUNCATE)[1:5],
    ),
    "a delete leaves no tombstone": Bug(
        (Line(MemoryDestination, "_write", "elif settled:", "elif True:"),), LATE_CHUNKS
    ),
    "a table is settled before its chunks are done": Bug(
        (
            Line(
                MemoryMetadata,
                "settle",
                "if any(m.phase != Phase.DONE for m in chunks if m.epoch == state.epoch):",
                "if False:",
            ),
            Line(planner, "_settle_tables", "is Phase.SNAPSHOT and", "is Phase.SNAPSHOT and 1 or"),
        ),
        LATE_CHUNKS,
    ),
    "a chunk is done with its first batch": Bug(
        (
            Line(
                pipeline,
                "snapshot",
                "delivery.write(marker, waiting, Phase.SNAPSHOT)",
                "delivery.write(marker, waiting, Phase.DONE)",
            ),
        ),
        often(Fault.CRASH_AFTER, "destination.write_chunk") + SNAPSHOTS,
    ),
    "the stream's place is stored after the snapshot": Bug(
        (
            Line(
                planner,
                "plan",
                "return [StartStream(stream, view.follows)]",
                "early = [*_plan_tables(view, view.tables or (), markers),"
                " *_settle_tables(view, markers)]\n"
                "            units = tuple(_units(view, markers))\n"
                "            if early or units:\n"
                "                return [*early, Ensure(units)]\n"
                "            return [StartStream(stream, view.follows)]",
            ),
        ),
        NOTHING,
    ),
    "polling goes on from after the snapshot": Bug(
        (
            Line(
                planner,
                "_plan_tables",
                "and table not in markers.polls:",
                "and table not in markers.polls and getattr(markers.tables.get(table),"
                " 'phase', None) is Phase.STREAMING:",
            ),
        ),
        NOTHING,
    ),
    # ---------------------------------------------------------------- the pipeline
    "the source is told to forget before the marker is durable": Bug(
        (
            Line(
                pipeline,
                "stream",
                "busy = len(batch) > 0 or bool(batch.reload)",
                "busy = len(batch) > 0 or bool(batch.reload); source.acknowledge(batch.end)",
            ),
        ),
        NOTHING,
    ),
    "a cell that was not sent becomes NULL": Bug(
        (Line(MemoryDestination, "_write", "base.get(n) if v is UNCHANGED else", ""),), NOTHING
    ),
    "a part of a row that is not there is not looked up": Bug(
        (Line(pipeline.Delivery, "write", "if not whole and any(", "if 0 and any("),),
        LATE_CHUNKS,
        first=24,
    ),
    "a row that cannot land is dropped": Bug(
        (Line(evolve, "_settle", "sorted(found.refused.items())", "()"),), NOTHING
    ),
    "the quarantine is not written": Bug(
        (Line(MemoryDestination, "write_batch", "for row in quarantined:", "for row in ():"),),
        NOTHING,
    ),
    # ---------------------------------------------------------------- holds
    "a hold has no deadline": Bug(
        (Line(Held, "check", "if now > self._deadline:", "if False:"),),
        often(Fault.FREEZE_AFTER, "source.read", seconds=PAUSED),
    ),
    "a renewal counts from its answer": Bug(
        (Line(Heartbeat, "beat", "held.renewed(asked_at)", "held.renewed(self._clock())"),),
        often(Fault.FREEZE_AFTER, "ledger.renew", seconds=PAUSED),
    ),
    "a claim counts from its answer": Bug(
        (
            Line(
                Worker,
                "_claim_until_drained",
                "self._begin(lease, asked_at)",
                "self._begin(lease, self._clock())",
            ),
        ),
        often(Fault.FREEZE_AFTER, "ledger.claim", seconds=3.0)
        + often(Fault.LOST_REQUEST, "ledger.renew") * 4,
    ),
    # ---------------------------------------------------------------- the ledger
    "a claim leaves the unit in due": Bug(
        (Script("claim", "redis.call('ZREM', DUE, unpack(units))", ""),), NOTHING
    ),
    "anyone releases": Bug(
        (Script("release", "if not holds(worker, unit, fence) then return 0 end", ""),),
        often(Fault.FREEZE_BEFORE, "ledger.release", seconds=PAUSED),
    ),
    "a renewal lasts for half of what it should": Bug(
        (Script("renew", "{}, now + ttl", "{}, now + ttl / 2"),),
        often(Fault.SLOW, "ledger.renew", seconds=1.4) * 3,
    ),
    "a row made anew by the transaction that deletes it is given up": Bug(
        (
            Line(
                replays,
                "overruled",
                "(cell or operation is Operation.READ) and have == version",
                "have == version",
            ),
        ),
        None,
        first=25096,
    ),
    "a pause that arrives late stops what was resumed since": Bug(
        (
            Line(
                MemoryMetadata,
                "mark",
                "if marker is None or (seen is not None and marker.fence > seen):",
                "if marker is None:",
            ),
        ),
        None,
        first=22573,
    ),
    "a process holds a unit twice": Bug(
        (Line(Holds, "add", "earlier.lose()", "pass"),), None, first=20578
    ),
    "a part of a row lands between a resync and its chunks": Bug(
        (
            Line(
                MemoryDestination,
                "missing",
                "state.stale_below if state else -1",
                "state.sweep_below if state and state.phase is Phase.SNAPSHOT else -1",
            ),
        ),
        None,
        first=20117,
    ),
    # ---------------------------------------------------------------- the coordinator
    "a wiped ledger is not built anew": Bug(
        (
            Line(
                Reconciler,
                "_do",
                "offered = self._ledger.ensure(units)",
                "known = self.__dict__.setdefault('_known', set())\n"
                "            offered = 0 if units in known else self._ledger.ensure(units)\n"
                "            known.add(units)",
            ),
        ),
        often(Fault.WIPE),
    ),
    "a slot is run again": Bug(
        (
            Line(
                Turn,
                "_slot_to_run",
                "return None if metadata.slot_taken(self._unit.id, slot) else slot",
                "return slot",
            ),
        ),
        None,
    ),
}
