"""`warp-worker`: a pool of worker processes, one port for all of them, and the errand runner."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Mapping
from typing import Any

import click
import structlog

from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import LedgerUnavailable, TransientError
from warp.interfaces import LeaseStore
from warp.metrics import Meters, MetricsServer
from warp.model import UnitKind, WorkUnit
from warp.retry import Backoff
from warp.schedule import Schedule
from workers.hold import default_stall_after
from workers.nursery import Nursery
from workers.pool import Pool
from workers.worker import Pace, Worker

log = structlog.get_logger(__name__)

# New objects between two looks for garbage.  A batch is tens of thousands of them and none is
# garbage; looking them through every 700 cost a third of a snapshot's CPU [measured].
OBJECTS_PER_LOOK = 200_000
# Seconds that a thread at work keeps the interpreter while another one waits for it.  With Python's
# 5 ms a stream beside six busy threads of chunks waited for up to 190 ms in 40 calls that each let
# go of it, with half a millisecond for 11 ms, and as much work was done per CPU-second [measured].
SWITCH_AFTER = 0.0005
GRACE = 5.0  # seconds a child has beyond its own drain limit before it is killed


@click.command(name="warp-worker")
@click.option("--config", metavar="FILE", help="Configuration, YAML or JSON.")
@click.option("--redis", metavar="URL", help="Where the ledger is.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="Worker processes.")
@click.option("--slots", type=click.IntRange(1), metavar="M", help="Units per process at once.")
@click.option("--port", type=click.IntRange(0, 65535), help="Serve metrics and health here.")
@click.option("--schema", multiple=True, metavar="NAME", help="Only this schema; may be repeated.")
@click.option("--served-by-parent", is_flag=True, hidden=True)
@click.option("--child-of", type=int, hidden=True)
@click.option("--off-schedule", is_flag=True, hidden=True)
def command(served_by_parent: bool, child_of: int | None, off_schedule: bool, **flags: Any) -> None:
    """Carry changes: claim units from the ledger, run them, give them back."""
    config = flags.pop("config")
    if child_of is not None:
        code = startup.exit_code(
            lambda: run_child(config, flags, child_of, off_schedule=off_schedule)
        )
    else:
        code = startup.exit_code(lambda: run_pool(config, flags, serve=not served_by_parent))
    sys.exit(code)


def main() -> None:
    command()


# One worker process


def run_child(
    config: str | None, flags: Mapping[str, Any], parent: int, *, off_schedule: bool
) -> int:
    """`off_schedule`: a poll that is offered is run, whatever slot it is and whoever ran that."""
    settings = startup.read_settings(config, flags, process="worker")
    ledger = startup.open_ledger(settings)
    meters = Meters(settings.source.database or "")
    ledger.on_refused = meters.table("", None).error
    assembly = Plugged(settings)
    worker = Worker(
        ledger,
        assembly,
        meters,
        slots=settings.coordination.slots,
        pace=pace_of(settings),
        repeat_after=Repeats(settings, assembly),
        schedule_of=(lambda unit: None) if off_schedule else Schedules(settings, assembly),
    )
    startup.on_signals(worker.drain)
    startup.watch_parent(parent, worker.drain)
    meters.start()
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_LOOK)
    sys.setswitchinterval(SWITCH_AFTER)
    try:
        worker.run()
    finally:
        meters.stop()
        ledger.close()
    return startup.DONE


def pace_of(settings: Settings) -> Pace:
    coordination, errors = settings.coordination, settings.errors
    return Pace(
        ttl=coordination.lease_ttl,
        claim_every=coordination.claim_every,
        quantum=coordination.quantum,
        stall_after=coordination.stall_after or _stall_after(settings),
        backoff=Backoff(
            max_retries=errors.max_retries,
            factor=errors.backoff_factor,
            base=errors.initial_delay,
            cap=errors.max_delay,
        ),
    )


def _stall_after(settings: Settings) -> float:
    """Long enough for what this destination's writes may take."""
    connector: Any = settings.destination.connector
    usual = default_stall_after(settings.coordination.lease_ttl)
    return max(usual, float(connector.traits.slowest_write_seconds))


