"""`cartridge-warp validate`: the configuration is right if we get here; can both ends be used?"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError, WarpError

_MOST_NAMED = 5  # tables of a schema that are named; the rest are counted


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what came of it."""

    what: str
    ok: bool
    found: str  # or the error's one line
    seconds: float


def run(settings: Settings, *, as_json: bool, assembly: Assembly | None = None) -> int:
    checks = list(check(settings, assembly or Plugged(settings)))
    ok = all(c.ok for c in checks)
    if as_json:
        shown = {"ok": ok, "digest": settings.digest, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps(shown))
    else:
        _print(checks)
    return startup.DONE if ok else startup.FAILED


def check(settings: Settings, assembly: Assembly) -> Iterator[Check]:
    """Everything that can be checked, also after something failed."""
    names = ", ".join(schema.name for schema in settings.schemas)
    yield Check("configuration", True, f"mode {settings.mode}, schemas {names}", 0.0)
    for schema in settings.schemas:
        look = functools.partial(_source, assembly, schema.name)
        yield _timed(f"source, schema {schema.name}", look)
    place = settings.destination.location
    yield _timed("destination", lambda: f"{_destination(assembly)} at {place}")
    if settings.coordination.redis_url is not None:
        yield _timed("ledger", lambda: _ledger(settings))
    else:
        yield Check("ledger", True, "no Redis configured: an embedded one is started", 0.0)


def _timed(what: str, look: Callable[[], str]) -> Check:
    began = time.monotonic()
    try:
        ok, found = True, look()
    except ConfigError:
        raise  # exit code 2: a person must edit something
    except WarpError as error:
        ok, found = False, str(error)
    return Check(what, ok, found, round(time.monotonic() - began, 3))


def _source(assembly: Assembly, schema: str) -> str:
    with contextlib.closing(assembly.source(schema)) as source:
        source.check()
        tables = [str(table) for table in source.tables()]
    if not tables:
        return "usable; no table of it exists yet"
    named = ", ".join(sorted(tables)[:_MOST_NAMED])
    more = f" and {len(tables) - _MOST_NAMED} more" if len(tables) > _MOST_NAMED else ""
    return f"usable; {named}{more}"


def _destination(assembly: Assembly) -> str:
    with contextlib.closing(assembly.bookkeeping()) as destination:
        destination.check()
    return "usable"


def _ledger(settings: Settings) -> str:
    with contextlib.closing(startup.open_ledger(settings)) as ledger:
        ledger.incarnation()
        return f"usable at {ledger.address}"


def _print(checks: list[Check]) -> None:
    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in checks:
        sign = "[green]ok[/]" if one.ok else "[red]failed[/]"
        table.add_row(sign, one.what, Text(one.found), f"{one.seconds:.1f} s")
    Console(width=None if terminal else 250, highlight=False).print(table)
