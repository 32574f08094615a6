"""What the triggers and the metadata of a destination say of its known tables, for the verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from known_load import TABLES, Rows
from verdict import STREAM, Advance, Applied, Aside, Evidence
from warehouses import Warehouse

from warp.sources.mongodb.tokens import Token
from warp.sources.mysql.position import Place as MysqlPlace
from warp.sources.postgresql.position import Place as PostgresPlace

# Everything up to the first is done, nothing beyond the second is.
Span = tuple[int, int]


def span_of_mongodb(position: str) -> Span:
    token = Token.parse(position)
    # Other events may have happened in the same moment, such as those of a transaction.
    return token.version if token.drained else token.version - 1, token.version


def span_of_postgresql(position: str) -> Span:
    lsn = PostgresPlace.parse(position).lsn
    return lsn, lsn


def span_of_mariadb(position: str) -> Span:
    number = MysqlPlace.parse(position).version
    return number, number


def gather(
    warehouse: Warehouse,
    source: Rows,
    destination: Rows,
    *,
    span: Callable[[str], Span],
    key: str,
) -> Evidence:
    """`key` is the name of the tables' key column."""
    applied = [*_written(warehouse), *_deleted(warehouse)]
    advances = list(_advances(warehouse, span))
    return Evidence(applied, advances, list(_aside(warehouse, key)), source, destination)


def _written(warehouse: Warehouse) -> Iterator[Applied]:
    rows = warehouse.read(
        'select n, tx, source, "key", version, deleted, content, at from {audit}.rows'
        " where source in (%s, %s) and content is not null order by n",
        *TABLES,
    )
    for n, tx, table, key, version, deleted, content, at in rows:
        stamp, total, name = json.loads(content) if isinstance(content, str) else content
        cells = (0, 0, "") if deleted else (stamp or 0, total or 0, name or "")
        yield Applied(n, tx, table, key, version, *cells, deleted=bool(deleted), at=at)


def _deleted(warehouse: Warehouse) -> Iterator[Applied]:
    rows = warehouse.read(
        'select n, tx, source, "key", at from {audit}.deletions where source in (%s, %s)', *TABLES
    )
    for n, tx, table, key, at in rows:
        yield Applied(n, tx, table, key, 0, deleted=True, at=at)


def _advances(warehouse: Warehouse, span: Callable[[str], Span]) -> Iterator[Advance]:
    rows = warehouse.read(
        "select n, tx, unit, onward, old_position, position from {audit}.advances"
        " where moved order by n"
    )
    for n, tx, unit, onward, old, new in rows:
        if not unit.startswith(STREAM):
            yield Advance(n, tx, unit)
        elif new is not None:
            place, reached = span(new)
            before = span(old)[1] if old is not None else reached
            yield Advance(n, tx, unit, bool(onward), before, place, reached)


# As plain JSON or as Extended JSON.
_STAMP: Final = re.compile(r'"stamp":\s*(?:\{"\$numberLong":\s*")?(\d+)')


def _aside(warehouse: Warehouse, key: str) -> Iterator[Aside]:
    rows = warehouse.read(
        'select source_table, "key", "row", version, unit from {meta}.quarantine'
        " where source_table in (%s, %s)",
        *TABLES,
    )
    for table, keys, row, version, unit in rows:
        found = _STAMP.search(row)
        name = json.loads(keys)[key]
        yield Aside(table, str(name), int(found[1]) if found else 0, version, unit)


def save(evidence: Evidence, path: Path) -> None:
    """For whoever wants to know what led to an accusation."""
    with path.open("w") as file:
        for part in (evidence.applied, evidence.advances, evidence.aside):
            file.writelines(
                json.dumps({"of": type(each).__name__, **asdict(each)}) + "\n" for each in part
            )
