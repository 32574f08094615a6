"""What comparing asks of connectors; `traits.compares` says which of them can.

A source gives rows by chunk and by key, as it does for snapshots; a destination sums its rows up
where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from warp.digest.comparing import Difference, Key, Sort, Stored
from warp.digest.sums import Sums
from warp.errors import DestinationRefused, SourceRefused
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    Cells,
    ChangeBatch,
    Chunk,
    Column,
    Kind,
    Marker,
    Position,
    QuarantinedRow,
    TableChanges,
    TableId,
    TableSchema,
    WorkUnit,
)

Bound = tuple[Any, ...]
"""A carrier for each column of a key."""

IN_ONE_ORDER: Final = frozenset(
    {
        *(Kind.INT32, Kind.INT64, Kind.DECIMAL, Kind.UUID, Kind.OBJECTID),
        *(Kind.DATE, Kind.TIME, Kind.DATETIME, Kind.TIMESTAMP),
    }
)
"""Kinds whose values every server sorts alike.  Text has a collation, and NaN is the least number
of one server and the greatest of another."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys from `lower` up to, without it, `upper`; None is an open end."""

    lower: Bound | None = None
    upper: Bound | None = None


EVERYTHING: Final = KeyRange()


@dataclass(frozen=True, slots=True)
class Verified:
    """What one unit found in its key range."""

    rows: int  # at the source
    digest: Sums  # of what the destination should have
    position: Position  # the place in the log that the stream had passed
    differences: tuple[Difference, ...] = ()
    aside: int = 0  # rows that are known to be missing or older: in quarantine, or waiting
    unsettled: int = 0  # keys that changed at every look
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One comparison of a whole table, and how far it has got."""

    schema: str
    table: TableId
    number: int
    units: int
    done: int
    rows: int
    differences: int  # not repaired, nor found to be gone
    aside: int
    unsettled: int
    planned_at: float
    oldest: float | None = None  # when the first of its verdicts was found, Unix seconds
    newest: float | None = None
    digest: Sums = field(default_factory=Sums)

    @property
    def complete(self) -> bool:
        return self.done == self.units


@dataclass(frozen=True, slots=True)
class Kept:
    """A difference as the metadata keeps it."""

    id: int
    key: str  # as `warp.stored` writes it
    kinds: dict[str, str]
    sort: Sort
    columns: tuple[str, ...]
    version: int | None
    at: float
    state: str = "open"  # then `repairing`, `repaired` or `gone`


@dataclass(frozen=True, slots=True)
class Compared:
    """Which columns of a destination's table are compared, and by which its rows are told apart."""

    schema: TableSchema
    columns: tuple[Column, ...]  # in the order of their names' bytes
    key: tuple[Column, ...]  # in the order of the key; all compared ones where there is no key


@dataclass(frozen=True, slots=True)
class BoundsOf:
    """A chunk's key range in carriers of the source's kinds."""

    kinds: tuple[Kind, ...]
    range: KeyRange


class Summing(Protocol):
    """The rows of one chunk, summed up by the source's server in the columns and kinds that are
    compared.  Each call sees what is committed when it is made."""

    def total(self) -> Sums: ...
    def leaves(self) -> dict[int, Sums]: ...
    def rows(self, leaves: Sequence[int]) -> list[tuple[Key, bytes]]: ...


class ComparedSource(SourceConnector, Protocol):
    def bounds(self, chunk: Chunk) -> BoundsOf | None:
        """The chunk's key range; None where a key is of a kind that is not IN_ONE_ORDER."""
        ...

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        """Asked where the columns compared are of the source's own kinds.  None where its rows
        must be read to be hashed."""
        ...


class ReadsKeys(ComparedSource, Protocol):
    """What a source can do besides whose `traits.reads_keys` says so."""

    def changes_of(
        self, schema: TableSchema, keys: Sequence[Bound], *, least: int
    ) -> tuple[int, list[TableChanges]]:
        """What makes the destination have of these keys what the table has now, and its version.

        Whole rows as UPDATE, and keys without a row as DELETE, which come first; the version is the
        order key from before they were read, or `least` where that is higher.  Waits for nobody who
        writes to the table.
        """
        ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """How far the runs of a polled table have brought it, in the source's versions."""

    at: int  # what the table held then, the destination has
    # Where not exact, a run may have brought later rows too: only of a key whose row is still as it
    # was, and is no newer at the destination, it is sure what there should be.
    exact: bool


class Remembers(ComparedSource, Protocol):
    """What a source can do besides whose `traits.remembers` says so: show a table as it was."""

    def delivered(self, table: TableId, position: Position) -> Delivered | None:
        """What the destination has while the marker of the table's poll stands here, between runs.

        None where nothing is known of it, or the table cannot be shown as it was then (any more).
        """
        ...

    def rows_at(self, chunk: Chunk, at: int) -> Iterator[ChangeBatch]:
        """As `get_full_snapshot`, as they were then."""
        ...

    def look_up_at(self, rows: TableChanges, at: int) -> TableChanges:
        """As `look_up`, as they were then."""
        ...


