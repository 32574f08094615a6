"""What `doctor` says of servers really set up wrongly, and that its statements mend them."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from fix_servers import Server
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pymongo.database import Database

from commands.cli import cli
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.errors import DestinationRefused, SourceRefused
from warp.leases.redis import RedisLeaseStore
from warp.model import Diagnosis, TableSettings, Verdict
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.testing.servers import Mongod, RedisServer

DOCS = Path(__file__).parents[2] / "docs"
PASSWORD = "s3cret-of-tests"


def told(found: Iterable[Diagnosis], code: str) -> Diagnosis:
    """The finding of a code: the worst where there are several."""
    of_code = [one for one in found if one.code == code]
    worst = [Verdict.OK, Verdict.WARNING, Verdict.FAILED]
    return max(of_code, key=lambda one: worst.index(one.verdict))


def failures(found: Iterable[Diagnosis]) -> list[Diagnosis]:
    return [one for one in found if one.verdict is Verdict.FAILED]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", (DOCS / page).read_text(), re.M | re.S)


# -- MongoDB


class Selection:
    """Everything of one database, or some collections of it."""

    def __init__(self, namespace: str, *names: str) -> None:
        self.namespace = namespace
        self._names = names

    def __call__(self, table: Any) -> Any:
        chosen = table.namespace == self.namespace and (
            not self._names or table.name in self._names
        )
        return TableSettings(table, table, self.namespace) if chosen else None


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """Asks for a login, and has an oplog that is soon full."""
    with Mongod(auth=True, oplog_megabytes=8) as server:
        with server.client() as client:
            client.shop.orders.insert_one({"_id": 1})
            client.admin.command("createUser", "guest", pwd=PASSWORD, roles=[])
        yield server


@pytest.fixture
def source_of(guarded: Mongod) -> Iterator[Callable[..., MongoSource]]:
    made: list[MongoSource] = []

    def source_of(user: str = "root", *names: str) -> MongoSource:
        password = guarded.password if user == "root" else PASSWORD
        url = f"mongodb://{user}:{password}@{guarded.address}/?replicaSet=rs0"
        options = MongoOptions.model_validate({"connection_string": url})
        made.append(MongoSource(options, Selection("shop", *names)))
        return made[-1]

    yield source_of
    for source in made:
        source.close()


def obey(server: Mongod, statement: str) -> None:
    """What mongosh does with a statement of ours."""
    with server.client() as client:
        grant = re.fullmatch(r'db\.getSiblingDB\("(\w+)"\)\.grantRolesToUser\((.*)\)', statement)
        resize = re.fullmatch(
            r"db\.adminCommand\(\{replSetResizeOplog: 1, "
            r"size: Double\((\d+)\), minRetentionHours: Double\((\d+)\)\}\)",
            statement,
        )
        if grant:
            user, roles = json.loads(f"[{grant[2]}]")
            client[grant[1]].command("grantRolesToUser", user, roles=roles)
        elif resize:
            size, hours = (float(number) for number in resize.groups())
            client.admin.command("replSetResizeOplog", 1, size=size, minRetentionHours=hours)
        else:
            raise AssertionError(f"no statement of mongosh: {statement}")


def test_a_standalone_mongodb_fails(start_server: Callable[[Any], Any]) -> None:
    class Standalone(Mongod):
        def _command(self) -> list[str]:
            return [part for part in super()._command() if part not in ("--replSet", "rs0")]

    server = start_server(Standalone(initiate=False))
    options = MongoOptions.model_validate({"connection_string": server.direct_url})
    source = MongoSource(options, Selection("shop"))
    [only] = source.diagnose()
    assert (only.code, only.verdict) == ("mongodb-topology", Verdict.FAILED)
    assert "rs.initiate()" in only.mend
    source.close()


def test_a_mongodb_user_without_rights_is_given_them_by_the_statement(
    guarded: Mongod, source_of: Callable[..., MongoSource]
) -> None:
    found = told(source_of("guest").diagnose(), "mongodb-rights")
    assert (found.verdict, found.subject) == (Verdict.FAILED, "listCollections on shop")
    with pytest.raises(SourceRefused):
        source_of("guest").check()
    obey(guarded, found.mend)

    after = source_of("guest").diagnose()
    assert failures(after) == []
    source_of("guest").check()
    oplog = told(after, "mongodb-oplog")
    assert oplog.verdict is Verdict.WARNING  # it may not be read
    obey(guarded, oplog.mend)
    assert "may not be read" not in told(source_of("guest").diagnose(), "mongodb-oplog").found


def test_a_short_oplog_that_is_full_is_made_larger_by_the_statement(
    guarded: Mongod, source_of: Callable[..., MongoSource]
) -> None:
    assert told(source_of().diagnose(), "mongodb-oplog").verdict is Verdict.OK  # young, not short
    with guarded.client() as client:
        for _ in range(45):
            client.noise.rows.insert_one({"text": "x" * 200_000})
    found = told(source_of().diagnose(), "mongodb-oplog")
    assert found.verdict is Verdict.WARNING
    assert found.found.endswith("and it is full")
    obey(guarded, found.mend)
    assert told(source_of().diagnose(), "mongodb-oplog").verdict is Verdict.OK


def test_collections_that_cannot_be_followed_or_are_not_there_are_warned_of(
    guarded: Mongod, source_of: Callable[..., MongoSource]
) -> None:
    with guarded.client() as client:
        client.shop.command("create", "recent", viewOn="orders", pipeline=[])
    found = source_of().diagnose()
    assert told(found, "mongodb-left-out").subject == "shop.recent"
    assert told(found, "mongodb-left-out").mend == 'leave it out: `tables: ["!recent"]`'
    assert told(source_of("root", "nothing").diagnose(), "mongodb-tables").found == "none yet"
    with guarded.client() as client:
        client.shop.drop_collection("recent")


def make_documented_reader(server: Mongod, user: str, database: str) -> dict[str, Any]:
    """The user of docs/sources/mongodb.md; returns what made its role."""
    text = "\n".join(blocks("sources/mongodb.md", "js"))
    role, account = (
        json.loads(c) for c in re.findall(r"^db\.adminCommand\((\{\n.*?\n\})\)", text, re.M | re.S)
    )
    role["createRole"] = f"role_of_{user}"
    role["privileges"][0]["resource"]["db"] = database
    account |= {"createUser": user, "pwd": PASSWORD, "roles": [role["createRole"]]}
    with server.client() as client:
        client.admin.command(role)
        client.admin.command(account)
    return dict(role)


def test_the_documented_mongodb_role_has_no_right_that_can_be_spared(
    guarded: Mongod, source_of: Callable[..., MongoSource]
) -> None:
    role = make_documented_reader(guarded, "spared", "shop")
    clean = source_of("spared").diagnose()
    assert [
        one for one in clean if one.verdict is not Verdict.OK and one.code != "mongodb-oplog"
    ] == []
    assert "may not be read" not in told(clean, "mongodb-oplog").found
    on_database, on_oplog = role["privileges"]
    for action in on_database["actions"]:
        fewer = {**on_database, "actions": [a for a in on_database["actions"] if a != action]}
        with guarded.client() as client:
            client.admin.command("updateRole", role["createRole"], privileges=[fewer, on_oplog])
        assert told(source_of("spared").diagnose(), "mongodb-rights").subject == f"{action} on shop"


# -- PostgreSQL


class Warehouse:
    """A fresh database, and a role whose rights a test gives and takes."""

    namespace = "shop"

    def __init__(self, url: str) -> None:
        self.admin = psycopg.connect(url, autocommit=True)
        self.database = self.admin.info.dbname
        self.role = f'us"er %{secrets.token_hex(3)}'
        self.url = make_conninfo(url, user=self.role)
        self.made: list[PostgresDestination] = []
        self.run("create role {role} login")
        self.run("revoke all on database {database} from public")
        self.run("grant connect on database {database} to {role}")

    def run(self, statement: str) -> None:
        names = {"role": sql.Identifier(self.role), "database": sql.Identifier(self.database)}
        self.admin.execute(sql.SQL(statement).format(**names))

    def obey(self, statement: str) -> None:
        for one in statement.split("; "):
            self.admin.execute(one.encode())

    def destination(self) -> PostgresDestination:
        class Everything:
            destination_namespace = self.namespace

            def __call__(self, table: Any) -> Any:
                return None

        options = PostgresOptions.model_validate({"connection_string": self.url})
        self.made.append(PostgresDestination(options, Everything()))
        return self.made[-1]

    def look(self) -> list[Diagnosis]:
        return self.destination().diagnose()

    def close(self) -> None:
        for destination in self.made:
            destination.close()
        self.run("drop owned by {role} cascade")
        self.run("drop role {role}")
        self.admin.close()


@pytest.fixture
def warehouse(pg_database: str) -> Iterator[Warehouse]:
    warehouse = Warehouse(pg_database)
    yield warehouse
    warehouse.close()


def test_a_postgresql_role_without_rights_is_given_them_by_the_statements(
    warehouse: Warehouse,
) -> None:
    found = failures(warehouse.look())
    assert {one.code for one in found} == {"postgresql-schema", "postgresql-temporary"}
    assert {one.subject for one in found} >= {"schema cartridge_warp_metadata", "schema shop"}
    with pytest.raises(DestinationRefused):
        warehouse.destination().check()
    for one in found:
        # Of a schema that is not there: the first statement, or the second.
        first, _, second = one.mend.partition("; or ")
        warehouse.obey(second or first)
    assert failures(warehouse.look()) == []
    warehouse.destination().check()
    warehouse.destination().metadata().prepare()


@pytest.mark.parametrize(
    ("wrong", "code", "verdict"),
    [
        ("alter role {role} set default_transaction_read_only = on", "read-only", Verdict.FAILED),
        ("alter database {database} set default_transaction_read_only = on", "read-only",
         Verdict.FAILED),
        ("alter role {role} connection limit 5", "connections", Verdict.WARNING),
        ("alter role {role} set idle_session_timeout = '10min'", "timeouts", Verdict.WARNING),
        ("create schema shop; grant usage on schema shop to {role}", "schema", Verdict.FAILED),
    ],
)  # fmt: skip
def test_a_setting_that_hurts_is_named_and_mended_by_the_statement(
    warehouse: Warehouse, wrong: str, code: str, verdict: Verdict
) -> None:
    warehouse.run("grant create, temporary on database {database} to {role}")
    code = f"postgresql-{code}"
    for statement in wrong.split("; "):
        warehouse.run(statement)
    found = told(warehouse.look(), code)
    assert found.verdict is verdict
    warehouse.admin.execute("set default_transaction_read_only = off")
    warehouse.obey(found.mend)
    assert {one.verdict for one in warehouse.look() if one.code == code} <= {Verdict.OK}


def test_tables_of_another_owner_are_warned_of_and_those_that_cannot_be_written_fail(
    warehouse: Warehouse,
) -> None:
    warehouse.run("grant create, temporary on database {database} to {role}")
    warehouse.destination().metadata().prepare()
    warehouse.run("alter table cartridge_warp_metadata.errands owner to current_user")
    found = told(warehouse.look(), "postgresql-table")
    assert (found.verdict, found.subject) == (
        Verdict.FAILED, "table cartridge_warp_metadata.errands"
    )  # fmt: skip
    warehouse.obey(found.mend)
    found = told(warehouse.look(), "postgresql-table")
    assert found.verdict is Verdict.WARNING
    warehouse.obey(found.mend)
    assert told(warehouse.look(), "postgresql-table").verdict is Verdict.OK


def test_a_database_of_another_encoding_fails(warehouse: Warehouse) -> None:
    name = f"latin_{secrets.token_hex(4)}"
    warehouse.obey(f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    options = {"connection_string": make_conninfo(warehouse.url, dbname=name)}
    destination = PostgresDestination(PostgresOptions.model_validate(options), lambda table: None)
    assert told(destination.diagnose(), "postgresql-encoding").verdict is Verdict.FAILED
    destination.close()
    warehouse.obey(f"drop database {name}")


# -- Redis


@pytest.fixture(scope="module")
def ledger_server() -> Iterator[RedisServer]:
    page = (DOCS / "operations/redis.md").read_text()
    rights = dict(re.findall(r"^```(acl\S*)\n(.*?)\n```$", page, re.M | re.S))
    documented = f"{rights['acl']} {rights['acl-errands']}".replace("CHANGE-ME", PASSWORD)
    few = rights["acl"].replace("CHANGE-ME", PASSWORD).replace("+zadd ", "")
    few = few.replace("user cartridge-warp", "user few")
    none = f"user none on >{PASSWORD} -@all +ping +hello +select"
    admin = "user default on nopass ~* &* +@all"
    with RedisServer("redis7", users=[admin, documented, few, none]) as server:
        yield server


def ledger_look(server: RedisServer, user: str = "cartridge-warp") -> list[Diagnosis]:
    url = f"redis://{user}:{PASSWORD}@127.0.0.1:{server.port}/0"
    store = RedisLeaseStore(url, "prod")
    try:
        return store.diagnose()
    finally:
        store.close()


def test_the_documented_redis_user_is_fine_and_a_look_leaves_nothing(
    ledger_server: RedisServer,
) -> None:
    assert {one.verdict for one in ledger_look(ledger_server)} == {Verdict.OK}
    with ledger_server.client() as client:
        assert client.keys("cw:*") == []


@pytest.mark.parametrize("user", ["few", "none"])
def test_a_redis_user_with_too_few_rights_is_given_them_by_the_statements(
    ledger_server: RedisServer, user: str
) -> None:
    found = ledger_look(ledger_server, user)
    assert told(found, "redis-rights").verdict is Verdict.FAILED
    # Rights first, since it takes all others away.
    for one in found:
        if one.mend:
            with ledger_server.client() as client:
                client.execute_command(*one.mend.split())
    assert {one.verdict for one in ledger_look(ledger_server, user)} == {Verdict.OK}


def test_a_redis_that_evicts_is_warned_of(ledger_server: RedisServer) -> None:
    with ledger_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = told(ledger_look(ledger_server), "redis-eviction")
        assert (found.verdict, found.found) == (Verdict.WARNING, "allkeys-lru")
        client.execute_command(*found.mend.partition(";")[0].split())
    assert told(ledger_look(ledger_server), "redis-eviction").verdict is Verdict.OK


def test_a_replica_of_redis_fails_for_it_takes_no_writes(ledger_server: RedisServer) -> None:
    with ledger_server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        found = told(ledger_look(ledger_server), "redis-primary")
        assert found.verdict is Verdict.FAILED
        client.execute_command(*found.mend.rpartition("or ")[2].split())
    assert failures(ledger_look(ledger_server)) == []


# -- the command


@pytest.fixture
def doctor(
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    redis_server: Server,
    redis_namespace: str,
    tmp_path: Path,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    mongo_database["users"].insert_one({"name": "Ada"})
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
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return lambda *arguments: command("--config", str(path), "doctor", *arguments)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
    return subprocess.run(
        [sys.executable, "-m", "commands.cli", *arguments],
        capture_output=True,
        text=True,
        env=inherited,
        timeout=150,
        check=False,
    )


def test_servers_that_fit_exit_with_0_and_each_is_told_of(
    doctor: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = doctor("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert {f["where"] for f in report["findings"]} == {
        "program",
        "source",
        "destination",
        "ledger",
    }
    assert report["ok"]


def test_what_cannot_be_asked_exits_with_1_and_shows_no_password(
    doctor: Callable[..., subprocess.CompletedProcess[str]], pg_database: str
) -> None:
    host = pg_database.partition("://")[2].rpartition("@")[2]
    done = doctor(
        *("--destination", f"postgresql://nobody:hunter2@{host}"),
        *("--redis", "redis://:hunter2@127.0.0.1:1/0"),
    )
    assert done.returncode == 1
    assert re.search(r"^failed +destination +WARP-520", done.stdout, re.M)
    assert re.search(r"^failed +ledger +WARP-230", done.stdout, re.M)
    assert re.search(r"^ok +source ", done.stdout, re.M)
    assert "hunter2" not in done.stdout + done.stderr


def test_a_mistake_in_the_configuration_exits_with_2() -> None:
    wrong = ["doctor", "--source", "mongodb://h/shop", "--redis", "http://localhost"]
    with pytest.raises(SystemExit) as ended:
        cli.main(wrong)
    assert ended.value.code == 2


# -- the least rights at both ends


def test_a_pipeline_runs_with_the_least_rights_of_the_documentation(
    guarded: Mongod, warehouse: Warehouse, tmp_path: Path
) -> None:
    """Snapshot, stream and poll, from the MongoDB role to the PostgreSQL role of the pages."""
    with guarded.client() as client:
        client.least.orders.insert_many([{"_id": n, "n": n} for n in range(300)])
        client.least.polled.insert_many([{"_id": n} for n in range(20)])
    make_documented_reader(guarded, "least", "least")
    [rights, _] = blocks("destinations/postgresql.md", "sql")
    role = sql.Identifier(f"{warehouse.role}_2").as_string(None)
    for statement in rights.replace("CHANGE-ME", PASSWORD).split(";"):
        named = re.sub(r"\bcartridge_warp\b", role, statement)
        named = named.replace("DATABASE warehouse", f'DATABASE "{warehouse.database}"')
        if named.strip():
            warehouse.admin.execute(named.replace("SCHEMA shop", "SCHEMA least").encode())
    tree = {
        "source": {
            "connection_string": f"mongodb://least:{PASSWORD}@{guarded.address}/?replicaSet=rs0",
            "database": "least",
        },
        "destination": {
            "connection_string": make_conninfo(warehouse.url, user=f"{warehouse.role}_2"),
            "type": "postgresql",
        },
        "schemas": [
            {"name": "least", "tables": ["orders"], "chunk_rows": 100},
            {"name": "polled", "mode": "batch", "schedule": "0 0 1 1 *"},
        ],
        "monitoring": {"logging": {"level": "warning"}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    done = command("--config", str(path), "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [
        warehouse.admin.execute(f"select count(*) from least.{table}".encode()).fetchone()
        for table in ("orders", "polled")
    ]
    assert counts == [(300,), (20,)]

    looked = command("--config", str(path), "doctor", "--json")
    found = json.loads(looked.stdout)["findings"]
    assert looked.returncode == 0
    assert [f for f in found if f["verdict"] == "failed"] == []
    warehouse.admin.execute(f"drop owned by {role} cascade".encode())
    warehouse.admin.execute(f"drop role {role}".encode())
