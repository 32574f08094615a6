"""Tables without a key: read whole again and again, and each run takes the place of the last.

No change can find its row there, so rows are only ever added.  Those of a run under way are hidden
as tombstones are (`_cw_deleted`); its last transaction removes the rows of the run before and
shows its own, so a reader sees one run or the other, never a mixture.  A run that was cut short is
forgotten when its unit is adopted again, so none of its rows stays (guarantee 7).
"""

from __future__ import annotations

from psycopg import sql

from warp.destinations.postgresql import ddl
from warp.destinations.postgresql.merge import DELETED, VERSION, Landing
from warp.destinations.postgresql.session import Session, name, text
from warp.errors import DestinationRefused
from warp.model import TableId, TableSelection, TableSettings, UnitKind, WorkUnit

_COMMA = text(", ")


def append(landing: Landing, *, one_version: bool) -> sql.Composed:
    """The staged rows, hidden.  A cell that was left out is NULL: there is no row to keep it."""
    schema = landing.schema
    into = [name(column.name) for column in schema.columns]
    values: list[sql.Composable] = [landing.cell(place) for place in range(len(schema.columns))]
    if landing.soft is not None:
        into.append(name(landing.soft))
        values.append(text("false"))
    version = text("%(version)s::bigint") if one_version else text("s.v")
    return text("insert into {} ({}) select {} from {} as s").format(
        landing.table,
        _COMMA.join([*into, VERSION, DELETED]),
        _COMMA.join([*values, version, text("true")]),
        landing.staged,
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
    row = session.named("registered_schema", unit=ddl.unit_of(settings).id).fetchone()
    return row is not None and not row[2] and ddl.registered(session, settings) is not None


def forget(session: Session, settings: TableSettings) -> None:
    """Rows of a run that was cut short."""
    session.run(text("delete from {} where {}").format(_table(settings), DELETED))


def reveal(session: Session, place: TableId) -> None:
    """The run is whole: its rows take the place of those there were."""
    table = name(place.namespace, place.name)
    session.run(text("delete from {} where not {}").format(table, DELETED))
    session.run(text("update {} set {} = false where {}").format(table, DELETED, DELETED))


def must_be_whole(session: Session, settings: TableSettings) -> None:
    """At the end of a poll: a capture that brings only what has changed would leave rows hidden."""
    row = session.run(
        text("select exists (select from {} where {})").format(_table(settings), DELETED)
    ).fetchone()
    if row is not None and row[0]:
        raise DestinationRefused(
            f"expected {settings.table}, which has no key, to be read whole by each poll, found "
            "rows that were picked out; give it a key, or capture it by a full comparison",
            place=str(settings.destination),
        )


def _table(settings: TableSettings) -> sql.Identifier:
    return name(settings.destination.namespace, settings.destination.name)
