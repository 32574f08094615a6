"""`cartridge-warp repair`: what `verify` found, looked at again, shown, and mended with `--apply`.

Nothing here writes to a table: corrections are handed to the replay unit of their table, which
lands them under its lease and leaves alone whatever is newer.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import click

from commands.choosing import plain, print_json, print_table
from commands.cli import JSON, asking
from commands.comparing import Side, metadata_of, sides
from commands.progress import waiting
from commands.quarantine import offer_replays
from warp import repairing, startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.digest.seams import Kept
from warp.errors import SchemaMoved
from warp.model import Aside, Choice, Phase, TableId, UnitKind
from warp.repairing import Correction, Looked, Repair

PAGE: Final = 500
ATTEMPTS: Final = 5
LIMIT: Final = 120.0  # seconds to wait for the corrections to land
LOOK_EVERY: Final = 0.2


@click.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--apply", is_flag=True, help="Do it; else only what would be done is told.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only so many rows.")
@JSON
@asking
def repair(
    settings: Settings, tables: tuple[str, ...], apply: bool, limit: int | None, as_json: bool
) -> int:
    """Mend the rows that `verify` found to differ, and no others.

    A dry run, unless `--apply`.  A row that the stream has changed since is left alone.
    """
    return run(settings, Plugged(settings), tables, apply=apply, limit=limit, as_json=as_json)


@dataclass(slots=True)
class Outcome:
    """What one table's repair has come to."""

    schema: str
    table: TableId
    corrections: list[Correction] = field(default_factory=list)
    gone: int = 0
    later: int = 0
    became: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def run(
    settings: Settings,
    assembly: Assembly,
    tables: Sequence[str],
    *,
    apply: bool,
    limit: int | None = None,
    as_json: bool = False,
) -> int:
    outcomes: list[Outcome] = []
    with sides(settings, assembly, tables) as found:
        for side in found:
            for table in side.tables:
                outcome = _repair(side, table, apply=apply, limit=limit)
                if apply and any(c.row for c in outcome.corrections):
                    place = (side.schema, table)
                    metadata = metadata_of(side.destination)
                    outcome.notes += offer_replays(settings, metadata, [place])
                    _land(side, outcome)
                outcomes.append(outcome)
    _tell(outcomes, apply=apply, as_json=as_json)
    left = any(
        c.row is None or not apply for outcome in outcomes for c in outcome.corrections
    ) or any(outcome.became[Aside.WAITING] for outcome in outcomes)
    return startup.DIFFERENT if left else startup.DONE


def _repair(side: Side, table: TableId, *, apply: bool, limit: int | None) -> Outcome:
    outcome = Outcome(side.schema, table)
    for kept in _pages(side, table, limit):
        looked = _looked(side, table, kept, holding=apply)
        outcome.corrections += looked.corrections
        outcome.gone += len(looked.gone)
        outcome.later += looked.later
        if not apply:
            continue
        side.verifications.decide(looked.gone, "gone")
        written = [c for c in looked.corrections if c.row is not None]
        if written:
            rows = [c.row for c in written if c.row is not None]
            side.verifications.correct(side.schema, table, rows, [c.id for c in written])
    return outcome


def _pages(side: Side, table: TableId, limit: int | None) -> Iterator[list[Kept]]:
    after, left = 0, limit
    while left is None or left > 0:
        page = side.verifications.open_differences(
            side.schema, table, after=after, limit=min(PAGE, left or PAGE)
        )
        if not page:
            return
        yield page
        after = page[-1].id
        left = None if left is None else left - len(page)


def _looked(side: Side, table: TableId, kept: Sequence[Kept], *, holding: bool) -> Looked:
    masked = side.settings(table).hidden
    for _ in range(ATTEMPTS):
        with contextlib.suppress(SchemaMoved):  # the stream has changed a column: look again
            look = Repair(side.ends(), side.schema, table, masked=masked)
            found = look.look(kept, holding=holding)
            if found is not None:
                return found
    return Looked([], [], later=len(kept))


def _land(side: Side, outcome: Outcome) -> None:
    """Wait until the corrections have landed, or were overruled by something newer."""
    deadline = time.monotonic() + LIMIT
    metadata = metadata_of(side.destination)
    with waiting("repairing"):
        while time.monotonic() < deadline:
            units = metadata.markers((UnitKind.REPLAY,))
            phases = [
                m.phase
                for m in units
                if m.unit.schema == side.schema and m.unit.table == outcome.table
            ]
            if all(phase is Phase.IDLE for phase in phases):
                break
            time.sleep(LOOK_EVERY)
        else:
            outcome.notes.append(
                f"the corrections of {outcome.table} are stored and wait for a worker"
            )
    ids = _newest_corrections(side, outcome)
    outcome.became.update(ids)
    if not outcome.became[Aside.WAITING] and not outcome.became[Aside.REPLAYING]:
        repaired = [c.id for c in outcome.corrections if c.row is not None]
        side.verifications.decide(repaired, "repaired")


def _newest_corrections(side: Side, outcome: Outcome) -> Counter[str]:
    """What became of the rows handed on just now."""
    keys = {c.key for c in outcome.corrections if c.row is not None}
    rows = metadata_of(side.destination).quarantine(
        Choice(schemas=(side.schema,), table=str(outcome.table), code=repairing.CODE)
    )
    newest = {row.row.key: row.state.value for row in rows if row.row.key in keys}
    return Counter(newest.values())


def _tell(outcomes: Sequence[Outcome], *, apply: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "applied": apply,
                "tables": [
                    {
                        "schema": outcome.schema,
                        "table": str(outcome.table),
                        "rows": [_described(c) for c in outcome.corrections],
                        "gone": outcome.gone,
                        "unsettled": outcome.later,
                        "became": dict(outcome.became),
                        "notes": outcome.notes,
                    }
                    for outcome in outcomes
                ],
            }
        )
        return
    lines = [
        (
            outcome.table,
            correction.sort,
            correction.key,
            cell.column,
            _null(cell.at_source),
            _null(cell.at_destination),
        )
        for outcome in outcomes
        for correction in outcome.corrections
        for cell in correction.cells or (repairing.Cell("", None, None),)
    ]
    if lines:
        print_table(("table", "what", "key", "column", "at source", "at destination"), lines)
    for outcome in outcomes:
        for note in {c.why_not for c in outcome.corrections if c.why_not} | set(outcome.notes):
            click.echo(f"{outcome.table}: {plain(note)}", err=True)
        if outcome.gone:
            click.echo(f"{outcome.table}: {outcome.gone} differ no more", err=True)
        for state, rows in outcome.became.items():
            click.echo(f"{outcome.table}: {rows} {_BECAME.get(state, state)}", err=True)
    if not any(outcome.corrections for outcome in outcomes):
        click.echo("nothing to repair; `cartridge-warp verify` looks for differences", err=True)
    elif not apply:
        click.echo("a dry run: nothing was changed; add --apply to do it", err=True)


_BECAME: Final = {
    Aside.REPLAYED.value: "repaired",
    Aside.SUPERSEDED.value: "left alone: the source has said something newer",
    Aside.WAITING.value: "refused by the destination; see `cartridge-warp quarantine list`",
    Aside.REPLAYING.value: "on their way",
}


def _null(text: str | None) -> str:
    return "NULL" if text is None else text


def _described(correction: Correction) -> dict[str, object]:
    return {
        "key": correction.key,
        "what": correction.sort.value,
        "columns": {
            cell.column: {"source": cell.at_source, "destination": cell.at_destination}
            for cell in correction.cells
        },
        "why_not": correction.why_not,
    }
