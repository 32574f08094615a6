"""Cutting a table into key ranges, and reading one of them in short consistent views.

Keys are compared by the server only: where 'a' and 'A' are one key, where a column sorts by a
collation or by the numbers of an enum, only the server knows what lies between two of them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Final

from warp.digest.seams import BoundsOf, KeyRange
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Chunk, Edge, Invalid, KeySpan, Operation, TableChanges, TableId
from warp.mysql_family import identifier
from warp.sources.mysql.columns import Declared
from warp.sources.mysql.connection import CLOCK, SESSION, Connection, log_status
from warp.sources.mysql.errors import LOCK_WAIT, code_of
from warp.sources.mysql.position import NoLog, OwnFiles, Place, file_number
from warp.sources.mysql.reading import FULL_BYTES, Page, Reader, Row, of_rows
from warp.sources.mysql.schema import Table

_ATTEMPTS: Final = 1_000
_FIRST_PAGE: Final = 1_000  # rows, of a size not yet known
_LOOKED_UP_AT_ONCE: Final = 200  # keys of one statement
_SNAPSHOT_STATUS: Final = "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'"
_VIEW: Final = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
_LATER: Final = 0.005  # seconds
# While the global read lock is waited for, nobody else can write: so long, so often, so far apart.
_LOCK_SECONDS: Final = 1
_LOCK_ATTEMPTS: Final = 3
_LOCK_PAUSE: Final = 2.0
# The server ends a session that holds the lock and is not heard of, as of a worker that is paused.
_HELD_AT_MOST: Final = 5  # seconds


# -- bounds


def bound(values: Sequence[str]) -> str:
    """The key of a row as the text of a chunk's bound."""
    return json.dumps(list(values), ensure_ascii=False)


def unbound(text: str, keys: Sequence[Declared], table: TableId) -> list[str]:
    """The values of a bound as SQL."""
    try:
        values = json.loads(text)
        return [key.literal(value) for key, value in zip(keys, values, strict=True)]
    except (ValueError, TypeError) as error:
        raise SourceRefused(
            f"a bound of the key ({', '.join(k.name for k in keys)}) was expected, found {text!r} "
            f"({error}): the key has changed since the table was cut into chunks; "
            "run `cartridge-warp resync SCHEMA`",
            place=str(table),
        ) from error


# In the order that every server has for them: not so an enum, text, or MariaDB's UUID.
_IN_ONE_ORDER: Final = frozenset(
    {
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "bigint",
        "decimal",
        "date",
        "datetime",
        "timestamp",
    }
)


def bounds(chunk: Chunk, keys: Sequence[Declared]) -> BoundsOf | None:
    """The key range as carriers, where its keys have one order everywhere."""
    if not all(key.data_type in _IN_ONE_ORDER for key in keys):
        return None
    ends: list[tuple[Any, ...] | None] = []
    for bound_ in (chunk.lower, chunk.upper):
        values = None if bound_ is None else json.loads(bound_)
        if values is None:
            ends.append(None)
        elif len(values) != len(keys):
            return None
        else:
            pairs = zip(keys, values, strict=True)
            ends.append(tuple(key.cells([value.encode()])[0] for key, value in pairs))
    if any(isinstance(cell, Invalid) for end in ends if end is not None for cell in end):
        return None
    return BoundsOf(tuple(key.kind for key in keys), KeyRange(*ends))


def at_least(keys: Sequence[Declared], values: Sequence[str]) -> str:
    """`(a, b) >= (x, y)`, in the form for which both servers read no row outside of it."""
    return _beyond(keys, values, ">", ">=")


def below(keys: Sequence[Declared], values: Sequence[str]) -> str:
    return _beyond(keys, values, "<", "<")


def _beyond(keys: Sequence[Declared], values: Sequence[str], strict: str, last: str) -> str:
    name, value = identifier(keys[0].name), values[0]
    if len(keys) == 1:
        return f"{name} {last} {value}"
    rest = _beyond(keys[1:], values[1:], strict, last)
    return f"({name} {strict} {value} OR ({name} = {value} AND {rest}))"


