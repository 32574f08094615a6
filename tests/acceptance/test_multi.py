"""`cartridge-warp --mode multi --config multi-schema-config.json`, the example as it stands.

Only what a test machine must choose for itself is said beside the file: the two servers, the port.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_servers import Server
from psycopg import sql
from pymongo.database import Database

from warp.own_process import wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "multi-schema-config.json"
LIMIT = 120.0  # seconds for anything that is waited for; a cron's slot is a minute away

pytestmark = pytest.mark.timeout(300)


@dataclass
class Shop:
    """The example's database, with products that are streamed and orders that are polled."""

    folder: Path
    source: Database[dict[str, Any]]
    source_url: str
    warehouse_url: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "commands.cli"),
            *("--mode", "multi", "--config", "multi-schema-config.json"),
            *arguments,
        ]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
        servers = {
            "CARTRIDGE_WARP_SOURCE": f"{self.source_url}",
            "CARTRIDGE_WARP_SOURCE__DATABASE": self.source.name,
            "CARTRIDGE_WARP_DESTINATION": self.warehouse_url,
            "CARTRIDGE_WARP_MONITORING__PROMETHEUS__PORT": "0",
        }
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=inherited | servers,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def ends(self, process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
        """(exit code, standard output)"""
        output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output

    def said(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.folder.glob("*.log")))

    def rows(self, table: str) -> dict[int, str]:
        query = sql.SQL("select _id, name from {} where not _cw_deleted").format(
            sql.Identifier(self.source.name, table)
        )
        with psycopg.connect(self.warehouse_url) as connection:
            return dict(connection.execute(query).fetchall())

    def markers(self) -> dict[str, str]:
        with psycopg.connect(self.warehouse_url) as connection:
            query = "select unit, phase from cartridge_warp_metadata.sync_markers"
            return dict(connection.execute(query).fetchall())

    def fill(self) -> None:
        now = dt.datetime.now(dt.UTC)
        for table, rows in (("products", 3_000), ("orders", 2_000)):
            self.source[table].insert_many(
                [{"_id": n, "name": f"{table} {n}", "updated_at": now} for n in range(rows)]
            )


@pytest.fixture
def shop(
    tmp_path: Path, mongo: Server, mongo_database: Database[dict[str, Any]], pg_database: str
) -> Iterator[Shop]:
    shutil.copy(EXAMPLE, tmp_path)
    shop = Shop(tmp_path, mongo_database, mongo.url, pg_database)
    yield shop
    for process in shop.running:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(condition: Callable[[], Any], shop: Shop) -> None:
    assert wait_until(lambda: bool(condition()), LIMIT), shop.said()


def test_the_example_has_a_stream_and_a_batch_with_a_schedule() -> None:
    schemas = json.loads(EXAMPLE.read_text())["schemas"]
    assert [(s["mode"], s.get("schedule")) for s in schemas] == [
        ("stream", None),
        ("batch", "*/15 * * * *"),
    ]


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="no fault")
def test_once_brings_both_schemas_over_and_a_second_time_what_changed(shop: Shop) -> None:
    shop.fill()
    assert shop.ends(shop.start("--once")) == (0, b""), shop.said()
    assert (len(shop.rows("products")), len(shop.rows("orders"))) == (3_000, 2_000)

    shop.source["products"].update_one({"_id": 1}, {"$set": {"name": "streamed"}})
    shop.source["products"].delete_one({"_id": 2})
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    shop.source["orders"].update_one({"_id": 1}, {"$set": {"name": "polled", "updated_at": later}})
    assert shop.ends(shop.start("--once")) == (0, b""), shop.said()
    products, orders = shop.rows("products"), shop.rows("orders")
    assert (len(products), products[1], 2 in products) == (2_999, "streamed", False)
    assert (len(orders), orders[1]) == (2_000, "polled")


def test_it_runs_until_it_is_stopped_streams_the_one_and_keeps_the_other_for_its_time(
    shop: Shop,
) -> None:
    shop.fill()
    process = shop.start()
    poll = f"poll:orders:{shop.source.name}.orders"

    def loaded() -> bool:
        with contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            markers = shop.markers()
            tables = [markers.get(f"table:{t}:{shop.source.name}.{t}") for t in TABLES]
            return tables == ["streaming", "streaming"] and markers.get(poll) == "idle"
        return False

    until(loaded, shop)
    assert (len(shop.rows("products")), len(shop.rows("orders"))) == (3_000, 2_000)

    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    shop.source["orders"].insert_one({"_id": 5_000, "name": "waits", "updated_at": later})
    shop.source["products"].insert_one({"_id": 5_000, "name": "streamed"})
    until(lambda: 5_000 in shop.rows("products"), shop)
    assert "stream:products" in shop.markers()
    assert "stream:orders" not in shop.markers()

    process.send_signal(signal.SIGINT)
    assert shop.ends(process) == (0, b""), shop.said()


TABLES = ("products", "orders")


def test_a_batch_runs_when_its_schedule_says_so(shop: Shop) -> None:
    shop.fill()
    path = shop.folder / EXAMPLE.name
    tree = json.loads(path.read_text())
    tree["schemas"][1]["schedule"] = "* * * * *"
    path.write_text(json.dumps(tree))
    process = shop.start()

    def arrived(id: int) -> bool:
        with contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return id in shop.rows("orders")
        return False

    until(lambda: arrived(1_999), shop)
    now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    shop.source["orders"].insert_one({"_id": 5_000, "name": "due", "updated_at": now})
    until(lambda: arrived(5_000), shop)
    process.send_signal(signal.SIGINT)
    assert shop.ends(process) == (0, b""), shop.said()
