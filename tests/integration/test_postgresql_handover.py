"""Snapshot and stream at once, at random: the destination ends equal to the source, row for row.

Broken twins take away one half of the protocol each, and the same trials must then find a
difference.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from postgresql_world import (
    CREATE,
    DELETE,
    ORDERS,
    READ,
    TRUNCATE,
    UPDATE,
    Event,
    Unit,
    World,
)

from warp.destinations.postgresql import merge
from warp.destinations.postgresql.staging import Staging
from warp.destinations.sql.landing import TableState
from warp.errors import DestinationUnavailable
from warp.model import ABSENT, Chunk, Phase, WorkUnit

KEYS = 40
TRANSACTIONS = 120

State = dict[int, str]


@pytest.fixture
def world(pg_warehouse: str) -> Iterator[World]:
    world = World(pg_warehouse)
    yield world
    world.close()


def history(chance: random.Random) -> tuple[list[list[Event]], list[State]]:
    """Transactions of events, each of one version, and the source's rows after each of them."""
    rows: State = {key: "start" for key in range(KEYS) if chance.random() < 0.8}
    states = [dict(rows)]
    log: list[list[Event]] = []
    for version in range(1, TRANSACTIONS):
        events: list[Event] = []
        key = chance.randrange(KEYS)
        for _ in range(chance.choice([1, 1, 1, 4])):
            if chance.random() < 0.5:  # else: the same key again, with the same version
                key = chance.randrange(KEYS)
            value = f"{version}.{len(events)}"
            if chance.random() < 0.01:
                rows.clear()
                events.append((TRUNCATE, version, ABSENT))
            elif chance.random() < 0.35:
                rows.pop(key, None)
                events.append((DELETE, version, key))
            else:
                events.append((UPDATE if key in rows else CREATE, version, key, value))
                rows[key] = value
        log.append(events)
        states.append(dict(rows))
    return log, states


def deliver(unit: Unit, token: str, events: Sequence[Event], phase: Phase) -> None:
    """As a worker does: what may pass is tried again, from the marker."""
    while True:
        try:
            unit.write(token, *events, phase=phase)
            return
        except DestinationUnavailable:
            continue


class Progress:
    """How many events the stream has applied; chunks that come late wait for it."""

    def __init__(self) -> None:
        self.reached = 0
        self.changed = threading.Condition()

    def reach(self, count: int) -> None:
        with self.changed:
            self.reached = max(self.reached, count)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.reached >= count)


def trial(world: World, seed: int) -> tuple[State, State]:
    """(source, destination) after a run in which every part came late, twice or at once."""
    chance = random.Random(seed)
    world.looking.execute("drop schema if exists shop cascade")
    world.looking.execute("drop schema if exists cartridge_warp_metadata cascade")
    log, states = history(chance)
    stream = world.unit()
    stream.create()
    cuts = sorted(chance.sample(range(1, KEYS), 4))
    edges = [0, *cuts, KEYS]
    chunks = [Chunk(ORDERS, n) for n in range(len(cuts) + 1)]
    assert stream.destination.metadata().plan_snapshot("shop", ORDERS, chunks, version=0)
    failures: list[BaseException] = []

    events = [event for transaction in log for event in transaction]
    progress = Progress()

    def follow() -> None:
        at = 0
        try:
            while at < len(events):  # cuts transactions in two, as large ones are
                stop = at + stream_chance.randrange(1, 12)
                if stream_chance.random() < 0.1:  # a crash after the write: the same once more
                    deliver(stream, f"again {at}", events[at:stop], Phase.STREAMING)
                deliver(stream, str(at), events[at:stop], Phase.STREAMING)
                at = stop
                progress.reach(at)
        finally:
            progress.reach(len(events))

    def read(chunk: Chunk) -> None:
        mine = random.Random(seed * 100 + chunk.number)
        version = mine.randrange(len(states))
        rows = states[version]
        found = [
            (READ, version, key, rows[key])
            for key in range(edges[chunk.number], edges[chunk.number + 1])
            if key in rows
        ]
        unit = world.unit(WorkUnit.of_chunk("shop", chunk, 0))
        progress.wait(mine.randrange(len(events)))
        deliver(unit, "half", found[: len(found) // 2], Phase.SNAPSHOT)
        progress.wait(mine.choice([0, len(events) // 2, len(events)]))
        deliver(unit, "done", found, Phase.DONE)

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - the top of a thread
            failures.append(error)

    stream_chance = random.Random(seed + 1)
    threads = [threading.Thread(target=guarded, args=(follow,))]
    threads += [threading.Thread(target=guarded, args=(read, chunk)) for chunk in chunks]
    chance.shuffle(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert stream.destination.metadata().settle("shop", ORDERS)
    assert world.ask("select count(*) from shop.orders where _cw_deleted") == [(0,)]
    found = dict(world.rows())
    for destination in world.made:
        destination.close()
    world.made.clear()
    return states[-1], found


def differs(world: World, trials: int) -> bool:
    """Is there a trial among these whose two ends differ?"""
    return any(source != found for source, found in (trial(world, n) for n in range(trials)))


@pytest.mark.holds(guarantee=(5, 8), source="none", destination="postgresql", fault="hand-over")
def test_snapshot_and_stream_meet_without_a_difference(world: World) -> None:
    assert not differs(world, 8)


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_snapshot_and_stream_meet_without_a_difference_a_thousand_times(world: World) -> None:
    assert not differs(world, 1_000)


def test_with_a_strict_guard_changes_of_one_transaction_are_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert = merge.upsert

    def strict(landing: merge.Landing, **how: Any) -> list[bytes]:
        return [s.replace(b'_cw_version" <= ', b'_cw_version" < ') for s in upsert(landing, **how)]

    monkeypatch.setattr(merge, "upsert", strict)
    assert differs(world, 40)


def test_without_a_guard_on_reads_late_chunks_overwrite(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert = merge.upsert

    def open_(landing: merge.Landing, **how: Any) -> list[bytes]:
        return [s.partition(b" where d.")[0] for s in upsert(landing, **how)]

    monkeypatch.setattr(merge, "upsert", open_)
    assert differs(world, 40)


def test_without_tombstones_late_chunks_bring_deleted_rows_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = merge.delete

    def plain(landing: merge.Landing, **how: Any) -> list[bytes]:
        return delete(landing, **how | {"settled": True})

    monkeypatch.setattr(merge, "delete", plain)
    assert differs(world, 40)


def test_without_the_version_of_the_truncation_late_chunks_bring_its_rows_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    land = Staging.merge

    def forgetful(self: Any, part: Any, landing: Any, state: TableState) -> None:
        land(self, part, landing, replace(state, truncated_at=-1))

    monkeypatch.setattr(Staging, "merge", forgetful)
    assert differs(world, 40)
