"""`cartridge-warp drain`: have workers give everything back, and wait until they have.

Unlike SIGTERM it lets a chunk or a poll come to its end, which would else begin anew elsewhere: the
preStop hook of the Helm chart.  The worker's process goes on running and claims nothing more.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import click

from commands.cli import asking
from warp import startup
from warp.config import Settings
from warp.errors import ConfigError
from warp.interfaces import LeaseStore
from warp.model import WorkerState
from warp.options import parse_duration
from warp.plugins import nearest

LOOK_EVERY: Final = 0.2  # seconds


def _limit(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError:
        raise click.BadParameter("expected a duration such as 60s or 5m") from None


@click.command()
@click.argument("workers", nargs=-1, metavar="[WORKER]...")
@click.option("--here", is_flag=True, help="All workers of this host or pod.")
@click.option(
    "--limit", default="60s", show_default=True, callback=_limit, help="Wait no longer than this."
)
@asking
def drain(settings: Settings, workers: tuple[str, ...], here: bool, limit: float) -> int:
    """Let workers finish what they hold and claim nothing more.

    A drained worker stays so until it is started anew.  Exit code 1 where something was still held
    when the time was up.
    """
    with contextlib.closing(startup.open_ledger(settings)) as ledger:
        chosen = choose(ledger.workers(), workers, host=socket.gethostname() if here else None)
        left = run(ledger, chosen, limit)
    for worker in left:
        sys.stderr.write(f"{worker.id} still holds {worker.held} after {limit:g} s\n")
    return startup.FAILED if left else startup.DONE


def choose(known: Sequence[WorkerState], named: Sequence[str], *, host: str | None) -> list[str]:
    """The ids of the workers that are meant.  Pure."""
    ids = [worker.id for worker in known]
    if host is not None and not named:
        return [id for id in ids if id.split(":")[0] == host]
    if host is not None or not named:
        raise ConfigError("expected ids of workers, or --here; `cartridge-warp status` lists them")
    for name in named:
        if name not in ids:
            raise ConfigError(
                f"expected the id of a worker that runs, found {name!r}; {nearest(name, ids)}",
                place="WORKER",
            )
    return list(named)


def run(
    ledger: LeaseStore,
    workers: Sequence[str],
    limit: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[WorkerState]:
    """Drain them; those that still hold something when the time is up."""
    for worker in workers:
        ledger.drain(worker)
    deadline = clock() + limit
    while True:
        holding = [w for w in ledger.workers() if w.id in workers and w.held]
        if not holding or clock() >= deadline:
            return holding
        sleep(LOOK_EVERY)
