"""`cartridge-warp drain`: whom it means, and how long it waits."""

from __future__ import annotations

import pytest

from commands import drain
from warp.errors import ConfigError
from warp.leases.memory import MemoryLeaseStore
from warp.model import WorkerState, WorkUnit

KNOWN = [WorkerState(id, 4, 1, 9.0) for id in ("pod-a:7:x", "pod-a:8:y", "pod-ab:7:z")]


def test_here_means_all_workers_of_this_host_and_no_other() -> None:
    assert drain.choose(KNOWN, (), host="pod-a") == ["pod-a:7:x", "pod-a:8:y"]
    assert drain.choose(KNOWN, (), host="pod") == []


def test_named_workers_must_be_there() -> None:
    assert drain.choose(KNOWN, ("pod-ab:7:z",), host=None) == ["pod-ab:7:z"]
    with pytest.raises(ConfigError, match="did you mean 'pod-a:7:x'"):
        drain.choose(KNOWN, ("pod-a:7:w",), host=None)


@pytest.mark.parametrize(("named", "host"), [((), None), (("pod-a:7:x",), "pod-a")])
def test_who_is_meant_must_be_said_once(named: tuple[str, ...], host: str | None) -> None:
    with pytest.raises(ConfigError, match="--here"):
        drain.choose(KNOWN, named, host=host)


def test_it_waits_until_everything_is_given_back_and_nothing_is_claimed_again() -> None:
    ledger = MemoryLeaseStore()
    ledger.ensure([WorkUnit.stream("shop"), WorkUnit.stream("other")])
    leases = ledger.claim("w", 2, ttl=60.0, slots=4)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        shed, _ = ledger.renew("w", leases, ttl=60.0, slots=4)
        assert shed == len(leases)
        ledger.release(leases.pop())

    assert drain.run(ledger, ["w"], 60.0, sleep=sleep) == []
    assert len(slept) == 2
    assert ledger.claim("w", 2, ttl=60.0, slots=4) == []


def test_what_is_still_held_when_the_time_is_up_is_told() -> None:
    ledger = MemoryLeaseStore()
    ledger.ensure([WorkUnit.stream("shop")])
    ledger.claim("w", 1, ttl=60.0, slots=4)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    [left] = drain.run(ledger, ["w"], 5.0, clock=lambda: now[0], sleep=sleep)
    assert (left.id, left.held) == ("w", 1)
    assert now[0] == pytest.approx(5.0, abs=drain.LOOK_EVERY)
