"""One seed is one chaos: the same faults at the same times, the same writes in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from history import Scribe
from known_load import KnownWriters, Pen
from schedule import schedule

FAULTS = ("kill", "pause", "wipe", "cut")


def test_a_seed_makes_one_schedule_and_another_seed_another() -> None:
    assert schedule(7, 60, FAULTS) == schedule(7, 60, FAULTS)
    assert schedule(7, 60, FAULTS) != schedule(8, 60, FAULTS)


def test_each_kind_of_fault_strikes_once_before_one_strikes_again() -> None:
    strikes = schedule(7, 60, FAULTS)
    for first in range(0, len(strikes) - len(FAULTS) + 1, len(FAULTS)):
        assert {s.fault for s in strikes[first : first + len(FAULTS)]} == set(FAULTS)
    assert {s.fault for s in schedule(7, 0, FAULTS)} == set(FAULTS)


def test_a_schedule_lasts_as_long_as_was_asked() -> None:
    assert 50 < schedule(7, 60, FAULTS)[-1].at < 60


def writers(directory: Path, name: str, **more: Any) -> KnownWriters:
    def no_pen() -> Pen:
        raise AssertionError("nothing is written here")

    with Scribe(directory / name, {}) as scribe:
        return KnownWriters(no_pen, scribe, 40, **more)


def test_a_writer_tries_the_same_again_whatever_became_of_it(tmp_path: Path) -> None:
    first, second = writers(tmp_path, "1", seed=7), writers(tmp_path, "2", seed=7)
    steps = [first._step(0, n, True) for n in range(200)]
    assert steps == [second._step(0, n, True) for n in range(200)]
    assert steps != [writers(tmp_path, "3", seed=8)._step(0, n, True) for n in range(200)]


def test_stamps_of_a_writer_grow_and_are_nobody_elses(tmp_path: Path) -> None:
    both = writers(tmp_path, "1", seed=7)
    stamps = [
        [write.stamp for n in range(300) for write in both._step(thread, n, True)[0]]
        for thread in range(2)
    ]
    assert all(mine == sorted(set(mine)) for mine in stamps)
    assert not {*stamps[0]} & {*stamps[1]}


def test_a_row_has_one_writer(tmp_path: Path) -> None:
    both = writers(tmp_path, "1", seed=7)
    keys = [
        {
            (w.table, key)
            for n in range(300)
            for w in both._step(thread, n, True)[0]
            for key in (w.key, w.to)
        }
        for thread in range(2)
    ]
    assert {row for row in keys[0] & keys[1] if row[1] is not None} == set()


@pytest.mark.parametrize("threads", [8, 20])
def test_there_are_no_more_writers_than_stamps_are_for(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ValueError, match="fewer than 8"):
        writers(tmp_path, "1", seed=7, threads=threads)
