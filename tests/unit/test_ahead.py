"""Reading ahead: order kept, errors carried, nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import structlog

from warp import logs
from warp.ahead import DEPTH, ahead


def test_items_come_in_order_and_the_end_is_the_end() -> None:
    with ahead(range(1000)) as items:
        assert list(items) == list(range(1000))


def test_an_error_comes_where_the_next_item_would_have() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("from the reader")

    with ahead(failing()) as items:
        assert next(items) == 1
        with pytest.raises(LookupError, match="from the reader"):
            next(items)


@pytest.mark.holds(guarantee=9, source="none", destination="pretended", fault="large data")
def test_no_more_than_the_depth_is_read_ahead() -> None:
    read: list[int] = []
    asked = threading.Semaphore(0)

    def counting() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            asked.release()
            yield n

    with ahead(counting()) as items:
        next(items)
        for _ in range(DEPTH + 1):  # the one taken, and those read ahead
            assert asked.acquire(timeout=5)
        assert not asked.acquire(timeout=0.1)
        assert read == list(range(DEPTH + 1))


def test_leaving_early_closes_the_reader_in_its_own_thread() -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with ahead(endless()) as items:
        next(items)
    assert closed == ["ahead"]
    assert all(thread.name != "ahead" for thread in threading.enumerate())


def test_what_is_logged_while_reading_carries_the_ids_of_who_reads() -> None:
    seen: list[dict[str, object]] = []

    def reading() -> Iterator[int]:
        seen.append(structlog.contextvars.get_contextvars())
        yield 1

    with logs.bind(unit="stream:shop", run="r"), ahead(reading()) as items:
        list(items)

    assert seen[0]["unit"] == "stream:shop"
    assert seen[0]["run"] == "r"