def within(table: Table, lower: str | None, upper: str | None, *, after: bool = False) -> str:
    """The rows of a key range as a WHERE clause; without its lower end where `after` says so."""
    parts = []
    if lower is not None:
        values = unbound(lower, table.keys, table.id)
        parts.append(
            _beyond(table.keys, values, ">", ">") if after else at_least(table.keys, values)
        )
    if upper is not None:
        parts.append(below(table.keys, unbound(upper, table.keys, table.id)))
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _of(table: Table) -> str:
    name = identifier(table.id.namespace, table.id.name)
    return f"{name} FORCE INDEX ({identifier(table.index)})" if table.index else name


def cut(
    connection: Connection,
    table: Table,
    rows: int,
    lower: str | None = None,
    upper: str | None = None,
) -> list[Chunk]:
    """Key ranges of `rows` rows that together cover every key between two bounds."""
    if not table.key:
        return [Chunk(table.id, 0)]
    bounds: list[str | None] = [lower]
    while True:
        edge = _first(connection, table, within(table, bounds[-1], upper), max(1, rows))
        if edge is None or edge == bounds[-1]:
            break
        bounds.append(edge)
    bounds.append(upper)
    return [
        Chunk(table.id, number, lower, upper, rows if upper is not None else 0)
        for number, (lower, upper) in enumerate(pairwise(bounds))
    ]


def cut_within(connection: Connection, table: Table, wanted: KeySpan, rows: int) -> list[Chunk]:
    """Key ranges that cover the keys between two edges, as far as there are any."""
    names = [key.name for key in table.keys]
    if list(wanted.key) != names:
        raise SourceRefused(
            f"the key ({', '.join(wanted.key)}) was expected, found ({', '.join(names)}): it was "
            "changed since; run `cartridge-warp resync` without --where",
            place=str(table.id),
        )
    lower = upper = None
    if (edge := wanted.lower) is not None:
        beyond = _edge(table, edge, "at" if edge.inclusive else "after")
        lower = _first(connection, table, beyond)
        if lower is None:
            return []
    if (edge := wanted.upper) is not None:
        upper = _first(connection, table, _edge(table, edge, "after" if edge.inclusive else "at"))
    return cut(connection, table, rows, lower, upper)


def _edge(table: Table, edge: Edge, begins: str) -> str:
    """Keys that are at an edge or after it, or only those after it; by its columns alone."""
    keys = table.keys[: len(edge.values)]
    values = [key.literal(value) for key, value in zip(keys, edge.values, strict=True)]
    return f" WHERE {_beyond(keys, values, '>', '>=' if begins == 'at' else '>')}"


def _first(connection: Connection, table: Table, where: str, skipped: int = 0) -> str | None:
    """The bound of the first key that a condition leaves, after so many others."""
    wanted = ", ".join(key.as_bound for key in table.keys)
    order = ", ".join(identifier(key.name) for key in table.keys)
    found = connection.rows(
        f"SELECT {wanted} FROM {_of(table)}{where} ORDER BY {order} LIMIT 1 OFFSET {skipped}"
    )
    return bound([_shown(value) for value in found[0]]) if found else None


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return repr(value) if isinstance(value, float) else str(value)


# -- a view


