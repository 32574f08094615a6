"""What code takes from the machine it runs on: clocks, chance, threads and what threads wait on.

One seam, so that a whole fleet can run in one process on a clock of its own, from one seed
(`tests/simulation`).  Whatever waits, begins a thread or draws lots asks for a `Machine`.
"""

from __future__ import annotations

import queue
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol


class Event(Protocol):
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Condition(Protocol):
    def __enter__(self) -> bool: ...
    def __exit__(self, *error: Any) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def notify_all(self) -> None: ...


class Room(Protocol):
    """A counting semaphore."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...


class Pipe(Protocol):
    """What one thread puts, another one gets, in that order."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any: ...


class Running(Protocol):
    """A thread that was started."""

    def join(self, timeout: float | None = None) -> None: ...


class Machine(Protocol):
    def monotonic(self) -> float:
        """Seconds on a clock that nobody sets."""
        ...

    def wall(self) -> float:
        """Unix seconds, as far as this machine knows them."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def chance(self) -> float:
        """From [0, 1)."""
        ...

    def new_id(self) -> str:
        """Never drawn before by anybody."""
        ...

    def start(self, target: Callable[[], object], *, name: str) -> Running:
        """In a thread that does not keep the process alive."""
        ...

    def pool(self, size: int, *, name: str) -> Executor: ...
    def event(self) -> Event: ...
    def condition(self) -> Condition: ...
    def lock(self) -> AbstractContextManager[Any]: ...
    def room(self, free: int) -> Room: ...
    def pipe(self) -> Pipe: ...


class _ThisMachine:
    """The one this process runs on."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def chance(self) -> float:
        return random.random()

    def new_id(self) -> str:
        return uuid.uuid4().hex

    def start(self, target: Callable[[], object], *, name: str) -> Running:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def pool(self, size: int, *, name: str) -> Executor:
        return ThreadPoolExecutor(max_workers=size, thread_name_prefix=name)

    def event(self) -> Event:
        return threading.Event()

    def condition(self) -> Condition:
        return threading.Condition()

    def lock(self) -> AbstractContextManager[Any]:
        return threading.Lock()

    def room(self, free: int) -> Room:
        return threading.Semaphore(free)

    def pipe(self) -> Pipe:
        return queue.SimpleQueue()


THIS_MACHINE: Final[Machine] = _ThisMachine()


def between(machine: Machine, least: float, most: float) -> float:
    """A number between two, by chance."""
    return least + (most - least) * machine.chance()
