"""Fault points do nothing unless a test armed them."""

from __future__ import annotations

import os
import signal

import pytest

from warp import faults


def test_nothing_is_armed_in_production() -> None:
    assert faults.armed({}) is faults.armed({})
    assert faults.armed({})("after_marker") is None


def test_the_third_pass_of_a_point_strikes_once() -> None:
    sent: list[tuple[int, int]] = []
    hit = faults.armed(
        {faults.VARIABLE: "after_marker:kill:3"}, lambda pid, number: sent.append((pid, number))
    )
    for point in ("after_marker", "before_commit", "after_marker"):
        hit(point)
    assert sent == []
    hit("after_marker")
    hit("after_marker")
    assert sent == [(os.getpid(), signal.SIGKILL)]


def test_an_order_that_is_not_understood_is_refused() -> None:
    with pytest.raises(ValueError, match="POINT:kill"):
        faults.armed({faults.VARIABLE: "after_marker"})
