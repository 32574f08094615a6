"""Rows of the log -> tuples of carriers, by code that is written once per table.

A function is made for each (table, columns present in the image).  It has a branch for a row
without NULL, in which neighbours of fixed size are read by one `struct` call.  Making Python
objects is what costs; nothing else is done per cell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from warp.errors import WarpError
from warp.model import ABSENT, UNCHANGED, Column, Kind, Operation, TableId, TableSchema
from warp.sources.mysql.binlog.events import damaged, length_at
from warp.sources.mysql.binlog.packing import plan_of
from warp.sources.mysql.binlog.table_map import (
    ColumnType,
    LoggedColumn,
    TableMap,
    names_at,
    table_map_of,
)
from warp.sources.mysql.binlog.values import Reading, reading

if TYPE_CHECKING:
    from warp.native.binlog import Filling, Plan, Transactions

Row = tuple[Any, ...]
Moved = tuple[int, Row]  # number of an updated row, and the key it had before

UNREADABLE: Final = (struct.error, IndexError, ValueError, OverflowError)


_SORTS: Final = {Operation.CREATE: 0, Operation.UPDATE: 1, Operation.DELETE: 2}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the reader of the log knows of a table it wants."""

    key: tuple[str, ...] = ()  # names of columns; () takes the primary key as the log has it
    # (column, `information_schema.columns.data_type`), where the log does not tell enough:
    # MariaDB's uuid, inet4 and inet6.
    types: tuple[tuple[str, str], ...] = ()
    without: frozenset[str] = frozenset()  # names of columns to leave out


