"""A table that is compared, as it is registered and as statements spell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warp.destinations.bigquery.merge import DELETED
from warp.destinations.bigquery.names import quoted
from warp.destinations.bigquery.spelling import Spelled
from warp.destinations.bigquery.tables import Table
from warp.errors import SchemaMoved


@dataclass(frozen=True, slots=True)
class Place:
    """A table as it is registered, and how it is spelled in statements."""

    table: Table
    name: str  # quoted
    soft: str | None

    @property
    def live(self) -> str:
        """Is this a row?  One that somebody else wrote has no mark."""
        marks = [DELETED] if self.soft is None else [DELETED, quoted(self.soft)]
        return " AND ".join(f"NOT IFNULL({mark}, FALSE)" for mark in marks)

    def spelled(self, names: Sequence[str]) -> list[Spelled]:
        by_name = {one.column.name: one for one in self.table.spelled}
        if not by_name.keys() >= set(names):
            raise SchemaMoved("columns that are compared are not there any more")
        return [by_name[name] for name in names]
