"""`cartridge-warp init`: a first configuration from what a source has, in a short dialogue."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands import doctor, starting_file
from commands.choosing import LONGEST, plain
from commands.cli import Flags
from commands.starting_file import Address, Chosen, Listed, Starting
from warp import logs, plugins, startup
from warp.assembly import Plugged, nothing
from warp.config import LogFormat, LoggingSettings, LogLevel, Settings, load
from warp.config.layers import PREFIX
from warp.errors import ConfigError, SourceRefused, TransientError
from warp.model import Capture, TableId, TableSettings, Verdict

_OURS: Final = "cartridge_warp"  # schemas that begin so are ours
_TIMES: Final = "updated_at"
_MOST_SHOWN: Final = 40  # tables on a terminal
_STANDARD_OUTPUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says; empty where it does not."""

    source: str = ""
    destination: str = ""
    redis: str = ""
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    stream: bool | None = None
    output: str = "config.yaml"
    overwrite: bool = False


class Asker(Protocol):
    """Who answers."""

    def text(self, question: str, default: str = "") -> str: ...
    def yes(self, question: str, *, default: bool) -> bool: ...
    def show(self, tables: Sequence[Listed]) -> None: ...
    def again(self, error: ConfigError | SourceRefused | TransientError) -> None:
        """Tell what was wrong with an answer; raise it where nobody would answer anew."""
        ...


class Person:
    """Somebody at a terminal.  All on stderr: stdout is for the file, where it is asked for."""

    def text(self, question: str, default: str = "") -> str:
        return str(click.prompt(question, default=default or None, err=True)).strip()

    def yes(self, question: str, *, default: bool) -> bool:
        return bool(click.confirm(question, default=default, err=True))

    def show(self, tables: Sequence[Listed]) -> None:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        shown.add_column("", justify="right")
        shown.add_column("table", overflow="fold")
        shown.add_column("rows, about", justify="right")
        shown.add_column("key", overflow="fold")
        for number, one in enumerate(tables[:_MOST_SHOWN], 1):
            rows = "?" if one.rows is None else f"{one.rows:,}"
            key = ", ".join(one.key) or "none: it is read whole, again and again"
            cells = (str(number), plain(one.id.name, LONGEST), rows, plain(key, LONGEST))
            shown.add_row(*map(Text, cells))
        console = Console(stderr=True, highlight=False)
        console.print(shown)
        if len(tables) > _MOST_SHOWN:
            console.print(Text(f"and {len(tables) - _MOST_SHOWN:,} more"))

    def again(self, error: ConfigError | SourceRefused | TransientError) -> None:
        click.echo(logs.masked(plain(str(error))), err=True)


class Nobody:
    """`--yes`: what can be found is found, everything else has its default or is an error."""

    def text(self, question: str, default: str = "") -> str:
        if not default:
            raise ConfigError(
                "expected an answer, found nobody to ask; give it as a flag", place=question
            )
        return default

    def yes(self, question: str, *, default: bool) -> bool:
        return default

    def show(self, tables: Sequence[Listed]) -> None: ...

    def again(self, error: ConfigError | SourceRefused | TransientError) -> None:
        raise error


