"""`cartridge-warp plan`: what would happen, by real rows; and the check of a sealed plan."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import warp
from warp import sealed, startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import TableId, TableSelection, TableSettings
from warp.rehearsal import PARTS, Forecast, Rehearsal, rehearse

Look = Callable[[SourceConnector, DestinationConnector, TableSettings], Forecast]


def run(
    settings: Settings,
    *,
    sample: int,
    out: str | None,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    def look(
        source: SourceConnector, destination: DestinationConnector, table: TableSettings
    ) -> Forecast:
        return rehearse(source, destination, table, sample=sample)

    with _progress() as told:
        rows = -(-sample // PARTS)
        forecasts = list(_each(settings, assembly or Plugged(settings), look, told, rows))
    plan = sealed.document(
        forecasts,
        digest=settings.digest,
        version=warp.__version__,
        made_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        sample=sample,
    )
    if out is not None:
        Path(out).write_text(json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        click.echo(json.dumps(plan, ensure_ascii=False))
    else:
        terminal = sys.stdout.isatty()
        show(plan, Console(width=None if terminal else 250, highlight=False))
    blocked = any(table["obstacle"] for table in plan["tables"])
    return startup.FAILED if blocked else startup.DONE


def check(settings: Settings, file: str, *, assembly: Assembly | None = None) -> None:
    """Raise ConfigError where the plan of this file does not fit what is there now."""
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise ConfigError(
            f"expected a plan, found {error.strerror}; `cartridge-warp plan --out FILE` makes one",
            place=file,
        ) from error
    plan = sealed.read(text, file)
    assembly = assembly or Plugged(settings)
    now = list(_each(settings, assembly, _as_it_stands, lambda table: None))
    found = list(sealed.differences(plan, now, digest=settings.digest))
    if found:
        raise ConfigError(
            f"expected what the plan was made of, found {len(found)} differences: "
            f"{'; '.join(found)}; look at a new one (`cartridge-warp plan --out {file}`)",
            place=file,
        )


def _as_it_stands(
    source: SourceConnector, destination: DestinationConnector, table: TableSettings
) -> Forecast:
    before = Rehearsal(destination).get_schema(table.table)
    found = Forecast(table.table, table.schema, table.destination, before)
    if not source.traits.schemaless:
        found.source = source.get_schema([table.table]).get(table.table)
    return found


class Sampled:
    """A selection whose tables are read in pages no larger than the sample."""

    def __init__(self, selection: TableSelection, rows: int) -> None:
        self.namespace = getattr(selection, "namespace", None)
        self._selection = selection
        self._rows = rows

    def __call__(self, table: TableId) -> TableSettings | None:
        settings = self._selection(table)
        if settings is None:
            return None
        size = min(settings.full_load_batch_size, self._rows)
        return replace(settings, full_load_batch_size=size)


def _each(
    settings: Settings,
    assembly: Assembly,
    look: Look,
    tell: Callable[[str], None],
    rows: int = 1_000,
) -> Iterator[Forecast]:
    for schema in settings.schemas:
        selection = assembly.selection(schema.name)
        with (
            contextlib.closing(assembly.source(schema.name, Sampled(selection, rows))) as source,
            contextlib.closing(assembly.destination(schema.name)) as destination,
        ):
            for table in source.tables():
                chosen = selection(table)
                if chosen is not None:
                    tell(str(table))
                    yield look(source, destination, chosen)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line on a terminal that says which table is looked at."""
    if not sys.stderr.isatty():
        yield lambda table: None
        return
    with Console(stderr=True).status("plan: looking") as line:
        yield lambda table: line.update(f"plan: sampling {table}")


# Telling


def show(plan: Mapping[str, Any], console: Console) -> None:
    """For people."""
    for table in plan["tables"]:
        title = f"{table['table']} → {table['destination']}"
        console.print(Text(title, style="bold"))
        console.print(Text(f"  {_rows(table)}"))
        if table["obstacle"]:
            console.print(Text(f"  cannot be carried: {table['obstacle']}", style="red"))
        for statement in table["ddl"]:
            console.print(Text(f"  {statement};"), soft_wrap=True)
        shown = [c for c in table["columns"] if c["cells"]]
        if shown:
            console.print(_columns(shown))
        elif table["rows_sampled"]:
            console.print(Text("  every cell fits its column as it is"))
        console.print()
    console.print(Text(f"{summary(plan)}; seal {plan['seal']}"), soft_wrap=True)


def _rows(table: Mapping[str, Any]) -> str:
    part = "all rows" if table["whole"] else f"of about {table['rows_estimated']:,}"
    told = f"{table['rows_sampled']:,} rows sampled ({part})"
    if table["quarantined_rows"]:
        told += f", {table['quarantined_rows']:,} of them for the quarantine"
    if (billed := table["billed"]) is not None:
        told += f"; the source bills {billed['snapshot']:,} bytes for all rows"
        if billed["run"] is not None:
            told += f", {billed['run']:,} for each run"
        if billed["verification"] is not None:
            told += f", {billed['verification']:,} for each pass of verify"
        if billed["refused"]:
            told += ", which is more than it may for one query"
    return told


def _columns(columns: Sequence[Mapping[str, Any]]) -> Table:
    outcomes = list(dict.fromkeys(name for one in columns for name in one["share"]))
    shown = Table(box=None, padding=(0, 1, 0, 2), header_style="bold")
    for heading in ("column", "kind"):
        shown.add_column(heading)
    for heading in ("lossless", *outcomes):
        shown.add_column(heading, justify="right")
    shown.add_column("because of")
    for one in columns:
        because = ", ".join(dict.fromkeys(f"{m['met']} for {m['expected']}" for m in one["met"]))
        shares = [one["lossless"], *(one["share"].get(name, 0.0) for name in outcomes)]
        cells = [_percent(share) for share in shares]
        shown.add_row(Text(one["column"]), one["kind"] or "-", *cells, Text(because))
    return shown


def _percent(share: float) -> str:
    return "-" if not share else f"{100 * share:.4f}".rstrip("0").rstrip(".") + " %"


def summary(plan: Mapping[str, Any]) -> str:
    tables = plan["tables"]
    statements = sum(len(table["ddl"]) for table in tables)
    lossy = sum(
        1
        for table in tables
        for column in table["columns"]
        if set(column["cells"]) - {outcome.value for outcome in sealed.KEPT}
    )
    return f"{len(tables)} tables, {statements} statements, {lossy} columns that lose something"
