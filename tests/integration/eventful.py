"""A small fleet that lives through one of everything, and what was seen of it meanwhile.

One run for many questions: what its pages said beside what was true, what a real Prometheus kept
of them, and where its secrets turn up.  The run records; the tests judge.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import psycopg
import redis
from processes import Command, Fleet
from psycopg import sql

from warp.own_process import wait_until
from warp.testing.prometheus import Prometheus

# None of them is a word that something else might say.
SECRETS: Final = {
    "mongodb": "moX7/geheim@1",
    "postgresql": "pgX7/geheim:2",
    "redis": "rdX7geheim3",
}
PATIENCE: Final = 45.0  # seconds; this machine may be busy
SNAPSHOT, CREATED, CRASHED = 20, 30, 10
MISFITS: Final = {"text": 3, "long": 2, "refused": 4, "orphans": 5}
STREAM: Final = "stream:plain"
ROWS: Final = "cartridge_warp_records_processed_total"


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape."""

    text: str
    at: float

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the series that fit; None where there is none."""
        found = [v for n, own, v in self.series() if n == name and labels.items() <= own.items()]
        return sum(found) if found else None

    def series(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        for line in self.text.splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? ([-+.\w]+)", line)
            if match:
                yield (
                    match[1],
                    dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")),
                    float(match[3]),
                )


@dataclass
class Day:
    """What was seen, by the name of its moment."""

    fleet: Fleet
    prometheus: Prometheus
    environment: Mapping[str, str]
    began: float
    ended: float = 0.0
    pages: dict[str, Page] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)  # of /healthz and the like
    redis_values: set[str] = field(default_factory=set)

    def ours(self, **more: str) -> dict[str, str]:
        return {"database": self.fleet.database_name, **more}


def with_login(url: str, user: str, password: str) -> str:
    """The URL with this login, unless it has one."""
    parts = urlsplit(url)
    if parts.password:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def settle(condition: Callable[[], Any]) -> None:
    """Wait for it, and leave it to a test to say that it never came."""
    wait_until(lambda: bool(condition()), PATIENCE, pause=0.1)


def port_of(command: Command) -> int:
    found: list[int] = []

    def told() -> bool:
        found.extend(
            line["port"] for line in lines_of(command) if line.get("event") == "metrics_served"
        )
        return bool(found)

    assert wait_until(told, PATIENCE, pause=0.05), command.said()
    return found[0]


def lines_of(command: Command) -> list[dict[str, Any]]:
    """Its log; a line that is just being written is left out."""
    whole = command.said().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def get(command: Command, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(command)}{path}") as answer:
        text: str = answer.read().decode()
        return text


def page_of(command: Command) -> Page:
    return Page(get(command, "/metrics"), time.time())


@contextmanager
def fleet_with_secrets(
    directory: Path, mongo_url: str, database: str, pg_url: str, redis_url: str
) -> Iterator[tuple[Fleet, dict[str, str]]]:
    """Every secret in another way: from a file, from a variable of ours, from one we name."""
    mongo_url = with_login(mongo_url, "reader", SECRETS["mongodb"]) + "&authSource=admin"
    file = directory / "connection_string"
    file.write_text(mongo_url)
    source = {"type": "mongodb", "connection_string_file": str(file), "database": database}
    fleet = Fleet(directory, mongo_url, database, pg_url, redis_url)
    fleet.settings["source"] = source
    fleet.settings["destination"]["connection_string"] = "${WAREHOUSE_URL}"
    fleet.settings["coordination"]["slots"] = 8
    del fleet.settings["coordination"]["redis_url"]
    fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
    fleet.settings["schemas"] = [
        {"name": "plain"},
        {"name": "quiet"},
        {"name": "orders"},
        {"name": "lines"},
        {"name": "broken", "destination_schema": "elsewhere"},
        {"name": "archive", "mode": "batch", "schedule": "0 0 1 1 *"},
    ]
    environment = {
        "WAREHOUSE_URL": with_login(pg_url, "postgres", SECRETS["postgresql"]),
        "CARTRIDGE_WARP_REDIS_URL": redis_url,
    }
    try:
        yield fleet, environment
    finally:
        fleet.close()


def live_through(day: Day) -> None:
    """Everything, in order."""
    fleet, environment = day.fleet, day.environment
    _fill(fleet)
    coordinator = fleet.coordinator(**environment)
    first = fleet.start("workers.cli", "--processes", "2", **environment)
    scraped = [port_of(coordinator), port_of(first)]
    day.prometheus.scrape({"warp": scraped})
    _is_scraped(day, scraped)  # a rate tells what happens between two scrapes
    _all_is_there(day, coordinator, first)
    _misfits(day, first)
    _rest(day, coordinator, first)
    _is_scraped(day, scraped)
    first.stop()
    dies = {"CARTRIDGE_WARP_FAULT": "after_quarantine:kill:1"}
    second = fleet.start("workers.cli", **{**environment, **dies})
    day.prometheus.scrape({"warp": [*scraped[:1], port_of(second)]})
    _crash(day, second)
    _nobody(day, coordinator)

    third = fleet.start("workers.cli", **environment)
    day.prometheus.scrape({"warp": [*scraped[:1], port_of(third)]})
    _takeover(day, coordinator, third)
    _superseded(day, third)
    _wiped(day, coordinator)
    _is_scraped(day, [port_of(coordinator), port_of(third)])
    day.ended = time.time()
    third.stop()
    coordinator.stop()


def _is_scraped(day: Day, ports: Sequence[int]) -> None:
    """Twice from now on, each of them."""
    for _ in range(2):
        before = day.prometheus.scraped()

        def again(before: Mapping[int, str] = before) -> bool:
            now = day.prometheus.scraped()
            return all(port in now and now[port] != before.get(port) for port in ports)

        settle(again)


def _fill(fleet: Fleet) -> None:
    for name in ("plain", "quiet", "archive", "broken"):
        fleet.insert(name, 0, SNAPSHOT)
    orders = [{"_id": n, "n": n, "note": "ok"} for n in range(SNAPSHOT)]
    fleet.source["orders"].insert_many(orders)
    fleet.source["lines"].insert_many([{"_id": n, "order": n, "n": n} for n in range(SNAPSHOT)])
    with psycopg.connect(fleet.pg_url, autocommit=True) as connection:
        # Tables that somebody else made, with limits of their own; and a view in one's place.
        for statement in (
            'create schema "{s}"',
            'create table "{s}".orders (_id bigint primary key, n bigint, note varchar(5),'
            " constraint small check (n < 5000))",
            'create table "{s}".lines (_id bigint primary key, n bigint, "order" bigint)',
            "create schema elsewhere",
            'create view elsewhere.broken as select 1 as "_id"',
        ):
            connection.execute(statement.format(s=fleet.database_name).encode())


def _all_is_there(day: Day, coordinator: Command, first: Command) -> None:
    fleet = day.fleet
    settled = (
        "select count(*) from cartridge_warp_metadata.sync_markers"
        " where kind = 'table' and phase = 'streaming'"
    )
    failed = "select count(*) from cartridge_warp_metadata.sync_markers where phase = 'failed'"
    settle(lambda: _asked(fleet, settled) == 5 and _asked(fleet, failed) == 1)
    day.pages["before the creates"] = page_of(first)
    for n in range(0, CREATED, 10):  # several transactions
        fleet.insert("plain", 100 + n, 110 + n)
        settle(partial(_has_arrived, fleet, 109 + n))
    settle(lambda: page_of(first).value(ROWS, table="plain", operation="create") == CREATED)
    day.pages["after the creates"] = page_of(first)
    day.truth["transactions"] = _asked(
        fleet,
        f"select count(distinct xmin::text) from {fleet.database_name}.plain where _id >= 100",
    )
    day.answers |= {
        f"{name} {path}": json.loads(get(command, path))
        for name, command in (("coordinator", coordinator), ("worker", first))
        for path in ("/healthz", "/readyz")
    }
    day.redis_values |= redis_values(day)


def _misfits(day: Day, first: Command) -> None:
    fleet = day.fleet
    orders, lines = fleet.source["orders"], fleet.source["lines"]
    with psycopg.connect(fleet.pg_url) as connection:
        refer = 'alter table "{s}".lines add foreign key ("order") references "{s}".orders (_id)'
        connection.execute(refer.format(s=fleet.database_name).encode())
    orders.insert_many([{"_id": 100 + n, "n": "text"} for n in range(MISFITS["text"])])
    orders.insert_many([{"_id": 200 + n, "n": 5000 + n} for n in range(MISFITS["refused"])])
    orders.insert_many(
        [{"_id": 300 + n, "n": n, "note": "too long"} for n in range(MISFITS["long"])]
    )
    lines.insert_many(
        [{"_id": 400 + n, "order": 7000 + n, "n": n} for n in range(MISFITS["orphans"])]
    )
    fleet.source["plain"].update_many({"_id": {"$lt": 5}}, {"$set": {"n": -1, "colour": "red"}})
    fleet.source["plain"].delete_one({"_id": 5})
    ask = "select count(*) from cartridge_warp_metadata."
    settle(lambda: _asked(fleet, ask + "quarantine") == MISFITS["refused"])
    settle(lambda: _asked(fleet, ask + "deferred_rows") == MISFITS["orphans"])
    settle(lambda: len(fleet.rows("orders")) == SNAPSHOT + MISFITS["text"] + MISFITS["long"])
    columns = sql.SQL(
        "select count(*) from information_schema.columns where table_schema = {}"
        " and table_name = 'plain' and column_name = 'colour'"
    ).format(sql.Literal(fleet.database_name))
    settle(lambda: _asked(fleet, columns) == 1)
    settle(lambda: 5 not in fleet.rows("plain"))


def _rest(day: Day, coordinator: Command, first: Command) -> None:
    """Nothing waits: the pages and the truth of one moment, as near as two looks are."""
    fleet = day.fleet
    with redis.Redis.from_url(fleet.redis_url) as client:
        demand = f"cw:{{{fleet.namespace}}}:demand"

        def at_rest() -> bool:
            shown = page_of(coordinator)
            lag = [shown.value("cartridge_warp_lag_seconds", schema=s) for s in ("plain", "quiet")]
            queue = shown.value("cartridge_warp_queue_size")
            return all(v == 0 for v in lag) and queue == client.scard(demand)

        settle(at_rest)
        settle(lambda: page_of(first).value("cartridge_warp_leases_held") == 5)
        settle(lambda: page_of(first).value("cartridge_warp_lag_seconds", schema="plain") == 0)
        day.truth["demand"] = client.scard(demand)
    day.pages["coordinator at rest"] = page_of(coordinator)
    day.pages["worker at rest"] = page_of(first)
    owner = psutil.Process(int(fleet.owner(STREAM).split(":")[1]))
    day.truth["resident"] = owner.memory_info().rss
    day.truth["errors"] = fleet.asked(
        "select error_class, count(*) from cartridge_warp_metadata.error_log"
        " where finding is null and unit like '%broken%' group by 1"
    )
    day.truth["cells"] = fleet.asked(
        "select source_table, column_name, action, sum(cells)::int"
        " from cartridge_warp_metadata.error_log"
        " where finding is not null and column_name <> '' group by 1, 2, 3 order by 1, 2"
    )
    day.truth["columns added"] = fleet.asked(
        "select count(*) from information_schema.columns"
        f" where table_schema = '{fleet.database_name}' and table_name = 'plain'"
        " and column_name = 'colour'"
    )[0][0]
    day.truth["moved at"] = fleet.asked(
        "select extract(epoch from max(updated_at))::float8"
        f" from cartridge_warp_metadata.sync_markers where unit = '{STREAM}'"
    )[0][0]
    oldest = fleet.client.local["oplog.rs"].find_one(sort=[("$natural", 1)])
    day.truth["oplog begins"] = oldest["ts"].time if oldest else 0.0


def _crash(day: Day, second: Command) -> None:
    """Rows are in the transaction, and it is never committed."""
    fleet = day.fleet
    settle(lambda: second.owns(fleet.owner(STREAM)) if fleet.owner(STREAM) else False)
    fleet.insert("plain", 1000, 1000 + CRASHED)
    settle(lambda: second.said().count("process_crashed") >= 1)
    day.pages["crashing worker"] = page_of(second)
    day.truth["crashes"] = second.said().count("process_crashed")
    day.truth["rows after the crash"] = len(fleet.rows("plain"))
    second.kill9()
    day.truth["lives"] = second.said().count("process_started")


def _nobody(day: Day, coordinator: Command) -> None:
    """No worker is left: the lag grows, and the coordinator sees it."""
    shown = {"schema": "plain", "table": "*"}

    def lag() -> float:
        return page_of(coordinator).value("cartridge_warp_lag_seconds", **shown) or 0.0

    settle(lambda: lag() > 0)
    settle(lambda: page_of(coordinator).value("cartridge_warp_sync_status", **shown) == 0)
    day.pages["nobody works"] = page_of(coordinator)
    before = lag()
    settle(lambda: lag() > before + 1)
    day.pages["nobody works still"] = page_of(coordinator)
    day.truth["delivered up to"] = _asked(
        day.fleet,
        "select position_seconds from cartridge_warp_metadata.sync_markers"
        f" where unit = '{STREAM}'",
    )


def _takeover(day: Day, coordinator: Command, third: Command) -> None:
    fleet = day.fleet
    settle(lambda: 1000 + CRASHED - 1 in fleet.rows("plain"))
    settle(
        lambda: (
            (page_of(coordinator).value("cartridge_warp_takeovers_total", schema="plain") or 0) > 0
        )
    )
    settle(lambda: page_of(third).value(ROWS, table="plain", operation="create") == CRASHED)
    day.pages["worker after the crash"] = page_of(third)
    day.pages["coordinator after the crash"] = page_of(coordinator)
    day.truth["rows in the end"] = len(fleet.rows("plain"))


def _superseded(day: Day, third: Command) -> None:
    """A newer owner stands in the destination; the row arrives all the same, by a higher fence."""
    fleet = day.fleet
    with psycopg.connect(fleet.pg_url) as connection:
        connection.execute(
            "update cartridge_warp_metadata.sync_markers"
            f" set fence = fence + 1, owner = 'somebody' where unit = '{STREAM}'"
        )
    fleet.insert("plain", 2000, 2001)
    settle(lambda: 2000 in fleet.rows("plain"))
    day.pages["superseded worker"] = page_of(third)


def _wiped(day: Day, coordinator: Command) -> None:
    fleet = day.fleet
    day.redis_values |= redis_values(day)
    with redis.Redis.from_url(fleet.redis_url) as client:
        client.flushall()
    fleet.insert("plain", 3000, 3001)
    settle(lambda: 3000 in fleet.rows("plain"))
    settle(lambda: page_of(coordinator).value("cartridge_warp_ledger_wipes_total") == 1)
    day.pages["coordinator after the wipe"] = page_of(coordinator)


def redis_values(day: Day) -> set[str]:
    """Every key and every value there is in Redis."""
    found: set[str] = set()
    with redis.Redis.from_url(day.fleet.redis_url, decode_responses=True) as client:
        for key in client.keys("*"):
            found.add(key)
            match client.type(key):
                case "hash":
                    for pair in client.hgetall(key).items():
                        found.update(pair)
                case "set":
                    found.update(client.smembers(key))
                case "zset":
                    found.update(client.zrange(key, 0, -1))
                case "list":
                    found.update(client.lrange(key, 0, -1))
                case _:
                    found.add(str(client.get(key)))
    return found


def _has_arrived(fleet: Fleet, id: int) -> bool:
    return id in fleet.rows("plain")


def _asked(fleet: Fleet, query: Any) -> Any:
    """One value; None while what is asked for is not there yet."""
    try:
        return fleet.asked(query)[0][0]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
