"""The quickstart's own commands, as they stand on the page, against real servers.

The page's `$ ` lines are run by a shell in the order they are read; only what a test machine must
choose for itself (the port) is put in their place.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymongo
import pytest
from fix_servers import Server
from psycopg import sql

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
LIMIT = 60.0  # seconds for anything that is waited for
FOREVER = re.compile(r"^(cartridge-warp --config \S+$|warp-coordinator |warp-worker )")

pytestmark = pytest.mark.timeout(300)


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def configuration() -> str:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.1)


class Shell:
    """Runs the page's lines; those that run for ever stay until the next line of their kind."""

    def __init__(self, folder: Path, port: int, **variables: str) -> None:
        self.folder, self.port = folder, port
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | variables | {"PATH": path}
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, line: str) -> str:
        line = line.replace("8080", str(self.port))
        if FOREVER.match(line):
            self.running.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment
                )
            )
            return ""
        done = self.finish(line)
        assert done.returncode == 0, f"$ {line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def finish(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def run_until(self, line: str, says: str) -> None:
        """Ask again until the answer holds what is expected: a fleet needs a moment to start."""
        line = line.replace("8080", str(self.port))
        until(lambda: says in self.finish(line).stdout)

    def interrupt(self) -> None:
        """Ctrl-C in every terminal."""
        for process in self.running:
            process.send_signal(signal.SIGINT)
        for process in self.running:
            assert process.wait(LIMIT) == 0
        self.running.clear()


@pytest.fixture
def shop(mongo: Server) -> Iterator[Any]:
    """The database of the page, with some products and orders."""
    client = pymongo.MongoClient[dict[str, Any]](mongo.url)
    client.drop_database("ecommerce")
    now = dt.datetime.now(dt.UTC)
    client.ecommerce.products.insert_many([{"_id": n, "name": f"p{n}"} for n in range(500)])
    client.ecommerce.orders.insert_many([{"_id": n, "updated_at": now} for n in range(300)])
    yield client.ecommerce
    client.drop_database("ecommerce")
    client.close()


@pytest.fixture
def shell(tmp_path: Path, mongo: Server, pg_database: str, redis_server: Server) -> Iterator[Shell]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "config.yaml").write_text(configuration().replace("8080", str(port)))
    shell = Shell(
        tmp_path, port, MONGODB_URL=mongo.url, POSTGRES_URL=pg_database, REDIS_URL=redis_server.url
    )
    yield shell
    for process in shell.running:
        process.kill()
        process.wait()


def test_the_quickstart_works_as_it_is_written(shell: Shell, shop: Any, pg_database: str) -> None:
    def count(table: str) -> int:
        with psycopg.connect(pg_database) as connection:
            query = sql.SQL("select count(*) from ecommerce.{}").format(sql.Identifier(table))
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

    [install, show, validate, once, follow, metrics, coordinator, worker, *asked] = commands()
    [status, pause, resume] = asked
    assert install == "pip install 'cartridge-warp[embedded]'"

    assert "ecommerce" in shell.run(show)
    shell.run(validate)

    shell.run(once)
    assert (count("products"), count("orders")) == (500, 300)

    shell.run(follow)
    shop.products.insert_one({"_id": 900, "name": "followed"})
    until(lambda: count("products") == 501)
    shell.run_until(metrics, "cartridge_warp_lag_seconds{")
    shell.interrupt()

    shell.run(coordinator)
    shell.run(worker.replace("8081", "0"))
    shop.products.delete_one({"_id": 900})
    until(lambda: count("products") == 500)
    shell.run_until(status, "stream:products")
    assert shell.run(pause) == "pause: 1 units paused\n"
    shop.products.insert_one({"_id": 901, "name": "waits"})
    assert shell.run(resume) == "resume: 1 units resumed\n"
    until(lambda: count("products") == 501)
    shell.interrupt()