class Repeats:
    """When a finished unit is due again: polls without a schedule come by their interval."""

    def __init__(self, settings: Settings, assembly: Plugged) -> None:
        self._settings = settings
        self._assembly = assembly

    def __call__(self, unit: WorkUnit) -> float | None:
        if unit.kind is not UnitKind.POLL or unit.table is None:
            return None
        if self._settings.schema(unit.schema).schedule is not None:
            return None  # the coordinator knows its slots
        table = self._assembly.selection(unit.schema)(unit.table)
        return table.polling_interval if table is not None else None


class Schedules:
    """The schedule of a unit; None for what runs without one."""

    def __init__(self, settings: Settings, assembly: Assembly) -> None:
        self._settings = settings
        self._assembly = assembly

    def __call__(self, unit: WorkUnit) -> Schedule | None:
        if unit.kind is not UnitKind.POLL or unit.table is None:
            return None
        if not self._assembly.knows(unit.schema):
            return None
        table = self._assembly.selection(unit.schema)(unit.table)
        return None if table is None else self._settings.schema(unit.schema).schedule_of(table)


# The pool


def run_pool(config: str | None, flags: Mapping[str, Any], *, serve: bool) -> int:
    settings = startup.read_settings(config, flags, process="worker")
    with contextlib.ExitStack() as stack:
        ledger = startup.open_ledger(settings)
        stack.callback(ledger.close)
        # Before the first thread and the first connection, after the last import.
        nursery = stack.enter_context(Nursery())
        pool = Pool(
            nursery,
            "workers.cli",
            [],
            settings.environment,
            settings.coordination.processes,
            end_limit=Pace().drain_limit + GRACE,
        )
        # Before anybody is waited for: as the first process of a container we end by no signal that
        # we do not listen to.
        startup.on_signals(pool.stop)
        ledger.incarnation()  # a Redis that is not there is told now, not by a pool of children
        check_both_ends(settings)
        if serve and settings.prometheus.enabled:
            server = MetricsServer(
                settings.prometheus.port, ready=readiness(pool, ledger, settings)
            )
            stack.enter_context(server)
            log.info("metrics_served", port=server.port)
        if (redis_url := settings.coordination.redis_url) is not None:
            # Imported here: the children of the pool carry no errands and need no rq.
            from workers.errands import carried_out

            namespace = settings.coordination.namespace
            stack.enter_context(carried_out(redis_url, namespace, ledger, Plugged(settings)))
        pool.run()
    return startup.DONE


def check_both_ends(settings: Settings) -> None:
    """Whom no server lets in, or who is too old for the metadata, must not take units only to fail.

    A server that is merely away is no reason not to start.
    """
    assembly = Plugged(settings)
    try:
        with contextlib.closing(assembly.bookkeeping()) as destination:
            destination.check()
            # Of an older version it is moved forward: in a roll-out workers may be there before the
            # coordinator.  Of a newer one it is refused: what its rows mean we cannot know.
            destination.metadata().prepare()
        for schema in settings.schemas[:1]:
            with contextlib.closing(assembly.source(schema.name)) as source:
                source.check()
    except TransientError as error:
        log.warning("server_unavailable", error=str(error), action="units will wait for it")


def readiness(pool: Pool, ledger: LeaseStore, settings: Settings) -> Any:
    """Ready while every process runs and the ledger answers."""
    wanted = settings.coordination.processes

    def ready() -> Mapping[str, Any] | None:
        if pool.running < wanted:
            return {"processes": pool.running, "wanted": wanted}
        try:
            ledger.incarnation()
        except LedgerUnavailable as error:
            return {"ledger": str(error)}
        return None

    return ready


if __name__ == "__main__":
    main()
