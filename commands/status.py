"""`cartridge-warp status`: every unit, who holds it, how far it has got, how late it is."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.status import StatusReader, describe
from warp import headroom, startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.interfaces import LeaseStore
from warp.leases.memory import MemoryLeaseStore

_PHASE_STYLES = {"failed": "red", "paused": "yellow"}
_HEADROOM_STYLES = {"low": "yellow", "lost": "bold red"}
_LONGEST = 40  # of a position, which may be a token of hundreds of characters


def run(settings: Settings, *, as_json: bool, assembly: Assembly | None = None) -> int:
    status = read(settings, assembly or Plugged(settings))
    if as_json:
        click.echo(json.dumps(status))
        return startup.DONE
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 250, highlight=False).print(render(status))
    return startup.DONE


def read(settings: Settings, assembly: Assembly) -> dict[str, Any]:
    """The status now.  Raises what the source, the destination or the ledger raises."""
    schemas = [schema.name for schema in settings.schemas]
    # Who may only look is answered before the first start too, and nothing is created for it.
    with contextlib.closing(assembly.bookkeeping()) as destination:
        if not destination.metadata().prepared():
            return describe(
                (),
                (),
                (),
                schemas=schemas,
                reached={},
                quarantined={},
                deferred={},
                now=time.time(),
            )
    with contextlib.closing(open_ledger(settings)) as ledger:
        reader = StatusReader(assembly, ledger, schemas)
        with contextlib.closing(reader):
            return reader.read()


def open_ledger(settings: Settings) -> LeaseStore:
    """Without a Redis URL only the markers tell, as for units that nobody holds."""
    if settings.coordination.redis_url is None:
        return MemoryLeaseStore()
    return startup.open_ledger(settings)


def render(status: Mapping[str, Any]) -> Group:
    """For people."""
    if not status["units"] and not status["workers"]:
        return Group("nothing has run yet")
    units = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("unit", "phase", "state", "owner"):
        units.add_column(heading)
    for heading in ("fence", "rows", "lag"):
        units.add_column(heading, justify="right")
    scheduled = any(unit.get("slot") for unit in status["units"])
    if scheduled:
        units.add_column("last slot", no_wrap=True)
    kept = any(unit.get("headroom") for unit in status["units"])
    if kept:
        units.add_column("log left", no_wrap=True)
    units.add_column("position", no_wrap=True)
    for unit in status["units"]:
        slot = [_instant(unit.get("slot"))] if scheduled else []
        units.add_row(
            Text(unit["id"]),
            Text(unit["phase"], style=_PHASE_STYLES.get(unit["phase"], "")),
            unit["state"],
            Text(unit["owner"] or "-"),
            str(unit["fence"]),
            f"{unit['rows']:,}",
            f"{unit['lag_seconds']:.1f} s",
            *slot,
            *([_headroom(unit["headroom"])] if kept else []),
            Text(_short(unit["position"] or "-")),
        )
    workers = Table(box=None, pad_edge=False, header_style="bold")
    workers.add_column("worker")
    workers.add_column("held", justify="right")
    workers.add_column("slots", justify="right")
    for worker in status["workers"]:
        workers.add_row(Text(worker["id"]), str(worker["held"]), str(worker["slots"]))
    caught_up = "[green]caught up[/]" if status["caught_up"] else "[yellow]not caught up[/]"
    lines: list[RenderableType] = [units, "", workers, ""]
    aside = [f"{t['quarantined']:,} of {t['table']}" for t in status["tables"] if t["quarantined"]]
    if aside:
        lines.append(Text(f"rows in quarantine: {', '.join(aside)}", style="yellow"))
    waiting = [f"{t['deferred']:,} of {t['table']}" for t in status["tables"] if t["deferred"]]
    if waiting:
        lines.append(Text(f"rows that wait for others: {', '.join(waiting)}", style="yellow"))
    return Group(*lines, Text.from_markup(caught_up))


def _instant(seconds: float | None) -> str:
    if not seconds:
        return "-"
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _headroom(found: Mapping[str, Any] | None) -> Text:
    """What is left of a source's log before it forgets the unit's place."""
    if found is None:
        return Text("-")
    return Text(headroom.short(found), style=_HEADROOM_STYLES.get(found["state"], ""))


def _short(position: str) -> str:
    return position if len(position) <= _LONGEST else position[: _LONGEST - 1] + "…"
