"""`cartridge-warp status`: every unit, who holds it, how far it has got, how late it is."""

from __future__ import annotations

import contextlib
import json
import time

import click

from coordinator.status import StatusReader
from coordinator.status import as_json as status_json
from dashboards import plain
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.fleet.view import FleetView
from warp.interfaces import LeaseStore
from warp.leases.memory import MemoryLeaseStore


def run(settings: Settings, *, as_json: bool, assembly: Assembly | None = None) -> int:
    fleet = look(settings, assembly or Plugged(settings))
    if as_json:
        click.echo(json.dumps(status_json(fleet)))
    else:
        plain.console().print(plain.of_fleet(fleet))
    return startup.DONE


def look(settings: Settings, assembly: Assembly) -> FleetView:
    """The fleet now.  Raises what the source, the destination or the ledger raises."""
    schemas = [schema.name for schema in settings.schemas]
    # Who may only look is answered before the first start too, and nothing is created for it.
    with contextlib.closing(assembly.bookkeeping()) as destination:
        if not destination.metadata().prepared():
            return FleetView(as_of=time.time())
    with contextlib.closing(open_ledger(settings)) as ledger:
        reader = StatusReader(assembly, ledger, schemas)
        with contextlib.closing(reader):
            return reader.look()


def open_ledger(settings: Settings) -> LeaseStore:
    """Without a Redis URL only the markers tell, as for units that nobody holds."""
    if settings.coordination.redis_url is None:
        return MemoryLeaseStore()
    return startup.open_ledger(settings)
