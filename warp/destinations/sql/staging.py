"""The staging tables of one connection, each for one version of a table and one unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from warp.destinations.sql.landing import Landing, TableState, selected
from warp.destinations.sql.session import Session
from warp.model import TableSchema, TableSelection, TableSettings, WorkUnit
from warp.staged import Staged

S = TypeVar("S", bound=Session)
L = TypeVar("L", bound=Landing)


class SqlStaging(ABC, Generic[S, L]):
    MOST_TABLES: ClassVar[int]

    def __init__(self, session: S, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection
        # By table, version, columns and unit; the one not used for the longest time first.
        self._landings: OrderedDict[tuple[Any, ...], L] = OrderedDict()
        self._made = 0

    @abstractmethod
    def _make(
        self, name: str, schema: TableSchema, settings: TableSettings, unit: WorkUnit
    ) -> L: ...

    @abstractmethod
    def _drop(self, landing: L) -> None: ...

    @abstractmethod
    def copy(self, part: Staged, landing: L, numbers: Sequence[int] | None = None) -> None:
        """Rows into the staging table; with numbers, all that tells them apart."""

    @abstractmethod
    def merge(self, part: Staged, landing: L, state: TableState) -> None:
        """Staged rows into their table.

        Deletes first: a unique value that one of them frees may be what another row takes.
        """

    def landing(self, schema: TableSchema, unit: WorkUnit) -> L:
        """The table to write to, with its staging table on this connection."""
        columns = tuple((column.name, column.kind) for column in schema.columns)
        key = (schema.table, schema.version, columns, unit.id)
        made = self._landings.get(key)
        if made is not None:
            self._landings.move_to_end(key)
            return made
        settings = selected(self._selection, schema.table, place=self._session.place)
        self._made += 1
        made = self._landings[key] = self._make(f"cw_{self._made}", schema, settings, unit)
        return made

    def drop_old(self) -> None:
        """Before a transaction: no more tables than are worth their memory."""
        while len(self._landings) > self.MOST_TABLES:
            _, oldest = self._landings.popitem(last=False)
            self._drop(oldest)
