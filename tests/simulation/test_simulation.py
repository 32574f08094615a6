"""The whole fleet under faults at every call, from one seed.

A run that fails says its seed, and which few faults it fails with.  A simulation that finds nothing
proves nothing, so it counts what it met, and it must find each of the bugs in `planted.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Fault, Planned
from planted import BUGS, plant
from shortening import shortened, told
from world import Result, run

import warp.leases.redis as redis_ledger

FIRST = int(os.environ.get("CARTRIDGE_WARP_SEED", "1000"))
MANY = int(os.environ.get("CARTRIDGE_WARP_TRIALS", "2000"))
SOME = range(16)
PARTS = 8  # of the many, for as many processes
MOST_SEEDS = 40  # within so many each planted bug is found

# What the runs of CI must have met, and how often at least; what stops happening shows.
MET = {
    "arrived late, and was done": 1,
    "cannot_claim": 1,
    "destination.open: FenceBehind": 3,
    "destination.write_batch: FenceBehind": 3,
    "errand: pause": 1,
    "errand: replay": 1,
    "errand: resync": 3,
    "fence_refused": 3,
    "leadership_lost": 3,
    "lease_lost": 2,
    "ledger_was_wiped": 1,
    "put a row that cannot land": 10,
    "restarted a coordinator": 3,
    "restarted a worker": 8,
    "source.read: PositionLost": 1,
    "table_settled": 50,
    "unit_recovered": 1,
    "unit_released": 50,
    "unit_shed": 1,
    "worker_stopped": 2,
}


def must_hold(result: Result) -> Result:
    if result.violation:
        pytest.fail(told(result, shortened(result)), pytrace=False)
    return result


def test_the_fleet_keeps_its_guarantees_whatever_goes_wrong() -> None:
    met: Counter[str] = Counter()
    for seed in SOME:
        met += must_hold(run(seed)).events
    assert {event: least for event, least in MET.items() if met[event] < least} == {}, met
    never = [fault.name for fault in Fault if not met[f"fault: {fault.name}"]]
    assert never == []


@pytest.mark.parametrize("seed", [20117, 20428, 20436, 20578, 22405, 22573, 23395, 25096])
def test_seeds_that_have_found_something_hold_now(seed: int) -> None:
    must_hold(run(seed))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_the_fleet_keeps_its_guarantees_for_thousands_of_seeds(part: int) -> None:
    for seed in range(FIRST + part, FIRST + MANY, PARTS):
        must_hold(run(seed))


# ---------------------------------------------------------------- one seed, one run


def test_a_seed_is_one_run_byte_for_byte_whatever_python_hashes_by() -> None:
    here = run(3, faulty=8.0)
    script = "from world import run; print(run(3, faulty=8.0).digest)"
    for hashes in ("1", "2"):
        environment = dict(os.environ) | {
            "PYTHONHASHSEED": hashes,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }
        there = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert there.stdout.strip() == here.digest, there.stderr
    assert run(4, (), faulty=1.0).digest != here.digest


# ---------------------------------------------------------------- the test of the test


@pytest.fixture
def fresh_scripts() -> Iterator[None]:
    redis_ledger._script.cache_clear()
    yield
    redis_ledger._script.cache_clear()


@pytest.mark.usefixtures("fresh_scripts")
@pytest.mark.parametrize("name", BUGS)
def test_it_finds_a_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(BUGS[name], monkeypatch)
    bug = BUGS[name]
    for seed in range(bug.first, bug.first + MOST_SEEDS):
        if run(seed, bug.planned, faulty=bug.faulty, limit=100.0).violation:
            return
    pytest.fail(f"not found in {MOST_SEEDS} seeds: {name}")


@pytest.mark.soak
@pytest.mark.parametrize("name", BUGS)
def test_what_brings_a_bug_out_does_no_harm_without_it(name: str) -> None:
    for seed in range(3):
        must_hold(run(seed, BUGS[name].planned, faulty=BUGS[name].faulty))


def test_a_schedule_is_shortened_to_what_it_fails_with() -> None:
    wipe, kill = Planned(1.0, Fault.WIPE), Planned(2.0, Fault.KILL, who="worker-1")
    others = tuple(Planned(3.0 + n, Fault.ADD_COLUMN) for n in range(4))

    def again(seed: int, planned: tuple[Planned, ...]) -> Result:
        bad = "lost a row" if {wipe, kill} <= set(planned) else ""
        return Result(seed, planned, bad, Counter(), ("0.0 worker-1 wrote",), 1.0)

    failed = again(7, (wipe, *others[:2], kill, *others[2:]))
    shortest = shortened(failed, again)
    assert shortest.planned == (wipe, kill)
    text = told(failed, shortest)
    assert "seed 7: lost a row" in text
    assert "6 faults, shortened to 2" in text
    assert "worker-1 is killed" in text
