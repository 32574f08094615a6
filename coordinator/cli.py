"""`warp-coordinator`: one of any number; the one that leads keeps the ledger what it should be."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import click
import structlog

from coordinator import api
from coordinator.deletion_cost import DeletionCosts, Pods
from coordinator.leader import Leadership, namespace_of
from coordinator.reconciler import Reconciler
from coordinator.status import StatusReader
from coordinator.watch import Watch
from coordinator.web.site import Site
from warp import startup
from warp.assembly import Plugged
from warp.config import Settings
from warp.errors import ConfigError
from warp.metrics import Meters, MetricsServer
from warp.model import TableId, TableSettings
from warp.startup import new_process_id

log = structlog.get_logger(__name__)

LEADER_TTL = 5.0


@click.command(name="warp-coordinator")
@click.option("--config", metavar="FILE", help="Configuration, YAML or JSON.")
@click.option("--redis", metavar="URL", help="Where the ledger is.")
@click.option("--port", type=click.IntRange(0, 65535), help="Serve metrics, health, status here.")
@click.option("--schema", multiple=True, metavar="NAME", help="Only this schema; may be repeated.")
@click.option(
    "--pod-deletion-cost",
    is_flag=True,
    help="On Kubernetes: tell it which worker's pod holds the fewest leases.",
)
@click.option("--served-by-parent", is_flag=True, hidden=True)
@click.option("--child-of", type=int, hidden=True)
def command(
    pod_deletion_cost: bool, served_by_parent: bool, child_of: int | None, **flags: Any
) -> None:
    """Plan the work: offer units to the workers, snapshot new tables, keep schedules."""
    config = flags.pop("config")

    def body() -> int:
        return run(
            config,
            flags,
            serve=not served_by_parent,
            parent=child_of,
            pods=Pods.of_this_cluster() if pod_deletion_cost else None,
        )

    sys.exit(startup.exit_code(body))


def main() -> None:
    command()


def run(
    config: str | None,
    flags: Mapping[str, Any],
    *,
    serve: bool,
    parent: int | None = None,
    pods: Pods | None = None,
) -> int:
    settings = startup.read_settings(config, flags, process="coordinator")
    stop = threading.Event()
    asked = [False]  # a plain flag: a signal may interrupt any lock's holder

    def ask() -> None:
        asked[0] = True

    startup.on_signals(ask)
    if parent is not None:
        startup.watch_parent(parent, ask)
    with contextlib.ExitStack() as stack:
        ledger = startup.open_ledger(settings)
        stack.callback(ledger.close)
        ledger.incarnation()  # a Redis that is not there is told now
        assembly = Plugged(settings)
        prepare(settings, assembly)
        leader_ledger = startup.open_ledger(settings, namespace_of(settings.coordination.namespace))
        stack.callback(leader_ledger.close)
        leadership = Leadership(leader_ledger, new_process_id(), ttl=LEADER_TTL)
        reader = StatusReader(
            assembly,
            ledger,
            [s.name for s in settings.schemas],
            lease_ttl=settings.coordination.lease_ttl,
        )
        stack.callback(reader.close)
        server = None
        if serve and settings.prometheus.enabled:
            site = Site(partial(reader.look, with_news=True), about=api.about(leadership))
            server = MetricsServer(
                settings.prometheus.port,
                ready=api.readiness(ledger),
                pages={"/status": api.status_page(reader, ledger, settings, leadership)},
                sites=site.answers(),
            )
            stack.callback(site.close)
            stack.callback(server.close)
        meters = Meters(settings.source.database or "")
        watch = Watch(meters, database=settings.source.database or "")
        reconciler = Reconciler(settings, assembly, ledger, leadership, watch)
        if server is not None:
            server.healthy = api.health(reconciler)
            server.start()
            log.info("metrics_served", port=server.port)
        leadership.start()
        stack.callback(leadership.stop)
        rounds = threading.Thread(target=reconciler.run, args=(stop,), name="rounds")
        rounds.start()
        if pods is not None:
            costs = DeletionCosts(ledger, leadership, pods)
            threading.Thread(target=costs.run, args=(stop,), name="costs", daemon=True).start()
        log.info("coordinator_started", coordinator=leadership.id)
        while not asked[0]:
            time.sleep(0.1)
        stop.set()
        rounds.join()
    log.info("coordinator_stopped")
    return startup.DONE


def prepare(settings: Settings, assembly: Plugged) -> None:
    """The first look at both ends, so that what a person must mend is told at once.

    Raises what they refuse; and what is merely away too, since nothing has run yet.
    """
    with contextlib.closing(assembly.bookkeeping()) as destination:
        destination.check()
        destination.metadata().prepare()
    claimed: dict[TableId, str] = {}  # by destination table
    sharing = assembly.sharing()
    carried: dict[TableId, str] = {}  # by source table, of the stream that schemas share
    for number, schema in enumerate(settings.schemas):
        selection = assembly.selection(schema.name)
        with contextlib.closing(assembly.source(schema.name)) as source:
            if number == 0:
                source.check()
            for table in source.tables():
                settings_of = selection(table)
                if settings_of is not None:
                    _claim(claimed, settings_of.destination, settings_of)
                    if schema.name in sharing:  # each change of it would go to one of them only
                        _claim(carried, table, settings_of)


def _claim(claimed: dict[TableId, str], by: TableId, table: TableSettings) -> None:
    """Two units that write one table would undo each other's work."""
    other = claimed.setdefault(by, table.schema)
    if other != table.schema:
        raise ConfigError(
            f"expected each table in one schema, found {table.table} in {other!r} and "
            f"{table.schema!r}; leave it out of one: `tables: ['!{table.table.name}']`",
            place="schemas",
        )


if __name__ == "__main__":
    main()
