"""Guarantees 1, 4, 7 and 8: a process killed between any two statements of a write loses nothing
and repeats nothing.

A stream and a chunk of a real MongoDB are followed by a process that is killed at a fault point of
the write transaction; a successor finishes; triggers at the destination tell what really happened.
"""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from one_unit import run
from watched import History, Watched, write_history

import warp.destinations.postgresql
import warp.destinations.sql

POINTS = (
    "before_marker",
    "before_marker_of_rows",
    "after_marker",
    "after_table_lock",
    "in_copy",
    "after_copy",
    "after_merge",
    "after_deletes",
    "after_quarantine",
    "before_commit",
    "after_commit",
)

Case = Callable[[str], Watched]


@pytest.fixture(scope="module")
def history(mongo: Any) -> History:
    return write_history(mongo.url, f"boundaries_{secrets.token_hex(4)}")


@pytest.fixture
def case(history: History, postgres: Any) -> Iterator[Case]:
    """A fresh destination for a unit of this kind."""
    made: list[Watched] = []

    def make(kind: str) -> Watched:
        made.append(Watched(history, postgres.url, f"b_{secrets.token_hex(4)}", kind))
        made[-1].prepare()
        return made[-1]

    yield make
    for watched in made:
        watched.close()


def test_every_fault_point_of_a_write_is_tried() -> None:
    packages = (warp.destinations.postgresql, warp.destinations.sql)
    files = [file for package in packages for file in Path(package.__path__[0]).glob("*.py")]
    # Those of a change of schema are tried in tests/integration/test_postgresql_evolution.py.
    elsewhere = ("ddl.py", "backfill.py")
    text = "".join(f.read_text() for f in files if f.name not in elsewhere)
    assert set(re.findall(r'faults\.hit\("(\w+)"\)', text)) == set(POINTS)


def kill_and_finish(watched: Watched, point: str, nth: int, broken: str = "") -> list[str]:
    """Kill an owner at the n-th pass of a point, let a successor finish, and say what is wrong."""
    owner = watched.start(watched.order(broken=broken), f"{point}:kill:{nth}")
    assert owner.process.wait(60) == -signal.SIGKILL
    run(watched.order())
    watched.settle()
    return watched.wrongs()


@pytest.mark.parametrize("kind", ["stream", "chunk"])
def test_a_unit_that_nobody_disturbs_writes_everything_once(case: Case, kind: str) -> None:
    watched = case(kind)
    run(watched.order())
    watched.settle()
    assert watched.wrongs() == []
    assert watched.marker().batch > 4  # else there would be few boundaries


@pytest.mark.parametrize("kind", ["stream", "chunk"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.holds(
    guarantee=(1, 4, 7, 8), source="mongodb", destination="postgresql", fault="kill -9"
)
def test_a_unit_killed_at_any_statement_loses_and_repeats_nothing(
    case: Case, kind: str, point: str
) -> None:
    nth = 1 + POINTS.index(point) % 4
    assert kill_and_finish(case(kind), point, nth) == []


# -- broken twins


def test_with_the_marker_committed_before_the_rows_rows_are_lost(case: Case) -> None:
    wrong = kill_and_finish(case("stream"), "after_marker", 1, broken="marker first")
    assert any(found.startswith(("lost", "differs")) for found in wrong), wrong


def test_with_the_marker_committed_after_the_rows_changes_are_applied_twice(case: Case) -> None:
    wrong = kill_and_finish(case("stream"), "between", 3, broken="marker last")
    assert any("transactions" in found for found in wrong), wrong


def test_with_the_done_mark_of_a_chunk_before_its_last_batch_rows_are_lost(case: Case) -> None:
    wrong = kill_and_finish(case("chunk"), "after_commit", 2, broken="done early")
    assert any(found.startswith("lost") for found in wrong), wrong


def test_without_the_quarantine_a_row_that_was_refused_would_be_nowhere(case: Case) -> None:
    watched = case("stream")
    run(watched.order(broken="sets nothing aside"))
    assert any(found.startswith("quarantine") for found in watched.wrongs())
