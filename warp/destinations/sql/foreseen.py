"""What a schema change would do, told without doing it: the statements, and the table after them.

A dialect composes them of the same pieces as for the change itself; nothing here locks or writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Generic, TypeVar

from warp.destinations.sql import ddl
from warp.destinations.sql.session import Session
from warp.model import Change, Column, Foreseen, SchemaChange, TableSchema, TableSettings

S = TypeVar("S", bound=Session)


class Foreseeing(ABC, Generic[S]):
    """The changes of one table."""

    def __init__(self, session: S, settings: TableSettings) -> None:
        self._session = session
        self._settings = settings

    @abstractmethod
    def _created(self, wanted: TableSchema) -> Foreseen: ...

    @abstractmethod
    def _added(self, have: TableSchema, column: Column) -> Foreseen: ...

    @abstractmethod
    def _rekeyed(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen: ...

    @abstractmethod
    def _retyped(self, have: TableSchema, old: Column, wanted: Column) -> Foreseen: ...

    def foresee(self, have: TableSchema | None, change: SchemaChange) -> Foreseen:
        """`have` is the table as it would be by then, which may not be there yet."""
        if change.change is Change.CREATE_TABLE:
            if change.schema is None:
                raise AssertionError("CREATE_TABLE carries a schema")
            if have is not None and not have.is_guess:
                return Foreseen(have)
            return self._created(change.schema)
        have, column = ddl.of_existing(self._settings, have, change)
        if change.change is Change.ADD_COLUMN:
            return self._added(have, column)
        old = have.column(column.name)
        if old is None or old.fixed or ddl.holds_all_of(old, column):
            return Foreseen(have)
        if change.change is Change.RETYPE_KEY:
            return self._rekeyed(have, old, column)
        return self._retyped(have, old, column)


def with_column(have: TableSchema, column: Column) -> TableSchema:
    return replace(have, columns=ddl.with_column(have, column))


def kept(have: TableSchema, old: Column) -> Foreseen:
    """A column that cannot become what is wanted, and stays."""
    return Foreseen(with_column(have, replace(old, fixed=True)))