@click.command()
@click.option("--source", metavar="URL", default="", help="Where changes come from.")
@click.option("--destination", metavar="URL", default="", help="Where they go.")
@click.option("--redis", metavar="URL", default="", help="Where the ledger is, if anywhere yet.")
@click.option(
    "--schema", "schemas", metavar="NAME", multiple=True, help="Only this; may be repeated."
)
@click.option(
    "--table",
    "tables",
    metavar="NAME",
    multiple=True,
    help="Only this, or those of a pattern; may be repeated.",
)
@click.option(
    "--stream/--batch", default=None, help="Follow the log, or look on a schedule.", is_flag=True
)
@click.option(
    "--output",
    metavar="FILE",
    default="config.yaml",
    show_default=True,
    help="Where to write; `-` is stdout.",
)
@click.option("--overwrite", is_flag=True, help="Also where a file of that name is.")
@click.option("--yes", is_flag=True, help="Ask nothing; needs no terminal.")
@click.pass_obj
def init(flags: Flags, /, *, yes: bool, **given: Any) -> None:
    """Write a first configuration, from what is at the source.

    Asks for what it cannot find out, looks at both servers as `doctor` does, and writes a file with
    comments.  Passwords are not in it: it refers to variables of the environment.
    """
    if "config" in flags:
        raise click.UsageError("init writes a configuration: name the file by --output")
    for name in ("source", "destination", "redis"):
        given[name] = given[name] or flags.get(name) or ""
    given["schemas"] = given["schemas"] or tuple(flags.get("schema") or ())
    asked = Given(**given)

    def body() -> int:
        if not yes and not sys.stdin.isatty():
            raise ConfigError(
                "expected a terminal to ask on, or the flag --yes, found neither; with --yes also "
                "--source URL and --destination URL"
            )
        try:
            return run(asked, Nobody() if yes else Person(), os.environ)
        except click.Abort:  # Ctrl-C, or the end of the input
            click.echo("\nnothing was written", err=True)
            return startup.FAILED

    sys.exit(startup.exit_code(body))


def run(given: Given, asker: Asker, environment: Mapping[str, str]) -> int:
    """Nothing is written before everything is known, so that an end on the way leaves no file."""
    overwrite = given.overwrite or _may_write(given.output, asker)
    with tempfile.TemporaryDirectory(prefix="cartridge-warp-") as folder:
        trial = Trial(Path(folder) / "config.yaml", environment)
        starting, settings = _both_ends(given, asker, environment, trial)
        source_type, destination_type = settings.source.type, settings.destination.type
        starting = replace(
            starting,
            schemas=tuple(_schemas(given, asker, settings)),
            source_type=source_type,
            destination_type=destination_type,
            output=given.output,
        )
        settings = trial.load(starting)
        found = [
            one
            for one in doctor.examine(settings, Plugged(settings))
            if one.diagnosis.verdict is not Verdict.OK
        ]
        failed = [one for one in found if one.diagnosis.verdict is Verdict.FAILED]
        starting = replace(starting, to_mend=tuple(_to_mend(failed)))
        text = starting_file.text(starting)
    _tell_findings(found)
    if failed and not asker.yes("Write the file all the same?", default=True):
        raise click.Abort
    _write(given.output, text, overwrite=overwrite)
    _tell_what_next(starting)
    return startup.FAILED if failed else startup.DONE


# -- both ends


class Trial:
    """The file as far as it is known, read as every command would read it."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = environment

    def load(self, starting: Starting) -> Settings:
        text = starting_file.text(starting)
        self._path.write_text(text, encoding="utf-8")
        # What is said in the environment beside the file is not what the file says.
        around = {
            name: value
            for name, value in self._environment.items()
            if not name.startswith(PREFIX) or f"${{{name}}}" in text
        }
        settings = load(self._path, around | starting.variables)
        quiet = LoggingSettings(LogLevel.WARNING, LogFormat.AUTO, {})
        logs.configure(quiet, secrets=settings.secrets, process="command")
        return settings


def _both_ends(
    given: Given, asker: Asker, environment: Mapping[str, str], trial: Trial
) -> tuple[Starting, Settings]:
    """Where both servers are; the source answers."""
    found = {end: getattr(given, end) or _in_environment(end, environment) for end in _QUESTIONS}
    if url := given.redis or _in_environment("redis", environment):
        found["redis"] = url
    while True:
        for end, question in _QUESTIONS.items():
            found[end] = found[end] or asker.text(question)
        try:
            addresses = {end: Address.of(url, end) for end, url in found.items()}
            starting = Starting(
                addresses["source"],
                addresses["destination"],
                (Chosen("any", ()),),
                redis=addresses.get("redis"),
            )
            settings = trial.load(starting)
            with contextlib.closing(_source(settings, nothing)) as source:
                source.namespaces()
        except (ConfigError, SourceRefused, TransientError) as error:
            if error.place.startswith(("redis", "coordination")):
                raise
            asker.again(error)
            found["destination" if error.place.startswith("destination") else "source"] = ""
        else:
            return starting, settings


_QUESTIONS: Final = {
    "source": "Source (mongodb://, postgresql://, mysql://, bigquery://)",
    "destination": "Destination (postgresql://, mysql://, bigquery://)",
}


def _in_environment(end: str, environment: Mapping[str, str]) -> str:
    name = PREFIX + ("REDIS_URL" if end == "redis" else end.upper())
    return f"${{{name}}}" if environment.get(name) else ""


def _source(settings: Settings, selection: Any) -> Any:
    connector: Any = settings.source.connector
    return connector(settings.source.options, selection)


# -- schemas and tables


class Looking:
    """Selects all tables of a namespace, for a look at them only.

    By a polled strategy: where a publication is there already, listing the tables of a log would
    put them into it.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace:
            return None
        return TableSettings(table, table, self.namespace, capture=Capture.HASH)


