"""python mysql_replication_apply.py PORT DATABASE TABLE DESTINATION, in its environment.

Copies the table, then follows the log from where it stood before, for ever.
"""

import sys
from typing import Any

import orjson
import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import XidEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent
from staging import Staging
from telling import ready

AT_ONCE = 5_000
LAST = 9_000_000_000  # nothing comes after the order of this id
NAMES = ("id", "customer", "qty", "amount", "weight", "created_at", "paid", "extra")
Row = tuple[Any, ...]


def flat(cells: Any) -> Row:
    """A row of the log, or of a query, as PostgreSQL wants it."""
    *first, paid, extra = cells
    if not isinstance(extra, str | bytes):
        extra = orjson.dumps(extra)
    return (*first, bool(paid), extra.decode() if isinstance(extra, bytes) else extra)


def copy_table(port: int, database: str, table: str, staging: Staging) -> tuple[str, int]:
    """Where the log stood before."""
    given: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "root"}
    connection = pymysql.connect(**given, database=database, charset="utf8mb4")
    with connection, connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("show master status")
        file, position = cursor.fetchall()[0][:2]
        cursor.execute(f"select * from {table}")
        while some := cursor.fetchmany(50_000):
            staging.apply(list(map(flat, some)), [])
    return str(file), int(position)


def main() -> None:
    port, database, table, destination = sys.argv[1:]
    staging = Staging(destination)
    file, position = copy_table(int(port), database, table, staging)
    reader = BinLogStreamReader(
        connection_settings={"host": "127.0.0.1", "port": int(port), "user": "root"},
        server_id=7711,
        log_file=file,
        log_pos=position,
        resume_stream=True,
        blocking=True,
        only_schemas=[database],
        only_tables=[table],
        only_events=[XidEvent, WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        # Where this is set, it starts from the beginning of the log and not from where it is told.
        is_mariadb=False,
        slave_heartbeat=0.2,
    )
    ready()
    left: dict[int, Row | None] = {}
    for event in reader:
        if not isinstance(event, XidEvent):
            for row in event.rows:
                cells = row.get("after_values") or row["values"]
                gone = isinstance(event, DeleteRowsEvent)
                left[cells["id"]] = None if gone else flat(cells.values())
        elif len(left) >= AT_ONCE or LAST in left:  # never a part of a transaction
            staging.apply(
                [row for row in left.values() if row is not None],
                [id for id, row in left.items() if row is None],
            )
            left = {}


if __name__ == "__main__":
    main()
