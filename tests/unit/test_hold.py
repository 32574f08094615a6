"""A lease in a worker's hand, on clocks that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from warp.errors import LeaseLost, LedgerUnavailable
from warp.leases.memory import MemoryLeaseStore
from warp.model import Lease, TableId, UnitKind, WorkUnit
from workers.hold import Heartbeat, Held, Holds, to_shed

TTL = 10.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Ledger(MemoryLeaseStore):
    """One that can be away, and that may ask for units back."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.away = False
        self.to_shed = 0
        self.calls: list[int] = []

    def renew(
        self, worker: str, leases: object, *, ttl: float, slots: int, memory: int = 0
    ) -> tuple[int, list[bool]]:
        if self.away:
            raise LedgerUnavailable("away")
        assert isinstance(leases, list)
        self.calls.append(len(leases))
        shed, kept = super().renew(worker, leases, ttl=ttl, slots=slots, memory=memory)
        return self.to_shed or shed, kept


@dataclass
class Process:
    """A worker's ledger, leases and heartbeat, without its threads."""

    clock: Clock
    ledger: Ledger
    holds: Holds
    heartbeat: Heartbeat

    def claim(self, *units: WorkUnit) -> list[Held]:
        self.ledger.ensure(units)
        leases = {
            lease.unit.id: lease
            for lease in self.ledger.claim("w1", len(units), ttl=TTL, slots=100)
        }
        claimed = [
            Held(leases[unit.id], ttl=TTL, asked_at=self.clock(), clock=self.clock)
            for unit in units
        ]
        for held in claimed:
            self.holds.add(held)
        return claimed


@pytest.fixture
def process() -> Process:
    clock = Clock()
    ledger = Ledger(clock)
    holds = Holds()
    return Process(
        clock,
        ledger,
        holds,
        Heartbeat(ledger, "w1", holds, ttl=TTL, slots=100, quantum=2.0, clock=clock),
    )


def stream(name: str = "shop") -> WorkUnit:
    return WorkUnit.stream(name)


def is_alive(held: Held) -> bool:
    try:
        held.check()
    except LeaseLost:
        return False
    return True


def test_a_lease_may_be_used_until_eight_tenths_of_its_time(process: Process) -> None:
    (held,) = process.claim(stream())
    process.clock.now += 7.9
    assert is_alive(held)
    process.clock.now += 0.2
    assert not is_alive(held)


def test_the_deadline_counts_from_before_the_request_was_sent() -> None:
    clock = Clock()
    asked_at = clock()
    clock.now += 5  # the answer took its time
    held = Held(Lease(stream(), "w1", 1), ttl=TTL, asked_at=asked_at, clock=clock)
    clock.now += 3.1
    assert not is_alive(held)


def test_a_renewed_lease_lives_on(process: Process) -> None:
    (held,) = process.claim(stream())
    for _ in range(10):
        process.clock.now += 4
        assert process.heartbeat.beat()
        assert is_alive(held)


def test_a_lease_the_ledger_gave_away_is_lost_at_once(process: Process) -> None:
    (held,) = process.claim(stream())
    process.ledger.wipe()
    process.heartbeat.beat()
    assert not is_alive(held)
    assert held.stopping()


def test_while_the_ledger_is_away_units_go_on_until_their_deadline_and_then_stop(
    process: Process,
) -> None:
    (held,) = process.claim(stream())
    process.ledger.away = True
    process.clock.now += 7
    assert not process.heartbeat.beat()
    assert is_alive(held)
    process.clock.now += 2
    assert not process.heartbeat.beat()
    assert not is_alive(held)


def test_a_short_outage_costs_no_lease(process: Process) -> None:
    (held,) = process.claim(stream())
    process.ledger.away = True
    process.clock.now += 7
    process.heartbeat.beat()
    process.ledger.away = False
    assert process.heartbeat.beat()
    process.clock.now += 7
    assert is_alive(held)


def test_a_unit_without_progress_is_left_to_expire_and_the_others_are_not(
    process: Process,
) -> None:
    stuck, moving = process.claim(stream("stuck"), stream("moving"))
    for _ in range(20):
        process.clock.now += 4
        process.heartbeat.beat()
        if moving.alive():
            moving.check()
    assert not stuck.alive()
    assert moving.alive()
    assert [lease.unit.id for lease in process.ledger.claim("w2", 9, ttl=TTL, slots=9)] == [
        "stream:stuck"
    ]


