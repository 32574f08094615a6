"""Another decoder, mysql-replication, gives the same rows where it is right.

It is wrong or silent about much of what the recorded logs hold (compressed transactions, zero
dates, negative times, BINARY, JSON); what is compared here is what it reads well.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pymysql.protocol import MysqlPacket
from pymysqlreplication.event import FormatDescriptionEvent
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import (
    DeleteRowsEvent,
    TableMapEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
)
from recorded_logs import events_of, steps_of

from warp.model import Operation
from warp.sources.mysql.binlog.transactions import Rows

READ_BY_IT = [FormatDescriptionEvent, TableMapEvent]
READ_BY_IT += [WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent]
SORTS = {
    WriteRowsEvent: Operation.CREATE,
    UpdateRowsEvent: Operation.UPDATE,
    DeleteRowsEvent: Operation.DELETE,
}


def rows_of_the_other(name: str) -> list[tuple[Operation, list[dict[str, Any]]]]:
    tables: dict[int, Any] = {}
    connection = SimpleNamespace(charset="utf8mb4", _get_dbms=lambda: "mysql")
    found = []
    for raw in events_of(name):
        wrapped = BinLogPacketWrapper(
            MysqlPacket(b"\0" + raw, "utf8"),
            tables,
            connection,
            (9, 7, 4),
            True,
            READ_BY_IT,
            *[None] * 4,
            *(False, False, False, True, False),
        )
        event = wrapped.event
        if isinstance(event, TableMapEvent):
            tables[event.table_id] = event.get_table()
        elif event is not None and type(event) in SORTS:
            rows = [row.get("after_values", row.get("values")) for row in event.rows]
            found.append((SORTS[type(event)], rows))
    return found


@pytest.mark.parametrize("name", ["tagged", "definitions"])
def test_another_decoder_gives_the_same_rows(name: str) -> None:
    ours = [
        (
            step.operation,
            [dict(zip(step.table.schema.names(), row, strict=True)) for row in step.rows],
        )
        for step in steps_of(name)
        if isinstance(step, Rows)
    ]
    assert ours
    assert ours == rows_of_the_other(name)
