"""`cartridge-warp`: coordinator and workers in one; with a subcommand, one question or task.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 differences found.  stdout carries
data only; everything else goes to stderr.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

import click

import warp
from warp import logs, startup
from warp.config import LogFormat, LoggingSettings, LogLevel, Settings, load
from warp.config.layers import PREFIX

Command = TypeVar("Command", bound=Callable[..., Any])

_SHARED: Final = (
    click.option("--config", metavar="FILE", help="Configuration, YAML or JSON."),
    click.option("--mode", metavar="single|multi", help="One schema per process, or all of them."),
    click.option("--source", metavar="URL", help="Where changes come from."),
    click.option("--destination", metavar="URL", help="Where they go."),
    click.option("--schema", metavar="NAME", multiple=True, help="Only this; may be repeated."),
    click.option("--redis", metavar="URL", help="Where the ledger is; embedded where not given."),
)


def shared(command: Command) -> Command:
    """The flags that every command takes, before or after its name."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


class Flags(dict[str, Any]):
    """What was given on the command line; a subcommand's own flags win over the group's."""

    def over(self, nearer: dict[str, Any]) -> Flags:
        return Flags(self | {k: v for k, v in nearer.items() if v not in (None, ())})

    def load(self) -> Settings:
        return load(
            self.get("config"), os.environ, {k: v for k, v in self.items() if k != "config"}
        )


def asking(body: Callable[..., int]) -> Callable[..., None]:
    """A subcommand that takes the shared flags, gets settings, and returns its exit code."""

    @shared
    @click.pass_obj
    @functools.wraps(body)
    def command(flags: Flags, /, **given: Any) -> None:
        names = ("config", "mode", "source", "destination", "schema", "redis")
        nearer = {name: given.pop(name) for name in names}

        def run() -> int:
            settings = flags.over(nearer).load()
            # An answer is on stdout; only what is wrong is worth a log line.
            quiet = LoggingSettings(LogLevel.WARNING, LogFormat.AUTO, settings.logging.levels)
            logs.configure(quiet, secrets=settings.secrets, process="command")
            return body(settings, **given)

        sys.exit(startup.exit_code(run))

    return command


