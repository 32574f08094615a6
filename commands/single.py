"""`cartridge-warp` without a subcommand: coordinator and workers in one, from one terminal.

They are the same processes that `warp-coordinator` and `warp-worker` start, with one port for
all of them and, where no Redis is given, one of our own that nobody else can reach.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import structlog
from rich.console import Console

from commands.once import Once
from commands.progress import Bar, Lines
from coordinator.cli import prepare
from coordinator.status import StatusReader
from coordinator.web.site import Site
from warp import logs, startup
from warp.assembly import Plugged
from warp.config import LogLevel, Settings
from warp.config.layers import PREFIX
from warp.errors import LedgerUnavailable
from warp.leases.embedded import embedded_redis
from warp.leases.redis import RedisLeaseStore
from warp.metrics import MetricsServer
from workers.errands import SEND_AGAIN, carried_out
from workers.nursery import Nursery
from workers.pool import LOOK, Pool, end_all

log = structlog.get_logger(__name__)

END_LIMIT: Final = 30.0
LOOK_FOR_INTENTS: Final = 1.0  # seconds


def run(settings: Settings, *, once: bool, processes: int, slots: int) -> int:
    """Run until a signal, or with `once` until everything that is there now has arrived."""
    asked = [False]  # a plain flag: a signal may interrupt any lock's holder

    def ask() -> None:
        asked[0] = True

    startup.on_signals(ask)
    on_terminal = once and sys.stderr.isatty()
    if on_terminal:
        settings = quietened(settings)
    with contextlib.ExitStack() as stack:
        nursery = stack.enter_context(Nursery())  # before the first thread
        redis_url = settings.coordination.redis_url
        if redis_url is None:
            server = embedded_redis()
            stack.callback(server.close)
            redis_url = server.start().url
        ledger = RedisLeaseStore(
            redis_url,
            settings.coordination.namespace,
            lease_ttl=settings.coordination.lease_ttl,
        )
        stack.callback(ledger.close)
        ledger.incarnation()  # a Redis that is not there is told now
        assembly = Plugged(settings)
        prepare(settings, assembly)
        serve(settings, assembly, ledger, stack)
        # Before anything moves: what is there now is what `--once` brings over.
        goal = None
        if once:
            display = Bar(Console(stderr=True)) if on_terminal else Lines()
            goal = stack.enter_context(Once.of(settings, assembly, ledger, display))
        # Who asks for an errand cannot reach a Redis of our own: look for stored intents.
        look = LOOK_FOR_INTENTS if settings.coordination.redis_url is None else SEND_AGAIN
        namespace = settings.coordination.namespace
        stack.enter_context(
            carried_out(redis_url, namespace, ledger, assembly, send_again_every=look)
        )
        pools = start_pools(nursery, settings, redis_url, processes, once=once)
        stack.callback(end_all, pools, END_LIMIT)
        while not asked[0]:
            for pool in pools:
                pool.tend()
            if goal is not None and (outcome := goal.look()) is not None:
                return outcome
            time.sleep(LOOK)
    if once:
        sys.stderr.write("stopped before everything had arrived; start again to go on\n")
        return startup.FAILED
    return startup.DONE


def quietened(settings: Settings) -> Settings:
    """Only warnings beside a progress bar, from us and from the processes we start.

    Unless a level was asked for.
    """
    given = next(e for e in settings.effective if e.path == "monitoring.logging.level")
    if given.origin != "default":
        return settings
    quiet = dataclasses.replace(settings.logging, level=LogLevel.WARNING)
    logs.configure(quiet, secrets=settings.secrets, process="single")
    environment = {**settings.environment, PREFIX + "MONITORING__LOGGING__LEVEL": quiet.level}
    return dataclasses.replace(settings, logging=quiet, environment=environment)


def start_pools(
    nursery: Nursery, settings: Settings, redis_url: str, processes: int, *, once: bool
) -> list[Pool]:
    """One coordinator and the workers, with the secrets in their environment only.

    What `--once` asks for is brought over now, also where the schedule says later.
    """
    environment = {**settings.environment, PREFIX + "REDIS_URL": redis_url}

    def pool(name: str, module: str, count: int, *flags: str) -> Pool:
        return Pool(nursery, module, flags, environment, count, name=name, end_limit=END_LIMIT)

    return [
        pool("coordinator", "coordinator.cli", 1, "--served-by-parent"),
        pool("worker", "workers.cli", processes, *(["--off-schedule"] if once else [])),
    ]


def serve(
    settings: Settings, assembly: Plugged, ledger: RedisLeaseStore, stack: contextlib.ExitStack
) -> None:
    """One port for everything this command starts, if the configuration wants one."""
    if not settings.prometheus.enabled:
        return
    reader = StatusReader(
        assembly,
        ledger,
        [schema.name for schema in settings.schemas],
        lease_ttl=settings.coordination.lease_ttl,
    )
    stack.callback(reader.close)
    site = Site(partial(reader.look, with_news=True))

    def ready() -> Mapping[str, Any] | None:
        try:
            ledger.incarnation()
        except LedgerUnavailable as error:
            return {"ledger": str(error)}
        return None

    server = MetricsServer(
        settings.prometheus.port,
        ready=ready,
        pages={"/status": reader.read},
        sites=site.answers(),
    )
    stack.enter_context(server)
    stack.callback(site.close)
    log.info("metrics_served", port=server.port)
