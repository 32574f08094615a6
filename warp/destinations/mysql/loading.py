"""Rows to a table of the server: LOAD DATA LOCAL out of memory, or INSERTs of many rows each.

Both write the same cells; which of the two is at work is the server's choice (`local_infile`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from warp import faults
from warp.destinations.mysql.carriers import IN_HEX, is_bare, must_escape, texts
from warp.destinations.mysql.errors import NotAsSent
from warp.destinations.mysql.session import Session
from warp.model import Cells, Column, Kind

_LINES: Final = 5_000  # made at once, so that the memory for them is bounded (guarantee 9)
_STATEMENT: Final = 4 << 20  # bytes of one INSERT, where the server takes as much
_SPECIAL: Final = re.compile("[\\\\\t\n\0]")
_LOADED: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0"}
_QUOTED: Final = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"}
)


@dataclass(frozen=True, slots=True)
class Into:
    """Where cells go: a column's name as SQL, and the kind of its cells."""

    name: str
    column: Column


def into(name: str, kind: Kind) -> Into:
    return Into(name, Column("", kind))


class Loader:
    """Sends rows over one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._locally = True
        self._largest = 0  # bytes of a statement
        session.renewed.append(self._forget)

    def _forget(self) -> None:
        self._locally, self._largest = True, 0

    def load(
        self,
        table: str,
        places: Sequence[Into],
        columns: Sequence[Cells],
        *,
        rows: int,
        constants: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Rows into a table; `constants` are columns that have one value, as SQL, in all of them.

        NotAsSent where the server would store anything but what was sent.
        """
        if self._locally and not self._load_locally(table, places, columns, rows, constants):
            self._locally = False
        if not self._locally:
            self._insert(table, places, columns, rows, constants)

    def _load_locally(
        self,
        table: str,
        places: Sequence[Into],
        columns: Sequence[Cells],
        rows: int,
        constants: Sequence[tuple[str, str]],
    ) -> bool:
        named = [
            f"@h{n}" if place.column.kind in IN_HEX else place.name
            for n, place in enumerate(places)
        ]
        sets = [
            f"{place.name} = unhex(@h{n})"
            for n, place in enumerate(places)
            if place.column.kind in IN_HEX
        ]
        sets += [f"{name} = {value}" for name, value in constants]
        statement = (
            f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {table} CHARACTER SET utf8mb4"
            " FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'"
            f" ({', '.join(named)})" + (f" SET {', '.join(sets)}" if sets else "")
        )
        lines = b"".join(lines_of(places, columns, rows))
        faults.hit("in_load")
        answer = self._session.load_local(statement.replace("%%", "%"), lines)
        if answer is None:
            return False
        if answer.warnings or answer.rowcount != rows:
            raise self._not_as_sent(rows, answer.rowcount)
        return True

    def _not_as_sent(self, sent: int, landed: int) -> NotAsSent:
        # With LOCAL the server cannot stop halfway, so even strict mode only warns.
        for _, number, said in self._session.run("SHOW WARNINGS LIMIT 1").fetchall():
            return NotAsSent(number, said)
        return NotAsSent(1062, f"{sent} rows were sent, {landed} are there")

    def _insert(
        self,
        table: str,
        places: Sequence[Into],
        columns: Sequence[Cells],
        rows: int,
        constants: Sequence[tuple[str, str]],
    ) -> None:
        if not self._largest:
            [[largest]] = self._session.run("select @@max_allowed_packet").fetchall()
            self._largest = int(largest) - 1024
        names = ", ".join([*(place.name for place in places), *(name for name, _ in constants)])
        tail = "".join(f", {value}" for _, value in constants)
        head = f"INSERT INTO {table} ({names}) VALUES "
        most = min(_STATEMENT, self._largest)
        waiting: list[str] = []
        size = 0
        for row in rows_of(places, columns, rows):
            text = f"({row}{tail})"
            length = len(text.encode()) + 1
            if length + len(head) > self._largest:
                raise NotAsSent(1153, f"a row of {length} bytes, more than max_allowed_packet")
            if waiting and size + length > most:
                faults.hit("in_load")
                self._send(head, waiting)
                waiting, size = [], 0
            waiting.append(text)
            size += length
        if waiting:
            faults.hit("in_load")
            self._send(head, waiting)

    def _send(self, head: str, rows: Sequence[str]) -> None:
        statement = head + ",".join(row.replace("%", "%%") for row in rows)
        answer = self._session.run(statement)
        if answer.warnings:
            raise self._not_as_sent(len(rows), answer.rowcount)


# -- pure


def lines_of(places: Sequence[Into], columns: Sequence[Cells], rows: int) -> Iterable[bytes]:
    """What LOAD DATA reads, some thousand rows at a time."""
    for start in range(0, rows, _LINES):
        block = _block(places, columns, start, rows, _for_load)
        yield ("\n".join(map("\t".join, zip(*block, strict=True))) + "\n").encode()


def rows_of(places: Sequence[Into], columns: Sequence[Cells], rows: int) -> Iterable[str]:
    """The cells of each row as they stand in a statement."""
    for start in range(0, rows, _LINES):
        block = _block(places, columns, start, rows, _for_insert)
        yield from map(", ".join, zip(*block, strict=True))


def _block(
    places: Sequence[Into],
    columns: Sequence[Cells],
    start: int,
    rows: int,
    written: Callable[[Kind, list[str | None]], list[str]],
) -> list[list[str]]:
    whole = start == 0 and rows <= _LINES
    return [
        written(
            place.column.kind,
            texts(place.column, cells if whole else cells[start : start + _LINES]),
        )
        for place, cells in zip(places, columns, strict=True)
    ]


def _for_load(kind: Kind, cells: list[str | None]) -> list[str]:
    if must_escape(kind):
        if None in cells:
            return [r"\N" if c is None else _escaped(c) for c in cells]
        if _SPECIAL.search("".join(cells)) is None:  # type: ignore[arg-type]  # no None
            return cells  # type: ignore[return-value]
        return [_escaped(c) for c in cells]  # type: ignore[arg-type]
    if None in cells:
        return [r"\N" if c is None else c for c in cells]
    return cells  # type: ignore[return-value]


def _escaped(text: str) -> str:
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _LOADED[found[0]], text)


def _for_insert(kind: Kind, cells: list[str | None]) -> list[str]:
    if is_bare(kind):
        return ["NULL" if c is None else c for c in cells]
    if kind in IN_HEX:
        return ["NULL" if c is None else f"X'{c}'" for c in cells]
    if must_escape(kind):
        return ["NULL" if c is None else f"'{c.translate(_QUOTED)}'" for c in cells]
    return ["NULL" if c is None else f"'{c}'" for c in cells]