def open_view(reader: Reader, closed: threading.Event, earlier: Place | None = None) -> Place:
    """Begin a read view; every transaction that it does not show is later than the place told.

    MySQL adds to gtid_executed after a transaction can be seen, in the log's order
    (binlog_order_commits), so the set read first is in the view.  MariaDB moves gtid_binlog_pos
    before that: there a view is taken until its own place in the log is not before that of the
    position, which the server tells with the view.  A MySQL without global ids moves the place in
    its files before that too, and tells nothing with a view: there commits are held up while both
    are taken, but only for the first page of a chunk.  What was in that view is in every later
    one, so `earlier`, the place of the page before, is told again.
    """
    if earlier is not None and isinstance(earlier.passed, OwnFiles):
        reader.one(_VIEW)
        return earlier
    place = read_place(reader)
    if isinstance(place.passed, OwnFiles):
        return _open_locked(reader, closed)
    for _ in range(_ATTEMPTS):
        reader.one(_VIEW)
        logged = not isinstance(place.passed, NoLog)
        if not (reader.server.is_mariadb and logged) or _shows(reader, place):
            return place
        reader.one("ROLLBACK")
        if closed.wait(_LATER):
            raise SourceUnavailable("the connector was closed")
    raise SourceUnavailable(
        f"a read view with everything up to {place.file}:{place.offset} was expected, found none "
        f"in {_ATTEMPTS} attempts: a commit at the source hangs"
    )


def read_place(reader: Reader) -> Place:
    """Where the log ends; of MariaDB first the position, then the file, so that it holds it."""
    if reader.server.is_mariadb:
        gtid = _said(reader.one("SELECT @@GLOBAL.gtid_binlog_pos"))
        status = reader.one("SHOW MASTER STATUS")
        if not status:
            return _place_without_log(reader)
        return Place.of_mariadb(gtid, _said(status[:1]), int(status[1] or 0))
    executed, mode, server = reader.one(
        "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_mode, @@server_uuid"
    )
    status = reader.one(log_status(reader.server))
    if not status:
        return _place_without_log(reader)
    if mode == b"ON":
        return Place.of_mysql((executed or b"").decode())
    file, offset, *_ = status
    return Place(OwnFiles((server or b"").decode()), (file or b"").decode(), int(offset or 0))


def _place_without_log(reader: Reader) -> Place:
    return Place(NoLog(int(_said(reader.one(CLOCK)))))


def _open_locked(reader: Reader, closed: threading.Event) -> Place:
    """A view and the place it stands at, taken while nobody commits.

    Whoever is in the log has ended the commit by then, so the view shows it (guarantee 4).  Short
    of the lock nothing tells: the place moves before a commit can be seen.
    """
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt and closed.wait(_LOCK_PAUSE):
            raise SourceUnavailable("the connector was closed")
        if _lock(reader):
            break
    else:
        raise SourceUnavailable(
            f"the global read lock was expected within {_LOCK_SECONDS} s, which a snapshot needs "
            f"for a moment where there are no global ids, found it held up {_LOCK_ATTEMPTS} times: "
            "a statement runs for long, such as a SELECT or an ALTER (SHOW PROCESSLIST); end it, "
            "or set gtid_mode = ON"
        )
    place = read_place(reader)
    reader.one(_VIEW)
    reader.one("UNLOCK TABLES")
    reader.one(_waiting(SESSION["lock_wait_timeout"], SESSION["wait_timeout"]))
    return place


def _lock(reader: Reader) -> bool:
    reader.one(_waiting(_LOCK_SECONDS, _HELD_AT_MOST))
    try:
        reader.one("FLUSH TABLES WITH READ LOCK")
    except SourceUnavailable as error:
        if code_of(error.__cause__ or error) != LOCK_WAIT:
            raise
        return False
    return True


def _waiting(for_lock: object, for_us: object) -> str:
    return f"SET SESSION lock_wait_timeout = {for_lock}, SESSION wait_timeout = {for_us}"


def _said(row: Row) -> str:
    return (row[0] or b"").decode() if row else ""


def _shows(reader: Reader, place: Place) -> bool:
    """Is the view at least as far as this place?"""
    found = {row[0]: row[1] for row in reader.stream(_SNAPSHOT_STATUS)}
    file = (found.get(b"Binlog_snapshot_file") or b"").decode()
    position = int(found.get(b"Binlog_snapshot_position") or 0)
    return (file_number(file), position) >= (file_number(place.file), place.offset)


# -- rows

Opener = Callable[[], AbstractContextManager[Reader]]
Parts = Iterator[tuple[Place, TableChanges | None]]


