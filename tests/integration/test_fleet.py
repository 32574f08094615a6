"""Coordinators and workers as processes, killed, stopped and cut off, on real servers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import psutil
import psycopg
import pytest
import redis
import yaml
from fix_servers import Server, database_url
from processes import Command, Fleet, eventually, fleet_between
from pymongo.database import Database

from warp.testing.servers import Postgres, RedisServer

TTL = 2.0


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
        fleet.insert("orders", 0, 500)
        yield fleet


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keep a figure with the test's result, where `--junitxml` shows it."""

    def keep(name: str, seconds: float) -> None:
        # Not `record_property`, which warns about the very format pytest writes by default.
        request.node.user_properties.append((name, round(seconds, 2)))

    return keep


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_a_killed_workers_stream_goes_on_elsewhere_within_its_lease(
    fleet: Fleet, measured: Callable[[str, float], None]
) -> None:
    fleet.coordinator()
    workers = [fleet.worker(), fleet.worker()]
    fleet.until_running()
    eventually(lambda: len(fleet.ledger.workers()) == 2, "both workers to be there")
    before = fleet.owner()
    (victim,) = [w for w in workers if w.owns(before)]
    victim.kill9()
    killed_at = time.monotonic()
    fleet.insert("orders", 1000, 1010)
    eventually(lambda: fleet.owner() not in ("", before), "another owner")
    taken_over = time.monotonic() - killed_at
    fleet.arrives("orders", 1009)
    measured("takeover_seconds", taken_over)
    assert len(fleet.rows("orders")) == 511


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="SIGTERM")
def test_a_worker_asked_to_end_hands_its_stream_over_at_once(
    fleet: Fleet, measured: Callable[[str, float], None]
) -> None:
    fleet.coordinator()
    workers = [fleet.worker(), fleet.worker()]
    fleet.until_running()
    eventually(lambda: len(fleet.ledger.workers()) == 2, "both workers to be there")
    before = fleet.owner()
    (leaving,) = [w for w in workers if w.owns(before)]
    asked_at = time.monotonic()
    leaving.process.send_signal(signal.SIGTERM)
    eventually(lambda: fleet.owner() not in ("", before), "another owner")
    handed_over = time.monotonic() - asked_at
    assert leaving.process.wait(timeout=30) == 0
    measured("handover_seconds", handed_over)
    fleet.insert("orders", 1000, 1001)
    fleet.arrives("orders", 1000)
    runs = fleet.asked(
        "select status from cartridge_warp_metadata.sync_runs where status = 'running'"
    )
    assert len(runs) == 1  # the new owner's


