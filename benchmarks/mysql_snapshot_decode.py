"""CPU per row from a MariaDB table to columns, beside bytes that nobody looks into.

    python -m benchmarks mysql_snapshot_decode [--rows 300000] [--runs 3] [--save]

The floor takes the bytes of the same result from the socket, as the compiled reader does, and no
more; PyMySQL reads the rows and leaves every cell as bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pymysql

from benchmarks.report import Report, parser, spread
from warp import native
from warp.model import Chunk, TableId, TableSettings
from warp.sources.mysql import MysqlOptions, MysqlSource
from warp.sources.mysql.reading import Reader
from warp.testing.servers import MariaDb

TABLE = TableId("bench", "orders")
QUERY = "SELECT * FROM bench.orders"
END = b"\5\0\0"  # of a result: five bytes; a row of ours is longer


def selected(table: TableId) -> TableSettings | None:
    return TableSettings(table, table, "bench") if table.namespace == TABLE.namespace else None


def fill(server: MariaDb, rows: int) -> None:
    with server.client() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {TABLE.namespace} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {TABLE.namespace}")
        cursor.execute(
            "CREATE TABLE bench.orders (id BIGINT PRIMARY KEY, customer INT, status VARCHAR(20), "
            "total DECIMAL(10,2), score DOUBLE, created DATETIME(6), note VARCHAR(100))"
        )
        cursor.execute(
            "INSERT INTO bench.orders SELECT seq, seq % 1000, 'shipped', seq / 7, seq / 3, "
            "'2024-01-01 10:00:00' + INTERVAL seq MICROSECOND, CONCAT('n', seq, REPEAT('x', 30)) "
            f"FROM seq_1_to_{rows}"
        )


def bare(server: MariaDb, rows: int) -> int:
    with server.client(ssl_disabled=True) as connection:
        wire: Any = connection
        cursor = connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute(QUERY)
        last = wire._rfile.read1(1 << 20)[-9:]
        buffer = bytearray(256 << 10)
        while last[-9:-6] != END or last[-5:-4] != b"\xfe":
            count = wire._sock.recv_into(buffer)
            last = (last + bytes(buffer[max(0, count - 9) : count]))[-9:]
        cursor._result.unbuffered_active = False  # type: ignore[attr-defined]
    return rows


def undecoded(server: MariaDb, rows: int) -> int:
    reader = Reader(MysqlOptions.model_validate({"connection_string": server.url}))
    seen = sum(1 for _ in reader.stream(QUERY))
    reader.close()
    return seen


def compiled(server: MariaDb, rows: int) -> int:
    source = MysqlSource(MysqlOptions.model_validate({"connection_string": server.url}), selected)
    seen = sum(len(batch) for batch in source.get_full_snapshot(Chunk(TABLE, 0)))
    source.close()
    return seen


def plain(server: MariaDb, rows: int) -> int:
    with native.switched(False):
        return compiled(server, rows)


READERS: dict[str, Callable[[MariaDb, int], int]] = {
    "bare bytes from the socket (floor)": bare,
    "PyMySQL, undecoded": undecoded,
    "the source's change batches, plain Python": plain,
    "the source's change batches, compiled": compiled,
}


def main() -> None:
    given = parser(__doc__, rows=300_000, runs=3).parse_args()
    report = Report(
        "mysql_snapshot_decode",
        (__doc__ or "").partition("\n")[0],
        ("reader", "CPU seconds per million rows"),
    )
    with MariaDb() as server:
        fill(server, given.rows)
        found: dict[str, list[float]] = {name: [] for name in READERS}
        for _ in range(given.runs):  # in turns, so that a busy machine is busy for all
            for name, read in READERS.items():
                started = time.process_time()
                seen = read(server, given.rows)
                found[name].append((time.process_time() - started) * 1e6 / given.rows)
                if seen != given.rows:
                    raise AssertionError(f"{name} saw {seen} of {given.rows} rows")
        for name, times in found.items():
            report.add(name, spread(times, ",.2f"))
    report.finish(save=given.save)


if __name__ == "__main__":
    main()