def read(
    opener: Opener, table: Table, chunk: Chunk, rows: Callable[[], int], closed: threading.Event
) -> Parts:
    """(where a view stood, up to `rows` rows of it, asked anew for each); at least one pair, also
    of an empty range."""
    found = (
        _pages(opener, table, chunk, rows, closed)
        if table.key
        else _whole(opener, table, rows, closed)
    )
    for place, page in found:
        yield place, changes(table, place.version, page) if page.rows else None
        if closed.is_set():
            # To end without an error would look like the end of the rows (guarantee 8).
            raise SourceUnavailable("the connector was closed", place=str(table.id))


def _pages(
    opener: Opener, table: Table, chunk: Chunk, rows: Callable[[], int], closed: threading.Event
) -> Iterator[tuple[Place, Page]]:
    """Rows in the order of their key, each page in a view of its own.

    It ends before the page is handed over: whoever is slow to write it holds up neither the
    server's cleaning of old rows nor an ALTER TABLE, and with that everybody behind it.
    """
    where = within(table, chunk.lower, chunk.upper)
    limit = min(rows(), _FIRST_PAGE)
    place: Place | None = None
    done = False
    while not done:
        with opener() as reader:
            while not done:
                place = open_view(reader, closed, place)
                # One row more than there are, so that the end of the result is read too.
                statement = _page_of(table, where, limit)
                found = reader.pages(statement, table.columns, limit + 1, behind=len(table.keys))
                page = next(found)
                if page.more:
                    reader.close()  # the rest of the page would have to be read first
                else:
                    reader.one("COMMIT")
                done = page.rows < limit and not page.more
                yield place, page
                if done:
                    break
                last = bound([_shown(cell) for cell in page.last])
                where = within(table, last, chunk.upper, after=True)
                limit = max(1, min(rows(), FULL_BYTES * page.rows // max(1, 2 * page.size)))
                if page.more:
                    break


def _page_of(table: Table, where: str, limit: int) -> str:
    """The first rows of a range, each with its key as a bound has it."""
    listed = [column.selected for column in table.columns]
    listed += [key.as_bound for key in table.keys]
    order = ", ".join(identifier(key.name) for key in table.keys)
    return f"SELECT {', '.join(listed)} FROM {_of(table)}{where} ORDER BY {order} LIMIT {limit}"


def _whole(
    opener: Opener, table: Table, rows: Callable[[], int], closed: threading.Event
) -> Iterator[tuple[Place, Page]]:
    """A table without a key, in one view: where to go on from, nobody could say."""
    with opener() as reader:
        place = open_view(reader, closed)
        for page in reader.pages(select(table), table.columns, rows()):
            yield place, page


def look_up(
    reader: Reader, table: Table, keys: Sequence[tuple[Any, ...]], closed: threading.Event
) -> TableChanges:
    """The rows of these keys, in one view."""
    place = open_view(reader, closed)
    found: list[Row] = []
    for first in range(0, len(keys), _LOOKED_UP_AT_ONCE):
        wanted = " OR ".join(
            "("
            + " AND ".join(
                f"{identifier(column.name)} = {column.written(value)}"
                for column, value in zip(table.keys, key, strict=True)
            )
            + ")"
            for key in keys[first : first + _LOOKED_UP_AT_ONCE]
        )
        found += reader.stream(select(table, f" WHERE {wanted}"))
    return changes(table, place.version, of_rows(found, table.columns))


def select(table: Table, where: str = "") -> str:
    """Every column of some rows, in the order of the table's schema."""
    listed = ", ".join(column.selected for column in table.columns)
    return f"SELECT {listed} FROM {_of(table)}{where}"


def changes(table: Table, version: int, page: Page) -> TableChanges:
    """Rows of `select`, all at one version."""
    operations = bytearray((Operation.READ,)) * page.rows
    versions = [version] * page.rows
    return TableChanges(table.id, operations, versions, table.proposal(), page.columns)