def test_a_unit_that_cannot_go_on_leaves_the_others_running(fleet: Fleet) -> None:
    name = fleet.database_name
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        connection.execute("create schema elsewhere")
        connection.execute('create view elsewhere.broken as select 1 as "_id"')
    fleet.settings["schemas"] = [
        {"name": name, "tables": ["orders"]},
        {"name": "broken", "destination_schema": "elsewhere"},
    ]
    fleet.source["broken"].insert_one({"_id": 1, "n": 1})
    fleet.coordinator()
    fleet.worker()
    fleet.arrives("orders", 499)
    eventually(
        lambda: fleet.asked(
            "select 1 from cartridge_warp_metadata.sync_markers "
            "where phase = 'failed' and schema_name = 'broken'"
        ),
        "the unit to be marked as failed",
    )
    fleet.insert("orders", 1000, 1001)
    fleet.arrives("orders", 1000)
    (message,) = fleet.asked(
        "select message from cartridge_warp_metadata.error_log order by 1 limit 1"
    )[0]
    assert "broken" in message


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="FLUSHALL")
def test_a_wiped_ledger_costs_a_pause_and_no_row(
    fleet: Fleet, start_server: Callable[[Any], Any]
) -> None:
    own = start_server(RedisServer())
    fleet.settings["coordination"]["redis_url"] = own.url
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    with redis.Redis.from_url(own.url) as client:
        for step in range(3):
            client.flushall()
            fleet.insert("orders", 2000 + step * 10, 2010 + step * 10)
            fleet.arrives("orders", 2009 + step * 10)
    assert len(fleet.rows("orders")) == 531


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="server crash")
def test_a_redis_that_is_gone_for_a_while_needs_no_restart(
    fleet: Fleet, start_server: Callable[[Any], Any]
) -> None:
    own = start_server(RedisServer())
    fleet.settings["coordination"]["redis_url"] = own.url
    fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    own.kill9()
    fleet.insert("orders", 2000, 2010)
    time.sleep(TTL + 1)  # the outage itself: every lease has run out by now
    own.start()
    fleet.insert("orders", 2010, 2020)
    fleet.arrives("orders", 2019)
    assert len(fleet.rows("orders")) == 521


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="server crash")
def test_a_warehouse_that_restarts_needs_no_restart_of_ours(
    fleet: Fleet, start_server: Callable[[Any], Any]
) -> None:
    own = start_server(Postgres())
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("create database warehouse")
    fleet.pg_url = database_url(own.url, "warehouse")
    fleet.settings["destination"]["connection_string"] = fleet.pg_url
    fleet.coordinator()
    worker = fleet.worker()
    fleet.until_running()
    own.restart(hard=True)
    fleet.insert("orders", 2000, 2010)
    fleet.arrives("orders", 2009)
    assert len(fleet.rows("orders")) == 511
    assert worker.process.poll() is None
    assert worker.said().count("unit_waits") < 5  # told once per change of state


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_a_killed_leader_is_replaced_and_the_replacement_does_the_duties(
    fleet: Fleet, measured: Callable[[str, float], None]
) -> None:
    leader = fleet.coordinator()
    eventually(lambda: "leadership_taken" in leader.said(), "a leader")
    standby = fleet.coordinator()
    fleet.worker()
    fleet.until_running()
    leader.kill9()
    killed_at = time.monotonic()
    eventually(lambda: "leadership_taken" in standby.said(), "the standby to lead")
    measured("leader_seconds", time.monotonic() - killed_at)
    fleet.insert("new_table", 0, 10)  # somebody must plan its snapshot
    eventually(
        lambda: fleet.asked(
            "select 1 from cartridge_warp_metadata.sync_markers where kind = 'table' "
            "and source_table = 'new_table' and phase = 'streaming'"
        ),
        "the new table to be settled",
    )
    assert len(fleet.rows("new_table")) == 10


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_a_crashing_worker_process_is_started_again(fleet: Fleet) -> None:
    fleet.coordinator()
    pool = fleet.worker(processes=2)
    fleet.until_running()
    victim = psutil.Process(int(fleet.owner().split(":")[1]))
    victim.kill()
    fleet.insert("orders", 2000, 2010)
    fleet.arrives("orders", 2009)
    eventually(lambda: len(pool.family()) == 4, "the pool to be full again")
    assert "process_crashed" in pool.said()


def test_a_killed_pool_leaves_no_process_behind(fleet: Fleet) -> None:
    fleet.coordinator()
    pool = fleet.worker(processes=2)
    fleet.until_running()
    children = pool.family()[1:]
    assert len(children) == 3  # the workers, and the nursery they are forked from
    pool.process.kill()
    pool.process.wait()
    eventually(lambda: not any(child.is_running() for child in children), "the children to end")


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="no fault")
def test_once_brings_everything_over_and_ends(fleet: Fleet) -> None:
    del fleet.settings["coordination"]["redis_url"]  # one of its own
    fleet.settings["schemas"] = [
        {"name": fleet.database_name, "tables": ["orders"]},
        {"name": "batched", "mode": "batch", "schedule": "0 0 1 1 *"},
    ]
    fleet.insert("batched", 0, 50)
    first = fleet.start("commands.cli", "--once")
    assert first.process.wait(timeout=60) == 0, first.said()
    assert fleet.rows("orders") == {n: n for n in range(500)}
    assert len(fleet.rows("batched")) == 50
    # And again: what changed since, although the schedule's next slot is far away.
    fleet.source["orders"].delete_one({"_id": 0})
    fleet.source["orders"].update_one({"_id": 1}, {"$set": {"n": -1}})
    fleet.insert("batched", 50, 60)
    second = fleet.start("commands.cli", "--once")
    assert second.process.wait(timeout=60) == 0, second.said()
    assert fleet.rows("orders") == {n: n for n in range(2, 500)} | {1: -1}
    assert len(fleet.rows("batched")) == 60


