"""Large results, streamed: rows of the bytes that the server sent, or pages of columns.

Pages are read from the driver's own socket by the compiled `warp.native.mysql_rows` where it is at
work: no Python object is made for a row or a cell.  Otherwise the driver reads the rows, and
`columns` says what each cell means; what the compiled half does not surely know, it asks there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from warp import native
from warp.errors import SourceUnavailable
from warp.model import Cells
from warp.mysql_family import Server
from warp.native import Packed
from warp.sources.mysql.columns import Declared
from warp.sources.mysql.connection import Connection, MysqlOptions
from warp.sources.mysql.errors import refused, translated

Row = tuple[bytes | None, ...]

# Several batches of a chunk are under way at once, each as bytes, as rows or as both, and eight
# chunks in one worker: they shall fit into 300 MB (guarantee 9).
FULL_BYTES: Final = 4 << 20
_BUFFER: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a result that follow each other."""

    columns: Sequence[Cells]
    rows: int
    size: int  # bytes of all their cells
    last: Row = ()  # of the last row: the cells behind those of the columns
    more: bool = False  # the result was not read to its end


class Reader:
    """One connection whose results are not held in memory."""

    def __init__(self, options: MysqlOptions) -> None:
        self._connection = Connection(options, raw=True)
        self._read_timeout = options.read_timeout
        self.server: Server = self._connection.server

    def one(self, statement: str) -> Row:
        """The only row of a small result; an empty tuple where there is none."""
        return next(iter(self._connection.rows(statement)), ())

    def stream(self, statement: str) -> Iterator[Row]:
        """The rows of a result, one by one: a row may be as large as its server allows."""
        with translated(self._doing):
            cursor = self._begun(statement)
            try:
                while (row := cursor.fetchone()) is not None:
                    yield row
            finally:
                _leave(cursor)

    def pages(
        self, statement: str, columns: Sequence[Declared], rows: int, *, behind: int = 0
    ) -> Iterator[Page]:
        """A result so many rows at a time, or fewer where they are large; at least one page.

        `behind` more cells follow those of the columns in each row.
        """
        if native.active():
            yield from self._packed(statement, columns, rows, behind)
        else:
            yield from _listed(self.stream(statement), columns, rows)

    def _packed(
        self, statement: str, columns: Sequence[Declared], rows: int, behind: int
    ) -> Iterator[Page]:
        with translated(self._doing):
            cursor = self._begun(statement)
            try:
                driver: Any = self._connection.driver
                parsed = native.mysql_rows.Rows(
                    [(column.kind, column.reading) for column in columns],
                    behind,
                    rows,
                    FULL_BYTES,
                    driver._next_seq_id,
                )
                came = _Arrivals(driver, self._read_timeout)
                first = True
                while not parsed.ended:
                    self._fill(parsed, came)
                    if parsed.ended:
                        _leave(cursor)  # now: whoever has the last page may ask something else
                    if parsed.rows or first:
                        yield _page(parsed, columns)
                    first = False
            finally:
                _leave(cursor)

    def _fill(self, parsed: native.mysql_rows.Rows, came: _Arrivals) -> None:
        """One page, or what is left of the result."""
        try:
            while True:
                came.start = parsed.feed(came.buffer, came.start, came.end)
                if parsed.full or parsed.ended:
                    break
                came.more()
        except ValueError as error:
            self.end()
            raise self._lost(str(error)) from error
        except EOFError as error:
            raise self._lost("the connection was closed") from error
        if parsed.refused is not None:
            raise refused(parsed.refused, self._doing)

    def _begun(self, statement: str) -> Any:
        cursor = self._connection.driver.cursor(pymysql.cursors.SSCursor)
        cursor.execute(statement)
        return cursor

    @property
    def _doing(self) -> str:
        return f"read from {self._connection.login.place}"

    def _lost(self, why: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"all rows of a result were expected from {self._connection.login.place}, found: {why}"
        )

    def end(self) -> None:
        """From any thread: a read that waits ends with an error."""
        self._connection.end()

    def close(self) -> None:
        # The socket first, so that no unread rows are waited for.
        self._connection.end()
        self._connection.close()


def _leave(cursor: Any) -> None:
    """Of rows that are not left to it the driver would read all, even of a closed connection."""
    if (result := getattr(cursor, "_result", None)) is not None:
        result.unbuffered_active = False


class _Arrivals:
    """What has come from the server and was not taken yet, TLS or not."""

    def __init__(self, driver: Any, timeout: float) -> None:
        self._socket = driver._sock
        self._socket.settimeout(timeout)
        self.buffer = bytearray(_BUFFER)
        self.start = self.end = 0
        # The driver has read the names of the columns through a buffer of its own, and perhaps
        # more than them: asked once, it gives that up, or what comes next.
        self._driver_read: Callable[[int], bytes] | None = driver._rfile.read1

    def more(self) -> None:
        """Wait for more bytes; EOFError where the connection was closed."""
        if self._driver_read is not None:
            piece = self._driver_read(_BUFFER)
            self._driver_read = None
            self.buffer[: len(piece)] = piece
            self.end = len(piece)
            if not piece:
                raise EOFError
            return
        if self.start == self.end:
            self.start = self.end = 0
        if self.end == len(self.buffer):
            self._make_room()
        with memoryview(self.buffer) as view:
            count = self._socket.recv_into(view[self.end :])
        if not count:
            raise EOFError
        self.end += count

    def _make_room(self) -> None:
        """What was not taken to the front of a buffer that is large enough, and no larger."""
        held = self.buffer[self.start : self.end]
        size = _BUFFER
        while size < 2 * len(held):
            size *= 2
        if size != len(self.buffer):
            self.buffer = bytearray(size)
        self.buffer[: len(held)] = held
        self.start, self.end = 0, len(held)


def _page(parsed: native.mysql_rows.Rows, columns: Sequence[Declared]) -> Page:
    rows, size, more = parsed.rows, parsed.size, not parsed.ended
    packed, left, last = parsed.taken()
    cells: list[Cells] = [
        _replaced(column, part, odd) if odd else part
        for column, part, odd in zip(columns, packed, left, strict=True)
    ]
    return Page(cells, rows, size, last, more)


def _replaced(column: Declared, part: Packed, odd: dict[int, bytes]) -> Cells:
    """With the cells that were left to the reference."""
    return part.replaced(dict(zip(odd, column.cells(list(odd.values())), strict=True)))


def _listed(stream: Iterator[Row], columns: Sequence[Declared], rows: int) -> Iterator[Page]:
    """The same by the driver."""
    found: list[Row] = []
    size, first = 0, True
    for row in stream:
        found.append(row)
        size += sum(map(len, filter(None, row)))
        if len(found) >= rows or size >= FULL_BYTES:
            yield of_rows(found, columns, size, more=True)
            found, size, first = [], 0, False
    if found or first:
        yield of_rows(found, columns, size)


def of_rows(
    rows: Sequence[Row], columns: Sequence[Declared], size: int = 0, *, more: bool = False
) -> Page:
    """Rows, each with the cells of the columns first, as a page."""
    if not rows:
        return Page([[] for _ in columns], 0, 0)
    raw = zip(*rows, strict=True)
    cells = [column.cells(part) for column, part in zip(columns, raw, strict=False)]
    return Page(cells, len(rows), size, rows[-1][len(columns) :], more)
