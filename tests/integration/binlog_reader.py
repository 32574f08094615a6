"""The events of a server's log up to its end, as bytes, by the least a client can do."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pymysql

from warp.sources.mysql.binlog.transactions import Place, Step, Transactions

COM_BINLOG_DUMP = 0x12
STOP_AT_THE_END = 1
BIGGEST = 0xFFFFFF


def log_ends_at(connection: pymysql.Connection[Any]) -> Place:
    with connection.cursor() as cursor:
        cursor.execute("select version()")
        version = str((cursor.fetchone() or ("",))[0])
        words = "master status" if "MariaDB" in version else "binary log status"
        cursor.execute(f"show {words}")
        row = cursor.fetchone()
    assert row is not None, "the server writes no binlog"
    return Place(row[0], int(row[1]))


def events_from(
    connection: pymysql.Connection[Any], place: Place, *, server_id: int = 4711
) -> Iterator[bytes]:
    """The connection is of no other use afterwards."""
    with connection.cursor() as cursor:
        cursor.execute("set @master_binlog_checksum='CRC32', @source_binlog_checksum='CRC32'")
        cursor.execute("set @mariadb_slave_capability=4")
    body = struct.pack("<BIHI", COM_BINLOG_DUMP, place.position, STOP_AT_THE_END, server_id)
    body += place.file.encode()
    wire: Any = connection
    wire._sock.sendall(struct.pack("<I", len(body))[:3] + b"\0" + body)
    wire._next_seq_id = 1
    while True:
        packet = wire._read_packet().get_all_data()
        if packet[0] == 0xFE:  # EOF
            return
        yield packet[1:]


def steps_from(
    connection: pymysql.Connection[Any], place: Place, transactions: Transactions
) -> Iterator[Step]:
    for event in events_from(connection, place):
        yield from transactions.feed(event)
