"""What was done at a source, write by write, each with its place in the source's log.

Every write puts a stamp of its own into its row, and all writes of one key come from one writer
whose stamps grow: so the stamps of a key are its order, and a row tells which write made it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TextIO

REFUSED = -13  # the total of a row that the destination refuses


class Kind(StrEnum):
    CREATE = "create"
    CHANGE = "change"  # some of its columns: the log may leave out the others
    REPLACE = "replace"
    DELETE = "delete"


class Outcome(StrEnum):
    SURE = "sure"
    PERHAPS = "perhaps"  # nobody answered: it may have happened, and only before the key's next
    UNDONE = "undone"  # rolled back, or refused by the source


@dataclass(frozen=True, slots=True)
class Event:
    """One write of one row."""

    table: str
    key: str
    stamp: int
    kind: Kind
    outcome: Outcome
    # It lies in the source's log behind the first and not behind the second of these places,
    # which are the numbers that the source puts its log in order by.
    after: int
    place: int | None  # None where nobody could say
    total: int = 0
    name: str = ""
    at: float = 0.0  # Unix seconds when it was known to have happened

    @property
    def alive(self) -> bool:
        return self.kind is not Kind.DELETE

    @property
    def refused(self) -> bool:
        return self.alive and self.total == REFUSED

    @property
    def row(self) -> tuple[str, str]:
        return self.table, self.key


class Scribe:
    """Writes events to a file as they happen, and keeps them."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.events: list[Event] = []
        self._lock = threading.Lock()
        self._file: TextIO = path.open("w")
        self._file.write(json.dumps(about) + "\n")

    def add(self, *events: Event) -> None:
        with self._lock:
            self.events += events
            self._file.writelines(json.dumps(asdict(event)) + "\n" for event in events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def read(path: Path) -> tuple[dict[str, Any], list[Event]]:
    """What a scribe wrote: what it is about, and the events."""
    with path.open() as lines:
        about: dict[str, Any] = json.loads(next(lines))
        return about, list(_events(lines))


def _events(lines: TextIO) -> Iterator[Event]:
    for line in lines:
        said = json.loads(line)
        yield Event(**{**said, "kind": Kind(said["kind"]), "outcome": Outcome(said["outcome"])})