class Comparing(Protocol):
    """The rows of a destination, summed up by its server; tombstones and soft-deleted rows are
    none.  Each call sees what is committed when it is made."""

    def total(self, compared: Compared, where: KeyRange) -> Sums: ...

    def leaves(self, compared: Compared, where: KeyRange) -> dict[int, Sums]:
        """By the leaf of the key; those without rows are left out."""
        ...

    def rows(
        self, compared: Compared, where: KeyRange, leaves: Sequence[int]
    ) -> list[tuple[Key, bytes]]:
        """Key and hash of every row of some leaves."""
        ...

    def keeps_forms(self, compared: Compared) -> bool:
        """Has nearly every value here the form that it has at its source?  Where it has not, the
        source's server is not asked to sum up: most rows would have to be looked at."""
        ...

    def kept(self, compared: Compared, cells: Sequence[Cells]) -> Sequence[Cells]:
        """Cells of the compared columns, as rows that were written have them: NULL where this
        server has no form for a value."""
        ...

    def look(self, compared: Compared, keys: Sequence[Cells]) -> list[Stored | None]:
        """What there is of each key, tombstones and soft-deleted rows too; `keys` are columns.

        A row that is not there, and was deleted since the first look by this very object, is told
        as gone at that version.
        """
        ...

    def together(self, tables: Sequence[Compared]) -> tuple[list[Sums], list[Marker]]:
        """All of several tables, and the streams' markers, as they were at one moment."""
        ...

    def recount(
        self,
        place: tuple[str, str],
        columns: Sequence[tuple[str, str]],
        soft_delete_column: str | None,
    ) -> tuple[int, str]:
        """Rows and digest of the table at `place` by another way than `total`: every row is read,
        and hashed by code that shares nothing with the rest.  `columns` are names and kinds."""
        ...

    def single_out(self, compared: Compared, keys: Sequence[Cells]) -> None:
        """Of each key one row is left that a change lands on.

        Where several rows have one key the newest stays, and all are in the audit; a row that has
        no version gets one, and a row that has no key goes.
        """
        ...

    def hold_places(self, compared: Compared, keys: Sequence[Cells], version: int) -> None:
        """A tombstone of this version for each key of which there is nothing.

        It is seen by nobody, and makes a delete that comes before the row leave its trace in the
        audit, so that a row put there afterwards does not outlive it.
        """
        ...


class Verifications(Protocol):
    """What was compared, when, and what was found: in the metadata schema, idempotent."""

    def plan(
        self, schema: str, chunks: Sequence[Chunk], *, number: int, repairs: bool = False
    ) -> bool:
        """Store a pass over a table as PLANNED units; `number` grows from pass to pass.  With
        `repairs` its units mend what they find.

        False, and nothing stored, where a pass of this number or a later one is there.  Units of
        earlier passes go; what they found stays until this pass has ended.
        """
        ...

    def conclude(self, unit: WorkUnit, compared: Compared, verified: Verified) -> bool:
        """What one unit found; True where it found something and is to mend it.

        With the last unit of a pass, differences that it did not find again are GONE.
        """
        ...

    def passes(self, schema: str | None = None, table: TableId | None = None) -> list[Pass]:
        """The last passes of each table, the newest first."""
        ...

    def open_differences(
        self, schema: str, table: TableId, *, after: int, limit: int, unit: str = ""
    ) -> list[Kept]:
        """Rows found to differ (by one unit) and not yet repaired, in the order of their ids."""
        ...

    def start_anew(self, stream: WorkUnit, position: Position) -> None:
        """A stream that has lost its place goes on at another one, under a new epoch.  What
        happened between the two, comparisons with `repairs` must find."""
        ...

    def begin_history(self, stream: WorkUnit, schema: str, newest: int) -> None:
        """The source counts versions anew and is at `newest`: what `MetadataStore.resync` says of
        that, and no more.  Done before the stream is moved; whoever runs it is shut out."""
        ...

    def decide(self, ids: Sequence[int], state: str) -> None: ...

    def set_aside(self, schema: str, table: TableId, keys: Sequence[str]) -> set[str]:
        """Those of the keys (texts of `warp.stored`) of which a row waits in quarantine or for
        another row."""
        ...

    def waiting(self, schema: str, table: TableId, keys: Sequence[str]) -> dict[str, str]:
        """Of those of the keys of which a row waits in quarantine for a person: that row's text."""
        ...

    def correct(
        self, schema: str, table: TableId, rows: Sequence[QuarantinedRow], ids: Sequence[int]
    ) -> int:
        """Hand rows to the replay unit of their table, which lands them under its lease; the
        differences are REPAIRING.  One transaction; how many rows."""
        ...


class ComparedDestination(DestinationConnector, Protocol):
    def comparing(self) -> Comparing: ...
    def verifications(self) -> Verifications: ...


def compared_source(source: SourceConnector, table: TableId) -> ComparedSource:
    if not source.traits.compares:
        raise SourceRefused(
            "expected a source whose rows can be compared, found one that cannot yet: leave its "
            "tables out of `verify`",
            place=str(table),
        )
    return cast("ComparedSource", source)


def compared_destination(destination: DestinationConnector, table: TableId) -> ComparedDestination:
    if not destination.traits.compares:
        raise DestinationRefused(
            "expected a destination that can sum up its rows, found one that cannot yet: leave "
            "its tables out of `verify`",
            place=str(table),
        )
    return cast("ComparedDestination", destination)
