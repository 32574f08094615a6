"""What a destination in memory keeps: rows, markers and metadata."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from warp import replays, stored
from warp.model import (
    Aside,
    Diagnosis,
    Marker,
    QuarantinedRow,
    SetAside,
    TableId,
    TableSchema,
)
from warp.testing.memory.source import Key, Row


@dataclass
class Stored:
    """One row of a table: its cells, its version, and whether it is a tombstone."""

    cells: Row
    version: int
    deleted: bool = False


@dataclass
class MemoryWarehouse:
    """What survives a destination connector: data and metadata, changed under one lock."""

    prepared: bool = False
    found: list[Diagnosis] = field(default_factory=list)  # what a look at it tells
    schemas: dict[TableId, TableSchema] = field(default_factory=dict)
    tables: dict[TableId, dict[Key, Stored]] = field(default_factory=dict)
    markers: dict[str, Marker] = field(default_factory=dict)
    aside: list[SetAside] = field(default_factory=list)  # the quarantine; ids are its places
    deferred: Counter[TableId] = field(default_factory=Counter)  # always empty, but for a test
    audit: list[tuple[TableId, Key, Row, int]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    errands: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: Callable[[], float] = time.time

    @property
    def quarantine(self) -> list[QuarantinedRow]:
        """What was set aside, whatever has become of it."""
        return [aside.row for aside in self.aside]

    def rows(self, table: TableId) -> list[Row]:
        """The rows a reader sees."""
        with self.lock:  # tests look while others write
            return [dict(r.cells) for r in self.tables.get(table, {}).values() if not r.deleted]

    def undecided(self, table: TableId) -> set[str]:
        """The keys, as the quarantine writes them, of which something may still land."""
        open_ = (Aside.WAITING, Aside.REPLAYING)
        return {a.row.key for a in self.aside if a.state in open_ and a.row.table == table}

    def text_of(self, table: TableId, key: Key) -> str:
        """As the quarantine writes it."""
        schema = self.schemas[table]
        return stored.dump([c for name in schema.key if (c := schema.column(name))], key)

    def supersede(self, table: TableId, why: str, older: Callable[[SetAside], bool]) -> None:
        """Rows of the quarantine that something newer overrules will not land any more."""
        for place, aside in enumerate(self.aside):
            undecided = aside.state in (Aside.WAITING, Aside.REPLAYING)
            if undecided and aside.row.table == table and older(aside):
                self.aside[place] = replace(aside, state=Aside.SUPERSEDED, last_error=why)

    def supersede_deleted(self, table: TableId, key: Key, version: int) -> None:
        """A row that never landed leaves no line in the audit when it is deleted."""
        text = self.text_of(table, key)
        self.supersede(
            table,
            f"the row was deleted at version {version}",
            lambda aside: aside.row.key == text and aside.row.version <= version,
        )

    def supersede_gone(self, table: TableId, key: Key, version: int) -> None:
        """What a tombstone overrules, before it goes."""
        text, gone = self.text_of(table, key), replays.Standing(version, gone=True)

        def older(aside: SetAside) -> bool:
            row = aside.row
            if row.key != text:
                return False
            cell = bool(row.column)
            return bool(
                replays.overruled(row.operation, row.version, gone, cell=cell, truncated_at=-1)
            )

        self.supersede(table, f"the row was deleted at version {version}", older)


def copied(rows: Mapping[Key, Stored]) -> dict[Key, Stored]:
    """What a transaction goes back to; cells are replaced as a whole, never changed."""
    return {key: Stored(row.cells, row.version, row.deleted) for key, row in rows.items()}