@dataclass(slots=True)
class LoggedTable:
    """A table as one table map describes it, and what reads its rows."""

    map: TableMap
    wanted: Wanted
    schema: TableSchema
    body: bytes = b""  # of the table map, behind the table's id
    # Columns that are there, as the event has them -> the function that reads such rows.
    _inserts: dict[bytes, Callable[..., list[Row]]] = field(default_factory=dict)
    _updates: dict[bytes, Callable[..., tuple[list[Row], list[Moved]]]] = field(
        default_factory=dict
    )
    _deletes: dict[bytes, Callable[..., list[Row]]] = field(default_factory=dict)
    _width: int = 0  # of the number of columns and one set of them, in an event
    _plan: Plan | None = None
    _planned: bool = False
    # Columns that are there, as the event has them -> the sets, and whether the rows are whole.
    _sets: dict[bytes, tuple[bytes, bytes, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.map.columns)
        self._width = (1 if count < 251 else 3) + (count + 7) // 8

    def inserted(self, event: bytes, place: int, end: int) -> list[Row]:
        """The rows of a WRITE_ROWS event.

        With `binlog_row_image=MINIMAL` a column that took its default is not in the log: UNCHANGED.
        """
        there = event[place : place + self._width]
        read = self._inserts.get(there)
        if read is None:
            present = self._present(there)
            read = self._inserts[there] = _compiled(self.map, self.wanted, present, UNCHANGED)
        try:
            return read(event, place + self._width, end)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def deleted(self, event: bytes, place: int, end: int) -> list[Row]:
        """The rows of a DELETE_ROWS event as they were; ABSENT where the log does not say."""
        there = event[place : place + self._width]
        read = self._deletes.get(there)
        if read is None:
            present = self._present(there)
            read = self._deletes[there] = _compiled(self.map, self.wanted, present, ABSENT)
        try:
            return read(event, place + self._width, end)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def updated(self, event: bytes, place: int, end: int) -> tuple[list[Row], list[Moved]]:
        """The rows of an UPDATE_ROWS event as they are now, and those whose key was another.

        A column that is in neither image is UNCHANGED, never NULL.
        """
        width = self.header_size(update=True)
        there = event[place : place + width]
        read = self._updates.get(there)
        if read is None:
            before = self._present(there[: self._width])
            after = self._bits(there[self._width :])
            read = self._updates[there] = _compiled_update(self.map, self.wanted, before, after)
        try:
            return read(event, place + width, end)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def pack(
        self, filling: Filling, operation: Operation, event: bytes, place: int, end: int
    ) -> tuple[int, bool]:
        """(how many rows of an event were added, are they whole); -1 where they must be `read`."""
        if not self._planned:
            self._plan, self._planned = self._planned_by_reference(), True
        plan = self._plan
        width = self.header_size(update=operation is Operation.UPDATE)
        if plan is None or place + width >= end:
            return -1, False
        there = event[place : place + width]
        sets = self._sets.get(there)
        if sets is None:
            sets = self._sets[there] = self._sets_of(there)
        first, second, whole = sets
        place += width
        try:
            if operation is Operation.UPDATE:
                return filling.update(plan, event, place, end, first, second), whole
            deleted = operation is Operation.DELETE
            return filling.insert(plan, event, place, end, first, deleted), whole
        except (WarpError, *UNREADABLE):
            return -1, False  # the reference will say what is wrong, and with what

    def tell(
        self,
        transactions: Transactions,
        filling: Filling,
        unread: tuple[Operation, bytes, int],
        operations: bytearray,
        versions: list[int],
        code: Operation,
    ) -> None:
        """Rows like these, which were packed, may be taken with their whole transactions."""
        operation, event, place = unread
        there = event[place : place + self.header_size(update=operation is Operation.UPDATE)]
        if self._plan is None or not self.body:
            raise AssertionError("only told of what was packed")
        sort = _SORTS[operation]
        transactions.know(self.body, sort, there, self._plan, filling, operations, versions, code)

    def _sets_of(self, there: bytes) -> tuple[bytes, bytes, bool]:
        self._present(there[: self._width])  # raises where it is of another number of columns
        size = (len(self.map.columns) + 7) // 8
        first, second = there[self._width - size : self._width], there[self._width :]
        taken = _readings(self.map, self.wanted)
        last = zip(self._bits(second or first), taken, strict=True)
        return first, second, all(present for present, how in last if how is not None)

    def _planned_by_reference(self) -> Plan | None:
        types = dict(self.wanted.types)
        key = _key(self.map, self.wanted)
        readings = _readings(self.map, self.wanted)
        parts = zip(self.map.columns, readings, self._alone(), strict=True)
        return plan_of(
            [
                (column, how.kind if how else None, types.get(column.name, ""), n in key, read)
                for n, (column, how, read) in enumerate(parts)
            ]
        )

    def _alone(self) -> Iterator[Callable[..., list[Row]]]:
        """What reads rows of one column only, for each."""
        wanted = replace(self.wanted, key=())
        for column in self.map.columns:
            yield _Alone(replace(self.map, columns=(column,), primary_key=()), wanted)

    def header_size(self, *, update: bool) -> int:
        """Bytes before the first row of an event that say which columns are there."""
        return self._width + (len(self.map.columns) + 7) // 8 * update

    def _present(self, there: bytes) -> tuple[bool, ...]:
        try:
            count, place = length_at(there, 0)
        except IndexError as error:
            raise self._damaged(error) from error
        if count != len(self.map.columns):
            raise damaged(
                f"rows of {count} columns where the table map before has {len(self.map.columns)}",
                place=str(self.map),
            )
        return self._bits(there[place:])

    def _bits(self, there: bytes) -> tuple[bool, ...]:
        bits = int.from_bytes(there, "little")
        return tuple(bool(bits >> number & 1) for number in range(len(self.map.columns)))

    def _damaged(self, error: Exception) -> WarpError:
        what = f"{type(error).__name__}: {error}"
        return damaged(f"rows that do not fit the columns ({what})", place=str(self.map))


def logged_table(event: bytes, end: int, wanted: Wanted, *, mariadb: bool) -> LoggedTable:
    """The table of a TABLE_MAP event; raises where a column cannot be read."""
    found = table_map_of(event, end, mariadb=mariadb)
    return LoggedTable(found, wanted, _schema(found, wanted))


def table_id_of(event: bytes, end: int) -> TableId:
    namespace, name, _ = names_at(event, end)
    return TableId(namespace, name)


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """Rows turned into columns, once for a whole batch."""
    return [list(cells) for cells in zip(*rows, strict=True)]


@lru_cache(maxsize=512)
def _readings(found: TableMap, wanted: Wanted) -> tuple[Reading | None, ...]:
    """How each column is read; None for one that is left out."""
    types = dict(wanted.types)
    return tuple(
        None
        if column.name in wanted.without
        else reading(column, types.get(column.name, ""), table=str(found))
        for column in found.columns
    )


def _key(found: TableMap, wanted: Wanted) -> tuple[int, ...]:
    """Places of the key's columns among those of the log."""
    if not wanted.key:
        return found.primary_key
    places = {column.name: number for number, column in enumerate(found.columns)}
    # A column that is not there (any more) cannot be part of the key in this part of the log.
    return tuple(places[name] for name in wanted.key if name in places)


def _schema(found: TableMap, wanted: Wanted) -> TableSchema:
    columns = tuple(
        Column(column.name, how.kind)
        for column, how in zip(found.columns, _readings(found, wanted), strict=True)
        if how is not None
    )
    key = tuple(found.columns[place].name for place in _key(found, wanted))
    return TableSchema(TableId(found.namespace, found.name), columns, key)


# -- the code


class _Code:
    """Python source that grows, and what it refers to."""

    def __init__(self, found: TableMap, wanted: Wanted) -> None:
        self.columns = found.columns
        self.readings = _readings(found, wanted)
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"number": int.from_bytes, "Decimal": Decimal}

    def add(self, depth: int, *lines: str) -> None:
        self.lines += [" " * depth + line for line in lines]

    def function(self, name: str) -> Any:
        exec(compile("\n".join(self.lines), "<rows of the log>", "exec"), self.names)  # noqa: S102
        return self.names[name]

    def image(self, depth: int, there: Sequence[bool], wanted: Sequence[bool], name: str) -> None:
        """Read one row: `{name}{place}` for each column there and wanted, past the others."""
        places = [place for place, is_there in enumerate(there) if is_there]
        if not places:
            return
        size = (len(places) + 7) // 8
        mask = (1 << len(places)) - 1
        if size == 1:
            self.add(depth, f"z=b[p]&{mask}; p+=1")
        else:
            # The bits beyond the last column are set by some versions.
            self.add(depth, f"z=number(b[p:p+{size}],'little')&{mask}; p+={size}")
        self.add(depth, "if not z:")
        self._all(depth + 1, places, wanted, name)
        self.add(depth, "else:")
        for bit, place in enumerate(places):
            if wanted[place]:
                self.add(depth + 1, f"if z&{1 << bit}: {name}{place}=None", "else:")
            else:
                self.add(depth + 1, f"if not z&{1 << bit}:")
            self._one(depth + 2, place, wanted[place], name)

    def _all(self, depth: int, places: Sequence[int], wanted: Sequence[bool], name: str) -> None:
        run: list[int] = []
        for place in places:
            if self._how(place).fixed:
                run.append(place)
                continue
            self._run(depth, run, wanted, name)
            run = []
            self._one(depth, place, wanted[place], name)
        self._run(depth, run, wanted, name)

    def _run(self, depth: int, run: Sequence[int], wanted: Sequence[bool], name: str) -> None:
        """Neighbours of fixed size, by one call."""
        if not run:
            return
        sizes = [struct.calcsize("<" + self._how(place).fixed) for place in run]
        taken = [place for place in run if wanted[place]]
        if not taken:
            self.add(depth, f"p+={sum(sizes)}")
            return
        parts = (
            self._how(place).fixed if wanted[place] else f"{size}x"
            for place, size in zip(run, sizes, strict=True)
        )
        unpack = f"unpack_{name}{run[0]}_{depth}"
        self.names[unpack] = struct.Struct("<" + "".join(parts)).unpack_from
        cells = ",".join(f"{name}{place}" for place in taken)
        self.add(depth, f"{cells},={unpack}(b,p); p+={sum(sizes)}")
        for place in taken:
            if then := self._how(place).then:
                self.add(depth, self._filled(then, place, name))

    def _one(self, depth: int, place: int, wanted: bool, name: str) -> None:
        how = self._how(place)
        if how.fixed:
            self._run(depth, [place], [wanted] * (place + 1), name)
        elif wanted:
            self.add(depth, *(self._filled(line, place, name) for line in how.lines))
        else:
            self.add(depth, *how.skip)

    def _how(self, place: int) -> Reading:
        how = self.readings[place]
        return how if how is not None else _left_out(self.columns[place])

    def _filled(self, line: str, place: int, name: str) -> str:
        for needed, value in self._how(place).names.items():
            self.names[needed.replace("{i}", str(place))] = value
        return line.replace("{c}", f"{name}{place}").replace("{i}", str(place))

    def taken(self) -> list[int]:
        """Places of the columns that are not left out."""
        return [place for place, how in enumerate(self.readings) if how is not None]


