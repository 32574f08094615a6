"""The least a client can do: read without looking into it, and write bytes that are ready.

No engine can be cheaper.  A floor's time is that of the slower half, as if reading and writing
overlapped without fault; its CPU is that of both.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from bson import Int64, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from psycopg import sql

from benchmarks.side_by_side import accounts, sameness
from benchmarks.side_by_side.contender import Contender, Follower, Task
from benchmarks.side_by_side.figures import FLOOR, Measured, Scenario
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, Origin, PostgresOrigin
from benchmarks.side_by_side.sameness import DDL, EXPECTED, Landing
from benchmarks.side_by_side.shop import COLUMNS, TABLE, in_pieces, orders, written
from warp.sources.postgresql import PostgresSourceOptions
from warp.sources.postgresql.replication import Replication
from warp.sources.postgresql.session import Server

READ_SIZE: Final = 5_000
WRITE_SIZE: Final = 5_000  # changes of one transaction
PIECE: Final = 1 << 18
SLOT: Final = "floor"

Read = Callable[[], None]


@dataclass(slots=True)
class Spent:
    wall: float
    cpu: float

    @classmethod
    def on(cls, work: Callable[[], None]) -> Spent:
        wall, cpu = time.monotonic(), time.process_time()
        work()
        return cls(time.monotonic() - wall, time.process_time() - cpu)


class Floor(Contender):
    name = FLOOR

    def about(self, scenario: Scenario) -> str:
        how = "binary COPY" if scenario.shape == "snapshot" else "binary COPY and upsert"
        return f"read unread, {how} of ready bytes"

    def left_out(self, scenario: Scenario) -> str:
        return ""

    def landing(self, scenario: Scenario) -> Landing:
        return Landing("public", TABLE)

    def following(self, task: Task) -> AbstractContextManager[Follower]:
        raise NotImplementedError("the floor does not follow: see `stream`")

    def snapshot(self, task: Task) -> Measured:
        meter = accounts.Meter(task.servers)
        read = Spent.on(_snapshot_reader(task.origin, task.database))
        with (
            psycopg.connect(task.expected, autocommit=True) as there,
            psycopg.connect(task.destination, autocommit=True) as connection,
        ):
            connection.execute(f"create table {TABLE} ({DDL})".encode())
            ready = _binary(there, sql.SQL("select * from {}").format(sql.Identifier(EXPECTED)))
            copy = f"copy {TABLE} from stdin (format binary)".encode()
            wrote = Spent.on(lambda: _write(connection, copy, ready))
        return _both(read, wrote, meter)

    def stream(self, task: Task, make_changes: Callable[[], None]) -> Measured:
        """`make_changes` makes them at the source and keeps what is then expected."""
        with _log_reader(task.origin, task.database, len(task.changes)) as read:
            make_changes()
            meter = accounts.Meter(task.servers)
            spent = Spent.on(read)
        return _both(spent, _apply(task), meter)


def _both(read: Spent, wrote: Spent, meter: accounts.Meter) -> Measured:
    wall = max(read.wall, wrote.wall)
    return Measured(wall, read.cpu + wrote.cpu, startup=0.0, servers=meter.spent())


# --- reading --------------------------------------------------------------------------------------


def _snapshot_reader(origin: Origin, database: str) -> Read:
    match origin:
        case MongoOrigin(mongod):

            def read() -> None:
                with mongod.client() as client:
                    found = client[database][TABLE].find_raw_batches({}, batch_size=READ_SIZE)
                    _something(sum(map(len, found)))

        case MariaDbOrigin(mariadb):

            def read() -> None:
                with mariadb.client(database=database, ssl_disabled=True) as connection:
                    body = b"\x03" + f"select * from {TABLE}".encode()
                    _something(_until_the_end(connection, body))

        case PostgresOrigin(postgres):

            def read() -> None:
                with psycopg.connect(postgres.database_url(database)) as connection:
                    command = f"copy {TABLE} to stdout (format binary)".encode()
                    with connection.cursor().copy(command) as copy:
                        _something(sum(map(len, copy)))

        case _:
            raise AssertionError(f"expected a source with a floor, found {origin.name}")
    return read


def _something(size: int) -> None:
    if not size:
        raise AssertionError("expected bytes, found none")


_END: Final = b"\x05\x00\x00"  # length of the packet that ends a result


def _until_the_end(connection: Any, command: bytes) -> int:
    """Send a command and take all that comes, up to a packet of five bytes that starts with fe."""
    wire = connection._sock
    wire.sendall(struct.pack("<I", len(command)) + command)
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    size, tail = 0, b""
    # The first such packet ends the columns' names, and more follows it.
    while size < 2_000 or not (tail[:3] == _END and tail[4:5] == b"\xfe"):
        got = wire.recv_into(view)
        if not got:
            raise AssertionError("expected the end of a result, found the connection closed")
        size += got
        tail = (tail + bytes(view[max(0, got - 9) : got]))[-9:]
    connection._force_close()
    return size


@contextlib.contextmanager
def _log_reader(origin: Origin, database: str, events: int) -> Iterator[Read]:
    """Reads what is written to the log from now on."""
    match origin:
        case MongoOrigin(mongod):
            with mongod.client() as client:
                start = client.admin.command("ping")["operationTime"]
                yield lambda: _change_stream(client[database], start, events)
        case MariaDbOrigin(mariadb):
            with mariadb.client() as asking, asking.cursor() as cursor:
                cursor.execute("show master status")
                file, position, *_ = cursor.fetchone() or ("", 0)
            body = b"\x12" + struct.pack("<IHI", int(position), 1, 4712) + file.encode()

            def read() -> None:
                with mariadb.client(ssl_disabled=True) as connection:
                    connection.cursor().execute(
                        "set @master_binlog_checksum = 'CRC32', @mariadb_slave_capability = 4"
                    )
                    _something(_until_the_end(connection, body))

            yield read
        case PostgresOrigin(postgres):
            url = postgres.database_url(database)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"create publication {SLOT} for table {TABLE}".encode())
                connection.execute(
                    "select pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT + database,)
                )
            yield lambda: _replication(url, SLOT + database, events)
        case _:
            raise AssertionError(f"expected a source with a floor, found {origin.name}")


def _change_stream(database: Any, start: Timestamp, events: int) -> None:
    raw = CodecOptions(document_class=RawBSONDocument)
    stage = {"$changeStream": {"startAtOperationTime": start, "fullDocument": "updateLookup"}}
    cursor = {"batchSize": READ_SIZE}
    command: dict[str, Any] = {"aggregate": 1, "pipeline": [stage], "cursor": cursor}
    with database.client.start_session() as session:
        reply = database.command(command, codec_options=raw, session=session)["cursor"]
        seen = len(reply["firstBatch"])
        while seen < events:
            more = {"getMore": Int64(reply["id"]), "collection": "$cmd.aggregate", **cursor}
            reply = database.command(more, codec_options=raw, session=session)["cursor"]
            seen += len(reply["nextBatch"])


def _replication(url: str, slot: str, events: int) -> None:
    server = Server(PostgresSourceOptions.model_validate({"connection_string": url}))
    options = {"proto_version": "2", "publication_names": f'"{SLOT}"', "streaming": "on"}
    with contextlib.closing(Replication(server)) as replication:
        replication.start(slot, 0, options)
        seen = 0
        while seen < events:
            frames = replication.read(1.0)
            seen += sum(1 for frame in frames if frame[25:26] in (b"I", b"U", b"D"))


# --- writing --------------------------------------------------------------------------------------


def _binary(connection: psycopg.Connection[Any], query: sql.Composable) -> bytes:
    statement = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    with connection.cursor().copy(statement) as copy:
        return b"".join(bytes(part) for part in copy)


def _write(connection: psycopg.Connection[Any], statement: bytes, ready: bytes) -> None:
    whole = memoryview(ready)
    with connection.cursor().copy(statement) as copy:
        for start in range(0, len(ready), PIECE):
            copy.write(whole[start : start + PIECE])


def _apply(task: Task) -> Spent:
    with (
        psycopg.connect(task.expected, autocommit=True) as there,
        psycopg.connect(task.destination, autocommit=True) as connection,
    ):
        connection.execute(f"create table {TABLE} ({DDL})".encode())
        sameness.fill(connection, TABLE, orders(task.rows))
        connection.execute(
            f"create temporary table staged (like {TABLE}) on commit delete rows;"
            " create table marker (n int); insert into marker values (0)"
        )
        some = sql.SQL("select * from {} where id = any({})")
        pieces = []
        for piece in in_pieces(task.changes, WRITE_SIZE):
            left, gone = written(piece)
            ids = sql.Literal([made.id for made in left])
            pieces.append((_binary(there, some.format(sql.Identifier(EXPECTED), ids)), gone))
        again = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
        upsert = (
            f"insert into {TABLE} select * from staged on conflict (id) do update set {again}"
        ).encode()

        def work() -> None:
            for n, (ready, gone) in enumerate(pieces):
                with connection.transaction():
                    connection.execute("update marker set n = %s", (n,))
                    _write(connection, b"copy staged from stdin (format binary)", ready)
                    connection.execute(upsert)
                    if gone:
                        delete = f"delete from {TABLE} where id = any(%s)".encode()
                        connection.execute(delete, (gone,))

        return Spent.on(work)
