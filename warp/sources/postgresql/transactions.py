"""Large transactions that come before their end is known (protocol 2, `streaming`).

The server sends their changes as they are made and says at last whether they were committed.  They
wait here as the bytes they came in: in memory up to a bound, beyond it in a temporary file.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Generator, Iterator
from typing import IO, Final

_frame = struct.Struct(">II")
_READ_AT_ONCE: Final = 1 << 20


class _Transaction:
    """The messages of one transaction in progress, oldest first."""

    __slots__ = ("aborted", "file", "tail")

    def __init__(self) -> None:
        self.tail = bytearray()
        self.file: IO[bytes] | None = None
        self.aborted: set[int] = set()  # subtransactions that were rolled back

    def spill(self) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile(prefix="cartridge-warp-")  # noqa: SIM115 - kept open
        self.file.write(self.tail)
        self.tail = bytearray()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """(subtransaction, message) of all, those of aborted ones too."""
        if self.file is not None:
            self.file.seek(0)
            rest = b""
            while block := self.file.read(_READ_AT_ONCE):
                rest = yield from _frames(rest + block)
        yield from _frames(bytes(self.tail))


def _frames(block: bytes) -> Generator[tuple[int, bytes], None, bytes]:
    """The whole frames of a block; returns what is left of the last one."""
    at, size = 0, len(block)
    while at + 8 <= size:
        length, xid = _frame.unpack_from(block, at)
        if at + 8 + length > size:
            break
        at += 8
        yield xid, block[at : at + length]
        at += length
    return block[at:]


class InProgress:
    """All transactions in progress, `limit` bytes of them in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._open: dict[int, _Transaction] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, xid: int, subtransaction: int, message: bytes) -> None:
        transaction = self._open.get(xid)
        if transaction is None:
            transaction = self._open[xid] = _Transaction()
        transaction.tail += _frame.pack(len(message), subtransaction)
        transaction.tail += message
        self._held += 8 + len(message)
        if self._held > self._limit:
            largest = max(self._open.values(), key=lambda each: len(each.tail))
            self._held -= len(largest.tail)
            largest.spill()

    def abort(self, xid: int, subtransaction: int) -> None:
        """Forget the transaction, or one of its subtransactions."""
        transaction = self._open.get(xid)
        if transaction is None:
            return
        if subtransaction == xid:
            self._forget(xid)
        else:
            transaction.aborted.add(subtransaction)

    def commit(self, xid: int) -> Iterator[tuple[bytes, bool]]:
        """(message, was it rolled back?) of the transaction, oldest first; forgets it at the end.

        What relations look like was said once, maybe in a part that was rolled back, so those
        messages are needed in any case.
        """
        transaction = self._open.get(xid)
        if transaction is None:
            return
        try:
            for subtransaction, message in transaction.messages():
                yield message, subtransaction in transaction.aborted
        finally:
            self._forget(xid)

    def _forget(self, xid: int) -> None:
        transaction = self._open.pop(xid)
        self._held -= len(transaction.tail)
        transaction.close()

    def close(self) -> None:
        for xid in list(self._open):
            self._forget(xid)
