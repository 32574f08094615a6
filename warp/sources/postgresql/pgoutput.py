"""Reads the messages of `pgoutput`, the server's own output plugin.  Pure: no I/O.

Rows are gathered per relation as operation bytes and one flat list of raw cells, and become
columns when a batch is taken: no object is made per row.  Layouts are those of the protocol's
documentation, "Logical Replication Message Formats", versions 1 and 2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from warp import native
from warp.errors import WarpError
from warp.model import (
    ABSENT,
    UNCHANGED,
    Cells,
    Column,
    Operation,
    TableChanges,
    TableId,
    TableSchema,
)
from warp.sources.postgresql.values import Codec, column, settled

if TYPE_CHECKING:
    from warp.native.postgresql import Frames, Log
    from warp.native.postgresql import Rows as CompiledRows

BEGIN, COMMIT, RELATION, TYPE, ORIGIN, MESSAGE = b"BCRYOM"
INSERT, UPDATE, DELETE, TRUNCATE = b"IUDT"
STREAM_START, STREAM_STOP, STREAM_COMMIT, STREAM_ABORT = b"SEcA"
ROWS: Final = frozenset((INSERT, UPDATE, DELETE, TRUNCATE))
UNUSED: Final = frozenset((TYPE, ORIGIN, MESSAGE))

_VALUE, _NULL, _TOASTED = b"tnu"
_NEW = ord("N")
_KEY, _FULL = b"KO"
FULL_IDENTITY: Final = "f"

_CREATE, _UPDATE, _DELETE, _TRUNCATE = (
    Operation.CREATE.value,
    Operation.UPDATE.value,
    Operation.DELETE.value,
    Operation.TRUNCATE.value,
)

_uint = struct.Struct(">I").unpack_from
_begin = struct.Struct(">QqI").unpack_from
_cell = struct.Struct(">BI").unpack_from
_commit = struct.Struct(">QQq").unpack_from
_type_of = struct.Struct(">Ii").unpack_from

PADDING: Final = bytes(4)
"""Must follow every message: see `tuple_reader`."""

_EPOCH: Final = 946_684_800  # 2000-01-01 in seconds since 1970; the protocol counts from there


def unix_time(microseconds: int) -> float:
    return _EPOCH + microseconds / 1_000_000


def transaction_of(message: bytes) -> int:
    """The (sub)transaction of a message of protocol 2."""
    xid: int = _uint(message, 1)[0]
    return xid


def aborted(message: bytes, at: int) -> tuple[int, int]:
    """(transaction, subtransaction) of a Stream Abort, equal where all of it was rolled back."""
    return _uint(message, at)[0], _uint(message, at + 4)[0]


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a transaction."""

    lsn: int  # where its commit record begins: the version of its rows
    end: int  # where to resume after it
    at: float  # Unix seconds

    @classmethod
    def read(cls, message: bytes, at: int) -> Commit:
        """`at` is where its flags stand."""
        lsn, end, when = _commit(message, at + 1)
        return cls(lsn, end, unix_time(when))


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """A table as its next rows will come: the columns of that moment."""

    oid: int
    table: TableId
    identity: str  # `d`efault, `i`ndex, `f`ull, `n`othing
    columns: tuple[str, ...]
    types: tuple[int, ...]
    modifiers: tuple[int, ...]
    identifying: tuple[int, ...]  # places of the columns that the old row of a change has

    @classmethod
    def read(cls, message: bytes, at: int) -> RelationMessage:
        """`at` is where the relation's oid stands."""
        (oid,) = _uint(message, at)
        namespace, at = _name(message, at + 4)
        name, at = _name(message, at)
        identity = chr(message[at])
        count = message[at + 1] << 8 | message[at + 2]
        at += 3
        columns, types, modifiers, identifying = [], [], [], []
        for place in range(count):
            if message[at] & 1:
                identifying.append(place)
            column_name, at = _name(message, at + 1)
            type_oid, modifier = _type_of(message, at)
            at += 8
            columns.append(column_name)
            types.append(type_oid)
            modifiers.append(modifier)
        return cls(
            oid,
            # The protocol leaves pg_catalog empty.
            TableId(namespace or "pg_catalog", name),
            identity,
            tuple(columns),
            tuple(types),
            tuple(modifiers),
            tuple(identifying),
        )


