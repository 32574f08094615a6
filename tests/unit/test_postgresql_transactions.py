"""Large transactions in progress: bounded in memory, whole when they are committed."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.sources.postgresql.transactions import InProgress

steps = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),  # transaction
        st.sampled_from([0, 10, 20]),  # subtransaction
        st.binary(max_size=400) | st.sampled_from(["abort", "abort all"]),
    ),
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.integers(1, 4_000))
def test_what_is_committed_comes_whole_and_in_order(steps: list[Any], limit: int) -> None:
    waiting = InProgress(limit)
    expected: dict[int, list[tuple[bytes, int]]] = {1: [], 2: []}
    aborted: dict[int, set[int]] = {1: set(), 2: set()}
    for xid, sub, what in steps:
        if what == "abort all":
            waiting.abort(xid, xid)
            expected[xid], aborted[xid] = [], set()
        elif what == "abort":
            waiting.abort(xid, xid + sub if sub else 99)
            aborted[xid].add(xid + sub if sub else 99)
        else:
            waiting.add(xid, xid + sub, what)
            if not expected[xid]:
                aborted[xid] = set()
            expected[xid].append((what, xid + sub))
    for xid in (2, 1):
        found = list(waiting.commit(xid))
        assert found == [(m, sub in aborted[xid]) for m, sub in expected[xid]]
    assert len(waiting) == 0
    waiting.close()


def test_no_more_than_the_bound_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = tempfile.TemporaryFile

    def noted(**options: Any) -> Any:
        made.append(make(**options))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    waiting = InProgress(10_000)
    for number in range(1_000):
        waiting.add(1 + number % 3, 1, b"x" * 100)
        held = sum(len(each.tail) for each in waiting._open.values())
        assert held <= 10_000 + 108
    assert len(made) == 3
    assert sum(1 for _ in waiting.commit(2)) == 333
    waiting.close()
    assert all(file.closed for file in made)
