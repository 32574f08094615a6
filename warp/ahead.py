"""Read batch n+1 while batch n is written: one thread, a short queue, nothing else.

The reader thread only waits on the source; the writer only on the destination.  Both release the
interpreter while they wait, so the two waits overlap.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from warp.machine import THIS_MACHINE, Event, Machine, Pipe, Room

T = TypeVar("T")

# One batch is written while the next is read: what a batch holds is large, and more of them in
# hand adds memory (guarantee 9) and no speed.
DEPTH: Final = 1


class _End:
    """The reader's last word: how its iterator ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _never() -> bool:
    return False


@contextmanager
def ahead(
    items: Iterable[T],
    *,
    stopping: Callable[[], bool] = _never,
    machine: Machine = THIS_MACHINE,
) -> Generator[Iterator[T]]:
    """Iterate over `items` from a thread of its own, until `stopping`.

    An error of the reader is raised where the next item would have come.  On leaving, the reader
    is told to stop and, where `items` is a generator, closed in its own thread; a read that
    blocks is waited for, so a source must yield (or be closed) within its idle time.
    """
    ready = machine.pipe()
    room = machine.room(DEPTH)  # asked for before a batch is read, not after
    stop: Event = machine.event()

    def over() -> bool:
        return stop.is_set() or stopping()

    # In this thread's context: what the source logs while it reads carries the unit's ids too.
    inside = contextvars.copy_context().run
    reader = machine.start(partial(inside, _read, items, ready, room, over), name="ahead")
    try:
        yield _drain(ready, room)
    finally:
        stop.set()
        room.release()
        reader.join()


def _drain(ready: Pipe, room: Room) -> Iterator[T]:
    while True:
        item = ready.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        room.release()
        yield item
        del item  # not to be kept while the next one is waited for


def _read(
    items: Iterable[T],
    ready: Pipe,
    room: Room,
    over: Callable[[], bool],
) -> None:
    error: BaseException | None = None
    iterator = iter(items)
    try:
        while True:
            room.acquire()
            # Asked here too, else a quiet unit is handed back one blocked read later (0.25 s).
            if over():
                break
            ready.put(next(iterator))
    except StopIteration:
        pass
    except BaseException as caught:  # noqa: BLE001 - it crosses to the thread that asked
        error = caught
    finally:
        close: Callable[[], None] | None = getattr(iterator, "close", None)
        if close is not None:
            close()
        ready.put(_End(error))
