"""What is measured: ours, the floor, a peer; and the task that each of them gets."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.side_by_side.figures import Measured, Scenario
from benchmarks.side_by_side.origins import Origin
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import Change

LIMIT = 600.0  # seconds after which a contender counts as stuck


class NoFigure(Exception):
    """A contender ended, or did not arrive; its words say why."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run: from this database of the source into that database of the destination."""

    scenario: Scenario
    origin: Origin
    database: str
    destination: str  # URL of a database that is empty
    label: str  # unique, a name for slots and the like
    rows: int
    servers: Mapping[str, int]  # pids, for their accounts
    expected: str = ""  # URL of the database that holds what is expected
    changes: list[Change] = field(default_factory=list)
    limit: float = LIMIT
    watching: Callable[[int], AbstractContextManager[None]] = lambda pid: nullcontext()


class Follower(Protocol):
    """A process that has the snapshot, and follows the log."""

    @property
    def pid(self) -> int: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def begin(self) -> None:
        """Count from here."""

    def measured(self) -> Measured: ...
    def alive(self) -> str:
        """Its last words where it has ended; else nothing."""


class Contender(ABC):
    name: str

    @abstractmethod
    def about(self, scenario: Scenario) -> str:
        """Version and settings."""

    @abstractmethod
    def left_out(self, scenario: Scenario) -> str:
        """Why it does not take part; empty where it does."""

    @abstractmethod
    def landing(self, scenario: Scenario) -> Landing: ...

    @abstractmethod
    def snapshot(self, task: Task) -> Measured: ...

    @abstractmethod
    def following(self, task: Task) -> AbstractContextManager[Follower]: ...


def until(
    what: str,
    condition: Callable[[], bool],
    alive: Callable[[], str] = str,
    limit: float = LIMIT,
) -> None:
    deadline = time.monotonic() + limit
    pause = threading.Event()
    while not condition():
        if words := alive():
            raise NoFigure(f"ended while waiting for {what}: {words}")
        if time.monotonic() > deadline:
            raise NoFigure(f"expected {what} within {limit:.0f} s, found otherwise")
        pause.wait(0.05)
