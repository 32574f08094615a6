"""Takes the pictures of docs/operations/top.md from a real run: real servers, a worker killed.

    make pictures

Starts and stops MongoDB, PostgreSQL, Redis, a coordinator and two workers; a minute or two.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pymongo
import yaml

from commands.operate import have_done
from commands.top import FleetDesk
from dashboards.top.app import Top
from warp.assembly import Plugged
from warp.config import load
from warp.leases.redis import RedisLeaseStore
from warp.own_process import free_port, wait_until
from warp.testing.browser import Browser
from warp.testing.servers import Mongod, Postgres, RedisServer

HERE = Path(__file__).parent
TTL = 4.0
PATIENCE = 60.0
TABLES = {"customers": 4_000, "invoices": 9_000, "orders": 200_000}


def main() -> None:
    with contextlib.ExitStack() as stack:
        mongo = stack.enter_context(Mongod())
        postgres = stack.enter_context(Postgres())
        redis = stack.enter_context(RedisServer())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url)
        stack.callback(client.close)
        ledger = RedisLeaseStore(redis.url, "docs", lease_ttl=TTL)
        stack.callback(ledger.close)
        port = free_port()
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings(mongo.url, postgres.url, redis.url)))
        fill(client["crm"], {"people": 5_000})
        fill(client["shop"], TABLES)

        stack.enter_context(running("coordinator.cli", config, "--port", str(port)))
        stack.enter_context(running("workers.cli", config, "--processes", "2"))
        stack.enter_context(writing_on(client["shop"]))
        browser = stack.enter_context(Browser(width=1360, height=1000))
        # A run that was never begun is not missed: nobody would hear of its takeover.
        until(lambda: begun(postgres.url, "stream:shop"), "the stream to be followed")
        browser.open(f"http://127.0.0.1:{port}/")
        os.kill(int(owner(ledger, "stream:shop").split(":")[1]), 9)  # its pool starts another
        read = load(str(config), os.environ, {})
        with contextlib.closing(FleetDesk(read, Plugged(read))) as desk:
            arguments = {"schema": "shop", "table": "orders"}
            read_again = partial(have_done, read, "resync", arguments, wait=True)
            asyncio.run(of_the_screen(Top(desk, every=1.0), read_again))
        browser.until("last !== null && last.history.length > 6", PATIENCE)
        browser.screenshot(HERE / "page.png")


def settings(mongo: str, postgres: str, redis: str) -> dict[str, Any]:
    return {
        "source": {"type": "mongodb", "connection_string": mongo, "database": "shop"},
        "destination": {"type": "postgresql", "connection_string": postgres},
        # Small batches: the snapshot shall last until it is seen.
        "schemas": [{"name": "shop", "batch_size": 200}, {"name": "crm"}],
        "coordination": {
            "redis_url": redis,
            "namespace": "docs",
            "lease_ttl": f"{TTL:.0f}s",
            "slots": 4,
        },
        "monitoring": {"prometheus": {"enabled": True, "port": 0}},
    }


@contextlib.contextmanager
def running(module: str, config: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of ours in a session of its own, killed with all its children at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--config", str(config), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    if not wait_until(condition, PATIENCE):
        raise SystemExit(f"waited {PATIENCE:.0f} s for {what}")


def owner(ledger: RedisLeaseStore, unit: str) -> str:
    return next((entry.owner for entry in ledger.units() if entry.unit.id == unit), "")


def begun(warehouse: str, unit: str) -> bool:
    with (
        psycopg.connect(warehouse) as connection,
        contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName),
    ):
        runs = connection.execute(
            "select from cartridge_warp_metadata.sync_runs where unit = %s and status = 'running'",
            (unit,),
        )
        return runs.rowcount > 0
    return False


def fill(database: Any, tables: dict[str, int]) -> None:
    for table, rows in tables.items():
        for first in range(0, rows, 20_000):
            database[table].insert_many(
                [
                    {"_id": n, "n": n, "name": f"{table} {n}", "paid": n % 3 == 0}
                    for n in range(first, min(rows, first + 20_000))
                ],
                ordered=False,
            )


@contextlib.contextmanager
def writing_on(database: Any) -> Iterator[None]:
    """Some hundred changes a second, for streams to have something to do."""
    stopped = threading.Event()

    def write() -> None:
        number = 10**7
        while not stopped.wait(0.1):
            database["customers"].insert_many([{"_id": number + n, "n": n} for n in range(40)])
            number += 40

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stopped.set()
        writer.join()


async def of_the_screen(app: Top, read_again: Callable[[], object]) -> None:
    """Both sizes, after a takeover has been seen, while a table is read."""

    def taken_over() -> bool:
        return app.picture is not None and any(
            one.sort == "takeover" for one in app.picture.fleet.news
        )

    def reading() -> bool:
        return app.picture is not None and any(line.eta for line in app.picture.lines)

    async with app.run_test(size=(160, 50)) as pilot:
        for condition in (taken_over, reading):
            for _ in range(int(PATIENCE / 0.2)):
                if condition():
                    break
                await pilot.pause(0.2)
            else:
                raise SystemExit(f"waited {PATIENCE:.0f} s for {condition.__name__}")
            if condition is taken_over:
                threading.Thread(target=read_again).start()
        (HERE / "top-160x50.svg").write_text(alone(app.export_screenshot()))
        await pilot.resize_terminal(80, 24)
        await pilot.pause(1.0)
        (HERE / "top-80x24.svg").write_text(alone(app.export_screenshot()))


def alone(drawing: str) -> str:
    """Without the fonts that it would ask somebody else's server for."""
    return re.sub(r"@font-face\s*\{[^}]*\}", "", drawing)


if __name__ == "__main__":
    main()
