"""Every order in which a small world can go: safe and live, and what each guard is needed for.

The model is in `lease_model.py`.  `make soak` walks through larger worlds.
"""

from __future__ import annotations

import pytest
from lease_guards import BREAKS, EVERY_OUTCOME, HINTS, Break
from lease_model import (
    FEW_FAULTS,
    LARGER,
    ROOMY,
    SMALL,
    TWO_BATCHES,
    Bounds,
    Protocol,
    Rules,
    explore,
)


@pytest.mark.holds(
    guarantee=2, source="none", destination="pretended", fault=("superseded", "FLUSHALL")
)
def test_whatever_happens_nothing_lands_twice_or_from_a_superseded_worker() -> None:
    found = explore(Protocol(bounds=SMALL), lives=False)
    assert (found.violation, found.trace) == ("", ())
    assert found.states > 20_000
    # A model in which nothing happens is safe as well.
    assert found.seen == EVERY_OUTCOME


def test_whatever_happens_a_batch_can_land_afterwards() -> None:
    found = explore(Protocol(bounds=ROOMY))
    assert found.stuck is None, found.trace


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
def test_without_a_guard_the_shortest_way_to_break_it_is_found(broken: Break) -> None:
    # A resync would be the shorter way to a write that no fence stops.
    bounds = TWO_BATCHES if broken.rules.write_checks_fence else FEW_FAULTS
    found = explore(Protocol(broken.rules, bounds), lives=False)
    assert (found.violation, ", ".join(found.trace)) == (broken.violation, broken.trace)


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
