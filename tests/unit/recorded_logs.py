"""The recorded logs of tests/cases/mysql97, and what decoding one ends in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from shown import shown

from warp.model import UNCHANGED, Operation, TableId
from warp.sources.mysql.binlog.rows import Wanted
from warp.sources.mysql.binlog.statements import Sort
from warp.sources.mysql.binlog.transactions import Noted, Place, Rows, Step, Transactions

CASES = Path(__file__).parents[1] / "cases" / "mysql97"
START = Place("bin.000001", 4)


def everything(table: TableId) -> Wanted | None:
    return Wanted()


def events_of(name: str) -> list[bytes]:
    """The events of a recorded log file."""
    raw = gzip.decompress((CASES / f"{name}.binlog.gz").read_bytes())
    assert raw[:4] == b"\xfebin"
    events, place = [], 4
    while place < len(raw):
        size = int.from_bytes(raw[place + 9 : place + 13], "little")
        events.append(raw[place : place + size])
        place += size
    return events


def steps_of(name: str, wanted: Callable[[TableId], Wanted | None] = everything) -> Iterator[Step]:
    transactions = Transactions(wanted, START)
    for event in events_of(name):
        yield from transactions.feed(event)


def fed(transactions: Transactions, events: Iterable[bytes]) -> list[Step]:
    return [step for event in events for step in transactions.feed(event)]


def selected(name: str) -> dict[str, list[dict[str, Any]]]:
    """What SELECT said on the server that wrote the log."""
    found: dict[str, list[dict[str, Any]]] = json.loads((CASES / f"{name}.json").read_text())
    return found


class Replica:
    """Tables that the steps are applied to, by key, as a destination would."""

    def __init__(self) -> None:
        self.tables: dict[TableId, dict[tuple[Any, ...], dict[str, Any]]] = {}

    def apply(self, step: Step) -> None:
        if isinstance(step, Rows):
            self._rows(step)
        elif isinstance(step, Noted):
            sort, tables = step.statement.sort, step.statement.tables
            if sort in (Sort.TRUNCATE, Sort.DROP):
                for table in tables:
                    self.tables.pop(table, None)
            elif sort is Sort.RENAME:
                for old, new in zip(tables[::2], tables[1::2], strict=True):
                    if old in self.tables:
                        self.tables[new] = self.tables.pop(old)

    def _rows(self, step: Rows) -> None:
        schema = step.table.schema
        rows = self.tables.setdefault(schema.table, {})
        places = [schema.names().index(name) for name in schema.key]
        moved = dict(step.moved)
        for number, row in enumerate(step.rows):
            key = tuple(row[place] for place in places)
            old = rows.pop(moved.get(number, key), {})
            if step.operation is Operation.DELETE:
                continue
            cells = dict(old)
            for column, cell in zip(schema.columns, row, strict=True):
                if cell is not UNCHANGED or column.name not in cells:
                    cells[column.name] = shown(column.kind, cell)
            rows[key] = cells

    def rows_of(self, table: TableId) -> list[dict[str, Any]]:
        return list(self.tables.get(table, {}).values())


def differences(replica: Replica, namespace: str, expected: dict[str, list[Any]]) -> list[str]:
    """In words, cell by cell; columns the log has no longer count as equal."""
    found = []
    for table, rows in expected.items():
        mine = replica.rows_of(TableId(namespace, table))
        if len(mine) != len(rows):
            found.append(f"{table}: {len(mine)} rows instead of {len(rows)}")
            continue
        first = next(iter(rows[0])) if rows else ""
        decoded = {str(row[first]): row for row in mine}
        for row in rows:
            other = decoded.get(str(row[first]))
            if other is None:
                found.append(f"{table}: no row {row[first]}")
                continue
            found += [
                f"{table} {row[first]}.{name}: {other.get(name)!r:.200} instead of {value!r:.200}"
                for name, value in row.items()
                if other.get(name) != value
            ]
    return found
