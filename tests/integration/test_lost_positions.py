"""A place in the log that is gone: noticed, never passed by, and mended beside the stream."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fix_servers import Server, mysql_client
from in_process import (
    Live,
    Side,
    There,
    ThereInMysql,
    live,
    of_mongodb,
    of_mysql,
    of_postgresql,
    settings_of,
)
from postgresql_shop import Shop

from coordinator.status import StatusReader
from warp import repairing
from warp.errors import PositionLost
from warp.model import Aside, Choice, Marker, Phase, UnitKind
from warp.own_process import wait_until
from warp.testing.servers import MariaDb, Mongod
from workers import errands


@dataclass
class Losing:
    """A source, and how its log forgets what comes after the streams' markers."""

    side: Side
    forget: Callable[[], None]


@contextlib.contextmanager
def of_dropped_slot(request: pytest.FixtureRequest) -> Iterator[Losing]:
    shop: Shop = request.getfixturevalue("capture_shop")
    yield Losing(of_postgresql(shop.fresh()), shop.drop_slot)
    shop.tidy()


@contextlib.contextmanager
def of_purged_binlog(request: pytest.FixtureRequest) -> Iterator[Losing]:
    mariadb: Server = request.getfixturevalue("mariadb")

    def purge() -> None:
        with mysql_client(mariadb.url) as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH BINARY LOGS")

            def purged() -> bool:
                # A file is kept until the server has noted that no recovery needs it.
                cursor.execute("SHOW BINARY LOGS")
                last = cursor.fetchall()[-1][0]
                cursor.execute("PURGE BINARY LOGS TO %s", [last])
                cursor.execute("SHOW BINARY LOGS")
                return bool(cursor.fetchall()[0][0] == last)

            assert wait_until(purged, 20)

    with of_mysql(mariadb.url, request.getfixturevalue("mariadb_database")) as side:
        yield Losing(side, purge)


@contextlib.contextmanager
def of_rolled_oplog(request: pytest.FixtureRequest) -> Iterator[Losing]:
    start: Callable[[Any], Any] = request.getfixturevalue("start_server")
    server: Mongod = start(Mongod(oplog_megabytes=8, arguments=("--syncdelay", "1")))

    def roll() -> None:
        oplog = client.local["oplog.rs"]
        last = oplog.find_one(sort=[("$natural", -1)])
        assert last is not None
        for number in itertools.count():
            client.other.noise.replace_one({"_id": number % 4}, {"v": "x" * 500_000}, upsert=True)
            first = oplog.find_one(sort=[("$natural", 1)])
            if first is not None and first["ts"].time > last["ts"].time + 1:
                return

    with server.client() as client:
        yield Losing(of_mongodb(server.url, client.shop), roll)


