"""The waits between tries."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.retry import Backoff, Streak

backoffs = st.builds(
    Backoff,
    max_retries=st.one_of(st.none(), st.integers(0, 50)),
    factor=st.floats(1, 10),
    base=st.floats(0.001, 10),
    cap=st.floats(10, 600),
    jitter=st.floats(0, 1),
)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(backoffs, st.integers())
def test_every_wait_lies_between_its_jittered_limits(backoff: Backoff, seed: int) -> None:
    chance = random.Random(seed).random

    for attempt, delay in enumerate(islice(backoff.delays(chance), 100)):
        longest = backoff.longest(attempt)
        assert longest * (1 - backoff.jitter) <= delay <= longest <= backoff.cap


@given(backoffs)
def test_waits_grow_until_the_cap_and_never_shrink(backoff: Backoff) -> None:
    waits = [backoff.longest(attempt) for attempt in range(100)]

    assert waits == sorted(waits)
    assert waits[0] == min(backoff.base, backoff.cap)


@given(backoffs)
def test_there_are_as_many_waits_as_retries(backoff: Backoff) -> None:
    most = 100 if backoff.max_retries is None else backoff.max_retries

    assert len(list(islice(backoff.delays(), 100))) == min(most, 100)


@given(backoffs, st.integers())
def test_equal_chance_gives_equal_waits(backoff: Backoff, seed: int) -> None:
    first = list(islice(backoff.delays(random.Random(seed).random), 20))
    second = list(islice(backoff.delays(random.Random(seed).random), 20))

    assert first == second


def test_the_settings_of_the_plan_wait_one_two_and_four_seconds() -> None:
    backoff = Backoff(max_retries=3, factor=2, base=1, jitter=0)

    assert list(backoff.delays()) == [1, 2, 4]


def test_a_very_long_outage_does_not_overflow() -> None:
    assert Backoff(max_retries=None, factor=10).longest(100_000) == 60.0


@pytest.mark.parametrize(
    "wrong", [{"factor": 0.5}, {"base": 0}, {"base": 61}, {"jitter": 1.5}, {"max_retries": -1}]
)
def test_waits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_a_streak_ends_after_its_retries_or_by_a_success() -> None:
    streak = Streak(Backoff(max_retries=2, jitter=0), clock=FakeClock())

    assert [streak.failed() for _ in range(3)] == [1, 2, None]
    assert streak.succeeded()
    assert not streak.succeeded()
    assert streak.failed() == 1


def test_a_failure_long_after_the_last_one_starts_a_new_streak() -> None:
    clock = FakeClock()
    streak = Streak(Backoff(max_retries=1, cap=60, jitter=0), clock=clock)
    streak.failed()

    clock.now += 121

    assert streak.failed() == 1
    assert streak.failures == 1
