"""What capture asks of a SQL source: the seam that a connector implements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from warp.model import Cells, Diagnosis, Kind, TableId, TableSchema


@dataclass(frozen=True, slots=True)
class Clock:
    """The source's own clock, and how long its transactions have been open.

    All times in microseconds since 1970-01-01 UTC.
    """

    now: int
    # When the oldest transaction began that may still commit rows; None where there is none.
    oldest: int | None = None
    # What kind of session it belongs to, for people: "pid 4711".
    holder: str = ""
    # A transaction is open whose beginning nobody can tell (prepared): stay where we are.
    unknown: bool = False
    # Why the server does not tell about its transactions, and how to let it; empty where it does.
    untold: str = ""


class Dialect(Protocol):
    """How a server spells things.  Pure.

    Statements are run without parameters, so a percent sign means nothing.
    """

    def name(self, *parts: str) -> str:
        """A quoted name, such as of a column, or of a schema and a table."""
        ...

    def literal(self, kind: Kind, text: str) -> str:
        """A value of a column of this kind, given as `warp.kinds.as_text` writes it."""
        ...

    def selected(self, table: TableId, column: str) -> str:
        """The quoted column as a result has all of it."""
        ...

    def ordered(self, table: TableId, column: str) -> str:
        """The quoted column as `order by` and `>` agree about it."""
        ...


class SqlSide(Protocol):
    """A reading connection to the source, in the hand of one thread at a time.

    Each call sees what is committed when it is made.  Errors are the connector's own:
    SourceUnavailable, SourceRefused.
    """

    @property
    def dialect(self) -> Dialect: ...

    @property
    def page_rows(self) -> int:
        """Rows that a page has at least: many, where each page costs a scan of the table."""
        ...

    def schema(self, table: TableId) -> TableSchema | None:
        """The table as it is now; None where it is gone."""
        ...

    def version(self) -> int:
        """The order key now; never falls while the server is the same."""
        ...

    def clock(self) -> Clock: ...

    def select(
        self, statement: str, schema: TableSchema, *, rows: int
    ) -> Iterator[Sequence[Cells]]:
        """The rows as columns of carriers, in parts of at most `rows`, fewer where they are large.

        The statement names the schema's columns in order.
        """
        ...

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """A few rows, as the driver gives them."""
        ...

    def act(self, *statements: str) -> None:
        """In one transaction, as far as the server has such for these statements.

        Raises SourceUnavailable, within some seconds, where a lock is held by others.
        """
        ...

    def leads_index(self, table: TableId, column: str) -> bool:
        """Does an index of the table begin with this column?"""
        ...

    @property
    def triggers(self) -> Triggers: ...

    def close(self) -> None: ...


class Triggers(Protocol):
    """How a server keeps a queue of the keys that were written to a table."""

    def queue(self, table: TableId) -> TableId:
        """Where it is.  A table with the columns `id`, `truncated` (0 or 1) and `k0`, `k1`, …"""
        ...

    def install(self, table: TableId, schema: TableSchema) -> bool:
        """Make queue and triggers, or find them made; True where something had to be made.

        Returns once every transaction that wrote to the table before them has ended.  Raises
        SourceUnavailable where that takes longer than others could be made to wait behind us.
        """
        ...

    def changes_unseen(self, table: TableId) -> str:
        """What can tell that rows changed without their triggers, such as which queue it is.

        Another text than at the last look: they have.  It is another after each installation, so
        that one whose run was killed before the table was compared is not forgotten.
        """
        ...

    def diagnose(self, table: TableId) -> list[Diagnosis]:
        """Rights that `install` needs, and changes that run no trigger."""
        ...

    def remove(self, table: TableId) -> None:
        """Take triggers and queue away, and what else nobody needs any more."""
        ...
