"""Every order in which a small world can go: safe and live, and what each guard is needed for.

The model is in `lease_model.py`.  `make soak` walks through larger worlds.
"""

from __future__ import annotations

import pytest
from lease_model import Bounds, Protocol, Rules, explore

SMALL = Bounds(clock=2, batches=1, fence=5, wipes=1, steps_back=1, resyncs=1)
"""Every fault once, and room for what follows."""
ROOMY = Bounds(clock=2, batches=1, fence=8, wipes=1, steps_back=0, resyncs=0)
"""Fences do not run out before a unit is stuck for another reason."""
TWO_BATCHES = Bounds(clock=2, batches=2, fence=6, wipes=1, steps_back=1, resyncs=1)
FEW_FAULTS = Bounds(clock=2, batches=2, fence=4, wipes=1, steps_back=0, resyncs=0)

LARGER = {
    "two batches": Bounds(clock=2, batches=2, fence=7, wipes=1, steps_back=1, resyncs=1),
    "a longer clock": Bounds(clock=3, batches=1, fence=9, wipes=1, steps_back=1, resyncs=1),
    "two wipes": Bounds(clock=2, batches=1, fence=7, wipes=2, steps_back=1, resyncs=1),
}

# What a guarantee needs, and the shortest way to break it without.
NEEDED = [
    pytest.param(
        Rules(write_checks_fence=False),
        "a superseded worker wrote",
        "ensure, claim(A), tick, tick, open(A), claim(B), open(B), write_batch(A)",
        id="a write checks its fence",
    ),
    pytest.param(
        Rules(open_checks_fence=False),
        "a superseded worker wrote",
        "ensure, claim(A), flushall, ensure, open(A), claim(B), open(B), write_batch(A)",
        id="who opens a unit has a newer fence",
    ),
    pytest.param(
        Rules(open_refuses_its_equal=False),
        "a superseded worker wrote",
        "ensure, claim(A), flushall, ensure, open(A), claim(B), open(B), write_batch(A)",
        id="an equal fence is no newer one",
    ),
    pytest.param(
        Rules(resync_raises_fence=False),
        "a write went on from where the unit stood before a resync",
        "ensure, claim(A), open(A), write_batch(A), resync, write_batch(A)",
        id="a resync raises the fence",
    ),
    pytest.param(
        Rules(write_checks_batch=False, reads_the_marker_when_unsure=False),
        "a batch was passed by",
        "ensure, claim(A), open(A), write_batch, request lost(A), read_marker(A), write_batch(A)",
        id="an unknown outcome is read from the marker, or the batch number is checked",
    ),
]

# What the ledger does is a hint: nothing is written twice or by the wrong one without it.
HINTS = [
    "refence_checks_owner",
    "renew_checks_owner",
    "claims_only_what_is_free",
    "fences_grow",
    "fences_follow_the_clock",
]


def test_whatever_happens_nothing_lands_twice_or_from_a_superseded_worker() -> None:
    found = explore(Protocol(bounds=SMALL), lives=False)
    assert (found.violation, found.trace) == ("", ())
    assert found.states > 20_000
    # A model in which nothing happens is safe as well.
    assert {
        ("open", "behind, refenced"),
        ("open", "behind, lost"),
        ("write_batch", "refused"),
        ("renew", "lost"),
        ("release", "too late"),
        ("read_marker", "committed"),
        ("read_marker", "not committed"),
        ("read_marker", "lost"),
        ("resync", ""),
        ("set_clock_back", ""),
    } <= found.seen


def test_whatever_happens_a_batch_can_land_afterwards() -> None:
    found = explore(Protocol(bounds=ROOMY))
    assert found.stuck is None, found.trace


@pytest.mark.parametrize(("rules", "violation", "trace"), NEEDED)
def test_without_a_guard_the_shortest_way_to_break_it_is_found(
    rules: Rules, violation: str, trace: str
) -> None:
    # A resync would be the shorter way to a write that no fence stops.
    bounds = TWO_BATCHES if rules.write_checks_fence else FEW_FAULTS
    found = explore(Protocol(rules, bounds), lives=False)
    assert (found.violation, ", ".join(found.trace)) == (violation, trace)


@pytest.mark.parametrize("hint", HINTS)
def test_a_ledger_that_hands_out_leases_wrongly_breaks_nothing(hint: str) -> None:
    found = explore(Protocol(Rules(**{hint: False}), FEW_FAULTS), lives=False)
    assert (found.violation, found.trace) == ("", ())


def test_without_a_new_fence_a_unit_stands_still_after_redis_was_wiped() -> None:
    found = explore(Protocol(Rules(refences=False), ROOMY))
    assert found.stuck is not None
    assert found.stuck.marker.fence > found.stuck.issued


@pytest.mark.soak
@pytest.mark.parametrize("bounds", LARGER.values(), ids=LARGER)
def test_a_larger_world_is_safe_too(bounds: Bounds) -> None:
    found = explore(Protocol(bounds=bounds), lives=False)
    assert (found.violation, found.trace) == ("", ())