def listed(settings: Settings, namespace: str) -> list[Listed]:
    """The tables of a namespace, with key and size."""
    traits = settings.source.connector.traits
    with contextlib.closing(_source(settings, Looking(namespace))) as source:
        tables = source.tables()
        # A look at documents to propose columns would read thousands, and their key is known.
        schemas = {} if traits.schemaless else source.get_schema(tables)
        rows = source.rows_about(tables) if traits.estimates else {}
    found: list[Listed] = []
    for table in tables:
        schema = schemas.get(table)
        if traits.schemaless:
            found.append(Listed(table, ("_id",), rows.get(table)))
        elif schema is not None:  # else dropped meanwhile
            timed = _TIMES in schema.names()
            found.append(Listed(table, tuple(schema.key), rows.get(table), timed))
    return found


def _schemas(given: Given, asker: Asker, settings: Settings) -> list[Chosen]:
    names = _names(given, asker, settings, _filled(given, settings))
    stream = _stream(given, asker, settings)
    copies = _is_same_server(settings)
    there = {name: listed(settings, name) for name in names}
    everywhere = [table for tables in there.values() for table in tables]
    for wanted in given.tables:
        starting_file.chosen(wanted, everywhere, by_number=False)  # raises where it is nowhere
    chosen: list[Chosen] = []
    for name, tables in there.items():
        entries = _entries(given, asker, name, tables)
        if entries is not None:
            copy = f"{name}_copy" if copies else None
            chosen.append(Chosen(name, tuple(tables), entries, stream, copy))
    return chosen


def _filled(given: Given, settings: Settings) -> dict[str, int]:
    """The namespaces with a table in them, and how many; those that are named in any case."""
    with contextlib.closing(_source(settings, nothing)) as source:
        namespaces = [name for name in source.namespaces() if not name.startswith(_OURS)]
    for name in given.schemas:
        if name not in namespaces:
            raise ConfigError(
                f"expected a namespace of the source, found {name!r}; "
                f"{plugins.nearest(name, namespaces)}",
                place="--schema",
            )
    counted: dict[str, int] = {}
    for name in given.schemas or namespaces:
        with contextlib.closing(_source(settings, Looking(name))) as source:
            counted[name] = len(source.tables())
    return {name: count for name, count in counted.items() if count or given.schemas}


