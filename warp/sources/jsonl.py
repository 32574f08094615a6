"""A file of JSON lines as a source: the smallest whole connector, and the page newcomers copy.

One line declares a table, each other line is one change, oldest first, appended and never edited:

    {"table": "orders", "key": ["id"], "columns": {"id": "int64", "name": "text"}}
    {"op": "c", "table": "orders", "row": {"id": 1, "name": "a"}}
    {"op": "d", "table": "orders", "row": {"id": 1}}

A position is a byte count, and so is a row's version: the place where its line ends.  The
namespace of every table is the file's name without its ending.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from warp.diagnosis import failed, ok, refuse
from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.interfaces import SourceTraits
from warp.model import (
    ABSENT,
    UNCHANGED,
    ChangeBatch,
    Chunk,
    Column,
    Diagnosis,
    Kind,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
)

_MOST_TOLD: Final = 5  # bad lines
_LOOK_AGAIN: Final = 0.02  # seconds between looks at a file that has not grown

# What JSON cannot carry is written as text.  Kinds not listed are carried as they are.
_FROM_JSON: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.DECIMAL: Decimal,
    Kind.BYTES: bytes.fromhex,
    Kind.UUID: bytes.fromhex,
    Kind.DATE: dt.date.fromisoformat,
    Kind.JSON: lambda value: json.dumps(value).encode(),
}

_Line = tuple[int, dict[str, Any]]  # where it ends, what it says
_Key = tuple[Any, ...]


class JsonLinesOptions(BaseModel):
    """The `source:` block."""

    model_config = ConfigDict(extra="forbid")
    path: Path = Field(
        description="the file to follow; its name without the ending is the namespace"
    )


class JsonLinesSource:
    """Follows one file."""

    Options: ClassVar[type[BaseModel]] = JsonLinesOptions
    traits: ClassVar[SourceTraits] = SourceTraits(full_rows=False)

    def __init__(self, options: JsonLinesOptions, selection: TableSelection) -> None:
        self._path = options.path
        self._selection = selection
        self._closed = False

    def check(self) -> None:
        refuse(self._look(), SourceRefused)

    def diagnose(self) -> list[Diagnosis]:
        return list(self._look())

    def _look(self) -> Iterator[Diagnosis]:
        bad = (
            failed("jsonl-line", place, "a table or a change", found, "mend or remove the line")
            for _, place, found in self._read(0, self.version())
            if isinstance(found, str)
        )
        first = list(islice(bad, _MOST_TOLD))
        yield from first
        if not first:
            yield ok("jsonl-line", str(self._path), "tables and changes", "nothing else")

    def namespaces(self) -> list[str]:
        return [self._path.stem]

    def tables(self) -> list[TableId]:
        found = self._schemas()
        return [table for table in found if self._selection(table) is not None]

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        found = self._schemas()
        return {table: found[table] for table in tables if table in found}

    def position(self) -> Position:
        return Position(str(self.version()), time.time())

    def version(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as error:
            raise SourceUnavailable(f"cannot read {self._path}: {error.strerror}") from error

    def reached(self, position: Position, goal: Position) -> bool:
        return int(position.token) >= int(goal.token)

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        return [Chunk(table, 0)]

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        version = self.version()
        schemas = self._schemas()
        rows = self._rows(schemas[chunk.table], version)
        read = False
        while True:
            settings = self._selection(chunk.table)
            part = list(islice(rows, settings.full_load_batch_size if settings else 1000))
            if read and not part:
                return
            yield self._batch({chunk.table: part} if part else {}, schemas, version)
            read = True

    def look_up(self, rows: TableChanges) -> TableChanges:
        version = self.version()
        schema = self._schemas()[rows.table]
        cells = dict(zip(rows.schema.names() if rows.schema else (), rows.columns, strict=True))
        keys = set(zip(*(cells[name] for name in schema.key), strict=True))
        found = list(self._rows(schema, version, keys))
        return _table_changes(schema, found)

    def _rows(
        self, schema: TableSchema, version: int, keys: Collection[_Key] | None = None
    ) -> Iterator[_Line]:
        """The live rows, all or those of some keys, in the order of their last change.

        The file twice: first which lines each live row is made of, then those lines.  Only keys
        and places are held, and the rows that are not whole yet.
        """
        live: dict[_Key, list[int]] = {}
        for end, line in self._changes(0, version, schema.table):
            key = _key(schema, line)
            if line["op"] == "t":
                live.clear()
            elif line["op"] == "d":
                live.pop(key, None)
            elif keys is None or key in keys:
                earlier = live.pop(key, []) if line["op"] == "u" else []
                live[key] = [*earlier, end]
        last = {places[-1] for places in live.values()}
        used = {place for places in live.values() for place in places}
        rows: dict[_Key, dict[str, Any]] = {}
        for end, line in self._changes(0, version, schema.table):
            if end in used:
                key = _key(schema, line)
                rows[key] = rows.get(key, {}) | line["row"]
                if end in last:
                    yield version, {"op": "r", "row": rows.pop(key)}

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        after = int(position.token)
        schemas = self._schemas(after)
        quiet_since = time.monotonic()
        while not self._closed:
            size = self.version()
            if size < after:
                raise PositionLost(
                    f"{self._path} holds {size} bytes and the marker stands at {after}: the file "
                    "was cut or replaced; run `cartridge-warp resync`"
                )
            parts: dict[TableId, list[_Line]] = {}
            count = 0
            for end, line in self._lines(after, size):
                after = end
                table = TableId(self._path.stem, line["table"])
                if "op" not in line:
                    schemas[table] = self._schema(table, line)
                elif (settings := selection(table)) is not None:
                    parts.setdefault(table, []).append((end, line))
                    count += 1
                    if count >= settings.write_batch_size:
                        break
            if count or time.monotonic() - quiet_since >= idle:
                yield self._batch(parts, schemas, after)
                quiet_since = time.monotonic()
            elif after == size:
                time.sleep(_LOOK_AGAIN)

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        raise SourceRefused("a file of JSON lines is a log; use `mode: stream`", place=str(table))

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        raise SourceRefused("a file of JSON lines is a log; use `mode: stream`", place=str(table))

    def acknowledge(self, position: Position) -> None:
        """The file forgets nothing."""

    def close(self) -> None:
        self._closed = True

    # -- the file

    def _lines(self, start: int, end: int) -> Iterator[_Line]:
        """Whole lines between two places; a line still being written waits for the next look."""
        for after, place, line in self._read(start, end):
            if isinstance(line, str):
                raise SourceRefused(
                    f"expected a table or a change, found {line}; mend or remove the line",
                    place=place,
                )
            yield after, line

    def _read(self, start: int, end: int) -> Iterator[tuple[int, str, dict[str, Any] | str]]:
        """Where each line ends, which one it is, and what it says; or a text about a bad one."""
        with self._path.open("rb") as file:
            file.seek(start)
            place = start
            for number, raw in enumerate(file, 1):
                place += len(raw)
                if place > end or not raw.endswith(b"\n"):
                    return
                try:
                    line = json.loads(raw)
                    if "op" in line and line["op"] not in "crudt":
                        raise ValueError(f"no operation {line['op']!r}")
                    TableId(self._path.stem, line["table"])
                except (ValueError, KeyError, TypeError) as error:
                    line = f"{raw[:80]!r} ({error})"
                yield place, f"{self._path}, line {number} after byte {start}", line

    def _changes(self, start: int, end: int, table: TableId) -> Iterator[_Line]:
        for place, line in self._lines(start, end):
            if "op" in line and line["table"] == table.name:
                yield place, line

    def _schemas(self, end: int | None = None) -> dict[TableId, TableSchema]:
        found = {}
        for _, line in self._lines(0, self.version() if end is None else end):
            if "op" not in line:
                table = TableId(self._path.stem, line["table"])
                found[table] = self._schema(table, line)
        return found

    def _schema(self, table: TableId, line: Mapping[str, Any]) -> TableSchema:
        columns = tuple(Column(name, Kind(kind)) for name, kind in line["columns"].items())
        return TableSchema(table, columns, tuple(line["key"]))

    def _batch(
        self,
        parts: Mapping[TableId, Sequence[_Line]],
        schemas: Mapping[TableId, TableSchema],
        end: int,
    ) -> ChangeBatch:
        now = time.time()
        changes = [_table_changes(schemas[table], lines) for table, lines in parts.items()]
        return ChangeBatch(changes, Position(str(end), now), read_at=now)


def _table_changes(schema: TableSchema, lines: Sequence[_Line]) -> TableChanges:
    return TableChanges(
        schema.table,
        bytearray(ord(line["op"]) for _, line in lines),
        [version for version, _ in lines],
        schema,
        [[_cell(column, line) for _, line in lines] for column in schema.columns],
    )


def _key(schema: TableSchema, line: Mapping[str, Any]) -> _Key:
    return tuple(_cell(c, line) for name in schema.key if (c := schema.column(name)))


def _cell(column: Column, line: Mapping[str, Any]) -> Any:
    """What an update does not mention is unchanged."""
    row = line.get("row", {})
    if column.name not in row:
        return UNCHANGED if line["op"] == "u" else ABSENT
    value = row[column.name]
    convert = _FROM_JSON.get(column.kind)
    return value if value is None or convert is None else convert(value)
