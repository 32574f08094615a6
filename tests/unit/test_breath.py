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
IN_ONE_CALL = 5  # a call that keeps the interpreter gives another thread one turn, at its edges
CALLS = 200


@contextmanager
def shorter_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def turns_of_another_thread(work: Callable[[], object]) -> int:
    """The most turns that another thread has had during one call of `work`."""
    turns, over = 0, threading.Event()

    def other() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=other)
    thread.start()
    most = 0
    try:
        with shorter_turns():
            for _ in range(CALLS):
                before = turns
                work()
                most = max(most, turns - before)
                if most >= IN_ONE_CALL:
                    break
    finally:
        over.set()
        thread.join()
    return most


def a_column() -> native.Packed:
    column = native.packed.Packed.of(Kind.TEXT, [f"row {n}" for n in range(ROWS)])
    assert column is not None
    return column


def test_rows_are_spelt_for_copy_with_breaths_between() -> None:
    columns = [a_column()] * 8
    assert turns_of_another_thread(lambda: native.packed.copy_rows(columns)) >= IN_ONE_CALL


def test_documents_are_shaped_with_breaths_between() -> None:
    column = ("field", Kind.TEXT, b"note", False, -1, -1)
    layout = native.bson.Layout([column])
    documents = [bson.encode({"note": "a" * 100})] * ROWS
    assert turns_of_another_thread(lambda: layout.shape(documents, b"")) >= IN_ONE_CALL


def test_a_loop_that_keeps_the_interpreter_would_be_seen() -> None:
    many = list(range(ROWS))
    assert turns_of_another_thread(lambda: many.count(-1)) < IN_ONE_CALL