class Group(click.Group):
    """Commands of other modules are imported only when they are asked for."""

    elsewhere: ClassVar = {
        "demo": "commands.demo",
        "drain": "commands.drain",
        "errors": "commands.errors",
        "init": "commands.init",
        "quarantine": "commands.quarantine",
        "repair": "commands.repair",
        "verify": "commands.verify",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(self.elsewhere[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@shared
@click.option("--once", is_flag=True, help="Bring over what there is now, then end.")
@click.option("--plan", "plan_file", metavar="FILE", help="Only if all is as in this plan.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes.")
@click.option("--slots", type=click.IntRange(1), metavar="M", help="Units per process at once.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Serve metrics and health here.")
@click.version_option(warp.__version__, prog_name="cartridge-warp")
@click.pass_context
def cli(context: click.Context, /, once: bool, plan_file: str | None, **given: Any) -> None:
    """Keep a warehouse equal to production databases.

    Without a command: coordinator and workers in one, until Ctrl-C.
    """
    flags = context.obj = Flags().over(given)
    if context.invoked_subcommand is not None:
        return
    if not flags and not any(PREFIX + name in os.environ for name in ("CONFIG", "SOURCE")):
        click.echo(context.get_help(), err=True)
        sys.exit(startup.MISUSED)
    sys.exit(startup.exit_code(lambda: _run(flags, once=once, plan_file=plan_file)))


def _run(flags: Flags, *, once: bool, plan_file: str | None) -> int:
    settings = startup.read_settings(
        flags.get("config"), {k: v for k, v in flags.items() if k != "config"}, process="single"
    )
    from commands import single  # late: `config show` must not wait for what it does not use

    if plan_file is not None:
        from commands import plan

        plan.check(settings, plan_file)
    coordination = settings.coordination
    return single.run(
        settings, once=once, processes=coordination.processes, slots=coordination.slots
    )


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@cli.command()
@JSON
@asking
def validate(settings: Settings, as_json: bool) -> int:
    """Check the configuration, and that both ends can do what is needed."""
    from commands import validate

    return validate.run(settings, as_json=as_json)


@cli.command()
@JSON
@asking
def doctor(settings: Settings, as_json: bool) -> int:
    """What of the servers fits, what does not, and the statement that mends it."""
    from commands import doctor

    return doctor.run(settings, as_json=as_json)


@cli.command()
@JSON
@asking
def status(settings: Settings, as_json: bool) -> int:
    """Every unit: who holds it, how far it has got, how late it is."""
    from commands import status

    return status.run(settings, as_json=as_json)


@cli.command()
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    metavar="ROWS",
    help="Rows to look at in each table, about.",
)
@click.option("--out", metavar="FILE", help="Write the plan there, for `--plan FILE`.")
@JSON
@asking
def plan(settings: Settings, sample: int, out: str | None, as_json: bool) -> int:
    """What would happen, by real rows: DDL, and what of each column would not fit.

    Changes nothing.
    """
    from commands import plan

    return plan.run(settings, sample=sample, out=out, as_json=as_json)


@cli.command()
@click.option(
    "--every",
    type=click.FloatRange(0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--plain", is_flag=True, help="Text, one look after the other, on a terminal too.")
@click.option("--looks", type=click.IntRange(1), metavar="N", help="End after N looks, as text.")
@JSON
@asking
def top(settings: Settings, every: float, plain: bool, looks: int | None, as_json: bool) -> int:
    """The whole fleet, live: units, workers, what happened; keys to pause, resume and drain.

    Where stdout is no terminal: as text, one look after the other.
    """
    from commands import top

    return top.run(settings, every=every, plain=plain, looks=looks, as_json=as_json)


WAIT = click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait until it is done, two minutes at most; or only store and send it.",
)


@cli.command()
@click.argument("resynced", metavar="SCHEMA")
@click.argument("table", required=False)
@click.option(
    "--where",
    metavar="RANGE",
    help="Only a range of its key, such as `id >= 100 and id < 200`.",
)
@WAIT
@JSON
@asking
def resync(
    settings: Settings,
    resynced: str,
    table: str | None,
    where: str | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Read a schema, or one TABLE of it, anew.

    Rows stay readable meanwhile; those that are gone at the source are removed at the end.
    """
    from commands import operate

    if where and not table:
        raise click.UsageError("--where narrows one table: name it behind the schema")
    given = {"schema": resynced, "table": table, "where": where}
    arguments = {name: value for name, value in given.items() if value}
    return operate.ask(settings, "resync", arguments, wait=wait, as_json=as_json)


@cli.command()
@click.argument("recovered", metavar="SCHEMA")
@WAIT
@JSON
@asking
def recover(settings: Settings, recovered: str, wait: bool, as_json: bool) -> int:
    """Let a stream that has lost its place go on, and write only what differs.

    Its tables are compared with the source while it runs on; nothing is read into them anew.
    """
    from commands import operate

    return operate.ask(settings, "recover", {"schema": recovered}, wait=wait, as_json=as_json)


@cli.command()
@click.argument("unit")
@WAIT
@JSON
@asking
def revive(settings: Settings, unit: str, wait: bool, as_json: bool) -> int:
    """Let a stopped UNIT try again from where it stands."""
    from commands import operate

    return operate.ask(settings, "revive", {"unit": unit}, wait=wait, as_json=as_json)


@cli.command()
@click.argument("paused", metavar="SCHEMA")
@WAIT
@JSON
@asking
def pause(settings: Settings, paused: str, wait: bool, as_json: bool) -> int:
    """Stop every unit of a schema at its place, until `resume`.

    The source's log must reach back to that place when it is resumed.
    """
    from commands import operate

    return operate.ask(settings, "pause", {"schema": paused}, wait=wait, as_json=as_json)


@cli.command()
@click.argument("resumed", metavar="SCHEMA")
@WAIT
@JSON
@asking
def resume(settings: Settings, resumed: str, wait: bool, as_json: bool) -> int:
    """Let a paused schema go on from its place."""
    from commands import operate

    return operate.ask(settings, "resume", {"schema": resumed}, wait=wait, as_json=as_json)


@cli.group()
def config() -> None:
    """About the configuration."""


@config.command()
@JSON
@asking
def show(settings: Settings, as_json: bool) -> int:
    """Every value in force, and who gave it."""
    from commands import show

    return show.run(settings, as_json=as_json)


def main() -> None:
    cli(prog_name="cartridge-warp")


if __name__ == "__main__":
    main()
