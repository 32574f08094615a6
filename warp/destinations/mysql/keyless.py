"""Tables without a key: read whole again and again, and each run takes the place of the last.

No change can find its row there, so rows are only ever added.  Those of a run under way are hidden
as tombstones are (`_cw_deleted`); its last transaction removes the rows of the run before and
shows its own, so a reader sees one run or the other, never a mixture.  A run that was cut short is
forgotten when its unit is adopted again, so none of its rows stays (guarantee 7).
"""

from __future__ import annotations

from warp.destinations.mysql import ddl
from warp.destinations.mysql.merge import DELETED, VERSION, Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.errors import DestinationRefused
from warp.model import TableId, TableSelection, TableSettings, UnitKind, WorkUnit


def append(landing: Landing, *, one_version: bool) -> str:
    """The staged rows, hidden.  A cell that was left out is NULL: there is no row to keep it."""
    schema = landing.schema
    into = [quoted(column.name) for column in schema.columns]
    values = [f"s.c{place}" for place in range(len(schema.columns))]
    if landing.soft is not None:
        into.append(quoted(landing.soft))
        values.append("false")
    version = "%(version)s" if one_version else "s.v"
    return (
        f"insert into {landing.table} ({', '.join([*into, VERSION, DELETED])})"
        f" select {', '.join([*values, version, 'true'])} from {landing.staged} as s"
    )


def read_whole(session: Session, selection: TableSelection, unit: WorkUnit) -> TableSettings | None:
    """The table that a chunk or poll reads whole, because it has no key."""
    if unit.table is None or unit.kind not in (UnitKind.CHUNK, UnitKind.POLL):
        return None
    settings = selection(unit.table)
    if settings is None or not is_keyless(session, settings):
        return None
    return settings


def is_keyless(session: Session, settings: TableSettings) -> bool:
    schema = ddl.registered(session, settings)
    return schema is not None and not schema.key


def forget(session: Session, settings: TableSettings) -> None:
    """Rows of a run that was cut short."""
    session.run(f"delete from {_table(settings.destination)} where {DELETED}")


def reveal(session: Session, place: TableId) -> None:
    """The run is whole: its rows take the place of those there were."""
    session.run(f"delete from {_table(place)} where not {DELETED}")
    session.run(f"update {_table(place)} set {DELETED} = false where {DELETED}")


def must_be_whole(session: Session, settings: TableSettings) -> None:
    """At the end of a poll: a capture that brings only what has changed would leave rows hidden."""
    found = session.run(
        f"select 1 from {_table(settings.destination)} where {DELETED} limit 1"
    ).first()
    if found is not None:
        raise DestinationRefused(
            f"expected {settings.table}, which has no key, to be read whole by each poll, found "
            "rows that were picked out; give it a key, or capture it by a full comparison",
            place=str(settings.destination),
        )


def _table(place: TableId) -> str:
    return quoted(fitting(place.namespace), fitting(place.name))
