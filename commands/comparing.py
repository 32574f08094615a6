"""What `verify` and `repair` share: the tables that are meant, and both ends of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from commands.choosing import schemas_asked
from warp.assembly import Assembly
from warp.comparison import Ends
from warp.config import Settings
from warp.digest.seams import Verifications, compared_destination
from warp.errors import ConfigError
from warp.interfaces import DestinationConnector, MetadataStore, SourceConnector
from warp.model import Lease, Phase, TableId, TableSelection, TableSettings, UnitKind, WorkUnit
from warp.plugins import nearest


@dataclass(frozen=True, slots=True)
class Side:
    """One schema, open at both ends."""

    schema: str
    source: SourceConnector
    destination: DestinationConnector
    selection: TableSelection
    tables: tuple[TableId, ...]  # whose first rows have all arrived, and which are meant

    @property
    def verifications(self) -> Verifications:
        return compared_destination(self.destination, self.tables[0]).verifications()

    def settings(self, table: TableId) -> TableSettings:
        found = self.selection(table)
        if found is None:
            raise AssertionError("the tables are of the selection")
        return found

    def ends(self) -> Ends:
        return Ends(self.source, self.destination, Unheld(), self.selection)


class Unheld:
    """A `Hold` for a command that only looks: nobody waits for its unit."""

    @property
    def lease(self) -> Lease:
        return Lease(WorkUnit("command", UnitKind.VERIFY, ""), "command", 0)

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def metadata_of(destination: DestinationConnector) -> MetadataStore:
    metadata = destination.metadata()
    if not metadata.prepared():
        raise ConfigError(
            "expected a destination to which something was brought, found no metadata there; "
            "start `cartridge-warp` first",
            place="destination",
        )
    metadata.prepare()
    return metadata


@contextlib.contextmanager
def sides(settings: Settings, assembly: Assembly, names: Sequence[str]) -> Iterator[list[Side]]:
    """The chosen schemas with the tables that `names` means; all where it is empty."""
    chosen = schemas_asked() or tuple(schema.name for schema in settings.schemas)
    with contextlib.ExitStack() as stack:
        found: list[Side] = []
        known: list[str] = []
        missing = set(names)
        for schema in chosen:
            selection = assembly.selection(settings.schema(schema).name)
            source = stack.enter_context(contextlib.closing(assembly.source(schema)))
            destination = stack.enter_context(contextlib.closing(assembly.destination(schema)))
            tables = []
            for marker in metadata_of(destination).markers((UnitKind.TABLE,)):
                table = marker.unit.table
                if table is None or marker.unit.schema != schema or selection(table) is None:
                    continue
                if marker.phase is not Phase.STREAMING:
                    continue
                known.append(str(table))
                if not names or {table.name, str(table)} & set(names):
                    missing -= {table.name, str(table)}
                    tables.append(table)
            if tables:
                found.append(Side(schema, source, destination, selection, tuple(tables)))
        if missing:
            name = min(missing)
            raise ConfigError(
                f"expected a table whose first rows have all arrived, found {name!r}; "
                + nearest(name, known),
                place="TABLE",
            )
        yield found
