"""The compiled loops let other threads go on: a stream does not wait for a chunk's whole batch."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bson
import pytest

from warp import native
from warp.model import Kind

pytestmark = pytest.mark.skipif(
    native.missing.startswith("switched off"), reason="plain Python gives way by itself"
)

ROWS = 40_000
# A call that keeps the interpreter gives another thread a turn at its edges; more only where the
# machine stops us just there.
IN_ONE_CALL = 5
CALLS = 200


@contextmanager
def shorter_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def turns_of_another_thread(work: Callable[[], object]) -> Iterator[int]:
    """How many turns another thread has had during one call of `work`, again and again."""
    turns, over = 0, threading.Event()

    def other() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        with shorter_turns():
            for _ in range(CALLS):
                before = turns
                work()
                yield turns - before
    finally:
        over.set()
        thread.join()


def a_column() -> native.Packed:
    column = native.packed.Packed.of(Kind.TEXT, [f"row {n}" for n in range(ROWS)])
    assert column is not None
    return column


def test_rows_are_spelt_for_copy_with_breaths_between() -> None:
    columns = [a_column()] * 8
    found = turns_of_another_thread(lambda: native.packed.copy_rows(columns))
    assert any(turns >= IN_ONE_CALL for turns in found)


def test_documents_are_shaped_with_breaths_between() -> None:
    column = ("field", Kind.TEXT, b"note", False, -1, -1)
    layout = native.bson.Layout([column])
    documents = [bson.encode({"note": "a" * 100})] * ROWS
    found = turns_of_another_thread(lambda: layout.shape(documents, b""))
    assert any(turns >= IN_ONE_CALL for turns in found)


def test_a_loop_that_keeps_the_interpreter_would_be_seen() -> None:
    many = list(range(ROWS))
    found = turns_of_another_thread(lambda: many.count(-1))
    assert any(turns < IN_ONE_CALL for turns in found)
