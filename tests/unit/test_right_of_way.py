"""A stream goes before the chunks of a snapshot in its process."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warp.model import Chunk, Lease, TableId, WorkUnit
from warp.right_of_way import LEAST, MOST, QUIET_AFTER, RightOfWay, next_share

SECONDS = st.floats(0.0, 100.0)
SHARES = st.floats(LEAST, MOST)
FAR = 0.2  # seconds that any batch takes where the destination is far away


class Process:
    """One on a clock of its own: a stream and chunks whose work takes the time it is told."""

    lease = Lease(WorkUnit.of_chunk("shop", Chunk(TableId("shop", "orders"), 0), 0), "worker", 1)

    def __init__(self) -> None:
        self.now = 0.0
        machine: Any = SimpleNamespace(monotonic=lambda: self.now, lock=nullcontext)
        self.way = RightOfWay(machine)
        self.asked_back = False

    # The hold of a chunk
    def check(self) -> None: ...

    def stopping(self) -> bool:
        return self.asked_back

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def chunk(self, seconds: float) -> float:
        """One batch of it; how long it waited for its turn."""
        asked = self.now
        with self.way.turn(self):
            waited = self.now - asked
            self.now += seconds
        return waited

    def stream(self, seconds: float, rows: int = 50) -> None:
        self.now += seconds
        self.way.delivered(rows, seconds)


@pytest.fixture
def process() -> Process:
    return Process()


def worked(process: Process, *, late: bool, seconds: float) -> float:
    """The part of the time that a chunk is at work beside a stream's batches, late ones or not."""
    until, at_work, began = process.now + seconds, 0.0, process.now
    while process.now < until:
        process.stream(0.1 if late else 0.01)
        process.chunk(0.02)
        at_work += 0.02
    return at_work / (process.now - began)


def test_a_chunk_without_a_stream_beside_it_never_waits(process: Process) -> None:
    assert [process.chunk(0.1) for _ in range(50)] == [0.0] * 50


def test_a_stream_that_is_late_leaves_a_chunk_the_least_there_is(process: Process) -> None:
    process.stream(0.01)
    worked(process, late=True, seconds=10)
    assert worked(process, late=True, seconds=10) == pytest.approx(LEAST, rel=0.01)


def test_without_its_reports_a_late_stream_would_wait_for_the_chunks(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.way, "delivered", lambda rows, seconds: None)
    process.stream(0.01)
    assert [process.chunk(0.02) for _ in range(50)] == [0.0] * 50


def test_a_stream_in_time_lets_the_chunks_work_as_they_like(process: Process) -> None:
    worked(process, late=False, seconds=10)
    assert [process.chunk(0.02) for _ in range(10)] == [0.0] * 10


def test_a_far_destination_is_not_taken_for_a_late_stream(process: Process) -> None:
    for _ in range(50):
        process.stream(FAR)
        process.chunk(0.02)
    assert process.chunk(0.02) == 0.0


def test_chunks_go_on_as_they_like_once_the_stream_is_quiet(process: Process) -> None:
    process.stream(0.01)
    worked(process, late=True, seconds=10)
    process.now += 2 * QUIET_AFTER
    assert [process.chunk(0.02) for _ in range(10)] == [0.0] * 10


def test_a_chunk_that_is_asked_back_does_not_wait_for_its_turn(process: Process) -> None:
    process.stream(0.01)
    worked(process, late=True, seconds=10)
    process.asked_back = True
    process.stream(0.1)
    assert process.chunk(0.02) == 0.0


def test_the_work_of_several_chunks_is_counted_together(process: Process) -> None:
    process.stream(0.01)
    worked(process, late=True, seconds=10)
    process.stream(0.1)
    begins = [process.way.next_turn() for _ in range(4)]
    gaps = [later - begin for begin, later in pairwise(begins)]
    assert all(gap >= 0.02 / (2 * LEAST) for gap in gaps)


@given(share=SHARES, seconds=SECONDS, least=SECONDS, passed=SECONDS)
def test_the_share_stays_within_its_limits(
    share: float, seconds: float, least: float, passed: float
) -> None:
    assert LEAST <= next_share(share, seconds, least, passed) <= MOST


@given(share=SHARES, least=SECONDS, passed=SECONDS)
def test_a_late_batch_never_raises_the_share_and_another_never_lowers_it(
    share: float, least: float, passed: float
) -> None:
    assert next_share(share, 2 * least + 1, least, passed) <= share
    assert next_share(share, least, least, passed) >= share