@lru_cache(maxsize=512)
def _left_out(column: LoggedColumn) -> Reading:
    """How to pass over a column, whatever its character set is."""
    if column.type in (ColumnType.ENUM, ColumnType.SET):
        return Reading(Kind.BYTES, skip=(f"p+={column.size}",))
    return reading(replace(column, collation=None))


class _Alone:
    """Reads rows of a table of one column, by code that is made once it is asked for."""

    def __init__(self, found: TableMap, wanted: Wanted) -> None:
        self._found, self._wanted = found, wanted
        self._read: Callable[..., list[Row]] | None = None

    def __call__(self, raw: bytes, place: int, end: int) -> list[Row]:
        if self._read is None:
            self._read = _compiled.__wrapped__(self._found, self._wanted, (True,), UNCHANGED)
        return self._read(raw, place, end)


def _no_columns(found: TableMap) -> WarpError:
    """Rows of no bytes, of which nobody can say how many they are."""
    return damaged("rows that hold no column", place=str(found))


def _tuple(cells: Sequence[str]) -> str:
    return f"({','.join(cells)},)" if cells else "()"


@lru_cache(maxsize=512)
def _compiled(
    found: TableMap, wanted: Wanted, present: tuple[bool, ...], missing: Any
) -> Callable[..., list[Row]]:
    """read(event, place, end) -> rows, for images that hold the columns `present`."""
    if not any(present):
        raise _no_columns(found)
    code = _Code(found, wanted)
    code.names["missing"] = missing
    code.add(0, "def read(b,p,e):")
    code.add(1, "rows=[]; add=rows.append", "while p<e:")
    read = [how is not None for how in code.readings]
    code.image(2, present, read, "c")
    cells = [f"c{place}" if present[place] else "missing" for place in code.taken()]
    code.add(2, f"add({_tuple(cells)})")
    code.add(1, "if p!=e: raise IndexError(f'{p-e} bytes beyond the end')", "return rows")
    return code.function("read")  # type: ignore[no-any-return]


