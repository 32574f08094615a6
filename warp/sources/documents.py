"""BSON documents as rows that nobody has looked into yet.

Shaped by the compiled pass where that is at work, and by decoding them where it is not; both give
the same (`packed_documents`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from warp import native
from warp.model import Documents, Privacy, Shaped, TableId, TableSchema, TableSettings
from warp.sources import packed_documents
from warp.sources.bson_covering import BsonCovering
from warp.sources.bson_decoding import KEY, decode
from warp.sources.proposals import propose
from warp.sources.shaping import BARE, BLOCK, Shaping, bare_rows

EMPTY: Final = b"\x05\x00\x00\x00\x00"
"""The document of a TRUNCATE row."""


class BsonDocuments:
    """The documents of one table's changes, as the server sent them, decoded when asked for.

    A DELETE row's document is its key alone, a TRUNCATE row's is EMPTY; both are ABSENT in every
    other column.
    """

    __slots__ = ("_operations", "_raw", "_table")

    def __init__(
        self, table: TableId, raw: Sequence[bytes], operations: bytes | bytearray = b""
    ) -> None:
        """Without `operations` every document is a whole row."""
        self._table = table
        self._raw = raw
        self._operations = b"" if BARE.isdisjoint(operations) else operations

    def __len__(self) -> int:
        return len(self._raw)

    def documents(self) -> list[dict[str, Any]]:
        """All of them, decoded."""
        return [document for _, documents, _ in self._blocks() for document in documents]

    def _blocks(self) -> Iterator[tuple[Sequence[bytes], list[dict[str, Any]], list[int]]]:
        """A part of the documents at a time, decoded, and which of these say but their key."""
        for start in range(0, len(self._raw), BLOCK):
            raw = self._raw[start : start + BLOCK]
            documents = decode(raw)
            operations = self._operations[start : start + BLOCK]
            yield raw, documents, bare_rows(documents, operations)

    def shape(self, known: TableSchema, settings: TableSettings) -> Shaped:
        """Columns exactly as `known` lists them; what has none or does not fit goes to `_extra`."""
        if native.active():
            shaped = packed_documents.shape(self._raw, self._operations, known, settings)
            if shaped is not None:
                return shaped
        shaping = Shaping(known, settings)
        for raw, documents, bare in self._blocks():
            shaping.add(raw, documents, bare)
        return shaping.shaped()

    def describe(self, settings: TableSettings) -> TableSchema:
        """The schema these documents alone would propose, for a table nobody has seen yet."""
        whole: list[dict[str, Any]] = []
        ids: list[Any] = []
        for _, documents, rows in self._blocks():
            bare = set(rows)
            whole += [d for row, d in enumerate(documents) if row not in bare]
            ids += [documents[row][KEY] for row in rows if documents[row]]
        return propose(self._table, whole, settings, more_ids=ids)

    def covered(self, by: Privacy) -> tuple[BsonDocuments, frozenset[str]]:
        """With what the rules say in the place of values, and which rules met one."""
        covering = BsonCovering(by)
        raw = list(map(covering.cover, self._raw))
        return BsonDocuments(self._table, raw, self._operations), frozenset(covering.met)

    def taken(self, rows: Sequence[int]) -> BsonDocuments:
        """These of them, in this order."""
        operations = bytes(self._operations[row] for row in rows) if self._operations else b""
        return BsonDocuments(self._table, [self._raw[row] for row in rows], operations)

    def joined(self, more: Documents) -> BsonDocuments:
        """These and then those, all of them whole rows."""
        if not isinstance(more, BsonDocuments):
            raise TypeError("documents of one source are joined")
        return BsonDocuments(self._table, [*self._raw, *more._raw])
