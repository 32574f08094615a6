"""What went wrong is a number per table and column, and the numbers are what was injected."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_servers import Server
from processes import Command, Fleet, eventually, fleet_between
from pymongo.database import Database

STRINGS, OBJECTS, LONG, SMALL, ORPHANS = 7, 5, 4, 3, 6


@pytest.fixture
def fleet(
    tmp_path: Path,
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
) -> Iterator[Fleet]:
    name = mongo_database.name
    with fleet_between(tmp_path, mongo.url, name, pg_database, redis_server.url) as fleet:
        fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
        yield fleet


def scraped(worker: Command, table: str) -> dict[tuple[str, str], float]:
    """(metric and its own labels) -> value, of one table."""
    port = next(
        json.loads(line)["port"]
        for line in worker.said().splitlines()
        if line.startswith("{") and json.loads(line).get("event") == "metrics_served"
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)\{(.*)\} ([0-9.e+-]+)", line)
        if match and f'table="{table}"' in match[2]:
            own = re.sub(r'(database|schema|table)="[^"]*",?', "", match[2]).strip(",")
            found[match[1], own] = float(match[3])
    return found


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="refused rows")
def test_counters_and_logs_say_what_was_injected(fleet: Fleet) -> None:
    fleet.source["orders"].insert_many([{"_id": n, "n": n, "note": "ok"} for n in range(20)])
    fleet.source["lines"].insert_many([{"_id": n, "order": n, "n": n} for n in range(20)])
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        # Tables that somebody else made, with limits of their own.
        for statement in (
            'create schema "{s}"',
            'create table "{s}".orders (_id bigint primary key, n bigint, note varchar(5),'
            " constraint small check (n < 5000 or n >= 1000000))",
            'create table "{s}".lines (_id bigint primary key, n bigint,'
            ' "order" bigint references "{s}".orders (_id))',
        ):
            connection.execute(statement.format(s=fleet.database_name).encode())
    fleet.coordinator()
    worker = fleet.worker()
    fleet.until_running()
    processed = "cartridge_warp_records_processed_total"
    before = scraped(worker, "orders").get((processed, 'operation="create"'), 0)
    # Of the first rows some may have waited for parents that another chunk brought.
    waited = scraped(worker, "lines").get(("cartridge_warp_deferred_total", ""), 0)

    orders, lines = fleet.source["orders"], fleet.source["lines"]
    orders.insert_many([{"_id": 100 + n, "n": "text"} for n in range(STRINGS)])
    orders.insert_many([{"_id": 200 + n, "n": {"a": n}} for n in range(OBJECTS)])
    orders.insert_many([{"_id": 300 + n, "n": 5000 + n} for n in range(SMALL)])
    orders.insert_many([{"_id": 400 + n, "n": n, "note": "too long"} for n in range(LONG)])
    lines.insert_many([{"_id": 500 + n, "order": 7000 + n, "n": n} for n in range(ORPHANS)])
    rows = 21 + STRINGS + OBJECTS + LONG
    eventually(lambda: len(fleet.rows("orders")) == rows, "what can land to land")
    ask = "select count(*) from cartridge_warp_metadata."
    eventually(lambda: fleet.asked(ask + "quarantine") == [(SMALL,)], "the bad rows set aside")
    eventually(lambda: fleet.asked(ask + "deferred_rows") == [(ORPHANS,)], "the orphans to wait")

    assert fleet.asked(
        "select source_table, column_name, action, cells from cartridge_warp_metadata.error_log"
        " where finding is not null and column_name <> '' order by message"
    ) == [
        ("orders", "n", "extra", OBJECTS),
        ("orders", "n", "extra", STRINGS),
        ("orders", "note", "truncated", LONG),
    ]
    of_orders, of_lines = scraped(worker, "orders"), scraped(worker, "lines")
    cells = "cartridge_warp_cells_total"
    assert of_orders[cells, 'column="n",outcome="extra"'] == STRINGS + OBJECTS
    assert of_orders[cells, 'column="note",outcome="truncated"'] == LONG
    warned = "cartridge_warp_type_conversion_warnings_total"
    assert of_orders[warned, ""] == STRINGS + OBJECTS + LONG
    assert of_orders["cartridge_warp_quarantined_total", ""] == SMALL
    assert of_lines["cartridge_warp_deferred_total", ""] - waited == ORPHANS
    landed = of_orders[processed, 'operation="create"'] - before
    assert landed == STRINGS + OBJECTS + LONG
    assert (processed, 'operation="create"') not in of_lines

    # The parents come: what waited has landed, once each.
    orders.insert_many([{"_id": 7000 + n, "n": n} for n in range(ORPHANS)])
    eventually(lambda: fleet.asked(ask + "deferred_rows") == [(0,)], "the orphans to land")
    eventually(
        lambda: scraped(worker, "lines").get((processed, 'operation="create"')) == ORPHANS,
        "the rows that landed late to be counted",
    )
    assert len(fleet.rows("lines")) == 20 + ORPHANS
