"""Writes `docs/cli.md` from the commands themselves: `python -m commands.reference > docs/cli.md`.

A test compares the file with what this writes, so that no command and no flag goes without its
line.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Final

import click

from commands.cli import cli
from coordinator.cli import command as coordinator
from workers.cli import command as worker

_HEAD: Final = """# Commands and flags

<!-- Written by `python -m commands.reference`; edit the commands. -->

Three programs are installed: `cartridge-warp` with its commands, and the two processes of a fleet.
What the commands do and when to use them is told in
[commands for the operator](operations/commands.md).

Every command reads the same configuration: a file by `--config`, the environment
(`CARTRIDGE_WARP_…`), and flags, which win over both and may stand on either side of the command.
Below, `CONFIGURATION` stands for those that every such command takes: `--config FILE`, `--mode`,
`--source URL`, `--destination URL`, `--schema NAME` and `--redis URL`. stdout has the answer and
nothing else; logs, progress and complaints go to stderr.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | wrong usage, or a mistake in the configuration |
| 3 | done, and differences were found: rows that differ, rows in quarantine |
"""

# Told once: every command that reads the configuration has them.
_SHARED: Final = ("config", "mode", "source", "destination", "schema", "redis")


def page() -> str:
    return "\n".join([_HEAD, *_parts()])


def programs() -> Iterator[tuple[str, click.Command]]:
    """Every command that there is, by its whole name."""
    yield "cartridge-warp", cli
    yield from _below("cartridge-warp", cli)
    yield "warp-coordinator", coordinator
    yield "warp-worker", worker


def _below(name: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for each in group.list_commands(context):
        command = group.get_command(context, each)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _below(f"{name} {each}", command)
        else:
            yield f"{name} {each}", command


def _parts() -> Iterator[str]:
    for name, command in programs():
        shared = command is not cli and _takes_shared(command)
        options = [o for o in _options(command) if not (shared and o.name in _SHARED)]
        flags = ["[CONFIGURATION]"] * shared + ["[FLAGS]"] * bool(options)
        yield f"## {name}\n"
        yield f"```\n{' '.join([name, *flags, *_arguments(command)])}\n```\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        if options:
            yield "| flag | meaning |"
            yield "| --- | --- |"
            yield from (_row(option) for option in options)
            yield ""


def _takes_shared(command: click.Command) -> bool:
    return set(_SHARED) <= {option.name for option in _options(command)}


def _options(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def _arguments(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            name = (parameter.metavar or parameter.name or "").strip("[].").upper()
            name += "…" if parameter.nargs == -1 else ""
            yield name if parameter.required else f"[{name}]"


def _row(option: click.Option) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names += "/" + "/".join(option.secondary_opts)
    if not option.is_flag:
        value = option.metavar or option.type.name.upper()
        if isinstance(option.type, click.Choice):
            value = "/".join(map(str, option.type.choices))
        elif option.metavar is None and value != "TEXT":
            value = "NUMBER"
        names += f" {value}".replace("|", "/")  # which would end a cell
    meaning = option.help or ""
    if option.multiple and "repeated" not in meaning:
        meaning += " May be repeated."
    if option.show_default and option.default is not None and not option.is_flag:
        meaning += f" Default: `{option.default}`."
    cells = (f"`{names}`", meaning.strip())
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(page())
