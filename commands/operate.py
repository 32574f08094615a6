"""`resync` and `revive`: what an operator may order, written to the metadata schema first.

The ledger is told afterwards and only as a hint: were it lost on the way, the coordinator would
offer the same units from the markers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import click

from commands.status import open_ledger
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError
from warp.interfaces import LeaseStore
from warp.model import Marker, Phase, TableId, UnitKind, WorkUnit
from warp.plugins import nearest

STOPPED = (Phase.FAILED, Phase.PAUSED)
_WORKING = {UnitKind.STREAM: Phase.STREAMING, UnitKind.TABLE: Phase.STREAMING}


def resync(
    settings: Settings,
    schema: str,
    table: str | None,
    *,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    """Read a schema, or one table of it, anew; rows that are gone at the source go here too."""
    assembly = assembly or Plugged(settings)
    settings.schema(schema)
    with contextlib.closing(assembly.source(schema)) as source:
        chosen = _table(table, source.tables(), schema) if table is not None else None
        # Before the first row is read again: the stream goes on from here (design section 13).
        position = source.position()
    with contextlib.closing(assembly.bookkeeping()) as destination:
        metadata = destination.metadata()
        metadata.prepare()
        again = metadata.resync(schema, chosen, position=position)
    with contextlib.closing(open_ledger(settings)) as ledger:
        for unit in again:
            _offer(ledger, unit)
    what = str(chosen) if chosen else f"schema {schema}"
    _tell({"resync": what, "units": [unit.id for unit in again]}, as_json=as_json)
    return startup.DONE


def revive(
    settings: Settings, unit_id: str, *, as_json: bool, assembly: Assembly | None = None
) -> int:
    """Let a stopped unit try again from where it stands."""
    assembly = assembly or Plugged(settings)
    with contextlib.closing(assembly.bookkeeping()) as destination:
        metadata = destination.metadata()
        metadata.prepare()
        marker = _unit(unit_id, metadata.markers())
        stopped = marker.phase in STOPPED
        if stopped:
            metadata.mark(unit_id, _WORKING.get(marker.unit.kind, Phase.PLANNED))
    with contextlib.closing(open_ledger(settings)) as ledger:
        was_dead = ledger.revive(unit_id)
        if stopped and not was_dead:
            ledger.offer(marker.unit)
    _tell({"revived": unit_id, "was_stopped": stopped or was_dead}, as_json=as_json)
    return startup.DONE


def _table(name: str, tables: Sequence[TableId], schema: str) -> TableId:
    for table in tables:
        if name in (table.name, str(table)):
            return table
    known = [str(table) for table in tables]
    raise ConfigError(
        f"expected a table of schema {schema!r} that exists at the source, found {name!r}; "
        + nearest(name, [t.name for t in tables] + known),
        place="TABLE",
    )


def _unit(unit_id: str, markers: Sequence[Marker]) -> Marker:
    units = {m.unit.id: m for m in markers if m.unit.kind is not UnitKind.TABLE}
    if unit_id not in units:
        raise ConfigError(
            f"expected the id of a unit, as `status` shows it, found {unit_id!r}; "
            + nearest(unit_id, units),
            place="UNIT",
        )
    return units[unit_id]


def _offer(ledger: LeaseStore, unit: WorkUnit) -> None:
    if not ledger.revive(unit.id):
        ledger.offer(unit)


def _tell(answer: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    for key, value in answer.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        click.echo(f"{key}: {text}")
