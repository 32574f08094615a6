"""A fleet of real processes between real servers, the load on it, and what an auditor saw.

The processes are started as an operator starts them and know nothing of tests; the audit is made
of database triggers and shares no code with what it judges.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import programs
import psutil
import pymongo
import yaml
from accusations import ACCUSATIONS
from bson import ObjectId, json_util
from failing_servers import PostgresWithSmallDisk, RedisWithOwnClock
from pymongo.database import Database
from pymongo.errors import PyMongoError
from warehouses import PostgresWarehouse, Warehouse
from wires import Wire

from warp.own_process import LOG, OwnProcess, wait_until
from warp.testing.servers import Mongod, Postgres, RedisServer, ReplicaSet

TTL: Final = 3.0  # seconds, of every lease in these tests
PATIENCE: Final = 60.0  # how long a busy machine may take for what should take a second
Document = dict[str, Any]


# --- servers --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Servers:
    """Ours alone, so they may be killed and wiped."""

    mongo: ReplicaSet | Mongod
    postgres: Postgres
    redis: RedisServer


@contextlib.contextmanager
def servers(
    *,
    members: int,
    postgres: Mapping[str, str | int] | None = None,
    cache: float = 0.25,
    failing: bool = False,
) -> Iterator[Servers]:
    """`failing`: with a disk that can be filled and a clock that can be shifted."""
    mongo: ReplicaSet | Mongod
    if members == 1:
        mongo = Mongod(cache_gigabytes=cache, oplog_megabytes=2_048)
    else:
        mongo = ReplicaSet(members, cache_gigabytes=cache)
    destination, ledger = (
        (PostgresWithSmallDisk, RedisWithOwnClock) if failing else (Postgres, RedisServer)
    )
    ours = Servers(mongo, destination(settings=postgres), ledger())
    with contextlib.ExitStack() as stack:
        for server in (ours.mongo, ours.postgres, ours.redis):
            stack.callback(server.close)
        with ThreadPoolExecutor(3) as pool:
            starts = [ours.mongo.start, ours.postgres.start, ours.redis.start]
            list(pool.map(lambda start: start(), starts))
        yield ours


# --- processes ------------------------------------------------------------------------------------


class Program(OwnProcess):
    """A coordinator or a worker, as an operator starts it."""

    module: ClassVar[str]

    def __init__(
        self,
        label: str,
        configuration: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.label = label
        self.wanted = False  # should it run now?
        self.lives = 0
        self.lock = threading.RLock()
        self._configuration = configuration
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._orphans: list[psutil.Process] = []  # that a killed leader left behind

    def _command(self) -> Sequence[str]:
        return [self.module, "--config", str(self._configuration), *self._arguments]

    def _spawn(self) -> None:
        log = self.directory / LOG
        self._log_start = log.stat().st_size if log.exists() else 0
        env = self._popen_options()["env"]
        self._process = programs.start(
            *self._command(), env=env, cwd=self.directory, stdout=log, stderr=log
        )
        self._tell_caretaker(str(self._process.pid))

    def _popen_options(self) -> Mapping[str, Any]:
        # The auditor's name for whoever writes; libpq sends it with every connection.
        named = {"PGOPTIONS": f"-c audit.program={self.label}"}
        return {"env": {**os.environ, **named, **self._environment}}

    def start(self) -> Self:
        with self.lock:
            if not self.running:
                self.lives += 1
                super().start()
            self.wanted = True
        return self

    def crash(self) -> None:
        """SIGKILL to all its processes, as when a machine loses power."""
        with self.lock:
            self.kill9()

    def kill_one(self, chosen: random.Random) -> None:
        """SIGKILL to one of its processes, as when memory runs out; the others must cope."""
        with self.lock, contextlib.suppress(psutil.NoSuchProcess):
            family = self._family()
            self._orphans += family[1:]
            if family:  # it may have died by itself
                chosen.choice(family).kill()

    def finish(self) -> None:
        """SIGTERM, and wait."""
        with self.lock:
            self.wanted = False
            self.stop()

    def close(self) -> None:
        with self.lock:
            self.wanted = False
            super().close()
            for orphan in self.orphans():
                orphan.kill()

    def stopped(self) -> bool:
        """Does one of its processes sleep, by SIGSTOP?"""
        return any(p.status() == psutil.STATUS_STOPPED for p in self._family())

    def wake(self) -> None:
        self._signal_all(signal.SIGCONT)

    def orphans(self) -> list[psutil.Process]:
        """Children of killed leaders that still run."""
        ours = self._family() if self.running else []
        return [p for p in self._orphans if p.is_running() and p not in ours]

    def owns(self, owner: str) -> bool:
        """A worker's id is host:pid:random."""
        pid = owner.rpartition(":")[0].rpartition(":")[2]
        return self.running and pid in {str(member.pid) for member in self._family()}

    def is_(self, who: str) -> bool:
        """Is that what an audit calls it?  One has its label, one the numbers of its processes."""
        family = self._family() if self.running else []
        return who == self.label or who in {str(member.pid) for member in family}

    def log(self) -> str:
        """All it said, in all its lives; nothing yet where it was started just now."""
        log = self.directory / LOG
        return log.read_text(errors="replace") if log.exists() else ""

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log, of all lives, that tell of an event."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == event:
                    found.append(entry)
        return found

    def cpu(self) -> float:
        """CPU seconds of its processes that live now."""
        times = [member.cpu_times() for member in self._family()]
        return sum(t.user + t.system for t in times)

    def peak_memory(self) -> int:
        """Bytes: the highest resident size any of its processes ever had (VmHWM)."""
        peaks = [0]
        for member in self._family():
            for line in Path(f"/proc/{member.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peaks.append(int(line.split()[1]) * 1024)
        return max(peaks)


class Coordinator(Program):
    name: ClassVar[str] = "coordinator"
    module: ClassVar[str] = "coordinator.cli"


class Worker(Program):
    name: ClassVar[str] = "worker"
    module: ClassVar[str] = "workers.cli"


class Fleet:
    """Processes of one configuration, on databases of their own, with a supervisor and an audit."""

    accusations: ClassVar[Mapping[str, str]] = ACCUSATIONS

    def __init__(
        self,
        servers: Servers,
        *,
        audited: bool = True,
        ttl: float = TTL,
        beside: str | None = None,
        destination: Mapping[str, Any] | None = None,
        warehouse: Warehouse | None = None,
        wires: Sequence[Wire] = (),
        **settings: Any,
    ) -> None:
        """`settings` are of the schema's block, `destination` more of the destination's; `beside`
        ends the name of a second schema; `wires` lie between the processes and servers; without a
        `warehouse` of its own the fleet writes to the PostgreSQL of the servers."""
        self.servers = servers
        self.name = f"t_{secrets.token_hex(6)}"
        self.programs: list[Program] = []
        self.deaths: list[str] = []  # of programs that were not told to end
        self.beside = f"{self.name}_{beside}" if beside else None
        self._audited = audited
        self._ttl = ttl
        self._settings = settings
        self._destination = destination or {}
        self.warehouse = warehouse or PostgresWarehouse(servers.postgres)
        self._wires = wires
        self._stack = contextlib.ExitStack()
        self._supervised = threading.Event()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._open_source(stack)
            self.warehouse.create(self.name, self.namespaces, audited=self._audited)
            self._configuration = stack.enter_context(_temporary_file(self.configuration()))
            stack.callback(self._close_programs)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _close_programs(self) -> None:
        self._supervised.set()
        for program in self.programs:
            program.close()
        self.warehouse.drop()
        self._drop_source()

    def _open_source(self, stack: contextlib.ExitStack) -> None:
        self.client = stack.enter_context(
            pymongo.MongoClient[Document](
                self.servers.mongo.url, w="majority", tz_aware=True, retryReads=True
            )
        )
        self.source: Database[Document] = self.client[self.name]

    def _drop_source(self) -> None:
        with contextlib.suppress(PyMongoError):
            self.client.drop_database(self.name)
            if self.beside:
                self.client.drop_database(self.beside)

    def _source_block(self) -> dict[str, Any]:
        return {
            "type": "mongodb",
            "connection_string": self.servers.mongo.url,
            "database": self.name,
        }

    @property
    def namespaces(self) -> list[str]:
        return [self.name, *([self.beside] if self.beside else [])]

    def configuration(self) -> dict[str, Any]:
        """What an operator would write, with a login that may do no more than it must."""
        source = self._source_block()
        destination = self.warehouse.block()
        return {
            "source": {**source, "connection_string": self._wired(source["connection_string"])},
            "destination": {
                **destination,
                "connection_string": self._wired(destination["connection_string"]),
                **self._destination,
            },
            "schemas": [{"name": name, **self._settings} for name in self.namespaces],
            "error_handling": {"initial_delay": "200ms", "max_delay": "1s"},
            "coordination": {
                "redis_url": self._wired(self.servers.redis.url),
                "namespace": self.name,
                "lease_ttl": f"{self._ttl:g}s",
                "reconcile_every": "1s",
            },
        }

    def _wired(self, address: str) -> str:
        for wire in self._wires:
            address = wire.through(address)
        return address

    # -- processes

    def coordinator(self, environment: Mapping[str, str] | None = None) -> Coordinator:
        number = sum(isinstance(p, Coordinator) for p in self.programs)
        made = Coordinator(f"coordinator-{number}", self._configuration, (), environment)
        self.programs.append(made)
        return made.start()

    def worker(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        slots: int = 4,
        processes: int = 1,
    ) -> Worker:
        number = sum(isinstance(p, Worker) for p in self.programs)
        arguments = ("--processes", str(processes), "--slots", str(slots))
        made = Worker(f"worker-{number}", self._configuration, arguments, environment)
        self.programs.append(made)
        return made.start()

    @property
    def workers(self) -> list[Worker]:
        return [p for p in self.programs if isinstance(p, Worker)]

    def supervise(self) -> None:
        """From now on start again whatever dies, as systemd or Kubernetes would."""
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()

    def _supervise(self) -> None:
        while not self._supervised.wait(0.1):
            for program in self.programs:
                with program.lock:
                    if program.wanted and not program.running and not self._supervised.is_set():
                        self.deaths.append(f"{program.label}:\n{program.log_tail(3)}")
                        program.start()

    # -- what the destination says

    def destination(self) -> Any:
        """A connection of an administrator."""
        return self.warehouse.connect()

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """One query; nothing while the server is away or the table is not there yet."""
        return self.warehouse.ask(query, *parameters)

    def watch(self, *tables: str) -> None:
        """Audit each of these tables, which the source has, from before its first row.

        To be said before a process runs; a PostgreSQL does it by itself.
        """
        self.warehouse.watch(self._configuration, tables)

    @property
    def stream(self) -> str:
        return f"stream:{self.name}"

    def advances(self, unit: str | None = None) -> list[tuple[float, str, int, int]]:
        """(time, program, batch, fence) of every batch committed by a unit, in order."""
        rows = self.ask(
            "select at, program, batch, fence from {audit}.advances"
            " where unit = %s and moved order by n",
            unit or self.stream,
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    def owner(self, unit: str | None = None) -> Worker:
        """The running worker that adopted the unit last."""
        found: list[Worker] = []

        def look() -> bool:
            rows = self.ask(
                "select owner from {meta}.sync_markers where unit = %s", unit or self.stream
            )
            found.extend(w for row in rows for w in self.workers if w.owns(row[0]))
            return bool(found)

        self.wait_for("a running worker to own the stream", look)
        return found[-1]

    def open_runs(self) -> list[tuple[str, str]]:
        """(unit, worker's id) of every run that has not ended."""
        rows = self.ask("select unit, worker from {meta}.sync_runs where ended_at is null")
        return [(row[0], row[1]) for row in rows]

    def phases(self) -> dict[str, str]:
        """Phase of each table of the first schema, by the name of its collection."""
        return dict(
            self.ask(
                "select source_table, phase from {meta}.sync_markers"
                " where kind = 'table' and schema_name = %s",
                self.name,
            )
        )

    def settled(self, *tables: str) -> bool:
        """Is the snapshot of all of these complete?"""
        phases = self.phases()
        return all(phases.get(table) == "streaming" for table in tables)

    def count(self, table: str) -> int:
        rows = self.ask(f'select count(*) from "{self.name}"."{table}" where not _cw_deleted')
        return int(rows[0][0]) if rows else 0

    def wait_for(self, what: str, condition: Callable[[], bool], limit: float = PATIENCE) -> None:
        if not wait_until(condition, limit, pause=0.05):
            logs = "\n".join(f"--- {p.label}\n{p.log_tail(12)}" for p in self.programs)
            raise AssertionError(f"expected {what} within {limit:.0f} s, found otherwise:\n{logs}")

    def catch_up(self, tables: Sequence[str], limit: float = PATIENCE) -> None:
        """Until a row written after all others has arrived in each table.

        Writers must have stopped: what is in the log before it then is in the destination too.
        """
        ids = {table: f"last-{secrets.token_hex(4)}" for table in tables}
        for table, name in ids.items():
            self._write_last(table, name)

        def arrived() -> bool:
            there = all(
                self.ask(f'select 1 from "{self.name}"."{table}" where name = %s', name)
                for table, name in ids.items()
            )
            return there and self.settled(*tables)

        self.wait_for("every table settled and the last row in each", arrived, limit)

    def put(self, key: int, name: str) -> None:
        """A new row of the first table."""
        self.source[ORDERS].insert_one({"_id": key, "name": name})

    def _write_last(self, table: str, name: str) -> None:
        with_retries(partial(self.source[table].insert_one, {"name": name}))

    # -- judgement

    def differences(self, tables: Iterable[str]) -> list[str]:
        """Where destination and source are not equal, row by row and field by field."""
        found: list[str] = []
        with self.destination() as connection:
            for table in tables:
                found += self._differences(connection, table)
        return found

    def _differences(self, connection: Any, table: str) -> list[str]:
        return _differences(self.source, self.warehouse.named(connection, table), table)

    def faults(self) -> list[str]:
        """What the audit holds against the fleet."""
        found: list[str] = []
        for accusation, query in self.accusations.items():
            rows = self.warehouse.read(query)
            if rows:
                found.append(f"{accusation}: {len(rows)}, such as {rows[:3]}")
        return found


@contextlib.contextmanager
def _temporary_file(content: Mapping[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cartridge-warp-fleet-") as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
        yield path


# --- comparing ------------------------------------------------------------------------------------


def _differences(source: Database[Document], landed: Iterable[Document], table: str) -> list[str]:
    expected = {_id(d["_id"]): _plain(d) for d in source[table].find()}
    rows = list(landed)
    found = {_id_of_row(row["_id"]): _document(row) for row in rows}
    said = []
    if len(found) != len(rows):
        said.append(f"{table}: {len(rows)} rows have only {len(found)} ids")
    for key in expected.keys() | found.keys():
        wanted, there = expected.get(key), found.get(key)
        if wanted is None or there is None:
            said.append(f"{table} {key}: only in the {'source' if wanted else 'destination'}")
        elif {**wanted, "_id": 0} != {**there, "_id": 0}:
            differing = {
                name: (wanted.get(name), there.get(name))
                for name in wanted.keys() | there.keys()
                if name != "_id" and wanted.get(name) != there.get(name)
            }
            said.append(f"{table} {key}: (source, destination) {differing}")
    return said


def _id(value: Any) -> str:
    """1 and "1" are two ids; so are a document and its text."""
    if isinstance(value, dict):
        return json_util.dumps(value)
    return f"{'int' if isinstance(value, int) else type(value).__name__} {value}"


def _id_of_row(value: Any) -> str:
    if not isinstance(value, str):
        return _id(value)
    with contextlib.suppress(ValueError):  # a tagged id is JSON text
        return _id(json_util.loads(value))
    # Twenty-four hexadecimal digits as plain text stand in a column of ObjectIds.
    return _id(ObjectId(value) if ObjectId.is_valid(value) else value)


def _document(row: Document) -> Document:
    """A row as the document it came from; NULL stands for a field that is not there."""
    fields = {k: v for k, v in row.items() if not k.startswith("_cw_") and k != "_extra"}
    return _plain({**fields, **(row.get("_extra") or {})})


def _plain(document: Mapping[str, Any]) -> Document:
    return {name: value for name, value in document.items() if value is not None}


# --- the load -------------------------------------------------------------------------------------


def with_retries(action: Callable[[], Any], limit: float = PATIENCE) -> Any:
    """As an application would: try again while the replica set elects a primary."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return action()
        except PyMongoError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.1)


ORDERS, CUSTOMERS, NOTES, MIXED = "orders", "customers", "notes", "mixed"
TABLES: Final = (ORDERS, CUSTOMERS, NOTES, MIXED)

_MAKERS: Final[dict[str, Callable[[int], Any]]] = {
    ORDERS: lambda n: n,
    CUSTOMERS: lambda n: ObjectId(f"{n:024x}"),
    NOTES: lambda n: f"note/{n}",
    MIXED: lambda n: (n, str(n), n + 0.5, {"a": n}, ObjectId(f"{n:024x}"))[n % 5],
}


def document(table: str, n: int, chosen: random.Random) -> Document:
    """A document of a table; some carry fields that no column is there for, or odd types."""
    made = {
        "_id": _MAKERS[table](n),
        "name": f"{table} {n}",
        "total": chosen.randrange(1_000_000),
        "weight": chosen.randrange(1_000_000) / 7,
        "paid": chosen.random() < 0.5,
        "at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=chosen.randrange(10**9)),
        "tags": [f"tag{chosen.randrange(9)}" for _ in range(chosen.randrange(3))],
    }
    if chosen.random() < 0.05:
        made["total"] = "not a number"
    if chosen.random() < 0.05:
        made[f"rare{chosen.randrange(3)}"] = chosen.randrange(100)
    return made


def preload(source: Database[Document], rows: int, chosen: random.Random) -> None:
    for table in TABLES:
        source[table].insert_many([document(table, n, chosen) for n in range(rows)])


class Load(ABC):
    """Threads that write until told to stop, each by a seed of its own."""

    seed: int
    threads: int

    @abstractmethod
    def _run(self, seed: int) -> None:
        """Write until `_stop` is set."""

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._running = [
            threading.Thread(target=self._run, args=(self.seed * 100 + n,), name=f"writer {n}")
            for n in range(self.threads)
        ]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()


@dataclass
class Writers(Load):
    """Threads that write with w:majority and retryable writes until told to stop."""

    url: str
    database: str
    keys: int  # documents are made, changed and deleted among so many ids of each table
    seed: int
    threads: int = 2
    pause: float = 0.002  # between writes, so that two cores are left something to do
    made: Counter[str] = field(default_factory=Counter)

    def _run(self, seed: int) -> None:
        chosen = random.Random(seed)
        with pymongo.MongoClient[Document](
            self.url, w="majority", readConcernLevel="majority", tz_aware=True
        ) as client:
            while not self._stop.wait(self.pause):
                try:
                    self.made[self._write(client, chosen)] += 1
                except PyMongoError as error:
                    # Whether it happened or not: the source says in the end.
                    self.made[f"failed: {type(error).__name__}"] += 1

    def _write(self, client: pymongo.MongoClient[Document], chosen: random.Random) -> str:
        database = client[self.database]
        table = chosen.choice(TABLES)
        collection = database[table]
        n = chosen.randrange(self.keys)
        key = {"_id": _MAKERS[table](n)}
        dice = chosen.random()
        if dice < 0.30:
            collection.replace_one(key, document(table, n, chosen), upsert=True)
            return "upserts"
        if dice < 0.60:
            change = {"$set": {"total": chosen.randrange(10**6)}, "$inc": {"times": 1}}
            collection.update_one(key, change)
            return "updates"
        if dice < 0.72:
            collection.delete_one(key)
            return "deletes"
        if dice < 0.78:
            first = chosen.randrange(self.keys, 1 << 40)
            many = [document(table, first + i, chosen) for i in range(chosen.randrange(1, 40))]
            collection.insert_many(many, ordered=False)
            return "bulk inserts"
        if dice < 0.80:
            collection.update_many(
                {"tags": f"tag{chosen.randrange(9)}", "total": {"$lt": 50_000}},
                {"$set": {"paid": True}, "$unset": {"weight": ""}},
            )
            return "bulk updates"
        keys = chosen.sample(range(self.keys), 4)
        new = document(ORDERS, keys[0], chosen)
        with client.start_session() as session:
            session.with_transaction(
                lambda s: (
                    database[ORDERS].replace_one({"_id": keys[0]}, new, upsert=True, session=s),
                    database[ORDERS].delete_one({"_id": keys[1]}, session=s),
                    database[NOTES].update_one(
                        {"_id": f"note/{keys[2]}"}, {"$set": {"paid": False}}, session=s
                    ),
                    database[CUSTOMERS].delete_one({"_id": ObjectId(f"{keys[3]:024x}")}, session=s),
                )
            )
        return "transactions"


# --- broken twins ---------------------------------------------------------------------------------


@contextlib.contextmanager
def broken(code: str) -> Iterator[dict[str, str]]:
    """The environment of processes that run `code` before anything of ours is imported."""
    with tempfile.TemporaryDirectory(prefix="cartridge-warp-twin-") as directory:
        (Path(directory) / "sitecustomize.py").write_text(code)
        before = os.environ.get("PYTHONPATH")
        yield {"PYTHONPATH": os.pathsep.join([directory, before] if before else [directory])}