def test_a_unit_that_moves_again_is_renewed_again(process: Process) -> None:
    (held,) = process.claim(stream())
    for _ in range(14):
        process.clock.now += 4
        process.heartbeat.beat()
    held.check()
    process.clock.now += 4
    process.heartbeat.beat()
    assert held.alive()


def test_a_refence_during_a_renewal_does_not_lose_the_lease(process: Process) -> None:
    (held,) = process.claim(stream())
    old = held.lease
    new = old.refenced(old.fence + 10)

    class Slow(Ledger):
        def renew(
            self, worker: str, leases: object, *, ttl: float, slots: int, memory: int = 0
        ) -> tuple[int, list[bool]]:
            held.refenced(new)  # while the request with the old fence is on its way
            return 0, [False]

    slow = Slow(process.clock)
    Heartbeat(slow, "w1", process.holds, ttl=TTL, slots=1, clock=process.clock).beat()
    assert held.alive()


def test_at_most_250_leases_are_renewed_by_one_call(process: Process) -> None:
    process.claim(*[stream(f"s{n}") for n in range(600)])
    process.ledger.calls.clear()
    process.heartbeat.beat()
    assert process.ledger.calls == [250, 250, 100]


def test_a_worker_that_holds_nothing_still_says_that_it_lives(process: Process) -> None:
    process.heartbeat.beat()
    assert process.ledger.calls == [0]
    assert [worker.id for worker in process.ledger.workers()] == ["w1"]


def test_the_quietest_stream_is_given_back_first(process: Process) -> None:
    busy, quiet, middling = process.claim(stream("busy"), stream("quiet"), stream("middling"))
    busy.rows, middling.rows = 10_000, 100
    process.clock.now += 3
    process.ledger.to_shed = 2
    process.heartbeat.beat()
    assert (busy.stopping(), quiet.stopping(), middling.stopping()) == (False, True, True)


def test_no_unit_is_given_back_before_its_quantum(process: Process) -> None:
    (held,) = process.claim(stream())
    process.clock.now += 1.9
    assert to_shed([held], 1, now=process.clock(), quantum=2.0) == []
    process.clock.now += 0.2
    assert to_shed([held], 1, now=process.clock(), quantum=2.0) == [held]


def test_units_already_on_their_way_back_are_not_asked_for_twice(process: Process) -> None:
    held = process.claim(*[stream(f"s{n}") for n in range(5)])
    process.ledger.to_shed = 2  # as the ledger goes on saying until the batches have ended
    for _ in range(3):
        process.clock.now += 3
        process.heartbeat.beat()
    assert sum(h.stopping() for h in held) == 2


def test_a_lost_unit_is_not_on_its_way_back(process: Process) -> None:
    lost, ours = process.claim(stream("lost"), stream("ours"))
    process.clock.now += 3
    lost.lose()  # the ledger does not count it any more
    assert to_shed([lost, ours], 1, now=process.clock(), quantum=2.0) == [ours]


def test_chunks_and_polls_are_never_given_back_half_done() -> None:
    clock = Clock()
    table = TableId("shop", "orders")
    units = [
        WorkUnit.poll("shop", table),
        WorkUnit("chunk:shop:shop.orders:0:0", UnitKind.CHUNK, "shop", table),
    ]
    holds = [Held(Lease(u, "w1", 1), ttl=TTL, asked_at=clock(), clock=clock) for u in units]
    assert to_shed(holds, 2, now=clock() + 100, quantum=2.0) == []


def test_a_wait_ends_when_the_unit_is_asked_back() -> None:
    held = Held(Lease(stream(), "w1", 1), ttl=TTL, asked_at=0.0, clock=Clock())
    held.ask_back()
    held.wait(60)  # the test's own time limit is the assertion
    assert held.stopping()


def test_a_unit_that_is_given_to_its_own_process_again_is_not_held_twice(process: Process) -> None:
    """As a ledger does that has lost its memory; nobody would renew the earlier lease any more."""
    (earlier,) = process.claim(stream())
    process.ledger.wipe()
    (later,) = process.claim(stream())
    assert not is_alive(earlier)
    assert earlier.stopping()
    assert is_alive(later)


def test_removing_an_old_hold_leaves_the_new_one_of_the_same_unit(process: Process) -> None:
    (old,) = process.claim(stream())
    new = Held(old.lease, ttl=TTL, asked_at=process.clock(), clock=process.clock)
    process.holds.add(new)
    process.holds.remove(old)
    assert process.holds.all() == [new]
