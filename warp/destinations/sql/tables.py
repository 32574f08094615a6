"""One table's changes into their table: straight, merged together, or one by one where one was
refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Generic, TypeVar

from warp import faults
from warp.destinations.sql.keyless import Keyless
from warp.destinations.sql.landing import Landing, TableState
from warp.destinations.sql.notes import Deed
from warp.destinations.sql.quarantine import Replaying, Standings
from warp.destinations.sql.session import Session
from warp.destinations.sql.staging import SqlStaging
from warp.destinations.sql.straight import Straight
from warp.model import Marker, TableId, TableSchema, TableSelection, TableSettings, WorkUnit
from warp.staged import Staged

S = TypeVar("S", bound=Session)
L = TypeVar("L", bound=Landing)
D = TypeVar("D", bound=Deed)


class SqlTables(ABC, Generic[S, L, D]):
    """Lands changes within a write transaction that holds their table's own row."""

    def __init__(
        self,
        session: S,
        selection: TableSelection,
        staging: SqlStaging[S, L],
        straight: Straight[Any, L],
        standings: Standings[Any, L],
        keyless: Keyless[Any],
    ) -> None:
        self._session = session
        self._selection = selection
        self._staging = staging
        self._straight = straight
        self._standings = standings
        self._keyless = keyless

    # -- what each server does in its own way

    @abstractmethod
    def _as_registered(self, table: TableId) -> AbstractContextManager[None]:
        """A statement that finds other columns than the registry tells says that the schema
        moved."""

    @abstractmethod
    def _registered(self, settings: TableSettings) -> TableSchema | None: ...

    @abstractmethod
    def _remove_all(
        self, landing: L, state: TableState, version: int, deed: D, *, carefully: bool
    ) -> None:
        """All rows up to a version."""

    @abstractmethod
    def _land_one_by_one(
        self,
        part: Staged,
        landing: L,
        state: TableState,
        deed: D,
        replaying: Replaying[L] | None,
    ) -> None:
        """What is refused goes into the deed."""

    @abstractmethod
    def _settle(self, marker: Marker, landing: L) -> None: ...

    @abstractmethod
    def _older(self, landing: L, newest: int) -> None: ...

    # -- within a write transaction

    def land(
        self,
        part: Staged,
        landing: L,
        state: TableState,
        deed: D,
        replaying: Replaying[L] | None,
        *,
        carefully: bool,
    ) -> None:
        """One table's changes; what is refused goes into the deed, when asked to find it out."""
        with self._as_registered(part.schema.table):
            version = part.truncated_at
            if version is not None and part.schema.key:
                self._remove_all(landing, state, version, deed, carefully=carefully)
                self._session.named("raise_truncated_at", unit=state.unit, version=version)
                state = replace(state, truncated_at=max(state.truncated_at, version))
            if len(part) and carefully:
                self._land_one_by_one(part, landing, state, deed, replaying)
            elif len(part) and (
                replaying is not None or not self._straight.lands(part, landing, state)
            ):
                self._staging.copy(part, landing)
                faults.hit("after_copy")
                self._staging.merge(part, landing, state)
            if version is not None and not part.schema.key:
                self._keyless.reveal(landing.place)

    # -- for the metadata, in its transactions

    def settle(self, marker: Marker) -> None:
        """The rows' part of settling a table, in the caller's transaction that excludes writers:
        tombstones and rows that a new snapshot did not find again go, and what waits and is
        overruled by one of them with it."""
        landing = self._landing_of(marker.unit)
        if landing is not None:
            self._settle(marker, landing)

    def count_as_older(self, unit: WorkUnit, newest: int) -> None:
        """The rows' part of a resync to another count of versions, in the caller's transaction."""
        landing = self._landing_of(unit)
        if landing is not None and landing.schema.key:  # without a key nothing is compared
            self._older(landing, newest)

    def _landing_of(self, unit: WorkUnit) -> L | None:
        """None where there is no table yet."""
        settings = self._selection(unit.table) if unit.table else None
        schema = None if settings is None else self._registered(settings)
        return None if schema is None else self._staging.landing(schema, unit)
