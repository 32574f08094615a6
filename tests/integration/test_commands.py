"""The commands against real servers, started as a user starts them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
import yaml
from fix_servers import Server
from psycopg import sql
from pymongo.database import Database

from warp.assembly import Plugged
from warp.config import load
from warp.errands import ErrandQueue
from warp.leases.redis import RedisLeaseStore
from warp.model import Phase, UnitKind, WorkUnit
from warp.testing.servers import RedisServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def config(
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
    redis_namespace: str,
    tmp_path: Path,
) -> Path:
    mongo_database["users"].insert_one({"name": "Ada"})
    path = tmp_path / "config.yaml"
    tree = {
        "source": {
            "type": "mongodb",
            "connection_string": mongo.url,
            "database": mongo_database.name,
        },
        "destination": {"type": "postgresql", "connection_string": pg_database},
        "schemas": [{"name": "users"}],
        "coordination": {"redis_url": redis_server.url, "namespace": redis_namespace},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def run(config: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
        return programs.run("commands.cli", "--config", str(config), *arguments, env=inherited)

    return run


def test_validate_finds_the_table_and_that_every_server_can_be_used(run: Run) -> None:
    done = run("validate", "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = {c["what"]: c["found"] for c in report["checks"]}
    assert ".users" in found["source, schema users"]
    assert found["destination"].startswith("usable at")
    assert found["ledger"].startswith("usable at")


def test_validate_tells_which_server_is_away_and_fails(run: Run) -> None:
    done = run("validate", "--json", "--redis", "redis://:hunter2@127.0.0.1:1/0")

    assert done.returncode == 1
    failed = [c for c in json.loads(done.stdout)["checks"] if not c["ok"]]
    assert [c["what"] for c in failed] == ["ledger"]
    assert "WARP-230" in failed[0]["found"]
    assert "hunter2" not in done.stdout + done.stderr


def test_validate_tells_a_wrong_password_without_showing_it(run: Run, pg_database: str) -> None:
    host = pg_database.partition("://")[2].rpartition("@")[2]
    done = run("validate", "--destination", f"postgresql://nobody:hunter2@{host}")

    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_status_before_the_first_start_is_empty_and_not_caught_up(run: Run) -> None:
    done = run("status", "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    assert (status["units"], status["workers"], status["caught_up"]) == ([], [], False)


def test_status_says_who_holds_a_unit_and_where_it_stands(
    run: Run, config: Path, redis_server: Server, redis_namespace: str
) -> None:
    settings = load(config)
    assembly = Plugged(settings)
    unit = WorkUnit.stream("users")
    with contextlib.closing(assembly.source("users")) as source:
        position = source.position()
    with contextlib.closing(assembly.bookkeeping()) as destination:
        destination.metadata().prepare()
        destination.metadata().register(unit, position=position, phase=Phase.STREAMING)
    ledger = RedisLeaseStore(redis_server.url, redis_namespace)
    ledger.ensure([unit])
    (lease,) = ledger.claim("worker-1", 1, ttl=60, slots=4)
    ledger.close()

    done = run("status", "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    (shown,) = status["units"]
    assert shown["id"] == unit.id
    assert (shown["kind"], shown["schema"]) == (UnitKind.STREAM.value, "users")
    assert (shown["phase"], shown["owner"]) == ("streaming", "worker-1")
    assert shown["position"] == position.token
    assert {"fence", "lag_seconds", "tables"} <= shown.keys()
    assert [w["id"] for w in status["workers"]] == [lease.owner]
    assert "stream:users" in run("status").stdout


def a_stopped_stream(config: Path, redis_server: Server, redis_namespace: str) -> WorkUnit:
    settings = load(config)
    assembly = Plugged(settings)
    unit = WorkUnit.stream("users")
    with contextlib.closing(assembly.source("users")) as source:
        position = source.position()
    with contextlib.closing(assembly.bookkeeping()) as destination:
        destination.metadata().prepare()
        destination.metadata().register(unit, position=position, phase=Phase.FAILED)
    ledger = RedisLeaseStore(redis_server.url, redis_namespace)
    ledger.ensure([unit])
    (lease,) = ledger.claim("worker-1", 1, ttl=60, slots=4)
    ledger.release(lease, dead=True)
    ledger.close()
    return unit


def shown_unit(run: Run) -> dict[str, Any]:
    (unit,) = json.loads(run("status", "--json").stdout)["units"]
    assert isinstance(unit, dict)
    return unit


def test_revive_makes_a_stopped_unit_ready_again(
    run: Run, config: Path, redis_server: Server, redis_namespace: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)
    assert (shown_unit(run)["phase"], shown_unit(run)["state"]) == ("failed", "dead")

    done = run("revive", "stream:users", "--json")

    answer = json.loads(done.stdout)
    assert (answer["name"], answer["status"]) == ("revive", "done"), done.stderr
    assert answer["result"] == "stream:users offered"
    assert (shown_unit(run)["phase"], shown_unit(run)["state"]) == ("streaming", "due")
    unknown = run("revive", "stream:user")
    assert unknown.returncode == 2
    assert "did you mean 'stream:users'?" in unknown.stderr


def test_resync_of_a_schema_starts_its_stopped_stream_over(
    run: Run, config: Path, redis_server: Server, redis_namespace: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)
    before = shown_unit(run)

    done = run("resync", "users", "--json")

    assert json.loads(done.stdout)["status"] == "done", done.stderr
    after = shown_unit(run)
    assert (after["phase"], after["state"]) == ("streaming", "due")
    assert after["epoch"] == before["epoch"] + 1
    unknown = run("resync", "users", "user")
    assert unknown.returncode == 2
    assert "did you mean 'users'?" in unknown.stderr


def test_a_slip_in_an_errand_is_wrong_usage_and_is_not_stored(
    run: Run, config: Path, redis_server: Server, redis_namespace: str, pg_database: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)

    slips = [("pause", "user"), ("resume", "user"), ("resync", "user"), ("resync", "users", "x")]
    done = [run(*slip) for slip in slips]

    assert [slip.returncode for slip in done] == [2] * 4
    assert all("expected" in slip.stderr and slip.stdout == "" for slip in done)
    with psycopg.connect(pg_database) as connection:
        stored = connection.execute("select * from cartridge_warp_metadata.errands")
        assert stored.fetchall() == []


def test_without_a_runner_the_command_carries_its_errand_out_itself(
    run: Run, config: Path, redis_server: Server, redis_namespace: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)
    run("revive", "stream:users")

    paused = run("pause", "users")

    assert (paused.returncode, paused.stdout) == (0, "pause: 1 units paused\n"), paused.stderr
    assert (shown_unit(run)["phase"], shown_unit(run)["state"]) == ("paused", "absent")
    assert errands_queued(redis_server, redis_namespace) == []
    resumed = run("resume", "users", "--json")
    assert json.loads(resumed.stdout)["result"] == "1 units resumed"
    assert (shown_unit(run)["phase"], shown_unit(run)["state"]) == ("streaming", "due")


def test_on_a_cluster_where_nobody_carries_errands_the_command_does(
    run: Run,
    config: Path,
    redis_server: Server,
    redis_namespace: str,
    start_server: Callable[[RedisServer], RedisServer],
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)
    cluster = start_server(RedisServer("redis7", cluster=True))
    url = f"redis+cluster://127.0.0.1:{cluster.port}"

    done = run("revive", "stream:users", "--no-wait", "--redis", url)

    assert (done.returncode, done.stdout) == (0, "revive: stream:users offered\n"), done.stderr


def test_no_wait_only_stores_and_sends(
    run: Run, config: Path, redis_server: Server, redis_namespace: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)

    done = run("revive", "stream:users", "--no-wait", "--json")

    answer = json.loads(done.stdout)
    assert (done.returncode, answer["status"]) == (0, "open"), done.stderr
    assert errands_queued(redis_server, redis_namespace) == [answer["errand"]]
    assert shown_unit(run)["phase"] == "failed"


def errands_queued(redis_server: Server, namespace: str) -> list[str]:
    queue = ErrandQueue(redis_server.url, namespace)
    with contextlib.closing(queue):
        return list(queue.queue.job_ids)


def test_an_errand_that_redis_cannot_take_is_stored_all_the_same(
    run: Run, config: Path, redis_server: Server, redis_namespace: str, pg_database: str
) -> None:
    a_stopped_stream(config, redis_server, redis_namespace)

    done = run("revive", "stream:users", "--redis", "redis://127.0.0.1:1/0")

    assert done.returncode == 1
    assert "WARP-230" in done.stderr
    assert "stored" in done.stderr
    with psycopg.connect(pg_database) as connection:
        stored = connection.execute("select name, status from cartridge_warp_metadata.errands")
        assert stored.fetchall() == [("revive", "open")]


def test_a_database_without_the_right_to_create_is_told_what_to_grant(
    run: Run, pg_database: str
) -> None:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        name = sql.Identifier(f"reader_{os.getpid()}")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hunter2'").format(name))
        host = pg_database.partition("://")[2].rpartition("@")[2]
        url = f"postgresql://reader_{os.getpid()}:hunter2@{host}"
        try:
            done = run("validate", "--json", "--destination", url)
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(name))

    assert done.returncode == 1
    failed = [c["found"] for c in json.loads(done.stdout)["checks"] if not c["ok"]]
    assert "WARP-520" in failed[0]
    assert "hunter2" not in done.stdout + done.stderr