def test_once_ends_with_the_failed_unit(fleet: Fleet) -> None:
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        connection.execute(f'create schema "{fleet.database_name}"')
        connection.execute(f'create view "{fleet.database_name}".orders as select 1 as "_id"')
    run = fleet.start("commands.cli", "--once")
    assert run.process.wait(timeout=60) == 1
    assert "failed: chunk:" in run.said()


def test_a_stopped_command_leaves_neither_process_nor_file(fleet: Fleet, tmp_path: Path) -> None:
    del fleet.settings["coordination"]["redis_url"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
    command = fleet.start("commands.cli", TMPDIR=str(temporary))
    fleet.until_running()
    family = command.family()
    assert len(family) >= 4  # itself, coordinator, worker, Redis
    assert list(temporary.iterdir())
    assert command.stop(signal.SIGINT) == 0
    assert not [member for member in family if member.is_running()]
    assert not list(temporary.iterdir())


def test_two_schemas_that_select_one_table_are_a_mistake_told_at_the_start(fleet: Fleet) -> None:
    fleet.settings["schemas"].append({"name": "orders"})
    command = fleet.coordinator()
    assert command.process.wait(timeout=30) == 2
    (line,) = command.said().splitlines()
    assert line.startswith("WARP-100")
    assert "orders" in line


def test_one_port_answers_for_every_process_of_a_command(fleet: Fleet) -> None:
    fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
    coordinator = fleet.coordinator()
    pool = fleet.worker(processes=2)
    fleet.until_running()
    assert asked_of(coordinator, "/readyz") == {"ok": True}
    assert asked_of(coordinator, "/healthz") == {"ok": True}
    assert asked_of(pool, "/readyz") == {"ok": True}
    eventually(lambda: asked_of(coordinator, "/status")["caught_up"], "the fleet to catch up")
    status = asked_of(coordinator, "/status")
    (stream,) = [unit for unit in status["units"] if unit["kind"] == "stream"]
    assert stream["owner"] == fleet.owner()
    assert len(status["workers"]) == 2
    assert status["scaling"] == {"demand": 1, "workers": 1}
    labels = f'database="{fleet.database_name}",schema="{fleet.database_name}"'
    queue = f'cartridge_warp_queue_size{{{labels},table="*"}} 1.0'
    eventually(lambda: queue in text_of(coordinator, "/metrics"), "the queue's size")
    metrics = text_of(pool, "/metrics")
    read = re.search(r'records_processed_total\{[^}]*operation="read"[^}]*\} (\d+)', metrics)
    assert read is not None
    assert int(read[1]) >= 500
    fleet.insert("orders", 1000, 1001)  # by the stream, whose lag is measured
    idle = f'cartridge_warp_lag_seconds{{{labels},table="orders"}} 0.0'
    eventually(lambda: idle in text_of(pool, "/metrics"), "the lag to fall to 0")


def port_of(command: Command) -> int:
    found = re.search(r'"metrics_served".*"port":(\d+)', command.said())
    assert found is not None, command.said()
    return int(found[1])


def text_of(command: Command, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(command)}{path}") as answer:
        text: str = answer.read().decode()
        return text


def asked_of(command: Command, path: str) -> Any:
    return json.loads(text_of(command, path))


def ask(fleet: Fleet, *arguments: str) -> str:
    """What a command answers."""
    done = programs.run("commands.cli", *arguments, "--config", str(fleet.config))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_has_its_errand_carried_out_by_a_worker(fleet: Fleet) -> None:
    name = fleet.database_name
    fleet.coordinator()
    worker = fleet.worker()
    fleet.until_running()

    assert ask(fleet, "pause", name) == "pause: 1 units paused\n"
    assert '"errand_done"' in worker.said()
    fleet.insert("orders", 2000, 2001)
    eventually(lambda: fleet.owner() == "", "the worker to let the stream go")
    assert 2000 not in fleet.rows("orders")

    assert ask(fleet, "resume", name) == "resume: 1 units resumed\n"
    fleet.arrives("orders", 2000)
    assert worker.said().count('"errand_done"') == 2


def test_one_command_carries_errands_beside_a_redis_that_nobody_else_can_reach(
    fleet: Fleet,
) -> None:
    del fleet.settings["coordination"]["redis_url"]
    command = fleet.start("commands.cli")
    fleet.until_running()

    assert ask(fleet, "pause", fleet.database_name) == "pause: 1 units paused\n"
    assert '"errand_done"' in command.said()
    assert ask(fleet, "resync", fleet.database_name).startswith("resync: ")
    fleet.insert("orders", 2000, 2001)
    fleet.arrives("orders", 2000)


def columns_of(fleet: Fleet, table: str) -> dict[str, str]:
    with psycopg.connect(fleet.pg_url) as connection:
        found = connection.execute(
            "select column_name, data_type from information_schema.columns "
            "where table_schema = %s and table_name = %s",
            (fleet.database_name, table),
        ).fetchall()
    return dict(found)


@pytest.mark.parametrize("snapshot", ["concurrent", "never"])
def test_an_empty_collection_has_a_table_at_once_that_its_first_documents_shape(
    fleet: Fleet, snapshot: str
) -> None:
    fleet.settings["schemas"][0]["snapshot"] = snapshot
    fleet.source.create_collection("empty")
    fleet.coordinator()
    fleet.worker()
    eventually(lambda: columns_of(fleet, "empty"), "the table of an empty collection")
    fleet.source.create_collection("made_later")
    eventually(lambda: columns_of(fleet, "made_later"), "the table of a new collection")
    assert columns_of(fleet, "empty")["_id"] == "text"

    fleet.insert("empty", 0, 3)
    fleet.arrives("empty", 2)
    assert fleet.rows("empty") == {n: n for n in range(3)}
    assert columns_of(fleet, "empty")["_id"] == "bigint"


def test_documents_that_are_gone_again_still_decide_the_type_of_the_key(fleet: Fleet) -> None:
    fleet.source.create_collection("empty")
    fleet.coordinator()
    worker = fleet.worker()
    fleet.until_running()
    assert columns_of(fleet, "empty")["_id"] == "text"
    worker.stop()
    fleet.insert("empty", 0, 3)
    fleet.source["empty"].delete_many({})
    fleet.worker()
    eventually(lambda: columns_of(fleet, "empty")["_id"] == "bigint", "the key's type")
    fleet.insert("empty", 3, 4)
    fleet.arrives("empty", 3)
    assert fleet.rows("empty") == {3: 3}


def test_once_gives_an_empty_polled_collection_its_table(fleet: Fleet) -> None:
    fleet.settings["schemas"] = [{"name": "batched", "mode": "batch", "schedule": "0 0 1 1 *"}]
    fleet.source.create_collection("batched")
    run = fleet.start("commands.cli", "--once")
    assert run.process.wait(timeout=60) == 0, run.said()
    assert columns_of(fleet, "batched")["_id"] == "text"


def test_once_tells_which_rows_are_in_quarantine_and_exits_with_3(fleet: Fleet) -> None:
    name = fleet.database_name
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        connection.execute(f'create schema "{name}"')
        connection.execute(
            f'create table "{name}".orders (_id bigint primary key, n bigint check (n < 498))'
        )
    run = fleet.start("commands.cli", "--once")
    assert run.process.wait(timeout=60) == 3, run.said()
    assert f"rows in quarantine: 2 of {name}.orders;" in run.said()
    assert len(fleet.rows("orders")) == 498
    again = fleet.start("commands.cli", "--once")
    assert again.process.wait(timeout=60) == 3  # they are still missing


def test_once_ends_where_a_schema_is_paused_instead_of_waiting_for_ever(fleet: Fleet) -> None:
    first = fleet.start("commands.cli", "--once")
    assert first.process.wait(timeout=60) == 0, first.said()
    ask(fleet, "pause", fleet.database_name)
    second = fleet.start("commands.cli", "--once")
    assert second.process.wait(timeout=60) == 1
    assert "cartridge-warp resume" in second.said()


def test_once_on_a_terminal_shows_a_bar_and_no_log_lines(fleet: Fleet) -> None:
    del fleet.settings["monitoring"]
    fleet.config.write_text(yaml.safe_dump(fleet.settings))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "commands.cli", "--once", "--config", str(fleet.config)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # Linux says so when the terminal's last user is gone
        while part := os.read(ours, 65536):
            shown += part.decode(errors="replace")
    os.close(ours)
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.wait(timeout=60) == 0, shown
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "500 of about 500 rows" in text
    assert "1 of 1 tables" in text
    assert "process_started" not in text
    assert "\x1b[?25h" in shown  # the cursor is back