@lru_cache(maxsize=512)
def _compiled_update(
    found: TableMap, wanted: Wanted, before: tuple[bool, ...], after: tuple[bool, ...]
) -> Callable[..., tuple[list[Row], list[Moved]]]:
    """read(event, place, end) -> (rows as they are, keys that changed).

    Of the row before, only the key is read, and what the row after lacks.
    """
    if not any(before):
        raise _no_columns(found)
    code = _Code(found, wanted)
    code.names["missing"] = UNCHANGED
    key = [place for place in _key(found, wanted) if before[place]]
    read = [how is not None for how in code.readings]
    useful = [read[n] and before[n] and (n in key or not after[n]) for n in range(len(before))]
    code.add(0, "def read(b,p,e):")
    code.add(1, "rows=[]; add=rows.append; moved=[]", "while p<e:")
    code.image(2, before, useful, "o")
    code.image(2, after, read, "c")
    changing = [place for place in key if after[place] and read[place]]
    if changing:
        code.add(2, f"if {' or '.join(f'c{place}!=o{place}' for place in changing)}:")
        code.add(3, f"moved.append((len(rows),{_tuple([f'o{place}' for place in key])}))")
    cells = [
        f"c{place}" if after[place] else f"o{place}" if useful[place] else "missing"
        for place in code.taken()
    ]
    code.add(2, f"add({_tuple(cells)})")
    code.add(1, "if p!=e: raise IndexError(f'{p-e} bytes beyond the end')", "return rows,moved")
    return code.function("read")  # type: ignore[no-any-return]
