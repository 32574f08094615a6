"""CPU per row from MariaDB's binary log to columns, beside mysql-replication and bare bytes.

    python -m benchmarks binlog_decode [--transactions 3000] [--rows 100000] [--runs 3] [--save]

Two logs: `oltp`, transactions of four statements on one row each, as sysbench's oltp_write_only
makes them (a table map and a rows event for every row); `batches`, statements of 5,000 rows.
The floor is the same bytes taken from the socket and cut into events, looked into no further.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from benchmarks.report import Report, parser, spread
from warp import native
from warp.model import TableId, TableSettings
from warp.sources.mysql import MysqlOptions, MysqlSource
from warp.sources.mysql.binlog.rows import Wanted
from warp.sources.mysql.binlog.transactions import Place, Rows, Transactions
from warp.sources.mysql.position import Place as SourcePlace
from warp.testing.servers import MariaDb

DATABASE = "bench"
BATCH = 5000
STARTS: dict[str, SourcePlace] = {}  # by log file
ROWS: dict[str, int] = {}
TABLES: dict[str, TableId] = {}
STOP_AT_THE_END = 1


def fill(server: MariaDb, transactions: int, rows: int) -> dict[str, tuple[Place, int]]:
    """Where each log begins, and how many rows it has."""
    chance = random.Random(1)

    def figures(count: int) -> str:
        return "-".join(str(chance.randrange(10**10, 10**11)) for _ in range(count))

    with server.client() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {DATABASE}")
        cursor.execute(
            "CREATE TABLE sbtest (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, "
            "pad CHAR(60) NOT NULL)"
        )
        cursor.execute(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INT, status VARCHAR(20), "
            "total DECIMAL(10,2), created DATETIME(6), note VARCHAR(100))"
        )
        cursor.executemany(
            "INSERT INTO sbtest VALUES (%s, %s, %s, %s)",
            [(n, chance.randrange(10**6), figures(10), figures(5)) for n in range(1000)],
        )
        starts = {"oltp": (end_of(connection), 4 * transactions)}
        STARTS[starts["oltp"][0].file] = SourcePlace.of_mariadb(said(connection))
        for _ in range(transactions):
            first, second = chance.sample(range(1000), 2)
            cursor.execute("BEGIN")
            cursor.execute(f"UPDATE sbtest SET k = k + 1 WHERE id = {first}")
            cursor.execute(f"UPDATE sbtest SET c = '{figures(10)}' WHERE id = {second}")
            cursor.execute(f"DELETE FROM sbtest WHERE id = {first}")
            cursor.execute(
                f"INSERT INTO sbtest VALUES ({first}, 5, '{figures(10)}', '{figures(5)}')"
            )
            cursor.execute("COMMIT")
        cursor.execute("FLUSH BINARY LOGS")
        starts["batches"] = (end_of(connection), rows)
        STARTS[starts["batches"][0].file] = SourcePlace.of_mariadb(said(connection))
        for begin in range(0, rows, 5000):
            orders = (
                f"({n}, {chance.randrange(10**6)}, '{chance.choice(['new', 'paid', 'shipped'])}', "
                f"{chance.randrange(10**7) / 100}, "
                f"'2024-01-01 10:00:00' + INTERVAL {n} MICROSECOND, 'n{n} {'x' * 30}')"
                for n in range(begin, min(begin + 5000, rows))
            )
            cursor.execute("INSERT INTO orders VALUES " + ",".join(orders))
    return starts


def said(connection: pymysql.Connection[Any]) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_binlog_pos")
        return str((cursor.fetchone() or ("",))[0])


def end_of(connection: pymysql.Connection[Any]) -> Place:
    with connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        file, position, *_ = cursor.fetchone() or ("", 0)
    return Place(file, int(position))


def events(server: MariaDb, place: Place) -> Iterator[bytes]:
    """The events of one file, from the socket in large pieces."""
    with server.client(ssl_disabled=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SET @master_binlog_checksum = 'CRC32', @mariadb_slave_capability = 4")
        body = b"\x12" + struct.pack("<IHI", place.position, STOP_AT_THE_END, 4712)
        body += place.file.encode()
        wire: Any = connection
        wire._sock.sendall(struct.pack("<I", len(body)) + body)
        left = b""
        while True:
            piece = left + wire._sock.recv(1 << 20)
            start = 0
            while len(piece) - start >= 4:
                size = int.from_bytes(piece[start : start + 3], "little")
                if len(piece) - start < size + 4:
                    break
                if piece[start + 4] != 0:  # the end of the log
                    return
                yield piece[start + 5 : start + 4 + size]
                start += size + 4
            left = piece[start:]


def bare(server: MariaDb, place: Place, file: str) -> int:
    for event in events(server, place):
        if event[4] == 4 and event[27 : 27 + len(file)] != file.encode():
            break
    return 0


def plain(server: MariaDb, place: Place, file: str) -> int:
    machine = Transactions(lambda table: Wanted(), place)
    seen = 0
    for event in events(server, place):
        for step in machine.feed(event):
            if isinstance(step, Rows):
                seen += len(step.rows)
        if machine.place.file != file:
            break
    return seen


def stream(server: MariaDb, place: Place, file: str) -> int:
    """The whole way of a stream, from the dump thread to change batches of one table."""

    def selected(table: TableId) -> TableSettings | None:
        if table != TABLES[file]:
            return None
        return TableSettings(table, table, DATABASE, write_batch_size=BATCH)

    options = MysqlOptions.model_validate({"connection_string": server.url})
    source = MysqlSource(options, selected)
    start = STARTS[file].position()
    seen = 0
    for batch in source.get_changes(start, selection=selected, idle=1):
        seen += len(batch)
        if seen >= ROWS[file]:
            break
    source.close()
    return seen


def stream_without_compiled(server: MariaDb, place: Place, file: str) -> int:
    with native.switched(False):
        return stream(server, place, file)


def mysql_replication(server: MariaDb, place: Place, file: str) -> int:
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": server.port, "user": "root"},
        server_id=4713,
        log_file=place.file,
        log_pos=place.position,
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
    )
    seen = 0
    for event in reader:
        if reader.log_file != file:
            break
        seen += len(event.rows)
    reader.close()
    return seen


READERS: dict[str, Callable[[MariaDb, Place, str], int]] = {
    "bare events from the socket (floor)": bare,
    "warp.sources.mysql.binlog alone, plain Python": plain,
    "the source's change batches, plain Python": stream_without_compiled,
    "the source's change batches, compiled": stream,
    "mysql-replication": mysql_replication,
}


def main() -> None:
    given = parser(__doc__, transactions=3000, rows=100_000, runs=3).parse_args()
    report = Report(
        "binlog_decode",
        (__doc__ or "").partition("\n")[0],
        ("log", "reader", "rows per CPU-second", "x mysql-replication"),
    )
    with MariaDb() as server:
        starts = fill(server, given.transactions, given.rows)
        for log, (place, rows) in starts.items():
            ROWS[place.file] = rows
            TABLES[place.file] = TableId(DATABASE, "sbtest" if log == "oltp" else "orders")
            rates: dict[str, list[float]] = {name: [] for name in READERS}
            for _ in range(given.runs):  # in turns, so that a busy machine is busy for all
                for name, read in READERS.items():
                    started = time.process_time()
                    seen = read(server, place, place.file)
                    rates[name].append(rows / (time.process_time() - started))
                    if seen not in (0, rows):
                        raise AssertionError(f"{name} saw {seen} of {rows} rows")
            slowest = max(rates["mysql-replication"])
            for name, found in rates.items():
                report.add(log, name, spread(found), f"{max(found) / slowest:.1f}")
    report.note("The best run of each is compared.")
    report.finish(save=given.save)


if __name__ == "__main__":
    main()
