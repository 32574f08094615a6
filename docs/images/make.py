"""Takes the pictures of docs/operations/top.md from a real run: real servers, a worker killed.

    python docs/images/make.py

MongoDB, PostgreSQL and Redis are started and stopped by it; a minute, most of it loading rows.
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
import time
from pathlib import Path
from typing import Any

import pymongo
import yaml
from rich.console import Console

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
BULK = {"orders": 700_000, "customers": 40_000, "invoices": 120_000}
say = Console(stderr=True).print


def main() -> None:
    with contextlib.ExitStack() as stack:
        mongo = stack.enter_context(Mongod())
        postgres = stack.enter_context(Postgres())
        redis = stack.enter_context(RedisServer())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo.url)
        stack.callback(client.close)
        port = free_port()
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings(mongo.url, postgres.url, redis.url, port)))
        client["crm"]["people"].insert_many({"_id": n, "n": n} for n in range(5000))
        load_rows(client["shop"], {"customers": BULK["customers"]})
        processes = [run("coordinator.cli", config), run("workers.cli", config, "--processes", "2")]
        stack.callback(lambda: [stop(process) for process in processes])
        ledger = RedisLeaseStore(redis.url, "docs", lease_ttl=TTL)
        stack.callback(ledger.close)
        assert wait_until(lambda: streams(ledger) == 2, 120)
        say("loading rows")
        load_rows(client["shop"], BULK)
        victim = run("workers.cli", config)
        processes.append(victim)
        assert wait_until(lambda: any(u.owner.split(":")[1] == str(child(victim))
                                      for u in ledger.units() if u.owner), 120)  # fmt: skip
        stopped = threading.Event()
        writer = threading.Thread(target=write_on, args=(client["shop"], stopped))
        writer.start()
        try:
            pictures(config, port, client, victim)
        finally:
            stopped.set()
            writer.join()


def settings(mongo: str, postgres: str, redis: str, port: int) -> dict[str, Any]:
    return {
        "source": {"type": "mongodb", "connection_string": mongo, "database": "shop"},
        "destination": {"type": "postgresql", "connection_string": postgres},
        "schemas": [{"name": "shop"}, {"name": "crm"}],
        "coordination": {
            "redis_url": redis,
            "namespace": "docs",
            "lease_ttl": f"{TTL:.0f}s",
            "slots": 4,
        },
        "monitoring": {"prometheus": {"enabled": True, "port": port}},
    }


def run(module: str, config: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, "--config", str(config), *more],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def child(process: subprocess.Popen[bytes]) -> int:
    said = subprocess.run(
        ["pgrep", "-g", str(process.pid), "-n"], capture_output=True, text=True, check=False
    )
    return int(said.stdout or 0)


def stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def streams(ledger: RedisLeaseStore) -> int:
    return sum(u.unit.kind == "stream" and u.state == "leased" for u in ledger.units())


def load_rows(database: Any, tables: dict[str, int]) -> None:
    for table, rows in tables.items():
        for first in range(0, rows, 20_000):
            database[table].insert_many(
                [{"_id": n, "n": n, "name": f"{table} {n}", "paid": n % 3 == 0}
                 for n in range(first, min(rows, first + 20_000))],
                ordered=False,
            ) if database[table].find_one({"_id": first}) is None else None  # fmt: skip


def write_on(database: Any, stopped: threading.Event) -> None:
    number = 10**7
    while not stopped.wait(0.1):
        database["customers"].insert_many([{"_id": number + n, "n": n} for n in range(40)])
        number += 40


def pictures(config: Path, port: int, client: Any, victim: subprocess.Popen[bytes]) -> None:
    read = load(str(config), os.environ, {})
    for name, size in (("top-160x50", (160, 50)), ("top-80x24", (80, 24))):
        with contextlib.closing(FleetDesk(read, Plugged(read))) as desk:
            asyncio.run(picture(Top(desk, every=1.0), HERE / f"{name}.svg", size, victim))
        say(f"{name}.svg")
    with Browser(width=1360, height=1000) as browser:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.until("document.querySelectorAll('#units tbody tr').length > 1")
        time.sleep(15)  # a course of some length
        browser.screenshot(HERE / "page.png")
        say("page.png")


async def picture(
    app: Top, path: Path, size: tuple[int, int], victim: subprocess.Popen[bytes]
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause(8)
        if victim.poll() is None:
            stop(victim)
        await pilot.pause(12)
        path.write_text(alone(app.export_screenshot()))


def alone(drawing: str) -> str:
    """Without the fonts that it would ask somebody else's server for."""
    return re.sub(r"@font-face\s*\{[^}]*\}", "", drawing)


if __name__ == "__main__":
    main()