def _name(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1


@dataclass(frozen=True, slots=True)
class Reading:
    """How a relation's rows are to be read: the codec of each column, and the key's names."""

    codecs: tuple[Codec, ...]
    key: tuple[str, ...]


class Gathered:
    """The rows gathered of one relation.  Its compiled twin is `native.postgresql.Rows`."""

    def __init__(self, width: int, key: Sequence[int]) -> None:
        self._width = width
        self._key = key
        self._operations = bytearray()
        self._versions: list[int] = []
        self._cells: list[Any] = []  # row after row
        self._read = tuple_reader(width)

    def __len__(self) -> int:
        return len(self._operations)

    def take(self, codecs: Sequence[Codec]) -> tuple[bytearray, list[int], list[Cells]]:
        """Operations, versions, columns so far; the next ones begin anew."""
        cells, operations, versions = self._cells, self._operations, self._versions
        self._cells, self._operations, self._versions = [], bytearray(), []
        columns = [column(codec, cells[i :: self._width]) for i, codec in enumerate(codecs)]
        return operations, versions, [*columns]

    def add(self, kind: int, message: bytes, at: int, version: int) -> int:
        """An Insert, Update or Delete, from behind its relation's oid; how many rows it made."""
        before = len(self._operations)
        if kind == INSERT:
            self._operations.append(_CREATE)
            self._read(message, at + 1, self._cells.extend)
        elif kind == UPDATE:
            if message[at] == _NEW:
                self._operations.append(_UPDATE)
                self._read(message, at + 1, self._cells.extend)
            else:
                self._changed(message, at, version)
        else:
            self._gone(message, at + 1)
        self._versions.append(version)
        return len(self._operations) - before

    def _gone(self, message: bytes, at: int) -> None:
        old: list[Any] = []
        self._read(message, at, old.extend)
        self._operations.append(_DELETE)
        self._cells += _only(self._key, old)

    def _changed(self, message: bytes, at: int, version: int) -> None:
        """An update that came with the old row, or with the old values of its key."""
        whole = message[at] == _FULL
        old: list[Any] = []
        new: list[Any] = []
        at = self._read(message, at + 1, old.extend)
        self._read(message, at + 1, new.extend)
        for place in range(len(new)) if whole else self._key:
            # A large value that was not changed is in the old row, if that came.
            if new[place] is UNCHANGED:
                new[place] = old[place]
        operation = _UPDATE
        if any(new[place] != old[place] for place in self._key):
            # Without an old row the new one may lack values.  As an update it is looked up, where
            # the destination has not got it.
            operation = _UPDATE if UNCHANGED in new else _CREATE
            self._operations.append(_DELETE)
            self._versions.append(version)
            self._cells += _only(self._key, old)
        self._operations.append(operation)
        self._cells += new

    def truncate(self, version: int) -> None:
        self._operations.append(_TRUNCATE)
        self._versions.append(version)
        self._cells += [ABSENT] * self._width


@dataclass(slots=True)
class Relation:
    """A relation of the log with the rows gathered of it."""

    message: RelationMessage
    reading: Reading | None  # None: not selected
    schema: TableSchema | None = None
    rows: Gathered | CompiledRows | None = None

    def __post_init__(self) -> None:
        if self.reading is None:
            return
        names, codecs = self.message.columns, self.reading.codecs
        columns = tuple(Column(n, c.kind) for n, c in zip(names, codecs, strict=True))
        self.schema = TableSchema(self.message.table, columns, self.reading.key)
        key = tuple(names.index(name) for name in self.reading.key)
        if native.active():
            kinds = [codec.compiled for codec in codecs]
            self.rows = native.postgresql.Rows(kinds, key)
        else:
            self.rows = Gathered(len(names), key)

    def take(self) -> TableChanges:
        """The rows gathered so far, as columns; the next ones begin anew."""
        if self.reading is None or self.rows is None:
            raise AssertionError("rows are gathered of selected relations only")
        codecs = self.reading.codecs
        columns: list[Cells]
        if isinstance(self.rows, Gathered):
            operations, versions, columns = self.rows.take(codecs)
        else:
            operations, versions, taken = self.rows.take()
            columns = [settled(codec, one) for codec, one in zip(codecs, taken, strict=True)]
        return TableChanges(self.message.table, operations, versions, self.schema, columns)


class Decoder:
    """Gathers the rows of one batch.  `describe` says which relations are wanted, and how.

    `describe` is asked for each Relation message and may look into the catalog; None leaves the
    relation's rows out.  Where `compiled` is there, it gathers the rows, whole frames at a time.
    """

    def __init__(self, describe: Callable[[RelationMessage], Reading | None]) -> None:
        self._describe = describe
        self._relations: dict[int, Relation] = {}
        self.compiled = native.postgresql.Log() if native.active() else None
        self.version = 0  # of the rows to come: where their transaction's commit record begins
        self.rows = 0
        self.size = 0  # bytes of their messages

    def begin(self, message: bytes, at: int) -> None:
        self.version = _begin(message, at)[0]

    def reshapes(self, message: RelationMessage) -> bool:
        """Must the rows gathered so far go first?

        Where this relation's have other columns from here on, or where they were of another
        relation of the same name: within a batch the order between the two would be lost.
        """
        return any(
            known.rows
            and known.message != message
            and (oid == message.oid or known.message.table == message.table)
            for oid, known in self._relations.items()
        )

    def relation(self, message: RelationMessage) -> None:
        """What the rows that follow look like.  None of the old shape may be gathered."""
        known = self._relations.get(message.oid)
        if known is not None:
            if known.message == message:
                return
            if known.rows:
                raise AssertionError("rows of another shape are still gathered")
        made = self._relations[message.oid] = Relation(message, self._describe(message))
        if self.compiled is not None:
            rows = None if isinstance(made.rows, Gathered) else made.rows
            self.compiled.relation(message.oid, rows)

    def row(self, kind: int, message: bytes, at: int) -> None:
        """An Insert, Update, Delete or Truncate; `at` is where the relation's oid stands."""
        if kind == TRUNCATE:
            self._truncate(message, at)
        elif self.compiled is not None:
            self.compiled.begin(self.version)
            if not self.compiled.row(kind, message, at):
                raise _unheard_of(message, at)
            self._count(self.compiled)
        else:
            relation = self._relations.get(_uint(message, at)[0])
            if relation is None:
                raise _unheard_of(message, at)
            if isinstance(relation.rows, Gathered):
                self.rows += relation.rows.add(kind, message, at + 4, self.version)
                self.size += len(message)

    def gather(self, frames: Frames, at: int, *, enough: int, most: int, most_bytes: int) -> int:
        """Read frames from place `at` on; returns that of the first that was left to the caller.

        See `native.postgresql.Log.gather` for where it stops.
        """
        if self.compiled is None:
            raise AssertionError("frames are read where the compiled modules are at work")
        at = self.compiled.gather(frames, at, enough=enough, most=most, most_bytes=most_bytes)
        self._count(self.compiled)
        return at

    def _count(self, log: Log) -> None:
        self.rows, self.size, self.version = log.rows, log.size, log.version

    def _truncate(self, message: bytes, at: int) -> None:
        (count,) = _uint(message, at)
        for oid in struct.unpack_from(f">{count}I", message, at + 5):
            relation = self._relations.get(oid)
            if relation is None or relation.rows is None:
                continue
            if self.compiled is not None:
                self.compiled.begin(self.version)
                self.compiled.truncate(oid)
                self._count(self.compiled)
            else:
                relation.rows.truncate(self.version)
                self.rows += 1

    def take(self) -> list[TableChanges]:
        """All rows gathered so far, as the changes of a batch."""
        self.rows = self.size = 0
        if self.compiled is not None:
            self.compiled.taken()
        return [r.take() for r in self._relations.values() if r.rows]


def _only(key: Sequence[int], row: list[Any]) -> list[Any]:
    cells: list[Any] = [ABSENT] * len(row)
    for place in key:
        cells[place] = row[place]
    return cells


class _Without(dict[int, Any]):
    """Sort of a cell that carries no value -> what stands for it."""

    def __missing__(self, sort: int) -> Any:
        # Binary values come only where they were asked for.
        raise WarpError(f"a text, NULL or unchanged value was expected, found {chr(sort)!r}")


TupleReader = Callable[[bytes, int, Callable[[Sequence[Any]], None]], int]


@cache
def tuple_reader(width: int) -> TupleReader:
    """Reads a TupleData of so many cells, raw, into `extend`; returns where it ends.

    Written out cell by cell, since a loop takes a third longer and this is where the time goes.
    Kind and length of a cell are read at once, though NULLs have no length: hence PADDING.
    """
    lines = [
        "def read(message, at, extend):",
        f"    if message[at] << 8 | message[at + 1] != {width}:",
        "        raise wrong_width(message, at)",
        "    at += 2",
    ]
    for place in range(width):
        lines += [
            "    sort, length = cell(message, at)",
            f"    if sort == {_VALUE}:",
            "        at += 5",
            "        end = at + length",
            f"        c{place} = message[at:end]",
            "        at = end",
            "    else:",
            f"        c{place} = without[sort]",
            "        at += 1",
        ]
    row = "".join(f"c{place}, " for place in range(width))
    lines += [f"    extend(({row}))", "    return at"]
    known: dict[str, Any] = {
        "cell": _cell,
        "without": _Without({_NULL: None, _TOASTED: UNCHANGED}),
        "wrong_width": _wrong_width,
    }
    exec("\n".join(lines), known)  # noqa: S102 - only a number of ours is in it
    read: TupleReader = known["read"]
    return read


def _wrong_width(message: bytes, at: int) -> WarpError:
    found = message[at] << 8 | message[at + 1]
    return WarpError(f"as many cells as columns were expected, found {found}")


def _unheard_of(message: bytes, at: int) -> WarpError:
    return WarpError(f"a relation was expected before its rows, found rows of {_uint(message, at)}")
