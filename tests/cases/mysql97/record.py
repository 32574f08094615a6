"""Run each .sql here on a real MySQL and keep its log and what SELECT says: see README.md."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [
    str(HERE.parents[1]),
    str(HERE.parents[1] / "integration"),
    str(HERE.parents[1] / "unit"),
]

from binlog_reader import events_from, log_ends_at  # noqa: E402
from fix_servers import mysql_client  # noqa: E402
from shown import selected_rows  # noqa: E402

DATABASE = "cases"
MAGIC = b"\xfebin"
WITHOUT_IDS = "-- gtid_mode = OFF\n"  # the first line of a case
MODES = ("ON", "ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF")  # a server takes one step at a time


def statements(text: str) -> list[str]:
    lines = (line for line in text.splitlines() if not line.startswith("--"))
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip()]


def set_gtid_mode(cursor: Any, wanted: str) -> None:
    cursor.execute("SELECT @@GLOBAL.gtid_mode")
    at, goal = MODES.index(cursor.fetchone()[0]), MODES.index(wanted)
    while at != goal:
        at += 1 if goal > at else -1
        cursor.execute(f"SET GLOBAL gtid_mode = {MODES[at]}")


def record(url: str, case: Path) -> None:
    text = case.read_text() + "\n"
    with mysql_client(url) as connection, connection.cursor() as cursor:
        set_gtid_mode(cursor, "OFF" if text.startswith(WITHOUT_IDS) else "ON")
        cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        cursor.execute("FLUSH BINARY LOGS")
        start = log_ends_at(connection)
        cursor.execute(f"USE {DATABASE}")
        for statement in statements(text):
            cursor.execute(statement.rstrip(";"))
        cursor.execute("SET SESSION time_zone = '+00:00'")
        rows = selected_rows(connection, DATABASE)
    with mysql_client(url) as connection:
        events = list(events_from(connection, type(start)(start.file, 4)))
    real = [event for event in events if int.from_bytes(event[13:17], "little")]
    packed = gzip.compress(MAGIC + b"".join(real), mtime=0)
    case.with_suffix(".binlog.gz").write_bytes(packed)
    said = json.dumps(rows, ensure_ascii=False, indent=1)
    case.with_suffix(".json").write_text(said + "\n")
    sys.stdout.write(f"{case.stem}: {len(real)} events\n")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("url")
    arguments.add_argument("cases", nargs="*")
    given = arguments.parse_args()
    for case in sorted(HERE.glob("*.sql")):
        if not given.cases or case.stem in given.cases:
            record(given.url, case)
