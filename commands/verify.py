"""`cartridge-warp verify`: is the destination equal to the source?

A pass over each table is stored first; its units are worked on as any others are, by the fleet that
runs, or in this process with `--here`.  Exit code 3 where something differs.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from commands import certificate
from commands.choosing import age, moment, print_json, print_table
from commands.cli import JSON, asking
from commands.comparing import Side, sides
from commands.progress import waiting
from warp import startup, verifying
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.digest.seams import Pass
from warp.errors import ConfigError, TransientError, WarpError
from warp.model import SHARED, TableId, TableSelection, TableSettings, UnitKind, WorkUnit
from warp.pipeline import Meter, NoMeter
from warp.streams import schemas_of

LOOK_EVERY: Final = 0.2
BEGINS_WITHIN: Final = 60.0  # seconds until somebody must have taken the first unit
STREAM_SILENT: Final = 30.0  # seconds; an idle stream's marker moves every few
SLOTS_HERE: Final = 4
END_LIMIT: Final = 30.0
SHOWN: Final = 20


@click.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--here", is_flag=True, help="Compare in this process; the stream must run.")
@click.option("--last", is_flag=True, help="Show what is known; compare nothing.")
@click.option("--wait/--no-wait", default=True, help="Wait for the outcome; or only ask for it.")
@click.option(
    "--certificate",
    "write",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write down what is equal, to be proved later.",
)
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Prove such a file by reading the destination anew; compare nothing.",
)
@click.option(
    "--rate",
    type=click.IntRange(1),
    metavar="ROWS",
    help="With --here: rows a second that each of its ranges reads at the source, about.",
)
@JSON
@asking
def verify(
    settings: Settings,
    tables: tuple[str, ...],
    here: bool,
    last: bool,
    wait: bool,
    rate: int | None,
    write: Path | None,
    check: Path | None,
    as_json: bool,
) -> int:
    """Compare TABLEs, or all, with their source, while both are written.

    Only differences that stay are reported.
    """
    if rate is not None and not here:
        raise ConfigError(
            "expected --here beside --rate, found none: a fleet compares as fast as `verify.rate` "
            "in its configuration says",
            place="--rate",
        )
    assembly = Plugged(settings) if rate is None else Slowed(settings, rate)
    if check is not None:
        return certificate.check(settings, assembly, check, as_json=as_json)
    return run(
        settings,
        assembly,
        tables,
        here=here,
        last=last,
        wait=wait or write is not None,
        write=write,
        as_json=as_json,
    )


def run(
    settings: Settings,
    assembly: Assembly,
    tables: Sequence[str],
    *,
    here: bool = False,
    last: bool = False,
    wait: bool = True,
    write: Path | None = None,
    as_json: bool = False,
) -> int:
    with sides(settings, assembly, tables) as found:
        if last:
            passes = [p for side in found for p in latest(side)]
            return _tell(found, passes, as_json=as_json)
        units = {side.schema: [*_planned(side)] for side in found}
        everything = [unit for of in units.values() for unit in of]
        if not everything:
            click.echo("no table to compare: none has all of its first rows yet", err=True)
            return startup.DONE
        if not here and settings.coordination.redis_url is not None:
            _offer(settings, everything)
        if not wait and not here:
            click.echo(f"{len(everything)} units are to be compared; see --last", err=True)
            return startup.DONE
        with _working_here(assembly, everything) if here else contextlib.nullcontext():
            passes = _wait(found, units)
        code = _tell(found, passes, as_json=as_json)
        if write is not None and code == startup.DONE:
            certificate.write(settings, found, passes, write)
        return code


class Slowed(Plugged):
    """Every table is compared at one rate, whatever the configuration says."""

    def __init__(self, settings: Settings, rate: float) -> None:
        super().__init__(settings)
        self._rate = rate

    def selection(self, schema: str) -> TableSelection:
        return _AtRate(super().selection(schema), self._rate)


class _AtRate:
    def __init__(self, selection: TableSelection, rate: float) -> None:
        self.namespace = getattr(selection, "namespace", None)
        self.schemas = schemas_of(selection)
        self._selection = selection
        self._rate = rate

    def __call__(self, table: TableId) -> TableSettings | None:
        found = self._selection(table)
        return None if found is None else replace(found, verify_rate=self._rate)


def _planned(side: Side) -> Iterator[WorkUnit]:
    for table in side.tables:
        rows = side.settings(table).chunk_rows
        now = time.time()
        yield from verifying.plan(side.source, side.destination, side.schema, table, rows, now)


def _offer(settings: Settings, units: Sequence[WorkUnit]) -> None:
    """At once.  Only a hint: the coordinator finds their markers anyway."""
    with contextlib.closing(startup.open_ledger(settings)) as ledger:
        try:
            ledger.ensure(units)
        except TransientError as error:
            click.echo(f"the coordinator will offer the units: {error}", err=True)


class _Unmetered:
    """A `Probe` that tells nobody."""

    def meter(self, unit: WorkUnit, selection: TableSelection) -> Meter:
        return NoMeter()

    def error(self, unit: WorkUnit, error: Exception) -> None: ...
    def stopped(self, unit: WorkUnit) -> None: ...
    def fenced(self, unit: WorkUnit) -> None: ...
    def over(self, unit: WorkUnit) -> None: ...


@contextlib.contextmanager
def _working_here(assembly: Assembly, units: Sequence[WorkUnit]) -> Iterator[None]:
    """A worker with a ledger of its own; the fence in the destination keeps two apart."""
    from warp.leases.memory import MemoryLeaseStore
    from workers.worker import Worker

    ledger = MemoryLeaseStore()
    ledger.ensure(units)
    worker = Worker(ledger, assembly, _Unmetered(), slots=SLOTS_HERE)
    thread = threading.Thread(target=worker.run, name="verify here", daemon=True)
    thread.start()
    try:
        yield
    finally:
        worker.drain()
        thread.join(END_LIMIT)


def _wait(found: Sequence[Side], units: dict[str, list[WorkUnit]]) -> list[Pass]:
    """The passes that were asked for, once they are complete."""
    deadline = time.monotonic() + BEGINS_WITHIN
    silence_at = time.monotonic() + STREAM_SILENT
    begun = False
    with waiting("comparing") as tell:
        while True:
            passes = [p for side in found for p in _asked_for(side, units[side.schema])]
            done, all_ = sum(p.done for p in passes), sum(p.units for p in passes)
            tell(done, all_)
            if done == all_:
                return passes
            stopped = _stopped(found, units)
            if stopped:
                raise WarpError(
                    f"expected every unit to come to its end, found {', '.join(stopped)} stopped; "
                    "`cartridge-warp errors` says why",
                )
            begun = begun or done > 0 or _taken(found, units)
            if not begun and time.monotonic() > deadline:
                raise WarpError(
                    f"expected a worker to take a unit within {BEGINS_WITHIN:.0f} s, found none; "
                    "start `cartridge-warp` or a coordinator and workers, or compare `--here`; "
                    "the units stay"
                )
            if time.monotonic() > silence_at:
                silence_at = time.monotonic() + STREAM_SILENT
                _tell_silence(found)
            time.sleep(LOOK_EVERY)


def _tell_silence(found: Sequence[Side]) -> None:
    """Comparing waits for the stream, and nobody else would say that it stands still."""
    for side in found:
        for marker in side.destination.metadata().markers((UnitKind.STREAM,)):
            silent = time.time() - marker.updated_at
            if marker.unit.schema in (side.schema, SHARED) and silent > STREAM_SILENT:
                click.echo(
                    f"{marker.unit.id} has not moved for {silent:.0f} s: is it running? Without "
                    "it nobody can tell a difference from a change on its way",
                    err=True,
                )


def _asked_for(side: Side, units: Sequence[WorkUnit]) -> list[Pass]:
    numbers = {(u.table, int(u.id.rsplit(":", 2)[1])) for u in units}
    return [p for p in side.verifications.passes(side.schema) if (p.table, p.number) in numbers]


def _markers(found: Sequence[Side], units: dict[str, list[WorkUnit]]) -> Iterator[Any]:
    ids = {unit.id for of in units.values() for unit in of}
    for side in found:
        for marker in side.destination.metadata().markers((UnitKind.VERIFY,)):
            if marker.unit.id in ids:
                yield marker


def _taken(found: Sequence[Side], units: dict[str, list[WorkUnit]]) -> bool:
    return any(marker.fence > 0 for marker in _markers(found, units))


def _stopped(found: Sequence[Side], units: dict[str, list[WorkUnit]]) -> list[str]:
    return sorted({m.unit.id for m in _markers(found, units) if m.phase in ("failed", "paused")})


def latest(side: Side) -> Iterator[Pass]:
    """The newest complete pass of each table, else the newest."""
    for table in side.tables:
        passes = side.verifications.passes(side.schema, table)
        whole = [p for p in passes if p.complete]
        yield from (whole or passes)[:1]


def _tell(found: Sequence[Side], passes: Sequence[Pass], *, as_json: bool) -> int:
    differing = [p for p in passes if p.differences]
    kept = {
        (p.schema, p.table): side.verifications.open_differences(
            p.schema, p.table, after=0, limit=SHOWN
        )
        for side in found
        for p in differing
        if p.schema == side.schema
    }
    if as_json:
        print_json(
            {
                "equal": not differing,
                "tables": [
                    {
                        "schema": p.schema,
                        "table": str(p.table),
                        "pass": p.number,
                        "complete": p.complete,
                        "units": {"done": p.done, "all": p.units},
                        "rows": p.rows,
                        "digest": str(p.digest),
                        "differences": p.differences,
                        "set_aside": p.aside,
                        "unsettled": p.unsettled,
                        "oldest_verdict": moment(p.oldest),
                        "newest_verdict": moment(p.newest),
                        "examples": [
                            {
                                "key": k.key,
                                "what": k.sort.value,
                                "columns": list(k.columns),
                                "version": k.version,
                                "found_at": moment(k.at),
                            }
                            for k in kept.get((p.schema, p.table), ())
                        ],
                    }
                    for p in passes
                ],
            }
        )
    else:
        _tell_people(passes, kept)
    return startup.DIFFERENT if differing else startup.DONE


def _tell_people(passes: Sequence[Pass], kept: dict[Any, list[Any]]) -> None:
    print_table(
        ("schema", "table", "rows", "differ", "set aside", "unsettled", "done", "age"),
        [
            (
                p.schema,
                p.table,
                p.rows,
                p.differences,
                p.aside,
                p.unsettled,
                f"{p.done}/{p.units}",
                age(p.oldest) if p.oldest is not None else "",
            )
            for p in passes
        ],
    )
    lines = [
        (table, k.sort, k.key, ", ".join(k.columns)) for (_, table), of in kept.items() for k in of
    ]
    if lines:
        click.echo("", err=True)
        print_table(("table", "what", "key", "columns"), lines)
        click.echo("`cartridge-warp repair` shows both values and mends them", err=True)
    if any(p.unsettled for p in passes):
        click.echo(
            "unsettled: rows that changed at every look; the next pass looks again", err=True
        )
    sys.stdout.flush()
