"""Builds the connectors of a schema from the settings: the one place that knows which classes.

What a schema's name means (a namespace, or one table of `source.database`) only the source can
say, so the first builder of a schema asks it; the answer holds for the life of the process.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol, cast

from warp.config import Mode, Settings
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import SHARED, TableId, TableSelection, TableSettings
from warp.privacy.source import CoveredSource
from warp.streams import Together


class Assembly(Protocol):
    """Where a unit's connectors come from.  Safe to use from several threads."""

    def knows(self, schema: str) -> bool:
        """Is this schema configured in this process?"""
        ...

    def sharing(self) -> tuple[str, ...]:
        """The schemas that share one stream, because following their log twice is dear.

        `SHARED` stands for all of them wherever a schema is asked for.
        """
        ...

    def follows(self, schema: str) -> str:
        """Names what the stream of a schema (or SHARED) carries, by this configuration."""
        ...

    def selection(self, schema: str) -> TableSelection: ...
    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        """With the schema's selection, or that one instead."""
        ...

    def destination(self, schema: str) -> DestinationConnector: ...

    def bookkeeping(self) -> DestinationConnector:
        """A destination connector of no schema, for its metadata only."""
        ...


def nothing(table: TableId) -> TableSettings | None:
    """The selection of somebody who asks about no table."""


class Plugged:
    """The assembly of installed connectors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._selections: dict[str, TableSelection] = {}

    def knows(self, schema: str) -> bool:
        if schema == SHARED:
            return bool(self.sharing())
        return any(s.name == schema for s in self._settings.schemas)

    def sharing(self) -> tuple[str, ...]:
        connector: Any = self._settings.source.connector
        if connector.traits.follows_twice or not connector.traits.streams:
            return ()
        return tuple(s.name for s in self._settings.schemas if s.mode is Mode.STREAM)

    def follows(self, schema: str) -> str:
        return self._settings.follows(self.sharing() if schema == SHARED else [schema])

    def selection(self, schema: str) -> TableSelection:
        with self._lock:
            known = self._selections.get(schema)
        if known is not None:
            return known
        if schema == SHARED:
            return Together({name: self.selection(name) for name in self.sharing()})
        source = self._source(nothing)
        try:
            found = self._settings.resolve(schema, source.namespaces())
        finally:
            source.close()
        with self._lock:
            return self._selections.setdefault(schema, found)

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        chosen = selection or self.selection(schema)
        source = self._source(chosen)
        names = self.sharing() if schema == SHARED else [schema]
        paths = self._settings.private_paths(names)
        if not paths:
            return source
        key = self._settings.schema(names[0]).privacy_key
        return cast("SourceConnector", CoveredSource(source, chosen, paths=paths, key=key))

    def destination(self, schema: str) -> DestinationConnector:
        return self._destination(self.selection(schema))

    def bookkeeping(self) -> DestinationConnector:
        return self._destination(nothing)

    def _source(self, selection: TableSelection) -> SourceConnector:
        connector: Any = self._settings.source.connector
        built: SourceConnector = connector(self._settings.source.options, selection)
        return built

    def _destination(self, selection: TableSelection) -> DestinationConnector:
        connector: Any = self._settings.destination.connector
        built: DestinationConnector = connector(self._settings.destination.options, selection)
        return built
