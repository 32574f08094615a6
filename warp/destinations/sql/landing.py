"""A destination table and how it is written to, and its own row in the metadata.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from warp.errors import DestinationRefused
from warp.model import Operation, Phase, TableId, TableSchema, TableSelection, TableSettings
from warp.staged import Staged


@dataclass(frozen=True, eq=False)
class Landing:
    """Compared by identity: whoever writes keeps one per table version, and each statement is
    composed once per Landing.
    """

    schema: TableSchema
    place: TableId  # at the destination
    staging: str  # the temporary table
    soft: str | None  # the column that marks a deleted row, if rows are kept
    meta: str  # where the metadata is
    unit: str = ""  # the unit that writes, for the audit
    of_chunk: bool = False  # are its rows a snapshot's, so that few of their keys are there?

    def places(self, names: Iterable[str]) -> list[int]:
        at = {column: place for place, column in enumerate(self.schema.names())}
        return [at[column] for column in names]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table's own marker row, as a write transaction finds and locks it."""

    unit: str
    epoch: int
    phase: Phase
    schema_version: int
    truncated_at: int
    waiting: bool = False  # do changes of it wait for other rows?


def selected(selection: TableSelection, table: TableId, *, place: str) -> TableSettings:
    """The settings of a table that somebody wants written."""
    settings = selection(table)
    if settings is None:
        raise DestinationRefused(f"{table} is not selected by the configuration", place=place)
    return settings


def deletes_first(part: Staged) -> list[int]:
    """The numbers of the rows.  A value that a deleted row held is free for those that come
    after."""
    return sorted(range(len(part)), key=lambda row: part.operations[row] != Operation.DELETE)
