"""What `quarantine` and `errors` share: the flags that choose rows, and how rows are shown."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import click
from pydantic_core import PydanticCustomError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warp.model import Aside, Choice
from warp.options import parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])

LONGEST: Final = 80  # characters of a text in a table; `--json` and `show` give it whole
_WIDTH: Final = 250  # where stdout is no terminal


def _duration(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except PydanticCustomError as error:
        raise click.BadParameter(str(error)) from None


TABLE = click.option("--table", metavar="NAME", default="", help="Only of this source table.")
OLDER = click.option(
    "--older-than",
    metavar="DURATION",
    callback=_duration,
    help="Only what is older, such as 7d.",
)
NEWER = click.option(
    "--newer-than",
    metavar="DURATION",
    callback=_duration,
    help="Only what is newer, such as 1h.",
)
LIMIT = click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Lines at most."
)


def schemas_asked() -> tuple[str, ...]:
    """The schemas named by `--schema`, before or after the command's name; none: all."""
    context = click.get_current_context()
    return tuple(context.params.get("schema") or context.obj.get("schema") or ())


def choice_of(given: dict[str, Any]) -> Choice:
    """A choice of the flags in `given` that choose; the others stay in it."""
    names = ("table", "code", "reason", "older_than", "newer_than")
    parts = {name: given.pop(name) for name in names if name in given}
    states = tuple(Aside(state) for state in given.pop("states", ()))
    return Choice(schemas=schemas_asked(), states=states, **parts)


def print_json(answer: Any) -> None:
    click.echo(json.dumps(answer))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """For people.  Numbers stand on the right."""
    rows = [*rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        numbers = bool(rows) and all(isinstance(row[place], int) for row in rows)
        table.add_column(heading, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(Text(plain(str(cell), LONGEST)) for cell in row))
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else _WIDTH, highlight=False).print(table)


def plain(text: str, longest: int | None = None) -> str:
    """On one line, and without what a terminal would obey."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def moment(seconds: float | None) -> str:
    """A time as JSON carries it."""
    if seconds is None:
        return ""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def age(seconds: float) -> str:
    """How long ago, for people."""
    passed = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if passed >= length:
            return f"{passed / length:.0f}{unit}"
    return f"{passed:.0f}s"
