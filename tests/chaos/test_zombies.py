"""Guarantee 2: an owner whose lease was superseded writes nothing, however long it was paused and
whatever it believes; and guarantee 7: an unknown outcome of a COMMIT is found out, never guessed.
"""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cutting_proxy import Cut, CuttingProxy
from one_unit import run
from watched import History, Owner, Watched, write_history

from warp.errors import FenceBehind
from warp.model import Lease
from warp.own_process import wait_until
from workers.hold import SAFE_PART

LONGEST_TAKEOVER = 20.0  # seconds; lock_timeout and the successor's own work, on a busy machine

Case = Callable[[], Watched]


@pytest.fixture(scope="module")
def history(mongo: Any) -> History:
    return write_history(mongo.url, f"zombies_{secrets.token_hex(4)}")


@pytest.fixture
def case(history: History, postgres: Any) -> Iterator[Case]:
    """A fresh destination for a stream."""
    made: list[Watched] = []

    def make() -> Watched:
        made.append(Watched(history, postgres.url, f"z_{secrets.token_hex(4)}", "stream"))
        made[-1].prepare()
        return made[-1]

    yield make
    for watched in made:
        watched.close()


def paused(watched: Watched, point: str, nth: int, **how: Any) -> Owner:
    """An owner that stopped itself at this point."""
    owner = watched.start(watched.order(**how), f"{point}:stop:{nth}")
    if not wait_until(lambda: _state(owner.process.pid) == "T", 60):
        raise AssertionError(f"the owner did not get to {point}: {owner.answer.read_text()}")
    return owner


def _state(pid: int) -> str:
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0]


def woken(owner: Owner) -> str:
    """How a paused owner ends once it goes on."""
    owner.process.send_signal(signal.SIGCONT)
    owner.process.wait(60)
    return str(json.loads(owner.answer.read_text())["ended"])


def adopt(watched: Watched) -> None:
    """A successor takes the unit and has not written anything yet."""
    order = watched.order()
    with closing(order.destination()) as destination:
        destination.open(Lease(order.unit, "successor", order.fence))


@pytest.mark.parametrize("point", ["after_marker", "in_copy", "after_merge", "before_commit"])
@pytest.mark.holds(guarantee=2, source="mongodb", destination="postgresql", fault="SIGSTOP")
def test_an_owner_paused_inside_its_transaction_is_replaced_and_writes_nothing_when_it_wakes(
    case: Case, point: str
) -> None:
    watched = case()
    zombie = paused(watched, point, 3, stubborn=True)
    started = time.monotonic()
    run(watched.order())
    assert time.monotonic() - started < LONGEST_TAKEOVER
    assert woken(zombie) == "FenceBehind"
    assert watched.wrongs() == []


@pytest.mark.holds(guarantee=2, source="mongodb", destination="postgresql", fault="SIGSTOP")
def test_an_owner_paused_between_transactions_stops_by_its_own_clock(case: Case) -> None:
    watched = case()
    ttl = 4.0
    owner = paused(watched, "after_commit", 2, ttl=ttl)
    over = time.monotonic() + SAFE_PART * ttl  # at the latest: its lease began before the pause
    run(watched.order())
    assert wait_until(lambda: time.monotonic() > over, 60)
    assert woken(owner) == "LeaseLost"  # it did not even try
    assert watched.wrongs() == []


def wake_after_an_adoption(watched: Watched, broken: str = "") -> str:
    """The hardest moment: the fence was raised, and nothing else has changed."""
    zombie = paused(watched, "after_commit", 3, stubborn=True, broken=broken)
    adopt(watched)
    return woken(zombie)


@pytest.mark.holds(guarantee=2, source="mongodb", destination="postgresql", fault="superseded")
def test_an_owner_that_never_looks_at_its_lease_is_refused_by_the_destination(case: Case) -> None:
    watched = case()
    assert wake_after_an_adoption(watched) == "FenceBehind"
    run(watched.order())
    assert watched.wrongs() == []


def test_without_the_fence_in_the_marker_statement_a_superseded_owner_writes(case: Case) -> None:
    assert wake_after_an_adoption(case(), broken="no fence") == "done"


# -- the outcome of a COMMIT that nobody reported


def cut_at_commit(watched: Watched, when: Cut, broken: str = "") -> None:
    """A stubborn owner whose connection breaks at its fifth COMMIT, a write in the middle."""
    with CuttingProxy(watched.postgres, 5, when) as proxy:
        try:
            run(watched.order(postgres=proxy.url, stubborn=True, broken=broken))
        finally:
            assert proxy.cut


@pytest.mark.parametrize("when", list(Cut))
@pytest.mark.holds(
    guarantee=(1, 7), source="mongodb", destination="postgresql", fault="lost connection"
)
def test_a_commit_whose_outcome_nobody_reported_is_neither_lost_nor_made_twice(
    case: Case, when: Cut
) -> None:
    watched = case()
    cut_at_commit(watched, when)
    assert watched.wrongs() == []


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="lost connection")
def test_an_owner_that_does_not_ask_for_the_outcome_is_refused_by_the_batch_number(
    case: Case,
) -> None:
    watched = case()
    with pytest.raises(FenceBehind):
        cut_at_commit(watched, Cut.AFTER, broken="never asks")
    run(watched.order())
    assert watched.wrongs() == []


def test_without_the_batch_number_in_the_marker_statement_a_batch_is_applied_twice(
    case: Case,
) -> None:
    watched = case()
    cut_at_commit(watched, Cut.AFTER, broken="never asks + no batch")
    assert any("transactions" in wrong for wrong in watched.wrongs())
