"""Which of several coordinators does the duties."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coordinator.leader import Leadership
from warp.leases.memory import MemoryLeaseStore


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(clock: Clock) -> tuple[Leadership, Leadership]:
    ledger = MemoryLeaseStore(clock=clock, lease_ttl=5.0)
    return Leadership(ledger, "a", clock=clock), Leadership(ledger, "b", clock=clock)


Pair = tuple[Leadership, Leadership]


def test_one_of_two_leads(pair: Pair) -> None:
    a, b = pair
    a.step()
    b.step()
    assert (a.leading, b.leading) == (True, False)


def test_a_leader_that_goes_on_stays(pair: Pair, clock: Clock) -> None:
    a, b = pair
    for _ in range(10):
        a.step()
        b.step()
        clock.now += 2
    assert (a.leading, b.leading) == (True, False)


def test_a_paused_leader_knows_that_it_leads_no_more_before_another_may(
    pair: Pair, clock: Clock
) -> None:
    a, b = pair
    a.step()
    clock.now += 4.5
    assert not a.leading
    b.step()
    assert not b.leading
    clock.now += 0.6
    b.step()
    assert b.leading
    a.step()
    assert not a.leading


def test_whoever_waits_to_lead_does_not_spin_while_the_ledger_is_silent(
    pair: Pair, clock: Clock
) -> None:
    a, _ = pair
    a.step()
    clock.now += 4.5  # its thread still waits for the answer to a renewal
    assert a.taken.is_set()
    a.wait(0.0)
    assert not a.taken.is_set()


def test_a_leader_that_stops_makes_room_at_once(pair: Pair) -> None:
    a, b = pair
    a.step()
    a.stop()
    b.step()
    assert b.leading


def test_a_leader_that_gives_up_stands_back_for_a_while(pair: Pair, clock: Clock) -> None:
    a, b = pair
    a.step()
    a.give_up()
    a.step()
    assert not a.leading
    b.step()
    assert b.leading
    b.stop()
    clock.now += 11
    a.step()
    assert a.leading


def test_after_a_wipe_somebody_leads_again(clock: Clock) -> None:
    ledger = MemoryLeaseStore(clock=clock, lease_ttl=5.0)
    a = Leadership(ledger, "a", clock=clock)
    a.step()
    ledger.wipe()
    a.step()
    assert not a.leading
    a.step()
    assert a.leading
