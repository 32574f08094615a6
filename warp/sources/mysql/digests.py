"""Rows of a table summed up by the server itself, where its types have our forms in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from warp.digest import servers
from warp.digest.comparing import Key
from warp.digest.seams import Compared
from warp.digest.sums import Sums
from warp.errors import SourceRefused
from warp.model import Chunk, Column
from warp.mysql_family import identifier
from warp.sources.mysql.reading import Reader
from warp.sources.mysql.schema import Table
from warp.sources.mysql.snapshot import within

_EXACT: Final = frozenset(
    {
        *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal"),
        *("date", "datetime", "timestamp"),
        *("char", "varchar", "tinytext", "text", "mediumtext", "longtext"),
        *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
    }
)

Opener = Callable[[], AbstractContextManager[Reader]]


class ServerSums:
    """As `warp.digest.seams.Summing`: of one chunk."""

    def __init__(self, opener: Opener, table: Table, chunk: Chunk, compared: Compared) -> None:
        self._opener = opener
        self._compared = compared
        self._key = _text(compared.key)
        self._row = _text(compared.columns)
        where = within(table, chunk.lower, chunk.upper) if table.key else ""
        place = identifier(table.id.namespace, table.id.name)
        self._from = f"FROM {place}{where or ' WHERE TRUE'}"
        self._place = str(table.id)

    @staticmethod
    def can(table: Table, compared: Compared) -> bool:
        types = {column.name: column.data_type for column in table.columns}
        return all(types.get(column.source) in _EXACT for column in compared.columns)

    def total(self) -> Sums:
        [row] = self._ask(f"SELECT {servers.mysql_sums(self._row)} {self._from}")
        return self._sums(row)

    def leaves(self) -> dict[int, Sums]:
        leaf = servers.mysql_leaf(self._key)
        statement = f"SELECT {leaf}, {servers.mysql_sums(self._row)} {self._from} GROUP BY 1"
        return {int(leaf): self._sums(row) for leaf, *row in self._ask(statement)}

    def rows(self, leaves: Sequence[int]) -> list[tuple[Key, bytes]]:
        forms = [servers.mysql_form(c.kind, identifier(c.source)) for c in self._compared.key]
        key = ", ".join(str(form) for form in forms)
        listed = ", ".join(str(int(leaf)) for leaf in leaves)
        statement = (
            f"SELECT {key}, LEFT(SHA2({self._row}, 256), 32) {self._from}"
            f" AND {servers.mysql_leaf(self._key)} IN ({listed})"
        )
        found = self._ask(statement)
        return [(tuple(map(_decoded, k)), bytes.fromhex(_decoded(h) or "")) for *k, h in found]

    def _sums(self, row: Sequence[Any]) -> Sums:
        counted, hashed, high, low = (int(cell or 0) for cell in row)
        if counted != hashed:
            raise SourceRefused(
                f"expected every row to fit into max_allowed_packet, found {counted - hashed} "
                "that the server cannot hash; raise it",
                place=self._place,
            )
        return Sums.told(counted, high, low)

    def _ask(self, statement: str) -> list[Any]:
        with self._opener() as reader:
            return list(reader.stream(statement))


def _decoded(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode()


def _text(columns: Sequence[Column]) -> str:
    made = servers.mysql_text([(c.kind, identifier(c.source)) for c in columns])
    if made is None:
        raise AssertionError("asked for kinds whose forms the server has")
    return made