@contextlib.contextmanager
def of_reset_server(request: pytest.FixtureRequest) -> Iterator[Losing]:
    """Its log begins anew, and with it the numbers of transactions."""
    start: Callable[[Any], Any] = request.getfixturevalue("start_server")
    server: MariaDb = start(MariaDb())

    def reset() -> None:
        with mysql_client(server.url) as connection, connection.cursor() as cursor:
            cursor.execute("RESET MASTER")

    with mysql_client(server.url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE reset_shop CHARACTER SET utf8mb4")
    with of_mysql(server.url, server.database_url("reset_shop")) as side:
        yield Losing(side, reset)


LOSING = {
    "slot": of_dropped_slot,
    "binlog": of_purged_binlog,
    "oplog": of_rolled_oplog,
    "reset": of_reset_server,
}


@dataclass
class Into:
    """A destination: its block, where the tables go, and how to look at them."""

    block: dict[str, Any]
    there: Callable[[Side], There]
    schema: str = ""  # the source's where empty


@pytest.fixture(params=["postgresql", "mariadb"])
def into(request: pytest.FixtureRequest) -> Iterator[Into]:
    if request.param == "postgresql":
        url = request.getfixturevalue("pg_warehouse")
        block = {"type": "postgresql", "connection_string": url}
        yield Into(block, lambda side: There(url, side))
        return
    url, name = request.getfixturevalue("mariadb").url, secrets.token_hex(4)
    copy, meta = f"copy_{name}", f"meta_{name}"
    block = {"type": "mysql", "connection_string": url, "metadata_schema": meta}
    yield Into(block, lambda side: ThereInMysql(url, replace(side, namespace=copy), meta), copy)
    with mysql_client(url) as connection, connection.cursor() as cursor:
        for database in (copy, meta):
            cursor.execute(f"DROP DATABASE IF EXISTS {database}")


# An oplog rolls over in half a minute; tests/integration/test_mongodb_stream.py has it each time.
@pytest.mark.parametrize("what", ["slot", "binlog", pytest.param("oplog", marks=pytest.mark.soak)])
@pytest.mark.holds(
    guarantee=6,
    source=("postgresql", "mariadb", "mongodb"),
    destination=("postgresql", "mariadb"),
    fault="lost position",
)
def test_a_lost_place_stops_the_stream_and_a_resync_mends_it_beside_it(
    what: str, request: pytest.FixtureRequest, into: Into, tmp_path: Path
) -> None:
    """Guarantee 6."""
    with LOSING[what](request) as losing:
        side = losing.side
        place = {"destination_schema": into.schema} if into.schema else {}
        tree = {
            "source": side.tree,
            "destination": into.block,
            "schemas": [{"name": side.namespace, **place}],
        }
        for id in range(40):
            side.put(id, f"v{id}")
        with live(settings_of(tmp_path, tree)) as fleet:
            there = into.there(side)
            fleet.until_complete("orders")
            fleet.until(lambda: there.rows() == side.rows(), "the first rows")
            before = there.rows()

            errands.pause(fleet.desk, schema=side.namespace)
            # A quiet stream sees that it is paused with the next change, which it may not write.
            side.put(100, "missed")
            side.put(7, "changed")
            side.delete(8)
            fleet.until(lambda: not any(u.state == "leased" for u in fleet.ledger.units()), "rest")
            losing.forget()
            errands.resume(fleet.desk, schema=side.namespace)
            fleet.until(lambda: stream_of(fleet).phase is Phase.FAILED, "the stream to stop")

            assert there.rows() == before
            lines = fleet.metadata.errors(Choice(code=PositionLost.code))
            assert [line.unit for line in lines] == [stream_of(fleet).unit.id]
            assert headroom_of(fleet) == "lost"

            side.put(101, "after")
            errands.resync(fleet.desk, schema=side.namespace)
            side.put(102, "while it is read")
            fleet.until_complete("orders", epoch=1)
            fleet.until(lambda: there.rows() == side.rows(), "both sides to be equal")
            assert headroom_of(fleet) != "lost"


def stream_of(fleet: Live) -> Marker:
    [marker] = fleet.metadata.markers((UnitKind.STREAM,))
    return marker


def headroom_of(fleet: Live) -> str:
    schemas = [schema.name for schema in fleet.settings.schemas]
    with contextlib.closing(StatusReader(fleet.assembly, fleet.ledger, schemas)) as reader:
        [found] = [u["headroom"] for u in reader.read()["units"] if u["kind"] == "stream"]
        return str(found["state"])


@pytest.mark.parametrize(
    "what", ["slot", "binlog", "reset", pytest.param("oplog", marks=pytest.mark.soak)]
)
@pytest.mark.holds(
    guarantee=6,
    source=("mongodb", "postgresql", "mariadb"),
    destination="postgresql",
    fault="lost position",
)
def test_a_lost_place_is_recovered_by_itself_and_only_what_differs_is_written(
    what: str, request: pytest.FixtureRequest, pg_warehouse: str, tmp_path: Path
) -> None:
    with LOSING[what](request) as losing:
        side = losing.side
        tree = {
            "source": side.tree,
            "destination": {"type": "postgresql", "connection_string": pg_warehouse},
            "schemas": [{"name": side.namespace}],
            "error_handling": {"on_lost_position": "recover"},
        }
        for id in range(40):
            side.put(id, f"v{id}")
        with live(settings_of(tmp_path, tree)) as fleet:
            there = There(pg_warehouse, side)
            fleet.until_complete("orders")
            fleet.until(lambda: there.rows() == side.rows(), "the first rows")
            written = "select {key}, xmin::text from {table}"
            before = dict(there.run(written))
            errands.pause(fleet.desk, schema=side.namespace)
            side.put(100, "missed")
            side.put(7, "changed")
            side.delete(8)
            fleet.until(lambda: not any(u.state == "leased" for u in fleet.ledger.units()), "rest")
            losing.forget()
            errands.resume(fleet.desk, schema=side.namespace)
            side.put(200, "in the new log")  # where an empty one would not be noticed
            fleet.until(lambda: len(fleet.metadata.open_errands()) == 1, "the coordinator to ask")
            [(id_, name, _)] = fleet.metadata.open_errands()
            assert name == "recover"
            errands.carry_out(id_, name, fleet.ledger, fleet.assembly)
            fleet.until(lambda: there.rows() == side.rows(), "both sides to be equal")
            side.put(101, "after")
            fleet.until(lambda: there.rows() == side.rows(), "the stream to go on")
            repaired = Choice(code=repairing.CODE, states=(Aside.REPLAYED,))
            mended = [row.row.key for row in fleet.metadata.quarantine(repaired)]
            assert sorted(mended) == sorted(f'{{"{side.key}": {id}}}' for id in (7, 8, 100, 200))
            after = dict(there.run(written))
            same = {id for id in after if after[id] == before.get(id)}
            # Versions that begin anew are above all that is there only once that is lowered.
            assert same == (set() if what == "reset" else set(range(40)) - {7, 8})
            assert fleet.table("orders").epoch == 0