def _names(
    given: Given, asker: Asker, settings: Settings, filled: Mapping[str, int]
) -> Sequence[str]:
    if given.schemas or len(filled) == 1:
        return list(filled)
    if not filled:
        raise ConfigError(
            "expected a namespace with a table in it, found none; does this login see them? Name "
            "the database in the connection string, or one by --schema",
            place=f"source {settings.source.location}",
        )
    sizes = ", ".join(f"{plain(n, LONGEST)} ({count} tables)" for n, count in filled.items())
    database = settings.source.database
    default = database if database in filled else "all"
    while True:
        answer = asker.text(f"Schemas: {sizes}\nWhich (commas between, or all)", default or "all")
        if answer == "all" and "all" not in filled:
            return list(filled)
        names = [answer] if answer in filled else [part.strip() for part in answer.split(",")]
        unknown = [name for name in names if name not in filled]
        if not unknown:
            return list(dict.fromkeys(names))
        asker.again(
            ConfigError(
                f"expected one of the schemas above, found {unknown[0]!r}; "
                f"{plugins.nearest(unknown[0], filled)}",
                place="schemas",
            )
        )


def _entries(
    given: Given, asker: Asker, name: str, tables: Sequence[Listed]
) -> tuple[str, ...] | None:
    """What stands among `tables:`; nothing means all, and None that no table of it is wanted."""
    if given.tables:
        found: list[str] = []
        for wanted in given.tables:
            with contextlib.suppress(ConfigError):  # of another schema
                found += starting_file.chosen(wanted, tables, by_number=False) or ("*",)
        return tuple(dict.fromkeys(found)) or None
    asker.show(tables)
    while True:
        question = f"Tables of {plain(name, LONGEST)} (names, patterns, numbers; commas between)"
        try:
            return starting_file.chosen(asker.text(question, "all"), tables)
        except ConfigError as error:
            asker.again(error)


def _stream(given: Given, asker: Asker, settings: Settings) -> bool:
    """Is the log followed?"""
    if not settings.source.connector.traits.streams:
        if given.stream:
            raise ConfigError(
                f"expected --batch, found --stream: a source of type {settings.source.type} has "
                "no log to follow",
                place="--stream",
            )
        return False
    if given.stream is not None:
        return given.stream
    return asker.yes("Follow its log all the time? (no: look on a schedule)", default=True)


def _is_same_server(settings: Settings) -> bool:
    """Would a table be written onto itself?"""
    source, destination = settings.source, settings.destination
    if source.type != destination.type:
        return False
    ends = [urlsplit(end.location) for end in (source, destination)]
    hosts = [(end.hostname, end.port) for end in ends]
    # A database of MySQL is a namespace: whichever the connection string names, all are there.
    return hosts[0] == hosts[1] and (source.type == "mysql" or ends[0].path == ends[1].path)


# -- the file


def _may_write(output: str, asker: Asker) -> bool:
    if output == _STANDARD_OUTPUT or not Path(output).exists():
        return False
    if not asker.yes(f"{plain(output)} is there already.  Overwrite it?", default=False):
        raise ConfigError(
            "expected a name that is free, found a file; name another by --output, or give "
            "--overwrite",
            place=output,
        )
    return True


def _write(output: str, text: str, *, overwrite: bool) -> None:
    if output == _STANDARD_OUTPUT:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"expected to write a file there, found: {error.strerror}; name another by --output",
            place=output,
        ) from None


def _to_mend(failed: Sequence[doctor.Found]) -> list[str]:
    told = []
    for one in failed:
        it = one.diagnosis
        told.append(f"{one.where}, {it.subject}: expected {it.expected}, found {it.found}")
        told += [f"  {it.mend}"] if it.mend else []
    return told


def _tell_findings(found: Sequence[doctor.Found]) -> None:
    if not found:
        return
    click.echo("doctor says:", err=True)
    for line in doctor.lines(found):
        click.echo(logs.masked(plain(line)), err=True)


def _tell_what_next(starting: Starting) -> None:
    for schema in starting.schemas:
        count = len(schema.carried())
        how = "from the log" if schema.stream else "on a schedule"
        click.echo(f"{plain(schema.name)}: {count} tables, {how}", err=True)
    for name in starting.variables:
        click.echo(f"put into the environment first: {name}", err=True)
    if starting.output != _STANDARD_OUTPUT:
        click.echo(f"written: {plain(starting.output)}", err=True)
        click.echo(f"then: cartridge-warp --config {shlex.quote(starting.output)} --once", err=True)
